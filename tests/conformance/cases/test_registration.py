"""The registration cases pass where all is right, and say what is wrong."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, ClassVar

from orbtrio.conformance.engine_stage import EngineStage
from orbtrio.conformance.model import Verdict, catalogue
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.cases.judging import EngineCases, judge

if TYPE_CHECKING:
    from pathlib import Path


class TestRegistration(EngineCases):
    CASES = ("ORB-REG-01", "ORB-REG-02", "ORB-REG-03", "ORB-REG-04", "ORB-REG-05")
    SAYS: ClassVar = {
        "greets-workers": "is sent nothing while there are no jobs",
        "any-secret": "whose secret is wrong",
        "secret-by-prefix": "whose secret is wrong (shorter)",
        "wrong-secret-1000": "closed with 1000",
        "missing-secret-accepted": "secret is missing",
        "missing-type-accepted": "a worker with",
        "any-worker-type": "no_such_type_of_worker",
    }


def test_a_target_that_knows_every_type_is_not_asked_for_unknown_ones(tmp_path: Path) -> None:
    conditions = Conditions(unknown_type=None)
    assert judge("ORB-REG-05", tmp_path, conditions=conditions).verdict is Verdict.SKIP


def test_a_printed_type_that_the_target_does_not_know_is_replaced(tmp_path: Path) -> None:
    conditions = Conditions(types=("llm", "caption", "vlm", "segmentation"))
    assert judge("ORB-REG-01", tmp_path, conditions=conditions).verdict is Verdict.PASS


def test_a_secret_without_letters_is_not_wrong_in_another_case(tmp_path: Path) -> None:
    conditions = Conditions(secret="1234567890")
    plan = {"kind": "other case", "text": "", "right_too": False}
    world = SimulatedWorld(ModelEngine(tmp_path, secret=conditions.secret))
    stage = EngineStage(world, conditions, collections.Counter(), nonce="plan")
    assert catalogue()["ORB-REG-02"].play(stage, plan) is None

"""The registration cases pass where all is right, and say what is wrong."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import pytest

import orbtrio.conformance.cases.registration  # noqa: F401
from orbtrio.conformance.engine_stage import EngineStage
from orbtrio.conformance.model import Verdict, catalogue
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.cases.judging import complaint, faults_for, judge

if TYPE_CHECKING:
    from pathlib import Path

CASES = ("ORB-REG-01", "ORB-REG-02", "ORB-REG-03", "ORB-REG-04", "ORB-REG-05")

# What the report of each fault has to say.
SAYS = {
    "greets-workers": "is sent nothing while there are no jobs",
    "any-secret": "whose secret is wrong",
    "secret-by-prefix": "whose secret is wrong (shorter)",
    "wrong-secret-1000": "closed with 1000",
    "missing-secret-accepted": "secret is missing",
    "missing-type-accepted": "a worker with",
    "any-worker-type": "no_such_type_of_worker",
}


@pytest.mark.parametrize("profile", ["spec", "orbtrio", "hardened"])
@pytest.mark.parametrize("case_id", CASES)
def test_the_model_passes(case_id: str, profile: str, tmp_path: Path) -> None:
    result = judge(case_id, tmp_path, profile=profile)
    assert result.verdict in (Verdict.PASS, Verdict.INFO, Verdict.SKIP), result
    assert result.verdict is Verdict.PASS or profile != "hardened"


@pytest.mark.parametrize(("name", "case_id"), faults_for(*CASES))
def test_a_fault_is_told_in_words(name: str, case_id: str, tmp_path: Path) -> None:
    assert SAYS[name] in complaint(name, case_id, tmp_path)


def test_each_case_notices_a_fault() -> None:
    assert {case_id for _, case_id in faults_for(*CASES)} == set(CASES)


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

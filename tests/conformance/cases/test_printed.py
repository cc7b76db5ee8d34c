"""The spec's own messages: right programs do with them what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from orbtrio.conformance import suite
from orbtrio.conformance.model import Verdict
from orbtrio.conformance.profiles import load_profile
from orbtrio.conformance.runner import Runner
from orbtrio.conformance.search import Options
from orbtrio.conformance.selftest import zoo_engine, zoo_worker

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.model import CaseResult
    from orbtrio.conformance.runner import Environment


def judge(target: Environment, case_id: str, profile: str = "spec") -> CaseResult:
    options = Options(seed=1, examples=4, shrink_seconds=0)
    return Runner(target, load_profile(profile), options).judge(suite.all_cases()[case_id], 3600)


@pytest.mark.parametrize("profile", ["spec", "orbtrio", "hardened"])
def test_the_model_engine_does_what_is_printed(tmp_path: Path, profile: str) -> None:
    assert judge(zoo_engine((), tmp_path), "ORB-CNV-04", profile).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("mutant", "seen"),
    [
        ("flat-jobs", "prompt_name|filepath"),
        ("relative-path", "it has not"),
        ("errors-swallowed", "0"),
        ("text-mode", "it has not"),
    ],
)
def test_an_engine_that_does_something_else_is_found(tmp_path: Path, mutant: str, seen: str) -> None:
    result = judge(zoo_engine((mutant,), tmp_path), "ORB-CNV-04")
    assert result.verdict is Verdict.FAIL
    assert result.counterexample is not None
    assert any(part in result.counterexample.seen for part in seen.split("|"))


def test_an_engine_without_that_type_is_let_off(tmp_path: Path) -> None:
    target = zoo_engine((), tmp_path)
    target.conditions = attrs.evolve(target.conditions, types=("llm", "vlm", "segmentation", "caption"))
    assert judge(target, "ORB-CNV-04").verdict is Verdict.SKIP


def test_the_model_worker_answers_what_is_printed(tmp_path: Path) -> None:
    assert judge(zoo_worker((), tmp_path, "embedding"), "ORB-WRK-25").verdict is Verdict.PASS
    assert judge(zoo_worker((), tmp_path, "llm"), "ORB-WRK-25").verdict is Verdict.SKIP


@pytest.mark.parametrize("mutant", ["worker-drops-last-answer", "worker-answers-twice"])
def test_a_worker_that_answers_something_else_is_found(tmp_path: Path, mutant: str) -> None:
    assert judge(zoo_worker((mutant,), tmp_path, "embedding"), "ORB-WRK-25").verdict is Verdict.FAIL

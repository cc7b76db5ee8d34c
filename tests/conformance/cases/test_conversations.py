"""The three conversations: right engines pass, and what is wrong is found in the midst of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orbtrio.conformance import suite
from orbtrio.conformance.model import Verdict
from orbtrio.conformance.profiles import load_profile
from orbtrio.conformance.runner import Runner
from orbtrio.conformance.search import Options
from orbtrio.conformance.selftest import zoo_engine

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.model import CaseResult


def judge(
    case_id: str,
    folder: Path,
    *mutants: str,
    profile: str = "orbtrio",
    examples: int = 60,
    shrink_seconds: float = 1.0,
) -> CaseResult:
    runner = Runner(
        zoo_engine(mutants, folder),
        load_profile(profile),
        Options(seed=1, examples=examples, shrink_seconds=shrink_seconds),
    )
    return runner.judge(suite.all_cases()[case_id], 3600)


@pytest.mark.parametrize("case_id", ["ORB-CNV-01", "ORB-CNV-02", "ORB-CNV-03"])
def test_the_model_passes(case_id: str, tmp_path: Path) -> None:
    assert judge(case_id, tmp_path).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("case_id", "mutant"),
    [
        ("ORB-CNV-01", "duplicates-delivered"),
        ("ORB-CNV-01", "foreign-answers"),
        ("ORB-CNV-01", "queued-jobs-lost"),
        ("ORB-CNV-02", "first-job-deletes"),
        ("ORB-CNV-03", "unknown-id-closes"),
    ],
)
def test_what_is_wrong_is_found(case_id: str, mutant: str, tmp_path: Path) -> None:
    result = judge(case_id, tmp_path, mutant, examples=300)
    if mutant == "unknown-id-closes":
        # An engine may close whom it likes, as long as nobody else's job suffers.
        assert result.verdict is Verdict.PASS
    else:
        assert result.verdict is Verdict.FAIL


@pytest.mark.timeout(300)
def test_a_small_conversation_is_left(tmp_path: Path) -> None:
    # Twelve seconds on a quiet machine; cut short, it would be a larger one.
    result = judge("ORB-CNV-01", tmp_path, "duplicates-delivered", examples=300, shrink_seconds=200)
    found = result.counterexample
    assert found is not None
    assert len(found.plan) <= 8


def test_jobs_of_a_lost_worker_may_wait_under_the_spec(tmp_path: Path) -> None:
    assert judge("ORB-CNV-01", tmp_path, "jobs-in-hand-lost", profile="spec").verdict is Verdict.PASS
    assert judge("ORB-CNV-01", tmp_path, "jobs-in-hand-lost").verdict is Verdict.FAIL

"""Answers: the model passes, and each fault of the zoo is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import orbtrio.conformance.cases.answers  # noqa: F401 (defines the cases)
from orbtrio.conformance.model import Verdict
from orbtrio.conformance.zoo.mutants import mutants
from tests.conformance.cases.judging import complaint, judge

if TYPE_CHECKING:
    from pathlib import Path


CASES = [f"ORB-OUT-{number:02}" for number in (7, 8, 9, 10, 12)]


@pytest.mark.parametrize("profile", ["spec", "orbtrio", "hardened"])
@pytest.mark.parametrize("case_id", CASES)
def test_the_model_passes(case_id: str, profile: str, tmp_path: Path) -> None:
    result = judge(case_id, tmp_path, profile=profile)
    assert result.verdict is Verdict.PASS, result


@pytest.mark.parametrize(
    ("name", "case_id", "words"),
    [
        ("errors-swallowed", "ORB-OUT-07", "those with an error"),
        ("errors-retried", "ORB-OUT-07", "those with an error"),
        ("one-message-per-batch", "ORB-OUT-08", "of its batch it has not"),
        ("job-id-never-free", "ORB-OUT-09", "job 'again-0'"),
        ("one-bad-entry-spoils-all", "ORB-OUT-10", "ignored as a whole"),
        ("late-answer-closes", "ORB-OUT-12", "its worker is disconnected"),
    ],
)
def test_each_fault_is_named(name: str, case_id: str, words: str, tmp_path: Path) -> None:
    assert words in complaint(name, case_id, tmp_path)


@pytest.mark.parametrize(
    ("name", "case_id", "verdict"),
    [
        ("one-bad-entry-spoils-all", "ORB-OUT-10", Verdict.NON_STRICT),
        ("unknown-id-closes", "ORB-OUT-10", Verdict.NON_STRICT),
        ("foreign-answers", "ORB-OUT-12", Verdict.PASS),
        ("duplicates-delivered", "ORB-OUT-12", Verdict.FAIL),
    ],
)
def test_the_text_allows_more(name: str, case_id: str, verdict: Verdict, tmp_path: Path) -> None:
    assert judge(case_id, tmp_path, engine=mutants()[name].faulty, profile="spec").verdict is verdict

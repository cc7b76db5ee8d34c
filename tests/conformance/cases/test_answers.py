"""Answers: the model passes, and each fault of the zoo is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from orbtrio.conformance.model import Verdict
from orbtrio.conformance.zoo.mutants import mutants
from tests.conformance.cases.judging import EngineCases, judge

if TYPE_CHECKING:
    from pathlib import Path


class TestAnswers(EngineCases):
    CASES = tuple(f"ORB-OUT-{number:02}" for number in (7, 8, 9, 10, 12))
    SAYS: ClassVar = {
        "errors-swallowed": "those with an error",
        "errors-retried": "those with an error",
        "one-message-per-batch": "of its batch it has not",
        "job-id-never-free": "job 'again-0'",
        "one-bad-entry-spoils-all": "ignored as a whole",
        "late-answer-closes": "its worker is disconnected",
    }


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

"""Answers: the model passes, and each fault of the zoo is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from orbtrio.conformance.model import Verdict
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutants
from tests.conformance.cases.judging import EngineCases, judge

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.zoo.dispatch import Client, Job


class TestOutputs(EngineCases):
    CASES = tuple(f"ORB-OUT-{number:02}" for number in (1, 2, 3, 4, 5, 6))
    SAYS: ClassVar = {
        "answers-twice": "client#1 got 2",
        "job-id-as-text": "others are changed or refused",
        "results-by-position": "gets the answer that its worker gave to it",
        "duplicates-delivered": "has 2 answers",
        "foreign-answers": "one worker can answer for all others",
        "unknown-id-closes": "its worker is disconnected",
    }


@pytest.mark.parametrize(
    ("name", "case_id", "verdict"),
    [
        ("job-id-as-text", "ORB-OUT-02", Verdict.PASS),
        ("duplicates-delivered", "ORB-OUT-04", Verdict.FAIL),
        ("foreign-answers", "ORB-OUT-05", Verdict.NON_STRICT),
        ("unknown-id-closes", "ORB-OUT-06", Verdict.NON_STRICT),
        ("everybodys-answers", "ORB-OUT-01", Verdict.FAIL),
        ("errors-swallowed", "ORB-OUT-01", Verdict.PASS),
    ],
)
def test_the_text_allows_more(name: str, case_id: str, verdict: Verdict, tmp_path: Path) -> None:
    assert judge(case_id, tmp_path, engine=mutants()[name].faulty, profile="spec").verdict is verdict


class SilentEngine(ModelEngine):
    """Answers nobody but the canary, whose type is another."""

    def answer(self, client: Client, job: Job, entry: dict[str, Any]) -> None:
        if job.worker_type == "caption":
            super().answer(client, job, entry)


def test_an_engine_that_answers_nobody_fails(tmp_path: Path) -> None:
    found = judge("ORB-OUT-01", tmp_path, engine=SilentEngine, profile="spec").counterexample
    assert found is not None
    assert found.seen == "job 'j1' of client#1 has no answer, like 0 others"

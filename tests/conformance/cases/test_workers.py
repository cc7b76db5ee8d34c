"""What a worker does with batches: the model passes, and each fault is noticed and named."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from orbtrio.conformance.model import Verdict
from tests.conformance.cases.worker_judging import WorkerCases, judge

if TYPE_CHECKING:
    from pathlib import Path


class TestWorkers(WorkerCases):
    CASES = tuple(f"ORB-WRK-{number:02}" for number in (*range(1, 9), 16))
    SAYS: ClassVar = {
        "worker-never-registers": "connects and sends its registration",
        "worker-registers-late": "its first message came after 15.0 s",
        "worker-wrong-type-field": '"type": "register"',
        "worker-secret-in-config": "seen: none",
        "worker-own-batch-size": "numbers of its own",
        "worker-drops-last-answer": "no answer to job-",
        "worker-answers-twice": "2 answers",
        "worker-reports-progress": "worker_progress",
        "worker-reads-only-id": "by its job_id",
        "worker-prefers-job-id": "by its job_id",
        "worker-all-or-nothing": "the batch failed",
        "worker-error-is-a-map": "error must be a text",
        "worker-error-beside-results": "results or an error, never both",
        "worker-dies-on-unknown-fields": "the target's process ended",
        "worker-refuses-unknown-fields": "unknown field",
        "worker-forgets-while-busy": "sent back to back",
        "worker-holds-two-batches": "sent back to back",
        "worker-dies-on-second-batch": "the target's process ended",
        "worker-garbage-for-nothing": "no entries for a batch without jobs",
        "worker-dies-on-empty-batch": "the target's process ended",
        "worker-full-batch-refused": "7 of them get an error",
        "worker-intricate-batch-skipped": "no answer to job-",
    }


def test_own_numbers_are_tolerated_by_the_spec(tmp_path: Path) -> None:
    result = judge("ORB-WRK-01", tmp_path, "worker-own-batch-size", profile="spec")
    assert (result.verdict, result.reading) == (Verdict.NON_STRICT, "own")


def test_a_worker_without_bad_inputs_has_no_errors_to_judge(tmp_path: Path) -> None:
    result = judge("ORB-WRK-05", tmp_path, worker_type="echo")
    assert result.verdict is Verdict.PASS
    assert any("made a result of it" in event.text for event in result.events)

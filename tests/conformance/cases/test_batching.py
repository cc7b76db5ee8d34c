"""When batches leave: the model passes, and each fault is named in words that somebody can act upon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from orbtrio.conformance.model import Verdict
from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.cases.judging import EngineCases, judge

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.zoo.dispatch import Worker


class TestBatching(EngineCases):
    CASES = tuple(f"ORB-BAT-{number:02}" for number in range(1, 6))
    SAYS: ClassVar = {
        "debounced-timer": "in which",
        "size-off-by-one": "a batch of",
        "full-batches-wait": "at once, not after its 30000 ms",
        "leftovers-forgotten": "left behind are sent to worker#1 after",
        "empty-batch-first": "a batch with none",
    }


class Hurried(ModelEngine):
    """Sends whatever is there after ten milliseconds."""

    def latency_of(self, config: dict[str, Any]) -> float:
        return min(super().latency_of(config), 0.01)


class OldTimerRunsOn(ModelEngine):
    """What is left behind by a full batch leaves with the timer of that batch."""

    def send_batch(self, worker: Worker) -> None:
        oldest = worker.queue[0].queued_at
        super().send_batch(worker)
        for job in worker.queue:
            job.queued_at = oldest


@pytest.mark.parametrize(
    ("case_id", "engine"),
    [("ORB-BAT-01", Hurried), ("ORB-BAT-04", OldTimerRunsOn)],
)
def test_batches_that_leave_too_early_are_told(
    case_id: str, engine: type[ModelEngine], tmp_path: Path
) -> None:
    mild = judge(case_id, tmp_path / "mild", engine=engine, profile="spec", examples=1)
    strict = judge(case_id, tmp_path / "strict", engine=engine, profile="orbtrio", examples=1)
    assert mild.reading == "early"
    assert mild.verdict is Verdict.NON_STRICT
    assert strict.verdict is Verdict.FAIL


def test_a_batch_that_could_not_be_filled_in_time_tells_nothing(tmp_path: Path) -> None:
    result = judge("ORB-BAT-04", tmp_path, engine=Hurried, examples=10)
    assert "left before the batch could be filled" in str(result.reason) or result.verdict is Verdict.FAIL

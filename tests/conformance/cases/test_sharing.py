"""Several workers: the model passes, faults are named."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from orbtrio.conformance.cases.sharing import all_workers_get_work
from orbtrio.conformance.model import Verdict
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutants
from tests.conformance.cases.judging import EngineCases, judge, stage_around

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.zoo.dispatch import Job, Worker


class TestSharing(EngineCases):
    CASES = ("ORB-MUL-01", "ORB-MUL-02", "ORB-MUL-03", "ORB-SES-01", "ORB-SES-02")
    SAYS: ClassVar = {
        "first-worker-only": "they got 6, 0",
        "any-worker-will-do": "job 'j1' for embedding was sent to worker#1, a worker for",
        "one-stuck-all-stuck": "none is answered",
        "no-affinity": "no worker sees the whole of a video",
        "frames-reversed": "it gets the jobs number [3, 2, 1]",
    }


def test_sessions_dealt_out_are_within_the_text(tmp_path: Path) -> None:
    faulty = mutants()["no-affinity"].faulty
    assert judge("ORB-SES-01", tmp_path, engine=faulty, profile="spec").verdict is Verdict.NON_STRICT


class FirstAvailable(ModelEngine):
    """Feeds the first worker that has no more than two jobs in hand."""

    def candidates(self, job: Job) -> list[Worker]:
        everybody = super().candidates(job)
        free = [worker for worker in everybody if len(worker.queue) + len(worker.in_flight) < 3]
        return free[:1] or everybody


def test_first_available_is_right_by_the_text(tmp_path: Path) -> None:
    plan = {"workers": 2, "size": 1, "batches_each": 2, "one_request": False}
    assert all_workers_get_work(stage_around(FirstAvailable, tmp_path), plan) == "uneven"
    assert (
        judge("ORB-MUL-01", tmp_path / "all", engine=FirstAvailable, profile="spec").verdict is Verdict.PASS
    )


def test_sessions_are_skipped_where_their_types_are_unknown(tmp_path: Path) -> None:
    conditions = Conditions(types=("a", "b", "c", "d"))
    result = judge("ORB-SES-01", tmp_path, conditions=conditions)
    assert result.verdict is Verdict.SKIP
    assert "video_segmentation" in result.reason

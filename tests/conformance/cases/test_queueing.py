"""Queues: the model passes, faults are named. Limits are small here, so that tests are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from orbtrio.conformance.model import CaseResult, Verdict
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutants
from tests.conformance.cases.judging import EngineCases, judge

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from orbtrio.conformance.zoo.dispatch import Client, Job


LIMIT = 120


def judge_small(
    case_id: str, root: Path, engine: type[ModelEngine] = ModelEngine, profile: str = "hardened"
) -> CaseResult:
    small = type("Small", (engine,), {"max_queue": LIMIT})
    conditions = Conditions(queue_limit=LIMIT)
    return judge(case_id, root, engine=small, profile=profile, examples=1, conditions=conditions)


class TestQueueing(EngineCases):
    CASES = ("ORB-BAT-09", "ORB-BAT-10", "ORB-BAT-11", "ORB-BAT-13")
    SAYS: ClassVar = {
        "newest-first": "in the order in which they were submitted",
        "one-batch-at-a-time": "which has not answered 1 others",
        "queue-of-100": f"{LIMIT} jobs are queued and sent",
        "oldest-dropped": "job 'j1' (number 1) never is",
        "endless-queue": "the queue has no limit",
    }

    def judge_model(self, case_id: str, profile: str, folder: Path) -> CaseResult:
        return judge_small(case_id, folder, profile=profile)

    def judge_fault(self, name: str, case_id: str, folder: Path) -> CaseResult:
        if case_id in ("ORB-BAT-10", "ORB-BAT-11"):  # which are about the limit
            return judge_small(case_id, folder, mutants()[name].faulty)
        return super().judge_fault(name, case_id, folder)


class NewestFirstInABatch(ModelEngine):
    def batch_for(self, jobs: list[Job]) -> dict[str, Any]:
        return super().batch_for(jobs[::-1])


class NoQueueWithoutWorker(ModelEngine):
    def take_job(self, client: Client, wire: Any, resources: dict[str, Any]) -> None:
        if any(worker.worker_type == wire["worker_type"] for worker in self.workers):
            super().take_job(client, wire, resources)


class TellsEverybody(ModelEngine):
    def tell(self, client: Client | None, client_id: Any, kind: str, text: str) -> None:
        if client is not None:
            client.wants_errors = True
        super().tell(client, client_id, kind, text)


class NoLimits(ModelEngine):
    """Neither of queues nor of batches."""

    def has_room(self, queue: Any) -> bool:
        return True

    def batch_size_of(self, config: dict[str, Any]) -> int:
        return int(config.get("max_batch_size") or 32)


class OldestDroppedForAWorker(ModelEngine):
    """Takes any size, and drops the oldest of a worker's queue when that is full."""

    def batch_size_of(self, config: dict[str, Any]) -> int:
        return int(config.get("max_batch_size") or 32)

    def has_room(self, queue: Any) -> bool:
        if self.queue_is_full(queue) and any(worker.queue is queue for worker in self.workers):
            self.settle(queue[0])
        return True


@pytest.mark.parametrize(
    ("case_id", "engine", "in_spec", "in_orbtrio"),
    [
        ("ORB-BAT-09", NewestFirstInABatch, Verdict.PASS, Verdict.FAIL),
        ("ORB-BAT-10", NoQueueWithoutWorker, Verdict.PASS, Verdict.FAIL),
        ("ORB-BAT-11", NoQueueWithoutWorker, Verdict.PASS, Verdict.FAIL),
        ("ORB-BAT-11", TellsEverybody, Verdict.PASS, Verdict.NON_STRICT),
        ("ORB-BAT-11", NoLimits, Verdict.NON_STRICT, Verdict.FAIL),
        ("ORB-BAT-11", OldestDroppedForAWorker, Verdict.FAIL, Verdict.FAIL),
    ],
)
def test_profiles_judge_what_the_text_leaves_open(
    case_id: str, engine: type[ModelEngine], in_spec: Verdict, in_orbtrio: Verdict, tmp_path: Path
) -> None:
    assert judge_small(case_id, tmp_path / "spec", engine, "spec").verdict is in_spec
    assert judge_small(case_id, tmp_path / "orbtrio", engine, "orbtrio").verdict is in_orbtrio

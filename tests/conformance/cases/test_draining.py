"""Draining: the model passes, and each fault is noticed and named."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from orbtrio.conformance.cases import draining
from orbtrio.conformance.model import Violation
from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.cases.judging import ExtensionCases, stage_around

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.zoo.dispatch import Worker


class TestDraining(ExtensionCases):
    CASES = ("ORB-EXT-15", "ORB-EXT-16", "ORB-EXT-17")
    SAYS: ClassVar = {
        "drained-queue-stays": "at once; seen: nothing is sent",
        "drained-queue-is-lost": "nothing is sent",
        "drained-queue-waits-for-a-new-worker": "nothing is sent",
        "drained-keys-stay": "nothing is sent",
        "drain-ends-all": "has 2 jobs in hand, stays connected",
        "drain-forgets-the-last": "until it has answered job 'j2'",
        "drain-never-ends": "is still connected",
        "drain-ends-with-1001": "closed with 1001",
        "drain-is-fed": "another batch",
        "everybody-drains": "nothing is sent",
    }


def test_what_was_queued_must_not_go_to_who_drains(tmp_path: Path) -> None:
    class SendsItAll(ModelEngine):
        def on_drain(self, worker: Worker) -> None:
            worker.max_latency = 0.0
            self.send_due(worker)
            super().on_drain(worker)

    plan = {"queued": 2, "in_hand": False, "keyed": False, "there": False}
    with pytest.raises(Violation, match=r"not to worker#1, which drains.*sent to worker#1"):
        draining.queued_jobs_move(stage_around(SendsItAll, tmp_path), plan)


def test_no_job_may_be_sent_twice_for_a_worker_that_drains(tmp_path: Path) -> None:
    class SendsAgain(ModelEngine):
        def on_drain(self, worker: Worker) -> None:
            self.again = [job.wire for job in worker.in_flight.values()]
            super().on_drain(worker)

        def feed(self, worker: Worker) -> None:
            super().feed(worker)
            if again := self.__dict__.pop("again", None):
                self.send(worker.connection, {"inputs": again})

    plan = {"size": 1, "batches": 1, "crossing": False, "one_by_one": False, "new": 0}
    with pytest.raises(Violation, match="no job is sent twice"):
        draining.running_jobs_are_finished(stage_around(SendsAgain, tmp_path), plan)

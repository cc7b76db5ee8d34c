"""Connections that end: right engines pass, each fault is told in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from orbtrio.conformance.cases import losses
from orbtrio.conformance.model import Verdict
from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.cases.judging import EngineCases, judge, stage_around

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from orbtrio.conformance.zoo.dispatch import Client, Worker


class TestLosses(EngineCases):
    CASES = tuple(f"ORB-REC-0{number}" for number in range(1, 7))
    PINGS = False
    EXAMPLES = 12
    FAULT_EXAMPLES = 10
    FAULT_PROFILE = "spec"
    BY_RULING = frozenset({"jobs-of-the-dead", "second-loss-is-final", "poison-for-ever"})
    # In zoo/test_faulty_losses.py, and by the suite's self-test.
    LEFT_OUT = frozenset(
        {
            ("colleagues-do-not-inherit", "ORB-REC-01"),
            ("dead-workers-jobs-lost", "ORB-REC-02"),
            ("dead-workers-jobs-lost", "ORB-REC-03"),
        }
    )
    SAYS: ClassVar = {
        "queued-jobs-lost": "is gone; seen: 1 of 1 are not: job 'j1'",
        "dead-workers-jobs-lost": "is gone; seen: 1 of 1 are not: job 'j1'",
        "jobs-in-hand-lost": "worker#1 was lost with",
        "half-a-message-answers": "worker#1 was lost with",
        "no-successor-no-job": "when it registers after worker#1 was lost",
        "impatient": "after 2.0 s another worker has it",
        "jobs-of-the-dead": "for nobody",
        "next-client-inherits": "hears of its own job only",
        "worn-out-in-the-queue": "after 5 workers were lost that had none",
        "second-loss-is-final": "fewer than three workers were lost with",
        "poison-for-ever": "sent more than three times",
    }


class Patient(ModelEngine):
    """Moves what a lost worker had in hand when a job's time would be over, and gives it another time."""

    keepalive_seconds = 1e9

    def on_worker_lost(self, worker: Worker) -> None:
        held = list(worker.in_flight.values())
        for job in held:
            self.take_from_owner(job)
            if job.timer is not None:
                job.timer.cancel()
        super().on_worker_lost(worker)
        self.host.call_at(self.host.now() + self.job_timeout, lambda: self.requeue(held))


class Forgetful(ModelEngine):
    """Drops jobs that come while there is no worker."""

    def take_job(self, client: Client, wire: Any, resources: dict[str, Any]) -> None:
        if any(worker.worker_type == wire["worker_type"] for worker in self.workers):
            super().take_job(client, wire, resources)


def test_moving_when_the_time_is_over_is_allowed_by_the_text_only(tmp_path: Path) -> None:
    result = judge("ORB-REC-02", tmp_path / "1", profile="spec", engine=Patient)
    assert (result.verdict, result.reading) == (Verdict.PASS, "after the timeout")
    assert judge("ORB-REC-02", tmp_path / "2", profile="orbtrio", engine=Patient).verdict is Verdict.FAIL


def test_what_was_not_waited_for_is_not_called_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orbtrio.conformance.simulation.SimulatedWorld.virtual", False)
    result = judge("ORB-REC-02", tmp_path, profile="spec", engine=Patient)
    assert (result.verdict, result.reading) == (Verdict.NON_STRICT, "not at once")


def test_jobs_that_come_without_a_worker_may_be_dropped_by_the_text(tmp_path: Path) -> None:
    plan = {"jobs": 1, "meanwhile": 1, "how": {"how": "FIN", "at_byte": 1}, "pause_ms": 0}
    assert losses.queued_jobs_wait(stage_around(Forgetful, tmp_path), plan) == "some wait"


def test_a_job_that_three_workers_were_lost_with_may_be_given_up(tmp_path: Path) -> None:
    plan = {"drops": 5, "in_hand": True, "how": {"how": "RST", "at_byte": 1}, "jobs": 1}
    assert losses.flapping_worker(stage_around(ModelEngine, tmp_path), plan) == "given up after three"


def test_nobody_is_lost_with_a_job_that_is_answered(tmp_path: Path) -> None:
    plan = {"jobs": 1, "answered": 1, "how": {"how": "close", "at_byte": 1}, "batches_of": 1}
    assert losses.jobs_in_hand_move(stage_around(ModelEngine, tmp_path), plan) == "at once"

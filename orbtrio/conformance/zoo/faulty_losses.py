"""Engines that are wrong about lost peers, and about jobs that they end themselves, by any reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutant
from orbtrio.conformance.zoo.wire import Refused

if TYPE_CHECKING:
    from orbtrio.conformance.zoo.dispatch import Client, Job, Worker

__all__: list[str] = []


@mutant("never-given-up", kills=("ORB-TMO-01",))
class NeverGivenUp(ModelEngine):
    """Keeps a job that waits for a worker until one comes, however late."""

    def on_timeout(self, job: Job) -> None:
        if job.owner is not None:
            super().on_timeout(job)


@mutant("invalid-job-spoils-all", kills=("ORB-TMO-04",))
class InvalidJobSpoilsAll(ModelEngine):
    """Closes a client's connection for one invalid job among good ones."""

    def on_invalid_job(self, client: Client, wire: Any, kind: str, text: str) -> None:
        raise Refused("request is not valid")


@mutant("worn-out-in-the-queue", kills=("ORB-REC-06",))
class WornOutInTheQueue(ModelEngine):
    """Counts a worker that was lost with a job in its queue as if it had had the job in hand."""

    def requeue(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.deliveries += job.queue is not None
        super().requeue([job for job in jobs if self.is_worth_another_try(job)])


@mutant("next-client-inherits", kills=("ORB-REC-05",))
class NextClientInherits(ModelEngine):
    """Gives the answers that a client no longer waits for to whoever connects next."""

    def abandon(self, job: Job) -> None:
        self.release_resources(job)

    def answer(self, client: Client, job: Job, entry: dict[str, Any]) -> None:
        super().answer(client if client in self.clients else self.clients[-1], job, entry)


@mutant("half-a-message-answers", kills=("ORB-REC-02",))
class HalfAMessageAnswers(ModelEngine):
    """Takes a job for done when its worker is lost while another of the same type is there."""

    def lost_jobs(self, worker: Worker) -> list[Job]:
        return [job for job in super().lost_jobs(worker) if job.owner is None or not self.candidates(job)]


@mutant("colleagues-do-not-inherit", kills=("ORB-REC-01",))
class ColleaguesDoNotInherit(ModelEngine):
    """Keeps a lost worker's queue for the next one, but forgets it if others of the type are there."""

    def lost_jobs(self, worker: Worker) -> list[Job]:
        return [job for job in super().lost_jobs(worker) if job.queue is None or not self.candidates(job)]

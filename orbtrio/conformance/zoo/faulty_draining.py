"""Engines that are wrong about draining, files that travel with a batch, and answers that travel together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutant

if TYPE_CHECKING:
    from orbtrio.conformance.zoo.dispatch import Client, Job, Worker
    from orbtrio.conformance.zoo.files import Resource
    from orbtrio.conformance.zoo.wire import Connection

__all__: list[str] = []


# --- Draining -----------------------------------------------------------------------------------------------


@mutant("drained-queue-stays", kills=("ORB-EXT-15",))
class DrainedQueueStays(ModelEngine):
    """Leaves what is queued for a worker that drains to it until it has gone."""

    def on_drain(self, worker: Worker) -> None:
        worker.draining = True
        self.on_answered(worker)

    def is_idle(self, worker: Worker) -> bool:
        return super().is_idle(worker) and not worker.queue


@mutant("drained-queue-is-lost", kills=("ORB-EXT-15",))
class DrainedQueueIsLost(ModelEngine):
    """Forgets what is queued for a worker that drains."""

    def on_drain(self, worker: Worker) -> None:
        for job in worker.queue:
            job.queue = None
        worker.queue.clear()
        super().on_drain(worker)


@mutant("drained-queue-waits-for-a-new-worker", kills=("ORB-EXT-15",))
class DrainedQueueWaitsForANewWorker(ModelEngine):
    """Has what was queued for a worker that drains wait for the next of its type to come."""

    def on_drain(self, worker: Worker) -> None:
        jobs = list(worker.queue)
        worker.queue.clear()
        super().on_drain(worker)
        for job in jobs:
            self.put(job, self.waiting.setdefault(job.worker_type, type(worker.queue)()))


@mutant("drained-keys-stay", kills=("ORB-EXT-15",))
class DrainedKeysStay(ModelEngine):
    """Leaves keys bound to a worker that drains."""

    def release_keys(self, worker: Worker) -> None:
        pass


@mutant("drain-ends-all", kills=("ORB-EXT-16",))
class DrainEndsAll(ModelEngine):
    """Closes the connection of a worker that drains at once, and gives its jobs to others."""

    def is_idle(self, worker: Worker) -> bool:
        return True


@mutant("drain-forgets-the-last", kills=("ORB-EXT-16",))
class DrainForgetsTheLast(ModelEngine):
    """Closes the connection of a worker that drains when a single job is left."""

    def is_idle(self, worker: Worker) -> bool:
        return len(worker.in_flight) <= 1


@mutant("drain-never-ends", kills=("ORB-EXT-16",))
class DrainNeverEnds(ModelEngine):
    """Keeps the connection of a worker that has drained."""

    def is_idle(self, worker: Worker) -> bool:
        return False


@mutant("drain-ends-with-1001", kills=("ORB-EXT-16",))
class DrainEndsWith1001(ModelEngine):
    """Closes the connection of a worker that has drained as if the engine went."""

    def close_code_for(self, problem: str) -> int:
        return 1001 if problem == "drained" else super().close_code_for(problem)


@mutant("drain-is-fed", kills=("ORB-EXT-16",))
class DrainIsFed(ModelEngine):
    """Goes on giving jobs to a worker that drains as long as it has some."""

    def candidates(self, job: Job) -> list[Worker]:
        same = [worker for worker in self.workers if worker.worker_type == job.worker_type]
        return [worker for worker in same if not worker.draining or worker.in_flight]


@mutant("everybody-drains", kills=("ORB-EXT-17",))
class EverybodyDrains(ModelEngine):
    """Drains a worker that never asked for worker_drain to mean anything."""

    def on_extension_message(self, connection: Connection, kind: Any, message: dict[str, Any]) -> None:
        if kind == "worker_drain":
            self.on_drain(connection.role)
        else:
            super().on_extension_message(connection, kind, message)


# --- Files that travel with a batch -------------------------------------------------------------------------


@mutant("inline-for-each-job", kills=("ORB-EXT-18",))
class InlineForEachJob(ModelEngine):
    """Sends a shared file once for each job that names it."""

    def files_of(self, jobs: list[Job]) -> list[Resource]:
        return [resource for job in jobs for resource in job.resources]


@mutant("inline-of-the-first-job", kills=("ORB-EXT-18",))
class InlineOfTheFirstJob(ModelEngine):
    """Sends the files of a batch's first job only."""

    def files_of(self, jobs: list[Job]) -> list[Resource]:
        return super().files_of(jobs[:1])


@mutant("inline-by-name", kills=("ORB-EXT-18",))
class InlineByName(ModelEngine):
    """Sends files under their names, without the folders that the inputs have."""

    def entry_for(self, resource: Resource) -> dict[str, Any]:
        entry = super().entry_for(resource)
        return {**entry, "path": entry["path"].rpartition("/")[2]}


@mutant("inline-cut", kills=("ORB-EXT-18",))
class InlineCut(ModelEngine):
    """Sends the first kilobyte of each file."""

    def entry_for(self, resource: Resource) -> dict[str, Any]:
        entry = super().entry_for(resource)
        return {**entry, "data": entry["data"][:1024]}


@mutant("inline-once-for-ever", kills=("ORB-EXT-18",))
class InlineOnceForEver(ModelEngine):
    """Sends a worker no file a second time, though it has forgotten the first."""

    def beside(self, worker: Worker, jobs: list[Job]) -> dict[str, Any]:
        sent: set[str] = self.__dict__.setdefault("sent", set())
        beside = super().beside(worker, jobs)
        if beside:
            beside["resources"] = [entry for entry in beside["resources"] if entry["path"] not in sent]
            sent.update(entry["path"] for entry in beside["resources"])
        return beside


@mutant("inline-uncounted", kills=("ORB-EXT-19",))
class InlineUncounted(ModelEngine):
    """Does not count files when it measures a batch."""

    def size_for(self, worker: Worker, job: Job, others: list[Job]) -> int:
        return job.size


@mutant("inline-for-everybody", kills=("ORB-EXT-20",))
class InlineForEverybody(ModelEngine):
    """Sends files to workers that never asked."""

    def beside(self, worker: Worker, jobs: list[Job]) -> dict[str, Any]:
        resources = [self.entry_for(resource) for resource in self.files_of(jobs)]
        return {"resources": resources} if resources else super().beside(worker, jobs)


# --- Answers that travel together ---------------------------------------------------------------------------


@mutant("together-without-the-last", kills=("ORB-EXT-21",))
class TogetherWithoutTheLast(ModelEngine):
    """Loses the last of several answers that travel together."""

    def together(self, responses: list[dict[str, Any]]) -> dict[str, Any]:
        return super().together(responses[:-1])


@mutant("together-and-alone", kills=("ORB-EXT-21",))
class TogetherAndAlone(ModelEngine):
    """Sends each answer alone, and then all together."""

    def answer(self, client: Client, job: Job, entry: dict[str, Any]) -> None:
        if self.wants_batches(client):
            self.send(client.connection, self.response_for(job, entry))
        super().answer(client, job, entry)


@mutant("together-alone", kills=("ORB-EXT-21",))
class TogetherAlone(ModelEngine):
    """Sends even a single answer as several."""

    def flush(self, client: Client) -> None:
        responses, client.unsent = client.unsent, []
        if responses:
            self.send(client.connection, self.together(responses))


@mutant("never-together", kills=("ORB-EXT-21",))
class NeverTogether(ModelEngine):
    """Announces that answers travel together, and sends each alone."""

    def wants_batches(self, client: Client) -> bool:
        return False


@mutant("together-in-company", kills=("ORB-EXT-22",))
class TogetherInCompany(ModelEngine):
    """Sends answers together to all clients as soon as one of them has asked for it."""

    def wants_batches(self, client: Client) -> bool:
        return any(super(TogetherInCompany, self).wants_batches(each) for each in self.clients)


@mutant("together-for-everybody", kills=("ORB-EXT-22",))
class TogetherForEverybody(ModelEngine):
    """Sends answers together to clients that asked for some other extension, or for none."""

    def wants_batches(self, client: Client) -> bool:
        return True

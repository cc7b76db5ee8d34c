"""Engines that are wrong about batches, about who gets them, and about keeping peers apart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from orbtrio.conformance.simulation import Crashed, Link
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutant
from orbtrio.conformance.zoo.wire import Refused

if TYPE_CHECKING:
    from orbtrio.conformance.zoo.dispatch import Client, Job, Worker

__all__: list[str] = []


# --- BAT ----------------------------------------------------------------------------------------------------


@mutant("debounced-timer", kills=("ORB-BAT-01",))
class DebouncedTimer(ModelEngine):
    """Each new job restarts the timer of the batch, so that under steady arrivals it never runs out."""

    def due_at(self, worker: Worker) -> float:
        return worker.queue[-1].queued_at + worker.max_latency


@mutant("size-off-by-one", kills=("ORB-BAT-02",))
class SizeOffByOne(ModelEngine):
    """Sends one job more than the worker takes."""

    def batch_size_of(self, config: dict[str, Any]) -> int:
        return super().batch_size_of(config) + 1


@mutant("full-batches-wait", kills=("ORB-BAT-03",))
class FullBatchesWait(ModelEngine):
    """Looks at the clock only: a full batch waits for its latency like any other."""

    def batch_is_full(self, worker: Worker) -> bool:
        return self.is_suspect(worker.queue[0])


@mutant("leftovers-forgotten", kills=("ORB-BAT-04",))
class LeftoversForgotten(ModelEngine):
    """What did not fit into a batch has no timer any more, and waits until another batch is full."""

    def send_batch(self, worker: Worker) -> None:
        super().send_batch(worker)
        for job in worker.queue:
            job.queued_at = math.inf


@mutant("empty-batch-first", kills=("ORB-BAT-05",))
class EmptyBatchFirst(ModelEngine):
    """Sends a batch without jobs when a worker of a type without jobs registers."""

    def feed(self, worker: Worker) -> None:
        if worker.worker_type not in self.waiting:
            self.send(worker.connection, self.batch_for([]))
        super().feed(worker)


@mutant("empty-input-left-out", kills=("ORB-BAT-06",))
class EmptyInputLeftOut(ModelEngine):
    """A job with an empty input has no field "input" in its batch."""

    def wire_for(self, job_id: str, job_input: Any, wire: dict[str, Any]) -> dict[str, Any]:
        out = super().wire_for(job_id, job_input, wire)
        return out if job_input else {name: value for name, value in out.items() if name != "input"}


@mutant("flat-jobs", kills=("ORB-BAT-06",))
class FlatJobs(ModelEngine):
    """Spreads the input's fields beside "id" instead of putting them below "input"."""

    def wire_for(self, job_id: str, job_input: Any, wire: dict[str, Any]) -> dict[str, Any]:
        return {**job_input, "id": job_id}


@mutant("clients-ids", kills=("ORB-BAT-07",))
class ClientsIds(ModelEngine):
    """Uses the clients' job_id as id, so that the jobs of two clients are mixed up."""

    def new_id(self, wire: dict[str, Any]) -> str:
        return str(wire["job_id"])


@mutant("extras-dropped", kills=("ORB-BAT-08",))
class ExtrasDropped(ModelEngine):
    """Passes nothing on but id and input."""

    def wire_for(self, job_id: str, job_input: Any, wire: dict[str, Any]) -> dict[str, Any]:
        return {"id": job_id, "input": job_input}


@mutant("newest-first", kills=("ORB-BAT-09",))
class NewestFirst(ModelEngine):
    """The job that came last leaves first."""

    def take_next(self, worker: Worker) -> Job:
        return worker.queue.pop()


@mutant("queue-of-100", kills=("ORB-BAT-10",))
class QueueOf100(ModelEngine):
    """Refuses what comes when 100 jobs are queued, instead of 1,000."""

    def has_room(self, queue: Any) -> bool:
        return len(queue) < 100


@mutant("oldest-dropped", kills=("ORB-BAT-11",))
class OldestDropped(ModelEngine):
    """When 1,000 jobs are queued, the oldest is dropped in silence for the one that comes."""

    def has_room(self, queue: Any) -> bool:
        if self.queue_is_full(queue):
            self.settle(queue[0])
        return True


@mutant("endless-queue", kills=("ORB-BAT-11",))
class EndlessQueue(ModelEngine):
    """Queues as many jobs as anybody sends."""

    def has_room(self, queue: Any) -> bool:
        return True


@mutant("batches-of-any-weight", kills=("ORB-BAT-12",))
class BatchesOfAnyWeight(ModelEngine):
    """Counts a batch's jobs and not its bytes, so that workers' libraries refuse the message."""

    def one_more_fits(self, worker: Worker, jobs: list[Job], size: int) -> bool:
        return super().one_more_fits(worker, jobs, -(10**12))


@mutant("one-batch-at-a-time", kills=("ORB-BAT-13",))
class OneBatchAtATime(ModelEngine):
    """Does not send a batch that is due as long as the worker has one."""

    def may_send(self, worker: Worker) -> bool:
        return not worker.in_flight


# --- MUL, SES, SEC ------------------------------------------------------------------------------------------


@mutant("first-worker-only", kills=("ORB-MUL-01",))
class FirstWorkerOnly(ModelEngine):
    """Only the first worker of a type is ever fed; whoever scales out gains nothing."""

    def candidates(self, job: Job) -> list[Worker]:
        return super().candidates(job)[:1]


@mutant("any-worker-will-do", kills=("ORB-MUL-02",))
class AnyWorkerWillDo(ModelEngine):
    """A job whose type has no worker goes to a worker of another type."""

    def candidates(self, job: Job) -> list[Worker]:
        return super().candidates(job) or self.workers


@mutant("one-stuck-all-stuck", kills=("ORB-MUL-03",))
class OneStuckAllStuck(ModelEngine):
    """Sends nothing to a worker while another of its type has not answered."""

    def may_send(self, worker: Worker) -> bool:
        others = [other for other in self.workers if other.worker_type == worker.worker_type]
        return not any(other.in_flight for other in others if other is not worker)


@mutant("no-affinity", kills=("ORB-SES-01",))
class NoAffinity(ModelEngine):
    """Deals out the frames of one video to all workers, none of which can follow it."""

    def bind(self, job: Job, worker: Worker) -> None:
        pass


@mutant("frames-reversed", kills=("ORB-SES-02",))
class FramesReversed(ModelEngine):
    """Queues jobs of a session before those that came earlier."""

    def put(self, job: Job, queue: Any) -> None:
        (super().put if job.key is None else self.put_back)(job, queue)


@mutant("everybodys-answers", kills=("ORB-SEC-01",))
class EverybodysAnswers(ModelEngine):
    """Sends each answer to every client."""

    def answer(self, client: Client, job: Job, entry: dict[str, Any]) -> None:
        for each in self.clients:
            super().answer(each, job, entry)


@mutant("hundred-connections", kills=("ORB-SEC-05",))
class HundredConnections(ModelEngine):
    """Has room for 100 connections: idle ones lock everybody else out."""

    def connection_made(self, link: Link) -> None:
        if len(self.connections) < 100:
            super().connection_made(link)
        else:
            link.close()


@mutant("undecodable-crashes", kills=("ORB-SEC-03",))
class UndecodableCrashes(ModelEngine):
    """A message that is not CBOR ends the whole process."""

    def decode(self, data: bytes) -> dict[str, Any]:
        try:
            return super().decode(data)
        except Refused as refused:
            raise Crashed("undecodable") from refused

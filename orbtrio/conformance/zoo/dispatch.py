"""Which job goes where, when, and what ends it: the rules of the model engine between requests and answers.

A job is in one place: in the queue of a worker, in the queue of its type while that has no worker, or in a
worker's hands. `ModelEngine.jobs` has every job that is not done.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import attrs
import cbor2

from orbtrio.conformance.zoo.files import FileRules, Resource
from orbtrio.conformance.zoo.wire import Connection, Refused, WebSocketServer

if TYPE_CHECKING:
    from orbtrio.conformance.simulation import Handle

__all__ = ["Client", "DispatchRules", "Job", "Worker"]

# What the map around a batch, and its list, need besides the jobs.
BATCH_OVERHEAD: Final = 16


@attrs.define(eq=False)
class Client:
    """A connection that sends jobs. `open` has those that are not done, by their encoded ``job_id``.

    `asked` has the extensions that it asked for, `unsent` answers that are to leave together.
    """

    connection: Connection
    tenant: str
    wants_errors: bool = False
    open: dict[bytes, Job] = attrs.field(factory=dict)
    asked: frozenset[str] = frozenset()
    unsent: list[dict[str, Any]] = attrs.field(factory=list)


@attrs.define(eq=False)
class Worker:
    """A connection that does them. `batches` has the ids of each batch that is not all answered, `recalled`
    those among them whose jobs have ended meanwhile."""

    connection: Connection
    worker_type: str
    max_batch_size: int = 32
    max_latency: float = 30.0
    max_open_batches: float = math.inf
    max_batch_bytes: float = 900 * 1024
    eager: bool = False
    queue: deque[Job] = attrs.field(factory=deque)
    in_flight: dict[str, Job] = attrs.field(factory=dict)
    batches: list[set[str]] = attrs.field(factory=list)
    turn: int = 0
    timer: Handle | None = None
    asked: frozenset[str] = frozenset()
    recalled: set[str] = attrs.field(factory=set)
    draining: bool = False


@attrs.define(eq=False)
class Job:
    """A job that was accepted. `wire` is what its worker is sent, `size` its length in CBOR.

    `own_timeout` and `heartbeat` are seconds, if it has any.
    """

    id: str
    client_id: Any
    client: Client | None
    worker_type: str
    key: object
    wire: dict[str, Any]
    size: int
    queued_at: float
    resources: list[Resource]
    queue: deque[Job] | None = None
    owner: Worker | None = None
    deliveries: int = 0
    timer: Handle | None = None
    done: bool = False
    own_timeout: float | None = None
    heartbeat: float | None = None
    heartbeat_timer: Handle | None = None


class DispatchRules(FileRules, WebSocketServer):
    """Half of the model engine."""

    max_queue = 1000
    max_deliveries = 3
    job_timeout: float

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Job] = {}
        self.workers: list[Worker] = []
        self.clients: list[Client] = []
        self.waiting: dict[str, deque[Job]] = {}
        self.bound: dict[object, Worker] = {}
        self.turns = itertools.count(1)

    # --- where a job waits ----------------------------------------------------------------------------------

    def queue_for(self, job: Job) -> deque[Job]:
        """Its worker's, or, while there is none, the one of its type."""
        worker = self.pick_worker(job)
        return worker.queue if worker is not None else self.waiting.setdefault(job.worker_type, deque())

    def pick_worker(self, job: Job) -> Worker | None:
        """The one that its key is bound to; else the least loaded; among equals each in turn."""
        worker = self.bound.get(job.key) if job.key is not None else None
        if worker is None:
            candidates = self.candidates(job)
            if not candidates:
                return None
            worker = min(
                [w for w in candidates if not self.queue_is_full(w.queue)] or candidates, key=self.rank
            )
            worker.turn = next(self.turns)
            self.bind(job, worker)
        return worker

    def candidates(self, job: Job) -> list[Worker]:
        """Who could do it."""
        return [worker for worker in self.workers if worker.worker_type == job.worker_type]

    def rank(self, worker: Worker) -> tuple[int, int]:
        """The lowest gets the next job."""
        return len(worker.queue) + len(worker.in_flight), worker.turn

    def bind(self, job: Job, worker: Worker) -> None:
        """From now on all jobs with this key are this worker's."""
        if job.key is not None:
            self.bound[job.key] = worker

    def queue_is_full(self, queue: deque[Job]) -> bool:
        """1,000 are queued per worker, and per type that has none."""
        return len(queue) >= self.max_queue

    def has_room(self, queue: deque[Job]) -> bool:
        """Whether one more job is accepted. No older one is ever dropped for it."""
        return not self.queue_is_full(queue)

    def put(self, job: Job, queue: deque[Job]) -> None:
        """Behind all others."""
        queue.append(job)
        job.queue = queue

    def put_back(self, job: Job, queue: deque[Job]) -> None:
        """Before all others: it has waited already."""
        queue.appendleft(job)
        job.queue = queue

    # --- when a batch leaves --------------------------------------------------------------------------------

    def send_all_due(self) -> None:
        """Whatever may leave now, leaves."""
        for worker in list(self.workers):
            self.send_due(worker)

    def send_due(self, worker: Worker) -> None:
        """Send what is due, and come back when the rest is."""
        while worker.queue and self.may_send(worker) and self.batch_is_due(worker):
            self.send_batch(worker)
        if worker.timer is not None:
            worker.timer.cancel()
            worker.timer = None
        if worker.queue and self.may_send(worker):
            worker.timer = self.host.call_at(self.due_at(worker), lambda: self.on_latency_over(worker))

    def on_latency_over(self, worker: Worker) -> None:
        """Its oldest job has waited long enough."""
        self.send_due(worker)

    def may_send(self, worker: Worker) -> bool:
        """Unless it asked for no more than some batches at a time."""
        return len(worker.batches) < worker.max_open_batches

    def batch_is_due(self, worker: Worker) -> bool:
        """Full, or old enough, or for a worker that has nothing to do and does not want to wait."""
        idle = worker.eager and not worker.batches
        return idle or self.batch_is_full(worker) or self.due_at(worker) <= self.host.now()

    def batch_is_full(self, worker: Worker) -> bool:
        """By size. A suspect is a batch of its own."""
        return len(worker.queue) >= worker.max_batch_size or self.is_suspect(worker.queue[0])

    def due_at(self, worker: Worker) -> float:
        """Counted from when the oldest was queued, whatever came later."""
        return worker.queue[0].queued_at + worker.max_latency

    def is_suspect(self, job: Job) -> bool:
        """Two workers died with it in their hands."""
        return job.deliveries >= 2

    def send_batch(self, worker: Worker) -> None:
        """From now on they are the worker's, and only its answer counts."""
        jobs = self.gather(worker)
        for job in jobs:
            self.hand_over(job, worker)
        if jobs:
            worker.batches.append({job.id for job in jobs})
            self.send(worker.connection, {**self.batch_for(jobs), **self.beside(worker, jobs)})

    def hand_over(self, job: Job, worker: Worker) -> None:
        """It is one worker's."""
        job.queue = None
        job.owner = worker
        job.deliveries += 1
        worker.in_flight[job.id] = job

    def gather(self, worker: Worker) -> list[Job]:
        """The next batch: oldest first, within its limits, a suspect alone."""
        jobs: list[Job] = []
        size = BATCH_OVERHEAD
        while worker.queue and self.one_more_fits(worker, jobs, size):
            job = worker.queue[0]
            if self.is_too_big(worker, job):
                self.fail(job, "invalid_job", "the job is bigger than a batch may be")
                continue
            size += self.size_for(worker, job, jobs)
            jobs.append(self.take_next(worker))
        return jobs

    def take_next(self, worker: Worker) -> Job:
        """The oldest."""
        return worker.queue.popleft()

    def one_more_fits(self, worker: Worker, jobs: list[Job], size: int) -> bool:
        """Whether the next of the queue may join them."""
        if not jobs:
            return True
        if self.is_suspect(jobs[0]) or self.is_suspect(worker.queue[0]):
            return False
        more = self.size_for(worker, worker.queue[0], jobs)
        return len(jobs) < worker.max_batch_size and size + more <= worker.max_batch_bytes

    def is_too_big(self, worker: Worker, job: Job) -> bool:
        """A batch of it alone would be too big."""
        return self.size_for(worker, job, []) + BATCH_OVERHEAD > worker.max_batch_bytes

    def size_for(self, worker: Worker, job: Job, others: list[Job]) -> int:
        """Bytes by which a batch of others grows."""
        return job.size

    def batch_for(self, jobs: list[Job]) -> dict[str, Any]:
        """The message."""
        return {"inputs": [job.wire for job in jobs]}

    def beside(self, worker: Worker, jobs: list[Job]) -> dict[str, Any]:
        """What else is in it."""
        return {}

    # --- what ends a job ------------------------------------------------------------------------------------

    def on_output(self, worker: Worker, message: dict[str, Any]) -> None:
        """Good entries count, whatever the others are."""
        entries = message.get("output")
        if type(entries) is not list:
            raise Refused("output is not valid")
        for entry in entries:
            if type(entry) is dict and type(entry.get("id")) is str:
                self.on_result(worker, entry)
        self.send_due(worker)

    def on_result(self, worker: Worker, entry: dict[str, Any]) -> None:
        """The owner's first answer; all others are dropped."""
        job = self.job_of(entry)
        if job is not None and self.may_answer(worker, job):
            client = job.client
            self.settle(job)
            if client is not None:
                self.answer(client, job, entry)

    def job_of(self, entry: dict[str, Any]) -> Job | None:
        """The job that an entry is about, if it is not done."""
        return self.jobs.get(entry["id"])

    def may_answer(self, worker: Worker, job: Job) -> bool:
        """Only who has it."""
        return job.owner is worker

    def answer(self, client: Client, job: Job, entry: dict[str, Any]) -> None:
        """What the worker said, errors too, unchanged."""
        self.send(client.connection, self.response_for(job, entry))

    def response_for(self, job: Job, entry: dict[str, Any]) -> dict[str, Any]:
        """The message."""
        return {"type": "worker_response", "output": entry, "job_id": job.client_id}

    def tell(self, client: Client | None, client_id: Any, kind: str, text: str) -> None:
        """That the engine itself ended a job: those who asked for it are told."""
        if client is not None and client.wants_errors:
            output = {"error": text, "error_kind": kind}
            self.send(client.connection, {"type": "worker_response", "output": output, "job_id": client_id})

    def fail(self, job: Job, kind: str, text: str) -> None:
        """The engine ends a job."""
        client = job.client
        self.settle(job)
        self.tell(client, job.client_id, kind, text)

    def settle(self, job: Job) -> None:
        """It is done, however: nothing of it stays."""
        job.done = True
        self.jobs.pop(job.id, None)
        if job.timer is not None:
            job.timer.cancel()
        if job.queue is not None:
            job.queue.remove(job)
            job.queue = None
        self.take_from_owner(job)
        if job.client is not None:
            job.client.open.pop(cbor2.dumps(job.client_id), None)
        self.release_resources(job)

    def take_from_owner(self, job: Job) -> None:
        """Nobody has it in hand any more. A batch is closed when its last job is gone."""
        owner, job.owner = job.owner, None
        if owner is not None:
            del owner.in_flight[job.id]
            self.close_entry(owner, job.id)

    def close_entry(self, worker: Worker, job_id: str) -> None:
        """It has been answered, or need not be any more."""
        for batch in worker.batches:
            batch.discard(job_id)
        worker.batches = [batch for batch in worker.batches if batch]

    def release_resources(self, job: Job) -> None:
        """Once for each job."""
        resources, job.resources = job.resources, []
        for resource in resources:
            self.release(resource)

    def on_timeout(self, job: Job) -> None:
        """Its time is over, wherever it is. A stock client hears nothing."""
        owner = job.owner
        self.fail(job, "timeout", "not done in time")
        if owner is not None:
            # Not at once: what is past its deadline at this very moment must not be sent any more.
            self.host.call_at(self.host.now(), lambda: self.send_due(owner))

    # --- who goes -------------------------------------------------------------------------------------------

    def on_lost(self, connection: Connection) -> None:
        if isinstance(connection.role, Worker):
            self.on_worker_lost(connection.role)
        elif isinstance(connection.role, Client):
            self.on_client_lost(connection.role)

    def on_worker_lost(self, worker: Worker) -> None:
        """Its jobs go back, those that it had in hand first, for they are older."""
        if worker.timer is not None:
            worker.timer.cancel()
        self.workers.remove(worker)
        self.bound = {key: other for key, other in self.bound.items() if other is not worker}
        jobs = self.lost_jobs(worker)
        for job in jobs:
            self.take_from_owner(job)
        self.requeue([job for job in jobs if self.is_worth_another_try(job)])

    def lost_jobs(self, worker: Worker) -> list[Job]:
        """Queued, and sent and not answered."""
        return [*worker.in_flight.values(), *worker.queue]

    def is_worth_another_try(self, job: Job) -> bool:
        """Somebody still waits for it, and it has not been sent too often."""
        if job.client is not None and job.deliveries < self.max_deliveries:
            return True
        self.fail(job, "worker_lost", f"{job.deliveries} workers were lost")
        return False

    def requeue(self, jobs: list[Job]) -> None:
        """To the front, in their old order."""
        for job in reversed(jobs):
            job.queue = None
            self.put_back(job, self.queue_for(job))
        self.send_all_due()

    def on_client_lost(self, client: Client) -> None:
        """What is queued is cancelled, what runs is nobody's, files go."""
        self.clients.remove(client)
        for job in list(client.open.values()):
            self.abandon(job)

    def abandon(self, job: Job) -> None:
        """Nobody waits for it."""
        if job.owner is None:
            self.settle(job)
        else:
            job.client = None
            self.release_resources(job)

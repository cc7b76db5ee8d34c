"""Where jobs come in and go out: the only place that accepts a job, and the only one that ends it.

Sessions speak with peers; this module knows no connection, only `Requester`s that submitted jobs and
`WorkerQueue`s that run them. Whatever way a job ends, `answer`, `abandon` or `_tell` releases its files and
lets the requester know.

All of it is synchronous but for writing resources, so a request is accepted whole between two checkpoints
(P-20).
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from orbtrio.engine.dispatch import Dispatcher, Pool
from orbtrio.engine.jobs import Job, JobTable
from orbtrio.engine.queues import QueueSettings, WorkerQueue
from orbtrio.engine.resources import StoreError
from orbtrio.errors import RegistrationRefused
from orbtrio.protocol import codec, references
from orbtrio.protocol.bulk import MAX_JOB_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping

    from orbtrio.engine.config import Config
    from orbtrio.engine.jobs import Requester
    from orbtrio.engine.queues import Outlet
    from orbtrio.engine.resources import HeldFile, ResourceStore
    from orbtrio.protocol.messages import JobRequest, RegisterWorker, WorkerOutput, WorkerRequest

__all__ = ["Counters", "Exchange"]

# What is left of a message's limit for the parts of a response around the output.
_RESPONSE_OVERHEAD: Final = 64 * 1024

# A client's id is kept three times while its job is open.
_MAX_JOB_ID_BYTES: Final = 1024

# Affinity keys are kept as long as their worker lives; longer ones are kept as digests.
_MAX_KEY_LENGTH: Final = 64

# How much a worker may leave unread before the next batch does not leave, unless `max_buffered_bytes` asks
# for less.
_MAX_UNREAD_BYTES: Final = 4 << 20


@attrs.define
class Counters:
    """What has happened since the engine started."""

    accepted: int = 0
    answered: int = 0
    abandoned: int = 0
    redelivered: int = 0
    outputs_dropped: int = 0
    ended: dict[str, int] = attrs.Factory(dict)
    refused: dict[str, int] = attrs.Factory(dict)


class Exchange:
    """The job table, the dispatcher and the files, under one roof."""

    def __init__(self, config: Config, store: ResourceStore, flush: Callable[[], None]) -> None:
        self.counters = Counters()
        self.draining = False
        self.dispatcher = Dispatcher(self._make_pool, flush)
        self._config = config
        self._store = store
        self._flush = flush
        self._table = JobTable()
        # Unguessable across restarts: a worker of an earlier engine cannot hit a job of this one by accident.
        self._id_prefix = secrets.token_hex(8) + "-"
        self._next_number = itertools.count(1).__next__
        self._max_output_bytes = config.max_worker_message_bytes - _RESPONSE_OVERHEAD
        self._all_ended = trio.Event()

    @property
    def open_jobs(self) -> int:
        """Accepted jobs that have neither an answer nor another end."""
        return self._table.open_jobs

    def recognises(self, worker_type: str) -> bool:
        """Whether the settings allow this worker type. P-05."""
        return any(fnmatchcase(worker_type, pattern) for pattern in self._config.worker_types)

    # ---------------------------------------------------------------------------------------------- jobs

    async def accept(self, requester: Requester, tenant: str, request: WorkerRequest) -> None:
        """Accept the jobs of a request, and refuse those that cannot be.

        Waits only while resources are written; cancelled there, nothing is accepted and nothing kept.

        Spec: "Full Request/Response Cycle", steps 2 to 4.
        """
        for invalid in request.invalid:
            self._refuse(requester, invalid.client_job_id, "invalid_job", invalid.reason)
        if not request.resources or self.draining:
            self._accept(requester, request.jobs, {})
            return
        try:
            files = await self._store.hold(tenant, request.resources)
        except StoreError as error:
            for job in request.jobs:
                self._refuse(requester, job.client_job_id, self._store_trouble(), str(error))
            return
        try:
            self._accept(requester, request.jobs, files)
        finally:
            self._release(files.values())

    def _accept(
        self, requester: Requester, requests: list[JobRequest], files: Mapping[str, HeldFile]
    ) -> None:
        now = trio.current_time()
        deadline = now + self._config.job_timeout
        open_jobs = requester.open_jobs
        jobs: list[Job] = []
        for request in requests:
            head = codec.response_head(request.client_job_id)
            key: Hashable = request.client_job_id if type(request.client_job_id) is str else head
            pool = self.dispatcher.pool(request.worker_type)
            affinity = None
            if pool is not None and pool.affinity_field is not None:
                affinity = _affinity(request.input.get(pool.affinity_field))
            if (
                pool is None
                or key in open_jobs
                or self.draining
                or len(head) > _MAX_JOB_ID_BYTES
                or self._table.size_bytes >= self._config.max_open_bytes
                or not pool.has_room(affinity)
            ):
                reason = self._why_not(request.worker_type, pool, head, duplicate=key in open_jobs)
                self._refuse(requester, request.client_job_id, *reason)
                continue
            job_files: tuple[HeldFile, ...] = ()
            job_input = request.input
            if request.references:
                job_files = tuple(files[name] for name in request.references)
                job_input = references.replace(
                    job_input, {name: files[name].path for name in request.references}
                )
            number = self._next_number()
            job_id = self._id_prefix + str(number)
            if pool.flat:
                wire = codec.encode_flat_job(job_id, job_input, request.extra, time.time() * 1000)
            else:
                wire = codec.encode_job(job_id, job_input, request.extra)
            for file in job_files:
                self._store.retain(file)
            pool.enter()
            # In order, for names would cost half a microsecond: a twentieth of all the work for a job.
            job = Job(
                number,
                job_id,
                request.client_job_id,
                key,
                requester,
                head,
                request.worker_type,
                affinity,
                wire,
                now,
                deadline,
                job_files,
                pool,
            )
            self._table.accept(job)
            jobs.append(job)
        if jobs:
            self.counters.accepted += len(jobs)
            self.dispatcher.submit(jobs)

    # The store is full or broken, or gone because the engine stops.
    def _store_trouble(self) -> str:
        return "engine_stopped" if self.draining else "queue_full"

    # Why a job is not accepted: kind and text of P-31.
    def _why_not(
        self, worker_type: str, pool: Pool | None, head: bytes, *, duplicate: bool
    ) -> tuple[str, str]:
        if self.draining:
            return "engine_stopped", "the engine is stopping"
        if len(head) > _MAX_JOB_ID_BYTES:
            return "invalid_job", f"job_id is longer than {_MAX_JOB_ID_BYTES} bytes"
        if duplicate:
            return "invalid_job", "job_id is that of a job which is still open; use a new one"
        name = worker_type[:60]
        if pool is not None and self._table.size_bytes < self._config.max_open_bytes:
            waiting = f"{pool.jobs_queued} jobs wait for {len(pool.workers)} workers of type {name!r}"
            return "queue_full", f"{waiting}; submit later or add workers"
        if pool is not None:
            return "queue_full", "open jobs take all the memory that ORB_MAX_OPEN_BYTES allows; submit later"
        if self.recognises(worker_type):
            return "queue_full", f"jobs wait for too many types without workers to take in {name!r}"
        return "unknown_worker_type", f"{name!r} is not recognised; the engine's WORKER_TYPES lists what is"

    def answer(self, queue: WorkerQueue, output: WorkerOutput) -> None:
        """Deliver a worker's results. Spec: "Output Delivery", P-23."""
        answer = self._table.answer
        ended = 0
        too_large: list[tuple[Job, int]] = []
        for job_id, entry in output.entries:
            job = answer(job_id, queue)
            if job is None:
                continue
            ended += 1
            if len(entry) > self._max_output_bytes:
                too_large.append((job, len(entry)))
                continue
            job.requester.deliver(job, entry)
            if job.files:
                self._release(job.files)
        for job, size in too_large:
            text = f"the result has {size} bytes, the limit is {self._max_output_bytes}"
            self._tell(job, "result_too_large", text)
        delivered = ended - len(too_large)
        queue.jobs_answered += delivered
        self.counters.answered += delivered
        self.counters.outputs_dropped += len(output.entries) - ended + output.malformed
        queue.send_due()
        self.dispatcher.pools[queue.worker_type].balance()
        self._note_end()

    def abandon(self, job: Job) -> None:
        """The requester no longer wants this job's answer. P-25."""
        if self._table.abandon(job):
            self.counters.abandoned += 1
            self._release(job.files)
            job.owner.send_due()
            self.dispatcher.pools[job.worker_type].balance()
            self._note_end()

    def abandon_all(self, requester: Requester) -> None:
        """The requester is gone. P-25."""
        for job in list(requester.open_jobs.values()):
            self.abandon(job)

    async def run_reaper(self) -> None:
        """End jobs at their deadline, until cancelled. Spec: "Timeout Behavior", P-21."""
        timeout = self._config.job_timeout
        while True:
            # A job accepted while this sleeps has its deadline after the whole timeout, so nothing needs to
            # wake us for it.
            await trio.sleep_until(min(self._table.next_deadline, trio.current_time() + timeout))
            self._expire()
            self._flush()

    # On its own, because the names of a loop that sleeps would keep the last worker and its connection.
    def _expire(self) -> None:
        expired, owners = self._table.expire(trio.current_time())
        for job in expired:
            self._tell(job, "timeout", f"no answer within {self._config.job_timeout:g} s")
        for owner in owners:
            owner.send_due()
        for pool in self.dispatcher.pools.values():
            pool.balance()

    def forget_tenant(self, tenant: str) -> None:
        """A client is gone whose connection was a tenant of its own: its directories go too."""
        if not self._config.client_tokens:
            self._store.forget_tenant(tenant)

    # ------------------------------------------------------------------------------------------- workers

    def add_worker(self, registration: RegisterWorker, outlet: Outlet) -> WorkerQueue:
        """A worker registered; jobs that waited for its type leave in the same turn.

        Raises:
            RegistrationRefused: more worker types than the engine keeps.
        """
        pool = self.dispatcher.pool(registration.worker_type)
        if pool is None:
            raise RegistrationRefused("the engine has jobs for too many other worker types")
        buffered = self._config.max_buffered_bytes
        settings = QueueSettings(
            max_batch_size=registration.max_batch_size,
            max_latency=registration.max_latency,
            eager=registration.eager,
            max_unanswered_batches=registration.max_unanswered_batches,
            # The unread bytes and one batch more must stay below what makes the transport drop the peer.
            max_message_bytes=min(registration.max_message_bytes, MAX_JOB_BYTES, buffered // 2),
            max_unread_bytes=min(_MAX_UNREAD_BYTES, buffered // 4),
        )
        name = f"{registration.worker_type}-{next(pool.worker_numbers)}"
        queue = WorkerQueue(name, registration.worker_type, settings, pool, outlet)
        pool.add(queue)
        return queue

    def remove_worker(self, queue: WorkerQueue, *, message_too_large: bool = False) -> None:
        """A worker is gone: its jobs, sent or not, go to others, or wait for the next of their type. P-22."""
        pool = self.dispatcher.pools[queue.worker_type]
        again = []
        for job in pool.remove(queue):
            sent = job.batch is not None
            if sent and job.deliveries >= self._config.max_deliveries and self._table.end(job):
                kind = "result_too_large" if message_too_large else "worker_lost"
                self._tell(job, kind, f"{job.deliveries} workers were lost while they ran it")
            elif self._table.requeue(job, pool):
                self.counters.redelivered += sent
                again.append(job)
        if self.draining and not pool.workers:
            pool.jobs_queued += len(again)  # which the end of each takes off again
            for job in again:
                self._end(job, "engine_stopped", "the engine is stopping")
        else:
            pool.requeue(again)

    # ------------------------------------------------------------------------------------------ stopping

    async def drain(self) -> None:
        """Accept no more, send everything out, and wait until no job is open. P-26."""
        self.draining = True
        for pool in self.dispatcher.pools.values():
            pool.hurry()
        for job in self._table:
            if not self.dispatcher.pools[job.worker_type].workers:
                self._end(job, "engine_stopped", "the engine is stopping and has no worker of this type")
        self._flush()
        self._note_end()
        await self._all_ended.wait()

    def end_all(self) -> None:
        """End every open job as ``engine_stopped``."""
        self.draining = True
        for job in self._table:
            self._end(job, "engine_stopped", "the engine has stopped")
        self._flush()

    # ----------------------------------------------------------------------------------------- one place

    def _end(self, job: Job, kind: str, text: str) -> None:
        if self._table.end(job):
            self._tell(job, kind, text)

    # The job has left the table without an answer.
    def _tell(self, job: Job, kind: str, text: str) -> None:
        self.counters.ended[kind] = self.counters.ended.get(kind, 0) + 1
        job.requester.refuse(job.client_job_id, kind, text)
        self._release(job.files)
        self._note_end()

    def _refuse(self, requester: Requester, client_job_id: Any, kind: str, text: str) -> None:
        self.counters.refused[kind] = self.counters.refused.get(kind, 0) + 1
        requester.refuse(client_job_id, kind, text)

    def _release(self, files: Collection[HeldFile]) -> None:
        for file in files:
            self._store.release(file)

    def _note_end(self) -> None:
        if self.draining and not self._table.open_jobs:
            self._all_ended.set()

    def _make_pool(self, worker_type: str) -> Pool | None:
        if not self.recognises(worker_type):
            return None
        return Pool(
            worker_type,
            affinity_field=self._config.affinity.get(worker_type),
            flat=any(fnmatchcase(worker_type, pattern) for pattern in self._config.flat_types),
            max_queued=self._config.max_queued_jobs,
            too_large=self._too_large,
        )

    def _too_large(self, job: Job) -> None:
        limit = max(queue.max_job_bytes for queue in self.dispatcher.pools[job.worker_type].workers)
        text = f"the job has {len(job.wire)} bytes, its workers take {limit}; send large data as a resource"
        self._end(job, "invalid_job", text)


# Numbers and byte strings name a stream as well as text does; whatever else stands there is no name. P-12.
def _affinity(value: Any) -> str | None:
    if type(value) is str:
        if len(value) <= _MAX_KEY_LENGTH:
            return value
        value = value.encode()
    if type(value) is bytes:
        return hashlib.blake2b(value, digest_size=16).hexdigest()
    return repr(value) if type(value) in (int, float, bool) else None

"""Where jobs go in and come out. `intake` accepts them; this is the only place that ends them.

Sessions speak with peers; this module knows no connection, only `Requester`s that submitted jobs and
`WorkerQueue`s that run them. Whatever way a job ends, `answer`, `abandon_all` or `_tell` releases its files
and lets the requester know; and if a worker is left with a job that nobody waits for, `_free` lets it know.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import trio

from orbtrio.engine.dispatch import Dispatcher, Pool
from orbtrio.engine.intake import Counters, Intake, client_key
from orbtrio.engine.jobs import Job, JobState, JobTable
from orbtrio.engine.outlets import FileOutlet
from orbtrio.engine.queues import QueueSettings, WorkerQueue
from orbtrio.errors import RegistrationRefused
from orbtrio.protocol.bulk import MAX_JOB_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from orbtrio.engine.config import Config
    from orbtrio.engine.jobs import Owner, Requester
    from orbtrio.engine.outlets import Outlet
    from orbtrio.engine.resources import ResourceStore
    from orbtrio.protocol.messages import (
        JobRequest,
        RegisterWorker,
        WorkerOutput,
        WorkerProgress,
        WorkerRequest,
    )

__all__ = ["Exchange"]

# What is left of a message's limit for the parts of a response around the output.
_RESPONSE_OVERHEAD: Final = 64 * 1024

# Threads that read files for workers which have not the engine's disk.
_READERS: Final = 4

# How much a worker may leave unread before the next batch does not leave, unless `max_buffered_bytes` asks
# for less.
_MAX_UNREAD_BYTES: Final = 4 << 20


# Whoever waits for a job that the engine has ended. Its worker may be at it for minutes more, and would keep
# the connection of a client that has gone.
class _Nobody:
    def __init__(self) -> None:
        self.open_jobs: dict[Hashable, Job] = {}
        self.extensions: frozenset[str] = frozenset()

    def deliver(self, job: Job, output: bytes) -> None: ...

    def report(self, job: Job, entry: bytes) -> bool:
        raise AssertionError("the job has ended")

    def refuse(self, client_job_id: Any, kind: str, text: str) -> None: ...


_NOBODY: Final = _Nobody()


class Exchange:
    """The job table, the dispatcher and the files, under one roof.

    Attributes:
        counters: What has happened so far.
        dispatcher: Who gets which job.
        flush: Sends what this module has queued; for whoever called it, at the end of the turn.
    """

    def __init__(self, config: Config, store: ResourceStore, flush: Callable[[], None]) -> None:
        self.counters = Counters()
        self.dispatcher = Dispatcher(self._make_pool, flush)
        self._config = config
        self._store = store
        self.flush = flush
        self._table = JobTable()
        self._intake = Intake(
            config, store, self._table, self.dispatcher, self.counters, recognises=self.recognises
        )
        self._max_output_bytes = config.max_worker_message_bytes - _RESPONSE_OVERHEAD
        self._all_ended = trio.Event()
        self._readers = trio.CapacityLimiter(_READERS)

    @property
    def draining(self) -> bool:
        """Whether no more jobs are accepted."""
        return self._intake.closed

    @property
    def open_jobs(self) -> int:
        """Accepted jobs that have neither an answer nor another end."""
        return self._table.open_jobs

    def recognises(self, worker_type: str) -> bool:
        """Whether the settings allow this worker type. P-05."""
        return any(fnmatchcase(worker_type, pattern) for pattern in self._config.worker_types)

    # ---------------------------------------------------------------------------------------------- jobs

    async def accept(self, requester: Requester, tenant: str, request: WorkerRequest) -> None:
        """Accept the jobs of a request, and refuse those that cannot be; see `Intake.accept`."""
        await self._intake.accept(requester, tenant, request)

    def accept_jobs(self, requester: Requester, jobs: list[JobRequest]) -> None:
        """Accept jobs without resources; see `Intake.accept_jobs`."""
        self._intake.accept_jobs(requester, jobs)

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
                self._intake.release(job.files)
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

    def report(self, queue: WorkerQueue, progress: WorkerProgress) -> None:
        """Pass on what a worker says of jobs that it has. Extension ``progress``."""
        now = trio.current_time()
        passed = 0
        flooding = []
        for job_id, entry in progress.entries:
            job = self._table.report(job_id, queue, now) if len(entry) <= self._max_output_bytes else None
            if job is None:
                continue
            if job.requester.report(job, entry):
                passed += 1
            elif self._abandon(job, "slow_reader", "the client reads more slowly than progress comes"):
                flooding.append(job)
        self.counters.progress += passed
        if flooding:
            self._free(flooding)

    def cancel(self, requester: Requester, client_job_ids: Iterable[Any]) -> None:
        """The requester no longer wants these jobs. Extension ``cancel``; unknown ids are ignored."""
        jobs = [requester.open_jobs.get(client_key(name)) for name in client_job_ids]
        text = "the client cancelled the job"
        self._free([job for job in jobs if job is not None and self._abandon(job, "cancelled", text)])

    def abandon_all(self, requester: Requester) -> None:
        """The requester is gone, or no longer wants any answer. P-25."""
        self._free([job for job in list(requester.open_jobs.values()) if self._abandon(job)])

    # Nobody waits for a job any more. Without a kind there is nobody to tell, either.
    def _abandon(self, job: Job, kind: str | None = None, text: str = "") -> bool:
        if not self._table.abandon(job, trio.current_time() + self._config.job_timeout):
            return False
        if kind is not None:
            self._tell(job, kind, text)
        else:
            self.counters.abandoned += 1
            self._intake.release(job.files)
            job.requester = _NOBODY
        return True

    # Jobs have ended by no doing of whoever held them: workers that still compute are told to stop, and
    # what they have room for now can leave.
    def _free(self, jobs: Iterable[Job], owners: Iterable[Owner] = ()) -> None:
        freed: dict[Owner, list[str]] = {owner: [] for owner in owners}
        types: dict[str, None] = {}  # in order, so that what follows is the same in every run
        for job in jobs:
            ids = freed.setdefault(job.owner, [])
            types[job.worker_type] = None
            if job.state is JobState.ABANDONED and job.owner.cancels:
                ids.append(job.job_id)
        for owner, ids in freed.items():
            if ids:
                self.counters.cancels_sent += len(ids)
                owner.cancel(ids)
            owner.send_due()
        for worker_type in types:
            self.dispatcher.pools[worker_type].balance()
        self._note_end()

    async def run_reaper(self) -> None:
        """End jobs at their deadline, until cancelled. Spec: "Timeout Behavior", P-21."""
        timeout = self._config.job_timeout
        while True:
            # A job accepted while this sleeps has its deadline after the whole timeout, so nothing needs to
            # wake us for it. For one with a watch, the alarm is put forward.
            due = min(self._table.next_deadline, trio.current_time() + timeout)
            with trio.CancelScope(deadline=due) as self._table.watches.alarm:
                await trio.sleep_forever()
            self._expire()
            self.flush()

    # On its own, because the names of a loop that sleeps would keep the last worker and its connection.
    def _expire(self) -> None:
        now = trio.current_time()
        expired, owners = self._table.expire(now, now + self._config.job_timeout)
        for job in expired:
            if job.watch is not None and job.watch.deadline > now:
                self._tell(job, "heartbeat_timeout", f"no progress within {job.watch.heartbeat:g} s")
            else:
                limit = self._config.job_timeout
                if job.watch is not None:
                    limit = job.watch.deadline - job.accepted_at
                self._tell(job, "timeout", f"no answer within {limit:g} s")
        self._free(expired, owners)
        for pool in self.dispatcher.pools.values():
            pool.balance()

    def forget_tenant(self, tenant: str) -> None:
        """A client is gone whose connection was a tenant of its own: its directories go too."""
        if not self._config.client_tokens:
            self._store.forget_tenant(tenant)

    # ------------------------------------------------------------------------------------------- workers

    def file_outlet(self, outlet: Outlet) -> FileOutlet:
        """For a worker that has not the engine's disk; to be run. Extension ``inline_resources``."""
        return FileOutlet(outlet, self._store, self._readers, self.flush)

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
            cancels="cancel" in registration.extensions,
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
        self._hand_on(pool, again)

    def drain_worker(self, queue: WorkerQueue) -> None:
        """A worker wants no more jobs; `WorkerQueue.drained` says when it has none. Extension ``drain``."""
        if not queue.draining:
            queue.draining = True
            pool = self.dispatcher.pools[queue.worker_type]
            self._hand_on(pool, [job for job in pool.retire(queue) if self._table.requeue(job, pool)])
            queue.send_due()

    # To other workers, or to the next of their type.
    def _hand_on(self, pool: Pool, jobs: list[Job]) -> None:
        if self.draining and not pool.workers:
            pool.jobs_queued += len(jobs)  # which the end of each takes off again
            for job in jobs:
                self._end(job, "engine_stopped", "the engine is stopping")
        else:
            pool.requeue(jobs)

    # ------------------------------------------------------------------------------------------ stopping

    async def drain(self) -> None:
        """Accept no more, send everything out, and wait until no job is open. P-26."""
        self._intake.closed = True
        for pool in self.dispatcher.pools.values():
            pool.hurry()
        for job in self._table:
            if job.batch is None and not self.dispatcher.pools[job.worker_type].workers:
                self._end(job, "engine_stopped", "the engine is stopping and has no worker of this type")
        self.flush()
        self._note_end()
        await self._all_ended.wait()

    def end_all(self) -> None:
        """End every open job as ``engine_stopped``."""
        self._intake.closed = True
        for job in self._table:
            self._end(job, "engine_stopped", "the engine has stopped")
        self.flush()

    # ----------------------------------------------------------------------------------------- one place

    def _end(self, job: Job, kind: str, text: str) -> None:
        if self._table.end(job):
            self._tell(job, kind, text)

    # The job has left the table without an answer.
    def _tell(self, job: Job, kind: str, text: str) -> None:
        self.counters.ended[kind] = self.counters.ended.get(kind, 0) + 1
        job.requester.refuse(job.client_job_id, kind, text)
        job.requester = _NOBODY
        self._intake.release(job.files)
        self._note_end()

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
        workers = self.dispatcher.pools[job.worker_type].workers
        limit = max(queue.max_job_bytes for queue in workers)
        size = min(queue.weigh(job) for queue in workers)
        text = f"the job has {size} bytes, its workers take {limit}; "
        text += "send large data as a resource" if size == len(job.wire) else "its resources travel with it"
        self._end(job, "invalid_job", text)

"""One queue per worker connection: what waits for it, what it owes, and when its next batch leaves.

Everything here is synchronous; `run_batcher` is the one task, and it owns the clock only. A batch leaves

- at once when it is full: `max_batch_size` jobs, or as many bytes as the worker can take in a message (P-16);
- at once when the worker is eager and has nothing to do (P-18);
- when its oldest job was accepted `max_latency` ago (P-10), which never restarts;

and never while the worker's credit is spent, or while it leaves so much unread that another batch would only
wait in our memory: the TCP window is a stock worker's only brake (P-15), and what is not sent can still go to
another. Whoever changes what these rules look at calls `send_due`.

Jobs that end while they wait stay in the deque, for a deque has no cheap delete; `jobs_waiting` counts the
living, and the dead are skipped when they surface.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import trio

from orbtrio.engine.jobs import Batch, Job, JobState
from orbtrio.errors import ConnectionLost
from orbtrio.protocol import codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orbtrio.protocol.messages import RegisterWorker

__all__ = ["Lane", "Outlet", "WorkerQueue", "run_batcher"]

_QUEUED = JobState.QUEUED

# A job that was in hand when two workers died may be what killed them: from then on it travels alone. P-22.
_SUSPECT_AFTER: Final = 2

# A worker that leaves more bytes than this unread gets no further batch until it is down to `_UNCLOGGED`.
_CLOGGED: Final = 4 << 20
_UNCLOGGED: Final = 1 << 20

# What {"inputs": [...]} adds around the jobs of a batch, at most.
_BATCH_OVERHEAD: Final = 16


class Lane(Protocol):
    """The worker type's side of the books; `dispatch.Pool` is the real one."""

    jobs_queued: int

    def note_load(self, queue: WorkerQueue) -> None:
        """The queue has more or less to do than before."""


class Outlet(Protocol):
    """Where batches leave; `transport.Transport` is the real one."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes that the worker's side has not taken."""

    def queue(self, *parts: bytes) -> None:
        """Add one message, given in parts; it is written at the end of the turn."""

    async def wait_sent(self, below: int = 0) -> None:
        """Wait until at most so many bytes are unsent; raises ConnectionLost."""


class WorkerQueue:
    """The jobs of one worker.

    Attributes:
        name: For people, e.g. ``"embedding-3"``.
        jobs_waiting: Living jobs that have not been sent.
        jobs_in_flight: Sent and not answered.
        jobs_answered, batches_sent, batches_answered, batch_seconds: Totals for `Engine.statistics`; the
        seconds run from sending a
            batch to its last answer.
    """

    def __init__(self, name: str, registration: RegisterWorker, lane: Lane, outlet: Outlet) -> None:
        self.name = name
        self.worker_type = registration.worker_type
        self.max_batch_size = registration.max_batch_size
        self.max_latency = registration.max_latency
        self.eager = registration.eager
        self.max_job_bytes = registration.max_message_bytes - _BATCH_OVERHEAD
        self._credit: float = registration.max_unanswered_batches or math.inf
        self._lane = lane
        self._outlet = outlet
        self._clogged = False
        self._jobs: deque[Job] = deque()
        self._bytes = 0
        self._open_batches: dict[Batch, None] = {}
        self.alarm = trio.CancelScope()
        self.load_level = 0  # kept by the pool
        self.hurried = False
        self.jobs_waiting = 0
        self.jobs_in_flight = 0
        self.jobs_answered = 0
        self.batches_sent = 0
        self.batches_answered = 0
        self.batch_seconds = 0.0

    @property
    def has_credit(self) -> bool:
        """Whether the worker may be sent another batch now. P-15."""
        return len(self._open_batches) < self._credit and not self._clogged

    @property
    def is_full(self) -> bool:
        """Whether the waiting jobs fill a batch."""
        return self.jobs_waiting >= self.max_batch_size or self._bytes >= self.max_job_bytes

    @property
    def load(self) -> int:
        """Jobs waiting and in flight, counted in started batches."""
        return -(-(self.jobs_waiting + self.jobs_in_flight) // self.max_batch_size)

    @property
    def room_in_batch(self) -> int:
        """How many jobs the batch that is being filled still takes; a whole batch if none is."""
        return self.max_batch_size - self.jobs_waiting % self.max_batch_size

    @property
    def due(self) -> float:
        """When the waiting jobs leave even if they fill no batch; infinity without jobs or credit."""
        jobs = self._jobs
        while jobs and jobs[0].state is not _QUEUED:
            jobs.popleft()
        if not jobs or len(self._open_batches) >= self._credit or self._clogged:
            return math.inf
        if self.hurried or (self.eager and not self._open_batches):
            return -math.inf
        return jobs[0].accepted_at + self.max_latency

    @property
    def next_look(self) -> float:
        """When the batcher has to act."""
        return -math.inf if self._clogged else self.due

    # ----------------------------------------------------------------------------------- jobs in and out

    def append(self, jobs: Sequence[Job]) -> None:
        """Queue jobs behind the others. Call `send_due` afterwards."""
        for job in jobs:
            job.owner = self
            self._bytes += len(job.wire)
        self._jobs.extend(jobs)
        self.jobs_waiting += len(jobs)

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Queue jobs of a lost worker where their age puts them, mostly in front. P-17.

        Call `send_due` afterwards.
        """
        waiting = self._jobs
        self._jobs = deque()
        self.append(jobs)
        self._jobs = deque(heapq.merge(self._jobs, waiting, key=acceptance))

    def take_oldest(self, most: int) -> list[Job]:
        """Give up to `most` waiting jobs away, oldest first, to another worker of the type."""
        taken: list[Job] = []
        while self._jobs and len(taken) < most:
            job = self._jobs.popleft()
            if job.state is _QUEUED:
                taken.append(job)
                self._bytes -= len(job.wire)
        self.jobs_waiting -= len(taken)
        return taken

    def take_all(self) -> list[Job]:
        """Give up every job, sent or not, oldest first: the worker is gone. P-22."""
        jobs = [
            job
            for batch in self._open_batches
            for job in batch.jobs
            if job.owner is self and job.batch is batch
        ]
        jobs += [job for job in self._jobs if job.state is _QUEUED]
        self._jobs.clear()
        self._open_batches.clear()
        return sorted(jobs, key=acceptance)

    def let_go(self, job: Job) -> None:
        """A job of this queue was settled. See `jobs.Owner`."""
        batch = job.batch
        if batch is None:
            self.jobs_waiting -= 1
            self._lane.jobs_queued -= 1
            self._bytes -= len(job.wire)
            if len(self._jobs) > 2 * self.jobs_waiting + 64:
                self._jobs = deque(
                    other for other in self._jobs if other.state is _QUEUED and other is not job
                )
            return
        self.jobs_in_flight -= 1
        batch.owed -= 1
        if not batch.owed:
            self._open_batches.pop(batch, None)
            self.batches_answered += 1
            self.batch_seconds += trio.current_time() - batch.sent_at

    # ------------------------------------------------------------------------------------------- batches

    def send_due(self) -> None:
        """Send every batch that the rules let go now, and set the alarm for the next."""
        now = trio.current_time()
        due = self.due
        while due <= now or (due < math.inf and self.is_full):
            self._send_batch(now)
            due = self.due
        # Lowered, never raised: under load full batches keep leaving and the head gets younger while the
        # batcher sleeps. To wake once per latency, look, and sleep on costs less than moving a deadline for
        # every batch.
        if due < self.alarm.deadline:
            self.alarm.deadline = due
        self._lane.note_load(self)

    def _send_batch(self, now: float) -> None:
        batch = Batch(now)
        wires: list[bytes] = []
        size = 0
        jobs = self._jobs
        while jobs and len(wires) < self.max_batch_size:
            job = jobs[0]
            if job.state is not _QUEUED:
                jobs.popleft()
                continue
            suspect = job.deliveries >= _SUSPECT_AFTER
            if wires and (suspect or size + len(job.wire) > self.max_job_bytes):
                break
            size += len(job.wire)
            jobs.popleft()
            job.claim(batch)
            wires.append(job.wire)
            if suspect:
                break
        count = len(wires)
        batch.owed = count
        self._open_batches[batch] = None
        self._bytes -= size
        self.jobs_waiting -= count
        self.jobs_in_flight += count
        self.batches_sent += 1
        self._lane.jobs_queued -= count
        self._outlet.queue(*codec.batch_parts(wires))
        if self._outlet.buffered_bytes > _CLOGGED:
            self._clogged = True
            self.alarm.cancel()  # the batcher waits for the wire instead of the clock

    async def wait_unclogged(self) -> None:
        """Return at once unless `_CLOGGED` bytes are unread.

        Raises:
            ConnectionLost: the worker is gone.
        """
        if self._clogged:
            await self._outlet.wait_sent(_UNCLOGGED)
            self._clogged = False


async def run_batcher(queue: WorkerQueue, flush: _Flush) -> None:
    """Send what waits once its oldest job has waited `max_latency`. Spec: "Job Accumulation Rules".

    Full batches leave at once, where jobs are dealt out; this task owns the clock only. It returns when the
    connection ends while it waits for the wire.
    """
    while True:
        try:
            await queue.wait_unclogged()
        except ConnectionLost:
            return
        queue.send_due()
        flush()
        with trio.CancelScope(deadline=queue.next_look) as queue.alarm:
            await trio.sleep_forever()


class _Flush(Protocol):
    def __call__(self) -> None:
        """Write what was queued, one write per connection."""


def acceptance(job: Job) -> int:
    """Sort key: older jobs first."""
    return job.number


def living(jobs: Iterable[Job]) -> list[Job]:
    """The jobs that are still waiting; some may have ended on the way."""
    return [job for job in jobs if job.state is _QUEUED]

"""One queue per worker connection: what waits for it, what it owes, and when its next batch leaves.

Everything here is synchronous; `run_batcher` is the one task, and it owns the clock only. A batch leaves

- at once when it is full: `max_batch_size` jobs, or as many bytes as the worker takes in a message (P-16);
- at once when the worker is eager and has nothing to do (P-18), and when the engine is draining;
- when its oldest job was accepted `max_latency` ago (P-10), which never restarts;

but never while the queue is *blocked*:

- its credit is spent (P-15);
- it leaves so much unread that another batch would only wait in our memory: the TCP window is a stock
  worker's only brake, and what is not sent can still go to another worker;
- a suspect is out, or is next while other jobs are out: a job that was in hand when two workers died must
  have nobody beside it when the third does (P-22).

Whoever changes what these rules look at calls `send_due`.

Jobs stand in order of acceptance, also those that come back from a lost worker. Jobs that end while they wait
stay in the deque, for a deque has no cheap delete; `jobs_waiting` counts the living, and the dead are skipped
when they surface.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from orbtrio.engine.jobs import Batch, Job, JobState, acceptance
from orbtrio.engine.outlets import FileOutlet, weight
from orbtrio.errors import ConnectionLost
from orbtrio.protocol import codec
from orbtrio.protocol.messages import CancelJobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from orbtrio.engine.outlets import Outlet
    from orbtrio.engine.resources import HeldFile

__all__ = ["Lane", "QueueSettings", "WorkerQueue", "living", "run_batcher"]

_QUEUED = JobState.QUEUED

# How many lost workers make a job a suspect.
_SUSPECT_AFTER: Final = 2

# What {"inputs": [...]} adds around the jobs of a batch, at most.
_BATCH_OVERHEAD: Final = 16

# What {"type": "cancel_jobs", "ids": [...]} adds around the ids, and the longest of them: sixteen digits, a
# hyphen, and the number of the job. All at most.
_CANCEL_OVERHEAD: Final = 32
_MAX_ID_BYTES: Final = 40


class Lane(Protocol):
    """The books of a worker type; `dispatch.Pool` is the real one."""

    jobs_queued: int

    def note_load(self, queue: WorkerQueue) -> None:
        """The queue has more or less to do than before."""


@attrs.frozen(kw_only=True)
class QueueSettings:
    """What a worker asked for, as far as the engine grants it.

    Attributes:
        max_batch_size: Most jobs of a batch.
        max_latency: Longest wait of a batch's oldest job, in seconds.
        eager: Whether it wants jobs at once when it has none.
        max_unanswered_batches: Its credit; None for a stock worker, which has no end of it.
        max_message_bytes: Largest batch.
        max_unread_bytes: How much may wait on the wire before the next batch does not leave.
        cancels: Whether it wants to know of jobs that nobody waits for any more.
    """

    max_batch_size: int
    max_latency: float
    eager: bool = False
    max_unanswered_batches: int | None = None
    max_message_bytes: int = 900 * 1024
    max_unread_bytes: int = 4 << 20
    cancels: bool = False


class WorkerQueue:
    """The jobs of one worker.

    Attributes:
        name: For people, e.g. ``"embedding-3"``.
        cancels: Whether it can be told to stop; see `jobs.Owner`.
        jobs_waiting: Living jobs that have not been sent.
        jobs_in_flight: Sent and not answered.
        jobs_answered: Since the worker registered, as the next three.
        batches_sent: All batches.
        batches_answered: Those of which the worker owes nothing any more.
        batch_seconds: Sum over those, from sending a batch to its last answer.
        hurried: Nothing waits for company any more; set by the pool when the engine drains.
        draining: It gets no more jobs; whoever sets it has taken those that wait.
        drained: Set when it has none any more.
        load_level: The load under which the pool has this queue in its books.
        alarm: The batcher sleeps in it. Its deadline is lowered when a batch is due earlier; outside the
            sleep that has no effect, and the batcher looks before it sleeps again.
    """

    def __init__(
        self, name: str, worker_type: str, settings: QueueSettings, lane: Lane, outlet: Outlet
    ) -> None:
        self.name = name
        self.worker_type = worker_type
        self.max_batch_size = settings.max_batch_size
        self.max_latency = settings.max_latency
        self.eager = settings.eager
        self.cancels = settings.cancels
        self.max_job_bytes = settings.max_message_bytes - _BATCH_OVERHEAD
        self._max_unread_bytes = settings.max_unread_bytes
        self._credit: float = settings.max_unanswered_batches or math.inf
        self._lane = lane
        self._outlet = outlet
        # That of a worker that gets the files of its jobs along with them. None for nearly all.
        self._files = outlet if isinstance(outlet, FileOutlet) else None
        self._jobs: deque[Job] = deque()
        self._bytes = 0
        self._open_batches: dict[Batch, None] = {}
        self._clogged = False
        self._suspect_is_out = False
        self.alarm = trio.CancelScope()
        self.load_level = 0
        self.hurried = False
        self.draining = False
        self.drained = trio.Event()
        self.jobs_waiting = 0
        self.jobs_in_flight = 0
        self.jobs_answered = 0
        self.batches_sent = 0
        self.batches_answered = 0
        self.batch_seconds = 0.0

    @property
    def blocked(self) -> bool:
        """Whether nothing may be sent now, whatever waits."""
        return self._is_blocked(self._head())

    def _is_blocked(self, head: Job | None) -> bool:
        open_batches = len(self._open_batches)
        if open_batches >= self._credit or self._clogged or self._suspect_is_out:
            return True
        return open_batches > 0 and head is not None and head.deliveries >= _SUSPECT_AFTER

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
        """When the waiting jobs leave even if they fill no batch; infinity if none does or may."""
        head = self._head()
        if head is None or self._is_blocked(head):
            return math.inf
        if self.hurried or (self.eager and not self._open_batches):
            return -math.inf
        return head.accepted_at + self.max_latency

    def _head(self) -> Job | None:
        jobs = self._jobs
        while jobs:
            if jobs[0].state is _QUEUED:
                return jobs[0]
            jobs.popleft()
        return None

    def weigh(self, job: Job) -> int:
        """What a job adds to a batch for this worker, in bytes."""
        size = len(job.wire)
        return size if self._files is None else size + sum(map(weight, job.files))

    def takes(self, job: Job) -> bool:
        """Whether a batch can be as large as this job."""
        if self._files is None:
            return len(job.wire) <= self.max_job_bytes
        return self.weigh(job) <= self.max_job_bytes

    # ---- jobs in and out

    def put(self, jobs: Sequence[Job]) -> None:
        """Queue jobs, given in order of acceptance, where their age puts them; then call `send_due`. P-17."""
        size = 0
        for job in jobs:
            job.owner = self
            size += len(job.wire)
        self._bytes += size if self._files is None else sum(map(self.weigh, jobs))
        self.jobs_waiting += len(jobs)
        # They may come back from a lost worker.
        if self._jobs and acceptance(self._jobs[-1]) > acceptance(jobs[0]):
            self._jobs = deque(heapq.merge(jobs, self._jobs, key=acceptance))
        else:
            self._jobs.extend(jobs)

    def take_oldest(self, most: int, heir: WorkerQueue) -> list[Job]:
        """Give up to `most` waiting jobs away, oldest first, of those that `heir` takes."""
        taken: list[Job] = []
        kept: deque[Job] = deque()
        while self._jobs and len(taken) < most:
            job = self._jobs.popleft()
            if job.state is not _QUEUED:
                continue
            if not heir.takes(job):
                kept.append(job)
                continue
            taken.append(job)
            self._bytes -= self.weigh(job)
        self._jobs.extendleft(reversed(kept))
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
        jobs += self.take_waiting()
        self._open_batches.clear()
        return sorted(jobs, key=acceptance)

    def take_waiting(self) -> list[Job]:
        """Give up every job that was not sent, oldest first."""
        jobs = living(self._jobs)
        self._jobs.clear()
        self.jobs_waiting = self._bytes = 0
        return jobs

    def let_go(self, job: Job) -> None:
        """A job of this queue is being settled. See `jobs.Owner`."""
        batch = job.batch
        if batch is None:
            self.jobs_waiting -= 1
            self._lane.jobs_queued -= 1
            self._bytes -= self.weigh(job)
            if len(self._jobs) > 2 * self.jobs_waiting + 64:
                self._jobs = deque(other for other in living(self._jobs) if other is not job)
            return
        self.jobs_in_flight -= 1
        batch.owed -= 1
        if not batch.owed:
            self._open_batches.pop(batch, None)
            # Each job names its batch. Left in a circle they would be freed by the collector only, which then
            # stops everything for 0.15 s, every 75,000 jobs.
            batch.jobs.clear()
            self._suspect_is_out = False
            self.batches_answered += 1
            self.batch_seconds += trio.current_time() - batch.sent_at

    def cancel(self, job_ids: list[str]) -> None:
        """Tell the worker that nobody waits for these any more. See `jobs.Owner`."""
        # For a worker without an end of credit these may be more than it takes in a message, as of a batch.
        most = max(1, (self.max_job_bytes - _CANCEL_OVERHEAD) // _MAX_ID_BYTES)
        for start in range(0, len(job_ids), most):
            self._outlet.queue(codec.encode(CancelJobs(job_ids[start : start + most])))

    # ---- batches

    def send_due(self) -> None:
        """Send every batch that the rules let go now, and set the alarm for the next."""
        due = self.due
        if due < math.inf:
            now = trio.current_time()
            while due <= now or (due < math.inf and self.is_full):
                self._send_batch(now)
                due = self.due
        # Lowered, never raised: under load full batches keep leaving and the head gets younger while the
        # batcher sleeps. To wake once per latency, look, and sleep on costs less than moving a deadline for
        # every batch.
        if due < math.inf and due < self.alarm.deadline:
            self.alarm.deadline = due
        self._lane.note_load(self)
        if self.draining and not self.jobs_in_flight:
            self.drained.set()

    def _send_batch(self, now: float) -> None:
        batch = Batch(now)
        wires: list[bytes] = []
        files: set[HeldFile] | None = None if self._files is None else set()  # each travels once
        jobs, most = self._jobs, self.max_batch_size
        room = self.max_job_bytes
        size = 0
        while jobs and len(wires) < most:
            job = jobs[0]
            if job.state is not _QUEUED:
                jobs.popleft()
                continue
            wire = job.wire
            more = len(wire)
            if files is not None:
                more += sum(weight(file) for file in set(job.files) - files)
                files.update(job.files)
            suspect = job.deliveries >= _SUSPECT_AFTER
            if wires and (suspect or size + more > room):
                break
            size += more
            jobs.popleft()
            job.claim(batch)
            wires.append(wire)
            if suspect:
                self._suspect_is_out = True
                break
        count = len(wires)
        batch.owed = count
        self._open_batches[batch] = None
        self._bytes -= size if self._files is None else sum(map(self.weigh, batch.jobs))
        self.jobs_waiting -= count
        self.jobs_in_flight += count
        self.batches_sent += 1
        self._lane.jobs_queued -= count
        if self._files is None:
            self._outlet.queue(*codec.batch_parts(wires))
        else:
            self._files.queue_batch(
                wires, list(dict.fromkeys(file for job in batch.jobs for file in job.files))
            )
        if self._outlet.buffered_bytes > self._max_unread_bytes:
            self._clogged = True
            self.alarm.cancel()  # the batcher waits for the wire instead of the clock

    async def wait_unclogged(self) -> None:
        """Return at once unless too much is unread.

        Raises:
            ConnectionLost: the worker is gone.
        """
        if self._clogged:
            await self._outlet.wait_sent(self._max_unread_bytes // 4)
            self._clogged = False

    @property
    def next_look(self) -> float:
        """When the batcher has to act."""
        return -math.inf if self._clogged else self.due


async def run_batcher(queue: WorkerQueue, flush: Callable[[], None]) -> None:
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


def living(jobs: Iterable[Job]) -> list[Job]:
    """The jobs that are still waiting; some may have ended on the way."""
    return [job for job in jobs if job.state is _QUEUED]

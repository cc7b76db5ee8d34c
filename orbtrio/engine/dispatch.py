"""Who gets which job: a shared memory channel of accepted jobs, dealt to one queue per worker.

Sessions put the jobs of a request into the channel as one list; the dispatcher task takes whatever lists have
gathered and deals them. The channel is unbounded because the door is not: `Pool.room` refuses what would not
fit (P-14), so a put never waits and a requeue never fails.

Jobs are dealt in strokes, not singly. Among the workers of a type the least loaded gets the next stroke, ties
in turn (P-12); load is counted in started batches, so that equal workers stay within a batch of each other.
For a stock worker a stroke fills up the batch that was begun: 32 jobs spread over 8 workers would all wait
for `max_latency`, together they leave at once. Eager workers (P-18) send what they get without delay, so they
share a list evenly.

Jobs with an affinity key go where their key went before. Only jobs without one are moved when a worker runs
dry while another's credit is spent.

Rejected: a heap of loads (an entry per change, stale ones to skip) and a scan for the smallest (O(workers)
per stroke). Workers stand in one ordered dict per load level instead; there are few levels, and moving
between two is constant time.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

import trio

from orbtrio.engine.queues import WorkerQueue, acceptance, living

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from orbtrio.engine.jobs import Job

__all__ = ["Dispatcher", "Pool"]

# A worker keeps the state of 100 streams; an engine that sees more keys than this forgets the least recently
# used.
_MAX_AFFINITY_KEYS: Final = 10_000

_MAX_IDLE_POOLS: Final = 1_000


class Pool:
    """The workers of one type, and the jobs that wait for one.

    Attributes:
        affinity_field: Input field whose value is the affinity key, or None.
        flat: Whether its workers read a job's input beside its id. P-04.
        jobs_queued: Accepted and not sent: in the channel, in the backlog and in the workers' queues.
    """

    def __init__(
        self,
        worker_type: str,
        *,
        affinity_field: str | None,
        flat: bool,
        max_queued: int,
        too_large: Callable[[Job], None],
    ) -> None:
        self.worker_type = worker_type
        self.affinity_field = affinity_field
        self.flat = flat
        self.jobs_queued = 0
        self._max_queued = max_queued
        self._too_large = too_large
        self._backlog: deque[Job] = deque()
        self._workers: dict[WorkerQueue, None] = {}
        self._levels: dict[int, OrderedDict[WorkerQueue, None]] = {}
        self._filling: WorkerQueue | None = None
        self._keys: OrderedDict[str, WorkerQueue] = OrderedDict()
        self._parked: dict[WorkerQueue, None] = {}
        self._hurried = False

    @property
    def workers(self) -> Sequence[WorkerQueue]:
        """The live workers, oldest connection first."""
        return tuple(self._workers)

    def has_room(self, affinity: str | None) -> bool:
        """Whether one more job can be queued: 1,000 per worker, or in all while there is none. P-13, P-14."""
        if self.jobs_queued >= self._max_queued * (len(self._workers) or 1):
            return False
        chosen = None if affinity is None else self._keys.get(affinity)
        return chosen is None or chosen.jobs_waiting < self._max_queued

    def let_go(self, job: Job) -> None:
        """A job ended in the channel or the backlog. See `jobs.Owner`."""
        self.jobs_queued -= 1
        # The backlog is only looked at when a worker registers, so the dead are cleared out from here.
        if len(self._backlog) > 2 * self.jobs_queued + 64:
            self._backlog = deque(other for other in living(self._backlog) if other is not job)

    def send_due(self) -> None:
        """Nothing to send without a worker. See `jobs.Owner`."""

    # ------------------------------------------------------------------------------------------- workers

    def add(self, queue: WorkerQueue) -> None:
        """A worker registered: it gets what waits for its type. P-13."""
        self._workers[queue] = None
        queue.hurried = self._hurried
        queue.load_level = 0
        self._levels.setdefault(0, OrderedDict())[queue] = None
        backlog = living(self._backlog)
        self._backlog.clear()
        self.deal(backlog)
        self.note_load(queue)

    def remove(self, queue: WorkerQueue) -> list[Job]:
        """A worker is gone.

        Returns:
            Its jobs, oldest first, for the caller to `requeue` or end.
        """
        del self._workers[queue]
        self._leave_level(queue)
        self._parked.pop(queue, None)
        if self._filling is queue:
            self._filling = None
        for key in [key for key, chosen in self._keys.items() if chosen is queue]:
            del self._keys[key]
        waiting = queue.jobs_waiting
        jobs = queue.take_all()
        self.jobs_queued -= waiting
        return jobs

    def refresh(self) -> None:
        """Look at every queue again: jobs ended without their worker's doing, which may have freed credit."""
        for queue in self.workers:
            queue.send_due()

    def hurry(self) -> None:
        """From now on nothing waits for company: the engine is draining. P-26."""
        self._hurried = True
        for queue in self._workers:
            queue.hurried = True
        self.refresh()

    def note_load(self, queue: WorkerQueue) -> None:
        """Keep the load levels true, and let a worker that ran dry help one whose credit is spent."""
        if queue not in self._workers:
            return
        if queue.jobs_waiting and not queue.has_credit:
            self._parked[queue] = None
        else:
            self._parked.pop(queue, None)
            if self._parked and not queue.jobs_waiting and queue.has_credit:
                self._help(queue)
        if queue.load != queue.load_level:
            self._leave_level(queue)
            queue.load_level = queue.load
            self._levels.setdefault(queue.load_level, OrderedDict())[queue] = None

    def _leave_level(self, queue: WorkerQueue) -> None:
        level = self._levels[queue.load_level]
        del level[queue]
        if not level:
            del self._levels[queue.load_level]

    def _help(self, queue: WorkerQueue) -> None:
        if self.affinity_field is not None:
            return
        busiest = max(self._parked, key=lambda parked: parked.jobs_waiting)
        jobs = busiest.take_oldest(min(queue.max_batch_size, math.ceil(busiest.jobs_waiting / 2)))
        if not busiest.jobs_waiting:
            del self._parked[busiest]
        self._append(queue, jobs)
        queue.send_due()
        self.note_load(busiest)

    # ---------------------------------------------------------------------------------------------- jobs

    def deal(self, jobs: Sequence[Job]) -> None:
        """Deal living jobs that no worker has, to the back of the queues or of the backlog."""
        if not self._workers:
            self._backlog.extend(jobs)
            return
        if self.affinity_field is None:
            for queue, stroke in self._strokes(jobs):
                self._append(queue, stroke)
                queue.send_due()  # at once, so that the next choice sees the load
            return
        # Jobs with a key come one by one: sent only when all are in place, so that they travel together.
        touched: dict[WorkerQueue, None] = {}
        for queue, stroke in self._strokes(jobs):
            self._append(queue, stroke)
            touched[queue] = None
        for queue in touched:
            queue.send_due()

    def requeue(self, jobs: Sequence[Job]) -> None:
        """Deal jobs of a lost worker, oldest first, to the front of queues or backlog. P-17, P-22."""
        self.jobs_queued += len(jobs)
        if not self._workers:
            self._backlog = deque(heapq.merge(jobs, self._backlog, key=acceptance))
            return
        shares: dict[WorkerQueue, list[Job]] = {}
        for queue, stroke in self._strokes(jobs):
            shares.setdefault(queue, []).extend(stroke)
        for queue, share in shares.items():
            queue.put_back(self._fitting(queue, share))
            queue.send_due()

    def _strokes(self, jobs: Sequence[Job]) -> Iterator[tuple[WorkerQueue, Sequence[Job]]]:
        share = math.ceil(len(jobs) / len(self._workers))
        start = 0
        while start < len(jobs):
            queue, count = self._choose(jobs[start], len(jobs) - start, share)
            yield queue, jobs[start : start + count]
            start += count
            self._levels[queue.load_level].move_to_end(queue)

    def _choose(self, job: Job, remaining: int, share: int) -> tuple[WorkerQueue, int]:
        if job.affinity is not None:
            return self._keeper(job.affinity), 1
        queue = self._filling
        if queue is None or not queue.jobs_waiting or queue.is_full or not queue.has_credit:
            queue = self._least_loaded()
            self._filling = None if queue.eager else queue
        return queue, min(remaining, queue.room_in_batch, share if queue.eager else queue.max_batch_size)

    def _least_loaded(self) -> WorkerQueue:
        return next(iter(self._levels[min(self._levels)]))

    def _keeper(self, key: str) -> WorkerQueue:
        queue = self._keys.get(key)
        if queue is None:
            queue = self._keys[key] = self._least_loaded()
            if len(self._keys) > _MAX_AFFINITY_KEYS:
                self._keys.popitem(last=False)
        self._keys.move_to_end(key)
        return queue

    def _append(self, queue: WorkerQueue, jobs: Sequence[Job]) -> None:
        queue.append(self._fitting(queue, jobs))

    def _fitting(self, queue: WorkerQueue, jobs: Sequence[Job]) -> Sequence[Job]:
        limit = queue.max_job_bytes
        for job in jobs:
            if len(job.wire) > limit:
                break
        else:
            return jobs
        fitting = []
        for job in jobs:
            if len(job.wire) <= limit:
                fitting.append(job)
                continue
            # A neighbour may take larger messages; only if none does, the job cannot run. P-16.
            roomy = max(self._workers, key=lambda other: other.max_job_bytes)
            if job.affinity is None and len(job.wire) <= roomy.max_job_bytes:
                roomy.append([job])
                roomy.send_due()
            else:
                self._too_large(job)
        return fitting


class Dispatcher:
    """The pools of all worker types, and the channel in front of them."""

    def __init__(self, make_pool: Callable[[str], Pool | None], flush: Callable[[], None]) -> None:
        self._make_pool = make_pool
        self._flush = flush
        self._pools: dict[str, Pool] = {}
        self._put, self._take = trio.open_memory_channel[list["Job"]](math.inf)

    @property
    def pools(self) -> Mapping[str, Pool]:
        """The pools of the worker types seen so far."""
        return self._pools

    def pool(self, worker_type: str) -> Pool | None:
        """The pool of a worker type; None if the engine does not recognise it."""
        pool = self._pools.get(worker_type)
        if pool is None:
            pool = self._make_pool(worker_type)
            if pool is not None:
                self._forget_idle_pools()
                self._pools[worker_type] = pool
        return pool

    def _forget_idle_pools(self) -> None:
        # An engine that recognises any worker type must not keep every name that a client ever came up with.
        if len(self._pools) >= _MAX_IDLE_POOLS:
            idle = [name for name, pool in self._pools.items() if not pool.workers and not pool.jobs_queued]
            for name in idle:
                del self._pools[name]

    def submit(self, jobs: list[Job]) -> None:
        """Hand accepted jobs over; never waits."""
        self._put.send_nowait(jobs)

    async def run(self) -> None:
        """Deal jobs until cancelled."""
        async for jobs in self._take:
            gathered = jobs
            while True:
                try:
                    gathered += self._take.receive_nowait()
                except trio.WouldBlock:
                    break
            self._deal(gathered)
            self._flush()

    def _deal(self, jobs: list[Job]) -> None:
        # A pool whose last job died on its way here may be forgotten by now.
        jobs = living(jobs)
        start = 0
        while start < len(jobs):
            # Requests are mostly of one type: runs of it are dealt together.
            worker_type = jobs[start].worker_type
            end = start + 1
            while end < len(jobs) and jobs[end].worker_type == worker_type:
                end += 1
            self._pools[worker_type].deal(jobs[start:end])
            start = end

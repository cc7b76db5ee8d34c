"""Who gets which job: a shared memory channel of accepted jobs, dealt to one queue per worker.

Sessions put the jobs of a request into the channel as one list; the dispatcher task takes whatever lists have
gathered and deals them. The channel is unbounded because the door is not: `Pool.has_room` refuses what would
not fit (P-14), so a put never waits and a requeue never fails.

Jobs are dealt in strokes, not singly. Among the workers of a type that take a job of this size the least
loaded gets the next stroke, ties in turn (P-12); load is counted in started batches, so that equal workers
stay within a batch of each other. For a stock worker a stroke fills up the batch that was begun: 32 jobs
spread over 8 workers would all wait for `max_latency`, together they leave at once. Eager workers (P-18) send
what they get without delay, so they share a list evenly.

Jobs with an affinity key go where their key went before. All others are moved once more if need be:
`Pool.balance` lets a worker with nothing to do help one that is blocked.

Rejected: a heap of loads (an entry per change, stale ones to skip) and a scan for the smallest (all workers
per stroke). Workers stand in one ordered dict per load level instead; there are few levels, and to move
between two costs the same for any number of workers.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict, deque
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import trio

from orbtrio.engine.jobs import acceptance
from orbtrio.engine.queues import WorkerQueue, living

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from orbtrio.engine.jobs import Job

__all__ = ["Dispatcher", "Pool"]

# A worker keeps the state of 100 streams; an engine that sees more keys than this forgets the least recently
# used.
_MAX_AFFINITY_KEYS: Final = 10_000

# Worker types that are known by name only, because a client once used it.
_MAX_POOLS: Final = 1_000

# Least seconds between two searches for names to forget.
_SWEEP_INTERVAL: Final = 1.0


class Pool:
    """The workers of one type, and the jobs that wait for one.

    Attributes:
        affinity_field: Input field whose value is the affinity key, or None.
        flat: Whether its workers read a job's input beside its id. P-04.
        jobs_queued: Accepted and not sent: in the channel, in the backlog and in the workers' queues.
        workers: Those that take jobs, oldest connection first.
        draining: Those that only finish what they have.
        worker_numbers: For the names of the next.
        cancels: No worker, nobody to tell. See `jobs.Owner`.
    """

    cancels: Final = False

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
        self.workers: dict[WorkerQueue, None] = {}
        self.draining: dict[WorkerQueue, None] = {}
        self.worker_numbers = itertools.count(1)
        self._max_queued = max_queued
        self._too_large = too_large
        self._undealt = 0  # jobs in the channel
        self._backlog: deque[Job] = deque()
        # Each worker stands in the level of its load; levels are never empty. See `note_load`.
        self._levels: dict[int, OrderedDict[WorkerQueue, None]] = {}
        # The stock worker whose batch is being filled; None, or among the live.
        self._filling: WorkerQueue | None = None
        self._keys: OrderedDict[str, WorkerQueue] = OrderedDict()  # values are live
        self._blocked: dict[WorkerQueue, None] = {}  # those with jobs that they may not send
        self._hurried = False

    # ---- the door

    def has_room(self, affinity: str | None) -> bool:
        """Whether one more job can be queued: 1,000 per worker, or in all while there is none. P-13, P-14."""
        if self.jobs_queued >= self._max_queued * (len(self.workers) or 1):
            return False
        if affinity is None:
            return True
        # Where the jobs in the channel will go is not known yet: they might all have this key.
        chosen = self._keys.get(affinity)
        return self._undealt + (chosen.jobs_waiting if chosen else 0) < self._max_queued

    def enter(self) -> None:
        """Count a job that was accepted and is on its way through the channel."""
        self.jobs_queued += 1
        self._undealt += 1

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost if it were forgotten."""
        return not (self.workers or self.draining or self.jobs_queued or self._undealt)

    def let_go(self, job: Job) -> None:
        """A job ended in the channel or the backlog. See `jobs.Owner`."""
        self.jobs_queued -= 1
        # The backlog is only looked at when a worker registers, so the dead are cleared out from here.
        if len(self._backlog) > 2 * self.jobs_queued + 64:
            self._backlog = deque(other for other in living(self._backlog) if other is not job)

    def cancel(self, job_ids: list[str]) -> None:
        """Never called. See `jobs.Owner`."""

    def send_due(self) -> None:
        """Nothing to send without a worker. See `jobs.Owner`."""

    # ---- workers

    def add(self, queue: WorkerQueue) -> None:
        """A worker registered: it gets what waits for its type. P-13."""
        self.workers[queue] = None
        queue.hurried = self._hurried
        self._enter_level(queue, queue.load)
        backlog = living(self._backlog)
        self._backlog.clear()
        self._deal(backlog)
        self.balance()

    def remove(self, queue: WorkerQueue) -> list[Job]:
        """A worker is gone.

        Returns:
            Its jobs, oldest first, for the caller to `requeue` or end.
        """
        if queue in self.draining:
            del self.draining[queue]
        else:
            self._strike(queue)
        return queue.take_all()

    def retire(self, queue: WorkerQueue) -> list[Job]:
        """A worker wants no more jobs, and the keys that it kept are free.

        Returns:
            Those it was not sent, oldest first, for the caller to `requeue`.
        """
        self._strike(queue)
        self.draining[queue] = None
        return queue.take_waiting()

    def _strike(self, queue: WorkerQueue) -> None:
        del self.workers[queue]
        self._leave_level(queue)
        self._blocked.pop(queue, None)
        if self._filling is queue:
            self._filling = None
        for key in [key for key, chosen in self._keys.items() if chosen is queue]:
            del self._keys[key]
        self.jobs_queued -= queue.jobs_waiting

    def hurry(self) -> None:
        """From now on nothing waits for company: the engine is draining. P-26."""
        self._hurried = True
        for queue in self.workers:
            queue.hurried = True
            queue.send_due()

    def note_load(self, queue: WorkerQueue) -> None:
        """Keep the books about a queue true; sends and moves nothing."""
        if queue not in self.workers:
            return
        if queue.jobs_waiting and queue.blocked:
            self._blocked[queue] = None
        else:
            self._blocked.pop(queue, None)
        if queue.load != queue.load_level:
            self._leave_level(queue)
            self._enter_level(queue, queue.load)

    def _enter_level(self, queue: WorkerQueue, load: int) -> None:
        queue.load_level = load
        level = self._levels.get(load)
        if level is None:
            level = self._levels[load] = OrderedDict()
        level[queue] = None

    def _leave_level(self, queue: WorkerQueue) -> None:
        level = self._levels[queue.load_level]
        del level[queue]
        if not level:
            del self._levels[queue.load_level]

    # ---- jobs

    def deal_new(self, jobs: Sequence[Job]) -> None:
        """Deal jobs that come out of the channel, ended ones included."""
        self._undealt -= len(jobs)
        self._deal(living(jobs))
        self.balance()

    def requeue(self, jobs: Sequence[Job]) -> None:
        """Deal jobs of a lost worker, oldest first, to where their age puts them. P-17, P-22."""
        self.jobs_queued += len(jobs)
        self._deal(jobs)
        self.balance()

    def balance(self) -> None:
        """Let a worker with nothing to do help the one with most jobs that it may not send."""
        while self._blocked and self.affinity_field is None:
            helper = self._least_loaded()
            busiest = max(self._blocked, key=_jobs_waiting)
            # As many as make the two equal, and a batch at the most; less than one is no help.
            even = (busiest.jobs_waiting + busiest.jobs_in_flight - helper.jobs_in_flight) // 2
            if helper.jobs_waiting or helper.blocked or even < 1:
                return
            jobs = busiest.take_oldest(min(helper.max_batch_size, even), helper)
            if not jobs:
                return
            helper.put(jobs)
            helper.send_due()
            busiest.send_due()

    def _deal(self, jobs: Sequence[Job]) -> None:
        if not self.workers:
            self._put_aside(jobs)
            return
        aside: list[Job] = []
        # Jobs with a key come one by one: sent only when all are in place, so that they travel together.
        touched: dict[WorkerQueue, None] = {}
        for queue, stroke in self._strokes(jobs):
            if queue is None:
                aside += stroke
                continue
            queue.put(stroke)
            if self.affinity_field is None:
                queue.send_due()  # at once, so that the next choice sees the load
            else:
                self.note_load(queue)
                touched[queue] = None
        for queue in touched:
            queue.send_due()
        self._put_aside(aside)

    # Who gets how many of the jobs, in their order. Each stroke must be queued before the next is asked for.
    def _strokes(self, jobs: Sequence[Job]) -> Iterator[tuple[WorkerQueue | None, Sequence[Job]]]:
        share = math.ceil(len(jobs) / len(self.workers))
        start = 0
        while start < len(jobs):
            job = jobs[start]
            if job.affinity is not None:
                queue, most = self._keeper(job), 1
            else:
                queue = self._next(job)
                most = 1
                if queue is not None:
                    most = min(queue.room_in_batch, self._max_queued - queue.jobs_waiting)
                    most = min(most, share) if queue.eager else most
            stop = start + 1
            if queue is not None:
                fits = queue.max_job_bytes
                for other in jobs[stop : start + most]:
                    if len(other.wire) > fits or (other.files and not queue.takes(other)):
                        break
                    if other.affinity is not None:
                        break  # behind one without a key: it may have its worker already
                    stop += 1
            yield queue, jobs[start:stop]
            if queue is not None:
                self._levels[queue.load_level].move_to_end(queue)
            start = stop

    def _next(self, job: Job) -> WorkerQueue | None:
        queue = self._filling
        if queue is None or not queue.jobs_waiting or queue.is_full or queue.blocked:
            queue = self._least_loaded()
            self._filling = None if queue.eager else queue
        if queue.takes(job) and queue.jobs_waiting < self._max_queued:
            return queue
        # Rare: a job that not every worker takes, or a queue that is at its limit.
        fitting = [queue for queue in self._by_load() if queue.takes(job)]
        return next(
            (queue for queue in fitting if queue.jobs_waiting < self._max_queued), next(iter(fitting), None)
        )

    def _least_loaded(self) -> WorkerQueue:
        return next(iter(self._levels[min(self._levels)]))

    def _by_load(self) -> list[WorkerQueue]:
        return [queue for load in sorted(self._levels) for queue in self._levels[load]]

    def _keeper(self, job: Job) -> WorkerQueue | None:
        key = job.affinity
        assert key is not None
        queue = self._keys.get(key)
        if queue is not None and not queue.takes(job):
            return None
        if queue is None:
            queue = self._least_loaded()
            if not queue.takes(job):
                queue = next((other for other in self._by_load() if other.takes(job)), None)
            if queue is None:
                return None
            self._keys[key] = queue
            if len(self._keys) > _MAX_AFFINITY_KEYS:
                self._keys.popitem(last=False)
        self._keys.move_to_end(key)
        return queue

    # No worker takes these. Without any worker they wait for one. A job that one has had before waits too:
    # its like will come back. Any other can never run. P-13, P-16.
    def _put_aside(self, jobs: Sequence[Job]) -> None:
        waiting = [job for job in jobs if job.deliveries or not self.workers]
        if waiting:
            self._backlog = deque(sorted([*self._backlog, *waiting], key=acceptance))
        for job in jobs:
            if self.workers and not job.deliveries:
                self._too_large(job)


def _jobs_waiting(queue: WorkerQueue) -> int:
    return queue.jobs_waiting


class Dispatcher:
    """The pools of all worker types, and the channel in front of them."""

    def __init__(self, make_pool: Callable[[str], Pool | None], flush: Callable[[], None]) -> None:
        self._make_pool = make_pool
        self._flush = flush
        self._pools: dict[str, Pool] = {}
        self._next_sweep = -math.inf
        self._put, self._take = trio.open_memory_channel[list["Job"]](math.inf)

    @property
    def pools(self) -> Mapping[str, Pool]:
        """The pools of the worker types seen so far."""
        return self._pools

    def pool(self, worker_type: str) -> Pool | None:
        """The pool of a worker type.

        None if the engine does not recognise it, or has too many jobs for types without a worker to take in
        another.
        """
        pool = self._pools.get(worker_type)
        if pool is None and self._has_room():
            pool = self._make_pool(worker_type)
            if pool is not None:
                self._pools[worker_type] = pool
        return pool

    # An engine that recognises any worker type must not keep every name that a client ever came up with.
    def _has_room(self) -> bool:
        if len(self._pools) >= _MAX_POOLS and trio.current_time() >= self._next_sweep:
            self._next_sweep = trio.current_time() + _SWEEP_INTERVAL
            self._pools = {name: pool for name, pool in self._pools.items() if not pool.idle}
        return len(self._pools) < _MAX_POOLS

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
            # The last ones would stay until others come, and with them the connections of who submitted them.
            del jobs, gathered

    # Requests are mostly of one type: runs of it are dealt together.
    def _deal(self, jobs: list[Job]) -> None:
        for worker_type, run in itertools.groupby(jobs, key=attrgetter("worker_type")):
            self._pools[worker_type].deal_new(list(run))

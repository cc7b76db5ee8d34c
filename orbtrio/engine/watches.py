"""Deadlines that differ from job to job: when to look at which next.

Most jobs share one timeout and need no place here, for their order of acceptance is the order of their
deadlines (`jobs`). A job that brought a timeout of its own, or wants to be given up when its worker falls
silent, has a `Watch`: 2 µs more for such a job, nothing for the others.

A heap with lazy deletion. Each watch has one entry that counts, the one for `look_at`; a heartbeat that is
heard changes a number only, and the look that comes too early is put off. Entries of jobs that have ended
stay until they surface or are too many. They name the job and do not hold it: with it they would keep its
client's connection.
"""

from __future__ import annotations

import heapq
import math
from typing import Protocol

import attrs

__all__ = ["Alarm", "Watch", "Watches"]


class Alarm(Protocol):
    """What wakes whoever sleeps until `Watches.next_look`; a `trio.CancelScope` is one."""

    deadline: float


@attrs.define(eq=False)
class _NoAlarm:
    deadline: float = -math.inf


@attrs.define(eq=False, slots=True)
class Watch:
    """How long one job may take. Times in seconds of the trio clock.

    Attributes:
        job_id: Whose.
        number: The job's, so that what is due at the same time comes in order.
        deadline: When the job ends in any case.
        heartbeat: Longest silence of the worker that has it; infinity for any.
        heard_at: When the worker got it, or last spoke of it; infinity while no worker has it.
        look_at: When its entry in the heap is due.
        book: Where the entry is.
    """

    job_id: str
    number: int
    deadline: float
    heartbeat: float = math.inf
    heard_at: float = math.inf
    look_at: float = math.inf
    book: Watches | None = None

    @property
    def due(self) -> float:
        """When the job ends if nothing is heard of it."""
        return min(self.deadline, self.heard_at + self.heartbeat)

    def sent(self, now: float) -> None:
        """A worker has it from now on."""
        self.heard_at = now
        if self.book is not None and self.due < self.look_at:
            self.book.look(self)

    def returned(self) -> None:
        """The worker is gone: nobody is expected to speak until the next has it."""
        self.heard_at = math.inf


class Watches:
    """All watches.

    Attributes:
        alarm: Its deadline is lowered when something is due earlier than that.
    """

    def __init__(self) -> None:
        self.alarm: Alarm = _NoAlarm()
        self._watches: dict[str, Watch] = {}
        self._heap: list[tuple[float, int, str]] = []

    def __len__(self) -> int:
        return len(self._watches)

    @property
    def next_look(self) -> float:
        """When `take_due` has something to do, at the earliest; infinity if never."""
        return self._heap[0][0] if self._heap else math.inf

    def add(self, watch: Watch) -> None:
        """Watch a job."""
        watch.book = self
        self._watches[watch.job_id] = watch
        self.look(watch)

    def remove(self, job_id: str) -> None:
        """Forget a job that has ended."""
        del self._watches[job_id]

    def look(self, watch: Watch) -> None:
        """Look at a job when it is due; for `Watch`."""
        watch.look_at = watch.due
        heapq.heappush(self._heap, (watch.look_at, watch.number, watch.job_id))
        if len(self._heap) > 2 * len(self._watches) + 64:
            self._heap = [(one.look_at, one.number, one.job_id) for one in self._watches.values()]
            heapq.heapify(self._heap)
        if watch.look_at < self.alarm.deadline:
            self.alarm.deadline = watch.look_at

    def take_due(self, now: float) -> list[str]:
        """The jobs that are due, in order; for the caller to end, and to `remove`."""
        due: list[str] = []
        while self._heap and self._heap[0][0] <= now:
            when, _, job_id = heapq.heappop(self._heap)
            watch = self._watches.get(job_id)
            if watch is None or watch.look_at != when:
                continue
            watch.look_at = math.inf  # a look that was put off may stand here twice
            if watch.due > now:
                self.look(watch)
            else:
                due.append(job_id)
        return due

"""Trio's loop looks again for a while before it sleeps, for those to whom a tenth of a millisecond matters.

A process that sleeps in `epoll_wait` is woken by the kernel, on a processor that has gone to rest, with
caches that others have used. A lone job wakes engine, worker, engine and client; those four take longer than
all the code that runs. A loop that keeps asking instead is there when the answer comes.

Trio asks its clock how long it may sleep, and only when no task can run. So a clock is all that it takes: it
says "not at all" until a span has passed in which no task has run; as an instrument it sees them run. Before
each look it gives the processor to whoever else could use it: with three such processes on two processors a
lone job took 1.2 ms without that, and 0.4 with it. Rejected: a task that does checkpoints, 8 us for each look
where this needs 2, and which somebody has to start.
"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BUSY_POLL_HELP", "MAX_BUSY_POLL_US", "busy_polling"]

# Of the setting ORB_BUSY_POLL_US, which several programs have.
MAX_BUSY_POLL_US: Final = 1_000_000
BUSY_POLL_HELP: Final = (
    "Microseconds to look for more before sleeping; lone jobs are answered sooner, for CPU time."
)

_YIELD: Final[Callable[[], None]] = getattr(os, "sched_yield", lambda: None)  # not on every system


def busy_polling(span: float) -> trio.abc.Clock | None:
    """A clock for `trio.run`, with which its loop looks for news again and again before it sleeps.

    ```python
    trio.run(main, clock=orbtrio.busy_polling(0.0005))
    ```

    An engine, a worker or a client then notices a lone job, or its answer, sooner. It costs a processor's
    time, as far as nobody else wants it, while jobs come and for `span` after the last; where processor time
    is rationed, as in containers, it uses that up. An idle loop sleeps. Where others keep all processors busy
    it gains nothing, and a look may be milliseconds late. ``python -m orbtrio.engine`` and worker programs do
    it where ``ORB_BUSY_POLL_US`` is set.

    Args:
        span: Seconds without work after which the loop sleeps; to be longer than what it waits for takes, so
            0.0002 to 0.001 where models are quick. 0: sleeps at once, as Trio does.

    Returns:
        None, which stands for Trio's own clock, for 0.
    """
    return _PollingClock(span) if span > 0 else None


class _PollingClock(trio.abc.Clock, trio.abc.Instrument):
    def __init__(self, span: float, now: Callable[[], float] = time.perf_counter) -> None:
        self._span = span
        self._now = now
        # As Trio's own clock does it, so that nobody takes its time for another's.
        self._offset = random.uniform(10_000, 1_000_000)
        self._worked = False
        self._until = 0.0

    def start_clock(self) -> None:
        trio.lowlevel.add_instrument(self)

    def current_time(self) -> float:
        return self._offset + self._now()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._worked = True

    def deadline_to_sleep_time(self, deadline: float) -> float:
        now = self._now()
        if self._worked:
            self._worked = False
            self._until = now + self._span
        if now < self._until:
            _YIELD()
            return 0
        return deadline - self._offset - now

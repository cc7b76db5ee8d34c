"""Time in tests: what "nothing more happens" means, and why a virtual clock must wait for threads.

Trio's `MockClock` with autojump passes time as soon as every task waits. A task that waits for a thread
waits too, so that a thread of 100 µs, which writes a file or runs a handler, would find that minutes have
gone by, pings unanswered and jobs timed out. The fabric therefore makes time stand still while a thread
works: whatever a thread does takes no virtual time at all.

What is left to chance then is the order of tasks, and that can be had from a seed.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["seeded_schedule", "steady_clock", "wait_for_threads", "wait_until_idle"]


async def wait_until_idle() -> None:
    """Wait until nothing more happens unless time passes: every other task waits, and no thread works.

    Whatever was sent over memory links has then arrived and been dealt with. Never returns while some task
    is always busy.
    """
    await trio.testing.wait_all_tasks_blocked()
    while trio.testing.active_thread_count():
        await trio.testing.wait_all_threads_completed()
        await trio.testing.wait_all_tasks_blocked()


class _ThreadWatch(trio.abc.Instrument):
    # A thread starts and ends within a step of the task that waits for it, and the clock looks at its
    # threshold between steps only: to look after each step misses nothing.

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self.users = 0
        self._clock = clock
        self._threshold = clock.autojump_threshold
        self._held = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if trio.testing.active_thread_count():
            self._hold()
        else:
            self.release()

    def leave(self) -> None:
        self.users -= 1
        if not self.users:
            trio.lowlevel.remove_instrument(self)
            self.release()
            _watch.set(None)

    def _hold(self) -> None:
        if not self._held:
            self._held = True
            self._threshold = self._clock.autojump_threshold
            self._clock.autojump_threshold = math.inf

    def release(self) -> None:
        if self._held:
            self._held = False
            self._clock.autojump_threshold = self._threshold


# One for all fabrics of a run: two would take each other's infinite threshold for the test's own.
_watch: Final[trio.lowlevel.RunVar[_ThreadWatch | None]] = trio.lowlevel.RunVar("orbtrio.testing", None)


def wait_for_threads() -> Callable[[], None]:
    """Keep a virtual clock from passing time by itself while a thread works, until the result is called.

    Does nothing to a real clock.
    """
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, trio.testing.MockClock):
        return _nothing
    watch = _watch.get()
    if watch is None:
        watch = _ThreadWatch(clock)
        _watch.set(watch)
        trio.lowlevel.add_instrument(watch)
    watch.users += 1
    return watch.leave


def _nothing() -> None:
    pass


@contextmanager
def steady_clock() -> Iterator[None]:
    """`wait_for_threads` for a block."""
    leave = wait_for_threads()
    try:
        yield
    finally:
        leave()


@contextmanager
def seeded_schedule(seed: int) -> Iterator[None]:
    """Let Trio draw the order in which ready tasks run from this seed.

    Both names are private. There is no other way: pytest-trio takes the same, and Trio keeps them for it.
    """
    scheduler: Any = trio._core._run
    state = scheduler._r.getstate()
    scheduler._r.seed(seed)
    try:
        with mock.patch.object(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True):
            yield
    finally:
        scheduler._r.setstate(state)

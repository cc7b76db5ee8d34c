"""How much is done in one turn of Trio's loop: those who bring much wait in a line, all others do not.

Trio runs every task that can run once per turn. With a thousand sockets readable a turn took 350 ms, and a
ping or a lone job that came meanwhile waited for its end, and then for the next. Now whoever read much the
last time asks here before it reads again. Once a turn has lasted its time the rest stands in line, its
bytes in the kernel, and as many are let go into each of the next turns as have got through one so far.

Rejected: a limit in bytes, for jobs of 100 bytes cost per byte a hundred times what an image does; to have
everybody who waits look again each turn, 8 us each; a task that lets the line go on, which somebody has to
start and to stop. An instrument of Trio's is the one public way to know when a turn begins; it costs a look
at the clock per turn.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Turns"]

# Seconds. What comes in the midst of a turn waits for the rest of it and for all of the next, so this is less
# than half of what anybody should wait. At half of it the loop itself begins to cost.
_BUDGET: Final = 0.004


class Turns(trio.abc.Instrument):
    """The turns of one loop, and who waits for a later one.

    Args:
        budget: Seconds of a turn after which those who bring much wait for the next.
        now: The clock. A mock's stands still while tasks run, so with one nobody ever waits, and a run of a
            seed goes the same way however slow the machine is.
    """

    def __init__(self, budget: float = _BUDGET, now: Callable[[], float] = trio.current_time) -> None:
        self._budget = budget
        self._now = now
        self._until = math.inf
        self._passed = 0  # in this turn
        # Those in line, and how many have been let go and had no turn yet. While somebody waits, some are.
        self._line: OrderedDict[trio.lowlevel.Task, None] = OrderedDict()
        self._let_go = 0
        self._most = 1

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Notice each turn of the running loop; nobody may `enter` outside."""
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)
            self._until = math.inf

    def after_io_wait(self, timeout: float) -> None:
        """Called by Trio when a turn begins."""
        self._until = self._now() + self._budget
        self._passed = 0

    @property
    def over(self) -> bool:
        """Whether this turn has lasted long enough. One gets through in any case, or none might for ever."""
        return self._passed > 0 and self._now() > self._until

    async def enter(self) -> None:
        """Return at once if there is time left in this turn and nobody waits, else in a later one.

        First come, first served. Not a checkpoint. Cancelling gives the place up.
        """
        if self._let_go or self.over:
            await self._wait()
        self._passed += 1

    async def _wait(self) -> None:
        try:
            if self._let_go:
                await self._stand_in_line()
            else:
                self._let_go = 1
                await trio.lowlevel.checkpoint()
            while self.over:
                self._most = self._passed
                await trio.lowlevel.checkpoint()
            if self._passed + 1 >= self._most:  # there may have been time for more
                self._most = self._passed + 2
        finally:
            self._let_go -= 1
            while self._line and self._let_go < self._most:
                task, _ = self._line.popitem(last=False)
                self._let_go += 1
                trio.lowlevel.reschedule(task)

    async def _stand_in_line(self) -> None:
        task = trio.lowlevel.current_task()
        self._line[task] = None

        def leave(_: object) -> trio.lowlevel.Abort:
            del self._line[task]
            self._let_go += 1  # as if it had been: it ends in the same way
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

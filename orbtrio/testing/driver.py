"""A real Trio program at the hands of a synchronous test, in virtual time.

Hypothesis' state machines call plain functions. `Driver` runs Trio as a guest of the test: between two
calls the program stands still, after each call everything that it caused has happened, and time passes only
when the test says so.
"""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any, Final, TypeVar

import outcome
import trio
import trio.testing

from orbtrio.testing.clock import wait_until_idle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Driver"]

_T = TypeVar("_T")

# Real seconds without an event after which a test hangs rather than works.
_PATIENCE: Final = 20.0


class Driver:
    """One Trio run under a `MockClock`.

    Attributes:
        clock: To look at; `advance` moves it.
    """

    def __init__(self) -> None:
        self.clock = trio.testing.MockClock()
        self._events: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._ended: outcome.Outcome[None] | None = None
        self._reported = False
        self._nursery: trio.Nursery | None = None
        trio.lowlevel.start_guest_run(
            self._main,
            clock=self.clock,
            run_sync_soon_threadsafe=self._events.put,
            done_callback=self._note_end,
            host_uses_signal_set_wakeup_fd=True,
        )
        self._pump(lambda: self._nursery is not None)

    def call(self, function: Callable[..., Awaitable[_T]], *args: Any) -> _T:
        """Run an async function, and all that it causes, to the end; its result or exception."""
        box: list[outcome.Outcome[_T]] = []

        async def run() -> None:
            box.append(await outcome.acapture(function, *args))
            await wait_until_idle()
            box.append(box[0])

        self._start(run)
        self._pump(lambda: len(box) == 2)
        return box[0].unwrap()

    def start(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Leave an async function running, once nothing more happens. If it raises, so does the next call."""
        self._start(function, *args)
        self.call(trio.lowlevel.checkpoint)

    def advance(self, seconds: float) -> None:
        """Let time pass, from one deadline to the next."""
        end = self.now() + seconds
        while (left := end - self.now()) > 0:
            self.step(left)

    def step(self, most: float) -> None:
        """Let time pass up to the next deadline, or for this long at most."""
        self.call(self._step, most)

    def now(self) -> float:
        """The clock's time, in seconds."""
        return self.clock.current_time()

    def close(self) -> None:
        """Cancel everything and wait for its end. What a started task raised is raised here at the latest."""
        if self._ended is None:
            self._run_soon(self._require_nursery().cancel_scope.cancel)
            self._pump(lambda: self._ended is not None)
        self._raise_failure()

    async def _main(self) -> None:
        self._run_soon = trio.lowlevel.current_trio_token().run_sync_soon
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    async def _step(self, most: float) -> None:
        until_next = trio.lowlevel.current_statistics().seconds_to_next_deadline
        self.clock.jump(min(most, max(until_next, 0)))
        await wait_until_idle()

    def _start(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        self._run_soon(self._require_nursery().start_soon, function, *args)

    def _require_nursery(self) -> trio.Nursery:
        assert self._nursery is not None
        return self._nursery

    # Once: an outcome can be unwrapped once only, and whoever closes after a failure knows of it.
    def _raise_failure(self) -> None:
        if self._ended is not None and not self._reported:
            self._reported = True
            self._ended.unwrap()

    def _note_end(self, end: outcome.Outcome[None]) -> None:
        self._ended = end

    def _pump(self, until: Callable[[], bool]) -> None:
        while not until():
            if self._ended is not None:
                self._raise_failure()
                raise AssertionError("the Trio program has ended")
            self._events.get(timeout=_PATIENCE)()

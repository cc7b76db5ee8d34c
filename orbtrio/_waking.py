"""How one part wakes another that waits, in Trio's thread or from a finaliser."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Signal", "call_soon"]


class Signal:
    """An event for one waiting task, ready for its next use as soon as that task has woken."""

    def __init__(self) -> None:
        self._event = trio.Event()
        self._awaited = False

    def set(self) -> None:
        """Wake the waiter, or the next one at once."""
        self._event.set()

    async def wait(self) -> None:
        """Wait for `set`. What it was for may be done already: look, and wait again.

        Raises:
            trio.BusyResourceError: another task waits already.
        """
        if self._awaited:
            raise trio.BusyResourceError("another task is waiting for the same")
        self._awaited = True
        try:
            await self._event.wait()
        finally:
            self._awaited = False
        self._event = trio.Event()


def call_soon(token: trio.lowlevel.TrioToken, function: Callable[[], None]) -> None:
    """Call a function in Trio's thread, unless its run has ended.

    For finalisers, which run in any thread, and in Trio's in the midst of anything: of a loop over the very
    table that they want to change.
    """
    with suppress(trio.RunFinishedError):
        token.run_sync_soon(function)

"""What the client's program prints: results as lines of JSON, tokens as they come, how far it is.

Standard output is often a pipe, and its reader may be slow. So nothing here writes from the event loop, where
it would hold up the answers to pings: `Writer` collects, and a thread writes what has been collected. Beyond
a megabyte whoever has more to say waits, and with it the jobs.
"""

from __future__ import annotations

import base64
import json
import os
import select
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import trio

from orbtrio._waking import Signal
from orbtrio.errors import (
    ConnectionLost,
    JobFailed,
    JobRefused,
    JobTimedOut,
    RegistrationRefused,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "InOrder",
    "Progress",
    "ReaderGone",
    "Unwritable",
    "Writer",
    "describe",
    "open_standard_streams",
    "to_line",
]

_MOST_UNWRITTEN: Final = 1 << 20
_REPORT_INTERVAL: Final = 10.0
# A model may say what a terminal takes for a command: everything but tab and line end, in both sets.
_CONTROLS: Final = {number: None for number in (*range(32), *range(127, 160)) if number not in (9, 10)}


class ReaderGone(Exception):
    """Nobody reads our output any more."""


class Unwritable(Exception):
    """Our output cannot be written, because the disk is full or the like; the text says why."""


def open_standard_streams() -> None:
    """Give each standard stream that is closed to ``/dev/null``.

    Or the first socket would get its number, and results would be written there.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            with suppress(OSError):
                os.fstat(number)
                continue
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  (until the end)


# --- Lines -------------------------------------------------------------------------------------------------


def describe(error: Exception) -> dict[str, Any]:
    """An exception of a job as ``kind`` and ``message``."""
    kinds = {
        JobFailed: "failed",
        JobTimedOut: "timeout",
        ConnectionLost: "connection_lost",
        RegistrationRefused: "refused",
    }
    kind = error.kind if isinstance(error, JobRefused) else kinds.get(type(error), "invalid")
    message = error.text if isinstance(error, JobRefused) else str(error)
    if isinstance(error, OSError):
        kind, message = "file", f"{error.filename}: {error.strerror}" if error.filename else message
    return {"kind": kind, "message": message}


def to_line(fields: Mapping[str, Any]) -> str:
    """JSON in one line, whatever a worker has answered: bytes become ``{"$bytes": base64}``, NaN null."""
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError):
        return json.dumps(_plain(fields), ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value if value is None or isinstance(value, str | int) else str(value)


# --- Writing -----------------------------------------------------------------------------------------------


class Writer:
    """Standard output for tasks that must not wait for it; `run` must be running.

    Args:
        terminal: Whether it is one: then characters are left out that it would obey.
        write: Writes some of the bytes and tells how many; blocks.
    """

    def __init__(self, *, terminal: bool = False, write: Callable[[bytes], int] | None = None) -> None:
        self._terminal = terminal
        self._write = write or (lambda data: os.write(1, data))
        self._parts: list[bytes] = []
        self._size = 0
        self._work = Signal()
        self._room = trio.Event()
        self._ended = False
        self._done = trio.Event()

    async def run(self) -> None:
        """Write until `finish`.

        Raises:
            ReaderGone, Unwritable: it cannot.
        """
        while True:
            while not self._parts and not self._ended:
                await self._work.wait()
            if not self._parts:
                self._done.set()
                return
            data, self._parts, self._size = b"".join(self._parts), [], 0
            self._room.set()
            self._room = trio.Event()
            # Abandoned with the program: the thread knows nothing but this piece.
            await trio.to_thread.run_sync(self._write_all, data, abandon_on_cancel=True)

    async def finish(self) -> None:
        """There will be no more: wait until all is written."""
        self._ended = True
        self._work.set()
        await self._done.wait()

    async def write(self, text: str) -> None:
        """Have it written soon. Waits only if much has not been written yet."""
        if self._terminal:
            text = text.translate(_CONTROLS)
        data = text.encode("utf-8", "backslashreplace")
        while self._size > _MOST_UNWRITTEN:
            await self._room.wait()
        self._parts.append(data)
        self._size += len(data)
        self._work.set()

    def _write_all(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._write(bytes(rest)) :]
            except BlockingIOError:
                # A terminal or pipe that another program has set so, and which is full.
                select.select((), (1,), (), 1.0)
            except BrokenPipeError as error:
                raise ReaderGone(error.strerror) from None
            except OSError as error:
                raise Unwritable(error.strerror) from None


class InOrder:
    """Lines in the order of their jobs, whatever the order in which they are ready.

    What waits for an earlier job is held here, so whoever starts jobs has to wait for `room`: one job that
    takes for ever must not fill the memory with the lines of all others.

    Args:
        write: Where lines go.
        most: Most jobs between the oldest without a line and the newest.
    """

    def __init__(self, write: Callable[[str], Any], most: int) -> None:
        self._write = write
        self._most = most
        self._next = 0
        self._waiting: dict[int, str] = {}
        self._moved = trio.Event()
        # Lines come from two tasks, and one that waits for the writer must not be overtaken.
        self._turn = trio.Lock()

    async def room(self, index: int) -> None:
        """Wait until the job with this index may begin."""
        while index - self._next >= self._most:
            await self._moved.wait()

    async def write(self, index: int, line: str) -> None:
        """The line of a job; an empty one if there is nothing to say."""
        self._waiting[index] = line
        async with self._turn:
            while self._next in self._waiting:
                ready = self._waiting.pop(self._next)
                self._next += 1
                self._moved.set()
                self._moved = trio.Event()
                await self._write(ready)


# --- How far it is -----------------------------------------------------------------------------------------


class Progress:
    """How many jobs are done, on standard error.

    A bar where that is a terminal and the results go elsewhere; else a line from time to time. A terminal
    that shows the results shows how far they are.

    Args:
        total: How many there will be, if that is known.
        quiet: Say nothing.
    """

    def __init__(self, total: int | None, *, quiet: bool) -> None:
        self.done = self.failed = 0
        self._total = total
        self._quiet = quiet
        self._began = time.monotonic()

    def __str__(self) -> str:
        of = "" if self._total is None else f" of {self._total:,}"
        failures = f", {self.failed:,} failed" if self.failed else ""
        seconds = time.monotonic() - self._began
        return f"{self.done:,}{of} jobs done{failures}, {seconds:.1f} s"

    def count(self, *, failed: bool) -> None:
        """One more is done."""
        self.done += 1
        self.failed += failed

    def say(self, text: str) -> None:
        """A word to whoever looks."""
        if not self._quiet:
            with suppress(OSError):  # That nobody looks is no reason to end.
                print(text, file=sys.stderr, flush=True)

    async def run(self) -> None:
        """Show it until cancelled."""
        if self._quiet or (sys.stderr.isatty() and sys.stdout.isatty()):
            return
        if sys.stderr.isatty():
            try:
                await self._show_bar()
            except ImportError:
                pass
            else:
                return
        while True:
            await trio.sleep(_REPORT_INTERVAL)
            self.say(str(self))

    async def _show_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failures]}"),
            TimeElapsedColumn(),
        )
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            shown = bar.add_task("", total=self._total, failures="")
            while True:
                failures = f"[red]{self.failed:,} failed[/red]" if self.failed else ""
                bar.update(shown, completed=self.done, failures=failures)
                await trio.sleep(0.1)

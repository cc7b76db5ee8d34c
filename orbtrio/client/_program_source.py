"""Where the client's program draws its jobs from: arguments, lines on standard input, a watched folder.

All of it is drawn as there is room, by `Client.submit_many`, so a million lines cost the memory of the few
that are open. What cannot become a job takes its turn among the others, and is reported in its place.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from orbtrio.client._program_inputs import Entry, Problem, Refused, from_arguments, from_line
from orbtrio.client.many import Job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from orbtrio.client._program_inputs import Asked

__all__ = ["Source", "Task", "from_files", "from_lines", "read_lines"]

_READ_BYTES: Final = 64 * 1024
# What an engine takes in one message is less.
_MOST_LINE: Final = 32 << 20


@attrs.frozen(kw_only=True, eq=False)
class Task:
    """A job's tag: which one it is, and of what it was made."""

    index: int
    entry: Entry | Problem


async def from_files(
    worker_type: str, asked: Asked, files: Sequence[Path], *, in_thread: bool
) -> AsyncGenerator[Entry | Problem, None]:
    """What the arguments ask for.

    Args:
        worker_type, asked, files: As for `from_arguments`.
        in_thread: Whether to make an entry takes long, as it does where pictures are made smaller.
    """
    entries = from_arguments(worker_type, asked, files)
    while True:
        if in_thread:
            entry = await trio.to_thread.run_sync(next, entries, None)
        else:
            entry = next(entries, None)
        if entry is None:
            return
        yield entry


async def from_lines(
    lines: AsyncIterator[bytes | Problem], worker_type: str | None, asked: Asked, *, in_thread: bool
) -> AsyncGenerator[Entry | Problem, None]:
    """What lines of JSON ask for; empty ones for nothing."""
    number = 0
    async for line in lines:
        number += 1
        if isinstance(line, Problem):
            yield attrs.evolve(line, text=f"line {number}: {line.text}")
        elif line.strip():
            try:
                if in_thread:
                    yield await trio.to_thread.run_sync(from_line, line, worker_type, asked)
                else:
                    yield from_line(line, worker_type, asked)
            except Refused as refusal:
                yield Problem(text=f"line {number}: {refusal}", worker_type=worker_type)


async def read_lines(read: Callable[[int], bytes] | None = None) -> AsyncGenerator[bytes | Problem, None]:
    """The lines of standard input, each as soon as it is there.

    Args:
        read: Returns at most so many bytes, at least one unless it is at the end; blocks.
    """
    read = read or (lambda size: os.read(0, size))
    rest, looked, too_long = bytearray(), 0, False
    while data := await trio.to_thread.run_sync(read, _READ_BYTES, abandon_on_cancel=True):
        rest += data
        while (end := rest.find(b"\n", looked)) >= 0:
            line = bytes(rest[:end])
            del rest[: end + 1]
            looked = 0
            if too_long:
                too_long = False
            else:
                yield line
        looked = len(rest)
        if looked > _MOST_LINE:
            if not too_long:
                yield Problem(text=f"more than {_MOST_LINE} bytes")
            too_long, looked = True, 0
            rest.clear()
    if rest and not too_long:
        yield bytes(rest)


class Source:
    """Jobs with numbers, for `Client.submit_many`; `stop` ends it.

    Args:
        entries: Where they come from; not closed here.
        report: Told of each problem among them.
        room: Waits until the job with this number may begin.
        timeout: For entries without one of their own.
    """

    def __init__(
        self,
        entries: AsyncIterator[Entry | Problem],
        report: Callable[[Task, Problem], Awaitable[None]],
        *,
        room: Callable[[int], Awaitable[None]] | None = None,
        timeout: float | None = None,
    ) -> None:
        self.drawn = 0
        self._entries = entries
        self._report = report
        self._room = room
        self._timeout = timeout
        self._drawing = trio.CancelScope()
        self._stopped = False

    def stop(self) -> None:
        """No more jobs."""
        self._stopped = True
        self._drawing.cancel()

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> Job:
        """The next job.

        Raises:
            StopAsyncIteration: there are no more, or `stop` was called.
        """
        while not self._stopped:
            entry: Any = None
            with trio.CancelScope() as self._drawing:
                if self._room is not None:
                    await self._room(self.drawn)
                entry = await anext(self._entries)
            if entry is None:
                break
            task = Task(index=self.drawn, entry=entry)
            self.drawn += 1
            if isinstance(entry, Entry):
                timeout = self._timeout if entry.timeout is None else entry.timeout
                return Job(entry.worker_type, entry.input, extra=entry.extra, timeout=timeout, tag=task)
            await self._report(task, entry)
        raise StopAsyncIteration

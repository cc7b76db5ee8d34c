"""The outgoing half of a connection: bytes gather, leave in one call, and wait if the network is full.

One buffer and one writer at a time: either `flush`, or the task that takes over where a flush got
stuck. Nothing is ever written behind a frame of which only half has left, because whatever interrupts
the writer ends the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from orbtrio.transport.pipes import BROKEN, Pipe, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Flusher", "Writer"]


class Writer:
    """Gathers outgoing bytes and writes them.

    Args:
        pipe: Where to.
        max_bytes: Most bytes to hold; more, and the peer is considered stuck.
        timeout: Seconds in which at least one byte must leave.
        lose: Called with the reason when the connection must end.
        fail: Called with the reason when the pipe broke.
        flusher: Told of this writer when there is something to flush.

    Attributes:
        nursery: Where the task runs that writes what did not leave at once; to be set before the first flush.
        unsent: Bytes added that the network has not taken.
        stopped: Whether everything is dropped from now on.
        written: Bytes that the network has taken so far.
    """

    def __init__(
        self,
        pipe: Pipe,
        *,
        max_bytes: int,
        timeout: float,
        lose: Callable[[str], None],
        fail: Callable[[str], None],
        flusher: Flusher | None = None,
    ) -> None:
        self.nursery: trio.Nursery | None = None
        self.unsent = 0
        self.stopped = False
        self._pipe = pipe
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._lose = lose
        self._fail = fail
        self._flusher = flusher
        self._parts: list[bytes] = []
        self._listed = False
        self._draining = False
        self.written = 0
        self._progress = trio.lowlevel.ParkingLot()

    @property
    def end(self) -> int:
        """What `written` will be when everything added so far has left."""
        return self.written + self.unsent

    def add(self, header: bytes, payload: Sequence[bytes] = (), size: int = 0) -> None:
        """Add a frame to what the next flush writes: header, and payload in parts of `size` bytes."""
        if self.stopped:
            return
        self._parts.append(header)
        self._parts += payload
        self.unsent += len(header) + size
        if self.unsent > self._max_bytes:
            self._lose(f"the peer does not read: {self.unsent} bytes unsent")
        elif self._flusher is not None and not self._listed:
            self._listed = True
            self._flusher.add(self)

    def flush(self) -> None:
        """Write what there is in one call, as far as the network takes it; a task writes the rest."""
        self._listed = False
        if self._draining or not self._parts:
            return
        data = b"".join(self._parts)
        self._parts.clear()
        try:
            sent = self._pipe.send_now(data)
        except BROKEN as error:
            self._fail(describe(error))
            return
        self.unsent -= sent
        self.written += sent
        if self._progress:
            # Somebody waits for bytes that nobody had flushed.
            self._progress.unpark_all()
        if sent < len(data):
            assert self.nursery is not None
            self._draining = True
            self.nursery.start_soon(self._drain, memoryview(data)[sent:])

    async def write_all(self, data: bytes = b"") -> None:
        """Flush, with `data` last, and wait until the network has taken it; later additions do not count.

        Raises:
            trio.BrokenResourceError: the connection ended first.
        """
        self.add(data)
        end = self.end
        self.flush()
        await self.wait_written(end)
        if self.stopped:
            raise trio.BrokenResourceError

    async def wait_written(self, end: int) -> None:
        """Wait until the network has taken so much since the beginning, or the connection has ended."""
        await trio.lowlevel.checkpoint()
        while not self.stopped and self.written < end:
            await self._progress.park()

    async def wait(self, below: int) -> None:
        """Wait until at most `below` bytes are unsent, or the connection has ended."""
        await trio.lowlevel.checkpoint()
        while self.unsent > below:
            await self._progress.park()

    def stop(self) -> None:
        """Drop everything, now and from now on."""
        self.stopped = True
        self._parts.clear()
        self.unsent = 0
        self._progress.unpark_all()

    async def _drain(self, rest: memoryview) -> None:
        try:
            while rest:
                with trio.move_on_after(self._timeout) as patience:
                    sent = await self._pipe.send_some(rest)
                    rest = rest[sent:]
                    self.written += sent
                    self.unsent -= sent
                    self._progress.unpark_all()
                if patience.cancelled_caught:
                    self._lose(f"the peer took no byte for {self._timeout:g} s")
                    return
                if not rest:
                    rest = memoryview(b"".join(self._parts))
                    self._parts.clear()
        except BROKEN as error:
            self._fail(describe(error))
        except trio.Cancelled:
            # A frame may have left by half.
            self._lose("cancelled in the middle of a write")
            raise
        finally:
            self._draining = False


class Flusher:
    """Collects the connections that have something to write.

    One message of a worker may answer jobs of a hundred clients. The engine queues all answers first and
    then flushes here, which writes once to each client.
    """

    def __init__(self) -> None:
        self._writers: list[Writer] = []

    def add(self, writer: Writer) -> None:
        """Remember a writer until the next flush."""
        self._writers.append(writer)

    def flush(self) -> None:
        """Flush every writer that has something to write; never blocks, never raises."""
        if self._writers:
            writers, self._writers = self._writers, []
            for writer in writers:
                writer.flush()

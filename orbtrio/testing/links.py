"""Links: the wire between a peer and an engine, in memory, and everything that can go wrong with a wire.

A link is two directions, each a bounded buffer like that of a socket: who writes faster than the other end
reads waits, so that back-pressure in a test is the back-pressure of production. Faults act on bytes that
are on their way; what an end has read it keeps. `trio.testing.memory_stream_pair` was no help: its buffers
are unbounded, and it breaks in no way that a network does.
"""

from __future__ import annotations

import math
import operator
from collections import deque
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Direction", "Link", "LinkEnd"]

# What two socket buffers on the loopback hold, roughly.
_CAPACITY: Final = 256 * 1024


class Direction:
    """One direction of a link.

    Attributes:
        carried: Bytes that have arrived at its end.
        delay: Seconds that bytes sent from now on are under way. They stay in order; those of other links
            overtake them.
        largest_read: Most bytes that one read brings, however many have arrived. A read is no message: with
            1 here, every message comes in pieces.
    """

    def __init__(self, capacity: int, cut: Callable[[], None]) -> None:
        self.carried = 0
        self.delay = 0.0
        self.largest_read = capacity
        self._capacity = capacity
        self._cut = cut
        self._cut_at = math.inf
        self._stalled = False
        self._under_way: deque[tuple[float, memoryview]] = deque()
        self._size = 0
        self._ended = False  # by the sender: whatever is under way still arrives
        self._deserted = False  # by the receiver: nothing arrives any more
        self._broken = False
        self._changed = trio.lowlevel.ParkingLot()

    def stall(self) -> None:
        """Let nothing arrive until `resume`; the sender waits once the buffer is full."""
        self._stalled = True

    def resume(self) -> None:
        """End a stall. What has gathered arrives at once."""
        self._stalled = False
        self._changed.unpark_all()

    def cut_after(self, size: int) -> None:
        """Cut the link as soon as `size` more bytes have arrived here, wherever in a message that is."""
        self._cut_at = self.carried + size
        self._changed.unpark_all()

    def heal(self) -> None:
        """No fault any more, present or announced; a cut stays a cut."""
        self.delay = 0.0
        self.largest_read = self._capacity
        self._cut_at = math.inf
        self._under_way = deque((0.0, data) for _, data in self._under_way)
        self.resume()

    # What the two ends of the link, and the link itself, do with it.

    async def send(self, data: memoryview) -> None:
        await trio.lowlevel.checkpoint()
        while True:
            if self._ended:
                raise trio.ClosedResourceError
            if self._broken or self._deserted:
                raise trio.BrokenResourceError
            if not data:
                return
            piece = data[: self._capacity - self._size]
            if piece:
                self._under_way.append((trio.current_time() + self.delay, piece))
                self._size += len(piece)
                data = data[len(piece) :]
                self._changed.unpark_all()
            else:
                await self._changed.park()

    async def wait_room(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._size >= self._capacity and not (self._ended or self._broken or self._deserted):
            await self._changed.park()
        if self._ended:
            raise trio.ClosedResourceError

    async def receive(self, most: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self._deserted:
                raise trio.ClosedResourceError
            if self.carried >= self._cut_at:
                self._cut()
            if self._broken:
                raise trio.BrokenResourceError
            arrival = math.inf
            if not self._stalled:
                if self._under_way:
                    arrival = self._under_way[0][0]
                elif self._ended:
                    return b""
            if arrival <= trio.current_time():
                return self._take(most)
            with trio.move_on_at(arrival):
                await self._changed.park()

    # What has arrived, as one read brings it.
    def _take(self, most: int) -> bytes:
        now = trio.current_time()
        room = int(min(most, self.largest_read, self._cut_at - self.carried))
        pieces: list[memoryview] = []
        while room and self._under_way and self._under_way[0][0] <= now:
            arrival, data = self._under_way.popleft()
            if len(data) > room:
                self._under_way.appendleft((arrival, data[room:]))
                data = data[:room]
            room -= len(data)
            pieces.append(data)
        taken = b"".join(pieces)
        self._size -= len(taken)
        self.carried += len(taken)
        self._changed.unpark_all()
        return taken

    def end(self) -> None:
        self._ended = True
        self._changed.unpark_all()

    def desert(self) -> None:
        self._deserted = True
        self._changed.unpark_all()

    def tear(self) -> None:
        self._broken = True
        self._changed.unpark_all()


class _Turn:
    # Two tasks that send at once would mix their bytes: Trio's streams refuse the second.
    _taken = False

    def __enter__(self) -> None:
        if self._taken:
            raise trio.BusyResourceError("another task is using this end of the link")
        self._taken = True

    def __exit__(self, *exc: object) -> None:
        self._taken = False


class LinkEnd(trio.abc.HalfCloseableStream):
    """One end of a link, as a stream."""

    def __init__(self, outgoing: Direction, incoming: Direction) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._sending = _Turn()
        self._receiving = _Turn()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._sending:
            # A copy, because the caller may go on to change what is under way here.
            await self._outgoing.send(memoryview(bytes(data)))

    async def wait_send_all_might_not_block(self) -> None:
        with self._sending:
            await self._outgoing.wait_room()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        most = _CAPACITY if max_bytes is None else operator.index(max_bytes)
        if most < 1:
            raise ValueError("max_bytes must be positive")
        with self._receiving:
            return await self._incoming.receive(most)

    async def send_eof(self) -> None:
        with self._sending:
            self._outgoing.end()
            await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self._outgoing.end()
        self._incoming.desert()
        await trio.lowlevel.checkpoint()


class Link:
    """The connection between a peer and an engine.

    Attributes:
        name: Where the engine believes it comes from, ``"memory:3"``.
        to_engine, to_peer: Its directions, each with faults of its own.
        peer_end, engine_end: Its ends.
    """

    def __init__(self, name: str, *, capacity: int = _CAPACITY) -> None:
        self.name = name
        self.to_engine = Direction(capacity, self.cut)
        self.to_peer = Direction(capacity, self.cut)
        self.peer_end = LinkEnd(self.to_engine, self.to_peer)
        self.engine_end = LinkEnd(self.to_peer, self.to_engine)

    def __repr__(self) -> str:
        return f"<Link {self.name}>"

    async def dial(self) -> trio.abc.Stream:
        """The peer's end, for what takes an ``open_stream``."""
        return self.peer_end

    def cut(self) -> None:
        """Break the link at once, as a reset does: what is under way is lost, and both ends get an error."""
        self.to_engine.tear()
        self.to_peer.tear()

    def hang_up(self) -> None:
        """End the link as when the peer's process ends: what it has sent arrives, and no close frame."""
        self.to_engine.end()
        self.to_peer.desert()

    def stall(self) -> None:
        """Let nothing through in either direction until `resume`, as if the peer's machine slept."""
        self.to_engine.stall()
        self.to_peer.stall()

    def resume(self) -> None:
        """End a stall."""
        self.to_engine.resume()
        self.to_peer.resume()

    @property
    def delay(self) -> float:
        """Seconds that bytes are under way, in either direction."""
        return max(self.to_engine.delay, self.to_peer.delay)

    @delay.setter
    def delay(self, seconds: float) -> None:
        self.to_engine.delay = self.to_peer.delay = seconds

    def heal(self) -> None:
        """No fault any more, present or announced; a cut stays a cut."""
        self.to_engine.heal()
        self.to_peer.heal()

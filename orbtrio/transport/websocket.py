"""trio-websocket, and the ways round its traps; the only module that knows it.

It does the upgrade, sends our pings, and shakes hands at the end, on a network that is not one:
`ControlStream` shows it pongs and the close frame, and only valid ones. While a connection is open the
session reads the network, and control frames are handed over here; during the two handshakes nobody
receives messages, and `ControlStream` reads for itself.

The traps, all met: an invalid frame makes it hang up without a close frame; a ping takes it two to four
turns of the loop, and one that arrives after our close frame makes it raise, so it sees none (`pongs`); it
waits for ever for a pong, for the answer to a close frame, and for an upgrade that ends in EOF; a refused
upgrade ends in exceptions of three libraries. Nothing private of it is touched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import trio
import trio_websocket

from orbtrio.errors import ConnectionLost
from orbtrio.transport.frames import FrameSkipper
from orbtrio.transport.pipes import BROKEN, Interrupted, Pipe, describe
from orbtrio.transport.pongs import Pongs

if TYPE_CHECKING:
    from orbtrio.transport.incoming import Reader
    from orbtrio.transport.outgoing import Writer

__all__ = [
    "ControlStream",
    "ReadHead",
    "Upgrade",
    "WebSocket",
    "announced",
    "answer_upgrade",
    "ping",
    "request_upgrade",
]

WebSocket: TypeAlias = trio_websocket.WebSocketConnection
Upgrade: TypeAlias = Callable[[trio.Nursery, trio.abc.Stream], Awaitable[WebSocket]]
ReadHead: TypeAlias = Callable[[Pipe], Awaitable[tuple[bytes, bytes]]]

_READ_BYTES: Final = 64 * 1024

# Control frames that may wait for trio-websocket at once: more than any honest peer sends.
_QUEUED_FRAMES: Final = 16

# The header of a server's answer that names the extensions it understands (P-60). A message about them could
# confuse a peer that knows none; a header that it does not know confuses nobody.
_ANNOUNCEMENT: Final = b"orb-extensions"


def answer_upgrade(announce: Collection[str]) -> Upgrade:
    """A server's side of the upgrade; its answer announces these extensions."""
    names = ", ".join(sorted(announce)).encode("ascii")
    headers = [(_ANNOUNCEMENT, names)] if names else []

    async def upgrade(nursery: trio.Nursery, control: trio.abc.Stream) -> WebSocket:
        request = await trio_websocket.wrap_server_stream(nursery, control)
        return await request.accept(extra_headers=headers)

    return upgrade


def announced(websocket: WebSocket) -> frozenset[str]:
    """The extensions that the other end announced; a client announces none."""
    values = [value for name, value in websocket.handshake_headers if name == _ANNOUNCEMENT]
    names = b",".join(values).decode("ascii", "replace").split(",") if websocket.is_client else []
    return frozenset(filter(None, map(str.strip, names)))


def request_upgrade(host: str, resource: str, headers: list[tuple[bytes, bytes]]) -> Upgrade:
    """A client's side of the upgrade."""

    async def upgrade(nursery: trio.Nursery, control: trio.abc.Stream) -> WebSocket:
        # Any Stream does; the annotation names the two that trio-websocket opens itself.
        stream = cast("trio.SocketStream", control)
        return await trio_websocket.wrap_client_stream(nursery, stream, host, resource, extra_headers=headers)

    return upgrade


async def ping(websocket: WebSocket) -> bool:
    """Send a ping and wait for its pong; False if the connection is closing instead.

    Waits for ever, so set a deadline. A ping given up leaves four bytes in trio-websocket, until the next
    pong: a peer that never sends one but always something else in time costs us these every `ping_timeout`.
    """
    try:
        await websocket.ping()
    except trio_websocket.ConnectionClosed:
        return False
    return True


class ControlStream(trio.abc.Stream):
    """What trio-websocket takes for its network: a handshake, then control frames and nothing else.

    Args:
        pipe: The network.
        reader: Whose control frames these are.
        writer: Takes what trio-websocket sends.
        read_head: Reads the other end's part of the opening handshake; returns it, and what came behind it.
        masked: Whether the peer must mask its frames.
        lose: Called with the reason when the handshake fails.
        finish: Called when trio-websocket is done with the connection.
    """

    def __init__(
        self,
        pipe: Pipe,
        reader: Reader,
        writer: Writer,
        *,
        read_head: ReadHead,
        masked: bool,
        lose: Callable[[str], None],
        finish: Callable[[], None],
    ) -> None:
        self._pipe = pipe
        self._reader = reader
        self._writer = writer
        self._pongs = Pongs(reader.parser, writer, server=masked)
        self._read_head: ReadHead | None = read_head
        self._masked = masked
        self._lose = lose
        self._finish = finish
        self._closing = False
        self._shut = False
        self._close_offered = False
        self._close_taken = False
        self._queue, self._frames = trio.open_memory_channel[bytes](_QUEUED_FRAMES)

    # ---- the session's side

    def offer_nowait(self) -> None:
        """Answer pings, and hand pongs to trio-websocket, as far as there is room; of each keep the latest.

        Trio-websocket takes 0.3 ms to look at a pong, and one that nobody asked for costs six bytes to send.
        """
        frames = self._reader.parser.control
        if not self.lags:
            return
        self._pongs.answer()
        with suppress(trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            while frames:
                self._queue.send_nowait(frames[0])
                frames.popleft()
        while len(frames) > 1:
            frames.popleft()

    @property
    def lags(self) -> bool:
        """Whether control frames wait: the peer reads no pongs, or trio-websocket not as many as come."""
        return self._pongs.late is not None or bool(self._reader.parser.control)

    async def offer(self) -> None:
        """While it `lags`, wait until there is room to go on."""
        if self._pongs.late is not None:
            await self._pongs.wait_for_room()
            return
        frames = self._reader.parser.control
        with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
            await self._queue.send(frames[0])
            frames.popleft()

    async def offer_close(self, frame: bytes) -> None:
        """Hand over the peer's close frame; trio-websocket answers it and calls `finish`."""
        if not self._close_offered:
            with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
                await self._queue.send(frame)
            self._close_offered = True

    def take_over(self) -> None:
        """From now on no session reads any more: what trio-websocket still needs, it gets by reading."""
        self._closing = True
        self._queue.close()

    def shut(self) -> None:
        """The connection has ended."""
        self._shut = True
        self._queue.close()

    # ---- trio-websocket's side

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next thing trio-websocket should know of."""
        if self._read_head is not None:
            return await self._handshake(self._read_head)
        if self._close_taken:
            # It has had the peer's close frame and asks for more, so it has answered. RFC 6455 lets a
            # client wait for the server to close TCP first; nothing is lost by not waiting.
            self._finish()
            return b""
        with suppress(trio.EndOfChannel):
            frame = await self._frames.receive()
            # While this task was waiting for its turn, trio-websocket may have begun to close: then all
            # that is still of interest is the peer's close frame.
            if not self._closing:
                self._close_taken = frame == self._reader.parser.close
                return frame
        if self._shut:
            raise trio.BrokenResourceError
        self._close_taken = True
        return await self._read_close()

    async def _handshake(self, read_head: ReadHead) -> bytes:
        self._read_head = None
        try:
            head, rest = await read_head(self._pipe)
        except ConnectionLost as error:
            self._lose(error.reason)
        except BROKEN as error:
            self._lose(f"{describe(error)} in the middle of the handshake")
        else:
            self._reader.parser.feed(rest)
            return head
        raise trio.BrokenResourceError

    # The peer's close frame, b"" if there will be none; everything before it is dropped.
    async def _read_close(self) -> bytes:
        while self._reader.waiting:
            # The session has been interrupted, but had no turn yet to leave.
            await trio.lowlevel.checkpoint()
        parser = self._reader.parser
        if parser.close is not None:
            return parser.close
        skipper = FrameSkipper(masked=self._masked)
        data = parser.leftover()
        while (close := skipper.feed(data)) is None:
            try:
                data = await self._pipe.receive(_READ_BYTES)
            except (*BROKEN, Interrupted):
                raise trio.BrokenResourceError from None
            if not data:
                return b""
        return close

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send behind what is queued; returns when the network has it."""
        await self._writer.write_all(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Never called by trio-websocket."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Called by trio-websocket after the close handshake, or when it gives up on one."""
        # The peer's close frame may have crossed ours, which still waits behind what was queued.
        with suppress(trio.BrokenResourceError):
            await self._writer.write_all()
        self._finish()

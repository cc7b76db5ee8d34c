"""The incoming half of a connection: who reads when, and what trio-websocket gets to see of it.

While a connection is open the session reads, through `Reader.read`; control frames go on to
trio-websocket, which waits for them in `ControlStream.receive_some` as if that were the network. During
the two handshakes nobody receives messages, and `ControlStream` reads for itself.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from orbtrio.errors import ConnectionLost
from orbtrio.transport.frames import FrameParser, FrameSkipper
from orbtrio.transport.pipes import BROKEN, Interrupted, Pipe, describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orbtrio.transport.outgoing import Writer

    ReadHead: TypeAlias = Callable[[Pipe], Awaitable[tuple[bytes, bytes]]]

__all__ = ["ControlStream", "ReadHead", "Reader"]

_READ_BYTES: Final = 64 * 1024
# Inside a large message fewer, larger reads are faster, and its sender has shown that it means it.
_LARGE_READ_BYTES: Final = 256 * 1024

# Control frames that wait for trio-websocket before the session waits for it too. No honest peer sends
# so many at once; a flood of pings is slowed down to the pace at which we answer (B-18).
_QUEUED_FRAMES: Final = 64


class Reader:
    """Feeds the parser from the network, and knows how long the peer has been silent.

    Attributes:
        parser: What has come.
        last_received: When the last byte came.
        waiting: Whether a task is inside `read`.
        stalled_since: When the message under way last grew while somebody was reading; None between messages.
    """

    def __init__(self, pipe: Pipe, parser: FrameParser) -> None:
        self.parser = parser
        self.last_received = trio.current_time()
        self.waiting = False
        self.stalled_since: float | None = None
        self._pipe = pipe
        self._held = 0

    def take(self, most: int | None) -> list[bytes]:
        """Messages that are there already; `FrameParser.take`."""
        if not self.parser.unparsed:
            return []
        messages = self.parser.take(most)
        if messages:
            self._held = 0
        return messages

    async def read(self) -> bool:
        """Wait for more bytes; False if no more will come. Cancelling loses nothing.

        Raises:
            Interrupted: somebody else takes over, or has something to tell.
            OSError, trio.BrokenResourceError, trio.ClosedResourceError: the connection broke.
        """
        parser = self.parser
        held = parser.held
        if held != self._held:
            self._held = held
            self.stalled_since = trio.current_time() if held else None
        self.waiting = True
        try:
            data = await self._pipe.receive(
                _LARGE_READ_BYTES if parser.missing > _READ_BYTES else _READ_BYTES
            )
        finally:
            self.waiting = False
        self.last_received = trio.current_time()
        parser.feed(data)
        return bool(data)


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
        """Hand control frames to trio-websocket, as far as there is room."""
        frames = self._reader.parser.control
        with suppress(trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            while frames:
                self._queue.send_nowait(frames[0])
                frames.popleft()

    async def offer(self) -> None:
        """Wait until there is room for one more control frame, and hand it over."""
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
            # While this task was waiting for its turn, trio-websocket may have begun to close, and in
            # that state a ping makes wsproto raise.
            if not self._closing:
                self._close_taken = frame is self._reader.parser.close
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
        """Send behind what is queued; returns when the network has it.

        A peer that floods pings and reads no pongs thus holds up its own pings, not our memory (B-19).
        """
        await self._writer.write(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Never called by trio-websocket."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Called by trio-websocket after the close handshake, or when it gives up on one."""
        self._finish()
        await trio.lowlevel.cancel_shielded_checkpoint()

"""The incoming half of a connection: bytes from the network to the parser, and for how long none came.

All connections of a loop read into one buffer. Each parses what it has read before any other gets a turn,
copies its messages out, unmasking them on the way, and keeps what is left of an unfinished frame. So the
kernel writes to memory that is warm in the processor's cache, and a read may be large at no cost. Only an
unfinished large frame has a buffer of its own.

Rejected: to let the kernel wake us when more has come (SO_RCVLOWAT). An image of 1 MB took two reads in place
of six, but no less CPU, and a slow link would look like one that stands still.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from orbtrio.errors import RemoteProtocolError

if TYPE_CHECKING:
    from orbtrio.transport.frames import FrameParser
    from orbtrio.transport.pipes import Pipe
    from orbtrio.transport.turns import Turns

__all__ = ["Reader"]

# What one read brings is done in one turn, while others wait: a thousand messages of 60 bytes, say. Large
# messages are few, and more of them at a time are fewer wake-ups: at 10 KB a tenth of the engine's CPU. The
# largest that are usual, batches of 32 and their results, fit whole into the largest read: another tenth.
_READ_BYTES: Final = 64 * 1024
_LARGE_READ_BYTES: Final = 256 * 1024
_LARGE_MESSAGE_BYTES: Final = 8 * 1024
_LARGEST_READ_BYTES: Final = 512 * 1024
_LARGEST_MESSAGE_BYTES: Final = 64 * 1024
# Up to here a copy costs less than the care that what is lent needs.
_SMALL_READ_BYTES: Final = 16 * 1024
# Whose last read brought more is one of those who bring much: it waits for a turn of the loop that has time
# left. Whose did not reads at once, and not more than a small read: eight clients that begin together with 64
# KiB each would be a turn of 30 ms.
_LITTLE_BYTES: Final = 2 * 1024

# For each run of Trio, because a read lets other threads run.
_buffer: Final = trio.lowlevel.RunVar[tuple[bytearray, memoryview]]("orbtrio's buffer for reading")


def _shared_buffer() -> tuple[bytearray, memoryview]:
    try:
        return _buffer.get()
    except LookupError:
        buffer = bytearray(_LARGEST_READ_BYTES)
        _buffer.set((buffer, memoryview(buffer)))
        return _buffer.get()


class Reader:
    """Feeds the parser from the network, and knows how long the peer has been silent.

    Args:
        pipe: Where bytes come from.
        parser: Where they go to.
        turns: Who may read much in this turn of the loop; None if that does not matter.

    Attributes:
        parser: What has come.
        last_received: When the last byte came.
        waiting: Whether a task is inside `read`.
        stalled_since: When the message under way last grew while somebody was reading; None between messages.
    """

    def __init__(self, pipe: Pipe, parser: FrameParser, turns: Turns | None = None) -> None:
        self.parser = parser
        self.last_received = trio.current_time()
        self.waiting = False
        self.stalled_since: float | None = None
        self._pipe = pipe
        self._shared, self._view = _shared_buffer()
        self._ready: list[bytes] = []
        self._most_bytes = _READ_BYTES
        self._held = 0
        self._turns = turns
        self._brings_much = turns is None

    def take(self, most: int | None) -> list[bytes]:
        """Messages that are there already; `FrameParser.take`."""
        if self._ready:
            messages, self._ready = self._ready[:most], [] if most is None else self._ready[most:]
        else:
            messages = self.parser.take(most) if self.parser.unparsed else []
        if messages:
            self._held = 0
            self.stalled_since = None
        return messages

    async def read(self, most: int | None = None) -> bool:
        """Wait for more bytes; False if no more will come. Cancelling loses nothing.

        Args:
            most: How many messages to parse of them, as for the `take` that follows.

        Raises:
            Interrupted: somebody else takes over, or has something to tell.
            OSError, trio.BrokenResourceError, trio.ClosedResourceError: the connection broke.
        """
        parser = self.parser
        held = parser.held
        if held != self._held:
            self._held = held
            self.stalled_since = trio.current_time() if held else None
        room = parser.room()
        offset = parser.unparsed
        if room is None:
            end = self._most_bytes if self._brings_much else offset + _SMALL_READ_BYTES
            buffer = self._view[offset:end]
        else:
            buffer = room
        self.waiting = True
        try:
            size = await self._pipe.receive_into(buffer, self._turns if self._brings_much else None)
        finally:
            self.waiting = False
        self.last_received = trio.current_time()
        self._brings_much = size > _LITTLE_BYTES or self._turns is None
        if room is None and size <= _SMALL_READ_BYTES:
            self._most_bytes = _READ_BYTES
            parser.feed(bytes(self._view[offset : offset + size]))
            return size > 0
        if room is None:
            parser.lend(self._shared, offset + size)
        else:
            parser.fill(size)
        # Before anybody else reads. What is wrong with a frame, `take` says once more.
        with suppress(RemoteProtocolError):
            self._ready = parser.take(most)
        parser.give_back()
        messages = len(self._ready)
        if room is not None or parser.missing > _READ_BYTES or 0 < messages <= size // _LARGEST_MESSAGE_BYTES:
            self._most_bytes = _LARGEST_READ_BYTES
        elif 0 < messages <= size // _LARGE_MESSAGE_BYTES:
            self._most_bytes = _LARGE_READ_BYTES
        else:
            self._most_bytes = _READ_BYTES
        return size > 0

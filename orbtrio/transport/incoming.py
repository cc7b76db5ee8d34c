"""The incoming half of a connection: bytes from the network to the parser, and for how long none came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from orbtrio.transport.frames import FrameParser
    from orbtrio.transport.pipes import Pipe

__all__ = ["Reader"]

_READ_BYTES: Final = 64 * 1024
# Inside a large message fewer, larger reads are faster, and its sender has shown that it means it.
_LARGE_READ_BYTES: Final = 256 * 1024


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
            self.stalled_since = None
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

"""Pings are answered here, where they are parsed, in the same turn of Trio's loop.

By trio-websocket an answer took two to four turns, and under load a turn is long.

A pong says that everything before its ping has been seen: pings that came among messages are answered when
whoever received those asks for more. A peer that floods pings and reads no pongs costs us `_MOST_UNREAD`
pongs; of its further pings the latest is kept, as RFC 6455, section 5.5.3, allows, and the connection reads
on when the network has taken the first of those pongs (B-18, B-19).
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Final

from orbtrio.transport.frames import mask

if TYPE_CHECKING:
    from orbtrio.transport.frames import FrameParser
    from orbtrio.transport.outgoing import Writer

__all__ = ["Pongs"]

_PING: Final = 0x89
_PONG: Final = 0x8A
_MASKED: Final = 0x80

# More than any honest peer has on its way at once.
_MOST_UNREAD: Final = 16


class Pongs:
    """Answers the pings of one peer.

    Args:
        parser: Finds the pings.
        writer: Takes the pongs.
        server: Whether we are the server: then the peer masks, and we do not.

    Attributes:
        late: The latest of the pings for whose pongs there is no room yet; None if there is none.
    """

    def __init__(self, parser: FrameParser, writer: Writer, *, server: bool) -> None:
        self.late: bytes | None = None
        self._parser = parser
        self._writer = writer
        self._server = server
        # Where the pongs that the network has not taken end, in all that was ever written.
        self._unread: deque[int] = deque()

    def answer(self) -> None:
        """Answer the pings found so far, as far as there is room, and leave the pongs among them alone."""
        writer, control = self._writer, self._parser.control
        pings = [self.late] if self.late is not None else []
        pings += [frame for frame in control if frame[0] == _PING]
        pongs = [frame for frame in control if frame[0] != _PING]
        control.clear()
        control.extend(pongs)
        while self._unread and self._unread[0] <= writer.written:
            self._unread.popleft()
        room = _MOST_UNREAD - len(self._unread)
        for ping in pings[:room]:
            writer.add(self._pong(ping))
            self._unread.append(writer.end)
        writer.flush()
        self.late = pings[-1] if len(pings) > room and not writer.stopped else None

    async def wait_for_room(self) -> None:
        """Wait until the network has taken a pong, or takes nothing any more."""
        await self._writer.wait_written(self._unread[0])

    def _pong(self, ping: bytes) -> bytes:
        size = ping[1] & ~_MASKED
        if self._server:
            return bytes((_PONG, size)) + mask(ping[6:], ping[2:6])
        key = os.urandom(4)
        return bytes((_PONG, _MASKED | size)) + key + mask(ping[2:], key)

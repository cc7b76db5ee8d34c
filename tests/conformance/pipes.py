"""Two ends of a connection in memory, for tests of what sits on a `Pipe`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orbtrio.conformance.world import PipeEnded, PipeStuck

if TYPE_CHECKING:
    from collections.abc import Callable


class MemoryPipe:
    """One end."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = ""
        self.listener: Callable[[], None] = lambda: None
        self.paused = False
        self.stuck = False
        self.other: MemoryPipe

    def send(self, data: bytes) -> None:
        if self.stuck:
            raise PipeStuck("nothing is taken")
        if self.ended:
            raise PipeEnded("gone")
        self.other.received += data
        self.other.listener()

    def finish(self) -> None:
        self.other.end("FIN")

    def close(self) -> None:
        self.other.end("FIN")

    def reset(self) -> None:
        self.other.end("RST")

    def end(self, how: str) -> None:
        if not self.ended:
            self.ended = how
            self.listener()


def memory_pipes() -> tuple[MemoryPipe, MemoryPipe]:
    left, right = MemoryPipe(), MemoryPipe()
    left.other, right.other = right, left
    return left, right

"""Faults at a place that has a number: a wire that breaks after n bytes, a program that ends at a checkpoint.

A position means the same in every run, so that what failed there can be seen again. `Link` has the ways of
breaking; here they get manners, and what is broken tells whether it was.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from orbtrio.testing.links import Direction, Link, LinkEnd

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Striker", "Sweep", "Wire"]


@attrs.frozen
class Sweep:
    """All positions of one kind.

    Attributes:
        victim: Whose first connection it is, ``"client"`` or ``"worker"``; for ``"cancel"``, which program.
        direction: ``"to_engine"`` or ``"to_peer"``; empty for ``"cancel"``.
        manner: ``"reset"``, ``"fin"``, ``"silence"`` or ``"cancel"``.
    """

    victim: str
    direction: str
    manner: str

    def __str__(self) -> str:
        return ":".join(filter(None, (self.victim, self.direction, self.manner)))


class _End(LinkEnd):
    # Knows whether its owner has closed it, and fails as a socket does whose other end is gone.
    closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await super().send_all(data)
        except trio.ClosedResourceError:
            if self.closed:
                raise
            raise trio.BrokenResourceError from None

    async def aclose(self) -> None:
        self.closed = True
        await super().aclose()


class Wire(Link):
    # A link whose `cut`, which its directions call where one was announced, has a manner.
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.peer_end: _End = _End(self.to_engine, self.to_peer)
        self.engine_end: _End = _End(self.to_peer, self.to_engine)
        self.struck = False
        self._manner = "reset"
        self._direction = self.to_engine

    def announce(self, direction: str, manner: str, position: int) -> None:
        self._direction = self.way(direction)
        self._manner = manner
        self._direction.cut_after(position)

    def way(self, direction: str) -> Direction:
        return self.to_engine if direction == "to_engine" else self.to_peer

    def cut(self) -> None:
        self.struck = True
        if self._manner == "silence":
            self.stall()
        elif self._manner == "fin":
            # The reader gets the end of the stream; what the sender sends from now on goes nowhere.
            self._direction.end()
        else:
            super().cut()


class Striker(trio.abc.Instrument):
    # Cancels a task, with all that it has started, after so many of their steps; each ends at a checkpoint.
    def __init__(self, at: int | None) -> None:
        self.steps = 0
        self.struck = False
        self._at = at
        self._scope = trio.CancelScope()
        self._root: trio.lowlevel.Task | None = None

    @contextmanager
    def watch(self) -> Iterator[None]:
        self._root = trio.lowlevel.current_task()
        try:
            with self._scope:
                yield
        finally:
            self._root = None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        root, ancestor = self._root, task
        if root is None:
            return
        while ancestor is not root:
            if ancestor.parent_nursery is None:
                return
            ancestor = ancestor.parent_nursery.parent_task
        self.steps += 1
        if self.steps == self._at:
            self.struck = True
            self._scope.cancel()

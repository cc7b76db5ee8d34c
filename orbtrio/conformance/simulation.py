"""A world without sockets: virtual time around a target that does no I/O of its own.

A target is written like an `asyncio.Protocol`: it is told what happened and calls back what it does, on
links and by timers. What it sends, and what the suite sends, is put in one line of deliveries; whoever
hands something over first empties that line, so that nobody is called while being called, and everything is
delivered when `send` or `wait` returns. Time jumps from timer to timer, and only in `wait`.

Sockets' buffers are not modelled: a paused pipe holds back whatever the target sends.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

import attrs

from orbtrio.conformance.model import TargetGone
from orbtrio.conformance.world import PipeEnded, never

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Crashed", "Exited", "Handle", "Host", "Link", "SimulatedWorld", "Target"]


class Crashed(Exception):
    """Raised by a target where its process would have died. Whatever else it raises is a bug of it."""


class Exited(Crashed):
    """The same, where it would have ended in order."""


class Handle(Protocol):
    """A call that is planned."""

    def cancel(self) -> None:
        """Do not call."""


class Link(Protocol):
    """The target's end of a connection. Once that is over, it swallows what is sent."""

    def send(self, data: bytes) -> None:
        """Send all of it, some time."""

    def close(self) -> None:
        """FIN, behind what was sent."""

    def abort(self) -> None:
        """RST."""


class Host(Protocol):
    """What a target may ask for."""

    def now(self) -> float:
        """Seconds."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Handle:
        """Call it at that time."""

    def open_link(self) -> Link:
        """A new connection to the suite, or to whatever the target was told to connect to."""


class Target(Protocol):
    """A program without I/O, called from one thread, never while it is being called."""

    def start(self, host: Host) -> None:
        """Begin. A worker or client opens its link here."""

    def connection_made(self, link: Link) -> None:
        """Somebody connected."""

    def data_received(self, link: Link, data: bytes) -> None:
        """Bytes came."""

    def connection_lost(self, link: Link, how: str) -> None:
        """The other end ended it: ``"FIN"`` or ``"RST"``. Once this returns the link is closed."""


def _deaf() -> None:
    """Nobody listens yet."""


@attrs.define(eq=False)
class _Timer:
    callback: Callable[[], None] | None

    def cancel(self) -> None:
        self.callback = None


class _Pipe:
    """The suite's end."""

    def __init__(self, world: SimulatedWorld) -> None:
        self.received = bytearray()
        self.ended = ""
        self.listener: Callable[[], None] = _deaf
        self.link = _Link(world, self)
        self._world = world
        self._paused = False
        self._held: list[bytes | str] = []
        self._sends = True
        self._reads = True

    @property
    def paused(self) -> bool:
        return self._paused

    @paused.setter
    def paused(self, value: bool) -> None:
        self._paused = value
        if not value:
            held, self._held = self._held, []
            for what in held:
                self._world.deliver(partial(self.arrive, what))
            self._world.drain()

    def send(self, data: bytes) -> None:
        if self.ended or not self._sends:
            raise PipeEnded(self.ended or "closed by the suite")
        self._world.deliver(partial(self.link.arrive, bytes(data)))
        self._world.drain()

    def finish(self) -> None:
        if self._sends:
            self._sends = False
            self._world.deliver(partial(self.link.lose, "FIN"))
            self._world.drain()

    def close(self) -> None:
        self._reads = False
        self.finish()

    def reset(self) -> None:
        self._reads = self._sends = False
        self._world.deliver(partial(self.link.lose, "RST"))
        self._world.drain()

    def arrive(self, what: bytes | str) -> None:
        """Bytes, or how it ended. Called by the world."""
        if not self._reads or self.ended:
            return
        if self._paused:
            self._held.append(what)
            return
        if isinstance(what, str):
            self.ended = what
        else:
            self.received += what
        self.listener()


class _Link:
    """The target's end."""

    def __init__(self, world: SimulatedWorld, pipe: _Pipe) -> None:
        self._world = world
        self._pipe = pipe
        self._open = True
        self._lost = False

    def send(self, data: bytes) -> None:
        if self._open and data:
            self._world.deliver(partial(self._pipe.arrive, bytes(data)))

    def close(self) -> None:
        self.end("FIN")

    def abort(self) -> None:
        self.end("RST")

    def end(self, how: str) -> None:
        """The target is done with it."""
        if self._open:
            self._open = False
            self._world.deliver(partial(self._pipe.arrive, how))

    def arrive(self, data: bytes) -> None:
        """Bytes from the suite. Called by the world."""
        if self._open and not self._lost:
            self._world.call(partial(self._world.target.data_received, self, data))

    def lose(self, how: str) -> None:
        """The suite ended it. Called by the world."""
        if self._open and not self._lost:
            self._lost = True
            if how == "RST":
                self._open = False
            self._world.call(partial(self._world.target.connection_lost, self, how))
            self.close()


class SimulatedWorld:
    """A `World`, and the `Host` of its one target.

    Args:
        target: Started at once, at time 0.

    Attributes:
        crash: What the target crashed by, if it did.
    """

    virtual = True

    def __init__(self, target: Target) -> None:
        self.target = target
        self.crash: Crashed | None = None
        self._now = 0.0
        self._timers: list[tuple[float, int, _Timer]] = []
        self._numbers = itertools.count()
        self._deliveries: deque[Callable[[], None]] = deque()
        self._draining = False
        self._pipes: list[_Pipe] = []
        self._opened: deque[_Pipe] = deque()
        self.call(partial(target.start, self))
        self.drain()

    # --- World ---

    def now(self) -> float:
        return self._now

    def connect(self) -> _Pipe:
        """A connection to the target; `TargetGone` if that crashed."""
        if self.crash is not None:
            raise TargetGone(str(self.crash))
        pipe = self._new_pipe()
        self.deliver(lambda: self.call(partial(self.target.connection_made, pipe.link)))
        self.drain()
        return pipe

    def accept(self, seconds: float) -> _Pipe | None:
        """The next link that the target opens within that time."""
        return self._opened.popleft() if self.wait(seconds, lambda: bool(self._opened)) else None

    def wait(self, seconds: float, until: Callable[[], bool] = never) -> bool:
        """Pass time from timer to timer, never beyond the end, until the condition holds."""
        if self._draining:
            raise RuntimeError("a listener must not wait")
        self.drain()
        end = self._now + seconds
        while not until():
            if not self._timers or self._timers[0][0] > end:
                self._now = max(self._now, end)
                return until()
            when, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self._now = max(self._now, when)
                self.call(timer.callback)
                self.drain()
        return True

    def alive(self) -> bool:
        return self.crash is None

    def close(self) -> None:
        """Reset every connection and forget every timer."""
        for pipe in self._pipes:
            pipe.reset()
        self._pipes.clear()
        self._timers.clear()

    def have(self, callback: Callable[[], None]) -> None:
        """Have something happen to the target from outside, a signal for example."""
        self.call(callback)
        self.drain()

    # --- Host ---

    def call_at(self, when: float, callback: Callable[[], None]) -> Handle:
        timer = _Timer(callback)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def open_link(self) -> Link:
        pipe = self._new_pipe()
        self._opened.append(pipe)
        return pipe.link

    # --- for pipes and links ---

    def deliver(self, what: Callable[[], None]) -> None:
        """Have it done when all before it is done."""
        self._deliveries.append(what)

    def drain(self) -> None:
        """Do what is to be delivered, unless somebody already does."""
        if self._draining:
            return
        self._draining = True
        try:
            while self._deliveries:
                self._deliveries.popleft()()
        finally:
            self._draining = False

    def call(self, callback: Callable[[], None]) -> None:
        """Call the target. If it crashes, so do all its connections."""
        if self.crash is not None:
            return
        try:
            callback()
        except Crashed as crash:
            self.crash = crash
            self._timers.clear()
            for pipe in self._pipes:
                pipe.link.abort()

    def _new_pipe(self) -> _Pipe:
        pipe = _Pipe(self)
        self._pipes.append(pipe)
        return pipe

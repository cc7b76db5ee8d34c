"""Our own engine as a target, in this process: memory for wires, virtual time, and a schedule that is drawn.

The cases that judge a program over TCP are played here unchanged, against the engine of production. Five
minutes take milliseconds, and what the kernel and Trio leave to chance, the order of tasks, how messages come
in pieces and how long they are under way, is drawn from a seed: a failure can be played again.

The only module of the suite that knows anything of orbtrio's inside.
"""

from __future__ import annotations

import contextlib
import random
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import trio

from orbtrio.conformance.engine_stage import EngineStage
from orbtrio.conformance.model import Role
from orbtrio.conformance.world import PipeEnded, PipeStuck, never
from orbtrio.engine.config import Config
from orbtrio.testing import open_fabric
from orbtrio.testing.clock import seeded_schedule
from orbtrio.testing.driver import Driver

if TYPE_CHECKING:
    import collections
    from collections.abc import Callable

    from orbtrio.conformance.stage import Conditions
    from orbtrio.testing import Fabric
    from orbtrio.testing.links import Direction, Link

__all__ = ["FabricWorld", "InProcessEngine"]

# Bytes of a direction that may come in tiny pieces. After that, megabytes would take minutes.
_TINY_PIECES: Final = 8192

# Virtual seconds without progress after which a peer that we write to is stuck.
_SEND_PATIENCE: Final = 5.0


class _FabricPipe:
    # One link to the engine: a task reads, a task writes, and both stand still between two calls.

    def __init__(self, world: FabricWorld, link: Link) -> None:
        self.received = bytearray()
        self.ended = ""
        self.listener: Callable[[], None] = _nobody
        self.unsent: deque[bytes] = deque()
        self.more_to_send = trio.Event()
        self.link = link
        self.open = True
        self.over = False
        self.may_read = trio.Event()
        self.may_read.set()
        self._world = world

    @property
    def paused(self) -> bool:
        return not self.may_read.is_set()

    @paused.setter
    def paused(self, paused: bool) -> None:
        if paused and not self.paused:
            self.may_read = trio.Event()
        elif not paused:
            self._world.run(self.may_read.set)

    def send(self, data: bytes) -> None:
        if not self.open or self.over:
            raise PipeEnded("the connection is gone")
        _hurry(self.link.to_engine, len(data))
        self.unsent.append(data)
        self._world.run(self.more_to_send.set)
        if self.unsent and not self._world.wait(_SEND_PATIENCE, lambda: not self.unsent or not self.open):
            raise PipeStuck(f"the engine takes nothing for {_SEND_PATIENCE:.0f} s")
        if self.over:
            raise PipeEnded("the connection went while it was written to")

    def finish(self) -> None:
        self._world.run_async(self.link.peer_end.send_eof)

    def close(self) -> None:
        self._leave(self.link.hang_up)

    def reset(self) -> None:
        self._leave(self.link.cut)

    def _leave(self, how: Callable[[], None]) -> None:
        if self.open:
            self.open = False
            self.unsent.clear()
            self._world.run(how)

    # --- The two tasks.

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            how = await self._read()
            nursery.cancel_scope.cancel()
        self.over = True
        self.unsent.clear()
        self._world.arrivals.append((self, how))

    async def _read(self) -> str:
        try:
            while True:
                data = await self.link.peer_end.receive_some()
                if not data:
                    return "FIN"
                await self.may_read.wait()
                _hurry(self.link.to_peer, len(data))
                self._world.arrivals.append((self, bytes(data)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return "RST"

    async def _write(self) -> None:
        try:
            while True:
                while self.unsent:
                    await self.link.peer_end.send_all(self.unsent[0])
                    if self.unsent:
                        self.unsent.popleft()
                await self.more_to_send.wait()
                self.more_to_send = trio.Event()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.unsent.clear()
            await trio.sleep_forever()  # the reader meets the same end


class FabricWorld:
    """A world with a fresh engine of ours inside.

    Args:
        config: Its settings.
        schedule: Seed of what is left to chance; None leaves it to chance.
    """

    virtual = True

    def __init__(self, config: Config, schedule: int | None = None) -> None:
        self.arrivals: deque[tuple[_FabricPipe, bytes | str]] = deque()
        self._chance = random.Random(schedule)
        self._order = contextlib.ExitStack()
        if schedule is not None:
            self._order.enter_context(seeded_schedule(schedule))
        self._config = config
        self._fabric: Fabric | None = None
        self._delivering = False
        self._pipes: list[_FabricPipe] = []
        self._driver = Driver()
        self._start = self._driver.now()
        self._driver.start(self._run)

    def now(self) -> float:
        """Virtual seconds since this world began."""
        return self._driver.now() - self._start

    def connect(self) -> _FabricPipe:
        """A connection to the engine; how its bytes travel is drawn."""
        assert self._fabric is not None
        link: Link = self._driver.call(_as_async(self._fabric.open_link))
        for direction in (link.to_engine, link.to_peer):
            if self._chance.random() < 0.3:
                direction.largest_read = self._chance.choice([1, 2, 3, 7, 50, 1000])
            if self._chance.random() < 0.2:
                direction.delay = self._chance.choice([0.0, 0.0001, 0.001])
        pipe = _FabricPipe(self, link)
        self._pipes.append(pipe)
        self._driver.start(pipe.run)
        return pipe

    def accept(self, seconds: float) -> None:
        """Nobody: an engine opens no connections."""
        self.wait(seconds)

    def wait(self, seconds: float, until: Callable[[], bool] = never) -> bool:
        """Let virtual time pass from event to event, until the condition holds or the time is over."""
        end = self.now() + seconds
        self._deliver()
        while not until():
            left = end - self.now()
            if left <= 0:
                return False
            self._driver.step(left)
            self._deliver()
        return True

    def alive(self) -> bool:
        """Whether the engine runs: if it raised, `wait` has raised that."""
        return True

    def close(self) -> None:
        """End the engine. What it raised is raised here at the latest."""
        # Otherwise it would wait for them to answer its goodbye, and no time passes any more.
        for pipe in self._pipes:
            pipe.reset()
        with self._order:
            self._driver.close()

    def run(self, function: Callable[[], Any]) -> None:
        """Call something inside, and have happen what it causes."""
        self._driver.call(_as_async(function))
        self._deliver()

    def run_async(self, function: Callable[[], Any]) -> None:
        """The same with an async function."""
        self._driver.start(function)
        self._deliver()

    async def _run(self) -> None:
        async with open_fabric(self._config) as self._fabric:
            await trio.sleep_forever()

    # Listeners send, and what they send brings answers: those wait until this listener is done.
    def _deliver(self) -> None:
        if self._delivering:
            return
        self._delivering = True
        try:
            while self.arrivals:
                pipe, what = self.arrivals.popleft()
                if isinstance(what, bytes):
                    pipe.received += what
                else:
                    pipe.ended = what
                if pipe.open:
                    pipe.listener()
        finally:
            self._delivering = False


class InProcessEngine:
    """Our own engine as the target of a run; each stage gets a fresh one.

    Args:
        conditions: What is known of it.
    """

    role = Role.ENGINE
    scheduled = True
    description = "orbtrio's engine, in process"

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions

    @property
    def slack(self) -> float:
        """Virtual seconds that are allowed on top of each time that the protocol names."""
        return self.conditions.slack

    def stage(self, counters: collections.Counter[str], schedule: int | None = None) -> EngineStage:
        """A fresh engine, and a stage around it."""
        config = Config(
            worker_secret=self.conditions.secret,
            worker_types=self.conditions.types,
            job_timeout=self.conditions.job_timeout,
        )
        world = FabricWorld(config, schedule)
        return EngineStage(world, self.conditions, counters, nonce="plan")

    def close(self) -> None:
        """Nothing outlives its stage."""


def _hurry(direction: Direction, more: int) -> None:
    if direction.carried + more > _TINY_PIECES:
        direction.largest_read = max(direction.largest_read, 64 * 1024)


def _as_async(function: Callable[[], Any]) -> Callable[[], Any]:
    async def call() -> Any:
        return function()

    return call


def _nobody() -> None:
    pass

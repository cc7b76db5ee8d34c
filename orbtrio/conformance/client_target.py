"""Clients under test: programs that connect to us.

One port is listened on for the whole run, and one process lives through many plans: a client is at its most
interesting when it has seen something. Between two plans its connection is closed with 1001, as by an engine
that is started anew. A program that has ended since, because everything that it wanted has been answered,
or does not come back soon, is started anew.
"""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING, Final

import attrs

from orbtrio.conformance.client_stage import ClientStage, Habits
from orbtrio.conformance.model import Role, TargetGone
from orbtrio.conformance.sockets import SocketWorld, free_port
from orbtrio.conformance.targets import Program, SimulatedTarget
from orbtrio.conformance.world import World, never

if TYPE_CHECKING:
    from collections.abc import Callable

    from orbtrio.conformance.stage import Conditions
    from orbtrio.conformance.world import Pipe

__all__ = ["ClientTarget", "SimulatedClient", "calibrate_client"]

# For the first connection of a program that has just been started, and of one that has lived through a plan.
_START_PATIENCE: Final = 60.0
_RETURN_PATIENCE: Final = 2.0

_SLACK_FACTOR: Final = 5.0
_LEAST_SLACK: Final = 0.2
_PINGS: Final = 50


class _Plan:
    """The world of one plan: what of the port's connections was opened while it was played."""

    virtual = False

    def __init__(self, port: SocketWorld, first: Pipe, alive: Callable[[], bool]) -> None:
        self._port = port
        self._waiting = [first]
        self._pipes = [first]
        self._alive = alive

    def now(self) -> float:
        return self._port.now()

    def connect(self) -> Pipe:
        return self._port.connect()

    def accept(self, seconds: float) -> Pipe | None:
        if self._waiting:
            return self._waiting.pop()
        pipe = self._port.accept(seconds)
        if pipe is not None:
            self._pipes.append(pipe)
        return pipe

    def wait(self, seconds: float, until: Callable[[], bool] = never) -> bool:
        return self._port.wait(seconds, until)

    def alive(self) -> bool:
        return self._alive()

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()


class ClientTarget:
    """A client that connects to an address of ours.

    Args:
        conditions: What is known of it.
        command: Starts it, with SERVER_URL set; None if somebody else has.
        listen: Where it will connect to; a free port of this machine if not given.

    Attributes:
        conditions: The slack in them is ours to set.
        url: What SERVER_URL is set to.
    """

    role = Role.CLIENT
    scheduled = False

    def __init__(
        self, conditions: Conditions, *, command: str | None = None, listen: tuple[str, int] | None = None
    ) -> None:
        host, port = listen or ("127.0.0.1", free_port())
        self.conditions = conditions
        self.url = f"ws://{host}:{port}{conditions.path}"
        self.description = command or f"whoever connects to {self.url}"
        try:
            self._port = SocketWorld(listen=(host, port))
        except OSError as error:
            raise TargetGone(f"cannot listen on {host}:{port}: {error}") from error
        self._habits = Habits()
        self._program: Program | None = None
        if command is not None:
            token = {} if conditions.token is None else {"CLIENT_TOKEN": conditions.token}
            self._program = Program(command, {"SERVER_URL": self.url, **token})

    @property
    def slack(self) -> float:
        """Seconds that are allowed on top of each time that the protocol names."""
        return self.conditions.slack

    def stage(self, counters: collections.Counter[str], schedule: int | None = None) -> ClientStage:
        """A fresh stage, as soon as the client has connected.

        Raises:
            TargetGone: it cannot be started, or does not connect.
        """
        world = _Plan(self._port, self._arrival(), self.runs)
        return ClientStage(world, self.conditions, counters, launcher=self, habits=self._habits)

    def runs(self) -> bool:
        """Whether the program has a connection or could have one: it has not crashed."""
        return not self.ended() or self.ended() == _DONE

    def ended(self) -> str:
        """How the process ended; empty while it runs, or if it is not ours."""
        if self._program is None or self._program.alive():
            return ""
        how = self._program.why_gone()
        return _DONE if how.startswith("exit status 0") else how

    def restart(self) -> bool:
        """Start the program anew."""
        if self._program is None:
            return False
        self._program.start()
        return True

    def close(self) -> None:
        """End the program, if we started it, and stop listening."""
        if self._program is not None:
            self._program.close()
        self._port.close()

    # The client's next connection. Those of a process that is gone are told by their having ended.
    def _arrival(self) -> Pipe:
        fresh = self._program is None or not self._program.alive()
        if fresh:
            self.restart()
        deadline = time.monotonic() + (_START_PATIENCE if fresh else _RETURN_PATIENCE)
        while True:
            pipe = self._port.accept(0.05)
            if pipe is not None:
                if not pipe.ended:
                    return pipe
                pipe.close()
            elif fresh and (how := self.ended()):
                raise TargetGone(f"{self.description!r} ended before it connected: {how}")
            elif time.monotonic() > deadline or self.ended():
                if fresh:
                    raise TargetGone(
                        f"{self.description!r} does not connect to {self.url} within "
                        f"{_START_PATIENCE:.0f} s: does it read SERVER_URL?"
                    )
                fresh = True
                self.restart()
                deadline = time.monotonic() + _START_PATIENCE


_DONE: Final = "exit status 0"


class SimulatedClient(SimulatedTarget[World]):
    """A client of the zoo."""

    role = Role.CLIENT

    def stage(self, counters: collections.Counter[str], schedule: int | None = None) -> ClientStage:
        """A fresh client, and a stage around it."""
        return ClientStage(self._make_world(), self.conditions, counters)


def calibrate_client(target: ClientTarget) -> float:
    """Measure how long the client's answers to pings take, and set the slack accordingly.

    Returns:
        The slack, in seconds.

    Raises:
        TargetGone: the client does not connect.
    """
    stage = target.stage(collections.Counter())
    times = []
    try:
        engine = stage.connection()
        for number in range(1, _PINGS + 1):
            start = stage.now()
            engine.ping(b"calibration")
            # One that answers no pings, as a case will tell, costs one wait.
            if not stage.wait(lambda number=number: len(engine.pongs) >= number, 1.0):  # type: ignore[misc]
                break
            times.append(stage.now() - start)
    finally:
        stage.strike()
        stage.world.close()
    slack = max([_LEAST_SLACK, *(_SLACK_FACTOR * seconds for seconds in sorted(times)[-1:])])
    target.conditions = attrs.evolve(target.conditions, slack=slack)
    return slack

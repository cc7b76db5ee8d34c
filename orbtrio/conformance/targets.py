"""Targets: programs that we start, addresses that somebody gave us, and how a stage is set around them."""

from __future__ import annotations

import collections
import contextlib
import os
import secrets
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import attrs

from orbtrio.conformance.engine_stage import EngineStage
from orbtrio.conformance.model import Role, TargetGone
from orbtrio.conformance.notation import MASK
from orbtrio.conformance.sockets import SocketWorld, free_port
from orbtrio.conformance.world import World
from orbtrio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orbtrio.conformance.stage import Conditions

__all__ = ["EngineTarget", "Program", "SimulatedEngine", "SimulatedTarget", "calibrate", "fast_clock"]

_World = TypeVar("_World", bound=World)

# Seconds.
_START_PATIENCE: Final = 60.0
_STOP_PATIENCE: Final = 5.0

# Slack: this many times the time in which 99 of 100 canaries come back, and at least this.
_SLACK_FACTOR: Final = 5.0
_LEAST_SLACK: Final = 0.15
_CANARIES: Final = 200

_SECRETS: Final = ("WORKER_SECRET", "CLIENT_TOKEN", "CLIENT_TOKENS")

_FAKETIME: Final = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


class Program:
    """A program under test, and its output.

    Args:
        command: As one would type it; no shell.
        environment: Added to ours, and to a data directory of its own.

    Raises:
        ConfigError: no shell would understand the command.

    Attributes:
        command: The same.
        output: File with all that it printed.
    """

    def __init__(self, command: str, environment: Mapping[str, str]) -> None:
        try:
            shlex.split(command)
        except ValueError as error:
            raise ConfigError(f"{command!r} is no command: {error}") from error
        self.command = command
        self._folder = tempfile.TemporaryDirectory(prefix="orb-conformance-")
        folder = Path(self._folder.name)
        self.output = folder / "output.txt"
        # A store of its own: a target must not find, or sweep, what another keeps.
        self._environment = {"XDG_DATA_HOME": str(folder), **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again if need be.

        Raises:
            TargetGone: there is no such program.
        """
        self.stop()
        with self.output.open("ab") as output:
            try:
                self._process = subprocess.Popen(
                    shlex.split(self.command),
                    env={**os.environ, **self._environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # Of its own, so that whatever it starts ends with it.
                    start_new_session=True,
                )
            except OSError as error:
                raise TargetGone(f"cannot start {self.command!r}: {error}") from error

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def why_gone(self) -> str:
        """How it ended, with its last words."""
        status = self._process.poll() if self._process is not None else None
        lines = self.output.read_text(errors="replace").splitlines()[-5:] if self.output.exists() else []
        words = " | ".join(line.strip() for line in lines if line.strip())
        for name in _SECRETS:
            if secret := self._environment.get(name, os.environ.get(name)):
                words = words.replace(secret, MASK)
        return f"exit status {status}" + (
            f", its last words: {words}" if words else ", and it printed nothing"
        )

    def signal(self, number: int) -> None:
        """Send it, and all that it has started, a signal."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """End it, and all that it has started: first politely."""
        if self._process is None:
            return
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_PATIENCE)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def close(self) -> None:
        """End it, and forget its files."""
        self.stop()
        self._folder.cleanup()


class EngineTarget:
    """An engine behind a TCP port.

    Args:
        conditions: What is known of it.
        address: Where it listens; a free port of this machine if it is to be started.
        command: Starts it; None if somebody else has.

    Attributes:
        conditions: The slack in them is ours to set.
    """

    role = Role.ENGINE
    scheduled = False

    def __init__(
        self, conditions: Conditions, *, address: tuple[str, int] | None = None, command: str | None = None
    ) -> None:
        host, port = address or ("127.0.0.1", free_port())
        self.conditions = attrs.evolve(
            conditions, host=f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        )
        self.address = host, port
        self.description = command or f"ws://{host}:{port}{conditions.path}"
        self._program: Program | None = None
        if command is not None:
            settings = {"SERVER_HOST": host, "SERVER_PORT": str(port), "WORKER_SECRET": conditions.secret}
            self._program = Program(command, settings | fast_clock(conditions.rate))

    @property
    def slack(self) -> float:
        """Seconds that are allowed on top of each time that the protocol names."""
        return self.conditions.slack

    def stage(self, counters: collections.Counter[str], schedule: int | None = None) -> EngineStage:
        """A fresh stage, around the engine or, if that has ended, a new one.

        Raises:
            TargetGone: it cannot be started or reached.
        """
        if self._program is not None and not self._program.alive():
            self._start(self._program)
        is_alive = self._program.alive if self._program is not None else None
        world = SocketWorld(self.address, is_alive=is_alive)
        return EngineStage(world, self.conditions, counters, nonce=secrets.token_hex(4))

    def close(self) -> None:
        """End it, if we started it."""
        if self._program is not None:
            self._program.close()

    def _start(self, program: Program) -> None:
        program.start()
        deadline = time.monotonic() + _START_PATIENCE
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(self.address, timeout=1).close()
                return
            if not program.alive():
                raise TargetGone(f"{program.command!r} ended before it listened: {program.why_gone()}")
            if time.monotonic() > deadline:
                program.stop()
                raise TargetGone(
                    f"{program.command!r} does not listen on port {self.address[1]} after "
                    f"{_START_PATIENCE:.0f} s: does it read SERVER_PORT? Otherwise start it yourself "
                    "and give its address with --url"
                )
            time.sleep(0.05)


class SimulatedTarget(Generic[_World]):
    """A program of the zoo in virtual time: each stage gets a fresh one. A role adds how it is set.

    Args:
        description: Which.
        conditions: What is known of it.
        make_world: Makes a world with a fresh program inside.
    """

    scheduled = False

    def __init__(self, description: str, conditions: Conditions, make_world: Callable[[], _World]) -> None:
        self.description = description
        self.conditions = conditions
        self._make_world = make_world

    @property
    def slack(self) -> float:
        """Virtual seconds that are allowed on top of each time that the protocol names."""
        return self.conditions.slack

    def close(self) -> None:
        """Nothing outlives its stage."""


class SimulatedEngine(SimulatedTarget[World]):
    """An engine of the zoo."""

    role = Role.ENGINE

    def stage(self, counters: collections.Counter[str], schedule: int | None = None) -> EngineStage:
        """A fresh engine, and a stage around it."""
        return EngineStage(self._make_world(), self.conditions, counters, nonce="plan")


def fast_clock(rate: float) -> dict[str, str]:
    """Environment of a program whose clocks run so many times as fast, by libfaketime.

    Raises:
        ConfigError: that is not installed.
    """
    if rate == 1:
        return {}
    library = next((path for path in _FAKETIME if path.exists()), None)
    if library is None:
        raise ConfigError("--faketime needs libfaketime: on Debian, apt-get install libfaketime")
    return {"LD_PRELOAD": str(library), "FAKETIME": f"+0 x{rate:g}"}


def calibrate(target: EngineTarget) -> float:
    """Measure how long a canary takes on this machine, now, and set the slack accordingly.

    Returns:
        The slack, in seconds.

    Raises:
        TargetGone: the target cannot be reached.
        Violation: it does not even do the canary's jobs.
    """
    stage = target.stage(collections.Counter())
    try:
        stage.barrier()
        times = sorted(stage.barrier() for _ in range(_CANARIES))
    finally:
        stage.strike()
        stage.world.close()
    slack = max(_LEAST_SLACK, _SLACK_FACTOR * times[len(times) * 99 // 100])
    target.conditions = attrs.evolve(target.conditions, slack=slack)
    return slack

"""The worker under test as a target: a program that we start, or one of the zoo in virtual time.

We listen before it is started, on one socket for the whole run. Its process lives through many plans, for
loading a model takes seconds. It is started again when it has died, or when to wait for its return would take
longer than that: after some lost links a good worker stays away for long.
"""

from __future__ import annotations

import collections
import json
import secrets
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from orbtrio.conformance.model import Role, TargetGone
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.sockets import SocketWorld, free_port
from orbtrio.conformance.targets import Program, SimulatedTarget
from orbtrio.conformance.worker_bench import Bench
from orbtrio.conformance.worker_stage import WorkerStage
from orbtrio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from orbtrio.conformance.stage import Conditions
    from orbtrio.conformance.worker_bench import WorkerLink

__all__ = ["SimulatedWorker", "WorkerTarget", "read_inputs"]

# Seconds. Models are loaded before a worker registers.
_START_PATIENCE: Final = 60.0
_LEAST_WAIT: Final = 0.5

_PINGS: Final = 30
_SLACK_FACTOR: Final = 5.0
_LEAST_SLACK: Final = 0.15


def read_inputs(file: Path) -> tuple[dict[str, Any], ...]:
    """Inputs of jobs that a worker can do, one on each line of a file, as JSON.

    Raises:
        ConfigError: that is not what is in it.
    """
    inputs = []
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        if line.strip():
            try:
                job_input = json.loads(line)
            except ValueError as error:
                raise ConfigError(f"{file}, line {number}: no JSON: {error}") from error
            if not isinstance(job_input, dict):
                raise ConfigError(f"{file}, line {number}: an input is a map, {{...}}")
            inputs.append(job_input)
    if not inputs:
        raise ConfigError(f"{file}: there are no inputs in it")
    return tuple(inputs)


class _LastingWorld(SocketWorld):
    """A world that outlives its stages: the worker stays connected from plan to plan."""

    def close(self) -> None:
        """Nothing: the target ends it."""

    def end(self) -> None:
        """End all connections."""
        super().close()


class WorkerTarget:
    """A worker that we start and that connects to us.

    Args:
        conditions: The secret and the path are what counts.
        command: Starts it.
        listen: Where we listen for it; a free port of this machine if not given.
        worker_type: What it is told to be; None leaves that to it.
        inputs: What it can do, if that cannot be told from its type.

    Attributes:
        conditions: The slack in them is ours to set.
        bench: What is known of it.

    Raises:
        OSError: nobody can listen there.
    """

    role = Role.WORKER
    scheduled = False

    def __init__(
        self,
        conditions: Conditions,
        *,
        command: str,
        listen: tuple[str, int] | None = None,
        worker_type: str | None = None,
        inputs: tuple[dict[str, Any], ...] = (),
    ) -> None:
        host, port = listen or ("127.0.0.1", free_port())
        self.description = command
        self.conditions = conditions
        self._folder = tempfile.TemporaryDirectory(prefix="orb-conformance-files-")
        self.bench = Bench(
            folder=Path(self._folder.name),
            worker_type=worker_type,
            given=inputs,
            restart=self._restart,
            terminate=lambda: self._program.signal(signal.SIGTERM),
        )
        self._url = f"ws://{host}:{port}{conditions.path}"
        self._program = Program(
            command,
            {
                "SERVER_URL": self._url,
                "WORKER_SECRET": conditions.secret,
                "MAX_BATCH_SIZE": str(self.bench.max_batch_size),
                "MAX_LATENCY_MS": str(self.bench.max_latency_ms),
                **({"WORKER_TYPE": worker_type} if worker_type is not None else {}),
            },
        )
        self._world = _LastingWorld(listen=(host, port), is_alive=self._program.alive)
        self._start_seconds = _LEAST_WAIT

    @property
    def slack(self) -> float:
        """Seconds that are allowed on top of each time that the protocol names."""
        return self.conditions.slack

    def stage(self, counters: collections.Counter[str], schedule: int | None = None) -> WorkerStage:
        """A fresh stage with the worker's link, for which it is started again if need be.

        Raises:
            TargetGone: it cannot be started, or never connects.
        """
        link = self.bench.link
        if link is not None and not (self._answers(link) and self._program.alive()):
            self.bench.link = None
        stage = WorkerStage(
            self._world, self.conditions, counters, self.bench, nonce=f"job-{secrets.token_hex(4)}"
        )
        if stage.peers or (self._program.alive() and stage.next_link(self._start_seconds) is not None):
            return stage
        self._restart()
        began = time.monotonic()
        if stage.next_link(_START_PATIENCE) is not None:
            self._start_seconds = max(time.monotonic() - began, _LEAST_WAIT)
            return stage
        if not self._program.alive():
            raise TargetGone(f"{self.description!r} ended before it registered: {self._program.why_gone()}")
        if stage.peers:
            # It connects, and says nothing: that is for the cases to judge.
            return stage
        raise TargetGone(
            f"{self.description!r} has not connected to {self._url} after {_START_PATIENCE:.0f} s: "
            "does it read SERVER_URL?"
        )

    def calibrate(self) -> float:
        """Learn what it can do, how long a job takes, and how promptly it answers pings.

        Returns:
            The slack, in seconds.

        Raises:
            TargetGone: it cannot be started, or never connects.
            Violation: it does not even answer one job.
        """
        stage = self.stage(collections.Counter())
        # Generous, until it is known better: first jobs warm models up.
        self.bench.job_seconds = _START_PATIENCE / 10
        good = []
        try:
            stage.link()
            count = len(self.bench.inputs(""))
            for number in range(count):
                job = stage.job(number)
                stage.deliver(job)
                stage.expect_answers([job], "a worker answers a job")
                if not job.answers[0].failed:
                    good.append(number)
            self.bench.good = tuple(good)
            times = []
            for number in range(max(len(good), 3) if good else 0):
                began = stage.now()
                job = stage.job(number)
                stage.deliver(job)
                stage.expect_answers([job], "a worker answers a job")
                times.append(stage.now() - began)
            self.bench.job_seconds = max(times, default=0.0)
            pongs = self._pongs(stage)
        finally:
            stage.strike()
        self.conditions = attrs.evolve(self.conditions, slack=max(_LEAST_SLACK, _SLACK_FACTOR * max(pongs)))
        return self.slack

    def close(self) -> None:
        """End it. Its link first: who drains would wait for us to close it."""
        self._world.end()
        self._program.close()
        self._folder.cleanup()

    # Lest this plan be blamed for what the last one did to the worker: a process takes a moment to die.
    def _answers(self, link: WorkerLink) -> bool:
        pongs = len(link.pongs)
        link.ping(b"still there?")
        self._world.wait(self.slack, lambda: len(link.pongs) > pongs or link.has_ended())
        return not link.has_ended()

    @staticmethod
    def _pongs(stage: WorkerStage) -> list[float]:
        link = stage.link()
        times: list[float] = []
        for number in range(_PINGS):
            began = stage.now()
            link.ping(str(number).encode())
            # Who does not answer at all is told so by a case.
            if not stage.world.wait(1.0, lambda: len(link.pongs) > len(times)):
                return [*times, 0.0]
            times.append(stage.now() - began)
        return times

    def _restart(self) -> None:
        self.bench.losses = 0
        self._program.start()


class SimulatedWorker(SimulatedTarget[SimulatedWorld]):
    """A worker of the zoo, one that can be asked to `terminate`.

    Args:
        bench: What is known of it, too.
    """

    role = Role.WORKER

    def __init__(
        self, description: str, conditions: Conditions, bench: Bench, make_world: Callable[[], SimulatedWorld]
    ) -> None:
        super().__init__(description, conditions, make_world)
        self._bench = bench

    def stage(self, counters: collections.Counter[str], schedule: int | None = None) -> WorkerStage:
        """A fresh worker, and a stage around it."""
        world = self._make_world()
        terminate: Callable[[], None] = world.target.terminate  # type: ignore[attr-defined]
        bench = attrs.evolve(self._bench, link=None, terminate=lambda: world.have(terminate))
        return WorkerStage(world, self.conditions, counters, bench, nonce="job")

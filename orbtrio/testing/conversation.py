"""A conversation of three parties with one fault in it, and what must hold in the end all the same.

The parties are a client with a request of several jobs, an engine, and two workers: all of them the real
ones, on wires in memory and in virtual time. A fault is given by its place, a `Sweep` and a position in it:

| fault | what happens at position n |
|---|---|
| ``reset`` | the first connection of the client or worker breaks when n bytes have come in a direction |
| ``fin`` | what comes in this direction ends there, in the midst of a message or not, without an error |
| ``silence`` | nothing comes any more, either way, and nobody is told: a machine without power |
| ``cancel`` | a program ends at its n-th checkpoint; another one is started in its place |

Then everybody goes on, and in the end the same must hold as if nothing had happened: each job has exactly one
answer, the right one; workers have seen it once, or twice for the fault (three times if the engine went); no
answer came that nobody waited for; the engine's books balance (I3); its queues and its directory are empty
(I4); every end of every wire is closed and no task is left (I5); no error was logged (I7).

A position means the same in every run: Trio's scheduler is seeded and told to be deterministic, which has no
public switch, and so is `random`, for the pauses before reconnecting. Another seed is another order of tasks.
Rejected: a `Fabric`, whose engine and peers live in nurseries of the test, so that no scope is that of a
program with all that it has started.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio
import trio.testing

from orbtrio.client import ClientLimits, connect
from orbtrio.engine.config import Config
from orbtrio.engine.server import Engine
from orbtrio.errors import JobFailed, JobRefused, OrbError
from orbtrio.inputs import Document
from orbtrio.testing.clock import seeded_schedule, steady_clock
from orbtrio.testing.faults import Striker, Wire
from orbtrio.worker import WorkerSettings, run_worker

if TYPE_CHECKING:
    from orbtrio.client import Client
    from orbtrio.testing.faults import Sweep

__all__ = ["Conversation", "Failed", "Handler", "play", "settings"]

Handler: TypeAlias = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

_URL: Final = "ws://localhost/ws"
_TYPE: Final = "work"
_TEXT: Final = "shared by two jobs"

# The request, and one job more when it is answered. What to answer follows from the input alone.
_DOCUMENT: Final = Document(_TEXT)
_REQUEST: Final[tuple[dict[str, Any], ...]] = (
    {"n": 0, "file": _DOCUMENT},
    {"n": 1, "file": _DOCUMENT},
    {"n": 2, "camera": "a"},
    {"n": 3, "camera": "a"},
    {"n": 4, "wrong": True},
    {"n": 5, "seconds": 0.5},
)
_LATER: Final[dict[str, Any]] = {"n": 6}
_EXPECTED: Final[list[tuple[int, object]]] = [
    (0, {"n": 0, "text": _TEXT}),
    (1, {"n": 1, "text": _TEXT}),
    (2, {"n": 2}),
    (3, {"n": 3}),
    (4, "job 4 is wrong"),
    (5, {"n": 5}),
    (6, {"n": 6}),
]

# Each job takes longer than a worker's round, so that every answer is a message of its own.
_SECONDS: Final = 0.15
# One fault, one execution more: the job was in a worker's hands, or its answer on the way. An engine that is
# cancelled loses its workers one by one, and may hand the job of the first to the second before that goes.
_MOST_EXECUTIONS: Final = 2
_MOST_EXECUTIONS_OF_A_DYING_ENGINE: Final = 3
# Virtual seconds. A half-open link is found in 40 s, and that can happen to both of its ends in turn.
_TOO_LONG: Final = 600.0
# Until the engine has noticed that everybody has gone; the last is for links that fell silent.
_SETTLING: Final = (0.2, 1.0, 5.0, 60.0)


class Failed(Exception):
    """A conversation did not end as it should; the text says what was expected and what was seen."""


# --- The conversation ---------------------------------------------------------------------------------------


class Conversation:
    """One conversation, from the engine's start to its end, with one fault or none.

    Args:
        config: The engine's settings.
        sweep: Which kind of fault, or None.
        position: Where; None to count the positions that there are.
        handler: The workers', to be replaced by one with a fault of its own.
    """

    def __init__(
        self,
        config: Config,
        sweep: Sweep | None = None,
        position: int | None = None,
        handler: Handler | None = None,
    ) -> None:
        self.striker = Striker(position)
        self.wires: list[Wire] = []
        self.seen: Counter[int] = Counter()
        self._answers: list[list[tuple[int, object]]] = []  # of each client in turn
        self._config = config
        self._sweep = sweep
        self._position = position
        self._handler = handler or _handle
        self._clients: list[Client] = []
        self._engines: list[Engine] = []
        self._accept: Callable[[Wire], None] | None = None
        self._up = trio.Event()
        self._over = False
        self._stop = trio.Event()

    def first_wire(self, peer: str) -> Wire:
        """The one that its faults concern."""
        return next(wire for wire in self.wires if wire.name.startswith(peer))

    @property
    def announced(self) -> bool:
        """Whether there is to be a fault."""
        return self._position is not None

    @property
    def positions(self) -> range:
        """All those of its sweep, once it has been played without a fault."""
        assert self._sweep is not None
        if self._sweep.manner == "cancel":
            return range(1, self.striker.steps + 1)
        return range(self.first_wire(self._sweep.victim).way(self._sweep.direction).carried)

    @property
    def struck(self) -> bool:
        """Whether the fault has come about."""
        return self.striker.struck or any(wire.struck for wire in self.wires)

    async def play(self) -> None:
        """Play it, and check all that must hold.

        Raises:
            Failed: something does not.
        """
        with steady_clock():
            tasks = trio.lowlevel.current_statistics().tasks_living
            with trio.move_on_after(_TOO_LONG) as patience:
                await self._play()
            if patience.cancelled_caught:
                raise Failed(f"expected: an end within {_TOO_LONG:g} virtual seconds; seen: none")
            left = trio.lowlevel.current_statistics().tasks_living - tasks
        _expect("tasks left", left, 0)
        _expect(
            "wires left open",
            [wire.name for wire in self.wires if not (wire.peer_end.closed and wire.engine_end.closed)],
            [],
        )
        files = [path.name for path in self._config.store_root.rglob("*") if path.is_file()]
        _expect("files left", files, [".lock"])

    async def _play(self) -> None:
        async with trio.open_nursery() as engines:
            engines.start_soon(self._supervise, "engine", self._run_engine)
            await self._up.wait()
            async with trio.open_nursery() as workers:
                for name in ("worker", "survivor"):
                    workers.start_soon(self._supervise, name, partial(self._run_worker, name))
                    await trio.sleep(0.01)
                await self._supervise("client", self._run_client)
                self._stop.set()
            for pause in _SETTLING:
                await self._up.wait()
                await trio.sleep(pause)
                if self._is_quiet():
                    break
            await self._up.wait()
            self._check()
            self._over = True
            await self._engines[-1].stop(grace=0)

    # Until it ends by itself; if it was cancelled, once more.
    async def _supervise(self, name: str, program: Callable[[], Awaitable[None]]) -> None:
        if self._sweep is not None and self._sweep.manner == "cancel" and self._sweep.victim == name:
            with self.striker.watch():
                await program()
            if not self.striker.struck or (name == "engine" and self._over):
                return
            if self._up.is_set() and name == "engine":
                self._up = trio.Event()
        await program()

    async def _run_engine(self) -> None:
        engine = Engine(self._config, listen=False)
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.serve)
            self._engines.append(engine)
            self._accept = lambda wire: nursery.start_soon(engine.handle, wire.engine_end, wire.name)
            self._up.set()
            try:
                await engine.wait_stopped()
            finally:
                self._accept = None

    async def _dial(self, name: str) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self._accept is None:
            raise ConnectionRefusedError("no engine is running")
        wire = Wire(f"{name}:{len(self.wires)}")
        sweep, first = self._sweep, not any(each.name.startswith(name) for each in self.wires)
        concerned = sweep is not None and sweep.direction and sweep.victim == name and first
        if sweep is not None and concerned and self._position is not None:
            wire.announce(sweep.direction, sweep.manner, self._position)
        self.wires.append(wire)
        self._accept(wire)
        return wire.peer_end

    async def _run_worker(self, name: str) -> None:
        settings = WorkerSettings(
            worker_type=_TYPE,
            worker_secret=self._config.worker_secret or "",
            server_url=_URL,
            max_batch_size=2,
        )
        await run_worker(self._work, settings, stop=self._stop, open_stream=partial(self._dial, name))

    async def _work(self, job: dict[str, Any]) -> dict[str, Any]:
        self.seen[job["n"]] += 1
        return await self._handler(job)

    async def _run_client(self) -> None:
        answers: list[tuple[int, object]] = []
        self._answers.append(answers)
        limits = ClientLimits(connect_timeout=120.0)
        async with connect(_URL, limits=limits, open_stream=partial(self._dial, "client")) as client:
            self._clients.append(client)
            async with trio.open_nursery() as nursery:
                for job in _REQUEST:
                    nursery.start_soon(self._submit, client, job, answers)
            await self._submit(client, _LATER, answers)

    async def _submit(self, client: Client, job: dict[str, Any], answers: list[tuple[int, object]]) -> None:
        answer: object
        while True:
            try:
                answer = await client.submit(_TYPE, job)
            except JobFailed as error:
                answer = str(error)
            except OrbError as error:
                stopped = isinstance(error, JobRefused) and error.kind == "engine_stopped"
                if stopped and self._sweep is not None and self._sweep.victim == "engine":
                    # It said so before it went, so that its clients ask its successor.
                    await trio.sleep(0.1)
                    continue
                answer = repr(error)
            break
        answers.append((job["n"], answer))

    # --- What must hold.

    def _is_quiet(self) -> bool:
        now = self._engines[-1].statistics()
        return not (now.clients or now.workers or now.open_jobs or now.files)

    def _check(self) -> None:
        *cancelled, answers = self._answers
        _expect("answers", sorted(answers, key=lambda answer: answer[0]), _EXPECTED)
        wrong = [answer for each in cancelled for answer in each if answer not in _EXPECTED]
        _expect("wrong answers before it was cancelled", wrong, [])
        dying = self.striker.struck and len(self._engines) > 1
        most = _MOST_EXECUTIONS_OF_A_DYING_ENGINE if dying else _MOST_EXECUTIONS
        for n, _ in _EXPECTED:
            if not 1 <= self.seen[n] <= most:
                raise Failed(f"executions of job {n}: expected: 1 to {most}; seen: {self.seen[n]}")
        # One that was cancelled waits for nothing any more.
        _expect("answers that no client waited for", self._clients[-1].statistics().dropped, 0)
        for engine in self._engines:
            now = engine.statistics()
            ends = {"answered": now.answered, "abandoned": now.abandoned, "ended": sum(now.ended.values())}
            if now.accepted != sum(ends.values()):
                raise Failed(f"accepted jobs: expected: {now.accepted}, each with an end; seen: {ends}")
            _expect("open jobs", now.open_jobs, 0)
            _expect("jobs in queues", sum(each.queued for each in now.worker_types), 0)
        now = self._engines[-1].statistics()
        _expect("clients and workers connected", (now.clients, now.workers), (0, ()))
        _expect("files and bytes in the store's books", (now.files, now.file_bytes), (0, 0))


async def _handle(job: dict[str, Any]) -> dict[str, Any]:
    if "wrong" in job:
        raise ValueError(f"job {job['n']} is wrong")
    result = {"n": job["n"]}
    if "file" in job:
        try:
            result["text"] = Path(job["file"]).read_text()  # noqa: ASYNC240  (a few bytes)
        except FileNotFoundError:
            # Its client has gone, and with it the file: whoever still waits for this answer sees that.
            raise ValueError("its file has gone") from None
    await trio.sleep(job.get("seconds", _SECONDS))
    return result


def _expect(what: str, seen: object, expected: object) -> None:
    if seen != expected:
        raise Failed(f"{what}: expected: {expected}; seen: {seen}")


# --- Runs ---------------------------------------------------------------------------------------------------


class _Errors(logging.Handler):
    # What the three programs have to say at level ERROR or above: nothing.
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}")


def settings(directory: Path) -> Config:
    """The engine's settings, with its files in a directory that any number may use, one after the other."""
    return Config(
        worker_secret="a secret",
        worker_types=(_TYPE,),
        affinity={_TYPE: "camera"},
        xdg_data_home=directory,
    )


def play(conversation: Conversation, seed: int = 0) -> None:
    """Run a conversation from begin to end.

    Raises:
        Failed: something does not hold that must. Several such things, and whatever else a program raised,
            come in an `ExceptionGroup`.
    """
    before = random.getstate()
    random.seed(seed)
    logger, errors = logging.getLogger("orbtrio"), _Errors()
    logger.addHandler(errors)
    propagates, logger.propagate = logger.propagate, False
    clock = trio.testing.MockClock(autojump_threshold=0)
    try:
        with seeded_schedule(seed):
            trio.run(conversation.play, clock=clock, instruments=[conversation.striker])
    finally:
        logger.removeHandler(errors)
        logger.propagate = propagates
        random.setstate(before)
    _expect("errors logged", errors.lines, [])
    if conversation.announced and not conversation.struck:
        raise Failed("the fault: expected: it strikes; seen: it never did")

"""The stage for a client under test: the suite plays its engine.

The jobs are the client's own: its program submits what it likes, when it likes. So a case waits for jobs,
keeps some of them unanswered, and watches what comes back. Every connection that the client opens is taken as
it comes, unless a case has put somebody at the door.

There is no barrier here: a pong is the only proof that a client has seen what it was sent.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from orbtrio.conformance.client_players import SuiteEngine
from orbtrio.conformance.model import TargetGone, Violation
from orbtrio.conformance.stage import PROMPTLY, Stage
from orbtrio.conformance.world import never

if TYPE_CHECKING:
    import collections
    from collections.abc import Callable

    from orbtrio.conformance.stage import Conditions
    from orbtrio.conformance.world import Pipe, World

__all__ = ["ClientStage", "Habits", "Launcher"]

# Seconds. For the first connection of a program that has been started; between two looks at a process.
_START_PATIENCE: Final = 60.0
_STEP: Final = 0.1

# How often, and how long each time, a program is given jobs' answers to see whether it submits more. Seconds.
_ROUNDS: Final = 3
_NEXT_JOB: Final = 1.5


@attrs.define
class Habits:
    """What is known of a program: whether it submits more when it has been answered, if that was seen."""

    goes_on: bool | None = None


class Launcher(Protocol):
    """Who has started the program."""

    def restart(self) -> bool:
        """Start it anew; False if that is not ours to do."""

    def ended(self) -> str:
        """How its process ended, or ``""`` while it runs, or if nobody can tell."""


class ClientStage(Stage):
    """An engine for a client under test.

    Args:
        world: It listens; the client connects to it.
        conditions: What is known of the client.
        counters: Shared by the stages of a run.
        launcher: Who has started the program; None if nobody can start it again.
        habits: Shared by the stages of a run.

    Attributes:
        engines: The connections that the client has opened, ended ones included.
        doorman: If set, gets the pipes of new connections instead, and does with them what it likes.
    """

    def __init__(
        self,
        world: World,
        conditions: Conditions,
        counters: collections.Counter[str],
        *,
        launcher: Launcher | None = None,
        habits: Habits | None = None,
    ) -> None:
        super().__init__(world, conditions, counters)
        self.engines: list[SuiteEngine] = []
        self.doorman: Callable[[Pipe], None] | None = None
        self._launcher = launcher
        self._habits = habits or Habits()
        self._announces: frozenset[str] = frozenset()

    # --- Time: whoever connects meanwhile is let in ---

    def sleep(self, seconds: float) -> None:
        """Let time pass; whoever connects is let in."""
        self._pass(seconds, never)

    def wait(self, condition: Callable[[], bool], seconds: float = PROMPTLY) -> bool:
        """Let time pass until a condition holds; False if it does not within this time and the slack."""
        return self._pass(seconds + self.slack, condition)

    def _pass(self, seconds: float, condition: Callable[[], bool]) -> bool:
        def admit_and_look() -> bool:
            while (pipe := self.world.accept(0)) is not None:
                self._admit(pipe)
            return condition()

        # That a process has ended wakes nobody.
        step = seconds if self.world.virtual else _STEP
        end = self.world.now() + seconds
        while not self.world.wait(max(min(step, end - self.world.now()), 0), admit_and_look):
            if self.world.now() >= end:
                return False
        return True

    def _admit(self, pipe: Pipe) -> None:
        if self.doorman is not None:
            return self.doorman(pipe)
        name = f"engine#{len(self.engines) + 1}"
        engine = SuiteEngine(pipe, self.log, name, announces=self._announces)
        self.engines.append(engine)
        self.peers.append(engine)

    # --- The client ---

    def announce(self, *names: str) -> None:
        """From now on be an engine that understands these extensions; a stage begins with none."""
        self._announces = frozenset(names)
        for engine in self.engines:
            if engine.closed is None and engine.announced != self._announces:
                engine.close(1001, "replaced by an engine with other extensions")
                self.wait(lambda engine=engine: engine.closed is not None)  # type: ignore[misc]
                engine.pipe.close()

    def connection(self) -> SuiteEngine:
        """The connection that the client opened last and has not ended; waits for one.

        Raises:
            Violation: it opens none, also when it is started anew.
            Skipped: it has left, and cannot be started anew.
        """
        self.wait(lambda: self._live() is not None or bool(self.obituary()))
        anew = self._live() is None and self._start_anew("the program has no connection")
        last = self.engines[-1] if self.engines else None
        if not anew and self._live() is None and last and last.left_politely and not last.open_jobs:
            self.skip(
                "the program had what it wanted, and left: use --launch, so that it can be started again"
            )
        self.expect(
            lambda: self._live() is not None,
            "the client connects to SERVER_URL, and asks for a WebSocket",
            lambda: (
                (f"a connection that did not last: it {last.closed}" if last else "nobody") + self.obituary()
            ),
            within=_START_PATIENCE if anew else PROMPTLY,
        )
        engine = self._live()
        assert engine is not None
        return engine

    def client(self, jobs: int = 1) -> SuiteEngine:
        """A connection on which the client has submitted something that is not answered yet.

        Waits shortly for as many jobs as that, and is content with one: some programs submit one at a time.

        Raises:
            Skipped: it submits none, also when it is started anew.
        """
        engine = self.connection()
        if not self._submits(engine):
            self._start_anew("the program submits nothing")
            engine = self.connection()
            if not self._submits(engine):
                self.skip(
                    f"the program under test has submitted no job after {PROMPTLY:.0f} s: launch one that "
                    "submits at least a few, at best over and over"
                )
        self._pass(self.slack / 2, lambda: len(engine.open_jobs) >= jobs or engine.closed is not None)
        return engine

    def collect(
        self, jobs: int, *, answers: Callable[[SuiteEngine], None] = SuiteEngine.answer_all
    ) -> SuiteEngine:
        """A connection on which the client has submitted that many jobs, or all that it has.

        Answers are given as long as there are too few.
        """
        engine = self.client(jobs)
        while len(engine.jobs) < jobs and engine.closed is None and engine.open_jobs:
            before = len(engine.jobs)
            answers(engine)
            if self._habits.goes_on is False or not self.more_jobs(engine, before):
                break
        return engine

    def more_jobs(self, engine: SuiteEngine, than: int, within: float = _NEXT_JOB) -> bool:
        """Wait shortly whether the client submits more jobs than that on this connection."""
        self.wait(lambda: len(engine.jobs) > than or engine.closed is not None, within)
        return len(engine.jobs) > than

    def goes_on(self) -> bool:
        """Whether the program submits more when it has been answered: found out once, in a quiet moment."""
        if self._habits.goes_on is None:
            self._habits.goes_on = False
            for _ in range(_ROUNDS):
                engine = self.client()
                # What comes anyhow says nothing.
                self.sleep(self.slack)
                before = len(engine.jobs)
                engine.answer_all()
                if not self.more_jobs(engine, before):
                    self.note("the program submits no more once it has been answered")
                    break
            else:
                self._habits.goes_on = True
        return self._habits.goes_on

    def settle(self, engine: SuiteEngine) -> None:
        """Let the client see what it has been sent: a ping and the slack."""
        pongs = len(engine.pongs)
        engine.ping(b"seen?")
        self._pass(PROMPTLY, lambda: len(engine.pongs) > pongs or engine.closed is not None)
        self._pass(self.slack, lambda: engine.closed is not None)

    def obituary(self) -> str:
        """How the program ended, to be put behind what was seen; empty while it runs."""
        how = "" if self._launcher is None else self._launcher.ended()
        return f" (its process has ended: {how})" if how else ""

    def strike(self) -> None:
        """Answer what is open and say good-bye, so that the program finds the next stage as it found this."""
        # The case has been judged.
        with contextlib.suppress(Violation, TargetGone):
            for engine in self.engines:
                if engine.closed is None:
                    engine.answer_all()
                    engine.close(1001, "the plan is over")
            self.world.wait(self.slack, lambda: all(engine.closed is not None for engine in self.engines))
        super().strike()

    def _live(self) -> SuiteEngine | None:
        return next(
            (engine for engine in reversed(self.engines) if engine.open and engine.closed is None), None
        )

    def _submits(self, engine: SuiteEngine) -> bool:
        self.wait(lambda: bool(engine.open_jobs) or engine.closed is not None)
        return bool(engine.open_jobs)

    def _start_anew(self, why: str) -> bool:
        anew = self._launcher is not None and self._launcher.restart()
        if anew:
            self.note(f"{why}: started anew")
        return anew

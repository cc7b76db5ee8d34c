"""Plays cases and judges them.

For each case: known counterexamples and fixed examples first, then plans drawn by hypothesis, until one fails
or the case's share of the time is used up. A plan that fails is shrunk, then played three times more: what
fails each time is a FAIL, what fails sometimes is FLAKY, what never fails again is INCONCLUSIVE. The smallest
plan that failed is the counterexample.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import platform
import time
import zlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final, Protocol

from orbtrio.conformance.model import (
    CaseResult,
    Counterexample,
    Inconclusive,
    Level,
    Skipped,
    SuiteResult,
    TargetGone,
    Verdict,
    Violation,
)
from orbtrio.conformance.search import Outcome, Search, fit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orbtrio.conformance.model import Case, Plan, Role
    from orbtrio.conformance.profiles import Profile
    from orbtrio.conformance.search import Options
    from orbtrio.conformance.stage import Stage

__all__ = ["UNREACHABLE", "Environment", "NothingHeard", "Reporter", "Runner"]


class Environment(Protocol):
    """Where the target is, and how a stage is set around it.

    Attributes:
        description: The target: its command or address.
        role: What it is tested as.
        scheduled: Whether what is otherwise left to chance, the order of tasks and the pieces that messages
            come in, can be drawn, too.
    """

    description: str
    role: Role
    scheduled: bool

    @property
    def slack(self) -> float:
        """Seconds that are allowed on top of each time that the protocol names."""
        ...

    def stage(self, counters: collections.Counter[str], schedule: int | None = None) -> Stage:
        """A fresh stage; the target is started again if it has ended.

        Args:
            counters: Shared by the stages of a run.
            schedule: Seed of what is left to chance, if `scheduled`.

        Raises:
            TargetGone: it cannot be reached.
        """
        ...

    def close(self) -> None:
        """End the target, if we started it."""
        ...


class Reporter(Protocol):
    """Who is told how it goes."""

    def started(self, case: Case, number: int, total: int) -> None:
        """A case begins."""
        ...

    def finished(self, result: CaseResult) -> None:
        """A case has been judged."""
        ...


class NothingHeard:
    """A reporter that tells nobody."""

    def started(self, case: Case, number: int, total: int) -> None:
        """A case begins."""

    def finished(self, result: CaseResult) -> None:
        """A case has been judged."""


class Runner:
    """Plays cases on the stages of an environment.

    Args:
        environment: Where the target is.
        profile: What is right.
        options: How much is tried.
        reporter: Who is told.
        known: Plans that failed before, by case; they are tried first.
    """

    def __init__(
        self,
        environment: Environment,
        profile: Profile,
        options: Options,
        reporter: Reporter | None = None,
        known: Mapping[str, Sequence[Plan]] | None = None,
    ) -> None:
        self.counters: collections.Counter[str] = collections.Counter()
        self._environment = environment
        self._profile = profile
        self._options = options
        self._reporter = reporter or NothingHeard()
        self._known = known or {}

    def run(self, cases: Iterable[Case]) -> SuiteResult:
        """Judge these cases."""
        selected = list(cases)
        start = time.monotonic()
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        results = []
        trouble = ""
        weight_left = sum(case.seconds for case in selected)
        for number, case in enumerate(selected, 1):
            self._reporter.started(case, number, len(selected))
            time_left = self._options.seconds - (time.monotonic() - start)
            share = max(time_left, 0.0) * case.seconds / weight_left
            weight_left -= case.seconds
            result = self.judge(case, share)
            results.append(result)
            self._reporter.finished(result)
            if result.verdict is Verdict.SKIP and result.reason.startswith(UNREACHABLE):
                trouble = result.reason
                break
        return SuiteResult(
            target=self._environment.description,
            role=self._environment.role,
            profile=self._profile.name,
            seed=self._options.seed,
            started=started,
            seconds=time.monotonic() - start,
            slack=self._environment.slack,
            versions=_versions(),
            results=tuple(results),
            counters=dict(self.counters),
            trouble=trouble,
        )

    def judge(self, case: Case, seconds: float) -> CaseResult:
        """Judge one case within about so many seconds."""
        level = self._profile.level(case)
        if reason := self._profile.skip(case):
            return CaseResult(case=case, level=level, verdict=Verdict.SKIP, reason=reason)
        start = time.monotonic()
        scheduled = self._environment.scheduled
        search = Search(case, self._play, self._options, start + seconds, scheduled=scheduled)
        try:
            search.run([*self._known.get(case.case_id, ()), *case.examples], self._seed(case))
        except TargetGone as gone:
            if search.best is None:
                reason = f"{UNREACHABLE}: {gone}"
                return CaseResult(case=case, level=level, verdict=Verdict.SKIP, reason=reason)
        counterexample = None
        worst = search.worst
        outcome: Outcome | None
        if search.best is not None:
            plan, outcome = search.best
            again = self._repeat(case, plan)
            failures = sum(repeated.verdict is Verdict.FAIL for repeated in again)
            counterexample = Counterexample(
                plan=plan,
                expected=outcome.expected,
                seen=outcome.seen,
                at=outcome.at,
                events=outcome.events,
                failures=failures,
                repetitions=len(again),
            )
            verdict = (
                Verdict.FAIL
                if failures == len(again)
                else Verdict.FLAKY
                if failures
                else Verdict.INCONCLUSIVE
            )
            reason = (
                "" if verdict is Verdict.FAIL else f"failed again in {failures} of {len(again)} repetitions"
            )
        elif worst is None and search.doubtful is None and search.skipped is not None:
            outcome, verdict, reason = search.skipped, Verdict.SKIP, search.skipped.reason
        elif worst is None:
            outcome, verdict = search.doubtful, Verdict.INCONCLUSIVE
            reason = "" if outcome is None else outcome.reason
        else:
            outcome, verdict, reason = worst, worst.verdict, worst.reason
        if level is Level.INFO and verdict not in (Verdict.INCONCLUSIVE, Verdict.SKIP):
            verdict = Verdict.INFO
            if counterexample is not None:
                reason = f"expected: {counterexample.expected}; seen: {counterexample.seen}"
        close, close_reason = search.close
        return CaseResult(
            case=case,
            level=level,
            verdict=verdict,
            reading=None if outcome is None else outcome.reading,
            reason=reason,
            close=close,
            close_reason=close_reason,
            examples=search.played,
            seconds=time.monotonic() - start,
            events=() if outcome is None or counterexample is not None else outcome.events,
            counterexample=counterexample,
        )

    def play(self, case: Case, plan: Plan) -> Outcome:
        """Play one plan; for replays, at whatever target it was found."""
        return self._play(case, fit(plan, scheduled=self._environment.scheduled))

    def _seed(self, case: Case) -> int:
        return self._options.seed ^ zlib.crc32(case.case_id.encode())

    # A target that has gone for good fails as often as it is asked.
    def _repeat(self, case: Case, plan: Plan) -> list[Outcome]:
        again: list[Outcome] = []
        with contextlib.suppress(TargetGone):
            for _ in range(self._options.repetitions):
                again.append(self._play(case, plan))
        return again

    # Raises TargetGone if no stage can be set at all.
    def _play(self, case: Case, plan: Plan) -> Outcome:
        schedule = None
        if self._environment.scheduled:
            plan, schedule = plan["plan"], plan["schedule"]
        stage = self._environment.stage(self.counters, schedule)
        try:
            return self._judged(case, plan, stage)
        finally:
            # The plan has been judged; a target that makes trouble now will make it in the next one, too.
            with contextlib.suppress(Violation, TargetGone, OSError):
                stage.strike()
            stage.world.close()

    def _judged(self, case: Case, plan: Plan, stage: Stage) -> Outcome:
        reading = None
        verdict, expected, seen, reason = Verdict.PASS, "", "", ""
        try:
            reading = case.play(stage, plan)
            verdict = self._profile.judge(case, reading)
            if verdict is Verdict.FAIL:
                expected = self._profile.expected(case)
                seen = case.readings[str(reading)]
            elif reading is not None and verdict is not Verdict.PASS:
                reason = case.readings[reading]
        except Violation as violation:
            verdict, expected, seen = Verdict.FAIL, violation.expected, violation.seen
        except TargetGone as gone:
            verdict, expected, seen = Verdict.FAIL, "the target goes on running and listening", str(gone)
        except _STRANGE as error:
            verdict, expected = Verdict.FAIL, "messages of the shapes that the spec prints"
            seen = f"one that the case can make nothing of, see the log ({type(error).__name__}: {error})"
        except Inconclusive as doubt:
            verdict, reason = Verdict.INCONCLUSIVE, str(doubt)
        except Skipped as skipped:
            verdict, reason = Verdict.SKIP, str(skipped)
        close, close_reason = _judge_closes(stage)
        mask = stage.log.mask
        return Outcome(
            verdict=verdict,
            log=stage.log.mark(),
            at=stage.now(),
            reading=reading,
            expected=mask(expected),
            seen=mask(seen),
            reason=mask(reason),
            close=close,
            close_reason=mask(close_reason),
        )


# What Python raises when a message lacks a field that every sane one has. Cases look where it matters.
_STRANGE: Final = (AttributeError, IndexError, KeyError, TypeError)

# What the reason of a skipped case begins with if the run cannot go on.
UNREACHABLE: Final = "the target cannot be reached"


def _judge_closes(stage: Stage) -> tuple[Verdict | None, str]:
    verdict = None
    for peer in stage.peers:
        closed = peer.closed
        if closed is None or peer.ended_by_us or closed.how == "refused":
            continue
        if closed.how != "close frame":
            return Verdict.NON_STRICT, f"{peer.name} {closed}"
        verdict = Verdict.PASS
    return verdict, ""


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("orbtrio", "hypothesis", "wsproto", "cbor2"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions

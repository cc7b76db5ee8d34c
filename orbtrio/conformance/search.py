"""The plans of one case: which are tried, and which that failed is the smallest.

Hypothesis draws and shrinks; the smallest plan is remembered here, for shrinking may be stopped at any time.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

import attrs
import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis import strategies as st

from orbtrio.conformance.model import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orbtrio.conformance.model import Case, Plan, WireEvent

__all__ = ["Options", "Outcome", "Search", "fit"]

# Worst first: a case is as good as its worst plan.
_SEVERITY: Final = [Verdict.FAIL, Verdict.NON_STRICT, Verdict.INFO, Verdict.PASS]


@attrs.frozen(kw_only=True)
class Options:
    """How much is tried.

    Attributes:
        seed: Of the plans.
        examples: Most plans for a case.
        seconds: For the whole run, about. A case's share may be exceeded by one plan, and by shrinking.
        shrink_seconds: Most that is spent on making one counterexample small.
        repetitions: Of a plan that failed.
    """

    seed: int
    examples: int = 200
    seconds: float = 60.0
    shrink_seconds: float = 15.0
    repetitions: int = 3


@attrs.frozen(kw_only=True)
class Outcome:
    """What one plan came to. Its log is rendered only if somebody reads it: most plans pass."""

    verdict: Verdict
    log: Callable[[], tuple[WireEvent, ...]]
    at: float
    reading: str | None = None
    expected: str = ""
    seen: str = ""
    reason: str = ""
    close: Verdict | None = None
    close_reason: str = ""

    @property
    def events(self) -> tuple[WireEvent, ...]:
        """The wire log, up to where it was judged."""
        return self.log()


class _TimeIsUp(BaseException):
    # Not an Exception, which hypothesis would take for another failure of the case.
    pass


class _Failed(Exception):
    pass


def fit(plan: Plan, *, scheduled: bool) -> Plan:
    """A plan as an environment takes it, with or without a schedule, wherever it was found."""
    has_schedule = isinstance(plan, dict) and plan.keys() == {"plan", "schedule"}
    if has_schedule == scheduled:
        return plan
    return {"plan": plan, "schedule": 0} if scheduled else plan["plan"]


class Search:
    """The search for a plan that fails.

    Args:
        case: Whose plans.
        play: Plays one.
        options: How much is tried.
        deadline: Of `time.monotonic`, for finding one. Making it small has a time of its own.
        scheduled: Draw a schedule with each plan, ``{"plan", "schedule"}``.

    Attributes:
        best: The smallest that failed, and what it came to.
        worst: What the worst of those that did not fail came to.
        doubtful: What one that could not be judged came to.
        skipped: What one that was skipped came to. If the first is, no more are tried.
        close: The worst that was seen of closing connections, and what was.
        played: How many.
    """

    def __init__(
        self,
        case: Case,
        play: Callable[[Case, Plan], Outcome],
        options: Options,
        deadline: float,
        *,
        scheduled: bool,
    ) -> None:
        self.best: tuple[Plan, Outcome] | None = None
        self.worst: Outcome | None = None
        self.doubtful: Outcome | None = None
        self.skipped: Outcome | None = None
        self.close: tuple[Verdict | None, str] = (None, "")
        self.played = 0
        self._case = case
        self._play = play
        self._options = options
        self._deadline = deadline
        self._scheduled = scheduled

    def run(self, fixed: Sequence[Plan], seed: int) -> None:
        """Try the fixed ones, then drawn ones, until one fails or the time is up."""
        try:
            for plan in fixed:
                plan = fit(plan, scheduled=self._scheduled)
                # Not shrunk: it was written by a person, or shrunk before.
                if self._try(plan).verdict is Verdict.FAIL:
                    return
            self._explore(seed)
        except _TimeIsUp:
            pass

    def _explore(self, seed: int) -> None:
        plans = self._case.plans
        if self._scheduled:
            plans = st.fixed_dictionaries({"plan": plans, "schedule": st.integers(0, 65_535)})

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=self._options.examples,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.quiet,
        )
        @hypothesis.given(plan=plans)
        def explore(plan: Plan) -> None:
            if self._try(plan).verdict is Verdict.FAIL:
                raise _Failed

        try:
            explore()
        except _Failed:
            pass
        except hypothesis.errors.Flaky:
            # It failed once and then passed; the repetitions will say how often it does.
            if self.best is None:
                raise

    def _try(self, plan: Plan) -> Outcome:
        # The first plan is always played: a case without any verdict helps nobody.
        if self.played and time.monotonic() > self._deadline:
            raise _TimeIsUp
        outcome = self._play(self._case, plan)
        self.played += 1
        if outcome.verdict is Verdict.SKIP and self.played == 1:
            self.skipped = outcome
            raise _TimeIsUp
        if outcome.close is not None and self.close[0] is not Verdict.NON_STRICT:
            self.close = (outcome.close, outcome.close_reason)
        if outcome.verdict is Verdict.FAIL:
            if self.best is None:
                self._deadline = time.monotonic() + self._options.shrink_seconds
            if self.best is None or _size(plan) <= _size(self.best[0]):
                self.best = (plan, outcome)
        elif outcome.verdict is Verdict.SKIP:
            self.skipped = outcome
        elif outcome.verdict is Verdict.INCONCLUSIVE:
            self.doubtful = outcome
        elif self.worst is None or _SEVERITY.index(outcome.verdict) <= _SEVERITY.index(self.worst.verdict):
            self.worst = outcome
        return outcome


def _size(plan: Plan) -> tuple[int, str]:
    text = json.dumps(plan, sort_keys=True)
    return len(text), text

"""What a case is, and what becomes of it: the vocabulary of the whole suite.

A *case* pins sentences of the spec. It is a function that plays one *plan*, JSON drawn by hypothesis, against
the target, on a *stage*. It ends in one of three ways: it returns a *reading*, which of the behaviours that
it knows the target showed, and the *profile* says which readings are right; it raises `Violation`; or it
raises `Skipped`. A plan that failed is a *counterexample*: it can be played again from a file.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hypothesis.strategies import SearchStrategy

__all__ = [
    "Case",
    "CaseResult",
    "Counterexample",
    "Inconclusive",
    "Level",
    "Plan",
    "Role",
    "Skipped",
    "SuiteResult",
    "TargetGone",
    "Verdict",
    "Violation",
    "WireEvent",
    "case",
    "catalogue",
]

# JSON: maps, lists, texts, integers, floats, booleans, null.
Plan: TypeAlias = Any


class Role(enum.Enum):
    """What is tested. The suite plays the others."""

    ENGINE = "engine"
    WORKER = "worker"
    CLIENT = "client"


class Level(enum.Enum):
    """How much a case weighs. Only a MUST fails a run; INFO is told and never judged."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    MAY = "MAY"
    INFO = "INFO"


class Verdict(enum.Enum):
    """What became of a case.

    FLAKY: it failed, and failed again in one or two of three repetitions. INCONCLUSIVE: in none of them, or
    the machine was too slow to tell.
    """

    PASS = "PASS"
    NON_STRICT = "NON-STRICT"
    FAIL = "FAIL"
    INFO = "INFO"
    SKIP = "SKIP"
    FLAKY = "FLAKY"
    INCONCLUSIVE = "INCONCLUSIVE"


class Violation(Exception):
    """The target did what the case forbids, or not what it demands.

    Args:
        expected: What should have happened, as a person would say it.
        seen: What did.
    """

    def __init__(self, expected: str, seen: str) -> None:
        super().__init__(f"expected: {expected}; seen: {seen}")
        self.expected = expected
        self.seen = seen


class Skipped(Exception):
    """The case cannot be judged here. Its text says why, and what to do about it."""


class Inconclusive(Exception):
    """What was to be measured cannot be told from the machine's own slowness."""


class TargetGone(Exception):
    """The target cannot be reached any more: it exited, or stopped listening."""


@attrs.frozen(kw_only=True)
class Case:
    """One case of the catalogue; made by the decorator `case`.

    Attributes:
        case_id: ``ORB-<AREA>-<nn>``. Never reused.
        role: What it tests.
        title: The behaviour, as a statement.
        level: Its weight, unless a profile says otherwise.
        sentences: Identifiers of the sentences of the spec that it pins (see `spec`), most important first.
        explanation: What is done, what is expected, why it matters to somebody's jobs. Markdown-free text.
        readings: The behaviours that it can tell apart, by name, with a sentence about each. Empty for a case
            that has only one right way.
        plans: Draws what to play.
        play: Plays it.
        examples: Plans that are always tried, before any drawn one.
        seconds: Share of a run's time, compared with the usual 1.
    """

    case_id: str
    role: Role
    title: str
    level: Level
    sentences: tuple[str, ...]
    explanation: str
    readings: Mapping[str, str]
    plans: SearchStrategy[Plan]
    play: Callable[[Any, Plan], str | None]
    examples: tuple[Plan, ...] = ()
    seconds: float = 1.0

    @property
    def area(self) -> str:
        """The middle of the identifier: ``"BAT"``."""
        return self.case_id.split("-")[1]


_catalogue: Final[dict[str, Case]] = {}


def catalogue() -> Mapping[str, Case]:
    """Every case that has been defined, by identifier, in the order of identifiers within an area."""
    return _catalogue


def case(
    case_id: str,
    title: str,
    *,
    sentences: tuple[str, ...] | list[str],
    plans: SearchStrategy[Plan],
    role: Role = Role.ENGINE,
    level: Level = Level.MUST,
    readings: Mapping[str, str] | None = None,
    examples: tuple[Plan, ...] | list[Plan] = (),
    seconds: float = 1.0,
) -> Callable[[Callable[[Any, Plan], str | None]], Callable[[Any, Plan], str | None]]:
    """Define a case; the function's docstring is its explanation. See `Case` for the arguments."""

    def define(play: Callable[[Any, Plan], str | None]) -> Callable[[Any, Plan], str | None]:
        if case_id in _catalogue:
            raise ValueError(f"{case_id} is defined twice")
        explanation = " ".join((play.__doc__ or "").split())
        if not explanation:
            raise ValueError(f"{case_id} has no explanation")
        _catalogue[case_id] = Case(
            case_id=case_id,
            role=role,
            title=title,
            level=level,
            sentences=tuple(sentences),
            explanation=explanation,
            readings=dict(readings or {}),
            plans=plans,
            play=play,
            examples=tuple(examples),
            seconds=seconds,
        )
        return play

    return define


@attrs.frozen(kw_only=True)
class WireEvent:
    """A line of a wire log.

    Attributes:
        at: Seconds since the stage was set.
        peer: Who, of those that the suite plays: ``"worker#3"``. Empty for a remark of the case.
        kind: ``"->"`` the suite sent, ``"<-"`` the target sent, ``"x"`` it ended, ``"--"`` a remark.
        text: The message in CBOR diagnostic notation, secrets masked, long strings cut; or what happened.
    """

    at: float
    peer: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"t={self.at:.3f} {self.peer + ' ' if self.peer else ''}{self.kind} {self.text}"


@attrs.frozen(kw_only=True)
class Counterexample:
    """The smallest plan that failed, and what was seen.

    Attributes:
        plan: To play again.
        expected, seen: Of the `Violation`.
        at: Seconds after the stage was set, when it was noticed.
        events: The wire log up to then.
        failures: How often it failed again, of `repetitions`.
        file: Where it was stored, if it was.
    """

    plan: Plan
    expected: str
    seen: str
    at: float
    events: tuple[WireEvent, ...]
    failures: int = 0
    repetitions: int = 0
    file: str | None = None


@attrs.frozen(kw_only=True)
class CaseResult:
    """What became of one case.

    Attributes:
        case: Which.
        level: Its weight under the run's profile.
        verdict: What became of it.
        reading: Which of the case's readings was seen last, if it has any.
        reason: Why it was skipped, or could not be judged; what it informs about; empty otherwise.
        close: How the target closed connections meanwhile, apart from the verdict: PASS, NON_STRICT (no close
            frame, or another code), or None if it closed none.
        close_reason: What was not strict about that.
        examples: Plans that were played.
        seconds: Time that they took.
        events: Wire log of the last plan that passed; empty if there is a counterexample.
        counterexample: If it failed.
    """

    case: Case
    level: Level
    verdict: Verdict
    reading: str | None = None
    reason: str = ""
    close: Verdict | None = None
    close_reason: str = ""
    examples: int = 0
    seconds: float = 0.0
    events: tuple[WireEvent, ...] = ()
    counterexample: Counterexample | None = None


@attrs.frozen(kw_only=True)
class SuiteResult:
    """A whole run.

    Attributes:
        target: What was tested: its command or address.
        role: As what.
        profile: By which expectations.
        seed: For the same plans once more.
        started: UTC, ISO 8601.
        seconds: How long it took.
        slack: Seconds that were allowed on top of each time that the protocol names; calibrated.
        versions: Of Python, orbtrio, hypothesis, …
        results: One for each case that was selected, in the order of the catalogue.
        counters: How often the run reached the states that matter ("redelivery": 12).
        trouble: Why the run could not be finished; empty if it was.
    """

    target: str
    role: Role
    profile: str
    seed: int
    started: str
    seconds: float
    slack: float
    versions: Mapping[str, str]
    results: tuple[CaseResult, ...]
    counters: Mapping[str, int]
    trouble: str = ""

    @property
    def exit_code(self) -> int:
        """0: every MUST holds. 1: one failed. 2: the target did not start. 3: only doubts."""
        verdicts = {result.verdict for result in self.results if result.level is Level.MUST}
        if Verdict.FAIL in verdicts:
            return 1
        if self.trouble:
            return 2
        return 3 if verdicts & {Verdict.FLAKY, Verdict.INCONCLUSIVE} else 0

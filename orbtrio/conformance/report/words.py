"""The sentences that all reports share, and how text of the target is made fit to be shown.

The block of a failure is the same on a terminal, in JUnit and in a counterexample's page, so that a line that
somebody pastes into a ticket can be found again everywhere.

What is printed is whatever Python calls printable; anything else is written as an escape. That one rule keeps
out terminal controls, characters that XML forbids, lone surrogates and marks that turn the direction of
text round. A list of bad characters would be shorter than the next hostile peer's.
"""

from __future__ import annotations

import collections
import re
import shlex
from typing import TYPE_CHECKING, Final

import attrs

from orbtrio.conformance.model import Level, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from orbtrio.conformance.model import Case, CaseResult, SuiteResult, WireEvent

__all__ = [
    "AREAS",
    "LEVELS",
    "LEVEL_MEANINGS",
    "MEANINGS",
    "VERDICTS",
    "Citation",
    "advice",
    "cite",
    "duration",
    "elide",
    "failure_block",
    "headline",
    "replay",
    "tally",
    "visible",
    "wire_line",
]

# Worst first, as a reader needs them.
VERDICTS: Final = (
    Verdict.FAIL,
    Verdict.FLAKY,
    Verdict.INCONCLUSIVE,
    Verdict.NON_STRICT,
    Verdict.PASS,
    Verdict.INFO,
    Verdict.SKIP,
)
LEVELS: Final = (Level.MUST, Level.SHOULD, Level.MAY, Level.INFO)

MEANINGS: Final[Mapping[Verdict, str]] = {
    Verdict.FAIL: "breaks a sentence of the spec, each time it was tried",
    Verdict.FLAKY: "failed, but not each time it was tried again",
    Verdict.INCONCLUSIVE: "could not be judged",
    Verdict.NON_STRICT: "allowed, but not what the profile asks for",
    Verdict.PASS: "holds",
    Verdict.INFO: "told, never judged",
    Verdict.SKIP: "not tried",
}

LEVEL_MEANINGS: Final[Mapping[Level, str]] = {
    Level.MUST: "fails the run if it does not hold",
    Level.SHOULD: "recommended",
    Level.MAY: "allowed",
    Level.INFO: "told, never judged",
}
AREAS: Final[Mapping[str, str]] = {
    "HSK": "Handshake and transport",
    "REG": "Registration",
    "BAT": "Batches",
    "OUT": "Outputs",
    "RES": "Resources",
    "TMO": "Timeouts",
    "REC": "Lost connections",
    "MUL": "Several workers",
    "SES": "Stateful types",
    "SEC": "Security",
    "CNV": "Whole conversations",
    "WRK": "Worker",
    "CLI": "Client",
    "EXT": "Extensions, for those who ask",
}

_LONGEST_LINE: Final = 2000

# Four words and more, with a capital or a quoted name in front: no line of code, no key of a list.
_IN_WORDS: Final = re.compile(r"[A-Z`](?!.*(//|,$| OR$))(\S+\s+){3,}\S")


def visible(text: str, longest: int | None = None) -> str:
    """The text with everything unprintable written as an escape: ``\\x00``, ``\\n``, ``\\u202e``.

    Args:
        text: From anybody.
        longest: It is cut after so many characters, with a note of its length.
    """
    note = ""
    if longest is not None and len(text) > longest:
        note = f"... ({len(text)} characters)"
        text = text[:longest]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text + note


@attrs.frozen
class Citation:
    """A sentence that a case pins.

    Attributes:
        id: Its identifier.
        section: Where it stands; empty if nobody knows the identifier.
        text: Verbatim.
    """

    id: str
    section: str
    text: str

    def __str__(self) -> str:
        # A ruling is this project's word, not the spec's: no quotation marks.
        if not self.section or self.section.startswith("ruling "):
            return f"{self.section or self.id}: {self.text}"
        return f'"{self.section}": "{self.text}"'


def cite(case: Case, quote: Callable[[str], str], section: Callable[[str], str]) -> tuple[Citation, ...]:
    """The sentences that a case pins, most important first.

    A report of somebody else's case must not fail for a wrong identifier: such a sentence is cited bare.
    """
    citations = []
    for sentence_id in case.sentences:
        try:
            citations.append(Citation(sentence_id, section(sentence_id), quote(sentence_id)))
        except LookupError:
            citations.append(Citation(sentence_id, "", "(unknown sentence)"))
    return tuple(citations)


def elide(events: Sequence[WireEvent], most: int) -> tuple[Sequence[WireEvent], int, Sequence[WireEvent]]:
    """First events, how many are left out after them, last events: at most so many are shown.

    How a conversation begins and how it ends says more than its middle.
    """
    if len(events) <= most:
        return events, 0, ()
    head = most // 2
    return events[:head], len(events) - most, events[len(events) - (most - head) :]


def wire_line(event: WireEvent) -> str:
    """``t=0.000 worker#3 ->  {"type": …}``."""
    peer = f"{visible(event.peer, 80)} " if event.peer else ""
    return f"t={event.at:.3f} {peer}{visible(event.kind, 8):<3} {visible(event.text, _LONGEST_LINE)}"


def replay(file: str | None, seed: int) -> str:
    """The command that plays a counterexample again."""
    if file is None:
        return f"replay: run again with --report DIR, which keeps the plan      seed {seed}"
    return f"replay: python -m orbtrio.conformance replay {shlex.quote(visible(file))}      seed {seed}"


def failure_block(
    result: CaseResult, citations: Sequence[Citation], seed: int, file: str | None, most_events: int = 60
) -> str:
    """What a person needs to see of a failure: the sentence, the conversation, and the command."""
    lines = [headline(result, citations)]
    found = result.counterexample
    if found is None:
        lines.append(f"  {visible(result.reason, _LONGEST_LINE) or 'no conversation was recorded'}")
        return "\n".join(lines)
    head, left_out, tail = elide(found.events, most_events)
    lines += [f"  {wire_line(event)}" for event in head]
    if left_out:
        where = f"; all of them stand in {visible(file)}" if file else ""
        lines.append(f"  ... {left_out} lines left out{where}")
    lines += [f"  {wire_line(event)}" for event in tail]
    expected, seen = visible(found.expected, _LONGEST_LINE), visible(found.seen, _LONGEST_LINE)
    lines.append(f"  t={found.at:.3f} expected: {expected}; seen: {seen}")
    if result.verdict is not Verdict.FAIL:
        lines.append(f"  {visible(result.reason, _LONGEST_LINE)}")
    lines.append(f"  {replay(file, seed)}")
    return "\n".join(lines)


def headline(result: CaseResult, citations: Sequence[Citation]) -> str:
    """``FAIL ORB-REC-01 (MUST) "Connection Lifecycle": "On disconnect: …"``."""
    # A line of a type says little by itself; most cases pin a sentence in words, too.
    spoken = [citation for citation in citations if _IN_WORDS.match(citation.text)]
    lead = next(iter(spoken or citations), None)
    pinned = visible(result.case.title if lead is None else str(lead))
    return f"{result.verdict.value} {visible(result.case.case_id)} ({result.level.value}) {pinned}"


def tally(results: Iterable[CaseResult]) -> dict[Level, collections.Counter[Verdict]]:
    """How often each verdict was given at each level."""
    counts = {level: collections.Counter[Verdict]() for level in LEVELS}
    for result in results:
        counts[result.level][result.verdict] += 1
    return counts


def duration(seconds: float) -> str:
    """``0.4 s``, ``75 s``, ``4 min 10 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def advice(suite: SuiteResult, page: str | None) -> tuple[str, ...]:
    """What to do now, most urgent first; one sentence or two each.

    Args:
        suite: The run.
        page: Where its HTML report is, if it has one.
    """
    counts = tally(suite.results)
    must, verdicts = counts[Level.MUST], sum(counts.values(), collections.Counter[Verdict]())
    lesser = verdicts[Verdict.FAIL] - must[Verdict.FAIL]
    steps = []
    if suite.trouble:
        steps.append(
            f"The run ended early: {visible(suite.trouble, _LONGEST_LINE)}. Look at the target's own log, "
            "start it again, and run the rest."
        )
    if must[Verdict.FAIL]:
        steps.append(
            f"{_number(must[Verdict.FAIL], 'requirement does', 'requirements do')} not hold. With each "
            "stands the shortest conversation that breaks it, and a command that plays it again once you "
            "have changed the target."
        )
    if lesser:
        steps.append(
            f"{_number(lesser, 'recommendation is', 'recommendations are')} not followed (SHOULD or MAY). "
            "This does not fail the run."
        )
    if verdicts[Verdict.FLAKY]:
        steps.append(
            f"{_number(verdicts[Verdict.FLAKY], 'case is', 'cases are')} flaky: look for a race in the "
            "target. Replay the plan several times."
        )
    if verdicts[Verdict.INCONCLUSIVE]:
        steps.append(
            f"{_number(verdicts[Verdict.INCONCLUSIVE], 'case', 'cases')} could not be judged. Run again on "
            "a quieter machine, or with more time (--max-seconds)."
        )
    if verdicts[Verdict.SKIP]:
        steps.append(
            f"{_number(verdicts[Verdict.SKIP], 'case was', 'cases were')} skipped; beside each stands what "
            "it needs."
        )
    if not suite.results:
        steps.append("No case was selected. `python -m orbtrio.conformance list` shows them all.")
    elif suite.exit_code == 0:
        steps.insert(0, f"Every MUST that was judged holds under the profile {visible(suite.profile)}.")
    if page is not None:
        steps.append(f"The whole report: {visible(page)}")
    return tuple(steps)


def _number(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"

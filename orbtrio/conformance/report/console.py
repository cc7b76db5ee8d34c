"""A run on a terminal, or in a build's log: one line per case as it ends, failures in full, then the sums.

Plain text by plain writes: what is printed must look right in a log file as well, so colour and the line that
says what runs now (overwritten by the next) are for terminals only. Nothing ticks: the suite has no threads,
and a case that hangs is one whose line stands still.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orbtrio.conformance.model import Verdict
from orbtrio.conformance.report.words import (
    LEVELS,
    VERDICTS,
    advice,
    cite,
    duration,
    failure_block,
    tally,
    visible,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

    from orbtrio.conformance.model import Case, CaseResult, SuiteResult

__all__ = ["Console"]

_COLOURS: Final = {
    Verdict.FAIL: "1;31",
    Verdict.FLAKY: "1;33",
    Verdict.INCONCLUSIVE: "33",
    Verdict.NON_STRICT: "33",
    Verdict.PASS: "32",
    Verdict.INFO: "36",
    Verdict.SKIP: "2",
}
_WITH_BLOCK: Final = (Verdict.FAIL, Verdict.FLAKY, Verdict.INCONCLUSIVE)
_WIDEST_VERDICT: Final = max(len(verdict.value) for verdict in Verdict)
_CLEAR_LINE: Final = "\r\x1b[K"


class Console:
    """Tells a person how a run goes; the runner's reporter.

    Args:
        seed: Of the run.
        quote, section: The spec's text and title by a sentence's identifier; LookupError if there is none.
        directory: Where the report will be written; None if none will be.
        stream: Where to print; standard output if None.
        colour: Whether to; None asks the stream and the environment (``NO_COLOR``, ``TERM``).
    """

    def __init__(
        self,
        *,
        seed: int,
        quote: Callable[[str], str],
        section: Callable[[str], str],
        directory: str | os.PathLike[str] | None = None,
        stream: TextIO | None = None,
        colour: bool | None = None,
    ) -> None:
        self._seed = seed
        self._quote = quote
        self._section = section
        self._directory = None if directory is None else Path(directory)
        self._stream = sys.stdout if stream is None else stream
        self._terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._colour = self._terminal and not os.environ.get("NO_COLOR") if colour is None else colour

    def started(self, case: Case, number: int, total: int) -> None:
        """A case begins."""
        if not self._terminal:
            return
        line = f"[{number}/{total}] {visible(case.case_id)} {visible(case.title)}"
        # Wrapped, it could not be overwritten.
        columns = _columns(self._stream)
        self._write(_CLEAR_LINE + self._encodable(line)[: columns - 1])

    def finished(self, result: CaseResult) -> None:
        """A case has been judged."""
        if self._terminal:
            self._write(_CLEAR_LINE)
        case = result.case
        verdict = self._painted(f"{result.verdict.value:<{_WIDEST_VERDICT}}", result.verdict)
        self._print(
            f"{visible(case.case_id):<11} ",
            verdict,
            f" {result.level.value:<6} {duration(result.seconds):>9}  {visible(case.title)}",
        )
        if result.verdict in _WITH_BLOCK and (result.counterexample or result.verdict is Verdict.FAIL):
            self._block(result)
        elif result.reason and result.verdict is not Verdict.PASS:
            self._print(f"{'':12}{visible(result.reason, 500)}")
        if result.close is Verdict.NON_STRICT:
            self._print(f"{'':12}close: NON-STRICT, {visible(result.close_reason, 500)}")

    def summary(self, suite: SuiteResult) -> None:
        """The sums of a run that is over, and what to do about them."""
        self._print("")
        self._print(
            f"{len(suite.results)} cases in {duration(suite.seconds)} against {visible(suite.target, 500)} "
            f"(as {suite.role.value}, profile {visible(suite.profile)}, seed {suite.seed})"
        )
        self._print("")
        self._counts(suite)
        self._print("")
        self._print(f"slack     {suite.slack:.3f} s, granted on top of each time that the protocol names")
        closes = [result.close for result in suite.results if result.close is not None]
        if closes:
            loose = closes.count(Verdict.NON_STRICT)
            self._print(
                f"closes    {len(closes) - loose} cases saw proper closes only, {loose} saw one without its "
                "frame or its code"
            )
        if suite.counters:
            reached = ", ".join(f"{visible(name)} {count}" for name, count in suite.counters.items() if count)
            self._print(f"reached   {reached or 'none of the states that matter'}")
            never = ", ".join(visible(name) for name, count in suite.counters.items() if not count)
            if never:
                self._print(f"not once  {never}: the run says nothing about these states; give it more time")
        self._print("")
        page = None if self._directory is None else str(self._directory / "index.html")
        for step in advice(suite, page):
            self._print(f"* {step}")

    def _block(self, result: CaseResult) -> None:
        file = result.counterexample.file if result.counterexample else None
        if file is None and self._directory is not None:
            file = str(self._directory / f"{result.case.case_id}.json")
        citations = cite(result.case, self._quote, self._section)
        first, *rest = failure_block(result, citations, self._seed, file).split("\n")
        word = result.verdict.value
        self._print(self._painted(word, result.verdict), first.removeprefix(word))
        for line in rest:
            self._print(line)

    def _counts(self, suite: SuiteResult) -> None:
        counts = tally(suite.results)
        shown = [verdict for verdict in VERDICTS if any(counts[level][verdict] for level in LEVELS)]
        rows: list[Sequence[str]] = [["", *(verdict.value for verdict in shown)]]
        for level in LEVELS:
            if counts[level]:
                rows.append([level.value, *(str(counts[level][verdict] or "-") for verdict in shown)])
        for number, row in enumerate(rows):
            cells = []
            for verdict, cell in zip(shown, row[1:], strict=True):
                text = f"{cell:>{len(verdict.value)}}"
                cells.append(self._painted(text, verdict) if number == 0 or cell != "-" else text)
            self._print("  ".join([f"{row[0]:<8}", *cells]))

    def _painted(self, text: str, verdict: Verdict) -> str:
        return f"\x1b[{_COLOURS[verdict]}m{text}\x1b[0m" if self._colour else text

    def _print(self, *parts: str) -> None:
        self._write(self._encodable("".join(parts).rstrip()) + "\n")

    # A build's log may be ASCII; a title with a dash must not end the run.
    def _encodable(self, text: str) -> str:
        encoding = self._stream.encoding or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:  # no real terminal, only something that says it is
        return 80

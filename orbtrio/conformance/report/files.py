"""What a run leaves behind: reports for machines, for build servers and for people, and plans to replay.

``report.json`` is an object, versioned like this, times in seconds::

    {"format": "orbtrio.conformance.report", "version": 1,
     "runs": [{                            one for each target
       "target", "role", "profile", "seed", "started", "seconds", "slack", "versions", "trouble", "exit_code",
       "counters": {"redelivery": 12},
       "counts": {"MUST": {"PASS": 70}},   only verdicts that were given
       "results": [{
         "id", "area", "title", "level", "verdict", "explanation", "reason", "examples", "seconds",
         "sentences": [{"id", "section", "text"}],
         "reading", "reading_meaning",     null for a case without readings
         "close", "close_reason",          "PASS", "NON-STRICT", or null if the target closed nothing
         "events": [{"at", "peer", "kind", "text"}],       of the last plan that passed
         "events_left_out": 0,             from the middle: at most 200 are kept here
         "counterexample": null or {"plan", "expected", "seen", "at", "failures", "repetitions", "file"
                                    "events", "events_left_out"}}]}]}

Fields may be added within a version; readers ignore those that they do not know.

``junit.xml`` has a test suite for each target, a test case for each case, a class name for each area. It is
red exactly when the exit code is not 0: a MUST that fails is a failure, one that is in doubt (FLAKY,
INCONCLUSIVE) or a run that broke off is an error. The same below MUST is "skipped", with its reason, as is
SKIP: a recommendation that is not followed must be seen, but must not stop a build.
"""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from orbtrio.conformance.model import Level, Verdict
from orbtrio.conformance.report.counterexamples import (
    CounterexampleError,
    StoredCounterexample,
    load_counterexample,
    store_counterexample,
)
from orbtrio.conformance.report.html import render
from orbtrio.conformance.report.words import (
    LEVELS,
    VERDICTS,
    advice,
    cite,
    duration,
    elide,
    failure_block,
    headline,
    tally,
    visible,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from orbtrio.conformance.model import CaseResult, Counterexample, SuiteResult, WireEvent

__all__ = [
    "CounterexampleError",
    "StoredCounterexample",
    "load_counterexample",
    "store_counterexample",
    "write_report",
]

_REPORT: Final = "orbtrio.conformance.report"
_VERSION: Final = 1
_MOST_EVENTS: Final = 200
_MOST_IN_SUMMARY: Final = 20
_DOUBTS: Final = (Verdict.FLAKY, Verdict.INCONCLUSIVE)


def write_report(
    directory: str | os.PathLike[str],
    results: SuiteResult | Sequence[SuiteResult],
    *,
    quote: Callable[[str], str],
    section: Callable[[str], str],
) -> Path:
    """Write every file of a report; counterexamples that are in no file yet get one.

    Args:
        directory: Where; made if there is none. Files of an earlier report are overwritten.
        results: One run, or several to be compared.
        quote, section: The spec's text and title by a sentence's identifier; LookupError if there is none.

    Returns:
        The page to open.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    given = [results] if not isinstance(results, (list, tuple)) else results
    runs = [_with_files(folder, run, number) for number, run in enumerate(given)]
    page = folder / "index.html"
    _write(page, render(runs, quote=quote, section=section))
    report = {
        "format": _REPORT,
        "version": _VERSION,
        "runs": [_run(run, quote, section) for run in runs],
    }
    _write(folder / "report.json", json.dumps(report, indent=1, allow_nan=False))
    _write(folder / "junit.xml", _junit(runs, quote, section))
    _write(folder / "summary.md", _summary(runs, quote, section))
    return page


def _with_files(folder: Path, run: SuiteResult, number: int) -> SuiteResult:
    results = []
    for result in run.results:
        found = result.counterexample
        if found is not None and found.file is None:
            # The same case may have failed at another target.
            name = result.case.case_id + (f".{number + 1}" if number else "")
            file = store_counterexample(folder, result, run, name=name)
            result = attrs.evolve(result, counterexample=attrs.evolve(found, file=str(file)))
        results.append(result)
    return attrs.evolve(run, results=tuple(results))


def _write(file: Path, text: str) -> None:
    file.write_text(text + "\n", "utf-8", newline="\n")


def _run(run: SuiteResult, quote: Callable[[str], str], section: Callable[[str], str]) -> dict[str, Any]:
    return {
        "target": run.target,
        "role": run.role.value,
        "profile": run.profile,
        "seed": run.seed,
        "started": run.started,
        "seconds": round(run.seconds, 3),
        "slack": run.slack,
        "versions": dict(run.versions),
        "trouble": run.trouble,
        "exit_code": run.exit_code,
        "counters": dict(run.counters),
        "counts": {
            level.value: {verdict.value: count for verdict, count in counts.items()}
            for level, counts in tally(run.results).items()
            if counts
        },
        "results": [_result(result, quote, section) for result in run.results],
    }


def _result(result: CaseResult, quote: Callable[[str], str], section: Callable[[str], str]) -> dict[str, Any]:
    case = result.case
    return {
        "id": case.case_id,
        "area": case.area,
        "title": case.title,
        "level": result.level.value,
        "verdict": result.verdict.value,
        "explanation": case.explanation,
        "sentences": [attrs.asdict(citation) for citation in cite(case, quote, section)],
        "reading": result.reading,
        "reading_meaning": None if result.reading is None else case.readings.get(result.reading),
        "reason": result.reason,
        "close": None if result.close is None else result.close.value,
        "close_reason": result.close_reason,
        "examples": result.examples,
        "seconds": round(result.seconds, 3),
        **_events(result.events),
        "counterexample": None if result.counterexample is None else _counterexample(result.counterexample),
    }


def _counterexample(found: Counterexample) -> dict[str, Any]:
    return {
        "plan": _strict(found.plan),
        "expected": found.expected,
        "seen": found.seen,
        "at": found.at,
        "failures": found.failures,
        "repetitions": found.repetitions,
        "file": found.file,
        **_events(found.events),
    }


def _events(events: Sequence[WireEvent]) -> dict[str, Any]:
    head, left_out, tail = elide(events, _MOST_EVENTS)
    return {"events": [attrs.asdict(event) for event in (*head, *tail)], "events_left_out": left_out}


# Python's JSON has NaN and infinities, and plans may: readers in other languages must not trip over them.
def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    return value


def _junit(runs: Sequence[SuiteResult], quote: Callable[[str], str], section: Callable[[str], str]) -> str:
    root = ElementTree.Element("testsuites", name="orbtrio.conformance")
    for run in runs:
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=visible(f"{run.role.value} {run.target} ({run.profile})", 300),
            timestamp=visible(run.started),
            time=f"{run.seconds:.3f}",
        )
        for result in run.results:
            entry = ElementTree.SubElement(
                suite,
                "testcase",
                classname=visible(f"conformance.{run.role.value}.{result.case.area}"),
                name=visible(f"{result.case.case_id} {result.case.title}"),
                time=f"{result.seconds:.3f}",
            )
            _junit_verdict(entry, result, run, quote, section)
        if run.trouble:
            entry = ElementTree.SubElement(
                suite, "testcase", classname=f"conformance.{run.role.value}", name="the run was finished"
            )
            ElementTree.SubElement(entry, "error", message=visible(run.trouble, 500))
        suite.set("tests", str(len(suite)))
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(attribute, str(len(suite.findall(f"testcase/{tag}"))))
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode", xml_declaration=True)


def _junit_verdict(
    entry: ElementTree.Element,
    result: CaseResult,
    run: SuiteResult,
    quote: Callable[[str], str],
    section: Callable[[str], str],
) -> None:
    bad = result.verdict is Verdict.FAIL or result.verdict in _DOUBTS
    found = result.counterexample
    if bad:
        red = "failure" if result.verdict is Verdict.FAIL else "error"
        what = f"expected: {found.expected}; seen: {found.seen}" if found else result.reason
        problem = ElementTree.SubElement(
            entry,
            red if result.level is Level.MUST else "skipped",
            message=visible(f"{result.verdict.value} ({result.level.value}) {what}", 500),
        )
        citations = cite(result.case, quote, section)
        problem.text = failure_block(result, citations, run.seed, found.file if found else None, _MOST_EVENTS)
    elif result.verdict is Verdict.SKIP:
        ElementTree.SubElement(entry, "skipped", message=visible(result.reason, 500))
    elif result.verdict is not Verdict.PASS:
        ElementTree.SubElement(entry, "system-out").text = visible(
            f"{result.verdict.value}: {result.reason}", 500
        )


def _summary(runs: Sequence[SuiteResult], quote: Callable[[str], str], section: Callable[[str], str]) -> str:
    lines = []
    for run in runs:
        words = {0: "conforms", 1: "does not conform", 2: "could not be tested", 3: "is in doubt"}
        lines += [
            f"### {_code(run.target, 200)} {words[run.exit_code]}",
            "",
            f"As {run.role.value}, profile {_code(run.profile, 80)}, seed {run.seed}, "
            f"{len(run.results)} cases in {duration(run.seconds)}.",
            "",
        ]
        counts = tally(run.results)
        shown = [verdict for verdict in VERDICTS if any(counts[level][verdict] for level in LEVELS)]
        if shown:
            lines.append("| | " + " | ".join(verdict.value for verdict in shown) + " |")
            lines.append("|---|" + "---:|" * len(shown))
            for level in LEVELS:
                if counts[level]:
                    cells = (str(counts[level][verdict] or "") for verdict in shown)
                    lines.append(f"| {level.value} | " + " | ".join(cells) + " |")
            lines.append("")
        order = (Verdict.FAIL, *_DOUBTS)
        worst = [result for result in run.results if result.verdict in order]
        worst.sort(key=lambda result: (LEVELS.index(result.level), order.index(result.verdict)))
        for result in worst[:_MOST_IN_SUMMARY]:
            found = result.counterexample
            lines.append(f"- **{result.verdict.value}** {_cited(result, quote, section)}")
            if found:
                lines.append(f"  - expected: {_code(found.expected, 300)}")
                lines.append(f"  - seen: {_code(found.seen, 300)}")
            elif result.reason:
                lines.append(f"  - {_code(result.reason, 300)}")
        if len(worst) > _MOST_IN_SUMMARY:
            lines.append(f"- and {len(worst) - _MOST_IN_SUMMARY} more")
        lines += ["", *(_plain(step) for step in advice(run, None)), ""]
    return "\n".join(lines).rstrip()


def _cited(result: CaseResult, quote: Callable[[str], str], section: Callable[[str], str]) -> str:
    line = headline(result, cite(result.case, quote, section)).removeprefix(f"{result.verdict.value} ")
    return _code(line, 400)


# Within backticks Markdown takes nothing for markup, a mention or a link; within n + 1 not even n backticks.
def _code(text: str, longest: int) -> str:
    text = visible(text, longest) or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def _plain(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>@#|])", r"\\\1", text)

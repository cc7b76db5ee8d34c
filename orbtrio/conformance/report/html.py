"""The report as one page: no request leaves it, and it reads on a phone as on a desk.

A table with one body per case and one column per target: the first row is the matrix, the second opens to
all there is to know. Two rows instead of a list of links, because on a phone nobody finds the way back.
Without JavaScript everything is there; with it, the table can be filtered.

What the target sent is hostile. Every text goes through `_text`, which leaves no markup and nothing
unprintable, and should that ever fail the page's own policy runs no script but ours and loads nothing.
Figures are bounded too: `_MOST_EVENTS` lines of a log, cut at `_LONGEST_LINE`. Styles and script are files
beside this one; edit ``page.js`` together with the ``data-`` attributes and identifiers below.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
from html import escape
from typing import TYPE_CHECKING, Final

from orbtrio.conformance.model import Level, Verdict
from orbtrio.conformance.report.words import (
    AREAS,
    LEVEL_MEANINGS,
    LEVELS,
    MEANINGS,
    VERDICTS,
    advice,
    cite,
    duration,
    elide,
    replay,
    tally,
    visible,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orbtrio.conformance.model import CaseResult, Counterexample, SuiteResult, WireEvent

__all__ = ["render"]

_MOST_EVENTS: Final = 200
# Of a conversation in which nothing went wrong fewer lines are of interest.
_MOST_EVENTS_PASSED: Final = 60
_LONGEST_LINE: Final = 1000
_LONGEST_PLAN: Final = 20_000

# A mark beside each word: colour is never the only difference.
_MARKS: Final = {
    Verdict.FAIL: "✗",
    Verdict.FLAKY: "~",
    Verdict.INCONCLUSIVE: "?",
    Verdict.NON_STRICT: "≈",
    Verdict.PASS: "✓",
    Verdict.INFO: "i",
    Verdict.SKIP: "⊘",
}
_DIRECTIONS: Final = {"->": ("out", "→", "target"), "<-": ("in", "←", "target"), "x": ("end", "✕", "ended")}


def render(
    results: Sequence[SuiteResult], *, quote: Callable[[str], str], section: Callable[[str], str]
) -> str:
    """The page, for one target or several side by side.

    Args:
        results: A run for each target.
        quote, section: The spec's text and title by a sentence's identifier; LookupError if there is none.
    """
    style, script = _file("page.css"), _file("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    letters = [_letter(number) for number in range(len(results))] if len(results) > 1 else [""]
    title = _text(results[0].target, 200) if len(results) == 1 else f"{len(results)} targets compared"
    cards = "\n".join(_card(run, letter) for run, letter in zip(results, letters, strict=False))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Conformance: {title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<header>
<p class="kicker">ORB Worker Protocol, conformance report</p>
<h1>{title}</h1>
</header>
<main>
<div class="cards">
{cards}
</div>
{_legend()}
{_filter(results)}
{_matrix(results, letters, quote, section)}
</main>
<footer><p>Written by orbtrio.conformance. Nothing on this page was loaded from elsewhere.</p></footer>
<script>{script}</script>
</body>
</html>"""


def _file(name: str) -> str:
    return (importlib.resources.files("orbtrio.conformance.report") / name).read_text("utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(text: str, longest: int = 2000) -> str:
    return escape(visible(text, longest))


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else str(number + 1)


def _mark(verdict: Verdict) -> str:
    return f'<span class="mark" aria-hidden="true">{_MARKS[verdict]}</span>'


def _word(verdict: Verdict) -> str:
    return f'<span class="word {verdict.name}">{_mark(verdict)} {verdict.value}</span>'


def _term(name: str, value: str) -> str:
    return f"<div><dt>{name}</dt><dd>{value}</dd></div>"


def _card(run: SuiteResult, letter: str) -> str:
    counts = {verdict: sum(r.verdict is verdict for r in run.results) for verdict in VERDICTS}
    counts = {verdict: count for verdict, count in counts.items() if count}
    facts = [
        _term("Profile", _text(run.profile)),
        _term("Tested as", run.role.value),
        _term("Started", f'<time datetime="{_text(run.started)}">{_text(_day(run.started))}</time>'),
        _term("Took", duration(run.seconds)),
        _term("Seed", str(run.seed)),
        _term("Slack", f"{run.slack:.3f} s"),
        _term("Versions", ", ".join(f"{_text(n)} {_text(v)}" for n, v in run.versions.items()) or "unknown"),
    ]
    states = "".join(
        f'<li class="{"reached" if count else "never"}">{_text(name)} <b>{count or "not once"}</b></li>'
        for name, count in run.counters.items()
    )
    counters = f'<h3>States that the run reached</h3><ul class="counters">{states}</ul>' if states else ""
    steps = "".join(f"<li>{escape(step)}</li>" for step in advice(run, None))
    heading = (
        f'<span class="letter">{letter}</span> <code>{_text(run.target, 300)}</code>' if letter else "Result"
    )
    more = f"""<dl class="facts">{"".join(facts)}</dl>
{counters}
<h3>What to do</h3><ul class="steps">{steps}</ul>"""
    if letter:
        # Side by side, what is common to most runs must not push the comparison off the screen.
        more = f"<details><summary>About this run</summary>{more}</details>"
    return f"""<section class="card">
<h2>{heading}</h2>
<p class="outcome exit{run.exit_code}">{_outcome(run)}</p>
{_bar(counts)}
<ul class="counts">{"".join(f"<li>{_word(v)} <b>{count}</b></li>" for v, count in counts.items())}</ul>
{more}
</section>"""


def _day(started: str) -> str:
    return started.replace("T", " ").removesuffix("+00:00") + (" UTC" if started.endswith("+00:00") else "")


def _outcome(run: SuiteResult) -> str:
    must = tally(run.results)[Level.MUST]
    judged = sum(must.values()) - must[Verdict.SKIP]
    match run.exit_code:
        case 0:
            return f"{_mark(Verdict.PASS)} Conforms: {judged} of {judged} judged MUST cases hold"
        case 1:
            fail = "fails" if must[Verdict.FAIL] == 1 else "fail"
            return (
                f"{_mark(Verdict.FAIL)} Does not conform: {must[Verdict.FAIL]} of {judged} MUST cases {fail}"
            )
        case 2:
            return f"{_mark(Verdict.INCONCLUSIVE)} The run broke off after {len(run.results)} cases"
        case _:
            doubts = must[Verdict.FLAKY] + must[Verdict.INCONCLUSIVE]
            return f"{_mark(Verdict.INCONCLUSIVE)} In doubt: {doubts} of {judged} MUST cases are not settled"


def _bar(counts: dict[Verdict, int]) -> str:
    if not counts:
        return ""
    parts, x = [], 0
    for verdict, count in counts.items():
        parts.append(f'<rect class="{verdict.name}" x="{x}" width="{count}" height="1"/>')
        x += count
    label = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items())
    return (
        f'<svg class="bar" viewBox="0 0 {x} 1" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _legend() -> str:
    verdicts = "".join(_term(_word(verdict), MEANINGS[verdict]) for verdict in VERDICTS)
    levels = "".join(_term(level.value, meaning) for level, meaning in LEVEL_MEANINGS.items())
    return f"""<details class="legend"><summary>What the words mean</summary>
<dl>{verdicts}{levels}
{_term("close", "how the target ended connections meanwhile; judged apart from the case")}
{_term("slack", "time granted on top of each time that the protocol names; measured before the run")}
</dl></details>"""


def _filter(results: Sequence[SuiteResult]) -> str:
    given = {result.verdict for run in results for result in run.results}
    levels = {result.level for run in results for result in run.results}

    def box(kind: str, value: str, label: str) -> str:
        tick = f'<input type="checkbox" name="{kind}" value="{value}" checked>'
        return f"<label>{tick} <span>{label}</span></label>"

    verdicts = "".join(box("verdict", v.value, _word(v)) for v in VERDICTS if v in given)
    weights = "".join(box("level", v.value, v.value) for v in LEVELS if v in levels)
    return f"""<form id="filter" hidden>
<label class="search"><span>Search</span>
<input type="search" name="text" placeholder="case, sentence, message" autocomplete="off"></label>
<fieldset><legend>Verdict</legend>{verdicts}</fieldset>
<fieldset><legend>Level</legend>{weights}</fieldset>
<p class="buttons"><button type="button" id="problems">Only problems</button>
<button type="reset">Show all</button> <output id="shown" aria-live="polite"></output></p>
</form>"""


def _matrix(
    results: Sequence[SuiteResult],
    letters: Sequence[str],
    quote: Callable[[str], str],
    section: Callable[[str], str],
) -> str:
    # By case: its result in each run, None where the run did not select it.
    rows: dict[str, list[CaseResult | None]] = {}
    for number, run in enumerate(results):
        for result in run.results:
            rows.setdefault(result.case.case_id, [None] * len(results))[number] = result
    areas: dict[str, list[str]] = {}
    for case_id, row in rows.items():
        areas.setdefault(next(result for result in row if result).case.area, []).append(case_id)
    span = len(results) + 1
    bodies = []
    for area, case_ids in areas.items():
        name = AREAS.get(area, "")
        bodies.append(
            f'<tbody class="area"><tr><th colspan="{span}" scope="rowgroup">{_text(area)} '
            f"<span>{name}</span></th></tr></tbody>"
        )
        bodies += [_case(rows[case_id], results, letters, quote, section) for case_id in case_ids]
    heads = "".join(
        f'<th scope="col"><span class="letter">{letter}</span>'
        f'<span class="target">{_text(run.target, 60)}</span></th>'
        if letter
        else '<th scope="col">Verdict</th>'
        for run, letter in zip(results, letters, strict=False)
    )
    css = "matrix" + (" several" if len(results) > 1 else "") + (" wide" if len(results) > 3 else "")
    return f"""<h2 id="cases">Cases</h2>
<div class="scroll"><table class="{css}">
<thead><tr><th scope="col" class="first">Case</th>{heads}</tr></thead>
{"".join(bodies)}
</table></div>"""


def _case(
    row: Sequence[CaseResult | None],
    runs: Sequence[SuiteResult],
    letters: Sequence[str],
    quote: Callable[[str], str],
    section: Callable[[str], str],
) -> str:
    given = [result for result in row if result]
    case = given[0].case
    case_id = _text(case.case_id)
    levels = list(dict.fromkeys(result.level.value for result in given))
    verdicts = " ".join(dict.fromkeys(result.verdict.value for result in given))
    quotes = "".join(
        f"<blockquote><p>{_text(citation.text)}</p><footer>{_text(citation.section or 'no section')}"
        f" <span>{_text(citation.id)}</span></footer></blockquote>"
        for citation in cite(case, quote, section)
    )
    panels = "".join(
        _panel(result, run, letter) for result, run, letter in zip(row, runs, letters, strict=False) if result
    )
    return f"""<tbody class="case" id="{case_id}" data-verdicts="{verdicts}" data-levels="{" ".join(levels)}">
<tr><th scope="row"><a href="#{case_id}">{case_id}</a> <span class="level">{" / ".join(levels)}</span></th>\
{"".join(_cell(result) for result in row)}</tr>
<tr class="more"><td colspan="{len(row) + 1}"><details><summary>{_text(case.title)}{_brief(row)}</summary>
<div class="inside">{quotes}<p class="explanation">{_text(case.explanation)}</p>{panels}</div>
</details></td></tr></tbody>
"""


def _cell(result: CaseResult | None) -> str:
    if result is None:
        return '<td class="verdict"><span class="none">not run</span></td>'
    close = ""
    if result.close is not None:
        word = f"close {_MARKS[result.close]} {result.close.value}"
        close = f'<span class="close {result.close.name}">{word}</span>'
    return f'<td class="verdict">{_word(result.verdict)}{close}</td>'


# What makes one look into a case, without opening it; side by side there is no room for it.
def _brief(row: Sequence[CaseResult | None]) -> str:
    if len(row) > 1 or row[0] is None or row[0].verdict is Verdict.PASS:
        return ""
    found = row[0].counterexample
    brief = f"expected: {found.expected}; seen: {found.seen}" if found else row[0].reason
    return f'<span class="brief">{_text(brief, 160)}</span>' if brief else ""


def _panel(result: CaseResult, run: SuiteResult, letter: str) -> str:
    found = result.counterexample
    terms = [_term("Verdict", f"{_word(result.verdict)} {MEANINGS[result.verdict]}")]
    if result.reading is not None:
        meaning = result.case.readings.get(result.reading, "not described")
        terms.append(_term("Reading", f"<b>{_text(result.reading)}</b>: {_text(meaning)}"))
    if result.reason:
        terms.append(_term("Reason", _text(result.reason)))
    if result.close is not None:
        terms.append(_term("Close", f"{_word(result.close)} {_text(result.close_reason)}"))
    plans = f"{result.examples} {'plan' if result.examples == 1 else 'plans'} in {duration(result.seconds)}"
    terms.append(_term("Played", plans))
    if found and found.repetitions:
        terms.append(
            _term("Repeated", f"failed again in {found.failures} of {found.repetitions} repetitions")
        )
    heading = (
        f'<h3><span class="letter">{letter}</span> <code>{_text(run.target, 300)}</code></h3>'
        if letter
        else ""
    )
    body = _failure(result, found, run) if found else _wire(result.case.case_id, result.events, None)
    return f'<section class="panel">{heading}<dl class="terms">{"".join(terms)}</dl>{body}</section>'


def _failure(result: CaseResult, found: Counterexample, run: SuiteResult) -> str:
    plan = json.dumps(found.plan, indent=2, ensure_ascii=False)
    # Line by line, for its line ends are the only control characters that are ours.
    shown = "\n".join(_text(line, _LONGEST_LINE) for line in plan[:_LONGEST_PLAN].split("\n"))
    if len(plan) > _LONGEST_PLAN:
        shown += f"\n... ({len(plan)} characters)"
    name = _text(result.case.case_id)
    command, _, seed = replay(found.file, run.seed).removeprefix("replay: ").rpartition("      ")
    return f"""<dl class="against">
<div class="expected"><dt>Expected</dt><dd>{_text(found.expected)}</dd></div>
<div class="seen"><dt>Seen</dt><dd>{_text(found.seen)}</dd></div></dl>
{_wire(result.case.case_id, found.events, found)}
<h4>Play it again <span>{escape(seed)}</span></h4>
<pre class="box command">{escape(command)}</pre>
<details class="plan"><summary>Plan</summary>\
<pre class="box" tabindex="0" role="region" aria-label="Plan of {name}">{shown}</pre></details>"""


def _wire(case_id: str, events: Sequence[WireEvent], found: Counterexample | None) -> str:
    if not events:
        return ""
    head, left_out, tail = elide(events, _MOST_EVENTS if found else _MOST_EVENTS_PASSED)
    rows = [_event(event) for event in head]
    if left_out:
        where = f": all of them stand in {_text(found.file)}" if found and found.file else ""
        rows.append(f'<tr class="note"><td></td><td></td><td>{left_out} lines left out{where}</td></tr>')
    rows += [_event(event) for event in tail]
    if found:
        rows.append(f'<tr class="noticed"><td>{found.at:.3f}</td><td></td><td>here it failed</td></tr>')
    peers = list(dict.fromkeys(_text(event.peer, 80) for event in events if event.peer))
    played = f"The suite plays {', '.join(peers[:8])}{' …' if len(peers) > 8 else ''}. " if peers else ""
    whose = "of the smallest plan that failed" if found else "of the last plan"
    return f"""<h4>Wire log <span>{whose}</span></h4>
<p class="hint">{played}→ suite to target, ← target to suite, ✕ connection ended; seconds since the start.</p>
<div class="box" tabindex="0" role="region" aria-label="Wire log of {_text(case_id)}"><table class="wire">
<thead><tr><th scope="col">t</th><th scope="col">Who</th><th scope="col">Message</th></tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>"""


def _event(event: WireEvent) -> str:
    css, arrow, word = _DIRECTIONS.get(event.kind, ("note", "", ""))
    # The word goes where there is no room for it; the arrow stays.
    who = f"{_text(event.peer, 80)} {arrow}" + (f"<span> {word}</span>" if word else "")
    message = _text(event.text, _LONGEST_LINE)
    return f'<tr class="{css}"><td>{event.at:.3f}</td><td>{who}</td><td>{message}</td></tr>\n'

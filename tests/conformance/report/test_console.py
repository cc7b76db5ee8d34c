from __future__ import annotations

import io
import os
import pty
import re
from typing import Any

import pytest

from orbtrio.conformance.model import Level, Verdict
from orbtrio.conformance.report.console import Console
from tests.conformance.report.fakes import (
    generate_suite,
    make_case,
    make_failure,
    make_result,
    make_suite,
    quote,
    section,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def make_console(stream: io.TextIOBase | None = None, **options: Any) -> tuple[Console, Any]:
    chosen: Any = stream or io.StringIO()
    return Console(seed=20261121, quote=quote, section=section, stream=chosen, **options), chosen


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_a_case_is_one_line() -> None:
    console, stream = make_console()
    console.started(make_case(), 1, 96)
    console.finished(make_result())
    assert stream.getvalue() == (
        "ORB-REC-01  PASS         MUST       1.2 s  "
        "Jobs of a lost worker move to another worker of the same type\n"
    )


def test_a_failure_shows_its_conversation_and_where_its_plan_is_kept() -> None:
    console, stream = make_console(directory="out")
    console.finished(make_result(Verdict.FAIL))
    lines = stream.getvalue().splitlines()
    assert lines[1].startswith('FAIL ORB-REC-01 (MUST) "Connection Lifecycle": "On disconnect')
    assert lines[-2] == "  t=1.500 expected: j6 in a batch to worker#5; seen: nothing"
    assert lines[-1] == (
        "  replay: python -m orbtrio.conformance replay out/ORB-REC-01.json      seed 20261121"
    )


def test_a_counterexample_that_is_stored_already_is_named() -> None:
    console, stream = make_console(directory="out")
    console.finished(make_result(Verdict.FLAKY, counterexample=make_failure(file="known/7.json", failures=1)))
    assert "replay known/7.json" in stream.getvalue()
    assert "failed again in 1 of 3 repetitions" in make_text(Verdict.FLAKY)


def make_text(verdict: Verdict, **changes: Any) -> str:
    console, stream = make_console()
    console.finished(make_result(verdict, **changes))
    return str(stream.getvalue())


def test_without_a_report_the_plan_is_not_kept_and_one_is_told_so() -> None:
    assert "replay: run again with --report DIR" in make_text(Verdict.FAIL)


def test_what_was_not_judged_says_why_below_its_line() -> None:
    assert make_text(Verdict.SKIP).splitlines()[1].strip().startswith("needs the directory of resource files")
    assert make_text(Verdict.INCONCLUSIVE).splitlines()[1].strip().startswith("the machine answered canaries")
    assert "no conversation was recorded" in make_text(Verdict.FAIL, counterexample=None)


def test_a_loose_close_is_told_apart_from_the_verdict() -> None:
    text = make_text(Verdict.PASS, close=Verdict.NON_STRICT, close_reason="worker#3 ended by RST")
    assert text.splitlines()[1] == "            close: NON-STRICT, worker#3 ended by RST"


def test_a_terminal_shows_what_runs_and_its_line_is_overwritten() -> None:
    console, stream = make_console(Terminal(), colour=False)
    console.started(
        make_case(title="A title that is so long that a line of eighty columns does not take it"), 7, 96
    )
    running = stream.getvalue()
    assert running.startswith("\r\x1b[K[7/96] ORB-REC-01 A title")
    assert len(running.removeprefix("\r\x1b[K")) == 79
    console.finished(make_result())
    assert stream.getvalue().removeprefix(running).startswith("\r\x1b[KORB-REC-01  PASS")


def test_the_width_of_a_real_terminal_is_asked_for() -> None:
    main, end = pty.openpty()
    with open(end, "w", encoding="utf-8") as stream, open(main, "rb", buffering=0) as shown:
        console, _ = make_console(stream)
        console.started(make_case(), 1, 2)
        assert shown.read(100).startswith(b"\r\x1b[K[1/2] ORB-REC-01")


@pytest.mark.parametrize(
    ("stream", "variables", "coloured"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colour_is_for_terminals_whose_owners_want_it(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, variables: dict[str, str], coloured: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    console, _ = make_console(stream)
    console.finished(make_result(Verdict.FAIL))
    assert ("\x1b[1;31mFAIL" in stream.getvalue()) is coloured


def test_colour_can_be_demanded() -> None:
    console, stream = make_console(colour=True)
    console.finished(make_result())
    assert "\x1b[32mPASS        \x1b[0m" in stream.getvalue()


def test_a_hostile_peer_does_not_reach_the_terminal() -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\r\u202e\ud800" + "x" * 100_000
    text = make_text(
        Verdict.FAIL, counterexample=make_failure(seen=hostile, expected=hostile), close_reason=hostile
    )
    assert all(line.isprintable() for line in text.splitlines())
    assert len(text) < 10_000


def test_a_stream_that_knows_only_ascii_gets_escapes() -> None:
    raw = io.BytesIO()
    console, stream = make_console(io.TextIOWrapper(raw, "ascii"))
    console.finished(make_result(case=make_case(title="naïve ✓")))
    stream.flush()
    assert raw.getvalue().endswith(b"na\\xefve \\u2713\n")


def test_standard_output_is_where_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    Console(seed=1, quote=quote, section=section).finished(make_result())
    assert capsys.readouterr().out.startswith("ORB-REC-01")


def test_the_summary_counts_by_verdict_and_level() -> None:
    console, stream = make_console(directory="out")
    should = make_case("ORB-BAT-01", level=Level.SHOULD)
    results = [
        make_result(),
        make_result(),
        make_result(Verdict.FAIL),
        make_result(Verdict.NON_STRICT, should),
    ]
    console.summary(make_suite(results))
    assert stream.getvalue().splitlines() == [
        "",
        "4 cases in 83 s against node engine.js --port 5000 (as engine, profile spec, seed 20261121)",
        "",
        "          FAIL  NON-STRICT  PASS",
        "MUST         1           -     2",
        "SHOULD       -           1     -",
        "",
        "slack     0.150 s, granted on top of each time that the protocol names",
        "closes    3 cases saw proper closes only, 1 saw one without its frame or its code",
        "reached   redelivery 12, late answer 3, partial batch by timer 141",
        "not once  full queue: the run says nothing about these states; give it more time",
        "",
        "* 1 requirement does not hold. With each stands the shortest conversation that breaks it, and a "
        "command that plays it again once you have changed the target.",
        f"* The whole report: {os.path.join('out', 'index.html')}",
    ]


def test_a_summary_says_nothing_of_what_did_not_occur() -> None:
    console, stream = make_console()
    console.summary(make_suite([make_result(Verdict.SKIP)], counters={}))
    assert not re.search("closes|reached|not once|The whole report", stream.getvalue())
    console.summary(make_suite([make_result()], counters={"redelivery": 0}))
    assert "reached   none of the states that matter\nnot once  redelivery:" in stream.getvalue()
    console.summary(make_suite([make_result()], counters={"redelivery": 1}))
    assert stream.getvalue().count("not once") == 1


def test_a_whole_run_prints_every_case() -> None:
    console, stream = make_console()
    suite = generate_suite(3)
    for number, result in enumerate(suite.results, 1):
        console.started(result.case, number, len(suite.results))
        console.finished(result)
    lines = stream.getvalue().splitlines()
    assert [line[:10] for line in lines if line.startswith("ORB-")] == [
        result.case.case_id for result in suite.results
    ]

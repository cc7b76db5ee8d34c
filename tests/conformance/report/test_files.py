from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from orbtrio.conformance.model import Level, Verdict, WireEvent
from orbtrio.conformance.report.counterexamples import load_counterexample
from orbtrio.conformance.report.files import write_report
from tests.conformance.report.fakes import (
    EVENTS,
    PLAN,
    generate_suite,
    make_case,
    make_failure,
    make_result,
    make_suite,
    quote,
    section,
)

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.model import CaseResult, SuiteResult

HOSTILE = "<script>alert(1)</script></details>]]>&\x00\x1b[2J\u202e\ud800\ufffe\n| `` @everyone"
SHOULD = make_case("ORB-BAT-01", level=Level.SHOULD)


def write(folder: Path, *suites: SuiteResult) -> Path:
    return write_report(folder, suites, quote=quote, section=section)


def read_junit(folder: Path, *results: CaseResult, **changes: Any) -> ElementTree.Element:
    write(folder, make_suite(results, **changes))
    return ElementTree.fromstring((folder / "junit.xml").read_bytes())


def test_a_report_has_four_files_and_its_counterexamples(tmp_path: Path) -> None:
    page = write_report(
        tmp_path / "a" / "b",
        make_suite([make_result(), make_result(Verdict.FAIL)]),
        quote=quote,
        section=section,
    )
    assert page == tmp_path / "a" / "b" / "index.html"
    assert sorted(file.name for file in page.parent.iterdir()) == [
        "ORB-REC-01.json",
        "index.html",
        "junit.xml",
        "report.json",
        "summary.md",
    ]
    assert load_counterexample(page.parent / "ORB-REC-01.json").plan == PLAN


def test_the_same_failure_at_two_targets_is_kept_twice(tmp_path: Path) -> None:
    failed = make_suite([make_result(Verdict.FAIL)])
    write(tmp_path, failed, make_suite(failed.results, target="other"))
    assert load_counterexample(tmp_path / "ORB-REC-01.json").target == failed.target
    assert load_counterexample(tmp_path / "ORB-REC-01.2.json").target == "other"
    files = [
        run["results"][0]["counterexample"]["file"]
        for run in json.loads((tmp_path / "report.json").read_text())["runs"]
    ]
    assert files == [str(tmp_path / "ORB-REC-01.json"), str(tmp_path / "ORB-REC-01.2.json")]


def test_a_counterexample_that_has_a_file_is_not_written_again(tmp_path: Path) -> None:
    write(tmp_path, make_suite([make_result(Verdict.FAIL, counterexample=make_failure(file="known.json"))]))
    assert not list(tmp_path.glob("ORB-*"))
    assert "replay known.json" in (tmp_path / "junit.xml").read_text()


def test_the_json_report_says_all_of_a_result(tmp_path: Path) -> None:
    case = make_case(readings={"refused": "answered with an error"}, sentences=("P-22",))
    write(tmp_path, make_suite([make_result(Verdict.NON_STRICT, case), make_result(Verdict.FAIL)]))
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["format"], report["version"]) == ("orbtrio.conformance.report", 1)
    (run,) = report["runs"]
    assert (run["seed"], run["slack"], run["exit_code"], run["counters"]["redelivery"]) == (
        20261121,
        0.15,
        1,
        12,
    )
    assert run["counts"] == {"MUST": {"NON-STRICT": 1, "FAIL": 1}}
    loose, failed = run["results"]
    assert loose == {
        "id": "ORB-REC-01",
        "area": "REC",
        "title": case.title,
        "level": "MUST",
        "verdict": "NON-STRICT",
        "explanation": case.explanation,
        "sentences": [{"id": "P-22", "section": "ruling P-22", "text": "A late answer is dropped, silently"}],
        "reading": "refused",
        "reading_meaning": "answered with an error",
        "reason": "the job is answered with an error at once",
        "close": "NON-STRICT",
        "close_reason": "worker#3 ended without a close frame",
        "examples": 37,
        "seconds": 1.25,
        "events": [
            {"at": event.at, "peer": event.peer, "kind": event.kind, "text": event.text} for event in EVENTS
        ],
        "events_left_out": 0,
        "counterexample": None,
    }
    assert failed["counterexample"]["plan"] == PLAN
    assert failed["reading_meaning"] is None


def test_the_json_report_is_json_for_everybody_and_bounded(tmp_path: Path) -> None:
    plan = {"latency": [float("nan"), float("inf"), 1.5], "pair": (1, 2), HOSTILE: HOSTILE}
    events = tuple(WireEvent(at=n, peer="p", kind="->", text="x") for n in range(1000))
    result = make_result(Verdict.FAIL, counterexample=make_failure(plan=plan, events=events))
    write(tmp_path, make_suite([result]))

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    report = json.loads((tmp_path / "report.json").read_bytes(), parse_constant=refuse)
    found = report["runs"][0]["results"][0]["counterexample"]
    assert found["plan"] == {"latency": ["nan", "inf", 1.5], "pair": [1, 2], HOSTILE: HOSTILE}
    assert (len(found["events"]), found["events_left_out"]) == (200, 800)
    assert len(load_counterexample(tmp_path / "ORB-REC-01.json").events) == 1000


@pytest.mark.parametrize(
    ("verdict", "level", "tag"),
    [
        (Verdict.PASS, Level.MUST, None),
        (Verdict.NON_STRICT, Level.MUST, "system-out"),
        (Verdict.INFO, Level.INFO, "system-out"),
        (Verdict.FAIL, Level.MUST, "failure"),
        (Verdict.FLAKY, Level.MUST, "error"),
        (Verdict.INCONCLUSIVE, Level.MUST, "error"),
        (Verdict.SKIP, Level.MUST, "skipped"),
        (Verdict.FAIL, Level.SHOULD, "skipped"),
        (Verdict.FLAKY, Level.MAY, "skipped"),
    ],
)
def test_junit_is_red_exactly_when_the_exit_code_is_not_0(
    tmp_path: Path, verdict: Verdict, level: Level, tag: str | None
) -> None:
    result = make_result(verdict, make_case(level=level))
    suite = read_junit(tmp_path, result)[0]
    entry = suite[0]
    assert [child.tag for child in entry] == ([tag] if tag else [])
    assert entry.get("classname") == "conformance.engine.REC"
    assert str(entry.get("name")).startswith("ORB-REC-01 Jobs of a lost worker")
    red = int(suite.get("failures", "")) + int(suite.get("errors", ""))
    assert (red > 0) is (make_suite([result]).exit_code != 0)
    assert suite.get("skipped") == ("1" if tag == "skipped" else "0")


def test_junit_shows_the_block_of_a_failure(tmp_path: Path) -> None:
    failure = read_junit(tmp_path, make_result(Verdict.FAIL))[0][0][0]
    assert failure.get("message") == "FAIL (MUST) expected: j6 in a batch to worker#5; seen: nothing"
    assert str(failure.text).startswith('FAIL ORB-REC-01 (MUST) "Connection Lifecycle"')
    assert str(failure.text).count("\n  t=") == len(EVENTS) + 1


def test_a_run_that_broke_off_is_an_error_in_junit(tmp_path: Path) -> None:
    suite = read_junit(tmp_path, make_result(), trouble="the target cannot be reached")[0]
    assert (suite.get("tests"), suite.get("errors")) == ("2", "1")
    assert [entry.get("name") for entry in suite.findall("testcase[error]")] == ["the run was finished"]


def test_junit_is_well_formed_whatever_a_peer_sent(tmp_path: Path) -> None:
    hostile = make_failure(
        seen=HOSTILE, expected=HOSTILE, events=[WireEvent(at=0, peer=HOSTILE, kind="->", text=HOSTILE)]
    )
    results = [
        make_result(Verdict.FAIL, make_case(title=HOSTILE, sentences=(HOSTILE,)), counterexample=hostile),
        *(make_result(verdict, reason=HOSTILE) for verdict in Verdict),
    ]
    root = read_junit(tmp_path, *results, target=HOSTILE, trouble=HOSTILE, started=HOSTILE)
    shown = HOSTILE.replace("\x00", "\\x00").replace("\x1b", "\\x1b").replace("\n", "\\n")
    shown = shown.replace("\u202e", "\\u202e").replace("\ud800", "\\ud800").replace("\ufffe", "\\ufffe")
    assert root[0][0].get("name") == f"ORB-REC-01 {shown}"
    assert f"seen: {shown}" in str(root[0][0][0].text)


def read_summary(folder: Path, *suites: SuiteResult) -> str:
    write(folder, *suites)
    return (folder / "summary.md").read_text()


def test_the_summary_fits_into_a_comment(tmp_path: Path) -> None:
    should = make_result(Verdict.FAIL, SHOULD)
    suite = make_suite([should, make_result(), make_result(Verdict.INCONCLUSIVE), make_result(Verdict.FAIL)])
    assert read_summary(tmp_path, suite).splitlines() == [
        "### `node engine.js --port 5000` does not conform",
        "",
        "As engine, profile `spec`, seed 20261121, 4 cases in 83 s.",
        "",
        "| | FAIL | INCONCLUSIVE | PASS |",
        "|---|---:|---:|---:|",
        "| MUST | 1 | 1 | 1 |",
        "| SHOULD | 1 |  |  |",
        "",
        '- **FAIL** `ORB-REC-01 (MUST) "Connection Lifecycle": "On disconnect: all queued jobs reassigned to '
        'other workers"`',
        "  - expected: `j6 in a batch to worker#5`",
        "  - seen: `nothing`",
        '- **INCONCLUSIVE** `ORB-REC-01 (MUST) "Connection Lifecycle": "On disconnect: all queued jobs '
        'reassigned to other workers"`',
        "  - `the machine answered canaries in 0.9 s: too slow to tell 10 ms from nothing`",
        '- **FAIL** `ORB-BAT-01 (SHOULD) "Connection Lifecycle": "On disconnect: all queued jobs reassigned '
        'to other workers"`',
        "  - expected: `j6 in a batch to worker#5`",
        "  - seen: `nothing`",
        "",
        "1 requirement does not hold. With each stands the shortest conversation that breaks it, and a "
        "command that plays it again once you have changed the target.",
        "1 recommendation is not followed (SHOULD or MAY). This does not fail the run.",
        "1 case could not be judged. Run again on a quieter machine, or with more time (--max-seconds).",
    ]


@pytest.mark.parametrize(
    ("suite", "words"),
    [
        (make_suite([make_result()]), "conforms"),
        (make_suite(trouble="refused"), "could not be tested"),
        (make_suite([make_result(Verdict.FLAKY)]), "is in doubt"),
    ],
)
def test_the_summary_begins_with_the_outcome(tmp_path: Path, suite: SuiteResult, words: str) -> None:
    assert read_summary(tmp_path, suite).startswith(f"### `node engine.js --port 5000` {words}\n")


def test_a_summary_stays_short_however_much_fails(tmp_path: Path) -> None:
    long = make_failure(seen="`" * 100_000, expected="x" * 100_000)
    suite = make_suite([make_result(Verdict.FAIL, counterexample=long)] * 96, trouble="x" * 100_000)
    summary = read_summary(tmp_path, suite, suite)
    assert summary.count("- and 76 more") == 2
    assert len(summary) < 65_536  # what a comment may hold


def test_a_peers_text_is_no_markdown(tmp_path: Path) -> None:
    hostile = make_failure(seen=HOSTILE, expected="```a`b")
    summary = read_summary(
        tmp_path,
        make_suite(
            [
                make_result(Verdict.FAIL, counterexample=hostile),
                make_result(Verdict.FLAKY, counterexample=None, reason=""),
            ]
        ),
    )
    assert "  - expected: ```` ```a`b ````\n" in summary
    (line,) = [line for line in summary.splitlines() if line.startswith("  - seen:")]
    assert re.fullmatch(r"  - seen: ``` .*@everyone ```", line)
    trouble = read_summary(tmp_path, make_suite(trouble="@everyone <b> [x](y) | `z`"))
    assert r"\@everyone \<b\> \[x\](y) \| \`z\`" in trouble


def test_a_whole_run_can_be_written_twice_into_one_directory(tmp_path: Path) -> None:
    suites = [generate_suite(1), generate_suite(2, target="other")]
    write(tmp_path, *suites)
    first = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    write(tmp_path, *suites)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == first

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbtrio.conformance.model import Level, Verdict, WireEvent
from orbtrio.conformance.report.words import (
    advice,
    cite,
    duration,
    elide,
    failure_block,
    headline,
    replay,
    tally,
    visible,
    wire_line,
)
from tests.conformance.report.fakes import (
    EVENTS,
    make_case,
    make_failure,
    make_result,
    make_suite,
    quote,
    section,
)

if TYPE_CHECKING:
    from orbtrio.conformance.model import SuiteResult


@given(st.text(st.characters(exclude_categories=[]), max_size=40))
def test_whatever_a_peer_sends_becomes_printable_and_fit_for_xml(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    element = ElementTree.Element("a", b=shown)
    element.text = shown
    assert ElementTree.fromstring(ElementTree.tostring(element, "utf-8")).text == (shown or None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve ✓ שלום", "naïve ✓ שלום"),
        ("a\x00b\nc\x1b[2J", "a\\x00b\\nc\\x1b[2J"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_unprintable_characters_are_written_as_escapes(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_long_texts_are_cut_with_a_note_of_their_length() -> None:
    assert visible("x" * 100_000, 5) == "xxxxx... (100000 characters)"
    assert visible("xxxxx", 5) == "xxxxx"


def test_a_failure_reads_as_the_design_shows_it() -> None:
    result = make_result(Verdict.FAIL)
    assert failure_block(result, cite(result.case, quote, section), 20261121, "out/ORB-REC-01.json") == (
        'FAIL ORB-REC-01 (MUST) "Connection Lifecycle": '
        '"On disconnect: all queued jobs reassigned to other workers"\n'
        '  t=0.000 worker#3 ->  {"type": "i_am_worker", "worker_secret": "(masked)", "worker_config": '
        '{"worker_type": "t", "max_batch_size": 2, "max_latency_ms": 10}}\n'
        '  t=0.000 worker#5 ->  {"type": "i_am_worker", "worker_secret": "(masked)", "worker_config": '
        '{"worker_type": "t"}}\n'
        '  t=0.001 client#1 ->  {"type": "worker_request", "jobs": [{"job_id": "j6", "worker_type": "t", '
        '"input": {"n": "j6"}}]}\n'
        '  t=0.012 worker#3 <-  {"type": "job_batch", "inputs": [{"id": "01JD8Q", "input": {"n": "j6"}}]}\n'
        "  t=0.013 worker#3 x   RST\n"
        "  t=0.014 --  the link of worker#3 is dead; its job must move\n"
        "  t=1.500 expected: j6 in a batch to worker#5; seen: nothing\n"
        "  replay: python -m orbtrio.conformance replay out/ORB-REC-01.json      seed 20261121"
    )


def test_a_flaky_failure_says_how_often_it_failed_again() -> None:
    result = make_result(Verdict.FLAKY)
    lines = failure_block(result, (), 1, None).split("\n")
    assert lines[0] == "FLAKY ORB-REC-01 (MUST) Jobs of a lost worker move to another worker of the same type"
    assert lines[-2:] == [
        "  failed again in 1 of 3 repetitions",
        "  replay: run again with --report DIR, which keeps the plan      seed 1",
    ]


def test_a_failure_without_a_conversation_gives_its_reason() -> None:
    result = make_result(Verdict.FAIL, counterexample=None, reason="the target went away")
    assert failure_block(result, (), 1, None).split("\n")[1:] == ["  the target went away"]
    assert failure_block(attrs.evolve(result, reason=""), (), 1, None).endswith(
        "no conversation was recorded"
    )


@pytest.mark.parametrize("file", ["out/a.json", None])
def test_the_middle_of_a_long_log_is_left_out_with_a_note(file: str | None) -> None:
    events = [WireEvent(at=n, peer="p", kind="->", text=f"message {n}") for n in range(1000)]
    block = failure_block(
        make_result(Verdict.FAIL, counterexample=make_failure(events=events)), (), 1, file, 7
    )
    assert [f"message {n}" in block for n in (0, 2, 3, 995, 996, 999)] == [
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    where = "; all of them stand in out/a.json" if file else ""
    assert f"  ... 993 lines left out{where}\n" in block


def test_short_logs_are_shown_whole() -> None:
    assert elide(EVENTS, len(EVENTS)) == (EVENTS, 0, ())
    head, left_out, tail = elide(EVENTS, 3)
    assert (*head, *tail) == (EVENTS[0], EVENTS[-2], EVENTS[-1])
    assert left_out == len(EVENTS) - 3


def test_a_peers_line_break_forges_no_line_of_the_log() -> None:
    event = WireEvent(at=1, peer="a\nb", kind="->", text="x\n  t=9.000 expected: nothing; seen: nothing")
    assert wire_line(event) == "t=1.000 a\\nb ->  x\\n  t=9.000 expected: nothing; seen: nothing"


def test_rulings_are_cited_without_quotation_marks_and_unknown_sentences_bare() -> None:
    case = make_case(sentences=("P-22", "S99.1"))
    assert [str(citation) for citation in cite(case, quote, section)] == [
        "ruling P-22: A late answer is dropped, silently",
        "S99.1: (unknown sentence)",
    ]
    assert headline(make_result(case=case), cite(case, quote, section)) == (
        "PASS ORB-REC-01 (MUST) ruling P-22: A late answer is dropped, silently"
    )


def test_a_replay_command_can_be_pasted_into_a_shell() -> None:
    assert replay("my reports/a.json", 7).endswith("replay 'my reports/a.json'      seed 7")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (75.4, "75 s"), (250, "4 min 10 s"), (119.9, "2 min 0 s")],
)
def test_durations_are_round(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_verdicts_are_counted_by_level() -> None:
    should = make_case("ORB-BAT-01", level=Level.SHOULD)
    counts = tally([make_result(), make_result(), make_result(Verdict.FAIL, should)])
    assert counts[Level.MUST] == {Verdict.PASS: 2}
    assert counts[Level.SHOULD] == {Verdict.FAIL: 1}
    assert not counts[Level.MAY]


SHOULD = make_case("ORB-BAT-01", level=Level.SHOULD)


@pytest.mark.parametrize(
    ("suite", "start"),
    [
        (make_suite([make_result()]), "Every MUST that was judged holds under the profile spec"),
        (make_suite([make_result(Verdict.FAIL)]), "1 requirement does not hold"),
        (make_suite([make_result(Verdict.FAIL)] * 2), "2 requirements do not hold"),
        (make_suite([make_result(Verdict.FLAKY)]), "1 case is flaky"),
        (make_suite([make_result(Verdict.INCONCLUSIVE)] * 2), "2 cases could not be judged"),
        (make_suite([make_result()], trouble="refused"), "The run ended early: refused."),
        (make_suite(), "No case was selected"),
    ],
)
def test_advice_begins_with_what_matters_most(suite: SuiteResult, start: str) -> None:
    assert advice(suite, None)[0].startswith(start)


def test_a_recommendation_that_is_not_followed_fails_nothing() -> None:
    steps = advice(
        make_suite([make_result(Verdict.FAIL, SHOULD), make_result(Verdict.SKIP)]), "out/index.html"
    )
    assert [step.split()[0] for step in steps] == ["Every", "1", "1", "The"]
    assert "This does not fail the run" in steps[1]
    assert steps[-1] == "The whole report: out/index.html"


def test_a_headline_quotes_a_sentence_in_words_rather_than_a_line_of_code() -> None:
    texts = {"S1": "type: 'image',", "S2": "Max jobs // of a batch here", "S3": "`size` must be above zero"}
    result = make_result(Verdict.FAIL, case=attrs.evolve(make_case(), sentences=("S1", "S2", "S3")))
    line = headline(result, cite(result.case, texts.__getitem__, lambda sentence_id: "Section"))
    assert line.endswith('"Section": "`size` must be above zero"')

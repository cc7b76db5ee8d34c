from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbtrio.conformance.model import Role, Verdict, WireEvent
from orbtrio.conformance.report.counterexamples import (
    CounterexampleError,
    load_counterexample,
    store_counterexample,
)
from orbtrio.conformance.report.files import write_report
from tests.conformance.report.fakes import (
    EVENTS,
    PLAN,
    make_failure,
    make_result,
    make_suite,
    quote,
    section,
)

if TYPE_CHECKING:
    from pathlib import Path

SUITE = make_suite()


def test_a_counterexample_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    file = store_counterexample(tmp_path / "new" / "folder", make_result(Verdict.FAIL), SUITE)
    assert file == tmp_path / "new" / "folder" / "ORB-REC-01.json"
    stored = load_counterexample(file)
    assert (stored.case_id, stored.role, stored.target) == ("ORB-REC-01", Role.ENGINE, SUITE.target)
    assert (stored.profile, stored.seed, stored.versions) == (SUITE.profile, SUITE.seed, SUITE.versions)
    assert (stored.plan, stored.events) == (PLAN, EVENTS)
    assert (stored.expected, stored.seen, stored.at) == ("j6 in a batch to worker#5", "nothing", 1.5)
    assert (stored.failures, stored.repetitions) == (3, 3)


TEXTS = st.text(st.characters(exclude_categories=[]), max_size=10)
PLANS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


@given(plan=PLANS, text=TEXTS)
def test_any_plan_and_any_text_of_a_peer_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, plan: Any, text: str
) -> None:
    events = (WireEvent(at=1, peer=text, kind="<-", text=text),)
    result = make_result(Verdict.FAIL, counterexample=make_failure(plan=plan, seen=text, events=events))
    folder = tmp_path_factory.getbasetemp() / "any"
    stored = load_counterexample(store_counterexample(folder, result, SUITE))
    assert (stored.plan, stored.seen, stored.events) == (plan, text, events)


def test_a_case_that_passed_has_nothing_to_store(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ORB-REC-01 has no counterexample"):
        store_counterexample(tmp_path, make_result(), SUITE)


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(CounterexampleError, match=r"cannot read .*: (No such file|Is a directory)"):
        load_counterexample(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'{"format": ', b"[" * 100_000])
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(CounterexampleError, match=r"is no JSON .*give the file as the run wrote it"):
        load_counterexample(tmp_path / "x.json")


@pytest.mark.parametrize("content", [b"[]", b"null", b"{}", b'{"format": "something else", "plan": 1}'])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(CounterexampleError, match="is no counterexample of this suite"):
        load_counterexample(tmp_path / "x.json")


def test_a_whole_report_is_recognised(tmp_path: Path) -> None:
    write_report(tmp_path, make_suite([make_result(Verdict.FAIL)]), quote=quote, section=section)
    with pytest.raises(CounterexampleError, match="is a whole report: give the file of one counterexample"):
        load_counterexample(tmp_path / "report.json")


def edited(tmp_path: Path, **changes: Any) -> Path:
    file = store_counterexample(tmp_path, make_result(Verdict.FAIL), SUITE)
    stored = json.loads(file.read_text())
    for name, value in changes.items():
        if value is ...:
            del stored[name]
        else:
            stored[name] = value
    file.write_text(json.dumps(stored))
    return file


def test_a_person_may_edit_the_plan(tmp_path: Path) -> None:
    assert load_counterexample(edited(tmp_path, plan=[1], at=2)).plan == [1]


def test_another_version_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        CounterexampleError, match="has version 2 and this suite reads version 1: replay it with"
    ):
        load_counterexample(edited(tmp_path, version=2))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"plan": ...}, '"plan" is missing'),
        ({"case": ...}, '"case" is missing'),
        ({"seed": "7"}, '"seed" is not of type int'),
        ({"seed": True}, '"seed" is not of type int'),
        ({"version": ...}, '"version" is missing'),
        ({"at": "soon"}, '"at" is not of type float'),
        ({"role": "broker"}, "\"role\" is 'broker'"),
        ({"versions": []}, '"versions" is not of type dict'),
        ({"events": {}}, '"events" is not of type list'),
        ({"events": [7]}, r'"events\[0\]" is no map'),
        ({"events": [{"at": 1, "peer": "", "kind": "x"}]}, r'"events\[0\].text" is missing'),
    ],
)
def test_a_broken_field_is_named_with_a_way_out(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(CounterexampleError, match=complaint + r"\. Put it right, or run the case again"):
        load_counterexample(edited(tmp_path, **changes))

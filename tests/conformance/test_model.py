"""The vocabulary: what a case must say of itself, and what a run's exit status is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st

from orbtrio.conformance import model
from orbtrio.conformance.model import (
    CaseResult,
    Level,
    Role,
    SuiteResult,
    Verdict,
    Violation,
    WireEvent,
    case,
)

if TYPE_CHECKING:
    from orbtrio.conformance.model import Plan


@pytest.fixture
def empty_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_catalogue", {})


def nothing(stage: object, plan: Plan) -> None:
    """Does nothing,
    on two lines."""


@pytest.mark.usefixtures("empty_catalogue")
def test_a_case_is_found_by_its_identifier() -> None:
    assert case("ORB-XYZ-01", "Nothing happens", sentences=["S1.1"], plans=st.none())(nothing) is nothing
    known = model.catalogue()["ORB-XYZ-01"]
    assert (known.area, known.level, known.role) == ("XYZ", Level.MUST, Role.ENGINE)
    assert known.explanation == "Does nothing, on two lines."


@pytest.mark.usefixtures("empty_catalogue")
def test_identifiers_are_given_once() -> None:
    define = case("ORB-XYZ-01", "Nothing happens", sentences=["S1.1"], plans=st.none())
    define(nothing)
    with pytest.raises(ValueError, match="defined twice"):
        define(nothing)


@pytest.mark.usefixtures("empty_catalogue")
def test_a_case_must_explain_itself() -> None:
    with pytest.raises(ValueError, match="no explanation"):
        case("ORB-XYZ-01", "Nothing", sentences=["S1.1"], plans=st.none())(lambda stage, plan: None)


def suite_of(*verdicts: tuple[Level, Verdict], trouble: str = "") -> SuiteResult:
    a_case = model.Case(
        case_id="ORB-XYZ-01",
        role=Role.ENGINE,
        title="",
        level=Level.MUST,
        sentences=(),
        explanation="",
        readings={},
        plans=st.none(),
        play=nothing,
    )
    return SuiteResult(
        target="t",
        role=Role.ENGINE,
        profile="spec",
        seed=1,
        started="2026-01-01",
        seconds=1,
        slack=0.1,
        versions={},
        results=tuple(CaseResult(case=a_case, level=level, verdict=verdict) for level, verdict in verdicts),
        counters={},
        trouble=trouble,
    )


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([(Level.MUST, Verdict.PASS), (Level.MUST, Verdict.NON_STRICT), (Level.MUST, Verdict.SKIP)], 0),
        ([(Level.SHOULD, Verdict.FAIL), (Level.INFO, Verdict.INFO)], 0),
        ([(Level.MUST, Verdict.FLAKY), (Level.MUST, Verdict.FAIL)], 1),
        ([(Level.MUST, Verdict.FLAKY)], 3),
        ([(Level.MUST, Verdict.INCONCLUSIVE)], 3),
        ([(Level.SHOULD, Verdict.FLAKY)], 0),
    ],
)
def test_exit_status_tells_what_of_the_musts(verdicts: list[tuple[Level, Verdict]], code: int) -> None:
    assert suite_of(*verdicts).exit_code == code


def test_a_target_that_went_away_is_not_a_pass() -> None:
    assert suite_of((Level.MUST, Verdict.PASS), trouble="gone").exit_code == 2


def test_texts_are_for_people() -> None:
    assert str(Violation("an answer", "nothing")) == "expected: an answer; seen: nothing"
    assert str(WireEvent(at=1.5, peer="worker#1", kind="->", text="{}")) == "t=1.500 worker#1 -> {}"
    assert str(WireEvent(at=0, peer="", kind="--", text="quiet")) == "t=0.000 -- quiet"

"""Time, demands and remarks."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import attrs
import pytest

from orbtrio.conformance.model import Inconclusive, Skipped, TargetGone, Violation
from orbtrio.conformance.selftest import zoo_engine

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.stage import Stage


@pytest.fixture
def counters() -> collections.Counter[str]:
    return collections.Counter()


@pytest.fixture
def stage(tmp_path: Path, counters: collections.Counter[str]) -> Stage:
    return zoo_engine((), tmp_path).stage(counters)


def test_time_passes_as_asked(stage: Stage) -> None:
    stage.sleep(1.5)
    stage.sleep_until(2)
    stage.sleep_until(1)
    assert stage.now() == pytest.approx(2)


def test_a_demand_is_a_violation_with_both_sides(stage: Stage) -> None:
    stage.demand(True, "x", "y")
    with pytest.raises(Violation, match="expected: x; seen: y"):
        stage.demand(False, "x", "y")
    with pytest.raises(Violation, match="seen: 7 things"):
        stage.expect(lambda: False, "x", lambda: "7 things", within=0)


def test_a_target_that_has_ended_is_not_just_wrong(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.world, "alive", lambda: False)
    with pytest.raises(TargetGone, match="process ended"):
        stage.fail("x", "y")


def test_what_cannot_be_judged_is_said(stage: Stage) -> None:
    with pytest.raises(Skipped, match="no files"):
        stage.skip("no files")
    with pytest.raises(Inconclusive, match="late"):
        stage.too_slow("late")


def test_long_waits_are_skipped_where_time_is_real(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.conditions = attrs.evolve(stage.conditions, patience=5)
    stage.need_patience(300, "the timeout")
    monkeypatch.setattr(stage.world, "virtual", False)
    stage.need_patience(5, "the handshake")
    with pytest.raises(Skipped, match=r"the timeout takes 300 s: allow it with --max-wait"):
        stage.need_patience(300, "the timeout")


def test_remarks_and_counters(stage: Stage, counters: collections.Counter[str]) -> None:
    stage.note("look here")
    stage.count("full batch")
    assert stage.log.events()[0].text == "look here"
    assert counters == {"full batch": 1}

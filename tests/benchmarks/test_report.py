from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.bars import RATIO_REQ32
from benchmarks.cases import Case
from benchmarks.measure import OURS, Bench, Figures
from benchmarks.report import as_dict, draw, machine, write_json

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def bench() -> Bench:
    bench = Bench(Case(name="100B", bars=(RATIO_REQ32,), reference=("few", Case(name="few"))), {})
    bench.floors = [5e-6]
    bench.figures = {
        OURS: Figures(cpu=[10e-6], latencies=[0.1]),
        "few": Figures(cpu=[9e-6]),
        "other": Figures(cpu=[50e-6]),
        "broken": Figures(failed="why", cpu=[1e-6]),
    }
    return bench


def test_json_has_all_rounds_and_null_where_nothing_was_measured(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    write_json(file, machine(["--quick"]), [as_dict(bench)])
    written = json.loads(file.read_text())
    assert written["command"] == "python -m benchmarks --quick"
    assert written["versions"]["cbor2"]
    (case,) = written["cases"]
    assert (case["case"], case["floor"]) == ("100B", [5e-6])
    assert case["engines"][OURS]["cpu"] == [10e-6]
    assert case["engines"][OURS]["bars"] == {"2.2x floor met": True}
    assert case["engines"][OURS]["median"]["p50"] == 0.1
    assert case["engines"][OURS]["median"]["stall"] is None
    assert case["engines"]["broken"]["failed"] == "why"


def test_the_picture_shows_engines_that_answered_and_no_references(bench: Bench, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    idle: dict[str, Any] = {"case": "idle", "floor": [], "engines": {}, "reference": None}
    draw(tmp_path / "out.svg", machine([]), [as_dict(bench), idle])
    picture = (tmp_path / "out.svg").read_text()
    comments = {line.strip("<!- >") for line in picture.splitlines() if line.strip().startswith("<!--")}
    assert comments >= {"floor", "orbtrio", "other", "10.0 µs", "50.0 µs", "100B"}
    assert not comments & {"few", "broken", "idle"}
    assert not math.isnan(bench.values(OURS)["ratio"])

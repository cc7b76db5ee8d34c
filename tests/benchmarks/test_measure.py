from __future__ import annotations

import sys
from typing import Final

import attrs
import pytest

from benchmarks.cases import Case
from benchmarks.measure import BASELINE, OURS, Bench, Figures, rank
from tests.benchmarks.conftest import BASELINE as PLAIN
from tests.benchmarks.conftest import liar

ORBTRIO: Final = (sys.executable, "-m", "orbtrio.engine")


@pytest.mark.processes
def test_all_figures_of_a_case_are_there(small: Case) -> None:
    with Bench(small, {OURS: PLAIN, BASELINE: PLAIN}) as bench:
        bench.find_stalls()
        bench.round()
        bench.round()
    assert list(bench.figures) == [OURS, BASELINE]
    assert len(bench.floors) == 2
    for figures in bench.figures.values():
        assert figures.failed == ""
        assert len(figures.cpu) == len(figures.rate) == len(figures.load_cpu) == len(figures.load_share) == 2
        assert len(figures.latencies) == 2 * 64
        assert len(figures.stalls) == 1
        assert 0 < figures.jobs_per_batch <= 4
        assert 0 < figures.start_bytes <= figures.peak_bytes
        assert all(0 < share <= 1 for share in figures.load_share)
    values = bench.values(OURS)
    assert values["ratio"] > 1
    assert {name for name, value in values.items() if value != value} == {"flat"}


@pytest.mark.processes
def test_the_engine_does_what_a_case_asks_for(small: Case) -> None:
    held = attrs.evolve(small, outstanding=32, held=40, settings=(("ORB_MAX_QUEUED_JOBS", "64"),))
    cases = [attrs.evolve(small, progress=3), attrs.evolve(small, batched=True), held]
    for case in cases:
        with Bench(case, {OURS: ORBTRIO}, floor=False) as bench:
            bench.round()
        assert bench.figures[OURS].failed == ""
        assert len(bench.figures[OURS].latencies) == 64


@pytest.mark.processes
def test_a_reference_is_measured_in_turn(small: Case) -> None:
    case = attrs.evolve(small, bystanders=3, reference=("no others", small))
    with Bench(case, {OURS: PLAIN}, floor=False) as bench:
        for _ in range(3):
            bench.round()
    assert list(bench.figures) == [OURS, "no others"]
    assert 0.2 < bench.values(OURS)["flat"] < 5


@pytest.mark.processes
def test_idle_peers_cost_per_second() -> None:
    case = Case(name="idle", jobs=0, clients=3, workers=0, bystanders=2, idle_seconds=0.1)
    with Bench(case, {OURS: PLAIN}) as bench:
        bench.round()
    figures = bench.figures[OURS]
    assert figures.failed == ""
    assert 0 <= figures.cpu[0] < 1
    assert figures.peak_bytes > 0
    assert bench.floors == []


@pytest.mark.processes
def test_an_engine_that_fails_is_out_and_the_others_go_on(small: Case) -> None:
    dies = liar("import os; os._exit(5)")
    with Bench(small, {OURS: PLAIN, "dies": dies, "no program": ("no-such-engine",)}, floor=False) as bench:
        bench.find_stalls()
        bench.round()
    assert "ended with status 5" in bench.figures["dies"].failed
    assert bench.figures["no program"].failed == "cannot start no-such-engine: No such file or directory"
    assert len(bench.figures[OURS].cpu) == 1


def test_ratios_are_those_of_rounds_that_followed_each_other() -> None:
    bench = Bench(Case(name="any", reference=("few", Case(name="few"))), {})
    # The machine was half as fast in the second round.
    bench.floors = [1e-6, 2e-6, 1e-6]
    bench.figures = {OURS: Figures(cpu=[2e-6, 4.4e-6, 2.4e-6]), "few": Figures(cpu=[1e-6, 2e-6, 1e-6])}
    assert bench.values(OURS)["ratio"] == pytest.approx(2.2)
    assert bench.values(OURS)["flat"] == pytest.approx(2.2)
    assert bench.values(OURS)["cpu"] == pytest.approx(2.4e-6)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_rank_is_one_of_the_values(share: float, value: float) -> None:
    assert rank([float(number) for number in range(1, 101)], share) == value

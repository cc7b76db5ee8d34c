"""Figures follow from rounds by arithmetic that can be done by hand."""

from __future__ import annotations

import json

import attrs
import pytest

from benchmarks.peers.figures import Cost, Lone, behind
from benchmarks.peers.system import Setting
from tests.benchmarks.peers.reports import OURS, REPORT, THEIRS, rounds


def test_costs_are_scaled_to_100_000_jobs() -> None:
    cost = Cost.of(rounds(0.05, 0.07, 0.06, jobs=2000))
    assert (cost.cpu, cost.lowest, cost.highest) == pytest.approx((3.0, 2.5, 3.5))
    assert (cost.jobs_per_second, cost.jobs_per_batch, cost.jobs, cost.rounds) == (2000, 32, 2000, 3)
    assert cost.load_cpu == pytest.approx(0.5)
    assert cost.ratio is None


def test_ratio_is_the_median_of_ratios_of_neighbours_in_time() -> None:
    # The machine is half as fast in the last two rounds: ratios of medians would see 5 here, not 10.
    theirs, ours = rounds(1.0, 2.0, 2.0), rounds(0.1, 0.2, 0.4)
    assert Cost.of(theirs, ours).ratio == pytest.approx(10)


def test_each_system_may_do_as_many_jobs_as_it_has_time_for() -> None:
    assert Cost.of(rounds(1.0, jobs=100), rounds(1.0, jobs=1000)).ratio == pytest.approx(10)


def test_lone_percentiles() -> None:
    lone = Lone.of([number / 1000 for number in range(100, 0, -1)])
    assert (lone.p50, lone.p99, lone.jobs) == pytest.approx((0.0505, 0.099, 100))
    assert Lone.of([0.5]).p99 == 0.5


def test_a_lone_job_is_judged_by_the_settings_that_suit_it() -> None:
    assert THEIRS.best_lone is THEIRS.lone[Setting.LATENCY]
    assert OURS.best_lone is OURS.lone[Setting.THROUGHPUT]


def test_being_behind_is_said_plainly() -> None:
    assert behind(REPORT) == [
        "ours needs 2.0 times the CPU of theirs (server in <C>) at 10,000 B",
        "ours takes 0.60 ms for a lone job, theirs (server in <C>) 0.20 ms",
    ]


def test_ahead_of_everybody_there_is_nothing_to_say() -> None:
    slow = attrs.evolve(THEIRS, costs={100: THEIRS.costs[100]}, lone={Setting.THROUGHPUT: Lone.of([0.5])})
    assert behind(attrs.evolve(REPORT, rows=[OURS, slow])) == []


def test_json_has_every_figure_and_the_verdict() -> None:
    data = json.loads(json.dumps(REPORT.as_json()))
    assert data["rows"][1]["costs"]["100"]["ratio"] == pytest.approx(10)
    assert data["rows"][1]["lone"]["latency"]["p50"] == 0.0002
    assert len(data["behind"]) == 2
    assert data["skipped"] == REPORT.skipped

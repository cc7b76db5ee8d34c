from __future__ import annotations

import re

import pytest

from benchmarks.bars import RATIO_REQ32, Bar
from benchmarks.cases import Case
from benchmarks.measure import OURS, Bench, Figures
from benchmarks.pinger import Stalls
from benchmarks.table import HEAD, lines


def figures(cpu: float, **others: object) -> Figures:
    return Figures(
        cpu=[cpu, cpu * 1.1, cpu * 0.9],
        rate=[50_000.0] * 3,
        load_cpu=[4e-6] * 3,
        load_share=[0.3] * 3,
        jobs_per_batch=31.96,
        peak_bytes=40_000_000,
        **others,  # type: ignore[arg-type]
    )


@pytest.fixture
def bench() -> Bench:
    bench = Bench(Case(name="100B", bars=(RATIO_REQ32, Bar("cpu", 14, decides=False))), {})
    bench.floors = [5e-6, 5.5e-6, 4.5e-6]
    bench.figures = {
        OURS: figures(12e-6, stalls=[Stalls(0.0031, 0.001, 0.0002), Stalls(0.0011, 0.0009, 0.0012)]),
        "other": figures(96e-6),
        "broken": Figures(failed="job_id 'job-3' has\n  a wrong answer"),
    }
    return bench


def test_each_engine_has_a_line_under_the_floor(bench: Bench) -> None:
    floor, ours, other, broken = lines(bench)
    assert re.fullmatch(r"100B +floor +5\.0 +\(4\.5-5\.5\)", floor)
    cells = "orbtrio 12.0 (10.8-13.2) 2.40 - 50,000 32.0 - - - 3.1 1.0 1.2 40 250,000 30%"
    assert ours.split() == [*cells.split(), *["2.2x", "floor", "MISSED,", "(14", "us", "met)"]]
    assert other.split()[:5] == ["other", "96.0", "(86.4-105.6)", "19.20", "8.00x"]
    assert broken.split(maxsplit=1) == ["broken", "FAILED: job_id 'job-3' has a wrong answer"]


def test_columns_stand_under_their_heads(bench: Bench) -> None:
    ours = lines(bench)[1]
    head = HEAD.splitlines()[0]
    for column, cell in {"/floor": "2.40", "jobs/s": "50,000", "RSS MB": "40", "ceiling": "250,000"}.items():
        end = head.index(column) + len(column)
        assert ours[:end].endswith(cell)


def test_a_load_that_was_the_bottleneck_is_marked(bench: Bench) -> None:
    bench.figures[OURS].load_share = [0.95] * 3
    assert " 95%!" in lines(bench)[1]


def test_latencies_are_shown_where_they_matter() -> None:
    bench = Bench(Case(name="lone", latency=True, bars=(Bar("p50", 1),)), {})
    bench.figures = {OURS: figures(12e-6, latencies=[0.0005, 0.0004, 0.9])}
    (line,) = lines(bench)
    assert line.split()[8:11] == ["0.50", "900.00", "900.00"]
    assert line.endswith("1 ms p50 met")


def test_the_case_that_a_case_is_compared_with_has_no_floor_here(bench: Bench) -> None:
    bench.case = Case(name="many", reference=("few", Case(name="few")), bars=(Bar("flat", 1.1),))
    bench.figures = {OURS: figures(12e-6), "few": figures(10e-6)}
    _, ours, few = lines(bench)
    assert ours.endswith("1.1x flat MISSED")
    assert few.split()[:5] == ["few", "10.0", "(9.0-11.0)", "-", "0.83x"]

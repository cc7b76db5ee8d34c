from __future__ import annotations

import math

import pytest

from benchmarks.bars import RATIO_REQ32, Bar


@pytest.mark.parametrize(
    ("bar", "value", "verdict"),
    [
        (RATIO_REQ32, 2.2, "2.2x floor met"),
        (RATIO_REQ32, 2.21, "2.2x floor MISSED"),
        (RATIO_REQ32, math.nan, "2.2x floor not measured"),
        (Bar("cpu", 14), 14e-6, "14 us met"),
        (Bar("cpu", 14), 15e-6, "14 us MISSED"),
        (Bar("cpu", 14, decides=False), 15e-6, "(14 us missed)"),
        (Bar("cpu", 14, decides=False), 13e-6, "(14 us met)"),
        (Bar("flat", 1.1), 1.11, "1.1x flat MISSED"),
        (Bar("stall", 20), 0.021, "20 ms stall MISSED"),
        (Bar("p50", 1), 0.0009, "1 ms p50 met"),
        (Bar("p99", 25), 0.026, "25 ms p99 MISSED"),
        (Bar("rss", 200), 199e6, "200 MB met"),
    ],
)
def test_a_bar_is_met_up_to_its_limit(bar: Bar, value: float, verdict: str) -> None:
    assert bar.verdict({bar.measure: value}) == verdict


def test_a_bar_is_not_met_by_a_figure_that_was_not_measured() -> None:
    assert RATIO_REQ32.met({}) is None

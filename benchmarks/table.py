"""The figures as one table of text: a line for each engine, under a line for the floor."""

from __future__ import annotations

import math
from functools import reduce
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.measure import OURS, Figures, rank
from benchmarks.pinger import Stalls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.measure import Bench

__all__ = ["HEAD", "LEGEND", "lines"]

# So busy a load may have kept the engine waiting, and jobs per second are the load's own.
_BUSY: Final = 0.9

HEAD: Final = (
    f"{'':<24}{'':<11}{'CPU us/job':>10}{'(low-high)':>15}{'/floor':>7}{'/ours':>7}{'jobs/s':>9}{'batch':>6}"
    f"{'p50 ms':>8}{'p99':>8}{'max':>8}{'stall':>7}{'own':>7}{'load':>7}"
    f"{'RSS MB':>7}{'ceiling':>9}{'load':>6}  bars\n"
    f"{'-' * 177}"
)

LEGEND: Final = """
stall: the longest that the engine took to answer a ping, in ms; own: without its waiting for a processor;
load (after own): the longest that the load took.
ceiling: jobs/s the load could do; load: the part of the time it was busy ("!": the engine may have waited).
bars: "(...)" is shown, but the ratio to the floor decides."""


def lines(bench: Bench) -> list[str]:
    """The lines of one case."""
    name = f"{bench.case.name:<24}"
    result = []
    if bench.floors:
        result.append(f"{name}{'floor':<11}{_cpu(bench.floors)}")
        name = " " * len(name)
    for engine in bench.figures:
        result.append(f"{name}{engine:<11}{_line(bench, engine)}".rstrip())
        name = " " * len(name)
    return result


def _line(bench: Bench, engine: str) -> str:
    figures, values = bench.figures[engine], bench.values(engine)
    if figures.failed:
        return f"FAILED: {' '.join(figures.failed.split())[:300]}"
    ours = bench.figures.get(OURS, Figures())
    multiples = [other / our for other, our in zip(figures.cpu, ours.cpu, strict=False)]
    is_reference = bench.case.reference is not None and engine == bench.case.reference[0]
    cells = [
        _cpu(figures.cpu, "/s" if bench.case.idle_seconds else ""),
        # Its floor would be another.
        _cell(math.nan if is_reference else values["ratio"], 7, "{:.2f}"),
        _cell(math.nan if engine == OURS or not multiples else median(multiples), 7, "{:.2f}x"),
        _cell(_median(figures.rate) or math.nan, 9, "{:,.0f}"),
        _cell(figures.jobs_per_batch, 6, "{:.1f}"),
        *_latency(bench, figures),
        *_stalls(figures),
        _cell(figures.peak_bytes / 1e6 or math.nan, 7, "{:.0f}"),
        *_load(bench, figures),
    ]
    bars = "  " + ", ".join(bar.verdict(values) for bar in bench.case.bars) if engine == OURS else ""
    return "".join(cells) + bars


# Where a client keeps the engine busy, how long its jobs take is how many it has.
def _latency(bench: Bench, figures: Figures) -> list[str]:
    latencies = sorted(figures.latencies) if bench.case.latency else []
    return [_cell(rank(latencies, share) * 1e3, 8, "{:.2f}") for share in (0.5, 0.99, 1.0)]


def _stalls(figures: Figures) -> list[str]:
    if not figures.stalls:
        return [_cell(math.nan, 7, "")] * 3
    longest = reduce(Stalls.longest, figures.stalls)
    return [_cell(seconds * 1e3, 7, "{:.1f}") for seconds in (longest.engine, longest.own, longest.load)]


def _load(bench: Bench, figures: Figures) -> list[str]:
    if bench.case.latency or bench.case.idle_seconds:
        return [_cell(math.nan, 9, ""), _cell(math.nan, 6, "")]
    share = _median(figures.load_share)
    ceiling = 1 / _median(figures.load_cpu) if figures.load_cpu else math.nan
    return [_cell(ceiling, 9, "{:,.0f}"), _cell(share, 6, "{:.0%}" + "!" * (share > _BUSY))]


def _cpu(values: Sequence[float], unit: str = "") -> str:
    if not values:
        return f"{'-':>10}{'-':>15}"
    low, high = _micro(min(values)), _micro(max(values))
    return f"{_micro(median(values)) + unit:>10}{f'({low}-{high})':>15}"


def _micro(seconds: float) -> str:
    micro = seconds * 1e6
    return f"{micro:.1f}" if micro < 1000 else f"{micro:,.0f}"


def _cell(value: float, width: int, form: str) -> str:
    return f"{'-' if math.isnan(value) else form.format(value):>{width}}"


def _median(values: Sequence[float]) -> float:
    return median(values) if values else math.nan

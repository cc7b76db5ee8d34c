"""The report as a picture: two bar charts, on a logarithmic scale, written as SVG by hand.

By hand, since a bar chart is thirty rectangles, and the file stays small and the same on every machine. It
brings its own light ground, so that it can be read on a dark page too. Blue and orange can be told apart by
everybody, and every bar has its name and its figure beside it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

import attrs

from benchmarks.peers.figures import SCALE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers.figures import Report

__all__ = ["draw"]

_OURS: Final = "#0072b2"
_THEIRS: Final = "#e69f00"
_GROUND: Final = "#ffffff"
_EDGE: Final = "#d0d7de"
_TEXT: Final = "#1f2328"
_FAINT: Final = "#59636e"

_WIDTH: Final = 980
_MARGIN: Final = 20
_TOP: Final = 58  # of the first bar
_STEP: Final = 30  # from bar to bar
_BAR: Final = 20
_NAMES: Final = 192  # for the names at the left of each chart
_FIGURES: Final = 62  # for the figures at the right of the bars
_FOOT: Final = 44


@attrs.frozen
class _Bar:
    name: str
    value: float
    ours: bool


def draw(report: Report) -> str:
    """An SVG document: CPU per job at the left, the time of a lone job at the right, the best at the top."""
    cpu = [_Bar(row.name, next(iter(row.costs.values())).cpu, row.reference is None) for row in report.rows]
    lone = [_Bar(row.name, row.best_lone.p50 * 1e3, row.reference is None) for row in report.rows]
    height = _TOP + _STEP * len(report.rows) + _FOOT
    half = (_WIDTH - 3 * _MARGIN) / 2
    foot = (
        "echo, one worker; CPU in batches of 32, lone jobs as each is set up for latency; logarithmic,"
        f" shorter is better · {report.date},"
        f" {report.machine}"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}"'
        f' height="{height}" font-family="system-ui, sans-serif" font-size="13" fill="{_TEXT}" role="img">',
        f"<title>{escape(_title(cpu))}</title>",
        f'<rect x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8" fill="{_GROUND}"'
        f' stroke="{_EDGE}"/>',
        *_chart(f"CPU-seconds of all servers for {SCALE:,} jobs of 100 B", cpu, _MARGIN, half),
        *_chart("lone job, median round trip, ms", lone, 2 * _MARGIN + half, half),
        f'<text x="{_MARGIN}" y="{height - 18}" fill="{_FAINT}" font-size="11">{escape(foot)}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _title(bars: Sequence[_Bar]) -> str:
    figures = ", ".join(f"{bar.name} {_figure(bar.value)}" for bar in sorted(bars, key=lambda bar: bar.value))
    return f"CPU-seconds for {SCALE:,} jobs: {figures}"


def _chart(title: str, bars: Sequence[_Bar], left: float, width: float) -> list[str]:
    # Bars begin at a power of ten below all of them, so that the shortest can be seen.
    smallest = min(bar.value for bar in bars)
    first = math.floor(math.log10(smallest))
    if math.log10(smallest) - first < 0.15:
        first -= 1
    last = max(math.ceil(math.log10(max(bar.value for bar in bars))), first + 1)
    origin = left + _NAMES
    decade = (width - _NAMES - _FIGURES) / (last - first)
    bottom = _TOP + _STEP * len(bars) - (_STEP - _BAR)
    parts = [f'<text x="{left:g}" y="32" font-weight="600" font-size="14">{escape(title)}</text>']
    for power in range(first, last + 1):
        x = origin + (power - first) * decade
        parts.append(
            f'<line x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{bottom + 4}" stroke="{_EDGE}"/>'
            f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="{_FAINT}" font-size="11">'
            f"{10.0**power:,g}</text>"
        )
    for index, bar in enumerate(sorted(bars, key=lambda bar: bar.value)):
        y = _TOP + index * _STEP
        length = (math.log10(bar.value) - first) * decade
        weight = ' font-weight="600"' if bar.ours else ""
        parts.append(
            f'<text x="{origin - 8:g}" y="{y + 15}" text-anchor="end"{weight}>{escape(bar.name)}</text>'
            f'<rect x="{origin:g}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2"'
            f' fill="{_OURS if bar.ours else _THEIRS}"/>'
            f'<text x="{origin + length + 6:.1f}" y="{y + 15}"{weight}>{_figure(bar.value)}</text>'
        )
    return parts


# Two significant digits, or as many as it has before the point.
def _figure(value: float) -> str:
    digits = max(0, 1 - math.floor(math.log10(value)))
    return f"{value:,.{digits}f}"

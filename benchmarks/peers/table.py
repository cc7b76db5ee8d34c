"""The report as text: a Markdown table, and what must be said below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.figures import SCALE, behind
from benchmarks.peers.system import Setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers.figures import Cost, Lone, Report, Row

__all__ = ["render"]

_HEADS = (
    "",
    "CPU-s, 100 B",
    "ratio",
    "batch",
    "jobs/s",
    "CPU-s, 10 KB",
    "ratio",
    "jobs/s",
    "lone job p50 / p99, ms",
    "set up for latency",
)


def render(report: Report) -> str:
    """The whole report, as Markdown."""
    parts = [
        _table(report.rows),
        f"CPU-seconds of all server processes per {SCALE:,} jobs, 256 in flight; median of the rounds, lowest"
        " and highest. ratio: to orbtrio asked by the same means, rounds in turn (by its client, or over 256"
        " connections with one job each). Slower systems did fewer jobs, scaled:",
        "\n".join(f"- {_jobs(row)}" for row in report.rows),
        "Settings; those for latency after the semicolon:",
        "\n".join(f"- {row.name}: {'; '.join(row.settings.values())}" for row in report.rows),
        *_left_out(report),
        "Where orbtrio is behind: " + ("; ".join(behind(report)) or "nowhere") + ".",
        f"{report.date}, {report.machine}. `{report.command}`",
    ]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Row]) -> str:
    lines = [_HEADS, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    # Figures to the right, names to the left.
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))]
        for name, *cells in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))


def _cells(row: Row) -> tuple[str, ...]:
    small, large = row.costs.values()
    version = next(iter(row.versions.values()))
    tuned = row.lone.get(Setting.LATENCY)
    return (
        f"{row.name} {version}, {row.native}" if row.native else f"{row.name} {version}",
        _cpu(small),
        _ratio(small),
        f"{small.jobs_per_batch:.0f}",
        f"{small.jobs_per_second:,.0f}",
        _cpu(large),
        _ratio(large),
        f"{large.jobs_per_second:,.0f}",
        _lone(row.lone[Setting.THROUGHPUT]),
        _lone(tuned) if tuned else "the same",
    )


def _cpu(cost: Cost) -> str:
    return f"{cost.cpu:.1f} ({cost.lowest:.1f}–{cost.highest:.1f})"  # noqa: RUF001


def _ratio(cost: Cost) -> str:
    return f"{cost.ratio:.1f}" if cost.ratio is not None else ""


def _lone(lone: Lone) -> str:
    return f"{lone.p50 * 1e3:.2f} / {lone.p99 * 1e3:.2f}"


def _jobs(row: Row) -> str:
    rounds = (
        f"{cost.rounds} × {cost.jobs:,} jobs of {size:,} B"  # noqa: RUF001
        f" (asking cost {cost.load_cpu:.1f} CPU-s per {SCALE:,})"
        for size, cost in row.costs.items()
    )
    lone = sum(lone.jobs for lone in row.lone.values())
    parts = ", ".join(f"{name} {version}" for name, version in row.versions.items())
    return f"{row.name}: {', '.join(rounds)}, {lone:,} lone jobs; {parts}"


def _left_out(report: Report) -> list[str]:
    parts = []
    if report.skipped:
        parts.append("Skipped:\n\n" + "\n".join(f"- {name}: {why}" for name, why in report.skipped.items()))
    if report.failed:
        parts.append("Failed:\n\n" + "\n".join(f"- {name}: {why}" for name, why in report.failed.items()))
    return parts

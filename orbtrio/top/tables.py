"""How a person reads an engine's figures: columns, units, and what to leave out on a small screen.

Both renderings are made of the same cells. Rich draws them in place and in colour; without it they are lines
of text, which go into a file or a mail as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orbtrio.top.figures import Overview, WorkRow

__all__ = ["as_rich", "as_text"]

_FIGURES: Final = ("queued", "in hand", "jobs/s", "batches/s", "jobs/batch", "ms/batch", "jobs")
_TYPE_COLUMNS: Final = ("type", "workers", *_FIGURES)
_WORKER_COLUMNS: Final = ("worker", *_FIGURES)
_NAME_WIDTH: Final = 12
_NO_WORKERS: Final = "No worker is connected."
_NOTHING: Final = "-"
_STEP: Final = 1024


def as_text(overview: Overview, url: str, *, lines: int | None = None) -> str:
    """The tables as plain text, without a line end behind the last.

    Args:
        overview: The figures.
        url: Whose they are.
        lines: Most lines; None for all. Workers that do nothing are left out first.
    """
    heading = [f"{url}  {_heading(overview)}", _totals(overview), ""]
    types = _aligned(_TYPE_COLUMNS, map(_type_cells, overview.types))
    if not overview.workers:
        return "\n".join([*heading, *types, "", _NO_WORKERS])
    room = None if lines is None else max(1, lines - len(heading) - len(types) - 3)
    shown, left_out = _busiest(overview.workers, room)
    workers = _aligned(_WORKER_COLUMNS, map(_worker_cells, shown))
    more = [f"… and {left_out} more workers"] if left_out else []
    return "\n".join([*heading, *types, "", *workers, *more])


def as_rich(overview: Overview, url: str, *, lines: int | None = None) -> Any:
    """The same for `rich`: something that it can print."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
        made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        made.add_column(columns[0], no_wrap=True, min_width=_NAME_WIDTH)
        for name in columns[1:]:
            made.add_column(name, justify="right", no_wrap=True)
        in_hand, speed = columns.index("in hand"), columns.index("jobs/s")
        for row in rows:
            idle = row[in_hand] == "0" and row[speed] == "0"
            made.add_row(*map(Text, row), style="dim" if idle else "")
        return made

    room = None if lines is None else max(1, lines - len(overview.types) - 7)
    shown, left_out = _busiest(overview.workers, room)
    parts: list[Any] = [
        Text.assemble((url, "bold cyan"), "  ", _heading(overview)),
        Text(_totals(overview), style="dim"),
        "",
        table(_TYPE_COLUMNS, map(_type_cells, overview.types)),
        "",
        table(_WORKER_COLUMNS, map(_worker_cells, shown)) if shown else Text(_NO_WORKERS, style="yellow"),
    ]
    if left_out:
        parts.append(Text(f"… and {left_out} more workers", style="dim"))
    return Group(*parts)


def _heading(overview: Overview) -> str:
    speeds = ""
    if overview.accepted is not None and overview.answered is not None:
        speeds = f", accepted {_rate(overview.accepted)}/s, answered {_rate(overview.answered)}/s"
    files = f"{overview.files:,.0f} files ({_size(overview.file_bytes)})"
    return f"{overview.clients:,.0f} clients, {overview.open_jobs:,.0f} open jobs{speeds}, {files}"


def _totals(overview: Overview) -> str:
    parts = [f"{words} {value:,.0f}" for words, value in overview.totals.items()]
    return "since its start: " + ", ".join(parts)


def _type_cells(row: WorkRow) -> list[str]:
    return [row.name, f"{row.workers}", *_cells(row)]


def _worker_cells(row: WorkRow) -> list[str]:
    return [row.name, *_cells(row)]


def _cells(row: WorkRow) -> list[str]:
    return [
        f"{row.queued:,.0f}",
        f"{row.in_hand:,.0f}",
        _rate(row.jobs_per_second),
        _rate(row.batches_per_second),
        _NOTHING if row.batch_size is None else f"{row.batch_size:,.1f}",
        _NOTHING if row.latency is None else _milliseconds(row.latency),
        f"{row.jobs:,.0f}",
    ]


def _rate(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def _milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < _STEP:
            return f"{count:.0f} {unit}"
        count /= _STEP
    return f"{count:.1f} GiB"


# All in their own order if there is room for them; else the busiest, in that order too.
def _busiest(rows: list[WorkRow], room: int | None) -> tuple[list[WorkRow], int]:
    if room is None or len(rows) <= room:
        return rows, 0
    chosen = sorted(rows, key=lambda row: (-(row.jobs_per_second or 0), -row.in_hand - row.queued))[:room]
    kept = {id(row) for row in chosen}
    return [row for row in rows if id(row) in kept], len(rows) - room


def _aligned(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    table = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    widths[0] = max(widths[0], _NAME_WIDTH)
    lines = []
    for row in table:
        first, *others = (
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return lines

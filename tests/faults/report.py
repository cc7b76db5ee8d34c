"""The table that the session prints: F-id, invariant, figure, bar."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ELSEWHERE", "Figures"]

# Rows whose fault is injected in other sessions.
ELSEWHERE: Final = {
    "F-06": "tests/processes",
    "F-07": "tests/processes",
    "F-17": "tests/engine/test_cuts.py",
    "F-18": "tests/processes",
    "F-25": "no journal in orbtrio",
    "F-26": "tests/processes",
    "F-27": "tests/processes",
    "F-28": "tests/processes",
    "F-37": "tests/worker/test_handlers.py",
    "F-38": "tests/engine/test_cancellation.py",
    "F-39": "in virtual time",
    "F-40": "no journal in orbtrio",
    "F-43": "tests/engine/test_exchange.py",
}
_HEAD: Final = ("row", "invariant", "figure", "bar")
_ROW: Final = re.compile(r"_f(\d\d)")


class Figures:
    """Collects figures; called by tests through the fixture `figure`."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str, str]] = []

    def __call__(self, row: str, invariant: str, value: str, bar: str = "-") -> None:
        """Note a figure as it was measured.

        Args:
            row: The fault, ``"F-01"``.
            invariant: Those that the test has checked, ``"I1 I2"``.
            value: What was measured, with its unit.
            bar: What it must be, where there is a number for it.
        """
        self._rows.append((row, invariant, value, bar))

    def note(self, test: str, result: str) -> None:
        """Note for every row in a test's name that there is no figure, and why."""
        for number in _ROW.findall(test):
            self(f"F-{number}", "-", result)

    def table(self) -> list[str]:
        """All rows in order of their ids, as lines of equal columns."""
        rows: Sequence[tuple[str, str, str, str]] = [
            *self._rows,
            *((row, "-", f"not here: {where}", "-") for row, where in ELSEWHERE.items()),
        ]
        rows = [_HEAD, *sorted(rows, key=lambda row: row[0])]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        return [
            " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]

    def __bool__(self) -> bool:
        return bool(self._rows)

"""The bars: what the figures of a case have to reach, as `performance.md` (section 9) and issue 5 set them.

Times drift with the machine, ratios to the floor of the same minute do not. So where there is a bar for the
ratio it decides, and the absolute one from the machine of `performance.md` is shown in parentheses.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FLAT", "RATIO_REQ1", "RATIO_REQ32", "STALL", "Bar", "Measure"]

Measure = Literal["ratio", "cpu", "flat", "stall", "p50", "p99", "rss"]

# How a limit is written, and what one of its unit is in the unit of the figure.
_UNITS: Final[Mapping[Measure, tuple[str, float]]] = {
    "ratio": ("x floor", 1),
    "cpu": (" us", 1e-6),
    "flat": ("x flat", 1),
    "stall": (" ms stall", 1e-3),
    "p50": (" ms p50", 1e-3),
    "p99": (" ms p99", 1e-3),
    "rss": (" MB", 1e6),
}


@attrs.frozen
class Bar:
    """At most so much.

    Attributes:
        measure: Of what.
        limit: In the unit that it is written in: us for ``cpu``, ms, MB, or a ratio.
        decides: Whether it counts. One that does not is shown all the same.
    """

    measure: Measure
    limit: float
    decides: bool = True

    def met(self, values: Mapping[Measure, float]) -> bool | None:
        """Whether these figures (seconds, bytes, ratios) reach it; None if there is none to look at."""
        value = values.get(self.measure, math.nan)
        return None if math.isnan(value) else value <= self.limit * _UNITS[self.measure][1]

    def verdict(self, values: Mapping[Measure, float]) -> str:
        """The bar and whether it is met, for a table."""
        met = self.met(values)
        text = "not measured" if met is None else "met" if met else "MISSED" if self.decides else "missed"
        text = f"{self.limit:g}{_UNITS[self.measure][0]} {text}"
        return text if self.decides else f"({text})"


RATIO_REQ32: Final = Bar("ratio", 2.2)
RATIO_REQ1: Final = Bar("ratio", 3.2)
FLAT: Final = Bar("flat", 1.1)
STALL: Final = Bar("stall", 20)

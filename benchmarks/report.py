"""The figures as JSON, with all that is needed to repeat them, and as a picture."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from importlib import metadata
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.measure import Bench

__all__ = ["as_dict", "draw", "machine", "write_json"]

_VERSIONS: Final = ("orbtrio", "trio", "trio-websocket", "cbor2", "websockets")
_COLOURS: Final = ("#9aa5b1", "#0b7285", "#d9822b", "#8b5fbf", "#5c940d", "#c2255c")


def machine(arguments: Sequence[str]) -> dict[str, Any]:
    """Where, when and with what it was measured."""
    return {
        "command": " ".join(("python -m benchmarks", *arguments)),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "processor": _processor(),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
        "versions": {name: version for name in _VERSIONS if (version := _version(name))},
    }


def as_dict(bench: Bench) -> dict[str, Any]:
    """All that one case has shown."""
    engines = {}
    for name, figures in bench.figures.items():
        own = attrs.asdict(figures, filter=attrs.filters.exclude("latencies"))
        values = bench.values(name)
        bars = {bar.verdict(values): bar.met(values) for bar in bench.case.bars} if name == "orbtrio" else {}
        engines[name] = {**own, "median": values, "bars": bars}
    reference = bench.case.reference[0] if bench.case.reference else None
    return {"case": bench.case.name, "reference": reference, "floor": bench.floors, "engines": engines}


def write_json(path: Path, about: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> None:
    """Write it; what was not measured is null."""
    path.write_text(json.dumps(_plain({**about, "cases": cases}), indent=1) + "\n")


def draw(path: Path, about: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> None:
    """Draw CPU per job as multiples of the floor's, a group of bars for each case that has one.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    shown = [case for case in cases if case["floor"]]
    names = ["floor", *dict.fromkeys(name for case in shown for name in _engines(case))]
    count = sum(1 + len(_engines(case)) for case in shown) + len(shown)
    figure = Figure(figsize=(9, 1.6 + 0.2 * count), layout="constrained")
    axes = figure.subplots()
    handles: dict[str, Any] = {}
    position, ticks = 0, []
    for case in shown:
        bars = {"floor": case["floor"], **_engines(case)}
        ticks.append(position + (len(bars) - 1) / 2)
        for name, values in bars.items():
            seconds = median(values)
            multiple = seconds / median(case["floor"])
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            handles[name] = axes.barh(position, multiple, 0.9, color=colour)
            axes.annotate(
                f"{seconds * 1e6:,.1f} µs",
                xy=(multiple, position),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                size=7,
            )
            position += 1
        position += 1
    axes.set_yticks(ticks, [case["case"] for case in shown], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.01)
    axes.set_xlabel("CPU of the engine per job, as multiples of the CBOR library's alone (floor)", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        handles.values(), handles, loc="outside upper right", ncols=len(handles), fontsize=8, frameon=False
    )
    where = f"{about['date']}, Python {about['python']}, {about['processors']} x {about['processor']}"
    axes.set_title(where, fontsize=8, loc="left")
    figure.savefig(path, dpi=120)


# The engines that are shown: those that did it all, without references, which are another case.
def _engines(case: Mapping[str, Any]) -> dict[str, list[float]]:
    reference = case.get("reference")
    return {
        name: own["cpu"]
        for name, own in case["engines"].items()
        if own["cpu"] and not own["failed"] and name != reference
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


# JSON has no NaN.
def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return None if isinstance(value, float) and math.isnan(value) else value

"""Is the engine slower than it was? A verdict that a noisy machine does not change.

What is compared is the engine's CPU per job divided by the floor's, with the ratio on record. Both are the
least of many short rounds, in turn: whatever else runs on the machine makes rounds dearer and never cheaper,
so the least of them comes closest to what the code costs, and the more rounds the closer. A case that looks
slower is measured again with a fresh engine, and longer, before it fails; one that is slower stays so.

Rejected: times, which drift with the machine by half; and medians of ratios, which are wrong for minutes
while somebody else works next to us.
"""

from __future__ import annotations

import time
import tomllib
from typing import TYPE_CHECKING, Final

import attrs

from benchmarks.cases import CASES, Case
from benchmarks.measure import OURS, Bench

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["NoVerdict", "check", "record"]

# The payloads that users have, and the request sizes for which there are bars. No images: most of their cost
# is the kernel's, which keeps the files, and drifts by itself.
_RECORDED: Final = (
    "100B-req1-batch32",
    "100B-req32-batch32",
    "10KB-req8-batch32",
    "768floats-req32-batch32",
)
_MARGIN: Final = 1.25
_SHARE: Final = 0.25
# Of the first attempt, and of those after it.
_ROUNDS: Final = (8, 12, 20)

_RECORD: Final = """\
# Engine CPU per job divided by that of the CBOR library alone, as `python -m benchmarks --check` measures it.
# Renew with `python -m benchmarks --record`, in the commit that changes them.

# A check fails beyond so much of these.
margin = {margin}

[ratio]
{ratios}
"""


class NoVerdict(Exception):
    """An engine failed the case, or the record names one that does not exist."""


def check(path: Path, argv: Sequence[str], rounds: Sequence[int] = _ROUNDS) -> int:
    """Compare an engine with the record, print, and return the exit status.

    Args:
        path: The record.
        argv: The engine's command.
        rounds: Of each attempt.

    Raises:
        NoVerdict: there is nothing to compare.
    """
    with path.open("rb") as file:
        expected = tomllib.load(file)
    slower = 0
    for name, ratio in expected["ratio"].items():
        start, limit = time.monotonic(), ratio * expected["margin"]
        now, attempts = _least_ratio(name, argv, rounds, limit)
        slower += now > limit
        print(
            f"{name:<24} {now:6.2f} x floor, {now / ratio - 1:+.0%} of {ratio:.2f} on record,"
            f" at most {limit:.2f}: {'SLOWER' if now > limit else 'fine'}"
            f" ({attempts} of {len(rounds)} attempts, {time.monotonic() - start:.0f} s)",
            flush=True,
        )
    if slower:
        print(f"{slower} of {len(expected['ratio'])} cases cost more than they did: see benchmarks/README.md")
    return int(slower > 0)


def record(
    path: Path, argv: Sequence[str], rounds: Sequence[int] = _ROUNDS, names: Sequence[str] = _RECORDED
) -> int:
    """Write what `check` compares with; the exit status.

    Raises:
        NoVerdict: the engine failed a case.
    """
    ratios = []
    for name in names:
        ratio, _ = _least_ratio(name, argv, rounds, enough=0)
        ratios.append(f'"{name}" = {ratio:.2f}')
        print(ratios[-1], flush=True)
    path.write_text(_RECORD.format(margin=_MARGIN, ratios="\n".join(ratios)))
    return 0


# The ratio of the least figures of all attempts, which end when it is low `enough`; and how many there were.
def _least_ratio(name: str, argv: Sequence[str], rounds: Sequence[int], enough: float) -> tuple[float, int]:
    case = attrs.evolve(_case(name), reference=None)
    cpu: list[float] = []
    floors: list[float] = []
    ratio = 0.0
    attempts = 0
    for count in rounds:
        attempts += 1
        with Bench(case, {OURS: argv}, _SHARE) as bench:
            for _ in range(count):
                bench.round()
        figures = bench.figures[OURS]
        if figures.failed:
            raise NoVerdict(f"{name}: {figures.failed}")
        cpu += figures.cpu
        floors += bench.floors
        ratio = min(cpu) / min(floors)
        if ratio <= enough:
            break
    return ratio, attempts


def _case(name: str) -> Case:
    for case in CASES:
        if case.name == name:
            return case
    raise NoVerdict(f"there is no case {name}: renew the record, see benchmarks/README.md")

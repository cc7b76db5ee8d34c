"""``python -m benchmarks.peers``: measure, print the table, write it down and draw it."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.peers.figures import Report
from benchmarks.peers.measure import Effort, StageFailed, pooled_row, run_pair
from benchmarks.peers.picture import draw
from benchmarks.peers.systems import PEERS, REFERENCES
from benchmarks.peers.table import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers.measure import Pair
    from benchmarks.peers.system import System

__all__ = ["main"]

_NAMES = [system.name for system in PEERS]


@click.command()
@click.option("--only", metavar="NAMES", help=f"These peers only, with commas between: {', '.join(_NAMES)}.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Rounds of each kind.")
@click.option(
    "--seconds",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="About how long a round lasts. Whatever starting and warming up takes comes on top.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures there."
)
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Draw them there, as SVG.")
@click.option(
    "--table", type=click.Path(path_type=Path, dir_okay=False), help="Write the table there as well."
)
def main(
    only: str | None,
    rounds: int,
    seconds: float,
    json_file: Path | None,
    picture: Path | None,
    table: Path | None,
) -> None:
    """The same work done by orbtrio and by other systems: what it costs them.

    Exit status 1: a system failed; the others are in the table nevertheless.
    """
    peers = _chosen(only)
    report = measure_all(peers, Effort(rounds=rounds, seconds=seconds), _command(only, rounds, seconds))
    click.echo(render(report))
    if report.rows:
        if json_file is not None:
            json_file.write_text(json.dumps(report.as_json(), indent=2) + "\n")
        if table is not None:
            table.write_text(render(report))
        if picture is not None:
            picture.write_text(draw(report))
    sys.exit(1 if report.failed else 0)


def measure_all(peers: Sequence[System], effort: Effort, command: str) -> Report:
    """Measure these peers one after the other, each beside its reference.

    Args:
        peers: Those that are not installed are skipped.
        effort: How much.
        command: For the report.
    """
    pairs: list[Pair] = []
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    for peer in peers:
        (reference,) = (each for each in REFERENCES if each.asked is peer.asked)
        missing = reference.missing() or peer.missing()
        if missing is not None:
            skipped[peer.name] = str(missing)
            _tell(f"{peer.name}: skipped, {missing}")
            continue
        began = time.monotonic()
        try:
            pairs.append(run_pair(peer, reference, effort))
        except StageFailed as error:
            failed[peer.name] = str(error)
            _tell(f"{peer.name}: failed, {error}")
        else:
            _tell(f"{peer.name}: measured beside {reference.name} in {time.monotonic() - began:.0f} s")
    beside = {reference: [pair for pair in pairs if pair.reference is reference] for reference in REFERENCES}
    return Report(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        command=command,
        machine=f"{os.cpu_count()} processors, {platform.system()}, Python {platform.python_version()}",
        rows=[
            *(pooled_row(reference, some) for reference, some in beside.items() if some),
            *(pair.row() for pair in pairs),
        ],
        skipped=skipped,
        failed=failed,
    )


def _chosen(only: str | None) -> list[System]:
    if only is None:
        return list(PEERS)
    wanted = {name.strip().lower() for name in only.split(",")}
    unknown = wanted - {name.lower() for name in _NAMES}
    if unknown:
        raise click.BadParameter(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(_NAMES)}")
    return [system for system in PEERS if system.name.lower() in wanted]


def _command(only: str | None, rounds: int, seconds: float) -> str:
    limited = f" --only '{only}'" if only else ""
    return f"python -m benchmarks.peers{limited} --rounds {rounds} --seconds {seconds:g}"


# Progress, which is none of the table's.
def _tell(what: str) -> None:
    click.echo(what, err=True)


if __name__ == "__main__":
    main()

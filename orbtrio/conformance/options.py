"""The options that commands of the suite share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ENGINE_OPTIONS", "RUN_OPTIONS", "WORKER_OPTIONS"]


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


RUN_OPTIONS: Final = _options(
    click.option("--profile", default="spec", show_default=True, help="spec, orbtrio, hardened; or a file."),
    click.option("--cases", multiple=True, metavar="PATTERN", help="Only these, e.g. 'ORB-BAT-*'."),
    click.option("--exclude", multiple=True, metavar="PATTERN", help="Not these."),
    click.option("--seed", type=int, help="For the same plans once more; printed by each run."),
    click.option(
        "--examples",
        default=200,
        show_default=True,
        type=click.IntRange(min=1),
        help="Most plans for a case.",
    ),
    click.option(
        "--max-seconds",
        default=60.0,
        show_default=True,
        type=click.FloatRange(min=0, max=1e6),
        help="For the whole run, about; each failure takes up to half a minute more.",
    ),
    click.option(
        "--report",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        help="Write index.html, report.json, junit.xml, summary.md and counterexamples there. What failed "
        "there before is tried first.",
    ),
)

ENGINE_OPTIONS: Final = _options(
    click.option("--url", help="Where an engine listens, e.g. ws://127.0.0.1:5000/ws."),
    click.option("--launch", metavar="CMD", help="Start an engine, with SERVER_PORT set to a free port."),
    click.option("--in-process", is_flag=True, help="orbtrio's own engine, in virtual time."),
    click.option(
        "--types",
        help="Worker types that the engine recognises, with commas. Default: the documented eight.",
    ),
    click.option(
        "--job-timeout",
        default=300.0,
        show_default=True,
        help="Seconds after which the target gives a job up, if it can be set to less.",
    ),
    click.option(
        "--max-job-timeout",
        default=300.0,
        show_default=True,
        help="Seconds that a job may ask for by itself, with the extension timeout_ms.",
    ),
    click.option(
        "--max-wait",
        default=12.0,
        show_default=True,
        help="Longest wait of a case in seconds; cases that need longer are skipped.",
    ),
    click.option(
        "--faketime",
        default=1.0,
        metavar="RATE",
        help="Run the target's clock so many times as fast, with libfaketime, and judge what takes minutes "
        "(the job timeout); 20 is a good rate. Needs --launch.",
    ),
    click.option(
        "--no-files",
        is_flag=True,
        help="The paths that workers are given are on another machine: skip what needs to look at files.",
    ),
    click.option("--i-own-this-host", is_flag=True, help="Allow a target that is not this machine."),
)


WORKER_OPTIONS: Final = _options(
    click.option("--type", "worker_type", help="WORKER_TYPE for the worker. Default: it knows itself."),
    click.option(
        "--inputs",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="What the worker can do: a job's input on each line, as JSON; {image} stands for a picture's "
        "path. Needed for types that the spec does not document.",
    ),
    click.option("--listen", metavar="HOST:PORT", help="Where it connects to. Default: a free port."),
)

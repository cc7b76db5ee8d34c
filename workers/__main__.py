"""``python -m workers``: which workers there are, one of them, or several.

The workers themselves are imported only when they are run: this program has to tell what is missing where
nothing is installed.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Final, NoReturn

import click
import trio

from orbtrio.errors import ConfigError

from . import _catalogue, _fleet

__all__ = ["main"]

_PROGRAM: Final = "python -m workers" if __package__ == "workers" else "orbtrio-worker"
_INDENT: Final = 20


class _Workers(click.Group):
    """The commands below, and one for each worker type that hands everything on to the worker."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """A command of ours, or a worker."""
        if name in _catalogue.KINDS:
            return _worker_command(name)
        return super().get_command(context, name)

    def list_commands(self, context: click.Context) -> list[str]:
        """Workers first, in the order of the spec."""
        return [*_catalogue.KINDS, *super().list_commands(context)]


def _worker_command(name: str) -> click.Command:
    # --help and whatever else comes is the worker's.
    return click.Command(
        name,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        callback=lambda arguments: _become(name, arguments),
        short_help=f"Worker: {_catalogue.KINDS[name].about}.",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )


def _become(name: str, arguments: tuple[str, ...]) -> None:
    sys.argv[1:] = arguments
    try:
        runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as error:
        builtin = _catalogue.KINDS[name].builtin or _catalogue.HUGGINGFACE
        command = _catalogue.look(builtin).command
        if error.name is None or not command:
            raise
        _refuse(f"{name} needs {error.name}, which is not installed: {command}")


@click.group(
    cls=_Workers,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.pass_context
def main(context: click.Context) -> None:
    """Run workers. Without a command: which there are, and how to install what they need.

    Each worker reads its settings from the environment: WORKER_SECRET at least; TYPE --help tells the rest.
    """
    if context.invoked_subcommand is None:
        _list()


@main.command(short_help="Run the workers of a TOML file, with restarts.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--check", is_flag=True, help="Only say whether the file is right.")
def run(file: Path, *, check: bool) -> None:
    """Run the workers that FILE asks for, and start them again when they end.

    \b
    [environment]                            # for all of them
    SERVER_URL = "ws://localhost:5000/ws"
    \b
    [[worker]]
    type = "embedding"
    count = 2
    env = { OMP_NUM_THREADS = "2" }          # for these
    \b
    [[worker]]
    type = "shout"                           # a worker of your own
    command = ["python", "shout.py"]

    WORKER_SECRET comes from the environment. SIGTERM and SIGINT are passed on; the fleet ends when its
    workers have finished what they have in hand, half a minute later at most. A worker that ends with status
    2, as one does whose settings cannot work, is not started again.
    """
    try:
        fleet = _fleet.read_fleet(file)
    except ConfigError as error:
        _refuse(str(error))
    if check:
        click.echo(f"{file}: {fleet}")
        return
    if not os.environ.get("WORKER_SECRET"):
        _refuse("WORKER_SECRET is not set: set it to the engine's, in the environment")
    sys.exit(trio.run(_fleet.run_fleet, fleet, dict(os.environ)))


@main.command(short_help="Draw what each vision worker makes of pictures.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("pictures", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--only", multiple=True, metavar="TYPE", help="Only these workers.")
def gallery(folder: Path, pictures: tuple[Path, ...], only: tuple[str, ...]) -> None:
    """Draw what each vision worker makes of PICTURES, or of some photographs, as FOLDER/TYPE.png.

    Without PICTURES those that scikit-image brings are taken. MODEL_ID counts, as it does for the workers.
    """
    try:
        from ._gallery import make_gallery
    except ModuleNotFoundError as error:
        _refuse(f"the gallery needs {error.name}: pip install pillow")
    try:
        made = make_gallery(folder, pictures, only, click.echo)
    except ConfigError as error:
        _refuse(str(error))
    sys.exit(0 if made else 1)


def _list() -> None:
    click.echo("Workers and their builtin models:\n")
    for name, kind in _catalogue.KINDS.items():
        state = _catalogue.look(kind.builtin) if kind.builtin is not None else None
        if kind.builtin is None or state is None:
            _entry(name, "MODEL_ID", f"{kind.about}; no builtin model, MODEL_ID={kind.example} or another")
        elif state.missing:
            _entry(name, "missing", f"{kind.about}: {kind.builtin.about}")
            click.echo(f"{'':{_INDENT}}           not installed: {', '.join(state.missing)}")
            click.echo(f"{'':{_INDENT}}           {state.command}")
        else:
            _entry(name, "ready", f"{kind.about}: {kind.builtin.about}")
    state = _catalogue.look(_catalogue.HUGGINGFACE)
    if state.missing:
        click.echo(f"\nMODEL_ID, for {_catalogue.HUGGINGFACE.about}, needs {', '.join(state.missing)}:")
        click.echo(f"  {state.command}")
    else:
        click.echo(f"\nMODEL_ID, for {_catalogue.HUGGINGFACE.about}: ready.")
    click.echo(
        f"\nOne:      WORKER_SECRET=… {_PROGRAM} TYPE             ({_PROGRAM} TYPE --help)"
        f"\nSeveral:  WORKER_SECRET=… {_PROGRAM} run FLEET.toml   ({_PROGRAM} run --help)"
        f"\nPictures: {_PROGRAM} gallery FOLDER"
    )


def _entry(name: str, state: str, text: str) -> None:
    click.echo(f"{name:{_INDENT}} {state:9} {text}")


def _refuse(text: str) -> NoReturn:
    click.echo(f"Error: {text}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main(prog_name=_PROGRAM)

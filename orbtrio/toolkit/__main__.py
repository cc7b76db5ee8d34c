"""``python -m orbtrio.toolkit [OPTIONS] -- PROGRAM …``: also installed as ``orbtrio-toolkit``.

Images call this program ``/opt/aiware/engine`` or ``/app/engine``: a link of that name to ``orbtrio-toolkit``
works, for everything that is no option of ours is the engine and its arguments.

The first SIGTERM or SIGINT finishes what is in hand, the second ends us and the engine at once. Exit status
0: told to stop, or RunTimeTTL is over. 1: the engine was never ready, or keeps ending before it is. 2:
settings that cannot work.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

import trio

from orbtrio._nursery import open_service_nursery
from orbtrio._polling import busy_polling
from orbtrio.errors import ConfigError
from orbtrio.toolkit.process import EngineUnusable, kill_engines
from orbtrio.toolkit.settings import load
from orbtrio.toolkit.sidecar import run_toolkit
from orbtrio.worker.program import log_to_stderr, watch_signals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orbtrio.toolkit.settings import ToolkitSettings

__all__ = ["main"]


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the toolkit and its engine until told to stop.

    Args:
        argv: Instead of the command line.
        environ: Instead of the environment.

    Returns:
        The exit status.
    """
    try:
        settings = load(sys.argv[1:] if argv is None else argv, environ)
        log_to_stderr(settings.worker.log_level)
        # A line for each call of the engine, with its URL and whatever token that holds, is nobody's wish.
        for library in ("anycorn", "coredis", "httpcore2", "httpx2"):
            logging.getLogger(library).setLevel(logging.WARNING)
        trio.run(_serve, settings, environ, clock=busy_polling(settings.worker.busy_poll_us / 1e6))
    except ConfigError as error:
        print(f"error: {error}\nsee python -m orbtrio.toolkit --help", file=sys.stderr)
        return 2
    except EngineUnusable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(settings: ToolkitSettings, environ: Mapping[str, str]) -> None:
    stop = trio.Event()
    async with open_service_nursery() as nursery:
        # The system's default would end us and leave the engine, which has a session of its own.
        await nursery.start(partial(watch_signals, stop, second=_end_at_once))
        await run_toolkit(settings, environ, stop=stop)


def _end_at_once(number: int, _: object) -> None:
    kill_engines()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


if __name__ == "__main__":
    sys.exit(main())

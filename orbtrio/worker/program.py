"""A worker as a program of its own: settings from the environment, a log on stderr, an end in good order.

With this, ``python -m workers.<type>`` is a model and one call. The model is loaded before the worker
registers, since jobs sent to a worker that is not ready would wait while others are idle.

Signals: the first SIGTERM or SIGINT lets the engine send what is left elsewhere, or finishes the batch in
hand if the engine knows nothing of that; all answers leave, the link is closed with 1000, the exit status is
0. From then on signals have their system default again, so that the second one ends the process at once, even
if handler or event loop hang.

Spec: "Configuration", "Load models once".
"""

from __future__ import annotations

import logging
import signal
import time
from typing import TYPE_CHECKING, Any, NoReturn

import click
import trio

from orbtrio._nursery import open_service_nursery
from orbtrio._polling import busy_polling
from orbtrio.errors import ConfigError
from orbtrio.worker.runtime import run_worker
from orbtrio.worker.settings import VARIABLES, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from orbtrio.worker.handlers import BatchHandler, Handler

__all__ = ["log_to_stderr", "run_program", "watch_signals"]

logger = logging.getLogger("orbtrio.worker")


def run_program(
    load: Callable[[WorkerSettings], Handler | BatchHandler],
    *,
    worker_type: str,
    batched: bool = False,
    concurrency: int = 1,
    with_jobs: bool = False,
    description: str | None = None,
    arguments: Sequence[str] | None = None,
) -> NoReturn:
    """Be a worker program: read the environment, load the model, serve until a signal comes, exit.

    Args:
        load: Called once, in a thread, with the settings; returns the handler for `run_worker`. If that has
            an attribute ``prepare``, inputs are prepared with it. A `ConfigError` that `load` raises is shown
            without a traceback, as those of the settings are.
        worker_type: What to serve where ``WORKER_TYPE`` is unset.
        batched: As in `run_worker`.
        concurrency: As in `run_worker`.
        with_jobs: As in `run_worker`.
        description: First lines of ``--help``.
        arguments: Instead of those of the command line.

    Exits with 0 after a signal, with 2 if the settings cannot work.
    """

    def serve() -> None:
        try:
            settings = WorkerSettings.from_environ(worker_type=worker_type)
            log_to_stderr(settings.log_level)
            options = {"batched": batched, "concurrency": concurrency, "with_jobs": with_jobs}
            trio.run(_serve, load, settings, options, clock=busy_polling(settings.busy_poll_us / 1e6))
        except ConfigError as error:
            raise _Unusable(str(error)) from None

    # Click wraps every paragraph that does not begin with \b, examples too.
    description = (description or "").replace("\n\n    ", "\n\n\b\n    ")
    command = click.Command(None, callback=serve, help=description, epilog=_variables(worker_type))
    command.main(arguments)


class _Unusable(click.ClickException):
    exit_code = 2


def _variables(worker_type: str) -> str:
    lines = ["\b", "Environment:"]
    for name, variable in VARIABLES.items():
        default = worker_type if name == "WORKER_TYPE" else variable.default
        lines.append(f"  {name:<20} {variable.help}" + (f" Default: {default}." if default else ""))
    return "\n".join(lines)


def log_to_stderr(level: str) -> None:
    """Set up the log of a program: lines on standard error, from a level on, as LOG_LEVEL names it."""
    logging.basicConfig(
        level={"warn": "WARNING"}.get(level.lower(), level.upper()),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


async def _serve(
    load: Callable[[WorkerSettings], Handler | BatchHandler],
    settings: WorkerSettings,
    options: dict[str, Any],
) -> None:
    stop = trio.Event()
    loading = trio.CancelScope()
    async with open_service_nursery() as nursery:
        await nursery.start(watch_signals, stop, loading)
        with loading:
            logger.info("loading the model for %s", settings.worker_type)
            began = time.monotonic()
            # Abandoned when a signal comes: nothing is in hand yet, and nothing waits for the thread at exit.
            handler = await trio.to_thread.run_sync(load, settings, abandon_on_cancel=True)
            logger.info("loaded in %.1f s", time.monotonic() - began)
        if not loading.cancelled_caught:
            prepare = getattr(handler, "prepare", None)
            await run_worker(handler, settings, prepare=prepare, stop=stop, **options)
    logger.info("stopped")


async def watch_signals(
    stop: trio.Event,
    loading: trio.CancelScope | None = None,
    *,
    second: Callable[[int, FrameType | None], object] | signal.Handlers = signal.SIG_DFL,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Wait for SIGTERM or SIGINT and tell the program to stop; the next one has its system default.

    Args:
        stop: What to set.
        loading: What to cancel, since nothing is in hand yet.
        second: What the next one is to do instead.
        task_status: Started when signals are heard.
    """
    # Before, since the receiver leaves behind what was there: so there is no moment at which a signal does
    # anything else.
    for which in (signal.SIGTERM, signal.SIGINT):
        signal.signal(which, second)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        number = await anext(aiter(signals))
    logger.info("%s: finishing what is in hand; a second signal ends at once", signal.Signals(number).name)
    stop.set()
    if loading is not None:
        loading.cancel()

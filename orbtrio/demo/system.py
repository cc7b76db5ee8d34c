"""An engine and its workers as processes, for as long as a block lasts.

Every process belongs to one nursery, and whoever works with them is that nursery's block. So there is one way
out whatever happens: the work is done, a process dies, somebody presses Ctrl-C or sends SIGTERM. The nursery
is cancelled, and a cancelled `trio.run_process` ends its process. What they print goes to files, because a
pipe that nobody reads would stop them; it is shown if one fails.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
from prometheus_client.parser import text_string_to_metric_families

from orbtrio._nursery import open_service_nursery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["ProcessFailed", "fetch_workers", "open_system"]

# Where ``python -m workers.…`` works: they are no part of the installed package.
_CHECKOUT: Final = Path(__file__).resolve().parents[2]
# What somebody has set for an engine or worker of their own is not meant for ours.
_SETTINGS: Final = ("CLIENT_", "LOG_LEVEL", "MAX_", "MODEL_ID", "ORB_", "SERVER_", "WORKER_")
_READY_TIMEOUT: Final = 30.0
_LINES_SHOWN: Final = 20


class ProcessFailed(Exception):
    """A process that should have gone on has ended; the text is the last that it said."""


@asynccontextmanager
async def open_system(folder: Path, workers: Mapping[str, str]) -> AsyncIterator[str]:
    """Run an engine and workers until the block is left; SIGTERM leaves it too.

    Args:
        folder: For what the engine stores and what each process prints.
        workers: For each worker a name and the module to run.

    Yields:
        Host and port of the engine, once all workers are registered. Jobs would wait for them, but the first
        to come would be given what is meant for several.

    Raises:
        ProcessFailed: one has ended, they do not find together, or we were told to stop.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)} | {
        "SERVER_HOST": "127.0.0.1",
        "SERVER_PORT": str(port),
        "SERVER_URL": f"ws://{address}/ws",
        "WORKER_SECRET": secrets.token_hex(),
        "XDG_DATA_HOME": str(folder),
    }
    async with open_service_nursery() as nursery:
        nursery.start_soon(_fail_on_sigterm)
        for name, module in {"engine": "orbtrio.engine", **workers}.items():
            nursery.start_soon(_run, module, environment, folder / f"{name}.log")
        await _wait_registered(address, len(workers))
        yield address


async def _run(module: str, environment: Mapping[str, str], log: Path) -> None:
    with log.open("wb") as output:
        # A session of its own, because Ctrl-C is meant for us: we end the processes in our own way.
        ended = await trio.run_process(
            [sys.executable, "-m", module],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=_CHECKOUT,
            env=environment,
            start_new_session=True,
        )
    raise ProcessFailed(f"python -m {module} ended with status {ended.returncode}:\n{_last_lines(log)}")


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:])


async def _fail_on_sigterm() -> None:
    # Without this the signal would end us on the spot and leave the processes to nobody.
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            raise ProcessFailed("stopped by SIGTERM")


async def _wait_registered(address: str, count: int) -> None:
    problem = ""
    with trio.move_on_after(_READY_TIMEOUT):
        while True:
            try:
                registered = len(await fetch_workers(address))
            except OSError as error:  # nobody listens yet
                problem = f"the engine does not answer: {error}"
            else:
                if registered == count:
                    return
                problem = f"{registered} of {count} workers have registered"
            await trio.sleep(0.05)
    raise ProcessFailed(f"{problem}, after {_READY_TIMEOUT:.0f} s")


async def fetch_workers(address: str) -> dict[str, dict[str, float]]:
    """What the engine counts about each worker, by the names in its ``/metrics``.

    Raises:
        OSError: the engine does not answer.
    """
    workers: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(await _fetch(f"http://{address}/metrics")):
        for sample in family.samples:
            if "worker" in sample.labels:
                workers.setdefault(sample.labels["worker"], {})[sample.name] = sample.value
    return workers


async def _fetch(url: str) -> str:
    def fetch() -> str:
        with urllib.request.urlopen(url, timeout=5) as response:
            return str(response.read(), "utf-8")

    return await trio.to_thread.run_sync(fetch)

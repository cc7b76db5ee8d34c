"""The HTTP engine as a process: started, asked until it is ready, watched, ended.

`run_engine` is one life of it. What it prints goes to our standard error with ``FROM ENGINE`` before each
line, as operators of the platform look for it. Its end is ours to see: SIGTERM, five seconds, then SIGKILL
for it and all that it has started. Whoever ends this program in a hurry calls `kill_engines`. (A toolkit that
is itself killed cannot do that; in a container the runtime does.)

Ready means that its ready webhook answers 200 (ET-67); 500 means that it never will be. Without such a
webhook it is ready when the port of its process webhook accepts, because engines exist that have none
(ET-65). An answer's body says nothing and is not read, for it may have no end. The path is used as it is
given: both /ready and /readyz are in use.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx2
import trio

from orbtrio._nursery import open_service_nursery
from orbtrio.errors import ConfigError, OrbError
from orbtrio.processes import LAST_WORDS, Relay, how_it_ended, kill_session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orbtrio.toolkit.settings import ToolkitSettings

__all__ = ["EngineEnded", "EngineUnusable", "kill_engines", "run_engine", "wait_ready"]

_NAME: Final = "FROM ENGINE"
# From SIGTERM to SIGKILL, in seconds.
_GRACE: Final = 5.0
# Between two questions whether it is ready; the first follow faster, for most engines start within a second.
_FIRST_POLL: Final = 0.1
_POLL: Final = 1.0
_ANSWER_TIMEOUT: Final = 5.0

# Those of this program that have not been ended.
_running: Final[set[trio.Process]] = set()


class EngineUnusable(OrbError):
    """The HTTP engine will never be ready, by its own word or by the time it has taken."""


class EngineEnded(OrbError):
    """The HTTP engine's process has ended; the text says how, and the last that it said."""


async def run_engine(
    settings: ToolkitSettings,
    environ: Mapping[str, str],
    client: httpx2.AsyncClient,
    *,
    on_end: Callable[[], None] = lambda: None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the HTTP engine until its process ends, or, when cancelled, end it.

    Args:
        settings: What to start, and where it will answer.
        environ: Its environment.
        client: To ask whether it is ready.
        on_end: Called as soon as its process has ended. The error comes later, when what it said has arrived.
        task_status: Started when it is ready.

    Raises:
        ConfigError: there is no such program.
        EngineUnusable: it was not ready in time, or says that it never will be.
        EngineEnded: its process has ended, before or after.
    """
    try:
        process = await trio.lowlevel.open_process(
            list(settings.command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Or what a Python program prints would arrive when its buffer is full.
            env={"PYTHONUNBUFFERED": "1", **environ},
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(f"cannot start the engine, {settings.command[0]}: {error.strerror}") from None
    _running.add(process)
    assert process.stdout is not None
    relay = Relay(_NAME, process.stdout, _print)
    try:
        async with open_service_nursery() as nursery:
            nursery.start_soon(relay.run)
            nursery.start_soon(_announce, settings, client, task_status)
            status = await process.wait()
            on_end()
            with trio.move_on_after(LAST_WORDS):
                await relay.done.wait()
            said = f"; the last it said: {relay.last_line:.500}" if relay.last_line else ""
            raise EngineEnded(f"the engine ended {how_it_ended(status)}{said}")
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)
        _running.discard(process)


def kill_engines() -> None:
    """Kill all that `run_engine` has started, at once. For whoever ends this program at once."""
    for process in _running:
        kill_session(process)


async def _announce(
    settings: ToolkitSettings, client: httpx2.AsyncClient, task_status: trio.TaskStatus[None]
) -> None:
    with trio.move_on_after(settings.ready_timeout):
        await wait_ready(settings, client)
        task_status.started()
        return
    where = settings.ready_url or settings.process_url
    raise EngineUnusable(
        f"the engine was not ready after {settings.ready_timeout:g} s: {where} did not say so; if it needs "
        "longer, raise ORB_TOOLKIT_READY_TIMEOUT"
    )


async def wait_ready(settings: ToolkitSettings, client: httpx2.AsyncClient) -> None:
    """Ask until the HTTP engine is ready.

    Raises:
        EngineUnusable: it answers 500.
    """
    wait = _FIRST_POLL
    while not await _is_ready(settings, client):
        await trio.sleep(wait)
        wait = min(2 * wait, _POLL)


async def _is_ready(settings: ToolkitSettings, client: httpx2.AsyncClient) -> bool:
    if settings.ready_url is None:
        parts = urlsplit(settings.process_url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        with suppress(OSError), trio.move_on_after(_ANSWER_TIMEOUT):
            await (await trio.open_tcp_stream(parts.hostname or "", port)).aclose()
            return True
        return False
    status = 0
    # By the clock: to the client a byte now and then is an answer, too.
    with suppress(httpx2.HTTPError), trio.move_on_after(_ANSWER_TIMEOUT):
        async with client.stream("GET", settings.ready_url) as answer:
            status = answer.status_code
    if status == 500:
        raise EngineUnusable(f"the engine says that it cannot work: {settings.ready_url} answers 500")
    return status == 200


async def _end(process: trio.Process) -> None:
    if process.returncode is None:
        process.terminate()
        with trio.move_on_after(_GRACE):
            await process.wait()
    kill_session(process)
    await process.wait()


async def _print(text: str) -> None:
    # In a thread, for standard error may be a pipe whose reader has stopped; nobody waits for it at the end.
    await trio.to_thread.run_sync(_write, text, abandon_on_cancel=True)


def _write(text: str) -> None:
    with suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()

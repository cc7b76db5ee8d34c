"""The test console as a part of the toolkit, with an HTTP engine as a process."""

from __future__ import annotations

import re
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

import orbtrio
from orbtrio._nursery import open_service_nursery
from orbtrio.conformance.sockets import free_port
from orbtrio.toolkit.settings import ToolkitSettings
from orbtrio.toolkit.sidecar import run_toolkit
from orbtrio.worker.settings import WorkerSettings
from tests.toolkit.test_console import OURS, body_of, events_of
from tests.toolkit.test_sidecar import ENGINE
from tests.toolkit.wire import Answer, ask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

PATIENCE = 50.0


def settings(directory: Path, server_url: str = "ws://localhost:1/ws", **changes: Any) -> ToolkitSettings:
    port = free_port()
    values: dict[str, Any] = {
        "engine_id": "sizes",
        "command": (sys.executable, "-c", ENGINE, str(port), str(directory / "crashed")),
        "process_url": f"http://127.0.0.1:{port}/process",
        "ready_url": f"http://127.0.0.1:{port}/ready",
        "cache_directory": directory / "cache",
        "worker": WorkerSettings(worker_type="et:sizes", worker_secret="s", server_url=server_url),
        "console": True,
    }
    return ToolkitSettings(**{**values, **changes})


async def send(port: int, chunk: bytes) -> Answer:
    """Send a job when the engine is ready."""
    with trio.fail_after(PATIENCE):
        while True:
            answer = await ask(port, "POST", "/console/jobs", body_of({}, chunk), OURS)
            if answer.status != 503:
                return answer
            await trio.sleep(0.02)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110  (what it looks at tells nobody)
            await trio.sleep(0.02)


def port_of(capsys: pytest.CaptureFixture[str]) -> int:
    found = re.search(r"test console: http://127\.0\.0\.1:(\d+)/console\n", capsys.readouterr().err)
    assert found
    return int(found[1])


async def test_the_console_needs_no_orb_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop = trio.Event()
    async with open_service_nursery() as nursery:
        run = partial(run_toolkit, settings(tmp_path, no_worker=True), {}, stop=stop)
        await nursery.start(run)
        port = port_of(capsys)
        assert (await ask(port, "GET", "/console", headers=OURS)).status == 200
        events = events_of(await send(port, b"###"))
        # One that takes the engine with it is refused in words, and those after its restart are not.
        crashed = events_of(await send(port, b"crash"))
        with trio.fail_after(PATIENCE):
            # Its end is noticed a moment later.
            while "error" in (again := events_of(await send(port, b"##")))[-1][1]:  # noqa: ASYNC110
                await trio.sleep(0.02)
        stop.set()
    assert [name for name, _ in events] == ["call", "answer", "done"]
    assert '"size": 3' in events[-1][1]["text"]
    assert crashed[-1][1]["error"].startswith("internal_error: no answer from the engine: ")
    assert '"size": 2' in again[-1][1]["text"]


async def test_console_and_worker_take_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop, ended = trio.Event(), []

    async def by_console(port: int) -> None:
        events = events_of(await send(port, f"wait {tmp_path / 'go'}\r\n".encode()))
        assert events[-1][1]["status"] == "complete"
        ended.append("console")

    async def by_client(url: str) -> None:
        async with orbtrio.connect(url) as client:
            await client.submit("et:sizes", {"chunk": orbtrio.Document("#")})
        ended.append("client")

    config = orbtrio.Config(worker_secret="s", server_port=0, xdg_data_home=tmp_path / "data")
    async with orbtrio.open_engine(config) as engine, open_service_nursery() as nursery:
        await nursery.start(
            partial(
                run_toolkit, settings(tmp_path, engine.addresses[0], cache_directory=tmp_path), {}, stop=stop
            )
        )
        async with trio.open_nursery() as both:
            both.start_soon(by_console, port_of(capsys))
            # The first one's directory is made before its call; the second one comes as far as the toolkit.
            await until(lambda: any(tmp_path.glob("1/task/*/*/tmp")))
            both.start_soon(by_client, engine.addresses[0])
            await until(lambda: any(worker.unanswered for worker in engine.statistics().workers))
            (tmp_path / "go").touch()
        stop.set()
    assert ended == ["console", "client"]

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

import orbtrio
from orbtrio.conformance.sockets import free_port
from orbtrio.toolkit import sidecar
from orbtrio.toolkit.process import EngineEnded, EngineUnusable
from orbtrio.toolkit.settings import ToolkitSettings
from orbtrio.toolkit.sidecar import keep_alive, run_toolkit
from orbtrio.worker.settings import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from trio.testing import MockClock

# Everything that a chunk engine needs, in the standard library. Told to crash, it does so once; told to wait,
# it does so until there is the file that is named in the chunk.
ENGINE: Final = """
import http.server, os, pathlib, re, subprocess, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, b"")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        crashed = pathlib.Path(sys.argv[2])
        if b"crash" in body and not crashed.exists():
            crashed.touch()
            # What it leaves behind keeps its output open.
            subprocess.Popen(["sleep", "3"], start_new_session=True)
            os._exit(3)
        for path in re.findall(b"wait (.+?)\\r?\\n", body):
            while not os.path.exists(path):
                time.sleep(0.05)
        self.answer(200, b'{"object": [{"size": %d}]}' % body.count(b"#"))
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Stage:
    """An ORB engine in this process, and what a toolkit needs to serve it."""

    def __init__(self, engine: orbtrio.Engine, directory: Path) -> None:
        self.engine = engine
        self.stop = trio.Event()
        self._directory = directory

    def settings(self, **changes: Any) -> ToolkitSettings:
        port = free_port()
        url = self.engine.addresses[0]
        values: dict[str, Any] = {
            "engine_id": "sizes",
            "command": (sys.executable, "-c", ENGINE, str(port), str(self._directory / "crashed")),
            "process_url": f"http://127.0.0.1:{port}/process",
            "ready_url": f"http://127.0.0.1:{port}/readyz",
            "cache_directory": self._directory / "cache",
            "worker": WorkerSettings(worker_type="et:sizes", worker_secret="secret", server_url=url),
        }
        return ToolkitSettings(**{**values, **changes})

    async def ask(self, text: str) -> Any:
        with trio.fail_after(50):
            return await self.engine.submit("et:sizes", {"chunk": orbtrio.Document(text)})


@asynccontextmanager
async def open_stage(directory: Path) -> AsyncIterator[Stage]:
    config = orbtrio.Config(worker_secret="secret", server_port=0, xdg_data_home=directory)
    async with orbtrio.open_engine(config) as engine:
        yield Stage(engine, directory)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_stage(tmp_path) as stage:
        yield stage


# --- All of it -----------------------------------------------------------------------------------------


async def test_et_12_jobs_are_done_by_an_http_engine(stage: Stage, nursery: trio.Nursery) -> None:
    await nursery.start(
        lambda task_status: run_toolkit(stage.settings(), {}, stop=stage.stop, task_status=task_status)
    )
    output = await stage.ask("###")
    assert output["status"] == "complete"
    assert output["outputs"][0]["output"]["object"] == [{"size": 3}]
    stage.stop.set()


async def test_engine_that_crashes_is_started_again_and_its_job_is_done(
    stage: Stage, nursery: trio.Nursery
) -> None:
    nursery.start_soon(lambda: run_toolkit(stage.settings(concurrency=2), {}, stop=stage.stop))
    output = await stage.ask("crash ##")
    assert output["outputs"][0]["output"]["object"] == [{"size": 2}]
    stage.stop.set()


async def eventually(condition: Callable[[], bool]) -> None:
    with trio.fail_after(50):
        while True:
            if condition():
                return
            await trio.sleep(0.02)


async def test_no_job_waits_behind_a_long_one_that_another_instance_could_begin(
    stage: Stage, nursery: trio.Nursery, tmp_path: Path
) -> None:
    def unanswered() -> list[int]:
        return [worker.unanswered for worker in stage.engine.statistics().workers]

    nursery.start_soon(lambda: run_toolkit(stage.settings(), {}, stop=stage.stop))
    async with trio.open_nursery() as asking:
        asking.start_soon(stage.ask, f"wait {tmp_path / 'go'}\n")
        asking.start_soon(stage.ask, f"wait {tmp_path / 'go'}\n")
        await eventually(lambda: unanswered() == [1])
        nursery.start_soon(lambda: run_toolkit(stage.settings(), {}, stop=stage.stop))
        await eventually(lambda: unanswered() == [1, 1])
        (tmp_path / "go").touch()
    stage.stop.set()


async def test_a_job_that_its_client_takes_back_frees_the_engine_for_the_next(
    stage: Stage, nursery: trio.Nursery, tmp_path: Path
) -> None:
    nursery.start_soon(lambda: run_toolkit(stage.settings(), {}, stop=stage.stop))
    async with trio.open_nursery() as asking:
        asking.start_soon(stage.ask, f"wait {tmp_path / 'never'}\n")
        await eventually(lambda: any(worker.unanswered for worker in stage.engine.statistics().workers))
        asking.cancel_scope.cancel()
    assert (await stage.ask("#"))["status"] == "complete"
    stage.stop.set()


async def test_jobs_reach_neither_the_toolkit_nor_the_orb_engine(stage: Stage, nursery: trio.Nursery) -> None:
    settings = stage.settings(port=free_port())
    await nursery.start(
        lambda task_status: run_toolkit(settings, {}, stop=stage.stop, task_status=task_status)
    )
    for url in (f"http://localhost:{settings.port}/x", stage.engine.addresses[0].replace("ws:", "http:")):
        with trio.fail_after(50), pytest.raises(orbtrio.JobFailed, match="url_not_allowed"):
            await stage.engine.submit("et:sizes", {"cacheURI": url})
    stage.stop.set()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://host:99/ws", ("host", 99)),
        ("ws://host/ws", ("host", 80)),
        ("wss://[::1]/ws", ("::1", 443)),
    ],
)
def test_where_the_orb_engine_is(url: str, expected: tuple[str, int]) -> None:
    assert sidecar._host_and_port(url) == expected


async def test_et_15_runtime_ttl_ends_it(stage: Stage) -> None:
    with trio.fail_after(50):
        await run_toolkit(stage.settings(runtime_ttl=0.01), {})


async def test_et_88_what_earlier_tasks_have_left_is_purged_from_the_start(
    stage: Stage, nursery: trio.Nursery, tmp_path: Path
) -> None:
    left = tmp_path / "cache" / "1" / "task" / "job" / "task"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    nursery.start_soon(lambda: run_toolkit(stage.settings(), {}, stop=stage.stop))
    await eventually(lambda: not left.exists())
    stage.stop.set()


async def test_what_is_in_hand_has_as_long_as_an_engine_may_take(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    async def run_worker(*_: Any, **options: Any) -> None:
        given.update(options)

    monkeypatch.setattr(sidecar, "run_worker", run_worker)
    with trio.fail_after(50):
        await run_toolkit(stage.settings(max_ttl=77.0), {}, stop=stage.stop)
    assert given["drain_timeout"] == 77


async def test_stopped_while_the_engine_starts(stage: Stage) -> None:
    settings = stage.settings(command=(sys.executable, "-c", "import time; time.sleep(999)"))
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: run_toolkit(settings, {}, stop=stage.stop, task_status=task_status)
        )
        stage.stop.set()


async def test_what_fails_after_the_server_has_started_ends_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(url: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sidecar, "_host_and_port", fail)
    with trio.fail_after(50), pytest.raises(ZeroDivisionError):
        await run_toolkit(stage.settings(), {}, stop=stage.stop)


async def test_engine_that_is_never_ready_ends_it(stage: Stage) -> None:
    command = (sys.executable, "-c", "import time; time.sleep(999)")
    with pytest.raises(EngineUnusable, match=r"not ready after 0\.1 s"), trio.fail_after(50):
        await run_toolkit(stage.settings(command=command, ready_timeout=0.1), {}, stop=stage.stop)


async def test_redis_need_not_be_there_yet(stage: Stage, nursery: trio.Nursery) -> None:
    settings = stage.settings(redis=("127.0.0.1", free_port()))
    nursery.start_soon(lambda: run_toolkit(settings, {}, stop=stage.stop))
    assert (await stage.ask("#"))["status"] == "complete"
    stage.stop.set()


# --- One life after the other --------------------------------------------------------------------------


class Lives:
    """Lives of an engine: so long until it is ready, None for never, and so long in all."""

    def __init__(self, *lives: tuple[float | None, float]) -> None:
        self.begun: list[float] = []
        self._lives = iter(lives)

    async def live(self, ready: trio.Event) -> None:
        self.begun.append(trio.current_time())
        until_ready, length = next(self._lives)
        if until_ready is not None:
            await trio.sleep(until_ready)
            ready.set()
        await trio.sleep(length - (until_ready or 0))
        raise EngineEnded("the engine ended with status 1")


async def test_waits_grow_and_begin_anew_after_a_long_life(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    lives = Lives(*[(0, 1)] * 9, (0, 60), (0, 1), (0, 10_000))
    stop = trio.Event()
    nursery.start_soon(keep_alive, lives.live, stop)
    await trio.sleep(2000)
    ends = [began + 1 for began in lives.begun[:9]] + [lives.begun[9] + 60, lives.begun[10] + 1]
    waits = [began - end for began, end in zip(lives.begun[1:], ends, strict=True)]
    assert waits == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30, 30, 0.5, 1])
    nursery.cancel_scope.cancel()


async def test_five_false_starts_are_enough(autojump_clock: MockClock) -> None:
    lives = Lives(*[(None, 1)] * 9)
    with pytest.raises(EngineUnusable, match="with status 1; it has ended 5 times before it was ready"):
        await keep_alive(lives.live, trio.Event())


async def test_false_starts_count_in_a_row(autojump_clock: MockClock) -> None:
    lives = Lives(*[(None, 1)] * 4, (0, 1), *[(None, 1)] * 9)
    with pytest.raises(EngineUnusable):
        await keep_alive(lives.live, trio.Event())
    assert len(lives.begun) == 10


@pytest.mark.parametrize("at", [0.5, 1.2])
async def test_no_other_life_after_a_stop(
    at: float, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    lives, stop = Lives((0, 1), (0, 1)), trio.Event()

    async def stop_later() -> None:
        await trio.sleep(at)
        stop.set()

    nursery.start_soon(stop_later)
    await keep_alive(lives.live, stop)
    assert lives.begun == [0]


async def test_life_that_ends_well_is_the_last(autojump_clock: MockClock) -> None:
    async def live(ready: trio.Event) -> None:
        return None

    await keep_alive(live, trio.Event())


# --- Purge ---------------------------------------------------------------------------------------------


async def test_et_88_scratch_directories_are_purged_again_and_again(nursery: trio.Nursery) -> None:
    purged: list[Any] = []
    often = trio.Event()

    class Directories:
        def purge(self, open_tasks: Any) -> None:
            purged.append(open_tasks)
            if len(purged) == 3:
                trio.from_thread.run_sync(often.set)

    class Items:
        tasks: Final = frozenset({("job", "task")})

    directories: Any = Directories()
    items: Any = Items()
    nursery.start_soon(sidecar._purge, directories, items, 0)
    await often.wait()
    assert purged[:3] == [Items.tasks] * 3
    nursery.cancel_scope.cancel()

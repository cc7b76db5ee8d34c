"""What a worker and an engine say to each other beyond batches and answers, and never to a stock one.

Where handlers run in threads, time is real: nothing here waits for any of it.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio
import trio.testing

from orbtrio.errors import ConnectionLost
from orbtrio.protocol.messages import EXTENSIONS
from orbtrio.testing.clock import wait_until_idle
from orbtrio.worker import Job, WorkerSettings, run_worker
from orbtrio.worker import link as link_module
from tests.worker.fake_engine import FakeEngine, InterruptAt

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from tests.worker.fake_engine import EngineLink

    Start: TypeAlias = Callable[..., trio.CancelScope]

SETTINGS = WorkerSettings(worker_type="echo", worker_secret="hush", max_batch_size=8)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(announce=EXTENSIONS)


@pytest.fixture
def start(engine: FakeEngine, nursery: trio.Nursery) -> Start:
    """Start a worker in the background; its cancel scope."""

    def start_worker(
        handler: Callable[[Any], Any], *, settings: WorkerSettings = SETTINGS, **options: Any
    ) -> trio.CancelScope:
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await run_worker(handler, settings, open_stream=engine.open_stream, **options)

        nursery.start_soon(run)
        return scope

    return start_worker


async def echo(job_input: dict[str, Any]) -> dict[str, Any]:
    """A model that is done after ``delay`` seconds."""
    await trio.sleep(job_input.get("delay", 0))
    return {"echo": job_input}


async def receive_reports(link: EngineLink, count: int) -> list[dict[str, Any]]:
    """The next reports, from as many messages as it takes."""
    reports: list[dict[str, Any]] = []
    while len(reports) < count:
        message = await link.receive()
        assert message["type"] == "worker_progress"
        reports += message["progress"]
    return reports


# --- Backlog ----------------------------------------------------------------------------------------------


async def test_backlog_is_bounded_and_the_link_survives_it(
    engine: FakeEngine,
    start: Start,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(link_module, "MAX_BACKLOG", 100_000)
    worker = start(echo)
    async with engine.registered() as link:
        for n in range(40):
            link.send_jobs(**{f"job-{n}": {"delay": 1, "data": bytes(10_000)}})
            await trio.testing.wait_all_tasks_blocked()
        results = await link.receive_results(40)
        assert len(results) == 40
        worker.cancel()
    assert any("not reading more" in line for line in caplog.messages)


# --- Budget -----------------------------------------------------------------------------------------------


# 10,000 boxes are 70 % of what a message may cost.
BOXES = [{"id": number, "label": "cat", "box": [number, 1000 * number, 0.5, 7]} for number in range(10_000)]


async def test_batch_may_cost_what_each_of_its_jobs_may(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    async def count(job_input: dict[str, Any]) -> dict[str, Any]:
        return {"boxes": len(job_input["boxes"])}

    worker = start(count)
    async with engine.registered() as link:
        jobs = {f"job-{number}": {"boxes": BOXES} for number in range(4)}
        link.send_jobs(**jobs)
        results = await link.receive_results(4)
        assert {job_id: result["boxes"] for job_id, result in results.items()} == dict.fromkeys(jobs, 10_000)
        worker.cancel()


# --- Side by side -----------------------------------------------------------------------------------------


@pytest.fixture
def stock() -> FakeEngine:
    """In place of `engine`, for what must hold at any."""
    return FakeEngine()


async def test_slot_that_is_free_takes_the_oldest_job_whatever_batch_it_came_in(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    worker = start(echo, concurrency=2)
    async with engine.registered() as link:
        link.send_jobs(a={"delay": 10}, b={"delay": 1}, c={"delay": 2})
        link.send_jobs(d={"delay": 3}, e={"delay": 1})
        link.send({"inputs": []})
        for job_ids, at in (({"b"}, 1), ({"c"}, 3), ({"d"}, 6), ({"e"}, 7)):
            assert (await link.receive_results(1)).keys() == job_ids
            assert trio.current_time() == at
        assert await link.receive() == {"type": "worker_output", "output": []}
        assert (await link.receive_results(1)).keys() == {"a"}
        assert trio.current_time() == 10
        worker.cancel()


async def test_slots_are_threads_where_the_handler_is_no_task(engine: FakeEngine, start: Start) -> None:
    def handler(job_input: dict[str, Any]) -> dict[str, Any]:
        assert released.wait(50) if job_input["wait"] else True
        return {}

    released = threading.Event()
    worker = start(handler, concurrency=2)
    async with engine.registered() as link:
        link.send_jobs(a={"wait": True})
        link.send_jobs(b={"wait": False})
        assert await link.receive_results(1) == {"b": {}}
        released.set()
        assert await link.receive_results(1) == {"a": {}}
        worker.cancel()


async def test_cancelled_job_frees_its_slot_and_those_behind_it_are_not_run(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    began: list[str] = []

    async def handler(job: Job) -> dict[str, Any]:
        began.append(job.job_id)
        return await echo(job.input)

    worker = start(handler, concurrency=2, with_jobs=True)
    async with engine.registered() as link:
        for job_id in "abcd":
            link.send_jobs(**{job_id: {"delay": 9}})
        await trio.sleep(1)
        link.send_cancel("b", "c")
        cancelled = {"error": "cancelled"}
        assert await link.receive_results(2) == {"b": cancelled, "c": cancelled}
        assert trio.current_time() == 1
        await link.receive_results(2)
        assert trio.current_time() == 10
        worker.cancel()
    assert began == ["a", "b", "d"]


async def test_stopped_at_a_stock_engine_it_finishes_what_has_begun(
    stock: FakeEngine, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stop = trio.Event()
    options: dict[str, Any] = {"stop": stop, "concurrency": 2, "open_stream": stock.open_stream}
    nursery.start_soon(partial(run_worker, echo, SETTINGS, **options))
    async with stock.registered() as link:
        link.send_jobs(a={"delay": 9}, b={"delay": 5}, c={"delay": 5})
        link.send_jobs(d={"delay": 5})
        await trio.sleep(1)
        stop.set()
        assert (await link.receive_results(3)).keys() == {"a", "b", "c"}
        assert trio.current_time() == 10
        with pytest.raises(ConnectionLost, match="1000"):
            await link.receive()


async def test_stopped_while_a_slot_is_free_it_takes_no_more(
    stock: FakeEngine, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stop = trio.Event()
    options: dict[str, Any] = {"stop": stop, "concurrency": 2, "open_stream": stock.open_stream}
    nursery.start_soon(partial(run_worker, echo, SETTINGS, **options))
    async with stock.registered() as link:
        link.send_jobs(a={"delay": 9})
        await trio.sleep(1)
        stop.set()
        await trio.sleep(1)
        link.send_jobs(b={})
        assert (await link.receive_results(1)).keys() == {"a"}
        with pytest.raises(ConnectionLost, match="1000"):
            await link.receive()


# --- Progress ---------------------------------------------------------------------------------------------


async def write_async(job: Job) -> dict[str, Any]:
    for n in range(job.input["pieces"]):
        await trio.sleep(1)
        job.report(text=f"{n} ")
    return {"pieces": job.input["pieces"]}


def write(job: Job) -> dict[str, Any]:
    for n in range(job.input["pieces"]):
        job.report(text=f"{n} ")
    return {"pieces": job.input["pieces"]}


def write_all(jobs: list[Job]) -> list[dict[str, Any]]:
    return [write(job) for job in jobs]


async def test_reports_arrive_as_they_are_made(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    worker = start(write_async, with_jobs=True)
    async with engine.registered() as link:
        link.send_jobs(a={"pieces": 3})
        for n in range(3):
            assert await receive_reports(link, 1) == [{"id": "a", "text": f"{n} "}]
            assert trio.current_time() == n + 1
        assert await link.receive_results(1) == {"a": {"pieces": 3}}
        worker.cancel()


@pytest.mark.parametrize(("handler", "batched"), [(write, False), (write_all, True)])
async def test_reports_of_a_thread_arrive_in_order_before_the_answer(
    engine: FakeEngine, start: Start, handler: Callable[[Any], Any], batched: bool
) -> None:
    worker = start(handler, batched=batched, with_jobs=True)
    async with engine.registered() as link:
        link.send_jobs(a={"pieces": 50}, b={"pieces": 20})
        reports = await receive_reports(link, 70)
        assert reports == [
            {"id": job_id, "text": f"{n} "}
            for job_id, pieces in (("a", 50), ("b", 20))
            for n in range(pieces)
        ]
        assert await link.receive_results(2) == {"a": {"pieces": 50}, "b": {"pieces": 20}}
        worker.cancel()


async def test_stock_engine_gets_nothing_that_it_does_not_know(nursery: trio.Nursery) -> None:
    """P-60."""
    engine = FakeEngine()
    stop = trio.Event()
    nursery.start_soon(
        lambda: run_worker(write, SETTINGS, with_jobs=True, stop=stop, open_stream=engine.open_stream)
    )
    async with engine.registered() as link:
        link.send({"inputs": [{"id": "a", "input": {"pieces": 9}}], "resources": "its own business"})
        assert await link.receive() == {"type": "worker_output", "output": [{"id": "a", "pieces": 9}]}
        stop.set()
        with pytest.raises(ConnectionLost, match="1000"):
            await link.receive()


async def test_endless_generator_waits_for_an_engine_that_does_not_read(nursery: trio.Nursery) -> None:
    engine = FakeEngine(narrow=True, announce=EXTENSIONS)
    pieces = 0
    enough = trio.Event()
    event_loop = trio.lowlevel.current_trio_token()

    def handler(job: Job) -> dict[str, Any]:
        nonlocal pieces
        while True:
            job.report(data=bytes(100_000))
            pieces += 1
            if pieces == 40:  # 4 MiB may wait.
                event_loop.run_sync_soon(enough.set)

    nursery.start_soon(lambda: run_worker(handler, SETTINGS, with_jobs=True, open_stream=engine.open_stream))
    async with engine.registered() as link:
        link.send_jobs(a={})
        await enough.wait()
        await trio.sleep(0.05)
        assert pieces < 100
        link.send_cancel("a")
        while (message := await link.receive())["type"] == "worker_progress":
            pass
        assert message["output"] == [{"id": "a", "error": "cancelled"}]
        nursery.cancel_scope.cancel()


# --- Cancelling -------------------------------------------------------------------------------------------


async def test_cancelled_jobs_are_answered_and_cost_nothing(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    """The one that runs, the ones behind it, and those of the next batch; unknown ids are ignored."""
    worker = start(echo)
    async with engine.registered() as link:
        link.send_jobs(a={"delay": 100}, b={"delay": 100}, c={"n": 1})
        link.send_jobs(d={"delay": 100}, e={"n": 2})
        await trio.sleep(1)
        link.send_cancel("a", "b", "d", "nobody")
        assert await link.receive_results(5) == {
            "a": {"error": "cancelled"},
            "b": {"error": "cancelled"},
            "c": {"echo": {"n": 1}},
            "d": {"error": "cancelled"},
            "e": {"echo": {"n": 2}},
        }
        assert trio.current_time() < 2
        link.send_cancel("a", "c")  # Answered already: both messages were on their way.
        link.send_jobs(f={"n": 3})
        assert await link.receive_results(1) == {"f": {"echo": {"n": 3}}}
        worker.cancel()


async def test_thread_that_reports_stops_by_itself(engine: FakeEngine, start: Start) -> None:
    def handler(job: Job) -> dict[str, Any]:
        while job.input["endless"]:
            job.report(beat=True)
        return {}

    worker = start(handler, with_jobs=True)
    async with engine.registered() as link:
        link.send_jobs(a={"endless": True}, b={"endless": False})
        assert (await receive_reports(link, 1))[0] == {"id": "a", "beat": True}
        link.send_cancel("a")
        while (message := await link.receive())["type"] == "worker_progress":
            pass
        output = message["output"]
        while len(output) < 2:  # its thread may be slow to begin
            output += (await link.receive())["output"]
        assert output == [{"id": "a", "error": "cancelled"}, {"id": "b"}]
        worker.cancel()


async def test_cancel_of_a_stock_engine_is_odd(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    engine = FakeEngine()
    nursery.start_soon(lambda: run_worker(echo, SETTINGS, open_stream=engine.open_stream))
    async with engine.registered() as link:
        link.send_jobs(a={"delay": 1})
        await trio.sleep(0.5)
        link.send_cancel("a")
        assert await link.receive_results(1) == {"a": {"echo": {"delay": 1}}}
        nursery.cancel_scope.cancel()
    assert "skipped a UnknownMessage, which is nothing for a worker" in caplog.messages


async def test_jobs_of_a_lost_link_are_cancelled(engine: FakeEngine, start: Start) -> None:
    heard: list[str] = []

    def handler(job: Job) -> dict[str, Any]:
        if job.job_id == "b":
            return {}
        started.set()
        while not job.cancelled:
            over.wait(0.001)
        heard.append(job.job_id)
        return {}

    started, over = threading.Event(), threading.Event()
    worker = start(handler, with_jobs=True)
    async with engine.registered() as link:
        link.send_jobs(a={})
        await trio.to_thread.run_sync(started.wait)
    async with engine.registered() as link:
        link.send_jobs(b={})
        assert await link.receive_results(1) == {"b": {}}
        worker.cancel()
    assert heard == ["a"]


async def test_jobs_of_a_worker_that_is_cancelled_are_cancelled(engine: FakeEngine, start: Start) -> None:
    def handler(job: Job) -> dict[str, Any]:
        started.set()
        while True:
            job.check_cancelled()
            over.wait(0.001)

    started, over = threading.Event(), threading.Event()
    worker = start(handler, with_jobs=True)
    async with engine.registered() as link:
        link.send_jobs(a={})
        await trio.to_thread.run_sync(started.wait)
        worker.cancel()
        with pytest.raises(ConnectionLost, match="1001"):
            await link.receive()


# --- Draining ---------------------------------------------------------------------------------------------


async def test_drained_worker_answers_all_that_arrives_until_the_engine_closes(
    engine: FakeEngine, start: Start, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    stop = trio.Event()
    start(echo, stop=stop)
    async with engine.registered() as link:
        link.send_jobs(a={"delay": 5}, b={"delay": 5})
        await trio.sleep(1)
        stop.set()
        await trio.testing.wait_all_tasks_blocked()
        link.send_jobs(c={"delay": 5})  # It was on its way.
        assert await link.receive() == {"type": "worker_drain"}
        assert (await link.receive_results(3)).keys() == {"a", "b", "c"}
    await trio.sleep(100)
    assert len(engine.attempts) == 1
    assert not any(record.levelname == "WARNING" for record in caplog.records)


async def test_engine_that_does_not_let_go_is_left(
    engine: FakeEngine, start: Start, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    stop = trio.Event()
    start(echo, stop=stop, drain_timeout=30)
    async with engine.registered() as link:
        stop.set()
        assert await link.receive() == {"type": "worker_drain"}
        link.send_jobs(a={"delay": 50}, b={"delay": 50})
        link.send_jobs(c={"delay": 50})
        assert (await link.receive_results(2)).keys() == {"a", "b"}  # The batch in hand.
        with pytest.raises(ConnectionLost, match="1000"):
            await link.receive()
    assert "the engine has not let go of us within 30 s" in caplog.messages


async def test_engine_that_is_lost_while_draining_is_not_sought_again(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    stop = trio.Event()
    start(echo, stop=stop)
    async with engine.registered() as link:
        link.send_jobs(a={"delay": 5})
        stop.set()
        assert await link.receive() == {"type": "worker_drain"}
        await link.stream.aclose()
    await trio.sleep(100)
    assert len(engine.attempts) == 1


async def _drain_at(step: int, concurrency: int) -> tuple[int, int]:
    """Two batches with reports, and a wish to stop after so many steps; answers and steps."""
    engine, stop = FakeEngine(announce=EXTENSIONS), trio.Event()
    seen: dict[str, list[str]] = {"a": [], "b": [], "c": [], "d": []}

    async def handler(job: Job) -> dict[str, Any]:
        job.report(half=True)
        await trio.sleep(1)
        return {}

    async def play() -> None:
        # Stopped before it has said a word.
        with suppress(ConnectionLost):
            async with engine.registered() as link:
                link.send_jobs(a={}, b={})
                draining = False
                while not draining or not all("output" in kinds for kinds in seen.values()):
                    message = await link.receive()
                    draining |= message["type"] == "worker_drain"
                    for kind in message.keys() - {"type"}:
                        for entry in message[kind]:
                            seen[entry["id"]].append(kind)
                            if entry["id"] == "a" and kind == "output":
                                link.send_jobs(c={}, d={})
                    if all(seen.values()):
                        stop.set()

    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play)
            instrument = InterruptAt(step, stop.set)
            trio.lowlevel.add_instrument(instrument)
            options: dict[str, Any] = {
                "with_jobs": True,
                "concurrency": concurrency,
                "open_stream": engine.open_stream,
            }
            await run_worker(handler, SETTINGS, stop=stop, **options)
            trio.lowlevel.remove_instrument(instrument)
            nursery.cancel_scope.cancel()
    assert len(engine.attempts) <= 1
    assert all(kinds in ([], ["progress", "output"]) for kinds in seen.values())
    return sum(map(bool, seen.values())), instrument.steps


@pytest.mark.parametrize("concurrency", [1, 3])
def test_drained_at_any_moment_nothing_is_lost(concurrency: int) -> None:
    outcomes: set[int] = set()
    step, steps = 1, 1
    while step <= steps:
        answers, steps = trio.run(
            _drain_at, step, concurrency, clock=trio.testing.MockClock(autojump_threshold=0)
        )
        outcomes.add(answers)
        step += 1
    assert outcomes == {0, 4}


# --- Preparing --------------------------------------------------------------------------------------------


async def test_next_batches_are_prepared_while_one_is_computed(engine: FakeEngine, start: Start) -> None:
    """Two of them, and no more."""
    prepared: list[int] = []
    third, release = trio.Event(), trio.Event()
    event_loop = trio.lowlevel.current_trio_token()

    def prepare(job_input: dict[str, Any]) -> int:
        prepared.append(job_input["n"])
        if len(prepared) == 3:
            event_loop.run_sync_soon(third.set)
        return int(job_input["n"]) * 10

    async def handler(value: int) -> dict[str, Any]:
        await release.wait()
        return {"value": value}

    worker = start(handler, prepare=prepare)
    async with engine.registered() as link:
        for n in range(5):
            link.send_jobs(**{f"job-{n}": {"n": n}})
        await third.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert prepared == [0, 1, 2]
        release.set()
        assert await link.receive_results(5) == {f"job-{n}": {"value": 10 * n} for n in range(5)}
        worker.cancel()


async def test_two_jobs_are_prepared_ahead_of_those_in_the_slots(engine: FakeEngine, start: Start) -> None:
    """And no more. Those for the slots are prepared at the same time."""
    prepared: list[int] = []
    together = threading.Barrier(3)
    fifth, release = trio.Event(), trio.Event()
    event_loop = trio.lowlevel.current_trio_token()

    def prepare(job_input: dict[str, Any]) -> int:
        n = int(job_input["n"])
        if n < 3:
            together.wait(50)
        prepared.append(n)
        if len(prepared) == 5:
            event_loop.run_sync_soon(fifth.set)
        return n * 10

    async def handler(value: int) -> dict[str, Any]:
        began.append(value)
        await release.wait()
        return {"value": value}

    began: list[int] = []
    worker = start(handler, prepare=prepare, concurrency=3)
    async with engine.registered() as link:
        for n in range(9):
            link.send_jobs(**{f"job-{n}": {"n": n}})
        await fifth.wait()
        await wait_until_idle()
        assert sorted(prepared) == [0, 1, 2, 3, 4]
        assert began == [0, 10, 20]
        release.set()
        assert await link.receive_results(9) == {f"job-{n}": {"value": 10 * n} for n in range(9)}
        assert began == [10 * n for n in range(9)]
        worker.cancel()


async def test_batches_without_jobs_are_no_way_around_the_bound(engine: FakeEngine, start: Start) -> None:
    def prepare(job_input: dict[str, Any]) -> dict[str, Any]:
        assert released.wait(50)
        return job_input

    released = threading.Event()
    worker = start(echo, prepare=prepare, concurrency=2)
    async with engine.registered() as link:
        link.send_jobs(a={})
        for _ in range(5):
            link.send({"inputs": []})
        await trio.testing.wait_all_tasks_blocked(0.01)
        released.set()
        outputs = [(await link.receive())["output"] for _ in range(6)]
        assert sorted(outputs, key=len) == [[]] * 5 + [[{"id": "a", "echo": {}}]]
        worker.cancel()


@pytest.mark.parametrize("batched", [False, True])
async def test_job_that_cannot_be_prepared_is_answered_among_its_neighbours(
    engine: FakeEngine, start: Start, batched: bool
) -> None:
    def prepare(job_input: dict[str, Any]) -> Any:
        return job_input["n"] if "n" in job_input else fail()

    def fail() -> None:
        raise ValueError("n: expected a number")

    def double(job: Job) -> dict[str, Any]:
        return {"n": 2 * job.input}

    handler = (lambda jobs: [double(job) for job in jobs]) if batched else double
    worker = start(handler, batched=batched, with_jobs=True, prepare=prepare)
    async with engine.registered() as link:
        link.send_jobs(a={"n": 1}, b={}, c={"n": 3})
        link.send({"inputs": []})
        assert await link.receive_results(3) == {
            "a": {"n": 2},
            "b": {"error": "n: expected a number"},
            "c": {"n": 6},
        }
        assert await link.receive() == {"type": "worker_output", "output": []}
        worker.cancel()


async def test_what_is_no_exception_ends_the_worker_when_preparing_too(engine: FakeEngine) -> None:
    """F-37."""

    def prepare(job_input: dict[str, Any]) -> None:
        raise SystemExit(3)

    async def play() -> None:
        async with engine.registered() as link:
            link.send_jobs(a={})
            with pytest.raises(ConnectionLost, match="1001"):
                await link.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(play)
        with pytest.raises(SystemExit):
            await run_worker(echo, SETTINGS, prepare=prepare, open_stream=engine.open_stream)


# --- Files that come along --------------------------------------------------------------------------------


def read(job_input: dict[str, Any]) -> dict[str, Any]:
    path = Path(job_input["filepath"])
    return {"path": str(path), "data": path.read_bytes()}


@pytest.fixture
def inline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerSettings:
    """Settings of a worker that asks for files. They end up below `tmp_path`."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return WorkerSettings(worker_type="echo", worker_secret="hush", inline_resources=True)


def left_over(directory: Path) -> list[str]:
    """Names of all files below a directory."""
    return [path.name for path in directory.rglob("*") if path.is_file()]


def batch_with_files(*job_ids: str) -> dict[str, Any]:
    inputs = [{"id": job_id, "input": {"filepath": "/engine/a.jpg"}} for job_id in job_ids]
    return {"inputs": inputs, "resources": [{"path": "/engine/a.jpg", "data": b"picture"}]}


async def test_files_of_a_batch_are_there_while_it_is_computed(
    engine: FakeEngine, start: Start, inline: WorkerSettings, tmp_path: Path
) -> None:
    worker = start(read, settings=inline)
    async with engine.connection() as link:
        registration = await link.receive()
        assert "inline_resources" in registration["worker_config"]["extensions"]
        link.send(batch_with_files("a", "b"))
        link.send(batch_with_files("c"))
        results = await link.receive_results(3)
        assert {result["data"] for result in results.values()} == {b"picture"}
        paths = [result["path"] for result in results.values()]
        assert len(set(paths)) == 2
        assert all(path.startswith(str(tmp_path)) and path.endswith(".jpg") for path in paths)
        link.send_jobs(d={"filepath": "/engine/a.jpg"})  # The file is the first batch's.
        assert "FileNotFoundError" in (await link.receive_results(1))["d"]["error"]
        assert left_over(tmp_path) == []
        worker.cancel()


async def test_files_are_there_before_jobs_are_prepared(
    engine: FakeEngine, start: Start, inline: WorkerSettings
) -> None:
    worker = start(
        lambda value: value, settings=inline, prepare=lambda job_input: {"data": read(job_input)["data"]}
    )
    async with engine.registered() as link:
        link.send(batch_with_files("a"))
        assert await link.receive_results(1) == {"a": {"data": b"picture"}}
        worker.cancel()


async def test_files_are_gone_with_their_batch_while_older_ones_run(
    engine: FakeEngine, start: Start, inline: WorkerSettings, tmp_path: Path
) -> None:
    release = trio.Event()

    async def handler(job: Job) -> dict[str, Any]:
        if job.job_id in ("a", "c"):
            await release.wait()
        return {"data": read(job.input)["data"]}

    worker = start(handler, settings=inline, concurrency=3, with_jobs=True)
    async with engine.registered() as link:
        link.send(batch_with_files("a"))
        link.send(batch_with_files("b"))
        link.send(batch_with_files("c", "d"))
        assert (await link.receive_results(2)).keys() == {"b", "d"}
        while len(left_over(tmp_path)) > 2:  # noqa: ASYNC110  (the disk knows no events)
            await trio.sleep(0.01)
        await trio.testing.wait_all_tasks_blocked(0.01)
        release.set()
        assert await link.receive_results(2) == {"a": {"data": b"picture"}, "c": {"data": b"picture"}}
        link.send_jobs(e={"filepath": "/"})
        await link.receive_results(1)
        while left_over(tmp_path):  # noqa: ASYNC110
            await trio.sleep(0.01)
        worker.cancel()


@pytest.mark.parametrize(("concurrency", "files"), [(1, 3), (2, 4)])
async def test_files_of_a_lost_link_are_gone(
    engine: FakeEngine, start: Start, inline: WorkerSettings, tmp_path: Path, concurrency: int, files: int
) -> None:
    started = trio.Event()

    async def handler(job_input: dict[str, Any]) -> dict[str, Any]:
        started.set()
        await trio.sleep_forever()
        raise AssertionError

    worker = start(handler, settings=inline, concurrency=concurrency)
    async with engine.registered() as link:
        for n in range(6):
            link.send(batch_with_files(f"job-{n}"))
        await started.wait()
        # Two are prepared beside those that run.
        while len(left_over(tmp_path)) < files:  # noqa: ASYNC110  (the disk knows no events)
            await trio.sleep(0.01)
    async with engine.registered():
        assert left_over(tmp_path) == []
        worker.cancel()

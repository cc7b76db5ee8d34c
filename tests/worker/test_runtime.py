"""The life of a worker's links: registration, batches, answers, losses, the end.

Handlers are async here and time is virtual; what needs threads or real processes is elsewhere.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import cbor2
import pytest
import trio
import trio.testing

import orbtrio
from orbtrio.errors import ConfigError, ConnectionLost
from orbtrio.testing import open_fabric
from orbtrio.transport import TransportLimits
from orbtrio.worker import WorkerSettings, run_worker
from tests.worker.fake_engine import FakeEngine, InterruptAt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    Start: TypeAlias = Callable[..., trio.CancelScope]

SETTINGS = WorkerSettings(worker_type="echo", worker_secret="hush", max_batch_size=8, max_latency=1.5)


async def echo(job_input: dict[str, Any]) -> dict[str, Any]:
    """A model that is done at once, or after ``delay`` seconds."""
    await trio.sleep(job_input.get("delay", 0))
    if "fail" in job_input:
        raise ValueError(job_input["fail"])
    return {"echo": job_input}


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def start(engine: FakeEngine, nursery: trio.Nursery) -> Start:
    """Start a worker in the background; its cancel scope."""

    def start_worker(
        handler: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]] = echo, **options: Any
    ) -> trio.CancelScope:
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await run_worker(handler, SETTINGS, open_stream=engine.open_stream, **options)

        nursery.start_soon(run)
        return scope

    return start_worker


# --- Registration -----------------------------------------------------------------------------------------


async def test_registers_first_and_at_once(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    """WRK-01, and what our workers ask for: P-15, P-16, P-18."""
    worker = start()
    async with engine.connection() as link:
        assert await link.receive() == {
            "type": "i_am_worker",
            "worker_secret": "hush",
            "worker_config": {
                "worker_type": "echo",
                "max_batch_size": 8,
                "max_latency_ms": 1500,
                "eager": True,
                "max_unanswered_batches": 2,
                "max_message_bytes": 16 * 1024 * 1024,
                "extensions": ["cancel", "drain", "progress", "typed_arrays"],
            },
        }
    assert engine.attempts == [0]
    worker.cancel()


@pytest.mark.parametrize(
    ("concurrency", "batched", "given", "size", "unanswered"),
    [
        (1, False, None, 32, 2),
        (1, True, None, 32, 2),
        (4, True, None, 32, 2),
        (4, False, None, 1, 5),
        (4, False, 1, 1, 5),
        (4, False, 8, 8, 2),
        (20, False, 8, 8, 4),
    ],
)
async def test_asks_for_batches_that_suit_its_handler(
    engine: FakeEngine,
    nursery: trio.Nursery,
    *,
    concurrency: int,
    batched: bool,
    given: int | None,
    size: int,
    unanswered: int,
) -> None:
    settings = WorkerSettings(worker_type="echo", worker_secret="hush", max_batch_size=given)
    options: dict[str, Any] = {
        "batched": batched,
        "concurrency": concurrency,
        "open_stream": engine.open_stream,
    }
    nursery.start_soon(partial(run_worker, echo, settings, **options))
    async with engine.connection() as link:
        config = (await link.receive())["worker_config"]
        assert (config["max_batch_size"], config["max_unanswered_batches"]) == (size, unanswered)
        assert config["eager"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("concurrency", "unanswered"), [(1, 1), (4, 4)])
async def test_asks_for_no_job_that_it_cannot_begin_if_told_so(
    engine: FakeEngine, nursery: trio.Nursery, concurrency: int, unanswered: int
) -> None:
    settings = WorkerSettings(worker_type="echo", worker_secret="hush", max_batch_size=1)
    options: dict[str, Any] = {
        "batches_at_hand": 0,
        "concurrency": concurrency,
        "open_stream": engine.open_stream,
    }
    nursery.start_soon(partial(run_worker, echo, settings, **options))
    async with engine.connection() as link:
        config = (await link.receive())["worker_config"]
        assert config["max_unanswered_batches"] == unanswered
        nursery.cancel_scope.cancel()


async def test_is_started_once_it_has_registered(
    engine: FakeEngine, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    engine.down = True
    registered: list[float] = []

    async def play() -> None:
        await trio.sleep(5)
        engine.down = False
        while True:
            async with engine.registered():
                registered.append(trio.current_time())

    nursery.start_soon(play)
    await nursery.start(
        lambda task_status: run_worker(
            echo, SETTINGS, open_stream=engine.open_stream, task_status=task_status
        )
    )
    assert trio.current_time() >= 5
    assert len(registered) <= 1
    await trio.sleep(100)
    assert len(registered) > 1  # And was not started a second time, which Trio would not allow.
    nursery.cancel_scope.cancel()


async def test_secret_is_in_no_log_line(
    engine: FakeEngine, start: Start, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.DEBUG)
    worker = start()
    async with engine.registered() as link:
        link.send_jobs(a={"fail": "why"})
        await link.receive_results(1)
        await link.transport.close(1008, "no")
    async with engine.registered():
        worker.cancel()
    assert "hush" not in caplog.text


async def test_url_that_cannot_work_ends_it() -> None:
    settings = WorkerSettings(worker_type="echo", worker_secret="hush", server_url="wss://[::1]/ws")
    object.__setattr__(settings, "server_url", "http://localhost/ws")
    with pytest.raises(ConfigError):
        await run_worker(echo, settings)


# --- Batches ----------------------------------------------------------------------------------------------


async def test_answers_every_job_of_a_batch(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    """WRK-02, WRK-04, WRK-05."""
    worker = start()
    async with engine.registered() as link:
        link.send_jobs(a={"n": 1}, b={"fail": "no such thing"}, c={"data": b"\x00\xff"})
        assert await link.receive_results(3) == {
            "a": {"echo": {"n": 1}},
            "b": {"error": "no such thing"},
            "c": {"echo": {"data": b"\x00\xff"}},
        }
        worker.cancel()


async def test_reads_every_shape_of_job(engine: FakeEngine, start: Start, autojump_clock: MockClock) -> None:
    """WRK-03, WRK-06, P-02, P-04; JavaScript's byte arrays."""
    worker = start()
    async with engine.registered() as link:
        link.send(
            {
                "inputs": [
                    {"id": "a", "input": {"n": 1}, "priority": "high"},
                    {"job_id": "b", "input": {}},
                    {"id": "c", "job_id": "x", "input": {}},
                    {"id": "d", "text": "flat", "timestamp": 1.5},
                    {"id": "e", "input": {"data": cbor2.CBORTag(64, b"bytes")}},
                ],
                "whatever": None,
            }
        )
        assert await link.receive_results(5) == {
            "a": {"echo": {"n": 1}},
            "b": {"echo": {}},
            "c": {"echo": {}},
            "d": {"echo": {"text": "flat", "timestamp": 1.5}},
            "e": {"echo": {"data": b"bytes"}},
        }
        worker.cancel()


async def test_batches_are_computed_one_after_the_other(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    """WRK-07."""
    worker = start()
    async with engine.registered() as link:
        link.send_jobs(a={"delay": 2}, b={"delay": 2})
        link.send_jobs(c={"delay": 2})
        assert (await link.receive_results(1)).keys() == {"a"}
        assert (await link.receive_results(1)).keys() == {"b"}
        assert (await link.receive_results(1)).keys() == {"c"}
        assert trio.current_time() == 6
        worker.cancel()


async def test_batched_handler_gets_the_inputs_of_a_batch(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    async def count(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"together": len(inputs)}] * len(inputs)

    worker = start(count, batched=True)
    async with engine.registered() as link:
        link.send_jobs(a={}, b={})
        assert await link.receive_results(2) == {"a": {"together": 2}, "b": {"together": 2}}
        worker.cancel()


async def test_batch_without_jobs_is_answered_without_results(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    """WRK-08."""
    worker = start()
    async with engine.registered() as link:
        link.send({"inputs": []})
        assert await link.receive() == {"type": "worker_output", "output": []}
        worker.cancel()


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"not cbor at all",
        b"\xff",
        cbor2.dumps({"inputs": []}) + b"behind",
        cbor2.dumps([1, 2]),
        cbor2.dumps({"inputs": None}),
        cbor2.dumps({"inputs": {"id": "a", "input": {}}}),
        cbor2.dumps({"type": 7}),
        cbor2.dumps({"type": "fireworks", "at": "midnight"}),
        cbor2.dumps({"type": "i_am_worker"}),
        cbor2.dumps({"type": "worker_output", "output": []}),
        cbor2.dumps({"type": "worker_response", "job_id": 1, "output": {}}),
    ],
)
async def test_junk_is_skipped(
    engine: FakeEngine,
    start: Start,
    junk: bytes,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """WRK-09, P-53."""
    caplog.set_level(logging.INFO)
    worker = start()
    async with engine.registered() as link:
        link.transport.send(junk)
        link.send_jobs(a={"n": 1})
        assert await link.receive_results(1) == {"a": {"echo": {"n": 1}}}
        worker.cancel()
    assert sum("skipped" in line for line in caplog.messages) == 1


async def test_jobs_that_are_none_are_skipped_and_the_others_run(
    engine: FakeEngine, start: Start, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worker = start()
    async with engine.registered() as link:
        link.send({"inputs": [None, {"id": 5, "input": {}}, {"input": {}}, {"id": "a", "input": {"n": 1}}]})
        assert await link.receive_results(1) == {"a": {"echo": {"n": 1}}}
        worker.cancel()
    assert "skipped 3 members of a batch that are no jobs" in caplog.messages


async def test_flood_of_junk_does_not_fill_the_log(
    engine: FakeEngine, start: Start, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worker = start()
    async with engine.registered() as link:
        for _ in range(500):
            link.transport.queue(b"junk")
        link.send_jobs(a={})
        await link.receive_results(1)
        worker.cancel()
    assert len(caplog.messages) < 20


# --- Answers ----------------------------------------------------------------------------------------------


async def test_many_results_travel_in_several_small_messages(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    worker = start()
    sizes: list[int] = []
    async with engine.registered() as link:
        inputs = {f"job-{n}": {"data": bytes(15_000)} for n in range(8)}
        inputs["large"] = {"data": bytes(5_000_000)}
        link.send_jobs(**inputs)
        seen: set[str] = set()
        while len(seen) < len(inputs):
            for raw in await link.transport.receive():
                sizes.append(len(raw))
                seen.update(entry["id"] for entry in cbor2.loads(raw)["output"])
        worker.cancel()
    assert seen == inputs.keys()
    assert sorted(sizes)[-1] > 5_000_000
    assert all(size < 900 * 1024 for size in sorted(sizes)[:-1])
    assert len(sizes) < len(inputs)


async def test_computing_waits_for_an_engine_that_does_not_read(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    calls = 0

    async def handler(job_input: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        await trio.sleep(0.2)
        return {"data": bytes(3_000_000)}

    engine = FakeEngine(narrow=True)
    nursery.start_soon(lambda: run_worker(handler, SETTINGS, open_stream=engine.open_stream))
    async with engine.registered() as link:
        link.send_jobs(**{f"job-{n}": {} for n in range(6)})
        await trio.sleep(5)
        assert calls == 2  # 4 MiB may wait.
        assert len(await link.receive_results(6)) == 6
        nursery.cancel_scope.cancel()


# --- Pings ------------------------------------------------------------------------------------------------


async def test_pings_are_answered_while_it_computes(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    """WRK-14: an engine that asks every second and waits for two does not lose it."""
    worker = start()
    async with engine.registered(TransportLimits(ping_interval=1, ping_timeout=2)) as link:
        link.send_jobs(a={"delay": 100})
        link.send_jobs(b={"delay": 100})
        assert await link.receive_results(2) == {"a": {"echo": {"delay": 100}}, "b": {"echo": {"delay": 100}}}
        worker.cancel()


# --- Losses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1009, 1011])
async def test_reconnects_soon_after_any_close_and_registers_the_same(
    engine: FakeEngine, start: Start, code: int, autojump_clock: MockClock
) -> None:
    """WRK-10, WRK-11."""
    worker = start()
    async with engine.connection() as link:
        first = await link.receive()
        await link.transport.close(code, "bye")
        closed = trio.current_time()
    async with engine.connection() as link:
        assert await link.receive() == first
        link.send_jobs(a={})
        await link.receive_results(1)
        worker.cancel()
    assert 0.05 <= engine.attempts[1] - closed <= 0.1


async def test_reconnects_after_a_cut(engine: FakeEngine, start: Start, autojump_clock: MockClock) -> None:
    """WRK-10, close code 1006."""
    worker = start()
    async with engine.registered() as link:
        await link.stream.aclose()
    async with engine.registered():
        worker.cancel()


async def test_waits_grow_to_a_minute_and_no_further(
    engine: FakeEngine, start: Start, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    engine.down = True
    worker = start()
    await trio.sleep(600)
    worker.cancel()
    waits = [after - before for before, after in zip(engine.attempts, engine.attempts[1:], strict=False)]
    assert 0.05 <= waits[0] <= 0.1
    growing = [wait for wait in waits if wait < 25]
    assert growing == sorted(growing)
    assert waits[:10] != sorted(waits[:10], reverse=True)
    assert 30 <= max(waits) <= 60
    assert len(caplog.messages) == len(engine.attempts)
    assert "connection refused" in caplog.messages[0]
    assert "next attempt in" in caplog.messages[0]


async def test_waits_start_over_after_a_link_that_lived(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    engine.down = True
    worker = start()
    await trio.sleep(60)
    engine.down = False
    async with engine.registered():
        await trio.sleep(31)
    lost = trio.current_time()
    async with engine.registered():
        worker.cancel()
    assert engine.attempts[-1] - lost <= 0.1


async def test_waits_go_on_after_a_link_that_did_not(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    """F-21: an engine that accepts and drops is no better than one that is away."""
    worker = start()
    lost: list[float] = []
    for _ in range(8):
        async with engine.registered():
            pass
        lost.append(trio.current_time())
    worker.cancel()
    waits = [attempt - loss for attempt, loss in zip(engine.attempts[1:], lost, strict=False)]
    assert waits == sorted(waits)
    assert waits[-1] > 3


async def test_refusal_is_explained_and_tried_again_slowly(
    engine: FakeEngine, start: Start, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """WRK-10, close code 1008."""
    worker = start()
    for _ in range(3):
        async with engine.registered() as link:
            await link.transport.close(1008, "invalid\nsecret")
    async with engine.registered() as link:
        link.send_jobs(a={})
        await link.receive_results(1)
        worker.cancel()
    waits = [after - before for before, after in zip(engine.attempts, engine.attempts[1:], strict=False)]
    assert 1 <= waits[0] <= 2 <= waits[1] <= 4 <= waits[2] <= 8
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 3
    for hint in ("invalid secret", "WORKER_SECRET", "WORKER_TYPES", "'echo'"):
        assert hint in errors[0].getMessage()


async def test_late_policy_close_is_no_refusal(
    engine: FakeEngine, start: Start, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    worker = start()
    async with engine.registered() as link:
        await trio.sleep(100)
        await link.transport.close(1008, "too many odd messages")
    async with engine.registered():
        worker.cancel()
    assert not any("refused the registration" in line for line in caplog.messages)
    assert any("too many odd messages" in line for line in caplog.messages)


async def test_engine_that_breaks_websocket_is_told_and_left(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    worker = start()
    async with engine.registered() as link:
        await link.stream.send_all(b"\x81\x02hi")  # A text frame.
        with pytest.raises(ConnectionLost, match="1003"):
            await link.receive()
    async with engine.registered() as link:
        link.send_jobs(a={})
        await link.receive_results(1)
        worker.cancel()


async def test_silent_engine_is_given_up(engine: FakeEngine, start: Start, autojump_clock: MockClock) -> None:
    """F-10: half-open, seen from the worker. 20 s of silence, 20 s for the answer to a ping."""
    worker = start()
    async with engine.registered(TransportLimits(ping_interval=1000)):
        # Nobody reads here, so no pong is sent.
        await trio.sleep(45)
        assert len(engine.attempts) == 2
        worker.cancel()


async def test_results_of_a_lost_link_are_sent_on_no_other(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    """WRK-12."""
    calls: list[str] = []

    async def handler(job_input: dict[str, Any]) -> dict[str, Any]:
        calls.append(job_input["name"])
        await trio.sleep(10)
        return {"name": job_input["name"]}

    worker = start(handler)
    async with engine.registered() as link:
        link.send_jobs(a={"name": "a"}, b={"name": "b"})
        link.send_jobs(c={"name": "c"})
        await trio.sleep(5)
    async with engine.registered() as link:
        link.send_jobs(d={"name": "d"})
        assert await link.receive() == {"type": "worker_output", "output": [{"name": "d", "id": "d"}]}
        worker.cancel()
    assert calls == ["a", "d"]


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_what_is_no_exception_ends_the_worker(
    engine: FakeEngine, autojump_clock: MockClock, concurrency: int
) -> None:
    """F-37. It comes out bare, and the engine is told that nothing more will come."""

    async def handler(job_input: dict[str, Any]) -> dict[str, Any]:
        if job_input:
            await trio.sleep_forever()
        raise SystemExit(3)

    async def play() -> None:
        async with engine.registered() as link:
            link.send_jobs(a={}, b={"endless": True})
            with pytest.raises(ConnectionLost, match="1001"):
                await link.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(play)
        with pytest.raises(SystemExit):
            await run_worker(handler, SETTINGS, concurrency=concurrency, open_stream=engine.open_stream)


# --- Side by side, at a real engine -----------------------------------------------------------------------


async def test_job_begins_at_once_while_a_slot_is_free(autojump_clock: MockClock) -> None:
    """It waits neither for company, nor for those that are running."""
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        await fabric.start_worker(echo, "t", concurrency=4)
        client = await fabric.connect()
        for _ in range(3):
            nursery.start_soon(client.submit, "t", {"delay": 100})
            await trio.sleep(1)
        began = trio.current_time()
        assert await client.submit("t", {"delay": 2}) == {"echo": {"delay": 2}}
        assert trio.current_time() == pytest.approx(began + 2, abs=0.005)


async def test_jobs_begin_in_their_order_in_slots_that_are_never_empty(autojump_clock: MockClock) -> None:
    began: list[int] = []

    async def handler(job_input: dict[str, Any]) -> dict[str, Any]:
        began.append(job_input["n"])
        await trio.sleep(job_input["delay"])
        return {}

    async with open_fabric() as fabric:
        await fabric.start_worker(handler, "t", concurrency=3)
        client = await fabric.connect()
        start = trio.current_time()
        # One slot for the first, two for the others: half of 29 s.
        inputs = [{"n": n, "delay": 1 if n else 14.5} for n in range(30)]
        async for _ in client.submit_many([orbtrio.Job("t", job_input) for job_input in inputs]):
            pass
        assert began == list(range(30))
        assert trio.current_time() == pytest.approx(start + 15, abs=0.6)


async def test_what_finds_no_slot_stays_with_the_engine_and_goes_to_others(autojump_clock: MockClock) -> None:
    async def stuck(job_input: dict[str, Any]) -> dict[str, Any]:
        await trio.sleep(100)
        return {"stuck": True}

    async with open_fabric() as fabric:
        await fabric.start_worker(stuck, "t", concurrency=3)
        client = await fabric.connect()
        outputs: list[dict[str, Any]] = []

        async def submit() -> None:
            outputs.extend(
                [result.output async for result in client.submit_many([orbtrio.Job("t", {})] * 20)]
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit)
            await trio.sleep(1)
            await fabric.start_worker(echo, "t", concurrency=3)
        # Three that ran there, and one that was at hand.
        assert sum("stuck" in output for output in outputs) == 4


async def test_job_side_by_side_is_cancelled_and_frees_its_slot(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        await fabric.start_worker(echo, "t", concurrency=2)
        client = await fabric.connect()
        for _ in range(3):
            with trio.move_on_after(1):
                async with trio.open_nursery() as waiting:
                    for _ in range(3):  # Two run, one is at hand.
                        waiting.start_soon(client.submit, "t", {"delay": 100})
        assert await client.submit("t", {"delay": 1}) == {"echo": {"delay": 1}}
        assert trio.current_time() < 10


async def test_worker_that_is_lost_with_several_jobs_gives_all_of_them_back(
    autojump_clock: MockClock,
) -> None:
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        first = await fabric.start_worker(echo, "t", concurrency=2)
        client = await fabric.connect()
        done: list[Any] = []

        async def submit(n: int) -> None:
            done.append((await client.submit("t", {"delay": 10, "n": n}))["echo"]["n"])

        for n in range(6):
            nursery.start_soon(submit, n)
            await trio.sleep(0.1)
        await first.kill()
        await fabric.start_worker(echo, "t", concurrency=6)
        await trio.sleep(11)
        assert sorted(done) == list(range(6))


# --- The end ----------------------------------------------------------------------------------------------


async def test_stop_finishes_the_batch_in_hand_and_says_goodbye(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    stop = trio.Event()
    start(stop=stop)
    async with engine.registered() as link:
        link.send_jobs(a={"delay": 10}, b={"delay": 10})
        link.send_jobs(c={"delay": 10})
        await trio.sleep(5)
        stop.set()
        assert (await link.receive_results(2)).keys() == {"a", "b"}
        with pytest.raises(ConnectionLost, match="1000"):
            await link.receive()
        assert trio.current_time() == 20
    assert len(engine.attempts) == 1


async def _expect_goodbye(engine: FakeEngine) -> None:
    async with engine.registered() as link:
        with pytest.raises(ConnectionLost, match="1000"):
            await link.receive()


async def _connect_for_ever() -> trio.abc.Stream:
    await trio.sleep_forever()
    raise AssertionError


@pytest.mark.parametrize("moment", ["idle", "waiting for the next attempt", "connecting"])
async def test_stop_is_immediate_when_nothing_is_in_hand(
    engine: FakeEngine, moment: str, autojump_clock: MockClock
) -> None:
    stop = trio.Event()
    engine.down = moment == "waiting for the next attempt"
    open_stream = _connect_for_ever if moment == "connecting" else engine.open_stream

    async def stop_soon() -> None:
        await trio.sleep(3)
        stop.set()

    async with trio.open_nursery() as nursery:
        if moment == "idle":
            nursery.start_soon(_expect_goodbye, engine)
        nursery.start_soon(stop_soon)
        await run_worker(echo, SETTINGS, open_stream=open_stream, stop=stop)
        assert trio.current_time() == 3


async def test_stop_before_the_start_does_nothing(engine: FakeEngine) -> None:
    stop = trio.Event()
    stop.set()
    await run_worker(echo, SETTINGS, open_stream=engine.open_stream, stop=stop)
    assert engine.attempts == []


async def test_stop_while_the_link_is_lost_ends_without_another(
    engine: FakeEngine, start: Start, autojump_clock: MockClock
) -> None:
    stop = trio.Event()
    start(stop=stop)
    async with engine.registered() as link:
        link.send_jobs(a={"delay": 10})
        await trio.sleep(5)
        stop.set()
        await trio.sleep(1)
    await trio.sleep(100)
    assert len(engine.attempts) == 1


# --- Interrupted anywhere (F-38) --------------------------------------------------------------------------


class _Story:
    """Two links, a batch on each, a job that fails; interrupted after one step, and checked all the way.

    Attributes:
        results: What the engine got, by job.
        farewells: How the links ended that the worker closed.
    """

    BATCHES: Final[tuple[dict[str, Any], ...]] = (
        {"a": {}, "b": {"fail": "no"}, "c": {"delay": 1}},
        {"d": {}, "e": {}},
    )

    def __init__(self, *, stopping: bool) -> None:
        self.results: dict[str, Any] = {}
        self.farewells: list[int | None] = []
        self._stopping = stopping
        self._engine = FakeEngine()

    async def play(self, step: int) -> int:
        """Tell it, interrupted after so many steps; returns how many steps there were."""
        stop, cancel = trio.Event(), trio.CancelScope()
        interrupt = stop.set if self._stopping else cancel.cancel
        instrument = InterruptAt(step, interrupt)
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._play_engine, interrupt)
                trio.lowlevel.add_instrument(instrument)
                with cancel:
                    await run_worker(echo, SETTINGS, open_stream=self._engine.open_stream, stop=stop)
                trio.lowlevel.remove_instrument(instrument)
                # Whatever the worker has sent arrives before everybody waits.
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        return instrument.steps

    async def _play_engine(self, over: Callable[[], None]) -> None:
        for batch in self.BATCHES:
            mine: dict[str, Any] = {}
            try:
                async with self._engine.registered() as link:
                    link.send_jobs(**batch)
                    while len(mine) < len(batch):
                        mine |= await link.receive_results(1)
                    if batch is self.BATCHES[-1]:
                        over()
                        await link.receive()
            except ConnectionLost as loss:
                self.farewells.append(loss.code)
            # Asked to stop it answers a batch whole or not at all. Nothing foreign and nothing twice, ever.
            assert mine.keys() <= batch.keys()
            assert not self._stopping or not mine or mine.keys() == batch.keys()
            self.results |= mine


@pytest.mark.parametrize("stopping", [False, True])
def test_interrupted_anywhere_it_ends_in_order(stopping: bool) -> None:
    """F-38."""
    outcomes: set[int] = set()
    step, steps = 1, 1
    while step <= steps:
        story = _Story(stopping=stopping)
        steps = trio.run(story.play, step, clock=trio.testing.MockClock(autojump_threshold=0))
        # 1001 from one that was stopped before it had registered.
        assert set(story.farewells) <= ({1000, 1001, None} if stopping else {1001, None})
        outcomes.add(len(story.results))
        step += 1
    assert {0, 3, 5} <= outcomes

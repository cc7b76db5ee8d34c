"""Results in pieces: in their order, from the right run of the job, and for somebody who reads them."""

from __future__ import annotations

import gc
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from orbtrio.client import ClientLimits, connect
from orbtrio.errors import ConnectionLost, InvalidMessage, JobFailed, JobRefused, JobTimedOut
from orbtrio.inputs import Image
from orbtrio.protocol.codec import encode, request_job, request_parts
from orbtrio.protocol.messages import EXTENSIONS
from orbtrio.testing.fabric import open_fabric
from orbtrio.worker import WorkerSettings, run_worker
from tests.client.scripted import URL, ScriptedEngine, engine_and_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from trio.testing import MockClock

    from orbtrio.client import Client, JobStream
    from orbtrio.protocol.messages import JobRequest
    from orbtrio.worker import Job
    from tests.client.scripted import ScriptedLink


def ours(
    limits: ClientLimits | None = None,
) -> AbstractAsyncContextManager[tuple[ScriptedEngine, ScriptedLink, Client]]:
    """An engine that knows every extension."""
    return engine_and_client(limits=limits, announce=EXTENSIONS)


class Reading:
    """A stream that is read in a task of its own."""

    def __init__(self, nursery: trio.Nursery, stream: JobStream) -> None:
        self.stream = stream
        self.pieces: list[tuple[int, Any]] = []
        self.error: Exception | None = None
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        with self.scope:
            try:
                async for piece in self.stream:
                    self.pieces.append((self.stream.attempt, piece["n"]))
            except Exception as error:
                self.error = error
        self.done.set()


async def begin(link: ScriptedLink, stream: JobStream) -> JobRequest:
    """Have a stream's job sent."""
    await stream.__aenter__()
    [job] = await link.jobs(1)
    return job


# --- From the first piece to the output ---------------------------------------------------------------------


async def test_pieces_come_in_their_order_and_then_the_output() -> None:
    async with ours() as (_, link, client), trio.open_nursery() as nursery:
        reading = Reading(nursery, client.stream("llm", {"n": 1}, extra={"priority": 1}))
        [job] = await link.jobs(1)
        assert (job.worker_type, job.input, job.extra) == ("llm", {"n": 1}, {"priority": 1})
        for n in range(3):
            link.report(job, n=n)
        await wait_all_tasks_blocked()
        # Each is there at once, and not when the job is done.
        assert reading.pieces == [(1, 0), (1, 1), (1, 2)]
        with pytest.raises(RuntimeError, match="has not ended"):
            _ = reading.stream.output
        link.report(job, n=3)
        link.answer(job, response="all of it")
        await reading.done.wait()
        assert [n for _, n in reading.pieces] == [0, 1, 2, 3]
        assert reading.stream.output == {"response": "all of it"}
        assert reading.error is None
        with pytest.raises(StopAsyncIteration):
            await anext(reading.stream)
        assert link.cancels == []


async def test_nothing_is_submitted_before_the_stream_is_entered_or_read(autojump_clock: MockClock) -> None:
    async with ours() as (_, link, client):
        stream = client.stream("llm", {"n": 1}, timeout=10)
        assert repr(stream) == "<JobStream not begun, attempt 1, 0 pieces unread>"
        await trio.sleep(60)
        assert client.statistics().in_flight == 0
        async with stream as entered:
            assert entered is stream
            [job] = await link.jobs(1)
            link.report(job, n=1)
            await wait_all_tasks_blocked()
            assert repr(stream) == "<JobStream under way, attempt 1, 1 pieces unread>"
            async with stream:  # is the same job
                link.answer(job)
                assert [piece async for piece in stream] == [{"n": 1}]
        assert stream.output == {"echo": {"n": 1}}
        assert repr(stream) == "<JobStream over, attempt 1, 0 pieces unread>"
        assert client.statistics().sent == 1


async def test_a_job_that_fails_raises_after_its_pieces_once(autojump_clock: MockClock) -> None:
    cases: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"error": "no such model"}, JobFailed),
        ({"error": "silent", "error_kind": "heartbeat_timeout"}, JobRefused),
        ({"error": "late", "error_kind": "timeout"}, JobTimedOut),
    ]
    async with ours() as (_, link, client):
        for output, expected in cases:
            stream = client.stream("llm", {})
            job = await begin(link, stream)
            link.report(job, n=1)
            link.answer(job, **output)
            assert await anext(stream) == {"n": 1}
            with pytest.raises(expected):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            with pytest.raises(expected):
                _ = stream.output


async def test_a_stock_engine_is_sent_what_the_spec_knows_and_nothing_more(autojump_clock: MockClock) -> None:
    """Byte for byte, whatever becomes of the stream."""
    async with engine_and_client() as (_, link, client):
        await wait_all_tasks_blocked()
        [registration] = link.raw
        assert link.registration is not None
        assert registration == encode(link.registration)
        for extra in (None, {"timeout_ms": 7, "priority": 1}):
            stream = client.stream("llm", {"n": 1}, timeout=9, heartbeat=3, extra=extra)
            job = await begin(link, stream)
            expected = request_job(job.client_job_id, "llm", {"n": 1}, extra)
            assert link.raw[-1] == b"".join(request_parts([], [expected]))
            link.answer(job)
            assert [piece async for piece in stream] == []
            assert stream.output == {"echo": {"n": 1}}
        sent = len(link.raw)
        for _ in range(2):
            await begin(link, left := client.stream("llm", {}, timeout=5))
            sent += 1
            await left.aclose()
        with pytest.raises(JobTimedOut):
            await anext(client.stream("llm", {}, timeout=5))
        sent += 1
        await wait_all_tasks_blocked()
        assert len(link.raw) == sent
        assert client.statistics().cancelled == 0


async def test_deadline_and_heartbeat_are_the_engines_too(autojump_clock: MockClock) -> None:
    async with ours() as (_, link, client):
        job = await begin(link, client.stream("llm", {}, timeout=90, heartbeat=2.5, extra={"x": 1}))
        assert job.extra == {"x": 1, "timeout_ms": 90_000, "heartbeat_ms": 2_500}
        # Whoever asks for neither gets what the engine thinks right, and the caller's own fields are its own.
        assert (await begin(link, client.stream("llm", {}))).extra is None
        own = {"timeout_ms": 7, "heartbeat_ms": 8}
        job = await begin(link, client.stream("llm", {}, timeout=90, heartbeat=2.5, extra=own))
        assert job.extra == own


async def test_deadline_counts_from_when_the_stream_is_entered(autojump_clock: MockClock) -> None:
    async with ours() as (_, link, client), trio.open_nursery() as nursery:
        stream = client.stream("llm", {}, timeout=10)
        await trio.sleep(60)
        reading = Reading(nursery, stream)
        [job] = await link.jobs(1)
        await trio.sleep(9)
        # What a worker has to tell is no answer.
        link.report(job, n=1)
        await reading.done.wait()
        assert trio.current_time() == pytest.approx(70)
        assert reading.pieces == [(1, 1)]
        assert isinstance(reading.error, JobTimedOut)
        await wait_all_tasks_blocked()
        assert link.cancels == [[job.client_job_id]]


@pytest.mark.parametrize("how", ["async with", "anext"])
async def test_what_cannot_be_sent_is_refused_before_anything_is_sent(how: str) -> None:
    async with ours() as (_, link, client):
        for options, expected in (
            ({"input": {"x": object()}}, InvalidMessage),
            ({"input": {}, "timeout": 0}, ValueError),
            ({"input": {}, "heartbeat": -1.0}, ValueError),
        ):
            stream = client.stream("llm", **options)
            with pytest.raises(expected):
                await (stream.__aenter__() if how == "async with" else anext(stream))
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            with pytest.raises(RuntimeError, match="never began"):
                _ = stream.output
        await wait_all_tasks_blocked()
        assert link.unread() == 0


async def test_images_are_resources_here_too(tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    path.write_bytes(b"pixels")
    async with (
        ours() as (_, link, client),
        client.stream("vlm", {"filepath": Image(path)}, timeout=60) as stream,
    ):
        request = await link.request()
        assert [resource.data for resource in request.resources] == [b"pixels"]
        assert request.jobs[0].extra == {"timeout_ms": pytest.approx(60_000, abs=5_000)}
        link.answer(request.jobs[0])
        assert [piece async for piece in stream] == []


async def test_for_one_reader_at_a_time() -> None:
    async with ours() as (_, link, client), trio.open_nursery() as nursery:
        stream = client.stream("llm", {})
        reading = Reading(nursery, stream)
        [job] = await link.jobs(1)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await anext(stream)
        # The first did not notice.
        link.report(job, n=1)
        link.answer(job)
        await reading.done.wait()
        assert reading.pieces == [(1, 1)]


async def test_other_callers_get_their_outputs_and_are_not_told_of_progress() -> None:
    async with ours() as (_, link, client), trio.open_nursery() as nursery:

        async def answer() -> None:
            [job] = await link.jobs(1)
            for n in range(3):
                link.report(job, n=n)
            link.answer(job)

        nursery.start_soon(answer)
        assert await client.submit("llm", {"n": 1}) == {"echo": {"n": 1}}


# --- Again from the beginning -------------------------------------------------------------------------------


async def test_after_a_lost_worker_the_pieces_begin_again() -> None:
    async with ours() as (_, link, client), trio.open_nursery() as nursery:
        reading = Reading(nursery, client.stream("llm", {}))
        [job] = await link.jobs(1)
        link.report(job, n=1)
        link.report(job, n=2)
        await wait_all_tasks_blocked()
        for n in (1, 2, 3):
            link.report(job, attempt=3, n=n)
        link.answer(job)
        await reading.done.wait()
        assert reading.pieces == [(1, 1), (1, 2), (3, 1), (3, 2), (3, 3)]
        assert reading.stream.attempt == 3


async def test_after_a_lost_connection_the_pieces_begin_again(autojump_clock: MockClock) -> None:
    async with ours() as (engine, link, client), trio.open_nursery() as nursery:
        reading = Reading(nursery, client.stream("llm", {}, timeout=100, heartbeat=5))
        [first] = await link.jobs(1)
        link.report(first, n=1)
        link.report(first, attempt=2, n=1)
        await wait_all_tasks_blocked()
        await trio.sleep(10)
        link.drop()
        link = await engine.link()
        [second] = await link.jobs(1)
        assert second.client_job_id == first.client_job_id
        # The engine that it is now knows only how much time is left.
        assert second.extra is not None
        assert second.extra["timeout_ms"] == pytest.approx(90_000, abs=100)
        assert second.extra["heartbeat_ms"] == 5_000
        # This link's engine counts from one.
        link.report(second, n=1)
        link.report(second, n=2)
        link.answer(second)
        await reading.done.wait()
        assert reading.pieces == [(1, 1), (2, 1), (3, 1), (3, 2)]


async def test_what_the_next_engine_does_not_know_it_is_not_sent(autojump_clock: MockClock) -> None:
    """Behind the same address there is a stock engine now."""
    async with ours() as (engine, link, client), trio.open_nursery() as nursery:
        reading = Reading(nursery, client.stream("llm", {}, timeout=100, heartbeat=5, extra={"x": 1}))
        [job] = await link.jobs(1)
        engine.announce = ()
        link.drop()
        link = await engine.link()
        [job] = await link.jobs(1)
        assert job.extra == {"x": 1}
        reading.scope.cancel()
        await reading.done.wait()
        await wait_all_tasks_blocked()
        assert link.cancels == []


async def test_unread_pieces_of_a_former_run_are_dropped(autojump_clock: MockClock) -> None:
    async with ours() as (_, link, client):
        stream = client.stream("llm", {})
        job = await begin(link, stream)
        for n in range(5):
            link.report(job, n=n)
        await wait_all_tasks_blocked()
        assert (await anext(stream), stream.attempt) == ({"n": 0}, 1)
        link.report(job, attempt=2, n=0)
        await wait_all_tasks_blocked()
        # Nobody has been given a piece of the second run yet.
        assert stream.attempt == 1
        assert (await anext(stream), stream.attempt) == ({"n": 0}, 2)
        link.answer(job)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_a_run_without_pieces_shows_in_the_end(autojump_clock: MockClock) -> None:
    async with ours() as (engine, link, client):
        stream = client.stream("llm", {})
        job = await begin(link, stream)
        link.report(job, n=1)
        await wait_all_tasks_blocked()
        link.drop()
        link = await engine.link()
        [job] = await link.jobs(1)
        link.answer(job)
        assert (await anext(stream), stream.attempt) == ({"n": 1}, 1)
        assert [piece async for piece in stream] == []
        assert stream.attempt == 2


# --- Leaving ------------------------------------------------------------------------------------------------


async def leave_by_closing(stream: JobStream) -> None:
    await anext(stream)
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    with pytest.raises(RuntimeError, match="was left"):
        _ = stream.output


async def leave_the_block(stream: JobStream) -> None:
    async with stream:
        await anext(stream)


async def leave_the_block_by_an_error(stream: JobStream) -> None:
    with pytest.raises(KeyError):
        async with stream:
            raise KeyError("mine")


async def leave_by_being_cancelled(stream: JobStream) -> None:
    await anext(stream)
    with trio.move_on_after(5) as scope:
        await anext(stream)
    assert scope.cancelled_caught
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.parametrize(
    "leave", [leave_by_closing, leave_the_block, leave_the_block_by_an_error, leave_by_being_cancelled]
)
async def test_leaving_cancels_the_job(leave: Any, autojump_clock: MockClock) -> None:
    async with ours() as (_, link, client):
        stream = client.stream("llm", {}, timeout=100)
        job = await begin(link, stream)
        link.report(job, n=1)
        await leave(stream)
        assert client.statistics().in_flight == 0
        await wait_all_tasks_blocked()
        assert link.cancels == [[job.client_job_id]]
        # Whatever the engine had on its way arrives nowhere.
        link.report(job, n=2)
        link.respond(job.client_job_id, {"error": "cancelled", "error_kind": "cancelled"})
        await wait_all_tasks_blocked()
        assert (client.statistics().cancelled, client.statistics().dropped) == (1, 0)
        assert client.statistics().reconnects == 0


async def test_a_loop_left_by_break_cancels_the_job() -> None:
    async with ours() as (_, link, client), trio.open_nursery() as nursery:

        async def report() -> None:
            [job] = await link.jobs(1)
            for n in range(3):
                link.report(job, n=n)

        nursery.start_soon(report)
        async for piece in client.stream("llm", {}):
            if piece["n"] == 1:
                break
        gc.collect()
        await wait_all_tasks_blocked()
        assert len(link.cancels) == 1
        assert client.statistics().in_flight == 0


async def test_leaving_after_the_answer_cancels_nothing_and_keeps_the_output() -> None:
    async with ours() as (_, link, client):
        stream = client.stream("llm", {"n": 1})
        job = await begin(link, stream)
        link.report(job, n=1)
        link.answer(job)
        await wait_all_tasks_blocked()
        await stream.aclose()
        assert [piece async for piece in stream] == []
        assert stream.output == {"echo": {"n": 1}}
        await wait_all_tasks_blocked()
        assert link.cancels == []


async def test_a_stream_that_is_garbage_in_another_thread_is_left_in_trios() -> None:
    """Python's collector of cycles runs wherever it is due."""
    async with ours() as (_, link, client):
        gc.collect()
        cycle: list[object] = [stream := client.stream("llm", {})]
        job = await begin(link, stream)
        cycle.append(cycle)
        del cycle, stream
        await trio.to_thread.run_sync(gc.collect)
        await wait_all_tasks_blocked()
        assert link.cancels == [[job.client_job_id]]


def test_a_stream_that_outlives_trio_is_dropped_in_silence() -> None:
    """Warnings and errors of finalisers fail tests."""
    kept: list[JobStream] = []

    async def main() -> None:
        nursery_scope = trio.CancelScope()
        with nursery_scope:
            async with engine_and_client(announce=EXTENSIONS) as (_, link, client):
                kept.append(client.stream("llm", {}))
                kept.append(client.stream("llm", {}))
                await begin(link, kept[0])
                # What a program does that is killed: nothing is closed.
                client._link.end = lambda over: None  # type: ignore[method-assign]
                nursery_scope.cancel()
                await trio.sleep_forever()

    trio.run(main)
    assert repr(kept[0]).startswith("<JobStream under way")
    kept.clear()
    gc.collect()


async def test_many_streams_left_in_one_turn_are_cancelled_in_one_message(autojump_clock: MockClock) -> None:
    async with ours() as (_, link, client), trio.open_nursery() as nursery:
        readings = [Reading(nursery, client.stream("llm", {"n": n})) for n in range(1000)]
        jobs = await link.jobs(1000)
        for job in jobs:
            link.report(job, n=0)
        await wait_all_tasks_blocked()
        started = trio.current_time()
        for reading in readings:
            reading.scope.cancel()
        for reading in readings:
            await reading.done.wait()
        await wait_all_tasks_blocked()
        assert trio.current_time() == started
        assert [len(ids) for ids in link.cancels] == [1000]
        assert set(link.cancels[0]) == {job.client_job_id for job in jobs}
        assert client.statistics().in_flight == 0


async def test_closed_by_another_task_while_its_files_are_read() -> None:
    entering = trio.Event()
    go_on = trio.Event()

    class Slow(Image):
        async def load(self) -> Any:
            entering.set()
            await go_on.wait()
            return await super().load()

    async with ours() as (_, link, client), trio.open_nursery() as nursery:
        reading = Reading(nursery, client.stream("vlm", {"filepath": Slow(b"pixels")}))
        await entering.wait()
        await reading.stream.aclose()
        go_on.set()
        await reading.done.wait()
        assert (reading.pieces, reading.error) == ([], None)
        await wait_all_tasks_blocked()
        assert client.statistics().in_flight == 0
        assert link.unread() == 0


async def test_cancelled_while_its_files_are_read_nothing_is_submitted() -> None:
    class Endless(Image):
        async def load(self) -> Any:
            await trio.sleep_forever()

    async with ours() as (_, link, client), trio.open_nursery() as nursery:
        reading = Reading(nursery, client.stream("vlm", {"filepath": Endless(b"pixels")}))
        await wait_all_tasks_blocked()
        reading.scope.cancel()
        await reading.done.wait()
        with pytest.raises(StopAsyncIteration):
            await anext(reading.stream)
        assert client.statistics().in_flight == 0
        assert link.unread() == 0


async def test_leaving_the_clients_block_ends_the_stream() -> None:
    async with trio.open_nursery() as nursery:
        engine = ScriptedEngine(nursery)
        engine.announce = EXTENSIONS
        async with connect(URL, open_stream=engine.open_stream) as client:
            reading = Reading(nursery, client.stream("llm", {}))
            link = await engine.link()
            [job] = await link.jobs(1)
            link.report(job, n=1)
            await wait_all_tasks_blocked()
        await reading.done.wait()
        assert reading.pieces == [(1, 1)]
        assert isinstance(reading.error, ConnectionLost)
        with pytest.raises(ConnectionLost, match="block has been left"):
            await anext(client.stream("llm", {}))
        nursery.cancel_scope.cancel()


# --- A reader that is slower than the worker ----------------------------------------------------------------


async def flood(link: ScriptedLink, stream: JobStream, pieces: int, size: int = 0) -> JobRequest:
    job = await begin(link, stream)
    for n in range(pieces):
        link.report(job, n=n, padding=bytes(size))
    await wait_all_tasks_blocked()
    return job


async def drain(stream: JobStream) -> AsyncIterator[int]:
    async for piece in stream:
        yield piece["n"]


@pytest.mark.parametrize(
    ("limits", "size"),
    [(ClientLimits(max_unread_pieces=100), 0), (ClientLimits(max_unread_bytes=100_000), 940)],
)
async def test_too_many_unread_pieces_end_the_job_and_nothing_else(limits: ClientLimits, size: int) -> None:
    async with ours(limits) as (_, link, client), trio.open_nursery() as nursery:
        stream = client.stream("llm", {})
        job = await flood(link, stream, 200, size)
        # The worker is stopped at once, what was unread is kept for its reader, and no more than that.
        assert link.cancels == [[job.client_job_id]]
        reading = Reading(nursery, stream)
        await reading.done.wait()
        assert 95 < len(reading.pieces) <= 100
        assert reading.pieces == [(1, n) for n in range(len(reading.pieces))]
        assert isinstance(reading.error, JobRefused)
        assert reading.error.kind == "slow_reader"
        assert re.search(r"pieces \(\d+ bytes\) wait to be read.*ClientLimits", reading.error.text)
        nursery.start_soon(link.echo)
        assert await client.submit("t", {"n": 1}) == {"echo": {"n": 1}}
        assert client.statistics().reconnects == 0
        nursery.cancel_scope.cancel()


async def test_room_comes_back_with_reading_and_with_another_run() -> None:
    limits = ClientLimits(max_unread_pieces=10, max_unread_bytes=10_000)
    async with ours(limits) as (_, link, client):
        stream = client.stream("llm", {})
        job = await flood(link, stream, 10)
        for n in range(10, 50):
            await anext(stream)
            link.report(job, n=n)
            await wait_all_tasks_blocked()
        link.report(job, attempt=2, n=0, padding=bytes(9_000))
        await wait_all_tasks_blocked()
        assert (await anext(stream))["n"] == 0
        # One that is larger than all that is allowed has to pass all the same.
        link.report(job, attempt=2, n=1, padding=bytes(100_000))
        await wait_all_tasks_blocked()
        assert (await anext(stream))["n"] == 1
        link.answer(job)
        assert [n async for n in drain(stream)] == []


async def test_by_default_ten_thousand_pieces_may_wait() -> None:
    async with ours() as (_, link, client):
        stream = client.stream("llm", {})
        job = await flood(link, stream, 10_000)
        link.answer(job)
        assert [n async for n in drain(stream)] == list(range(10_000))


# --- With everybody's real ends -----------------------------------------------------------------------------


async def test_pieces_come_through_engine_and_worker_and_leaving_stops_the_work(
    autojump_clock: MockClock,
) -> None:
    stopped: list[int] = []

    async def count(job: Job) -> dict[str, Any]:
        try:
            for n in range(job.input["to"]):
                job.report(n=n)
                await trio.sleep(0.01)
        except trio.Cancelled:
            stopped.append(job.input["to"])
            raise
        return {"counted": job.input["to"]}

    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        settings = WorkerSettings(worker_type="counting", worker_secret=fabric.config.worker_secret or "any")
        work = partial(run_worker, count, settings, with_jobs=True, concurrency=4)
        nursery.start_soon(partial(work, open_stream=fabric.open_stream))
        client = await fabric.connect()
        stream = client.stream("counting", {"to": 20}, timeout=60, heartbeat=10)
        assert [piece async for piece in stream] == [{"n": n} for n in range(20)]
        assert stream.output == {"counted": 20}

        async for piece in client.stream("counting", {"to": 10**6}):
            if piece["n"] == 5:
                break
        gc.collect()
        with pytest.raises(JobTimedOut):
            await client.submit("counting", {"to": 10**7}, timeout=1)
        await trio.sleep(0.1)
        assert stopped == [10**6, 10**7]
        assert await client.submit("counting", {"to": 3}) == {"counted": 3}
        assert (client.statistics().dropped, client.statistics().in_flight) == (0, 0)
        nursery.cancel_scope.cancel()

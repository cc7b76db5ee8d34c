"""Many jobs at once: results as they come, and bounds on everything that could pile up."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from orbtrio.client import Job, connect
from orbtrio.errors import ConnectionLost, InvalidMessage, JobFailed, JobRefused
from orbtrio.inputs import Image
from orbtrio.protocol.messages import EXTENSIONS
from tests.client.scripted import URL, ScriptedEngine, engine_and_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from trio.testing import MockClock


def numbered(count: int) -> Iterator[Job]:
    return (Job("t", {"n": n}, tag=f"tag {n}") for n in range(count))


# --- Results -----------------------------------------------------------------------------------------------


async def test_every_job_comes_back_once_with_its_tag() -> None:
    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        nursery.start_soon(link.echo)
        seen = {}
        async for result in client.submit_many(numbered(2000), max_in_flight=100):
            assert result.error is None
            seen[result.job.tag] = result.output["echo"]["n"]
        assert seen == {f"tag {n}": n for n in range(2000)}
        assert client.statistics().in_flight == 0
        nursery.cancel_scope.cancel()


async def test_results_come_in_the_order_in_which_they_are_ready() -> None:
    async with engine_and_client() as (_, link, client):
        results = client.submit_many(numbered(3))
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                for job in reversed(await link.jobs(3)):
                    link.answer(job)
                    await wait_all_tasks_blocked()

            nursery.start_soon(answer)
            assert [result.output["echo"]["n"] async for result in results] == [2, 1, 0]
        with pytest.raises(StopAsyncIteration):
            await anext(results)


async def test_a_failed_job_is_a_result_like_any_other(tmp_path: Path) -> None:
    jobs = [
        Job("t", {"fine": 1}),
        Job("t", {"error": "broken"}),
        Job("t", {"error": "full", "error_kind": "queue_full"}),
        Job("t", {"x": object()}),
        Job("t", {"filepath": Image(tmp_path / "none.png")}),
        Job("t", {}, timeout=-1),
        Job("t", {"fine": 2}),
    ]
    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:

        async def answer() -> None:
            for _ in range(4):
                [job] = await link.jobs(1)
                link.answer(job, **job.input)

        nursery.start_soon(answer)
        results = {id(result.job): result async for result in client.submit_many(jobs, max_in_flight=1)}
    in_order = [results[id(job)] for job in jobs]
    kinds = [None, JobFailed, JobRefused, InvalidMessage, FileNotFoundError, ValueError, None]
    for result, kind in zip(in_order, kinds, strict=True):
        if kind is None:
            assert result.output == {"fine": result.job.input["fine"]}
            assert result.error is None
        else:
            assert isinstance(result.error, kind)
            with pytest.raises(kind):
                _ = result.output
    assert "fine" not in repr(in_order[0]).replace(repr(jobs[0]), "")


async def test_jobs_that_are_ready_together_cost_few_requests() -> None:
    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        nursery.start_soon(link.echo)
        requests = 0
        async for _ in client.submit_many(numbered(4096), max_in_flight=512):
            requests = max(requests, client._outbox.carried)
        assert requests < 512
        nursery.cancel_scope.cancel()


# --- Sources -----------------------------------------------------------------------------------------------


async def test_an_asynchronous_source_that_waits_holds_up_no_result(autojump_clock: MockClock) -> None:
    async def camera() -> AsyncIterator[Job]:
        for n in range(3):
            yield Job("t", {"n": n})
            await trio.sleep(10)

    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        nursery.start_soon(link.echo)
        times = {}
        async for result in client.submit_many(camera()):
            times[result.output["echo"]["n"]] = trio.current_time()
        assert times == {0: 0, 1: 10, 2: 20}
        assert trio.current_time() == 30
        nursery.cancel_scope.cancel()


async def test_a_channel_is_a_source() -> None:
    sender, receiver = trio.open_memory_channel[Job](0)
    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        nursery.start_soon(link.echo)

        async def send() -> None:
            async with sender:
                for job in numbered(5):
                    await sender.send(job)

        nursery.start_soon(send)
        assert len([result async for result in client.submit_many(receiver)]) == 5
        nursery.cancel_scope.cancel()


async def test_what_a_source_raises_follows_the_results_of_its_jobs() -> None:
    def source() -> Iterator[Job]:
        yield Job("t", {"n": 1})
        raise KeyError("mine")

    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        nursery.start_soon(link.echo)
        results = client.submit_many(source())
        assert (await anext(results)).output == {"echo": {"n": 1}}
        with pytest.raises(KeyError, match="mine"):
            await anext(results)
        with pytest.raises(StopAsyncIteration):
            await anext(results)
        # The client's other users noticed nothing.
        assert await client.submit("t", {"n": 2}) == {"echo": {"n": 2}}
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("source", "text"), [([{"worker_type": "t"}], "takes orbtrio.Job objects, not dict"), (7, "not iterable")]
)
async def test_a_source_of_something_else_is_refused(source: Any, text: str) -> None:
    async with engine_and_client() as (_, _, client):
        with pytest.raises(TypeError, match=text):
            await anext(client.submit_many(source))


async def test_a_source_that_works_long_lets_others_run() -> None:
    """F-36, made by the user's own iterable."""

    drawn = 0

    def slow() -> Iterator[Job]:
        nonlocal drawn
        for drawn in range(100):
            time.sleep(0.0015)
            yield Job("t", {"n": drawn})

    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        nursery.start_soon(link.echo)
        await anext(client.submit_many(slow()))
        assert drawn < 50
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("options", [{"max_in_flight": 0}, {"max_in_flight_bytes": 0}])
async def test_bounds_below_one_are_refused(options: dict[str, int]) -> None:
    async with engine_and_client() as (_, _, client):
        with pytest.raises(ValueError, match="at least 1"):
            client.submit_many([], **options)


# --- Bounds ------------------------------------------------------------------------------------------------


async def test_a_slow_consumer_stops_the_source() -> None:
    drawn = 0

    def endless() -> Iterator[Job]:
        nonlocal drawn
        while True:
            drawn += 1
            yield Job("t", {"n": drawn})

    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        nursery.start_soon(link.echo)
        async with client.submit_many(endless(), max_in_flight=64) as results:
            for taken in range(1, 200):
                await anext(results)
                await wait_all_tasks_blocked()
                assert drawn <= taken + 64
            # Refilled by the eighth, and not one by one: every request costs a frame. A busy machine may cut
            # some of these turns in two.
            assert client._outbox.carried <= 60
        nursery.cancel_scope.cancel()
    assert drawn > 200


@pytest.mark.parametrize("max_in_flight", [1, 2, 3])
async def test_the_smallest_bounds_work(max_in_flight: int) -> None:
    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        nursery.start_soon(link.echo)
        results = client.submit_many(numbered(10), max_in_flight=max_in_flight)
        assert [result.output["echo"]["n"] async for result in results] == list(range(10))
        nursery.cancel_scope.cancel()


async def test_bytes_in_flight_are_bounded_but_a_single_job_may_exceed_the_bound() -> None:
    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        jobs = (Job("t", {"n": n, "x": Image(bytes([n]) * 50_000)}) for n in range(9))
        results = client.submit_many(jobs, max_in_flight_bytes=120_000)
        finished = []

        async def consume() -> None:
            finished.extend([result async for result in results])

        nursery.start_soon(consume)
        for _ in range(3):
            await wait_all_tasks_blocked(0.01)
            assert client.statistics().in_flight == 3
            for job in await link.jobs(3):
                link.answer(job)
        await wait_all_tasks_blocked()
        assert len(finished) == 9
        nursery.start_soon(link.echo)
        large = client.submit_many([Job("t", {"x": bytes(1000)})], max_in_flight_bytes=10)
        assert (await anext(large)).error is None
        nursery.cancel_scope.cancel()


# --- Leaving early -----------------------------------------------------------------------------------------


async def test_breaking_the_loop_forgets_the_rest_and_closes_the_source() -> None:
    closed = trio.Event()

    async def endless() -> AsyncIterator[Job]:
        try:
            n = 0
            while True:
                yield Job("t", {"n": n})
                n += 1
        finally:
            closed.set()

    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        nursery.start_soon(link.echo)
        async for result in client.submit_many(endless(), max_in_flight=8):
            if result.output["echo"]["n"] == 3:
                break
        gc.collect()
        await closed.wait()
        await wait_all_tasks_blocked()
        assert client.statistics().in_flight == 0
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["close", "drop"])
async def test_what_has_no_result_is_cancelled_in_one_message(how: str) -> None:
    async with engine_and_client(announce=EXTENSIONS) as (_, link, client):
        results = client.submit_many(numbered(100))
        async with trio.open_nursery() as nursery:

            async def answer_three() -> None:
                for job in (await link.jobs(100))[:3]:
                    link.answer(job)

            nursery.start_soon(answer_three)
            for _ in range(3):
                await anext(results)
        if how == "close":
            await results.aclose()
        del results
        gc.collect()
        await wait_all_tasks_blocked()
        assert [len(ids) for ids in link.cancels] == [97]
        assert client.statistics().in_flight == 0


async def test_results_that_are_garbage_in_another_thread_are_left_in_trios() -> None:
    """Python's collector of cycles runs wherever it is due."""
    async with engine_and_client(announce=EXTENSIONS) as (_, link, client):
        gc.collect()
        cycle: list[object] = [results := client.submit_many(numbered(3))]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, results)
            await link.jobs(3)
            nursery.cancel_scope.cancel()
        cycle.append(cycle)
        del cycle, results
        await trio.to_thread.run_sync(gc.collect)
        await wait_all_tasks_blocked()
        assert [len(ids) for ids in link.cancels] == [3]


async def test_closing_before_during_and_after() -> None:
    async with engine_and_client() as (_, link, client):
        unused = client.submit_many(numbered(3))
        await unused.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(unused)
        async with client.submit_many(numbered(3)) as results, trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(StopAsyncIteration):
                    await anext(results)

            nursery.start_soon(wait)
            await link.jobs(3)
            await results.aclose()
        assert client.statistics().in_flight == 0
        await results.aclose()


async def test_a_job_that_is_being_loaded_when_the_loop_is_left_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    path.write_bytes(b"pixels")

    def jobs() -> Iterator[Job]:
        while True:
            yield Job("t", {"filepath": Image(path)})

    for _ in range(20):
        async with engine_and_client() as (_, _, client):
            results = client.submit_many(jobs())
            with trio.move_on_after(0.001):
                await anext(results)
            await results.aclose()
            assert client.statistics().in_flight == 0


# --- The client's end --------------------------------------------------------------------------------------


async def test_leaving_the_clients_block_ends_every_iteration_with_an_error() -> None:
    outcomes: list[object] = []

    async def endless() -> AsyncIterator[Job]:
        while True:
            yield Job("t", {})
            await trio.sleep_forever()

    async def consume(client: Any, source: Any) -> None:
        try:
            async for result in client.submit_many(source):
                outcomes.append(type(result.error))
        except ConnectionLost as error:
            outcomes.append(str(error))

    async with trio.open_nursery() as nursery:
        engine = ScriptedEngine(nursery)
        async with connect(URL, open_stream=engine.open_stream) as client:
            nursery.start_soon(consume, client, endless())
            nursery.start_soon(consume, client, numbered(1))
            await (await engine.link()).jobs(2)
        await wait_all_tasks_blocked()
        assert sorted(map(str, outcomes)) == [
            "<class 'orbtrio.errors.ConnectionLost'>",
            "<class 'orbtrio.errors.ConnectionLost'>",
            "the client was closed before all jobs were done",
        ]
        nursery.cancel_scope.cancel()


async def test_iterating_after_the_clients_block_says_so() -> None:
    async with engine_and_client() as (_, _, client):
        results = client.submit_many(numbered(1))
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="block has been left"):
            await anext(results)
    await results.aclose()

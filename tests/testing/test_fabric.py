"""The fabric: real parts on memory links, in virtual time."""

from __future__ import annotations

import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import orbtrio.testing
from orbtrio import inputs
from orbtrio.engine.config import Config
from orbtrio.errors import JobFailed, JobRefused
from orbtrio.protocol.messages import RegisterWorker
from orbtrio.testing import open_fabric, wait_until_idle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio.testing import MockClock


def measure(job: dict[str, Any]) -> dict[str, Any]:
    time.sleep(0.001)
    return {"length": len(job["text"])}


def example() -> dict[str, Callable[..., Any]]:
    code = re.search(r"```python\n(.*?)```", orbtrio.testing.__doc__ or "", re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)
    return {name: test for name, test in names.items() if name.startswith("test_")}


@pytest.mark.parametrize("name", example())
def test_example_of_the_documentation(name: str) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    started = time.monotonic()
    trio.run(partial(example()[name], clock), clock=clock)
    assert time.monotonic() - started < 50


async def test_sync_handler_takes_no_virtual_time(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        await fabric.start_worker(measure)
        client = await fabric.connect()
        start = trio.current_time()
        with trio.fail_after(0.001):
            assert await client.submit("embedding", {"text": "hello"}) == {"length": 5}
        assert trio.current_time() == start


async def test_batched_handler(autojump_clock: MockClock) -> None:
    def measure_all(jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"length": len(job["text"]), "together": len(jobs)} for job in jobs]

    async with open_fabric() as fabric:
        await fabric.start_worker(measure_all, "t", batched=True, max_batch_size=2)
        client = await fabric.connect()
        results: list[Any] = []
        async with trio.open_nursery() as nursery:
            for text in ("a", "bc"):

                async def submit(text: str = text) -> None:
                    results.append(await client.submit("t", {"text": text}))

                nursery.start_soon(submit)
        assert sorted(result["length"] for result in results) == [1, 2]


async def test_settings_reach_the_engine(autojump_clock: MockClock) -> None:
    config = Config(worker_secret="s", worker_types=("only",))
    async with open_fabric(config, job_timeout=7) as fabric:
        assert fabric.config.job_timeout == 7
        assert fabric.config.worker_types == ("only",)
        worker = await fabric.fake_worker("other", max_latency=1)
        assert (await worker.wait_lost()).code == 1008


async def test_engine_without_a_secret(autojump_clock: MockClock) -> None:
    async with open_fabric(Config(insecure_no_secret=True)) as fabric:
        assert (await fabric.fake_worker()).lost is None


async def test_files_are_gone_with_the_fabric(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        client = await fabric.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.submit, "t", {"text": inputs.Document("x" * 100_000)})
            (job,) = await worker.receive_batch()
            path = trio.Path(job.input["text"])
            assert await path.read_text() == "x" * 100_000
            assert path.is_relative_to(fabric.config.store_root)
            worker.answer(job)
        root = trio.Path(fabric.config.store_root)
        assert await root.exists()
    assert not await root.exists()


async def test_client_finds_back_after_its_link_was_cut(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        await fabric.start_worker(measure, "t")
        client = await fabric.connect()
        first = fabric.link_of(client)
        first.cut()
        assert await client.submit("t", {"text": "abc"}) == {"length": 3}
        assert fabric.link_of(client) is not first


async def test_worker_reconnects_after_a_restart_of_the_engine(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await fabric.start_worker(measure, "t")
        client = await fabric.connect()
        before, engine = worker.link, fabric.engine
        await fabric.restart()
        with pytest.raises(JobRefused):
            await engine.submit("t", {})
        assert await client.submit("t", {"text": "abc"}) == {"length": 3}
        assert worker.link is not before
        assert [worker.name for worker in fabric.engine.statistics().workers] == ["t-1"]


async def test_stopped_worker_finishes_what_it_has(autojump_clock: MockClock) -> None:
    async def slow(job: dict[str, Any]) -> dict[str, Any]:
        await trio.sleep(10)
        return {}

    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        worker = await fabric.start_worker(slow, "t")
        client = await fabric.connect()
        nursery.start_soon(client.submit, "t", {})
        await wait_until_idle()
        start = trio.current_time()
        await worker.stop()
        assert trio.current_time() - start == pytest.approx(10)
        await wait_until_idle()
        assert fabric.engine.statistics().workers == ()


async def hang(job: dict[str, Any]) -> dict[str, Any]:
    await trio.sleep_forever()


async def test_killed_workers_job_goes_to_another(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        doomed = await fabric.start_worker(hang, "t")
        client = await fabric.connect()
        nursery.start_soon(client.submit, "t", {"text": "abc"})
        await wait_until_idle()
        await doomed.kill()
        await fabric.start_worker(measure, "t")


async def test_errors_of_the_test_come_out_bare(autojump_clock: MockClock) -> None:
    async def fail() -> None:
        async with open_fabric() as fabric:
            await fabric.fake_worker()
            raise KeyError

    with pytest.raises(KeyError):
        await fail()


@pytest.mark.parametrize("fault", ["stall", "delay"])
async def test_clock_that_is_never_moved_does_not_keep_the_fabric_from_ending(
    mock_clock: MockClock, fault: str
) -> None:
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        client = await fabric.fake_client()
        if fault == "stall":
            worker.link.stall()
        else:
            worker.link.delay = 60
        client.submit("t", {"text": "x" * 1_000_000})
        await wait_until_idle()


async def test_works_by_the_real_clock_too() -> None:
    async with open_fabric() as fabric:
        await fabric.start_worker(measure, "t")
        client = await fabric.connect()
        assert await client.submit("t", {"text": "abc"}) == {"length": 3}


async def test_stream_of_ones_own(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        stream = await fabric.open_stream()
        await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")


async def test_peer_that_has_not_registered(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        peer = await fabric.fake_peer()
        peer.send(RegisterWorker(worker_type="t", worker_secret=fabric.config.worker_secret or ""))
        await wait_until_idle()
        assert [worker.worker_type for worker in fabric.engine.statistics().workers] == ["t"]


async def test_worker_error_reaches_the_real_client(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        nursery.start_soon(worker.answer_all, {"error": "out of order"})
        client = await fabric.connect()
        with pytest.raises(JobFailed, match="out of order"):
            await client.submit("t", {})
        nursery.cancel_scope.cancel()

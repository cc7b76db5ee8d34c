"""One worker's queue on a real wire. What needs several workers is in test_dispatch.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from orbtrio.testing import open_fabric, wait_until_idle

if TYPE_CHECKING:
    from trio.testing import MockClock

    from orbtrio.testing import Fabric


def queued(fabric: Fabric) -> list[tuple[int, int]]:
    """Jobs waiting and unanswered, by worker."""
    return [(worker.queued, worker.unanswered) for worker in fabric.engine.statistics().workers]


async def test_bytes_fill_a_batch_as_jobs_do(autojump_clock: MockClock) -> None:
    """P-16: three jobs of 300 KiB are a full batch and leave at once, the fourth waits."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t"), await fabric.fake_client()
        start = trio.current_time()
        client.submit("t", *({"x": "x" * 320_000} for _ in range(3)))
        assert len(await worker.receive_batch()) == 2
        assert trio.current_time() == start
        assert len(await worker.receive_batch()) == 1
        assert trio.current_time() - start == pytest.approx(30)


async def test_jobs_that_ended_while_they_waited_are_in_no_batch(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=4, max_latency=1)
        leaving, staying = await fabric.fake_client(), await fabric.fake_client()
        leaving.submit("t", {"n": 0})
        await wait_until_idle()
        staying.submit("t", {"n": 1})
        await wait_until_idle()
        leaving.submit("t", {"n": 2})
        await wait_until_idle()
        leaving.link.cut()
        await wait_until_idle()
        assert queued(fabric) == [(1, 0)]
        assert [job.input for job in await worker.receive_batch()] == [{"n": 1}]


async def test_many_jobs_that_ended_take_no_memory(autojump_clock: MockClock) -> None:
    """The dead are cleared out of a queue before they outnumber the living by much."""
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=1000, max_latency=300)
        staying = await fabric.fake_client()
        staying.submit("t", {"n": -1})
        for _ in range(5):
            leaving = await fabric.fake_client()
            leaving.submit("t", *({"n": n} for n in range(200)))
            await wait_until_idle()
            leaving.link.cut()
            await wait_until_idle()
            assert queued(fabric) == [(1, 0)]
        await trio.sleep(299)
        staying.submit("t", *({"n": n} for n in range(999)))
        assert [job.input["n"] for job in await worker.receive_batch()] == list(range(-1, 999))


async def test_batch_counts_as_answered_when_all_its_jobs_have_ended(autojump_clock: MockClock) -> None:
    """However they ended; its time runs from sending to the last answer."""
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=2)
        leaving, staying = await fabric.fake_client(), await fabric.fake_client()
        leaving.submit("t", {})
        await wait_until_idle()
        staying.submit("t", {})
        jobs = await worker.receive_batch()
        await trio.sleep(3)
        worker.answer(jobs[0])
        leaving.link.cut()
        await trio.sleep(4)
        (statistics,) = fabric.engine.statistics().workers
        assert (statistics.batches, statistics.batches_answered) == (1, 0)
        worker.answer(jobs[1])
        await wait_until_idle()
        (statistics,) = fabric.engine.statistics().workers
        assert (statistics.batches_answered, statistics.jobs) == (1, 1)
        assert statistics.batch_seconds == pytest.approx(7)


async def test_worker_that_does_not_read_keeps_no_jobs_from_others(autojump_clock: MockClock) -> None:
    """P-15, F-07: what its wire does not hold stays in the engine, and the rest comes back when it is cut."""
    async with open_fabric() as fabric:
        stuck = await fabric.fake_worker("t", max_batch_size=8)
        stuck.link.to_peer.stall()
        client = await fabric.fake_client()
        client.submit("t", *({"n": n, "x": "x" * 100_000} for n in range(200)))
        await trio.sleep(5)
        ((waiting, unanswered),) = queued(fabric)
        assert waiting + unanswered == 200
        assert waiting > 100
        other = await fabric.fake_worker("t", max_batch_size=8)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.answer_all, lambda job: {"n": job.input["n"]})
            await trio.sleep(40)
            assert sorted(output["n"] for _, output in client.outputs) == list(range(200))
            assert stuck.link.to_peer.carried < 100_000
            assert len(fabric.engine.statistics().workers) == 1
            nursery.cancel_scope.cancel()

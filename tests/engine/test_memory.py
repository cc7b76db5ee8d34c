"""What has ended is freed at once, and not by the collector, whose pauses are everybody's latency."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
import trio

from orbtrio.engine.clients import RemoteClient
from orbtrio.engine.jobs import Batch, Job
from orbtrio.protocol.images import LARGE_IMAGE
from orbtrio.protocol.messages import Resource
from orbtrio.testing import open_fabric, wait_until_idle
from tests.engine.extended import extended_client, extended_worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def in_memory(kind: type) -> int:
    """How many objects of a class there are."""
    return sum(type(each) is kind for each in gc.get_objects())


@pytest.mark.usefixtures("no_collector")
async def test_answered_jobs_are_in_no_circle(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=8), await fabric.fake_client()
        jobs, batches = in_memory(Job), in_memory(Batch)
        for _ in range(10):
            client.submit("t", *({"n": n} for n in range(8)))
            for job in await worker.receive_batch():
                worker.answer(job)
            await wait_until_idle()
        assert len(client.outputs) == 80
        # A task that waits for the next jobs may still have the last in hand.
        assert in_memory(Job) - jobs <= 8
        assert in_memory(Batch) - batches <= 1


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("size", [100, LARGE_IMAGE, 2 << 20])
async def test_an_image_is_in_its_file_and_nowhere_else(autojump_clock: MockClock, size: int) -> None:
    """Not while a client is connected and silent; a thousand might be."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        before = in_memory(Resource)
        data = bytes(range(256)) * (size // 256 + 1)
        reference = {"__type": "resource-ref", "id": "a"}
        client.submit("t", {"image": reference}, resources=[Resource("a", "image", data[:size])])
        (job,) = await worker.receive_batch()
        await wait_until_idle()
        assert await trio.Path(job.input["image"]).read_bytes() == data[:size]
        assert in_memory(Resource) == before
        worker.answer(job)


@pytest.mark.parametrize("extensions", [(), ("cancel",)])
async def test_a_job_that_is_computed_for_nobody_keeps_no_connection(
    autojump_clock: MockClock, extensions: tuple[str, ...]
) -> None:
    """P-25: or a client that comes and goes would fill the memory behind a slow worker."""
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, *extensions, max_batch_size=1)
        gc.collect()
        clients = in_memory(RemoteClient)
        for _ in range(5):
            client = await extended_client(fabric, "cancel")
            client.submit("t", {})
            (cancelled,) = client.submit("t", {})
            await wait_until_idle()
            client.cancel(cancelled)
            await client.close()
            await wait_until_idle()
        gc.collect()
        assert in_memory(RemoteClient) <= clients
        assert [one.unanswered for one in fabric.engine.statistics().workers] == [10]
        assert worker.lost is None

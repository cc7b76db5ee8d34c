"""The others: a client and a worker that go on working whatever is done to the engine next to them."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from orbtrio.testing import wait_until_idle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orbtrio.testing import Fabric, FakeClient, FakeWorker

__all__ = ["Neighbours", "open_neighbours"]


class Neighbours:
    """A client and a worker of a type that nobody else uses."""

    def __init__(self, client: FakeClient, worker: FakeWorker) -> None:
        self._client = client
        self._worker = worker
        self._numbers = itertools.count()

    async def check(self) -> None:
        """A job goes there and back at once: the engine lives, and theirs are the same two connections."""
        number = next(self._numbers)
        (job_id,) = self._client.submit("neighbour", {"n": number})
        with trio.fail_after(1):
            jobs = await self._worker.receive_batch()
            assert [job.input for job in jobs] == [{"n": number}]
            self._worker.answer(jobs)
            response = await self._client.receive_response()
        assert response.client_job_id == job_id
        assert response.output["echo"] == {"n": number}
        await wait_until_idle()


@asynccontextmanager
async def open_neighbours(fabric: Fabric) -> AsyncIterator[Neighbours]:
    """Neighbours, checked once more when the block is left in peace."""
    neighbours = Neighbours(
        await fabric.fake_client(), await fabric.fake_worker("neighbour", max_batch_size=1)
    )
    yield neighbours
    await neighbours.check()

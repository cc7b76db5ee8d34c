"""A scripted engine, for those who write a worker or a client of their own.

Whoever is under test connects through `FakeEngine.open_stream`, registers, and is then at the mercy of the
script, which sends what a real engine would only send in a bad hour: a batch of one thousand, an error of
every kind, an answer nobody asked for, a close code, half a message.
"""

from __future__ import annotations

import itertools
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from orbtrio._nursery import open_service_nursery
from orbtrio.engine.http import Front
from orbtrio.protocol import codec
from orbtrio.protocol.messages import (
    EXTENSIONS,
    BatchJob,
    JobBatch,
    RegisterClient,
    RegisterWorker,
    WorkerOutput,
    WorkerRequest,
    WorkerResponse,
)
from orbtrio.testing.clock import steady_clock
from orbtrio.testing.links import Link
from orbtrio.testing.peers import LIMITS, ScriptedPeer
from orbtrio.transport import open_server_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

__all__ = ["EngineEnd", "FakeEngine", "open_fake_engine"]

# Of the ids of jobs, one sequence for all: what a peer answers twice, or to the wrong end, must stand out.
_numbers = itertools.count(1)


class EngineEnd(ScriptedPeer):
    """The engine's end of a connection: to a worker or to a client, as its registration says.

    Attributes:
        registration: What the peer said first; None for a client that began with a request.
    """

    registration: RegisterWorker | RegisterClient | None = None

    # --- To a worker.

    def send_batch(self, *inputs: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> list[str]:
        """Send jobs in one batch.

        Args:
            inputs: Of one job each.
            extra: Fields beside the input of each.

        Returns:
            The ids given to the jobs, in order; no two batches share one.

        Raises:
            ConnectionLost: the connection has ended.
        """
        ids = [f"id-{next(_numbers)}" for _ in inputs]
        extra = dict(extra) if extra else None
        self.send(
            JobBatch([BatchJob(job_id, dict(job), extra) for job_id, job in zip(ids, inputs, strict=True)])
        )
        return ids

    async def receive_outputs(self) -> dict[str, dict[str, Any]]:
        """The next message with results: the fields of each, ``id`` apart, by job id.

        Raises:
            ConnectionLost: the connection has ended, and all that came before has been received.
        """
        output = await self._receive(WorkerOutput)
        return {
            job_id: {name: value for name, value in codec.decode_item(entry).items() if name != "id"}
            for job_id, entry in output.entries
        }

    # --- To a client.

    async def receive_request(self) -> WorkerRequest:
        """The next request.

        Raises:
            ConnectionLost: the connection has ended, and all that came before has been received.
        """
        return await self._receive(WorkerRequest)

    def respond(self, client_job_id: Any, output: Mapping[str, Any]) -> None:
        """Answer a job with a worker's output.

        Raises:
            ConnectionLost: the connection has ended.
        """
        self.send(WorkerResponse(client_job_id, {"id": "any", **output}))

    def refuse(self, client_job_id: Any, kind: str, text: str = "refused by the script") -> None:
        """Answer a job with an error of the engine's own, such as ``"queue_full"``; see `JobRefused`.

        Raises:
            ConnectionLost: the connection has ended.
        """
        self.send(WorkerResponse(client_job_id, {"error": text, "error_kind": kind}))


class FakeEngine:
    """An engine that does what the test tells it; made by `open_fake_engine`.

    Attributes:
        links: Every wire that there has been, oldest first.
    """

    def __init__(self, nursery: trio.Nursery, announce: frozenset[str]) -> None:
        self.links: list[Link] = []
        self._announce = announce
        self._nursery = nursery
        self._front = Front()
        self._put, self._take = trio.open_memory_channel[EngineEnd](math.inf)

    async def open_stream(self) -> trio.abc.Stream:
        """Connect to it; for `orbtrio.connect`, `orbtrio.run_worker`, or whatever you wrote."""
        link = Link(f"memory:{len(self.links) + 1}")
        self.links.append(link)
        self._nursery.start_soon(self._serve, link)
        return link.peer_end

    async def accept(self) -> EngineEnd:
        """The next connection, once its peer has spoken.

        Raises:
            ConnectionLost: it ended without a word.
        """
        peer = await self._take.receive()
        first = await peer.wait_message()
        if isinstance(first, RegisterWorker | RegisterClient):
            peer.registration = first
            peer.receive_nowait()
        return peer

    async def _serve(self, link: Link) -> None:
        head = await self._front.negotiate(link.engine_end)
        if head is None:
            return
        peer = EngineEnd(link)
        opening = open_server_transport(
            link.engine_end, head, peer=link.name, limits=LIMITS, announce=self._announce
        )
        await self._nursery.start(peer.run, opening)
        self._put.send_nowait(peer)


@asynccontextmanager
async def open_fake_engine(announce: Collection[str] = EXTENSIONS) -> AsyncIterator[FakeEngine]:
    """Have an engine that a test speaks for.

    ```python
    async with open_fake_engine() as engine, trio.open_nursery() as nursery:
        nursery.start_soon(my_worker, engine.open_stream)
        worker = await engine.accept()
        (job_id,) = worker.send_batch({"text": "hello"})
        assert await worker.receive_outputs() == {job_id: {"length": 5}}
        nursery.cancel_scope.cancel()
    ```

    Args:
        announce: The extensions that it says it understands; none for an engine that knows the spec only.
    """
    with steady_clock():
        async with open_service_nursery() as nursery:
            engine = FakeEngine(nursery, frozenset(announce))
            try:
                yield engine
            finally:
                for link in engine.links:
                    link.heal()

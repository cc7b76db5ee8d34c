"""The other end of a worker's link, played by a test step by step.

It speaks WebSocket over memory streams, and CBOR without our codec, so that it can say what no engine of ours
would.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import cbor2
import trio
import trio.testing

from orbtrio.errors import ConnectionLost
from orbtrio.transport import TransportLimits, open_server_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from orbtrio.transport import Transport


class EngineLink:
    """One connection of the worker, from its engine's side.

    Attributes:
        transport: For what has no method here.
        stream: What lies below it, to be cut without a word.
    """

    def __init__(self, transport: Transport, stream: trio.StapledStream[Any, Any]) -> None:
        self.transport = transport
        self.stream = stream
        self._received: list[bytes] = []

    def send(self, message: Any) -> None:
        """Send anything, as one message."""
        self.transport.send(cbor2.dumps(message))

    def send_jobs(self, **inputs: Any) -> None:
        """Send a batch: each name is a job's id, each value its input."""
        self.send({"inputs": [{"id": job_id, "input": value} for job_id, value in inputs.items()]})

    def send_cancel(self, *job_ids: str) -> None:
        """Say that nobody waits for some jobs any more."""
        self.send({"type": "cancel_jobs", "ids": list(job_ids)})

    async def receive(self) -> Any:
        """The worker's next message."""
        if not self._received:
            self._received = await self.transport.receive()
        return cbor2.loads(self._received.pop(0))

    async def receive_results(self, count: int) -> dict[str, Any]:
        """Results by id, from as many messages as it takes. No id may come twice."""
        results: dict[str, Any] = {}
        while len(results) < count:
            message = await self.receive()
            assert message.keys() == {"type", "output"}
            assert message["type"] == "worker_output"
            for entry in message["output"]:
                assert entry["id"] not in results
                results[entry.pop("id")] = entry
        return results


class FakeEngine:
    """Accepts a worker's connections. Give its `open_stream` to `run_worker`.

    Args:
        narrow: The wire holds nothing: what is sent waits until it is read.
        announce: The extensions that it says it understands; by default none, as a stock engine.

    Attributes:
        attempts: Trio times at which the worker tried to connect.
        down: Refuse TCP connections.
    """

    def __init__(self, *, narrow: bool = False, announce: Collection[str] = ()) -> None:
        self._announce = announce
        self.attempts: list[float] = []
        self._open_pair = trio.testing.lockstep_stream_pair if narrow else trio.testing.memory_stream_pair
        self.down = False
        self._connections = trio.open_memory_channel[trio.StapledStream[Any, Any]](100)

    async def open_stream(self) -> trio.abc.Stream:
        """Connect to this engine."""
        self.attempts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.down:
            raise OSError("connection refused")
        ours, theirs = self._open_pair()
        await self._connections[0].send(ours)
        return theirs

    @asynccontextmanager
    async def connection(self, limits: TransportLimits | None = None) -> AsyncIterator[EngineLink]:
        """The worker's next connection, before it has registered. Leaving closes with 1000."""
        stream = await self._connections[1].receive()
        head = b""
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some()
            if not data:
                raise ConnectionLost("gone before it said anything")
            head += data
        limits = limits or TransportLimits()
        async with open_server_transport(
            stream, head, peer="worker", limits=limits, announce=self._announce
        ) as transport:
            yield EngineLink(transport, stream)

    @asynccontextmanager
    async def registered(self, limits: TransportLimits | None = None) -> AsyncIterator[EngineLink]:
        """The worker's next connection, once it has registered."""
        async with self.connection(limits) as link:
            message = await link.receive()
            assert message["type"] == "i_am_worker"
            yield link


class InterruptAt(trio.abc.Instrument):
    """Interrupts after the k-th step of any task.

    Attributes:
        steps: How many there were.
    """

    def __init__(self, step: int, interrupt: Callable[[], object]) -> None:
        self.steps = 0
        self._step = step
        self._interrupt = interrupt

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task has had its turn."""
        self.steps += 1
        if self.steps == self._step:
            self._interrupt()

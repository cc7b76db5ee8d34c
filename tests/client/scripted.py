"""An engine that does what a test tells it to, connection by connection, over memory streams."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair

from orbtrio.client import ClientLimits, connect
from orbtrio.errors import ConnectionLost, OrbError
from orbtrio.protocol.codec import encode
from orbtrio.protocol.connection import Connection, Side
from orbtrio.protocol.messages import (
    CancelRequest,
    ProgressReport,
    RegisterClient,
    WorkerRequest,
    WorkerResponse,
    WorkerResponses,
)
from orbtrio.transport import TransportLimits, open_server_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from orbtrio.client import Client
    from orbtrio.protocol.messages import JobRequest
    from orbtrio.transport import Transport

URL = "ws://engine.test:5000/ws"


class ScriptedLink:
    """The engine's end of one connection. Everything that the client sends is read at once and kept.

    Attributes:
        registration: The client's introduction.
        close_code: How the client took its leave; None while it has not.
        raw: Every message as it came.
        cancels: The ids of each message that cancelled jobs.
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.registration: RegisterClient | None = None
        self.close_code: int | None = None
        self.raw: list[bytes] = []
        self.cancels: list[list[Any]] = []
        self.ended = trio.Event()
        self.reading = trio.CancelScope()
        self.farewell = (1000, "")
        self._sender, self._requests = trio.open_memory_channel[WorkerRequest](math.inf)

    async def request(self) -> WorkerRequest:
        """The next request."""
        return await self._requests.receive()

    async def jobs(self, count: int) -> list[JobRequest]:
        """The next so many jobs, from as many requests as that takes."""
        jobs: list[JobRequest] = []
        while len(jobs) < count:
            jobs += (await self.request()).jobs
        assert len(jobs) == count
        return jobs

    def unread(self) -> int:
        """Requests that wait to be looked at."""
        return self._requests.statistics().current_buffer_used

    def answer(self, job: JobRequest, **output: Any) -> None:
        """Answer a job; with an echo of its input if nothing else is said."""
        self.respond(job.client_job_id, {"id": "engine's own", **(output or {"echo": job.input})})

    def respond(self, client_job_id: Any, output: dict[str, Any]) -> None:
        """Send a response, whether or not it makes sense."""
        self.transport.send(encode(WorkerResponse(client_job_id, output)))

    def answer_together(self, jobs: list[JobRequest]) -> None:
        """Answer jobs with an echo of their input, in one message."""
        echoes = [WorkerResponse(job.client_job_id, {"id": "any", "echo": job.input}) for job in jobs]
        self.transport.send(encode(WorkerResponses(echoes)))

    def report(self, job: JobRequest, attempt: int = 1, **fields: Any) -> None:
        """Tell of a job's progress."""
        self.transport.send(encode(ProgressReport(job.client_job_id, fields, attempt)))

    async def echo(self) -> None:
        """Answer everything until the connection ends."""
        async for request in self._requests:
            for job in request.jobs:
                self.answer(job)

    async def close(self, code: int, reason: str = "") -> None:
        """Close, and wait until the client has seen it."""
        self.farewell = (code, reason)
        self.reading.cancel()
        await self.ended.wait()

    def drop(self) -> None:
        """Vanish without a word."""
        self.transport.abort()

    async def run(self) -> None:
        """Read whatever the client sends."""
        connection = Connection(Side.ENGINE)
        try:
            while True:
                for raw in await self.transport.receive():
                    self.raw.append(raw)
                    message = connection.receive(raw)
                    if isinstance(message, RegisterClient):
                        self.registration = message
                    elif isinstance(message, CancelRequest):
                        self.cancels.append(message.client_job_ids)
                    else:
                        assert isinstance(message, WorkerRequest)
                        self._sender.send_nowait(message)
        except ConnectionLost as lost:
            self.close_code = lost.code
        finally:
            self._sender.close()


class ScriptedEngine:
    """Where the client connects to.

    Attributes:
        announce: The extensions that it knows; none, as a stock one.
        down: Connections are refused.
        deaf: Connections are accepted, and then not looked at.
        lockstep: Connections have no buffer: what is not read cannot be sent.
        attempts: When the client tried to connect.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.announce: Collection[str] = ()
        self.down = False
        self.deaf = False
        self.lockstep = False
        self.attempts: list[float] = []
        self._nursery = nursery
        self._sender, self._links = trio.open_memory_channel[ScriptedLink](math.inf)

    async def open_stream(self) -> trio.abc.Stream:
        """For the client, in place of TCP."""
        self.attempts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.down:
            raise ConnectionRefusedError("nobody listens")
        near, far = lockstep_stream_pair() if self.lockstep else memory_stream_pair()
        self._nursery.start_soon(self._serve, far)
        return near

    async def link(self) -> ScriptedLink:
        """The next connection that the client opens."""
        return await self._links.receive()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        # A stopped process sends no pings either.
        limits = TransportLimits(ping_interval=1e9 if self.deaf else 20)
        async with open_server_transport(
            stream, head, peer="client", limits=limits, announce=self.announce
        ) as transport:
            link = ScriptedLink(transport)
            self._sender.send_nowait(link)
            with link.reading:
                if self.deaf:
                    await trio.sleep_forever()
                await link.run()
            await transport.close(*link.farewell)
        link.ended.set()


@asynccontextmanager
async def engine_and_client(
    *,
    lockstep: bool = False,
    token: str | None = None,
    limits: ClientLimits | None = None,
    announce: Collection[str] = (),
    arrays: bool = False,
) -> AsyncIterator[tuple[ScriptedEngine, ScriptedLink, Client]]:
    """A scripted engine, its first connection, and the client at the other end."""
    async with trio.open_nursery() as nursery:
        engine = ScriptedEngine(nursery)
        engine.lockstep = lockstep
        engine.announce = announce
        async with connect(
            URL, open_stream=engine.open_stream, token=token, limits=limits, arrays=arrays
        ) as client:
            yield engine, await engine.link(), client
        nursery.cancel_scope.cancel()


class Submission:
    """A `Client.submit` in a task of its own, and what it came to."""

    def __init__(
        self, nursery: trio.Nursery, client: Client, job_input: dict[str, Any], **options: Any
    ) -> None:
        self.output: dict[str, Any] | None = None
        self.error: Exception | None = None
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        nursery.start_soon(self._run, client, job_input, options)

    async def _run(self, client: Client, job_input: dict[str, Any], options: dict[str, Any]) -> None:
        with self.scope:
            try:
                self.output = await client.submit("t", job_input, **options)
            except OrbError as error:
                self.error = error
            self.done.set()

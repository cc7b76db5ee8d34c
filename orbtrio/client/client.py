"""`connect` and `Client`: how an input becomes a ticket, and a ticket an output or an exception."""

from __future__ import annotations

import itertools
import secrets
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from orbtrio._nursery import open_service_nursery
from orbtrio._waking import Signal
from orbtrio.client.link import ClientLimits, Link
from orbtrio.client.many import Job, JobResults
from orbtrio.client.outbox import Outbox
from orbtrio.client.stream import StreamOwner
from orbtrio.client.tickets import Ticket, measure
from orbtrio.errors import ConnectionLost, InvalidMessage, ResourceRejected
from orbtrio.inputs import attach
from orbtrio.protocol.codec import request_job
from orbtrio.protocol.messages import RegisterClient
from orbtrio.protocol.references import MARKER, collect
from orbtrio.streams import JobStream, Pieces
from orbtrio.transport import open_client_transport

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from orbtrio.client.many import JobSource
    from orbtrio.client.tickets import Owner
    from orbtrio.protocol.messages import Resource

__all__ = ["Client", "ClientStatistics", "connect"]

_MARKER: Final = MARKER.encode()

# The version that the public engine asks its clients for.
_VERSION: Final = "1.0.1"

# What every engine is asked for. One that knows none of it does nothing of it, and says so by its silence.
_EXTENSIONS: Final = frozenset({"engine_errors", "progress", "cancel", "batched_responses"})


@attrs.frozen(kw_only=True)
class ClientStatistics:
    """A client's counters since it was opened.

    Attributes:
        in_flight: Jobs submitted that have not ended.
        sent: Jobs sent to the engine, counted anew each time that a lost connection made it necessary.
        answered: Jobs answered, with whatever result.
        cancelled: Jobs that the engine was asked to stop: nobody waited for them any more.
        dropped: Answers that nobody waited for: late, or to ids never given. That a job was given up, by the
            engine as by its caller, is none.
        reconnects: Connections after the first.
    """

    in_flight: int
    sent: int
    answered: int
    cancelled: int
    dropped: int
    reconnects: int


@asynccontextmanager
async def connect(
    url: str = "ws://localhost:5000/ws",
    *,
    token: str | None = None,
    open_stream: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    limits: ClientLimits | None = None,
    arrays: bool = False,
) -> AsyncIterator[Client]:
    """Connect to an engine, and stay connected until the block is left.

    Args:
        url: ``ws://`` or ``wss://``, with host, port and path.
        token: What the engine knows this client by, if it asks for tokens.
        open_stream: Called for each connection in place of TCP; returns a Trio stream.
        ssl_context: For ``wss://``, if the system's authorities are not the ones to trust.
        limits: Sizes and times.
        arrays: Vectors in outputs and pieces are to be `array.array` instead of lists: of type ``"f"`` or
            ``"d"`` as the worker made them if it and the engine know of typed arrays, which is thirty times
            cheaper to receive, else of type ``"d"`` for every list of 16 floats or more. ``numpy.asarray``
            takes them without a copy.

    Yields:
        The client. When the block is left, whoever still waits for a job gets `ConnectionLost`.

    Raises:
        ConnectionLost: no connection within ``limits.connect_timeout``; the text tells what to check.
        ConfigError: the URL is none.

    Whatever the block raises comes out as it is. Spec: "Connection Lifecycle".
    """
    limits = limits or ClientLimits()
    outbox = Outbox(max_request_bytes=limits.max_request_bytes, probe_time=limits.probe_time)
    link = Link(
        partial(
            open_client_transport,
            url,
            open_stream=open_stream,
            ssl_context=ssl_context,
            limits=limits.transport,
        ),
        RegisterClient(
            token=token,
            version=_VERSION,
            extensions=_EXTENSIONS | {"typed_arrays"} if arrays else _EXTENSIONS,
        ),
        outbox,
        limits,
    )
    async with open_service_nursery() as nursery:
        nursery.start_soon(link.run)
        with trio.move_on_after(limits.connect_timeout):
            await link.up.wait()
        if not link.up.is_set():
            problem = f"no connection to {url} within {limits.connect_timeout:g} s"
            raise ConnectionLost(f"{problem}: {link.last_loss}")
        client = Client(url, link, outbox, limits, nursery)
        nursery.start_soon(client._expire)
        try:
            yield client
        finally:
            link.end(partial(ConnectionLost, "the client was closed: its `async with` block has been left"))


class Client:
    """A connection to an engine, made by `connect`. Any number of tasks may share it."""

    def __init__(
        self, url: str, link: Link, outbox: Outbox, limits: ClientLimits, nursery: trio.Nursery
    ) -> None:
        self._url = url
        self._link = link
        self._outbox = outbox
        self._limits = limits
        self._nursery = nursery
        # Unguessable, so that nobody else's answer can be mistaken for one of ours.
        self._ids = map(f"{secrets.token_hex(4)}-{{}}".format, itertools.count(1))
        self._earlier = Signal()
        self._sleeps_until = 0.0

    def __repr__(self) -> str:
        state = "closed" if self._link.over else "open"
        return f"<Client of {self._url} {state}, {len(self._outbox)} jobs in flight>"

    async def submit(
        self,
        worker_type: str,
        input: Mapping[str, Any],
        *,
        timeout: float | None = None,  # noqa: ASYNC109  (the job's, which the engine's errors and reconnecting share)
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Have one job done.

        Args:
            worker_type: Which workers can do it, e.g. ``"embedding"``.
            input: Anything that CBOR can hold, with `Image` and `Document` values at any depth.
            timeout: Longest wait in seconds, which an engine of ours is told, so that it gives up no sooner
                and no later, up to the longest that it allows; without it the engine's five minutes count.
            extra: Fields that travel beside the input.

        Returns:
            The worker's fields, e.g. ``{"embedding": […], "shape": [D]}``.

        Raises:
            JobFailed: the worker answered with an error. Trying again would give the same.
            JobTimedOut: nobody answered in time.
            JobRefused: the engine ended the job itself; its `kind` tells why.
            InvalidMessage: the input cannot be sent, and was not. `ResourceRejected` if a resource is too
                large.
            OSError: the file of an image or a document cannot be read.
            RegistrationRefused: the engine does not want this client: check the token.
            ConnectionLost: the client was closed. A lost connection alone is healed, not raised.

        Cancelling forgets the job at once, and so does the deadline. An engine of ours is told, and it tells
        the worker: nobody computes for nobody. Spec: "Full Request/Response Cycle".
        """
        caller = _Caller()
        ticket = await self._enter(Job(worker_type, input, extra=extra, timeout=timeout), caller)
        try:
            await caller.done.wait()
        finally:
            self._outbox.forget(ticket)
        if ticket.output is None:
            assert ticket.error is not None
            raise ticket.error
        return ticket.output

    def submit_many(
        self, jobs: JobSource, *, max_in_flight: int = 512, max_in_flight_bytes: int = 64 << 20
    ) -> JobResults:
        """Have many jobs done; iterate over the results, which come in the order in which they are ready.

        Args:
            jobs: Any iterable of `Job`, synchronous or asynchronous. It is drawn from as there is room, so it
                may be endless.
            max_in_flight: Most jobs drawn and not yet handed back as results. A slow consumer stops the
                source.
            max_in_flight_bytes: Most bytes that these hold, unless a single one holds more.

        Returns:
            An asynchronous iterator of `JobResult`. A job that fails is a result too. To leave the loop
            early, close it (``async with client.submit_many(…) as results``), or just let go of it.
        """
        return JobResults(jobs, self._enter, self._outbox, self._start, max_in_flight, max_in_flight_bytes)

    def stream(
        self,
        worker_type: str,
        input: Mapping[str, Any],
        *,
        timeout: float | None = None,
        heartbeat: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> JobStream:
        """Have one job done, and follow how it gets on: a text word by word, a video frame by frame.

        ```python
        async with client.stream("llm", {"messages": messages}) as stream:
            async for piece in stream:
                print(piece["text"], end="", flush=True)
        print(stream.output["response"])
        ```

        The short form is ``async for piece in client.stream(…)``. What a piece holds is up to the worker, and
        so is whether there are any: from a worker that says nothing before it is done, or through an engine
        without the extension, the loop just ends when there is an output.

        Args:
            worker_type: Which workers can do it, e.g. ``"llm"``.
            input: As for `submit`.
            timeout: Longest wait in seconds for the output, from when the stream is entered or first read.
            heartbeat: Longest silence in seconds. A worker that has the job and says nothing for so long is
                given up on: `JobRefused` of kind ``"heartbeat_timeout"``.
            extra: Fields that travel beside the input.

        Returns:
            An asynchronous iterator of the pieces, in order; see `JobStream` for what happens when it is
            left early, when a worker is lost, and when its reader is slow. A job that fails raises from the
            loop what `submit` would raise, after the pieces that came before.
        """
        job = Job(worker_type, input, extra=extra, timeout=timeout)
        limits = self._limits
        pieces = Pieces(limits.max_unread_pieces, limits.max_unread_bytes, ", or raise ClientLimits")

        async def start(pieces: Pieces) -> Callable[[], None]:
            ticket = await self._enter(job, StreamOwner(pieces), heartbeat=heartbeat)
            return partial(self._outbox.forget, ticket)

        return JobStream(start, pieces)

    def statistics(self) -> ClientStatistics:
        """The counters as they are now."""
        return ClientStatistics(
            in_flight=len(self._outbox),
            sent=self._outbox.sent,
            answered=self._outbox.answered,
            cancelled=self._outbox.cancelled,
            dropped=self._outbox.dropped,
            reconnects=self._link.opened - 1,
        )

    # Encode a job, take it into the outbox, wake the writer. A checkpoint only if files must be read.
    async def _enter(self, job: Job, owner: Owner, *, heartbeat: float | None = None) -> Ticket:
        timeout = self._limits.job_timeout if job.timeout is None else job.timeout
        if not timeout > 0:
            raise ValueError(f"a timeout is a positive number of seconds, not {timeout!r}")
        if heartbeat is not None and not heartbeat > 0:
            raise ValueError(f"a heartbeat is a positive number of seconds, not {heartbeat!r}")
        deadline = trio.current_time() + timeout
        client_job_id = next(self._ids)
        job_input = job.input
        resources: tuple[Resource, ...] = ()
        try:
            wire = request_job(client_job_id, job.worker_type, job_input, job.extra)
        except InvalidMessage:
            # Images and documents are no CBOR. If there are none in it, the same error comes again.
            job_input, resources = await attach(job_input)
            wire = request_job(client_job_id, job.worker_type, job_input, job.extra)
        if _MARKER in wire and set(collect(job_input)) - {resource.resource_id for resource in resources}:
            # The engine would close the connection, and with it fail the requests of others.
            raise ResourceRejected(
                "refers to no resource: put an Image or a Document in its place", path="input"
            )
        self._refuse_if_over()
        size = measure(wire, resources)
        if size > self._limits.max_job_bytes:
            limit = f"more than max_job_bytes ({self._limits.max_job_bytes})"
            raise InvalidMessage(f"with its resources {size} bytes, {limit}", path="job")
        ticket = Ticket(client_job_id, wire, resources, size, timeout, deadline, owner, job)
        # A field that the caller has set is the caller's.
        if job.timeout is not None:
            ticket.tells_timeout = "timeout_ms" not in (job.extra or ())
        if heartbeat is not None and "heartbeat_ms" not in (job.extra or ()):
            ticket.heartbeat = heartbeat
        self._outbox.add(ticket)
        if deadline < self._sleeps_until:
            self._earlier.set()
        return ticket

    def _start(self, feed: Callable[[], Awaitable[None]]) -> None:
        self._refuse_if_over()
        self._nursery.start_soon(feed)

    def _refuse_if_over(self) -> None:
        if self._link.over is not None:
            raise self._link.over()

    async def _expire(self) -> None:
        while True:
            self._sleeps_until = self._outbox.next_deadline
            with trio.move_on_at(self._sleeps_until):
                await self._earlier.wait()
            self._outbox.expire(trio.current_time())


class _Caller:
    """The owner of a single job: a task in `Client.submit`."""

    def __init__(self) -> None:
        self.done = trio.Event()

    def ended(self, ticket: Ticket) -> None:
        """Wake the task."""
        self.done.set()

    def reported(self, ticket: Ticket, piece: dict[str, Any], size: int) -> None:
        """Nobody reads along: that is what `Client.stream` is for."""

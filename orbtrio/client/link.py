"""The client's connection to its engine, which heals itself.

`Link.run` opens the connection, introduces the client, and then reads, while a second task writes what the
outbox has. When the connection ends, whatever the reason, the outbox is told, and after a pause all begins
anew. The pauses grow exponentially and are spread at random, so that the clients of an engine that was
restarted do not come back as one herd.

| the connection ends with | what it means | what follows |
|---|---|---|
| 1008, soon, and no request was sent | the engine does not want this client | `RegistrationRefused` for all |
| 1003 | whatever listens there does not speak CBOR | `ConnectionLost` for all |
| 1007, 1008, 1009, 1011 | it will not take what it was sent | a trial, see `outbox`, then as below |
| any other code, or none | bad luck | reconnect, send again what was not answered |
| bytes that we refuse | a faulty engine | the same, until each job's deadline |
"""

from __future__ import annotations

import logging
import random
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from orbtrio._nursery import open_service_nursery
from orbtrio._waking import Signal
from orbtrio.errors import ConfigError, ConnectionLost, RegistrationRefused, RemoteProtocolError
from orbtrio.protocol.connection import Connection, Side
from orbtrio.protocol.messages import ProgressReport, WorkerResponse, WorkerResponses
from orbtrio.transport import TransportLimits

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from orbtrio.client.outbox import Outbox
    from orbtrio.protocol.messages import RegisterClient
    from orbtrio.transport import Transport

__all__ = ["ClientLimits", "Link"]

logger = logging.getLogger("orbtrio.client")

# Close codes by which an engine says that it will not take what it was sent. 1011 is what the WebSocket
# library of a stock engine makes of an exception in its handler.
_REFUSALS: Final = frozenset({1007, 1008, 1009, 1011})

# An engine that closes so soon a connection that carried nothing but our introduction did not like that.
# Seconds.
_REGISTRATION_TIME: Final = 15.0

# Unsent bytes above which the next request is not even encoded. Covers many round trips of any network.
_WINDOW: Final = 256 * 1024


@attrs.frozen(kw_only=True)
class ClientLimits:
    """What a client may hold, and how long things may take. Times in seconds.

    Attributes:
        connect_timeout: Until the first connection must be up.
        job_timeout: For a job that is submitted without a timeout: the engine's five minutes and some slack,
            so that an engine that gives no answer is not waited for in vain.
        max_request_bytes: Largest request, resources included. Of jobs it holds 31,250 bytes, or one. Stock
            engines refuse 1 MiB.
        max_job_bytes: A single job, with its resources, may be larger than that, up to this: an engine takes
            messages of 32 MiB.
        shortest_pause: Before the first attempt to reconnect. It doubles with each attempt that was of no
            use.
        longest_pause: Where that ends.
        probe_time: Within which an engine closes the connection if it will not take what it was sent. Matters
            only after one has done so.
        max_unread_pieces: Of a stream whose reader is slower than the worker. One more, and the job ends with
            an error, after the reader has had what there was.
        max_unread_bytes: The same in bytes, as they came over the wire; a single piece may be larger.
        transport: Limits of the connection.

    Raises:
        ConfigError: the largest request would get every connection cut off that it is sent on, or no stream
            could have a piece.
    """

    connect_timeout: float = 10.0
    job_timeout: float = 310.0
    max_request_bytes: int = 900 * 1024
    max_job_bytes: int = (32 << 20) - 1024
    shortest_pause: float = 0.05
    longest_pause: float = 5.0
    probe_time: float = 0.5
    max_unread_pieces: int = 10_000
    max_unread_bytes: int = 64 << 20
    transport: TransportLimits = attrs.field(factory=partial(TransportLimits, max_message_bytes=32 << 20))

    def __attrs_post_init__(self) -> None:
        if self.max_unread_pieces < 1 or self.max_unread_bytes < 1:
            raise ConfigError("max_unread_pieces and max_unread_bytes must be at least 1")
        # The largest request may be queued behind a window of others, and has a head of its own.
        needed = max(self.max_request_bytes, self.max_job_bytes) + 2 * _WINDOW
        if self.transport.max_buffered_bytes < needed:
            raise ConfigError(
                f"transport.max_buffered_bytes must be at least {needed} for requests of that size"
            )


class Link:
    """A client's connection, whichever it is at the moment.

    Args:
        open_transport: Opens a new one.
        registration: How to introduce the client.
        outbox: What to send, and who gets the answers.
        limits: Pauses.

    Attributes:
        work: Set by the outbox when it has something to send.
        up: Set when there has been a connection.
        opened: Connections so far.
        last_loss: Why the last one ended, or could not be opened.
        over: Makes the error for whoever still wants something, once there will be no connection any more.
    """

    def __init__(
        self,
        open_transport: Callable[[], AbstractAsyncContextManager[Transport]],
        registration: RegisterClient,
        outbox: Outbox,
        limits: ClientLimits,
    ) -> None:
        self.work = Signal()
        self.up = trio.Event()
        self.opened = 0
        self.last_loss = "no answer"
        self.over: Callable[[], Exception] | None = None
        self._open_transport = open_transport
        self._registration = registration
        self._outbox = outbox
        outbox.wake = self.work.set
        self._limits = limits
        self._opened_at = 0.0
        self._useful = False

    def end(self, over: Callable[[], Exception]) -> None:
        """Fail every job with what `over` makes, now and in future. The first call counts."""
        if self.over is None:
            self.over = over
            self._outbox.fail(over)

    async def run(self) -> None:
        """Stay connected, until cancelled or refused for good."""
        pause = self._limits.shortest_pause
        while self.over is None:
            self._useful = False
            try:
                await self._converse()
            except ConnectionLost as lost:
                self._lose(lost.code, lost.reason)
            except RemoteProtocolError as broken:
                self._lose(None, f"the engine broke the protocol: {broken.reason}")
            if self._useful:
                pause = self._limits.shortest_pause
            await trio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, self._limits.longest_pause)

    # One connection, from the first byte to the last. Always raises.
    async def _converse(self) -> None:
        connection = Connection(Side.PEER)
        async with self._open_transport() as transport:
            transport.send(connection.send(self._registration))
            self._outbox.link_up(transport.announced)
            self.opened += 1
            self._opened_at = trio.current_time()
            self.up.set()
            try:
                async with open_service_nursery() as nursery:
                    nursery.start_soon(self._write, transport)
                    await self._read(transport, connection)
            finally:
                self._useful |= trio.current_time() > self._opened_at + self._limits.longest_pause
                if self.over is not None:
                    await transport.close()

    async def _read(self, transport: Transport, connection: Connection) -> None:
        outbox = self._outbox
        while True:
            for raw in await transport.receive():
                message = connection.receive(raw)
                if type(message) is WorkerResponse:
                    outbox.answer(message)
                elif type(message) is WorkerResponses:
                    for response in message.responses:
                        outbox.answer(response)
                elif type(message) is ProgressReport:
                    outbox.progress(message, len(raw))
            self._useful = True

    async def _write(self, transport: Transport) -> None:
        outbox = self._outbox
        try:
            if outbox.suspicious:
                await self._try_suspects(transport)
            while True:
                while parts := outbox.next_cancel() or outbox.next_request(trio.current_time()):
                    transport.send(*parts)
                    if transport.buffered_bytes > _WINDOW:
                        await transport.wait_sent(_WINDOW)
                await self.work.wait()
        except ConnectionLost:
            pass  # The reader meets the same end, and reports it.

    # Find the job that made the engine close the last connection.
    async def _try_suspects(self, transport: Transport) -> None:
        outbox = self._outbox
        # First nothing: if the engine closes now, it is us that it does not want, and no job is to blame.
        await trio.sleep(outbox.probe_time)
        self._useful = True
        while group := outbox.next_trial():
            for ticket in group:
                transport.send(*outbox.lone_request(ticket, trio.current_time()))
                await transport.wait_sent(_WINDOW)
            await trio.sleep(outbox.probe_time)
            outbox.acquit()
            # A trial takes long, and who has left is no suspect.
            while parts := outbox.next_cancel():
                transport.send(*parts)

    # What the end of a connection, or of the attempt to open one, means for the jobs.
    def _lose(self, code: int | None, reason: str) -> None:
        self.last_loss = reason
        # Quoted, for it may be the engine's text, line ends and all.
        logger.info("connection lost: %r", reason)
        young = trio.current_time() < self._opened_at + _REGISTRATION_TIME
        if code == 1008 and young and not self._outbox.carried:
            self.end(
                partial(
                    RegistrationRefused, f"the engine refused this client (is its token right?): {reason}"
                )
            )
        elif code == 1003:
            self.end(partial(ConnectionLost, f"the engine does not speak this protocol: {reason}", code=code))
        else:
            self._outbox.link_lost(f"{code} {reason}" if code in _REFUSALS else "")

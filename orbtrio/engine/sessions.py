"""One conversation per connection: authorise, pass on, answer. No bookkeeping of jobs (`exchange.py`).

The first message decides the role (P-01). After that the session's task does nothing but read: it never waits
for work, so that pings, closes and the next message are always seen; a client's task waits while its
resources are written, which is the client's own back-pressure. A mistake of the peer ends this connection,
with the code the mistake has, and no other.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import attrs
import trio

from orbtrio._nursery import open_service_nursery
from orbtrio.engine.clients import BatchedClient, RemoteClient
from orbtrio.engine.queues import run_batcher
from orbtrio.errors import ConnectionLost, RegistrationRefused, RemoteProtocolError
from orbtrio.protocol.connection import Connection, Side
from orbtrio.protocol.messages import (
    CancelRequest,
    RegisterClient,
    RegisterWorker,
    UnknownMessage,
    WorkerDrain,
    WorkerOutput,
    WorkerProgress,
    WorkerRequest,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from orbtrio.engine.clients import ClientFlusher
    from orbtrio.engine.config import Config
    from orbtrio.engine.exchange import Exchange
    from orbtrio.engine.queues import WorkerQueue
    from orbtrio.protocol.messages import JobRequest, Message
    from orbtrio.transport import Transport, Turns

__all__ = ["Sessions"]

_log = logging.getLogger("orbtrio.engine")

# Messages of unknown type are skipped so that old engines and new peers mix, but not as a way to keep us
# busy. P-53, B-71.
_MAX_UNKNOWN_PER_MINUTE: Final = 100

# One read may bring two thousand jobs, which are 10 ms. After so many we see whether others should go on.
_STRETCH: Final = 256

# After n refused registrations in a row an address waits n times this long for its next refusal, so that
# guessing secrets is slow while neighbours behind the same address are served at once. Seconds. B-50.
_REFUSAL_DELAY: Final = 0.01
_DEFAULT_MAX_LATENCY: Final = RegisterWorker(worker_type="any", worker_secret="").max_latency
_MAX_REFUSAL_DELAY: Final = 1.0
_REFUSALS_REMEMBERED: Final = 10_000


class _UnknownMessages:
    # How many messages of unknown type a peer has sent in this minute.
    def __init__(self) -> None:
        self._since = trio.current_time()
        self._count = 0

    def note(self, message: UnknownMessage) -> None:
        now = trio.current_time()
        if now - self._since > 60:
            self._since, self._count = now, 0
        self._count += 1
        if self._count > _MAX_UNKNOWN_PER_MINUTE:
            raise RemoteProtocolError("too many messages of unknown type")
        _log.debug("ignored a message of type %r", message.message_type[:40])


class Sessions:
    """The conversations of one engine.

    Attributes:
        clients, workers: How many are registered now.
        refusals: Registrations refused since the start.
        peer_errors: Connections ended because the peer broke the protocol.
        lost: Connections that ended without a close handshake or fell silent.
    """

    def __init__(self, config: Config, exchange: Exchange, flusher: ClientFlusher, turns: Turns) -> None:
        self.clients = 0
        self.workers = 0
        self.refusals = 0
        self.peer_errors = 0
        self.lost = 0
        self._config = config
        self._exchange = exchange
        self._flusher = flusher
        self._flush = flusher.flush
        self._turns = turns
        self._refused_in_a_row: OrderedDict[str, int] = OrderedDict()
        # The secret as bytes: comparing text in constant time works for ASCII only.
        self._worker_secret = config.worker_secret.encode() if config.worker_secret is not None else None

    async def run(self, transport: Transport, registered: Callable[[], None]) -> None:
        """Hold one conversation until the connection ends; never raises for what the peer does.

        Args:
            registered: Called when the peer has said who it is, or is refused.
        """
        connection = Connection(Side.ENGINE, implicit_clients=not self._config.client_tokens)
        address = transport.peer.rpartition(":")[0]
        try:
            transport.max_message_bytes = self._config.max_unregistered_message_bytes
            with trio.move_on_after(self._config.registration_timeout) as waiting:
                (raw,) = await transport.receive(most=1)
            if waiting.cancelled_caught:
                raise RemoteProtocolError(f"no registration within {self._config.registration_timeout:g} s")
            first = connection.receive(raw)
            if isinstance(first, RegisterWorker):
                # A stock worker that names no latency must not be refused for the default.
                if first.max_latency == _DEFAULT_MAX_LATENCY > self._config.job_timeout:
                    first = attrs.evolve(first, max_latency=self._config.job_timeout)
                self._authorise_worker(first)
                registered()
                self._refused_in_a_row.pop(address, None)
                await self._serve_worker(transport, connection, first)
            else:
                registration = first if isinstance(first, RegisterClient) else None
                tenant = self._authorise_client(registration)
                registered()
                self._refused_in_a_row.pop(address, None)
                await self._serve_client(transport, connection, tenant, first)
        except RemoteProtocolError as error:
            connection.fail()
            _log.info("%s: closed with %d: %s", transport.peer, error.close_code, error.reason)
            if isinstance(error, RegistrationRefused):
                self.refusals += 1
                await trio.sleep(self._refusal_delay(address))
            else:
                self.peer_errors += 1
            registered()
            await transport.close(error.close_code, error.reason)
        except ConnectionLost as error:
            if error.code is None:
                self.lost += 1
            _log.debug("%s: %s", transport.peer, error)
        finally:
            connection.close()

    # --------------------------------------------------------------------------------------- authorising

    def _authorise_worker(self, registration: RegisterWorker) -> None:
        config = self._config
        secret = registration.worker_secret.encode()
        if self._worker_secret is not None and not hmac.compare_digest(secret, self._worker_secret):
            raise RegistrationRefused("worker_secret is not the engine's")
        if not self._exchange.recognises(registration.worker_type):
            name = registration.worker_type[:30]
            raise RegistrationRefused(
                f"worker_type {name!r} is not recognised; add it to the engine's WORKER_TYPES"
            )
        if registration.max_latency > config.job_timeout:
            raise RegistrationRefused(
                f"max_latency_ms is above the job timeout of {config.job_timeout * 1000:.0f} ms"
            )
        if self.workers >= config.max_workers:
            raise RegistrationRefused("too many workers; raise the engine's ORB_MAX_WORKERS")

    def _authorise_client(self, registration: RegisterClient | None) -> str:
        if self.clients >= self._config.max_clients:
            raise RegistrationRefused("too many clients; raise the engine's ORB_MAX_CLIENTS")
        tokens = self._config.client_tokens
        if not tokens:
            return f"client-{secrets.token_hex(8)}"
        given = (registration.token or "").encode() if registration is not None else b""
        found = None
        for token, tenant in tokens.items():
            # No early exit: the time taken must not tell how far down the list a token stands.
            if hmac.compare_digest(given, token.encode()):
                found = tenant
        if found is None:
            raise RegistrationRefused("token is not one of the engine's CLIENT_TOKENS")
        return found

    def _refusal_delay(self, address: str) -> float:
        count = self._refused_in_a_row.pop(address, 0) + 1
        self._refused_in_a_row[address] = count
        if len(self._refused_in_a_row) > _REFUSALS_REMEMBERED:
            self._refused_in_a_row.popitem(last=False)
        return min(_REFUSAL_DELAY * count, _MAX_REFUSAL_DELAY)

    # ------------------------------------------------------------------------------------------- workers

    async def _serve_worker(
        self, transport: Transport, connection: Connection, registration: RegisterWorker
    ) -> None:
        transport.max_message_bytes = self._config.max_worker_message_bytes
        files = None
        if "inline_resources" in connection.extensions:
            files = self._exchange.file_outlet(transport)
        queue = self._exchange.add_worker(registration, files or transport)
        self.workers += 1
        too_large = False
        _log.info("%s: worker %s registered", transport.peer, queue.name)
        try:
            self._flush()
            async with open_service_nursery() as nursery:
                nursery.start_soon(run_batcher, queue, self._flush)
                if files is not None:
                    nursery.start_soon(files.run)
                await self._read_outputs(transport, connection, queue, nursery)
        except RemoteProtocolError as error:
            too_large = error.close_code == 1009
            raise
        finally:
            self.workers -= 1
            self._exchange.remove_worker(queue, message_too_large=too_large)
            self._flush()
            _log.info("%s: worker %s is gone", transport.peer, queue.name)

    async def _read_outputs(
        self, transport: Transport, connection: Connection, queue: WorkerQueue, nursery: trio.Nursery
    ) -> None:
        unknown = _UnknownMessages()
        while True:
            for raw in await transport.receive():
                message = connection.receive(raw)
                if type(message) is WorkerOutput:
                    self._exchange.answer(queue, message)
                    if len(message.entries) >= _STRETCH and self._turns.over:
                        self._flush()
                        await self._turns.enter()
                elif isinstance(message, WorkerProgress):
                    self._exchange.report(queue, message)
                elif isinstance(message, WorkerDrain):
                    if not queue.draining:
                        _log.info("%s: worker %s drains", transport.peer, queue.name)
                        nursery.start_soon(_close_drained, transport, queue)
                    self._exchange.drain_worker(queue)
                elif isinstance(message, UnknownMessage):
                    unknown.note(message)
            self._flush()

    # ------------------------------------------------------------------------------------------- clients

    async def _serve_client(
        self,
        transport: Transport,
        connection: Connection,
        tenant: str,
        first: Message,
    ) -> None:
        transport.max_message_bytes = self._config.max_client_message_bytes
        most = self._config.max_buffered_bytes
        if "batched_responses" in connection.extensions:
            client: RemoteClient = BatchedClient(
                transport, connection.extensions, self._flusher, max_unsent=most
            )
        else:
            client = RemoteClient(transport, connection.extensions, max_unsent=most)
        self.clients += 1
        _log.debug("%s: client registered", transport.peer)
        try:
            if isinstance(first, WorkerRequest):
                await self._exchange.accept(client, tenant, first)
            await self._read_requests(transport, connection, client, tenant)
        finally:
            self.clients -= 1
            self._exchange.abandon_all(client)
            self._exchange.forget_tenant(tenant)
            self._flush()
            _log.debug("%s: client is gone", transport.peer)

    async def _read_requests(
        self, transport: Transport, connection: Connection, client: RemoteClient, tenant: str
    ) -> None:
        unknown = _UnknownMessages()
        # Jobs count as queued until they are dealt to the workers, and one read may bring two thousand. More
        # than there is room for would be refused while the workers have nothing to do.
        most = self._config.max_queued_jobs // 2
        while True:
            message: Message | None = None  # the last one may hold images of 32 MiB: not while we wait
            received = await transport.receive()
            received.reverse()
            # A client that has one job per request sends many requests at a time. To accept their jobs
            # together takes 1.5 µs a job off them.
            jobs: list[JobRequest] = []
            try:
                while received:
                    # Popped, not looked at: while 32 MiB are decoded and encoded anew, every copy counts.
                    message = connection.receive(received.pop())
                    if type(message) is WorkerRequest and not (message.resources or message.invalid):
                        jobs += message.jobs
                        if len(jobs) >= most:
                            self._accept_jobs(client, jobs)
                            await _let_others_run()
                        elif len(jobs) >= _STRETCH and self._turns.over:
                            self._accept_jobs(client, jobs)
                            await self._turns.enter()
                        continue
                    self._accept_jobs(client, jobs)
                    if isinstance(message, WorkerRequest):
                        await self._exchange.accept(client, tenant, message)
                    elif isinstance(message, CancelRequest):
                        self._exchange.cancel(client, message.client_job_ids)
                    elif isinstance(message, UnknownMessage):
                        unknown.note(message)
            finally:
                # What came before a mistake counts.
                self._accept_jobs(client, jobs)
            self._flush()

    def _accept_jobs(self, client: RemoteClient, jobs: list[JobRequest]) -> None:
        if jobs:
            self._exchange.accept_jobs(client, jobs)
            jobs.clear()


# Every task that can run does, whichever comes first in a turn: it is before or behind us in the first, and
# before us in the second.
async def _let_others_run() -> None:
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()


# Whatever crossed the worker's word on the wire was sent before: it is counted, and answered by now.
async def _close_drained(transport: Transport, queue: WorkerQueue) -> None:
    await queue.drained.wait()
    await transport.close(1000, "drained")

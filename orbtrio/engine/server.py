"""The engine: its tasks, its listeners and its end.

```
serve
└─ services nursery
   ├─ dispatcher: memory channel of job lists -> workers
   ├─ reaper: ends what is past its deadline
   └─ connections nursery          on stop: each conversation is cancelled and closed with 1001
      ├─ worker session: reader task, batcher task      finally: requeue every job this worker owns
      ├─ client session: reader task                    finally: abandon each of its jobs
      └─ listeners nursery         on stop: cancelled first
```

The accept loop is ours, not `trio_websocket.serve_websocket`, which any unauthenticated peer can end
(`robustness.md`, section 1).
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from orbtrio._nursery import open_service_nursery
from orbtrio.engine import local
from orbtrio.engine.clients import ClientFlusher
from orbtrio.engine.exchange import Exchange
from orbtrio.engine.http import Front
from orbtrio.engine.listeners import listener_url, open_listeners, peer_address, tls_context
from orbtrio.engine.resources import open_store
from orbtrio.engine.sessions import Sessions
from orbtrio.engine.statistics import render_metrics, snapshot
from orbtrio.errors import ConfigError, ConnectionLost, JobRefused
from orbtrio.protocol.messages import EXTENSIONS
from orbtrio.transport import TransportLimits, Turns, open_server_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from orbtrio.engine.config import Config
    from orbtrio.engine.statistics import EngineStatistics
    from orbtrio.streams import JobStream
    from orbtrio.transport import Transport

__all__ = ["Engine", "open_engine"]

_log = logging.getLogger("orbtrio.engine")

_LOCAL_TENANT: Final = "local"


class Engine:
    """An ORB engine.

    Use `open_engine`, or ``await nursery.start(engine.serve)``.

    Attributes:
        addresses: Where it listens, e.g. ``("ws://127.0.0.1:5000/ws", "ws://[::1]:5000/ws")``; empty until it
        serves.
    """

    def __init__(self, config: Config, *, listen: bool = True) -> None:
        """Make an engine that does nothing until it serves.

        Args:
            config: Its settings, checked.
            listen: False for an engine without a socket: jobs come through `submit`, peers through `handle`.

        Raises:
            ConfigError: the settings cannot work; the text says which one to change.
        """
        config.check()
        self.addresses: tuple[str, ...] = ()
        self._config = config
        self._listen = listen
        limits = TransportLimits(
            max_message_bytes=config.max_unregistered_message_bytes,
            max_buffered_bytes=config.max_buffered_bytes,
            handshake_timeout=config.handshake_timeout,
            close_timeout=config.close_timeout,
            write_timeout=config.write_timeout,
            message_timeout=config.message_timeout,
            ping_interval=config.ping_interval,
            ping_timeout=config.ping_timeout,
        )
        self._flusher = ClientFlusher()
        self._turns = Turns()
        self._open_transport = partial(open_server_transport, limits=limits, announce=EXTENSIONS)
        self._front = Front(
            allowed_origins=config.allowed_origins,
            allowed_hosts=config.allowed_hosts,
            routes={
                "/healthz": self._healthz,
                "/readyz": self._readyz,
                "/metrics": self._metrics,
                "/version": self._version,
            },
            handshake_timeout=config.handshake_timeout,
        )
        self._tls = tls_context(config.tls_certificate, config.tls_key)
        self._conversations: set[trio.CancelScope] = set()
        self._unregistered: Counter[str] = Counter()
        self._patience = trio.CancelScope()
        self._stopping = trio.Event()
        self._stopped = trio.Event()
        self._exchange: Exchange | None = None
        self._metrics_body = b""
        self._metrics_until = -math.inf

    # ------------------------------------------------------------------------------------------ lifetime

    async def serve(self, *, task_status: trio.TaskStatus[Engine] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the engine until `stop` has done its work, or until cancelled, which ends it at once.

        Raises:
            ConfigError: another engine holds the store, or the TLS files cannot be read.
            StoreError: the directory for resources cannot be used.
            OSError: the port is taken.
        """
        config = self._config
        try:
            async with open_store(
                Path(config.store_root), quota_bytes=config.store_quota_bytes
            ) as self._store:
                self._exchange = Exchange(config, self._store, self._flusher.flush)
                self._sessions = Sessions(config, self._exchange, self._flusher, self._turns)
                listeners: list[trio.SocketListener] = []
                if self._listen:
                    listeners = await open_listeners(config.server_host, config.server_port)
                tls = self._tls is not None
                self.addresses = tuple(listener_url(listener, tls=tls) for listener in listeners)
                with self._turns.followed():
                    async with open_service_nursery() as services:
                        services.start_soon(self._exchange.dispatcher.run)
                        services.start_soon(self._exchange.run_reaper)
                        try:
                            await self._serve_connections(listeners, task_status)
                        finally:
                            # Cancelled or not: whoever awaits a job in this process is told, not left
                            # waiting, and conversations end that `handle` serves in tasks of somebody else.
                            self._stopping.set()
                            self._exchange.end_all()
                            self._end_conversations()
        finally:
            self._stopping.set()
            self._stopped.set()

    async def _serve_connections(
        self, listeners: list[trio.SocketListener], task_status: trio.TaskStatus[Engine]
    ) -> None:
        assert self._exchange is not None
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                if listeners:
                    accept = partial(trio.serve_listeners, handler_nursery=connections)
                    accepting.start_soon(accept, self._handle_socket, listeners)
                task_status.started(self)
                await self._stopping.wait()
                accepting.cancel_scope.cancel()
            _log.info("stopping: %d jobs are open", self._exchange.open_jobs)
            with self._patience:
                await self._exchange.drain()
            self._exchange.end_all()
            self._end_conversations()

    async def stop(self, grace: float | None = None) -> None:
        """Take no new jobs, wait for open ones, end the rest as ``engine_stopped``, close with 1001. P-26.

        Returns when all is done. Calling it again may shorten the wait, not lengthen it.

        Args:
            grace: Seconds from now; the setting `grace_period` if None.
        """
        if self._exchange is None:
            return
        grace = self._config.grace_period if grace is None else grace
        self._patience.deadline = min(self._patience.deadline, trio.current_time() + grace)
        self._stopping.set()
        await self._stopped.wait()

    async def wait_stopped(self) -> None:
        """Wait until `serve` has ended."""
        await self._stopped.wait()

    # --------------------------------------------------------------------------------------- connections

    async def _handle_socket(self, stream: trio.SocketStream) -> None:
        peer = peer_address(stream)
        if peer is None:
            await trio.aclose_forcefully(stream)
        elif self._tls is None:
            await self.handle(stream, peer)
        else:
            await self.handle(trio.SSLStream(stream, self._tls, server_side=True), peer)

    async def handle(self, stream: trio.abc.Stream, peer: str = "memory:0") -> None:
        """Serve one connection, from its HTTP head to its end.

        For memory streams and one's own listeners. Never raises for a peer's doing; always closes the stream.

        Args:
            stream: Any Trio stream; owned by the engine from now on.
            peer: Where it comes from, ``"host:port"``, for logs and for limits per address.
        """
        address = peer.rpartition(":")[0]
        limit, limit_here = self._config.max_unregistered, self._config.max_unregistered_per_address
        if self._unregistered.total() >= limit or self._unregistered[address] >= limit_here:
            await trio.aclose_forcefully(stream)
            return
        self._unregistered[address] += 1
        registered = _Once(lambda: self._unregister(address))
        try:
            await self._converse(stream, peer, registered)
        except Exception:
            # Protects the engine and every other connection from a bug that some peer's bytes have found.
            _log.exception("%s: the connection failed", peer)
        finally:
            registered()
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.abc.Stream, peer: str, registered: _Once) -> None:
        # Lost before the session began, that is, between the peer's request and our answer: its own affair.
        with trio.CancelScope() as conversation, suppress(ConnectionLost):
            self._conversations.add(conversation)
            try:
                head = await self._front.negotiate(stream)
                if head is None:
                    return
                async with self._open_transport(
                    stream, head, peer=peer, flusher=self._flusher, turns=self._turns
                ) as transport:
                    await self._talk(transport, registered)
            finally:
                self._conversations.discard(conversation)

    async def _talk(self, transport: Transport, registered: _Once) -> None:
        try:
            if self._stopping.is_set():
                # Whoever was connecting when it began; the others hear the same when the last job has ended.
                await transport.close(1001, "the engine is stopping")
            else:
                await self._sessions.run(transport, registered)
        except trio.Cancelled:
            await transport.close(1001, "the engine is stopping")
            raise

    def _end_conversations(self) -> None:
        for conversation in self._conversations:
            conversation.cancel()

    def _unregister(self, address: str) -> None:
        self._unregistered[address] -= 1
        if not self._unregistered[address]:
            del self._unregistered[address]

    # ---------------------------------------------------------------------------------------- in process

    async def submit(
        self,
        worker_type: str,
        input: Mapping[str, Any],
        *,
        timeout: float | None = None,  # noqa: ASYNC109  not the caller's patience but the job's deadline
        extra: Mapping[str, Any] | None = None,
        arrays: bool = False,
    ) -> dict[str, Any]:
        """Run one job, without a socket, and return its output.

        Cancelling forgets the job; a worker that has it already is told to stop, if it can be.

        Args:
            worker_type: Which workers may run it.
            input: Anything CBOR holds; `orbtrio.Image` and `orbtrio.Document` values inside reach the worker
                as file paths.
            timeout: Seconds; the engine's own job timeout of five minutes holds in any case.
            extra: Fields that travel beside the input (P-03).
            arrays: Vectors are to be `array.array` instead of lists; see `orbtrio.connect`.

        Returns:
            The worker's result fields, without ``id``.

        Raises:
            JobFailed: the worker answered with an error.
            JobTimedOut: no answer in time.
            JobRefused: the engine could not take the job, or had to end it; see its `kind`.
            InvalidMessage: the input holds something that CBOR cannot.

        Spec: "Full Request/Response Cycle".
        """
        terms: dict[str, Any] = {"timeout": timeout, "extra": extra, "arrays": arrays}
        return await local.submit(self._serving(), worker_type, input, **terms)

    def stream(
        self,
        worker_type: str,
        input: Mapping[str, Any],
        *,
        timeout: float | None = None,
        heartbeat: float | None = None,
        extra: Mapping[str, Any] | None = None,
        arrays: bool = False,
    ) -> JobStream:
        """Run one job, without a socket, and follow how it gets on; as `orbtrio.Client.stream`.

        Args:
            worker_type, input, extra, arrays: As for `submit`.
            timeout: Seconds for the whole job, at most what the setting `max_job_timeout` allows.
            heartbeat: Seconds; a worker that has the job and tells nothing for so long is given up on.

        Returns:
            An asynchronous iterator of what the worker tells; its ``output`` is the result.
        """
        terms = {"timeout_ms": timeout, "heartbeat_ms": heartbeat}
        asked = {name: seconds * 1000 for name, seconds in terms.items() if seconds is not None}
        extra = {**(extra or {}), **asked}
        return local.open_stream(self._serving, worker_type, input, extra, arrays=arrays)

    def _serving(self) -> Exchange:
        if self._exchange is None:
            raise JobRefused(
                "engine_stopped", "the engine does not serve yet; await nursery.start(engine.serve) first"
            )
        if self._stopped.is_set():
            raise JobRefused("engine_stopped", "the engine has stopped")
        return self._exchange

    # ---------------------------------------------------------------------------------------- statistics

    def statistics(self) -> EngineStatistics:
        """What is connected, waiting and done right now."""
        exchange = self._exchange
        if exchange is None:
            raise ConfigError("the engine does not serve yet; await nursery.start(engine.serve) first")
        return snapshot(exchange, self._sessions, self._store)

    def _healthz(self) -> tuple[int, str, bytes]:
        return 200, "text/plain", b"ok\n"

    def _readyz(self) -> tuple[int, str, bytes]:
        return (
            (503, "text/plain", b"stopping\n") if self._stopping.is_set() else (200, "text/plain", b"ready\n")
        )

    def _metrics(self) -> tuple[int, str, bytes]:
        # Anybody may ask, as often as they like, and with 2,000 workers an answer takes 0.2 s: it is given
        # again until ten times that long have passed, so that the answers never take more than a tenth of the
        # time. What counts is this thread's own work: on a busy machine a small answer that had to wait for
        # the processor would otherwise be old for seconds.
        if time.perf_counter() >= self._metrics_until:
            begun = time.thread_time()
            self._metrics_body = render_metrics(self.statistics)
            self._metrics_until = time.perf_counter() + 10 * (time.thread_time() - begun)
        return 200, "text/plain; version=0.0.4; charset=utf-8", self._metrics_body

    def _version(self) -> tuple[int, str, bytes]:
        version = {"engine": "orbtrio", "version": importlib.metadata.version("orbtrio"), "protocol": "1.0"}
        return 200, "application/json", json.dumps(version).encode() + b"\n"


@asynccontextmanager
async def open_engine(config: Config, *, listen: bool = True) -> AsyncIterator[Engine]:
    """Run an engine inside a Trio program.

    ```python
    async with orbtrio.open_engine(orbtrio.Config(worker_secret="…")) as engine:
        print(await engine.submit("embedding", {"text": "a kitten"}))
    ```

    Leaving the block stops the engine without a grace period; await ``engine.stop()`` first for one.

    Raises:
        ConfigError, StoreError, OSError: as `Engine.serve`, before the block is entered.
    """
    engine = Engine(config, listen=listen)
    async with open_service_nursery() as nursery:
        await nursery.start(engine.serve)
        yield engine
        await engine.stop(grace=0)


class _Once:
    # Calls its function the first time only: a slot is given back by whichever comes first, registration or
    # the end.
    def __init__(self, function: Callable[[], None]) -> None:
        self._function: Callable[[], None] | None = function

    def __call__(self) -> None:
        function, self._function = self._function, None
        if function is not None:
            function()

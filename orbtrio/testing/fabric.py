"""A whole fabric in one process: the real engine, and whoever is to be connected to it.

Nothing in here is a model of the real thing. Engine, client and worker are those of production, down to the
frames of WebSocket; only the wire is memory, and the engine's files lie in a directory that goes when the
fabric goes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import attrs
import trio

from orbtrio._nursery import open_service_nursery
from orbtrio.client import connect
from orbtrio.engine.config import Config
from orbtrio.engine.server import Engine
from orbtrio.protocol.messages import RegisterClient, RegisterWorker
from orbtrio.testing.clock import steady_clock, wait_until_idle
from orbtrio.testing.links import Link
from orbtrio.testing.peers import LIMITS, FakeClient, FakeWorker, ScriptedPeer
from orbtrio.transport import open_client_transport
from orbtrio.worker import WorkerSettings, run_worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from orbtrio.client import Client, ClientLimits

__all__ = ["Fabric", "RunningWorker", "open_fabric"]

_P = TypeVar("_P", bound=ScriptedPeer)
_Work: TypeAlias = Callable[..., Awaitable[None]]

# The engine answers to this name whatever its settings are, and nothing here ever resolves it.
_URL: Final = "ws://localhost/ws"


class _Dialer:
    # The `open_stream` of one peer: a new link for each connection.
    def __init__(self, open_link: Callable[[], Link]) -> None:
        self._open_link = open_link
        self._link: Link | None = None

    async def __call__(self) -> trio.abc.Stream:
        self._link = self._open_link()
        return self._link.peer_end

    @property
    def link(self) -> Link:
        assert self._link is not None, "it has not connected yet"
        return self._link


class RunningWorker:
    """A real worker, started by `Fabric.start_worker`."""

    def __init__(self, dialer: _Dialer) -> None:
        self._dialer = dialer
        self._stopping = trio.Event()
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    @property
    def link(self) -> Link:
        """Its wire; another one after each reconnection."""
        return self._dialer.link

    async def stop(self) -> None:
        """Let it finish what it has in hand, and end."""
        self._stopping.set()
        await self._ended.wait()

    async def kill(self) -> None:
        """End it as a killed process ends: at once, and without a word to the engine."""
        self.link.hang_up()
        self._scope.cancel()
        await self._ended.wait()

    async def run(
        self, work: _Work, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Work until stopped or killed; for the fabric."""
        try:
            with self._scope:
                await work(stop=self._stopping, open_stream=self._dialer, task_status=task_status)
        finally:
            self._ended.set()


class Fabric:
    """An engine and its peers, made by `open_fabric`.

    Peers live until the fabric ends, unless the test ends them before. The methods that connect one return
    when the engine has dealt with its registration.

    Attributes:
        engine: The real one: `submit` jobs in process, look at its `statistics`, `stop` it.
        config: Its settings.
        links: Every wire that there has been, oldest first.
    """

    def __init__(self, config: Config, engines: trio.Nursery, peers: trio.Nursery) -> None:
        self.config = config
        self.engine = Engine(config, listen=False)
        self.links: list[Link] = []
        self._engines = engines
        self._peers = peers
        self._secret = config.worker_secret or "any"
        self._dialers: dict[Client, _Dialer] = {}

    # --- Real peers.

    async def connect(
        self, *, token: str | None = None, limits: ClientLimits | None = None, arrays: bool = False
    ) -> Client:
        """A client, as `orbtrio.connect` makes it."""
        dialer = _Dialer(self.open_link)
        connection = connect(_URL, token=token, limits=limits, arrays=arrays, open_stream=dialer)
        client: Client = await self._peers.start(_hold, connection)
        self._dialers[client] = dialer
        await wait_until_idle()
        return client

    async def start_worker(
        self,
        handler: Callable[..., Any],
        worker_type: str = "embedding",
        *,
        batched: bool = False,
        concurrency: int = 1,
        **settings: Any,
    ) -> RunningWorker:
        """Run a handler as a worker, as `orbtrio.run_worker` does.

        Args:
            handler: Sync or async. A sync one runs in a thread, and virtual time stands still meanwhile.
            worker_type: What it serves.
            batched: It takes lists of inputs.
            concurrency: How many calls of it may run at once.
            settings: Further fields of `orbtrio.WorkerSettings`, e.g. ``max_batch_size=8``.
        """
        all_settings = WorkerSettings(
            **{"worker_type": worker_type, "worker_secret": self._secret, "server_url": _URL} | settings
        )
        worker = RunningWorker(_Dialer(self.open_link))
        run: _Work = run_worker
        work = partial(run, handler, all_settings, batched=batched, concurrency=concurrency)
        await self._peers.start(worker.run, work)
        await wait_until_idle()
        return worker

    # --- Scripted peers.

    async def fake_worker(self, worker_type: str = "embedding", **registration: Any) -> FakeWorker:
        """A worker that does what the test tells it.

        Args:
            worker_type: What it serves.
            registration: Further fields of `RegisterWorker`, e.g. ``max_batch_size=2, max_latency=0.1``; by
                default those of a stock worker: batches of 32, half a minute of latency, no extension.
        """
        fields = {"worker_type": worker_type, "worker_secret": self._secret} | registration
        return await self._introduce(FakeWorker, RegisterWorker(**fields))

    async def fake_client(self, *, engine_errors: bool = False, token: str | None = None) -> FakeClient:
        """A client that does what the test tells it.

        Args:
            engine_errors: It asks to be told of jobs that the engine ends itself. A stock client does not.
            token: If the engine's settings ask for one.
        """
        extensions = frozenset({"engine_errors"} if engine_errors else ())
        return await self._introduce(FakeClient, RegisterClient(token=token, extensions=extensions))

    async def fake_peer(self, address: str = "memory") -> ScriptedPeer:
        """Somebody who is connected and has not said yet who it is.

        Args:
            address: Where the engine believes it comes from; some of its limits are per address.
        """
        return await self._introduce(ScriptedPeer, None, address)

    # --- Wires.

    def open_link(self, address: str = "memory") -> Link:
        """A new wire to the engine. Who speaks at its `peer_end` has to begin with HTTP."""
        link = Link(f"{address}:{len(self.links) + 1}")
        self.links.append(link)
        self._engines.start_soon(self.engine.handle, link.engine_end, link.name)
        return link

    async def open_stream(self) -> trio.abc.Stream:
        """As `open_link`, for what takes an ``open_stream``: a client or worker of your own."""
        return self.open_link().peer_end

    def link_of(self, client: Client) -> Link:
        """The wire of a client from `connect`; another one after each reconnection."""
        return self._dialers[client].link

    # --- The engine's life.

    async def start(self) -> None:
        """Start the engine; for `open_fabric`."""
        await self._engines.start(self.engine.serve)

    async def restart(self) -> None:
        """Have the engine crash and be started again: every connection breaks, and open jobs are gone."""
        for link in self.links:
            link.cut()
        await self.engine.stop(grace=0)
        self.engine = Engine(self.config, listen=False)
        await self.start()

    async def _introduce(
        self, kind: type[_P], registration: RegisterWorker | RegisterClient | None, address: str = "memory"
    ) -> _P:
        link = self.open_link(address)
        peer = kind(link)
        await self._peers.start(peer.run, open_client_transport(_URL, open_stream=link.dial, limits=LIMITS))
        if registration is not None:
            peer.send(registration)
        await wait_until_idle()
        return peer


@asynccontextmanager
async def open_fabric(config: Config | None = None, **settings: Any) -> AsyncIterator[Fabric]:
    """Run an engine, and whatever peers a test connects to it, in this process and without a socket.

    Args:
        config: The engine's settings. By default there is a secret, which the fabric's workers know, and
            every worker type is recognised.
        settings: Fields of `Config` that shall differ from that, e.g. ``job_timeout=10``. Where resources are
            kept is the fabric's to say.

    Raises:
        ConfigError: settings that cannot work.

    Whatever else goes wrong inside, in the engine or in a peer, is raised here.
    """
    config = config or Config(worker_secret="a secret for tests", worker_types=("*",))
    with steady_clock(), tempfile.TemporaryDirectory(prefix="orbtrio-") as directory:
        config = attrs.evolve(config, **settings, xdg_data_home=Path(directory))
        async with open_service_nursery() as engines, open_service_nursery() as peers:
            fabric = Fabric(config, engines, peers)
            await fabric.start()
            try:
                yield fabric
            finally:
                # Peers close before the engine does, in good order; where they cannot, no virtual clock
                # would ever come to their timeouts.
                for link in fabric.links:
                    link.heal()


async def _hold(
    connection: AbstractAsyncContextManager[Client], *, task_status: trio.TaskStatus[Client]
) -> None:
    async with connection as client:
        task_status.started(client)
        await trio.sleep_forever()

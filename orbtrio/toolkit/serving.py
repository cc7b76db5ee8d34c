"""An HTTP server for the engine's calls: anycorn's connections behind Trio's listeners.

Anycorn speaks HTTP: its parser, its keep-alive, its `sendfile`. What stands around a connection is ours,
because `anycorn.serve` (0.20.1) failed when these were tried:

- It sends inside a shield. An engine that asks for a large input and does not read it holds up the end for
  ever: neither `graceful_timeout` nor cancelling helps. Here, what is still open after `GRACE` loses its
  socket, and a write to a closed socket returns.
- When the process has no descriptor left, its listener raises and the server is gone. `trio.serve_listeners`
  waits for a moment and goes on.
- It takes any number of connections, so that whoever opens enough of them and says nothing shuts out the
  engine. Here the oldest one without a request in hand makes room.

As with `anycorn.serve`, cancelling is not the way to end: set `stop`, and requests in hand are answered while
idle connections close at once.

A head must be complete within `_IDLE`, which is also how long a connection may rest between two requests: it
is longer than the seconds between an engine's heartbeats, or one of them would sometimes meet the end of its
connection. How long a body may take is the application's business, which knows what it is for; a reader has
all the time it wants, for an engine may take its input as slowly as it works.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Final, cast

import anyio
import anyio.abc
import attrs
import trio
from anycorn.config import Config
from anycorn.tcp_server import TCPServer
from anycorn.typing import ASGIFramework, LifespanState
from anycorn.utils import wrap_app
from anycorn.worker_context import WorkerContext

from orbtrio.transport import authority

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["GRACE", "base_url", "serve"]

logger = logging.getLogger("orbtrio.toolkit.http")

# How long requests in hand may go on once the end has begun, in seconds.
GRACE: Final = 1.0
_IDLE: Final = 15.0
_MAX_HEAD_BYTES: Final = 32 * 1024
# Enough for an engine with hundreds of tasks; a process may have 1024 descriptors by default.
_MOST_CONNECTIONS: Final = 512

_CONNECTION: Final = "orbtrio.connection"


@attrs.define(eq=False)
class _Connection:
    stream: anyio.abc.SocketStream
    requests: int = 0  # in hand


class _Server:
    """Connections of one application."""

    def __init__(self, app: ASGIApp, most_connections: int) -> None:
        self._config = Config()
        self._config.errorlog = logger
        self._config.keep_alive_timeout = _IDLE
        self._config.h11_max_incomplete_size = _MAX_HEAD_BYTES
        # Nobody reads these, and the date costs more than the rest of an empty answer's head.
        self._config.include_date_header = self._config.include_server_header = False
        self._context = WorkerContext(None)
        self._most = most_connections
        self._app = wrap_app(cast("ASGIFramework", self._counted(app)), 0, "asgi")
        # Oldest first.
        self._open: dict[_Connection, None] = {}
        self._emptied = trio.Event()

    async def handle(self, accepted: trio.SocketStream) -> None:
        raw = socket.socket(fileno=accepted.socket.detach())
        try:
            stream = await anyio.abc.SocketStream.from_socket(raw)
        except (OSError, ValueError):  # It has gone again already.
            raw.close()
            return
        if len(self._open) >= self._most and not await self._make_room():
            await anyio.aclose_forcefully(stream)
            return
        connection = _Connection(stream)
        self._open[connection] = None
        try:
            state = LifespanState({_CONNECTION: connection})
            await TCPServer(self._app, self._config, self._context, state, stream).run()
        # One connection's trouble must not end the others.
        except Exception:
            logger.exception("a connection has failed")
        finally:
            self._open.pop(connection, None)
            if not self._open:
                self._emptied.set()

    async def drain(self) -> None:
        """Close what is idle, and wait until the rest has finished."""
        await self._context.terminated.set()
        if self._open:
            self._emptied = trio.Event()
            await self._emptied.wait()

    async def cut(self) -> None:
        """Close what is left."""
        for connection in tuple(self._open):
            await anyio.aclose_forcefully(connection.stream)

    async def _make_room(self) -> bool:
        for connection in self._open:
            if not connection.requests:
                del self._open[connection]
                await anyio.aclose_forcefully(connection.stream)
                return True
        return False

    def _counted(self, app: ASGIApp) -> ASGIApp:
        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            connection = scope["state"].pop(_CONNECTION)
            connection.requests += 1
            try:
                await app(scope, receive, send)
            finally:
                connection.requests -= 1

        return counted


def base_url(host: str, port: int) -> str:
    """Where a server is found: ``http://127.0.0.1:8889``; an address of IPv6 stands in brackets."""
    return f"http://{authority(host, port)}"


async def serve(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    stop: trio.Event,
    most_connections: int = _MOST_CONNECTIONS,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application until `stop` is set; then end within about `GRACE` seconds.

    Start it with ``await nursery.start(...)``, which returns the port.

    Args:
        app: Called for each request. It gets no lifespan events.
        host: Where to listen; the first address that it has.
        port: 0 for a free one.
        stop: Ends it.
        most_connections: That are open at a time.
        task_status: Reports the port.

    Raises:
        OSError: that host and port cannot be listened at.
    """
    listener, *others = await trio.open_tcp_listeners(port, host=host)
    for other in others:  # With port 0 they would have other ports.
        await other.aclose()
    server = _Server(app, most_connections)
    async with trio.open_nursery() as handling:
        try:
            async with trio.open_nursery() as listening:
                listening.start_soon(_listen, server, listener, handling)
                task_status.started(listener.socket.getsockname()[1])
                await stop.wait()
                listening.cancel_scope.cancel()
            with trio.move_on_after(GRACE):
                await server.drain()
        finally:
            # Nothing here waits; the shield lets it happen after a cancellation too, when tasks of anycorn's
            # would otherwise go on writing.
            with trio.CancelScope(shield=True):
                await server.cut()
            handling.cancel_scope.cancel()


async def _listen(server: _Server, listener: trio.SocketListener, handling: trio.Nursery) -> None:
    await trio.serve_listeners(server.handle, [listener], handler_nursery=handling)

"""Both ends' way to an open connection, as context managers that leave nothing behind."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from orbtrio._nursery import open_service_nursery
from orbtrio.errors import RemoteProtocolError
from orbtrio.transport.connection import Transport, TransportLimits
from orbtrio.transport.dial import Target, read_answer
from orbtrio.transport.pipes import Pipe, open_pipe
from orbtrio.transport.websocket import answer_upgrade, request_upgrade

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable

    from orbtrio.transport.outgoing import Flusher
    from orbtrio.transport.turns import Turns
    from orbtrio.transport.websocket import Upgrade

__all__ = ["open_client_transport", "open_server_transport"]


@asynccontextmanager
async def open_server_transport(
    stream: trio.abc.Stream,
    head: bytes,
    *,
    peer: str,
    limits: TransportLimits | None = None,
    flusher: Flusher | None = None,
    turns: Turns | None = None,
    announce: Collection[str] = (),
) -> AsyncIterator[Transport]:
    """Accept a WebSocket whose upgrade request has been read and found good.

    Leaving the block closes the connection: with 1000, with the code of a `RemoteProtocolError` that
    passes, with 1011 for any other exception, with 1001 when cancelled. Exceptions come out bare.

    Args:
        stream: Belongs to the transport from here on.
        head: Every byte read so far: the request, and what the peer sent behind it without waiting.
        peer: The other end, for logs.
        limits: What the connection may cost.
        flusher: Told of frames queued.
        turns: Who may read much in a turn of the loop, shared by all its connections.
        announce: Names of the extensions that this end understands, for the peer to read in `announced`.

    Raises:
        ConnectionLost: the handshake failed.
    """
    limits = limits or TransportLimits()

    async def read_head(pipe: Pipe) -> tuple[bytes, bytes]:
        request, end, behind = head.partition(b"\r\n\r\n")
        return request + end, behind

    pipe = _open_pipe(stream, limits)
    transport = Transport(
        pipe, server=True, peer=peer, limits=limits, read_head=read_head, flusher=flusher, turns=turns
    )
    async with _run(transport, answer_upgrade(announce), trio.current_time() + limits.handshake_timeout):
        yield transport


@asynccontextmanager
async def open_client_transport(
    url: str,
    *,
    open_stream: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
    limits: TransportLimits | None = None,
    ssl_context: ssl.SSLContext | None = None,
    headers: Iterable[tuple[str, str]] = (),
) -> AsyncIterator[Transport]:
    """Connect to a WebSocket server. Leaving the block closes as `open_server_transport` does.

    Args:
        url: ``ws://host:port/path`` or ``wss://host:port/path``.
        open_stream: Called in place of opening a TCP connection; for ``wss``, TLS goes on top.
        limits: What the connection may cost; `handshake_timeout` covers TCP, TLS and upgrade together.
        ssl_context: For ``wss``, if the authorities the system trusts are not the right ones.
        headers: Sent along with the request.

    Raises:
        ConfigError: the URL is not one of a WebSocket.
        ConnectionLost: no connection; the text tells what the server said and what to check.
    """
    limits = limits or TransportLimits()
    target = Target.parse(url)
    extra_headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]
    deadline = trio.current_time() + limits.handshake_timeout

    upgrade = request_upgrade(str(target), target.resource, extra_headers)
    stream = await target.connect(deadline, open_stream=open_stream, ssl_context=ssl_context)
    pipe = _open_pipe(stream, limits)
    transport = Transport(pipe, server=False, peer=str(target), limits=limits, read_head=read_answer)
    async with _run(transport, upgrade, deadline):
        yield transport


def _open_pipe(stream: trio.abc.Stream, limits: TransportLimits) -> Pipe:
    return open_pipe(stream, user_timeout=limits.write_timeout + limits.ping_timeout)


@asynccontextmanager
async def _run(transport: Transport, upgrade: Upgrade, deadline: float) -> AsyncIterator[None]:
    async with open_service_nursery() as nursery:
        nursery.start_soon(transport.run, upgrade, deadline)
        try:
            await transport.wait_opened()
            yield
        except BaseException as error:
            await transport.close(*_farewell(error))
            raise
        await transport.close()


# What to tell the peer when the session ends with `error`.
def _farewell(error: BaseException) -> tuple[int, str]:
    if isinstance(error, RemoteProtocolError):
        return error.close_code, error.reason
    if isinstance(error, Exception):
        return 1011, "internal error"
    return 1001, "going away"

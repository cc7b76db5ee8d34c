"""Listening sockets: addresses, both address families, TLS."""

from __future__ import annotations

import errno
import ssl
from typing import TYPE_CHECKING

import trio

from orbtrio.errors import ConfigError
from orbtrio.transport import authority

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["listener_url", "open_listeners", "peer_address", "tls_context"]


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Listen on every address of `host`; ``localhost`` is 127.0.0.1 and, where there is IPv6, ::1.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    if host != "localhost":
        return await trio.open_tcp_listeners(port, host=host)
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    # The same port for both families, also when the system chose it; peers resolve the name to either. F-46.
    try:
        listeners += await trio.open_tcp_listeners(listeners[0].socket.getsockname()[1], host="::1")
    except BaseException as error:
        if not isinstance(error, OSError) or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            for listener in listeners:
                listener.socket.close()
            raise
    return listeners


def listener_url(listener: trio.SocketListener, *, tls: bool) -> str:
    """The WebSocket address of a listening socket."""
    host, port = listener.socket.getsockname()[:2]
    return f"{'wss' if tls else 'ws'}://{authority(host, port)}/ws"


def peer_address(stream: trio.SocketStream) -> str | None:
    """``"host:port"`` of the other end; None if it has gone already, for which the system says ENOTCONN."""
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return None
    return f"{host}:{port}"


def tls_context(certificate: Path | str | None, key: Path | str | None) -> ssl.SSLContext | None:
    """A server's TLS settings; None without a certificate.

    Raises:
        ConfigError: the files cannot be used.
    """
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ORB_TLS_CERTIFICATE, ORB_TLS_KEY: {error}") from None
    return context

"""From a URL to a server that has agreed to talk WebSocket, or to an error that says what to do about it.

These texts are what somebody sees whose worker does not start. They tell what was tried, what came
back, and what to check.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs
import trio

from orbtrio.errors import ConfigError, ConnectionLost
from orbtrio.transport.pipes import Pipe, describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Target", "authority", "read_answer"]

_MAX_HEAD_BYTES: Final = 64 * 1024
_READ_BYTES: Final = 16 * 1024
_QUOTED_BYTES: Final = 200

_IS_IT_THERE: Final = "is the engine running, and is that its address?"
_IS_IT_ORB: Final = "is that an ORB engine, and are ws:// and wss:// not mixed up?"
# In TLS 1.3 we finish the handshake before a server misses our certificate, and Trio's sends no alert (F-45).
_OR_A_CERTIFICATE: Final = "Or does it ask for a client certificate?"
_HINTS: Final = {
    "301": "redirects are not followed; connect to the new address",
    "302": "redirects are not followed; connect to the new address",
    "307": "redirects are not followed; connect to the new address",
    "308": "redirects are not followed; connect to the new address",
    "401": "check the credentials among the headers",
    "403": "check the host name, and the Origin header if there is one",
    "404": "check the path of the URL; it is usually /ws",
    "429": "the server has had enough of this address for now",
    "503": "the server is full or stopping; try again later",
}


def authority(host: str, port: int) -> str:
    """Host and port as they stand in a URL (RFC 3986, section 3.2): an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@attrs.frozen
class Target:
    """Where a URL leads.

    Attributes:
        host: Name or address, without brackets.
        port: Of TCP.
        secure: Whether to speak TLS.
        resource: Path and query, as the request has them.
    """

    host: str
    port: int
    secure: bool
    resource: str

    @classmethod
    def parse(cls, url: str) -> Target:
        """Read a URL.

        Raises:
            ConfigError: it is not one of a WebSocket.
        """
        example = "expected one like ws://localhost:5000/ws"
        # Passwords and tokens stay out of errors.
        shown = url.partition("?")[0].rpartition("@")[2]
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(f"{shown!r} is no URL ({error}); {example}") from None
        if parts.scheme not in ("ws", "wss") or not host:
            raise ConfigError(f"{shown!r} is no URL of a WebSocket; {example}")
        if parts.username is not None:
            raise ConfigError("a password in the URL is not sent; give it as a header")
        secure = parts.scheme == "wss"
        resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(host, port or (443 if secure else 80), secure, resource)

    def __str__(self) -> str:
        return authority(self.host, self.port)

    async def connect(
        self,
        deadline: float,
        *,
        open_stream: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> trio.abc.Stream:
        """Open the connection, with TLS on top where the URL says so.

        Args:
            deadline: Trio time until which this may take.
            open_stream: Called in place of opening a TCP connection.
            ssl_context: Whom to trust, if not the authorities the system trusts.

        Raises:
            ConnectionLost: there is no connection; nothing is left open.
        """

        async def open_tcp() -> trio.abc.Stream:
            return await trio.open_tcp_stream(self.host, self.port)

        with trio.move_on_at(deadline):
            try:
                stream = await (open_stream or open_tcp)()
            except (OSError, trio.BrokenResourceError) as error:
                raise ConnectionLost(
                    f"cannot connect to {self}: {describe(error)}; {_IS_IT_THERE}"
                ) from error
            if not self.secure:
                return stream
            return await self._secure(stream, ssl_context or ssl.create_default_context())
        raise ConnectionLost(f"no answer from {self} in time; {_IS_IT_THERE}")

    async def _secure(self, stream: trio.abc.Stream, context: ssl.SSLContext) -> trio.abc.Stream:
        secured = trio.SSLStream(stream, context, server_hostname=self.host, https_compatible=True)
        try:
            await secured.do_handshake()
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            if isinstance(error, OSError | trio.BrokenResourceError | ssl.CertificateError):
                raise ConnectionLost(
                    f"no TLS with {self}: {describe(error)}; check its certificate, and that it speaks TLS"
                ) from error
            raise
        return secured


async def read_answer(pipe: Pipe) -> tuple[bytes, bytes]:
    """Read a server's answer to a WebSocket upgrade.

    Returns:
        Its head, and what came behind it.

    Raises:
        ConnectionLost: it does not agree.
    """
    answer = bytearray()
    while (end := answer.find(b"\r\n\r\n")) < 0:
        data = await pipe.receive(_READ_BYTES)
        if not data:
            raise ConnectionLost(
                f"hung up instead of answering the upgrade; {_IS_IT_ORB} {_OR_A_CERTIFICATE}"
            )
        answer += data
        if len(answer) > _MAX_HEAD_BYTES or not answer.startswith(b"HTTP/"[: len(answer)]):
            raise ConnectionLost(f"did not answer the upgrade in HTTP; {_IS_IT_ORB}")
    head, rest = bytes(answer[: end + 4]), bytes(answer[end + 4 :])
    status = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")[2]
    if not status.startswith("101"):
        text = " ".join(rest[:_QUOTED_BYTES].decode("utf-8", "replace").split())
        hint = _HINTS.get(status[:3], _IS_IT_ORB)
        raise ConnectionLost(f"the server refused with HTTP {status}{text and f' ({text})'}; {hint}")
    return head, rest

"""The HTTP front: what a connection says before it is a WebSocket.

One port serves workers, clients, health checks and metrics. `Front.negotiate` reads one request head with
h11, answers whatever is not an upgrade of ours, and hands the raw bytes of a good upgrade to
`orbtrio.transport`, where trio-websocket reads them again. That costs 0.2 ms per connection and nothing per
message, and nothing of ours stands in between that the two could disagree about.

Everything here happens before anybody has said who they are, so it is the part strangers reach. Hence one
deadline over all of it, 64 KiB at most, one request per connection, and no exception out of it but
cancellation. Rejected: trio-websocket's own server (`serve_websocket`), whose listener ends for everybody
when one peer sends a plain GET and resets, or one non-ASCII byte in `Host`.

Two checks are against web pages: a browser opens a WebSocket to localhost for any page that asks (B-09), and
a hostile name server may point the page's own name here (DNS rebinding, B-10). Programs send no `Origin` and
pass.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Final, TypeAlias

import attrs
import h11
import trio

__all__ = ["Front", "Route"]

logger = logging.getLogger("orbtrio.engine.http")

_BROKEN: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)

Route: TypeAlias = Callable[[], tuple[int, str, bytes]]

_MAX_HEAD_BYTES: Final = 64 * 1024
# Small, because h11 looks at its limit only after each read.
_READ_BYTES: Final = 16 * 1024
_LINGER: Final = 1.0
_KEY_BYTES: Final = 16


@attrs.frozen
class _Answer:
    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Front:
    """Reads the request of a fresh connection and decides what becomes of it.

    Args:
        allowed_origins: Web pages that may connect, as ``https://host[:port]``; ``"*"`` for all.
        allowed_hosts: Names by which we may be called, besides localhost and IP addresses; ``"*"`` for all.
        routes: Plain requests: path to a function that returns status, content type and body.
        path: Where WebSockets are served.
        handshake_timeout: Seconds for the whole of `negotiate`.
    """

    def __init__(
        self,
        allowed_origins: Iterable[str] = (),
        allowed_hosts: Iterable[str] = (),
        routes: Mapping[str, Route] | None = None,
        path: str = "/ws",
        handshake_timeout: float = 5.0,
    ) -> None:
        self._origins = frozenset(origin.lower().rstrip("/") for origin in allowed_origins)
        self._hosts = frozenset(host.lower() for host in allowed_hosts) | {"localhost"}
        self._routes = dict(routes or {})
        self._path = path
        self._handshake_timeout = handshake_timeout

    async def negotiate(self, stream: trio.abc.Stream) -> bytes | None:
        """Read one request, and answer it unless it is an upgrade.

        Returns:
            The bytes of a valid upgrade, pipelined frames behind it included, for `open_server_transport`;
            None if the request was answered or refused or never came, and then the stream is closed.

        Nothing that a peer sends, and no moment at which it resets, raises anything here. Cancelling leaves
        the stream to the caller.
        """
        with trio.move_on_after(self._handshake_timeout), suppress(*_BROKEN):
            raw, answer = await self._read(stream)
            if answer is None:
                return raw
            await stream.send_all(answer)
            await _linger(stream)
        with suppress(*_BROKEN):
            await trio.aclose_forcefully(stream)
        return None

    # The bytes read, and the answer to send; no answer to an upgrade.
    async def _read(self, stream: trio.abc.Stream) -> tuple[bytes, bytes | None]:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        raw = bytearray()
        request: h11.Request | None = None
        try:
            while (event := connection.next_event()) is h11.NEED_DATA:
                data = bytes(await stream.receive_some(_READ_BYTES))
                raw += data
                connection.receive_data(data)
            if not isinstance(event, h11.Request):
                return b"", b""
            request = event
            head_bytes = len(raw) - len(connection.trailing_data[0])
            answer = self._answer(_Head(request, bytes(raw[:head_bytes])))
        except h11.RemoteProtocolError as error:
            # Garbage, a TLS hello, a head without end. h11 proposes 400, 431 or 501.
            answer = _refusal(error.error_status_hint, str(error))
        if answer is None:
            return bytes(raw), None
        return b"", _serialise(connection, answer, with_body=request is None or request.method != b"HEAD")

    # None for an upgrade that keeps every rule.
    def _answer(self, head: _Head) -> _Answer | None:
        if not head.ascii:
            # trio-websocket decodes some of them as ASCII, and raises UnicodeDecodeError.
            return _refusal(400, "non-ASCII bytes in the head")
        host = head.only("host")
        if host is not None and not self._is_ours(host):
            return _refusal(
                403, f"not served under the name {_hostname(host)!r}; ORB_ALLOWED_HOSTS lists the names"
            )
        if head.path != self._path:
            return self._answer_plain(head)
        if head.method != "GET":
            return _refusal(405, "WebSockets begin with GET", ("allow", "GET"))
        if "websocket" not in head.tokens("upgrade"):
            return _refusal(
                426, "this is a WebSocket endpoint", ("upgrade", "websocket"), ("connection", "upgrade")
            )
        return self._refuse_upgrade(head)

    def _answer_plain(self, head: _Head) -> _Answer:
        route = self._routes.get(head.path)
        if route is None:
            return _refusal(404, f"nothing here; WebSockets are served at {self._path}")
        if head.method not in ("GET", "HEAD"):
            return _refusal(405, "only GET and HEAD", ("allow", "GET, HEAD"))
        try:
            status, content_type, body = route()
        # The routes are our own metrics and health: a bug there must not end the listener.
        except Exception:
            logger.exception("no answer for %s", head.path)
            return _refusal(500, "internal error")
        return _Answer(status, content_type, body)

    def _refuse_upgrade(self, head: _Head) -> _Answer | None:
        origin = head.only("origin")
        if origin is not None and not self._origins & {"*", origin.lower().rstrip("/")}:
            return _refusal(403, "this web page may not connect; ORB_ALLOWED_ORIGINS lists those that may")
        if head.only("sec-websocket-version") != "13":
            return _refusal(426, "only version 13 of WebSocket", ("sec-websocket-version", "13"))
        if not _is_key(head.only("sec-websocket-key") or ""):
            return _refusal(400, "Sec-WebSocket-Key must be 16 bytes in base64")
        if "upgrade" not in head.tokens("connection") or head.only("host") is None or not head.plain:
            return _refusal(400, "not a well-formed upgrade request")
        return None

    # Rebinding takes a name: a page at an IP address is served from that very address, so literals are safe.
    def _is_ours(self, host: str) -> bool:
        name = _hostname(host)
        if self._hosts & {"*", name}:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class _Head:
    """A request head, as the rules above ask about it."""

    def __init__(self, request: h11.Request, raw: bytes) -> None:
        self._headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
        self.method = request.method.decode("latin-1")
        self.path = request.target.decode("latin-1").partition("?")[0]
        self.ascii = raw.isascii()
        # The head ends where everybody behind us finds its end, and nothing but frames follows.
        self.plain = (
            raw.find(b"\r\n\r\n") + 4 == len(raw)
            and request.http_version == b"1.1"
            and self.only("content-length") is None
            and self.only("transfer-encoding") is None
        )

    def only(self, name: str) -> str | None:
        """The value of a header; None if absent. Repeated ones come joined, and no rule accepts that."""
        values = [value for key, value in self._headers if key == name]
        return ", ".join(values) if values else None

    def tokens(self, name: str) -> set[str]:
        """The elements of a header that is a list, in lower case."""
        return {token.strip().lower() for token in (self.only(name) or "").split(",")}


def _hostname(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


# wsproto accepts a key of one character.
def _is_key(value: str) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        return False


def _refusal(status: int, text: str, *headers: tuple[str, str]) -> _Answer:
    logger.debug("refused with %d: %s", status, text)
    return _Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode(), headers)


def _serialise(connection: h11.Connection, answer: _Answer, *, with_body: bool) -> bytes:
    headers = [
        ("content-type", answer.content_type),
        ("content-length", str(len(answer.body))),
        ("connection", "close"),
        *answer.headers,
    ]
    reason = HTTPStatus(answer.status).phrase
    parts = [connection.send(h11.Response(status_code=answer.status, headers=headers, reason=reason))]
    if with_body:
        parts.append(connection.send(h11.Data(data=answer.body)))
    parts.append(connection.send(h11.EndOfMessage()))
    return b"".join(parts)


# A socket closed with bytes unread is reset, and a reset overtakes the answer: take what comes for a while.
async def _linger(stream: trio.abc.Stream) -> None:
    with trio.move_on_after(_LINGER):
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
        while await stream.receive_some(_READ_BYTES):
            pass

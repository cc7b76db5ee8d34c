"""Where the engine calls us: heartbeats, results, callbacks, its input, and shared keys.

```
POST      /heartbeat/<token>    a heartbeat                    204, 400, 403, 404, 410, 413
POST      /result/<token>       a result                       the same
POST      /callback/<token>     either; a heartbeat's token    the same
POST      /external/<token>     either; for outside parties    the same
GET       /cache/<token>        the input, see `cache`         200, 206, 403, 404, 410
GET POST  /keys/j<id>/<key>     shared by a job                200, 400, 403, 404, 413, 500
GET POST  /keys/t<id>/<key>     shared by a task               the same
```

These run with every heartbeat and result of every engine, so there is no framework here: a path is split, a
token looked up in a dict, a body read and parsed. Paths are taken as they were sent and not decoded, for a
key may hold an encoded slash.

Callers are not trusted alike, the external URL being handed on to others. So an unknown token is answered
before its body is kept, a body has a largest size and a time to arrive in, and what cannot be understood is
answered with words and changes nothing. Whoever is refused has his body thrown away up to a point: a server
that closes a connection with unread bytes on it takes its own answer back.

A browser on this machine is no engine, though any page in it can make it call us, and ``/keys`` needs no
token. So what comes from a page, with an ``Origin``, is refused, and so is a ``Host`` that is neither an
address nor a name of ours: that is a page that has let its own name point here. Outside parties come to
``/external`` by whatever name a proxy has for us, and have a token.
"""

from __future__ import annotations

import ipaddress
import logging
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import parse_qs, unquote_to_bytes, urlsplit

import trio

from orbtrio.toolkit.answers import BadRequest, Heartbeat, Result, parse_callback
from orbtrio.toolkit.cache import send_input
from orbtrio.toolkit.items import Reception
from orbtrio.toolkit.keys import DEFAULT_TTL, LONGEST_TTL, KeysUnavailable, Scoped, Value
from orbtrio.toolkit.open_items import Ended

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

    from orbtrio.toolkit.fetching import Fetcher
    from orbtrio.toolkit.keys import KeyStore
    from orbtrio.toolkit.open_items import OpenItems, Purpose

__all__ = ["Webhooks", "is_named"]

logger = logging.getLogger("orbtrio.toolkit.http")

_MAX_HEARTBEAT_BYTES: Final = 1 << 20
# Seconds for a body to arrive. An outside party may be on the other side of the world.
_BODY: Final = 30.0
# What is thrown away of a refused body, in bytes and seconds: most clients read no answer before they sent
# all.
_DISCARDED: Final = 64 << 20
_DISCARDING: Final = 2.0

# Parsing a longer one would hold up everything else for milliseconds.
_PARSED_AT_ONCE: Final = 256 * 1024

_HOOKS: Final[Mapping[bytes, tuple[Purpose, Callable[[bytes], Heartbeat | Result]]]] = {
    b"heartbeat": ("heartbeat", Heartbeat.parse),
    b"result": ("result", Result.parse),
    b"callback": ("callback", parse_callback),
    b"external": ("external", parse_callback),
}


_UNKNOWN: Final = "no such attempt"
_OVER: Final = "the attempt is over"
# For what is not there and for what must not be seen: whoever asks learns nothing from the difference.
_NO_KEY: Final = "no such key"


class _Refused(Exception):
    """What to answer in place of what was asked for."""

    def __init__(self, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text
        self.headers = headers


class _Disconnected(Exception):
    """Nobody is there to be answered."""


class Webhooks:
    """The toolkit's ASGI application.

    Args:
        open_items: Whom tokens belong to.
        fetcher: Reads streams for ``/cache``.
        keys: The store behind ``/keys``; None if there is none.
        max_body_bytes: Largest result, and largest value of a key.
        host: Where we listen: an address, or a name that callers may use too.
        fallback: What answers other paths, and WebSockets.
    """

    def __init__(
        self,
        open_items: OpenItems,
        fetcher: Fetcher,
        *,
        keys: KeyStore | None = None,
        max_body_bytes: int = 12 << 20,
        host: str = "127.0.0.1",
        fallback: ASGIApp | None = None,
    ) -> None:
        self._open_items = open_items
        self._fetcher = fetcher
        self._keys = keys
        self._limit = max_body_bytes
        self._host = host
        self._fallback = fallback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await (self._fallback or _close)(scope, receive, send)
            return
        request = _Request(scope, receive, send)
        try:
            match scope["raw_path"].split(b"/"):
                case [b"", hook, token] if hook in _HOOKS:
                    self._check(request, any_host=hook == b"external")
                    await self._hook(*_HOOKS[hook], token.decode("latin-1"), request)
                case [b"", b"cache", token]:
                    self._check(request)
                    await self._cache(token.decode("latin-1"), request)
                case [b"", b"keys", owner, key] if self._keys is not None:
                    self._check(request)
                    await self._key(self._keys, _scoped(owner, key), request)
                case _ if self._fallback is not None:
                    await self._fallback(scope, receive, send)
                case _:
                    raise _Refused(404, "nothing here")
        except _Refused as refused:
            await request.refuse(refused)
        except _Disconnected:
            pass

    def _check(self, request: _Request, *, any_host: bool = False) -> None:
        host = request.header(b"host")
        if not any_host and host and not is_named(host.decode("latin-1"), self._host):
            raise _Refused(403, "this is not the host that you think: use the URL that /process was given")
        if request.header(b"origin"):
            raise _Refused(403, "this is for engines, not for pages in browsers")

    async def _hook(
        self,
        purpose: Purpose,
        parse: Callable[[bytes], Heartbeat | Result],
        token: str,
        request: _Request,
    ) -> None:
        item = self._open_items.find(purpose, token)
        if item is None:
            raise _Refused(404, _UNKNOWN)
        request.expect("POST")
        data = await request.read(_MAX_HEARTBEAT_BYTES if purpose == "heartbeat" else self._limit)
        try:
            if len(data) <= _PARSED_AT_ONCE:
                message = parse(data)
            else:
                message = await trio.to_thread.run_sync(parse, data)
            # The attempt may have ended since it was found. It knows.
            if isinstance(message, Heartbeat):
                reception = item.heartbeat(message, trio.current_time())
            else:
                reception = item.result(message, trio.current_time())
        except BadRequest as bad:
            raise _Refused(400, str(bad)) from None
        if reception is Reception.GONE:
            raise _Refused(410, _OVER)
        await request.answer(204)

    async def _cache(self, token: str, request: _Request) -> None:
        item = self._open_items.find("cache", token)
        if item is None:
            raise _Refused(404, _UNKNOWN)
        request.expect("GET", "HEAD")
        if isinstance(item, Ended) or item.over:
            raise _Refused(410, _OVER)
        await send_input(item, self._open_items, self._fetcher, *request.parts)

    async def _key(self, keys: KeyStore, key: Scoped | None, request: _Request) -> None:
        if key is None or not self._open_items.in_scope(key.kind, key.owner):
            raise _Refused(404, _NO_KEY)
        request.expect("GET", "HEAD", "POST")
        try:
            if request.method == "POST":
                ttl = _ttl(request.query)
                data = await request.read(self._limit)
                if not data:
                    raise _Refused(400, "the body is missing: it is the key's value")
                await keys.set(key, Value(data, request.content_type), ttl)
                await request.answer(200)
                return
            value = await keys.get(key)
        except KeysUnavailable as error:
            # Where Redis is, is not the engine's to know (ET-138).
            logger.error("a shared key: %s", error)
            raise _Refused(500, "the store of keys is not available") from None
        if value is None:
            raise _Refused(404, _NO_KEY)
        await request.answer(200, value.data, value.content_type or "application/octet-stream")


class _Request:
    """One request, and the answer to it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.parts = scope, receive, send
        self.method: str = scope["method"]
        self.query: bytes = scope["query_string"]
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._receive = receive
        self._send = send
        self._read_all = False

    @property
    def content_type(self) -> str:
        """What the body is said to be; empty if nothing sensible."""
        text = self.header(b"content-type").decode("latin-1")
        return text if text.isascii() and text.isprintable() else ""

    def expect(self, *methods: str) -> None:
        """Raises _Refused if the request's method is none of these."""
        if self.method not in methods:
            allowed = ", ".join(methods)
            raise _Refused(405, f"only {allowed}", (b"allow", allowed.encode()))

    async def read(self, limit: int) -> bytes:
        """The body, if it is not longer and comes in time. Raises _Refused, _Disconnected."""
        too_large = _Refused(413, f"a body of more than {limit} bytes")
        length = self.header(b"content-length")
        if length.isdigit() and int(length) > limit:
            raise too_large
        parts, size = [], 0
        with trio.move_on_after(_BODY):
            while not self._read_all:
                part = await self._next()
                size += len(part)
                if size > limit:
                    raise too_large
                parts.append(part)
            return b"".join(parts)
        raise _Refused(408, f"the body has not arrived within {_BODY:g} s")

    async def answer(self, status: int, body: bytes = b"", content_type: str = "") -> None:
        """Answer, after the body has been read."""
        headers = []
        if status != 204:
            headers.append((b"content-length", str(len(body)).encode()))
        if content_type:
            headers.append((b"content-type", content_type.encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, refused: _Refused) -> None:
        """Answer first, so that it can be read by whoever looks up while sending; then let him finish."""
        body = f"{refused.text}\n".encode()
        headers = [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"text/plain; charset=utf-8"),
            *refused.headers,
        ]
        await self._send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        size = 0
        with trio.move_on_after(_DISCARDING), suppress(_Disconnected):
            while not self._read_all and size < _DISCARDED:
                size += len(await self._next())
        await self._send({"type": "http.response.body", "body": b""})

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise _Disconnected
        self._read_all = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    def header(self, name: bytes) -> bytes:
        """A header's value; empty without one. The name is in small letters."""
        return next((value for key, value in self._headers if key == name), b"")


@lru_cache(maxsize=64)
def is_named(host: str, own: str) -> bool:
    """Whether a ``Host`` can mean us: an address, localhost, or the name that we listen at.

    No page's own name is one of these, wherever that points (DNS rebinding). The port is not looked at, for
    there may be a tunnel in between.

    Args:
        host: As the header has it.
        own: Where we listen.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:  # A bracket that is never closed.
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in ("localhost", own.lower())
    return True


async def _close(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.close"})


def _scoped(owner: bytes, key: bytes) -> Scoped | None:
    kind: Literal["j", "t"]
    match owner[:1]:
        case b"j":
            kind = "j"
        case b"t":
            kind = "t"
        case _:
            return None
    try:
        name = unquote_to_bytes(owner[1:]).decode()
    except UnicodeDecodeError:
        return None
    return Scoped(kind, name, unquote_to_bytes(key)) if key else None


def _ttl(query: bytes) -> int:
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("ttlInSeconds")
    if values is None:
        return DEFAULT_TTL
    text = values[-1]
    if text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= LONGEST_TTL:
        return int(text)
    raise _Refused(400, f"ttlInSeconds must be a whole number of seconds from 1 to {LONGEST_TTL}")

"""What strangers send instead of a WebSocket handshake, as data."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from orbtrio.conformance.cases.frames import BINARY, frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PIPE_JUNK", "handshake", "pipe_junk"]

PIPE_JUNK: Final[Mapping[str, str]] = {
    "nothing": "not a byte (B-02)",
    "get": "a plain HTTP GET (B-03)",
    "head": "an HTTP HEAD (B-03)",
    "post": "an HTTP POST with a body (B-03)",
    "http/9": "a version of HTTP that does not exist (B-03)",
    "noise": "random bytes (B-04)",
    "zeros": "4,096 zero bytes (B-04)",
    "tls": "a TLS client hello (B-04)",
    "half": "half of a handshake (B-01)",
    "host": "a handshake whose Host is no ASCII (B-03)",
    "path": "a handshake whose path is no ASCII (B-03)",
    "long header": "a handshake with a header of 300 KB (B-06)",
    "many headers": "a handshake with 10,000 headers (B-06)",
    "no key": "a handshake without Sec-WebSocket-Key (B-08)",
    "short key": "a handshake with a Sec-WebSocket-Key of one character (B-08)",
    "version": "a handshake for version 7 of WebSocket (B-08)",
    "compression": "a handshake that offers permessage-deflate and 100 subprotocols, then a message (B-11)",
    "lengths": "a request with two Content-Lengths and a chunked body (B-03)",
}


def handshake(path: str = "/ws", *, host: bytes = b"localhost", extra: Sequence[bytes] = ()) -> bytes:
    """An upgrade request."""
    lines = [
        b"GET " + path.encode() + b" HTTP/1.1",
        b"Host: " + host,
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Version: 13",
        *extra,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def pipe_junk(name: str, seed: int) -> bytes:
    """What a stranger sends instead of a handshake; `seed` is of the noise."""
    right = handshake()
    match name:
        case "get":
            return b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        case "head":
            return b"HEAD /ws HTTP/1.0\r\n\r\n"
        case "post":
            return b"POST /ws HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
        case "http/9":
            return right.replace(b"HTTP/1.1", b"HTTP/9.9")
        case "noise":
            generator = random.Random(seed)
            return generator.randbytes(generator.randint(1, 2000))
        case "zeros":
            return bytes(4096)
        case "tls":
            return bytes.fromhex("16030100c8010000c40303") + bytes(range(189))
        case "half":
            return right[:60]
        case "host":
            return handshake(host=b"\xff\xfe")
        case "path":
            return right.replace(b"/ws", b"/w\xc3\xa9")
        case "long header":
            return handshake(extra=[b"X-Long: " + b"x" * 300_000])
        case "many headers":
            return handshake(extra=[b"X-%d: 1" % number for number in range(10_000)])
        case "no key":
            return right.replace(b"Sec-WebSocket-Key", b"X-Key")
        case "short key":
            return right.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"d")
        case "version":
            return right.replace(b"Version: 13", b"Version: 7")
        case "compression":
            names = b", ".join(b"p%d" % number for number in range(100))
            offers = [b"Sec-WebSocket-Extensions: permessage-deflate", b"Sec-WebSocket-Protocol: " + names]
            return handshake(extra=offers) + frame(BINARY, b"\x02\x00", reserved=4)
        case "lengths":
            return (
                right[:-2]
                + b"Content-Length: 5\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            )
        case _:
            return b""

"""Peers made of bytes: they send what no library would, and read frames without any code of ours.

Every test of a connection runs over memory streams and over real sockets; `Kind` says which.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import trio
import trio.testing

from orbtrio._nursery import open_service_nursery
from orbtrio.errors import ConnectionLost
from orbtrio.transport import (
    Flusher,
    Transport,
    TransportLimits,
    open_client_transport,
    open_server_transport,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

Kind: TypeAlias = Literal["memory", "tcp"]
StreamPair: TypeAlias = tuple[trio.abc.Stream, trio.abc.Stream]
KINDS: Final[tuple[Kind, ...]] = ("memory", "tcp")

REQUEST: Final = (
    b"GET /ws HTTP/1.1\r\nHost: localhost:5000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
KEY: Final = b"\x37\xfa\x21\x3d"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(
    payload: bytes = b"",
    opcode: int = BINARY,
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    declared: int | None = None,
    length_bytes: int | None = None,
) -> bytes:
    """A frame, as right or wrong as asked for; what clients send unless told otherwise.

    Args:
        payload: In the clear.
        opcode: Four bits.
        fin: Whether it is the last frame of its message.
        reserved: Three bits.
        masked: Whether to mask.
        declared: The length the header gives, if not the payload's.
        length_bytes: How many bytes besides the second one give the length: 0, 2 or 8; None for enough.
    """
    size = len(payload) if declared is None else declared
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 1 << 16 else 8
    first = (fin << 7) | (reserved << 4) | opcode
    second = (masked << 7) | {0: size, 2: 126, 8: 127}[length_bytes]
    head = bytes((first, second)) + (size.to_bytes(length_bytes, "big") if length_bytes else b"")
    if not masked:
        return head + payload
    return head + KEY + bytes(byte ^ KEY[index % 4] for index, byte in enumerate(payload))


def close_payload(code: int, reason: str = "") -> bytes:
    return struct.pack("!H", code) + reason.encode()


def split_frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Whole frames in `data` as (opcode, payload in the clear), and what is left."""
    frames = []
    while len(data) >= 2:
        size, start = data[1] & 127, 2
        if size > 125:
            start += 2 if size == 126 else 8
            size = int.from_bytes(data[2:start], "big")
        key = b""
        if data[1] & 128:
            key = data[start : start + 4]
            start += 4
        if len(data) < start + size:
            break
        payload = data[start : start + size]
        if key:
            payload = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
        frames.append((data[0] & 15, payload))
        data = data[start + size :]
    return frames, data


class RawPeer:
    """The other end of a connection, past the upgrade."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.unread = b""

    async def send(self, *frames: bytes) -> None:
        await self.stream.send_all(b"".join(frames))

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: (opcode, payload)."""
        while True:
            frames, _ = split_frames(self.unread)
            if frames:
                # Frames sent to us are at most a few; parsing again is simpler than keeping them.
                first = frames[0]
                self.unread = self.unread[len(self.unread) - len(_without_first(self.unread)) :]
                return first
            data = await self.stream.receive_some(65536)
            if not data:
                raise EOFError
            self.unread += data

    async def frames(self) -> list[tuple[int, bytes]]:
        """All frames until the connection ends, however it does."""
        frames = []
        try:
            while True:
                frames.append(await self.frame())
        except (EOFError, OSError, trio.BrokenResourceError):
            return frames

    async def reset(self) -> None:
        """Hang up with a TCP reset; without TCP, just hang up."""
        if isinstance(self.stream, trio.SocketStream):
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(self.stream)


def _without_first(data: bytes) -> bytes:
    size, start = data[1] & 127, 2
    if size > 125:
        start += 2 if size == 126 else 8
        size = int.from_bytes(data[2:start], "big")
    return data[start + (4 if data[1] & 128 else 0) + size :]


async def stream_pair(kind: Kind) -> StreamPair:
    """A client's and a server's end of one connection."""
    if kind == "memory":
        return trio.testing.memory_stream_pair()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.testing.open_stream_to_socket_listener(listener)
        return client, await listener.accept()


def usual_limits() -> TransportLimits:
    """Those of virtual time. By the real clock a busy machine gets all the time that a test has."""
    if isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock):
        return TransportLimits()
    return TransportLimits(handshake_timeout=50, close_timeout=50)


@asynccontextmanager
async def server_and_peer(
    kind: Kind,
    limits: TransportLimits | None = None,
    *,
    pipelined: bytes = b"",
    flusher: Flusher | None = None,
    streams: StreamPair | None = None,
    stay: bool = False,
) -> AsyncIterator[tuple[Transport, RawPeer]]:
    """A server's transport, and a client made of bytes.

    The client hangs up first, so that nobody waits for its close frame, unless it is to `stay`.
    """
    limits = limits or usual_limits()
    theirs, ours = streams or await stream_pair(kind)
    peer = RawPeer(theirs)
    opening = open_server_transport(ours, REQUEST + pipelined, peer="peer", limits=limits, flusher=flusher)
    async with theirs, open_service_nursery() as nursery:
        # In a task, for a stream may take nothing until somebody reads.
        answered = trio.Event()
        nursery.start_soon(skip_head, peer, answered)
        async with opening as transport:
            await answered.wait()
            try:
                yield transport, peer
            finally:
                if not stay:
                    await trio.aclose_forcefully(theirs)


async def skip_head(peer: RawPeer, skipped: trio.Event) -> None:
    """Read an HTTP head; frames behind it stay unread."""
    peer.unread = (await read_head(peer.stream)).partition(b"\r\n\r\n")[2]
    skipped.set()


async def read_head(stream: trio.abc.Stream) -> bytes:
    """An HTTP head, and what came with its end."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some(65536)
        if not more:
            raise EOFError
        data += more
    return data


async def echo(transport: Transport) -> None:
    """Send every message back until the connection ends."""
    with suppress(ConnectionLost):
        while True:
            for message in await transport.receive():
                transport.queue(message)
            transport.flush()


@asynccontextmanager
async def both_ends(
    kind: Kind, limits: TransportLimits | None = None
) -> AsyncIterator[tuple[Transport, Transport]]:
    """A client's and a server's transport, connected to each other."""
    limits = limits or usual_limits()
    theirs, ours = await stream_pair(kind)

    async def open_stream() -> trio.abc.Stream:
        return theirs

    server: list[Transport] = []
    serving = trio.Event()
    done = trio.Event()

    async def serve() -> None:
        async with open_server_transport(
            ours, await read_head(ours), peer="client", limits=limits
        ) as transport:
            server.append(transport)
            serving.set()
            await done.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_client_transport(
            "ws://localhost/ws", open_stream=open_stream, limits=limits
        ) as client:
            await serving.wait()
            yield client, server[0]
            done.set()


async def receive_all(transport: Transport, count: int) -> list[bytes]:
    """`count` messages."""
    messages: list[bytes] = []
    while len(messages) < count:
        messages += await transport.receive()
    return messages


async def answer_upgrade(stream: trio.abc.Stream, behind: bytes = b"") -> None:
    """A server's side of the upgrade, with bytes behind its answer."""
    request = await read_head(stream)
    key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    await stream.send_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + behind
    )


def client_over(stream: trio.abc.Stream, **limits: float) -> AbstractAsyncContextManager[Transport]:
    """A client's transport over a stream that is open already."""

    async def open_stream() -> trio.abc.Stream:
        return stream

    return open_client_transport(
        "ws://localhost/ws",
        open_stream=open_stream,
        limits=TransportLimits(**limits),  # type: ignore[arg-type]
    )

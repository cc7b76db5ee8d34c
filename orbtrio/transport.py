"""Messages over WebSocket connections: queue and flush frames, receive what one read brought, close.

The only module that knows the WebSocket library. How a byte travels:

    socket --receive()--> FrameParser --whole binary messages--> the session, which called receive()
                               |
                               +--pings, pongs, close--> trio-websocket --its frames--+
                                                                                      v
    socket <--one send per flush-- the outgoing buffer <--queue()-- the session ------+

The session's task is the only reader. trio-websocket keeps what is hard to get right and rarely happens (upgrade, ping and pong,
close handshake) and sits on `_ControlStream`, a Trio stream that shows it control frames only. Both write to one buffer, so that
frames never interleave.

Rejected: trio-websocket alone (36 us to receive and 45 us to send 100 bytes; here 1 and 1, joined); `websockets` as a sans-I/O
protocol (4 us a frame, and a second library); a callback per message from a reader task of its own, as the prototype had it (no
cheaper, and back-pressure becomes the callback's business).

What ends a connection is recorded once, in `_lost`; whoever waits is woken by closing the pipe and learns it there. Peers'
mistakes raise `RemoteProtocolError` with a close code instead, and leave it to the session to close with it.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeAlias, cast
from urllib.parse import urlsplit

import attrs
import trio
import trio_websocket

from orbtrio._frames import FrameParser, FrameSkipper, encode_masked, frame_header
from orbtrio._nursery import open_service_nursery
from orbtrio._pipes import Interrupted, Pipe, open_pipe
from orbtrio.errors import ConfigError, ConnectionLost, RemoteProtocolError

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import AsyncIterator, Iterable
    from contextlib import AbstractAsyncContextManager

__all__ = ["Flusher", "Transport", "TransportLimits", "open_client_transport", "open_server_transport"]

logger = logging.getLogger("orbtrio.transport")

_READ_BYTES: Final = 64 * 1024
_LARGE_READ_BYTES: Final = 256 * 1024
_MAX_HEAD_BYTES: Final = 64 * 1024
# Control frames that may wait for trio-websocket before the reader waits too (B-18): many more than a live peer ever sends.
_CONTROL_QUEUE: Final = 64
_Connect: TypeAlias = Callable[[trio.Nursery, trio.abc.Stream], Awaitable[trio_websocket.WebSocketConnection]]
_BROKEN: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


@attrs.frozen(kw_only=True)
class TransportLimits:
    """What one connection may hold and how long it may take. Times in seconds.

    Attributes:
        max_message_bytes: Largest message to receive; `Transport.max_message_bytes` changes it later.
        max_fragments: Most frames of one message.
        max_buffered_bytes: Most unsent bytes; more, and the peer is considered stuck and cut off.
        handshake_timeout: To connect and upgrade.
        close_timeout: For the whole of `close`, the peer's answer included.
        write_timeout: Longest time in which a write gets no further.
        message_timeout: Longest time in which a message that has begun gets no further.
        ping_interval: Silence after which the peer is asked for life.
        ping_timeout: Further silence after which it is taken for dead.
    """

    max_message_bytes: int = 16 << 20
    max_fragments: int = 1024
    max_buffered_bytes: int = 64 << 20
    handshake_timeout: float = 5.0
    close_timeout: float = 2.0
    write_timeout: float = 10.0
    message_timeout: float = 30.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0


class Flusher:
    """Transports with frames that still have to be written.

    One message from a worker may answer jobs of a hundred clients: the engine queues all answers first, then writes to each
    connection once.
    """

    def __init__(self) -> None:
        self._dirty: list[Transport] = []

    def add(self, transport: Transport) -> None:
        """Remember a transport; called by its first `queue` since the last flush."""
        self._dirty.append(transport)

    def flush(self) -> None:
        """Write every transport that has something to write, each once; never blocks, never raises."""
        if self._dirty:
            dirty, self._dirty = self._dirty, []
            for transport in dirty:
                transport.flush()


class Transport:
    """One open WebSocket connection, either end of it. Made by `open_server_transport` and `open_client_transport`.

    Attributes:
        peer: The other end, for logs.
        last_received: Trio time at which its last byte came.
    """

    def __init__(
        self, pipe: Pipe, *, server: bool, peer: str, limits: TransportLimits, flusher: Flusher | None, head: bytes = b""
    ) -> None:
        self.peer = peer
        self.last_received = trio.current_time()
        self._pipe = pipe
        self._server = server
        self._limits = limits
        self._flusher = flusher
        self._dirty = False
        self._parser = FrameParser(
            masked=server, max_message_bytes=limits.max_message_bytes, max_fragments=limits.max_fragments
        )
        # Outgoing: parts not yet handed to the pipe, and a piece the pipe took only half of.
        self._parts: list[bytes] = []
        self._unsent = 0
        self._written = 0
        self._draining = False
        self._progress = trio.lowlevel.ParkingLot()
        # Incoming.
        self._waiting = False
        self._stalled_since = self.last_received
        self._held = 0
        self._violation: RemoteProtocolError | None = None
        self._control = _ControlStream(self, head)
        # Life and death.
        self._websocket: trio_websocket.WebSocketConnection | None = None
        self._services = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._opened = trio.Event()
        self._closing = False
        self._closing_scope: trio.CancelScope | None = None
        self._ended = trio.Event()
        self._lost: tuple[str, int | None] | None = None
        self._close_said: tuple[str, int | None] | None = None

    def __repr__(self) -> str:
        state = "closed" if self._lost else "closing" if self._closing else "open"
        return f"<Transport {self.peer} {state}, {self._unsent} bytes unsent>"

    # ---------------------------------------------------------------------------------------------------------- properties

    @property
    def max_message_bytes(self) -> int:
        """Largest message to receive; holds for everything that has not been parsed yet."""
        return self._parser.max_message_bytes

    @max_message_bytes.setter
    def max_message_bytes(self, size: int) -> None:
        self._parser.max_message_bytes = size

    @property
    def buffered_bytes(self) -> int:
        """Bytes queued that the kernel has not taken yet."""
        return self._unsent

    @property
    def closed(self) -> bool:
        """Whether the connection has ended or is being closed."""
        return self._closing or self._lost is not None

    # ------------------------------------------------------------------------------------------------------------ receiving

    async def receive(self, *, most: int | None = None) -> list[bytes]:
        """Wait for messages: every whole binary message that one read brought, at least one.

        Args:
            most: Return at most so many; the rest stays unparsed, so that `max_message_bytes` may change in between.

        Raises:
            RemoteProtocolError: the peer broke the rules of WebSocket or of our limits; close with its code.
            ConnectionLost: the peer closed, vanished, or was given up.

        Only one task may call this. Cancelling it loses nothing.
        """
        parser = self._parser
        if parser.unparsed:
            await trio.lowlevel.checkpoint()
        while True:
            if self._lost is not None:
                raise self._loss()
            if self._closing:
                await self._ended.wait()
                continue
            if self._violation is not None:
                raise self._violation
            messages = parser.take(most) if parser.unparsed else []
            if parser.control:
                self._control.offer_nowait(parser.control)
            if messages:
                self._held = 0
                return messages
            if parser.control:
                # trio-websocket lags: the peer floods pings, or does not read our pongs (B-18, B-19). Wait with it.
                await self._control.offer(parser.control)
            elif parser.close is not None:
                await self._control.answer_close(parser.close)
            else:
                await self._read()

    async def _read(self) -> None:
        parser = self._parser
        if parser.pending != self._held:
            self._held = parser.pending
            self._stalled_since = trio.current_time()
        self._waiting = True
        try:
            data = await self._pipe.receive(_LARGE_READ_BYTES if parser.missing > _READ_BYTES else _READ_BYTES)
        except Interrupted:
            return
        except _BROKEN as error:
            self._lose(_describe(error))
            return
        finally:
            self._waiting = False
        if not data:
            self._lose("the peer closed the connection without saying so")
            return
        self.last_received = trio.current_time()
        parser.feed(data)

    # -------------------------------------------------------------------------------------------------------------- sending

    def queue(self, *parts: bytes) -> None:
        """Add one binary message, given in parts, to what the next flush writes. Never blocks, never raises.

        Dropped if the connection has ended: whoever receives from it learns that. A peer that lets `max_buffered_bytes`
        gather is cut off.
        """
        if self._closing or self._lost is not None:
            return
        size = 0
        for part in parts:
            size += len(part)
        if self._server:
            header = frame_header(size)
            self._parts.append(header)
            self._parts += parts
        else:
            header, payload = encode_masked(parts[0] if len(parts) == 1 else b"".join(parts))
            self._parts.append(header)
            self._parts.append(payload)
        self._unsent += size + len(header)
        if self._unsent > self._limits.max_buffered_bytes:
            self.abort("the peer does not read: too many bytes unsent")
        elif self._flusher is not None and not self._dirty:
            self._dirty = True
            self._flusher.add(self)

    def flush(self) -> None:
        """Write what is queued, in one system call, as far as the kernel takes it at once; a task writes the rest."""
        self._dirty = False
        if self._draining or not self._parts or self._lost is not None:
            return
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        try:
            sent = self._pipe.send_now(data)
        except _BROKEN as error:
            self._lose(_describe(error))
            return
        self._unsent -= sent
        self._written += sent
        if sent < len(data):
            assert self._nursery is not None
            self._draining = True
            self._nursery.start_soon(self._drain, memoryview(data)[sent:])

    def send(self, *parts: bytes) -> None:
        """`queue` and `flush`."""
        self.queue(*parts)
        self.flush()

    # For control frames: in order behind what is queued, and back-pressure on whoever makes us send them.
    async def _send_now(self, frame: bytes) -> None:
        if self._lost is None:
            self._parts.append(frame)
            self._unsent += len(frame)
            written = self._written + self._unsent
            self.flush()
            while self._lost is None and self._written < written:
                await self._progress.park()
        await trio.lowlevel.checkpoint()
        if self._lost is not None:
            raise trio.BrokenResourceError

    async def wait_sent(self, below: int = 0) -> None:
        """Wait until at most `below` bytes are unsent.

        Raises:
            ConnectionLost: the connection ended first.
        """
        await trio.lowlevel.checkpoint()
        while self._lost is None and self._unsent > below:
            await self._progress.park()
        if self._lost is not None:
            raise self._loss()

    # The one writer while the kernel takes less than we have.
    async def _drain(self, rest: memoryview) -> None:
        timeout = self._limits.write_timeout
        try:
            while self._lost is None:
                with trio.move_on_after(timeout) as patience:
                    sent = await self._pipe.send_some(rest)
                    self._unsent -= sent
                    self._written += sent
                    rest = rest[sent:]
                    self._progress.unpark_all()
                if patience.cancelled_caught:
                    self._lose(f"the peer took no byte for {timeout:g} s")
                elif not rest:
                    if not self._parts:
                        break
                    rest = memoryview(b"".join(self._parts))
                    self._parts.clear()
        except _BROKEN as error:
            self._lose(_describe(error))
        except BaseException:
            # Cancelled with a frame half written: nothing may follow it.
            self._lose("a write was cancelled")
            raise
        finally:
            self._draining = False

    # -------------------------------------------------------------------------------------------------------------- closing

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send what is queued, then a close frame, and wait for the peer's, `close_timeout` at most. Idempotent, never raises.

        Cancelling does not shorten it: a peer must hear why it is sent away.
        """
        if self._lost is None and not self._closing and self._websocket is not None:
            self.flush()
            self._closing = True
            self._close_said = (reason or "closed here", code)
            self._control.close_queue()
            self._pipe.interrupt()
            with trio.move_on_after(self._limits.close_timeout, shield=True) as self._closing_scope:
                await self._websocket.aclose(code, reason or None)
            self._closing_scope = None
            self._finish()
        elif self._closing:
            with trio.CancelScope(shield=True):
                await self._ended.wait()
        else:
            self.abort()
        with trio.CancelScope(shield=True):
            await self._pipe.aclose()
            await trio.lowlevel.checkpoint()

    def abort(self, reason: str = "aborted here") -> None:
        """End the connection at once, unsent bytes and all; idempotent, never raises."""
        self._lose(reason)

    def _lose(self, reason: str, code: int | None = None) -> None:
        if self._lost is None:
            self._lost = (reason, code)
            logger.debug("%s: %s", self.peer, reason)
        self._parts.clear()
        self._unsent = 0
        self._pipe.close()
        self._control.close_queue()
        self._progress.unpark_all()
        self._ended.set()
        if self._closing_scope is not None:
            self._closing_scope.cancel()
        if not self._opened.is_set():
            self._services.cancel()

    # The end of a close handshake, whoever began it, or of the attempt.
    def _finish(self) -> None:
        if self._close_said is not None:
            self._lose(*self._close_said)
        elif self._parser.close is not None:
            self._lose(self._parser.close_reason, self._parser.close_code)
        else:
            self._lose("the connection broke")

    def _loss(self) -> ConnectionLost:
        assert self._lost is not None
        return ConnectionLost(self._lost[0], code=self._lost[1])

    # ------------------------------------------------------------------------------------------------------------- services

    # trio-websocket, the two watches and the drain task live here. Once the connection is open they are shielded: when the
    # session is cancelled, its `close` still needs them to write the answers queued and the close frame, and to hear the peer's.
    async def _serve(self, connect: _Connect, deadline: float) -> None:
        try:
            with self._services:
                async with trio.open_nursery() as self._nursery:
                    with trio.move_on_at(deadline) as patience:
                        self._websocket = await connect(self._nursery, self._control)
                    if patience.cancelled_caught:
                        self._lose(f"no WebSocket handshake within {self._limits.handshake_timeout:g} s")
                    else:
                        self._services.shield = True
                        self._nursery.start_soon(self._keep_alive, self._websocket)
                        self._nursery.start_soon(self._watch_progress)
                        self._opened.set()
                        await self._ended.wait()
                    self._nursery.cancel_scope.cancel()
        # trio-websocket and h11 raise what hostile bytes make them raise, UnicodeDecodeError among it: this connection ends,
        # nothing else does.
        except* Exception as group:
            self._lose(f"no WebSocket peer: {_describe(group)}")
        finally:
            self._lose("aborted here")
            self._opened.set()
            with trio.CancelScope(shield=True):
                await self._pipe.aclose()

    # Ask a silent peer for life, and give up on one that stays silent (F-06, F-10). Any byte is a sign of life: on a busy link
    # there is nothing to ask.
    async def _keep_alive(self, websocket: trio_websocket.WebSocketConnection) -> None:
        limits = self._limits
        while True:
            await trio.sleep_until(self.last_received + limits.ping_interval)
            asked = trio.current_time()
            if asked < self.last_received + limits.ping_interval:
                continue
            try:
                with trio.move_on_after(limits.ping_timeout):
                    await websocket.ping()
            except trio_websocket.ConnectionClosed:
                return
            if await self._reader_waits() and self.last_received < asked:
                self._lose(f"no answer to ping within {limits.ping_timeout:g} s")

    # Cut off a peer that stops in the middle of a message (B-21): its part of the message is memory of ours.
    async def _watch_progress(self) -> None:
        timeout = self._limits.message_timeout
        while True:
            now = trio.current_time()
            due = self._stalled_since + timeout
            # A message that begins while we sleep is due after we wake.
            await trio.sleep_until(due if self._held and due > now else now + timeout)
            if await self._reader_waits() and self._held and self._stalled_since + timeout <= trio.current_time():
                self._violation = RemoteProtocolError("a message stopped half-way", close_code=1008)
                self._pipe.interrupt()
                return

    # Silence is the peer's only while somebody listens: a session that is not receiving, or a loop that was held up, has its
    # bytes waiting in the kernel. The reader woken in the same turn as we are gets its turn first.
    async def _reader_waits(self) -> bool:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        return self._waiting


class _ControlStream(trio.abc.Stream):
    """What trio-websocket takes for its network: the handshake, then control frames only.

    After `Transport.close` has taken the session's right to read, it reads the socket itself, for the peer's close frame.
    """

    def __init__(self, transport: Transport, head: bytes) -> None:
        self._transport = transport
        self._head = head
        self._handshaking = True
        self._close_offered = False
        self._close_taken = False
        self._queue, self._frames = trio.open_memory_channel[bytes](_CONTROL_QUEUE)

    # The side of Transport.receive().

    def offer_nowait(self, frames: deque[bytes]) -> None:
        """Move frames to trio-websocket, as many as there is room for."""
        with suppress(trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            while frames:
                self._queue.send_nowait(frames[0])
                frames.popleft()

    async def offer(self, frames: deque[bytes]) -> None:
        """Wait until there is room for one frame and move it."""
        with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
            await self._queue.send(frames[0])
            frames.popleft()

    async def answer_close(self, frame: bytes) -> None:
        """Have trio-websocket answer the peer's close frame, and end the connection."""
        transport = self._transport
        with trio.move_on_after(transport._limits.close_timeout):
            if not self._close_offered:
                with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
                    await self._queue.send(frame)
                self._close_offered = True
            await transport._ended.wait()
        transport._finish()

    def close_queue(self) -> None:
        """Wake trio-websocket: from now on it reads for itself, or not at all."""
        self._queue.close()

    # The side of trio-websocket.

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        transport = self._transport
        if self._handshaking:
            self._handshaking = False
            await trio.lowlevel.checkpoint()
            return self._head if transport._server else await self._read_answer()
        if self._close_taken:
            # It asks for more, hence has answered. Clients of other libraries wait here for the server to close TCP; we have
            # nothing to lose by being first.
            transport._finish()
            return b""
        with suppress(trio.EndOfChannel):
            frame = await self._frames.receive()
            # Between close() and here wsproto may have entered a state in which a ping makes it raise.
            if not transport._closing:
                self._close_taken = frame is transport._parser.close
                return frame
        if transport._lost is not None:
            raise trio.BrokenResourceError
        self._close_taken = True
        return await self._read_close()

    async def _read_close(self) -> bytes:
        transport = self._transport
        if transport._parser.close is not None:
            return transport._parser.close
        skipper = FrameSkipper(masked=transport._server)
        data = transport._parser.leftover()
        while (close := skipper.feed(data)) is None:
            try:
                data = await transport._pipe.receive(_READ_BYTES)
            except (*_BROKEN, Interrupted):
                raise trio.BrokenResourceError from None
            if not data:
                return b""
        return close

    # The server's answer to our upgrade; frames behind it go to the parser.
    async def _read_answer(self) -> bytes:
        transport = self._transport
        answer = bytearray()
        while (end := answer.find(b"\r\n\r\n")) < 0 and len(answer) <= _MAX_HEAD_BYTES:
            try:
                data = await transport._pipe.receive(_READ_BYTES)
            except _BROKEN as error:
                transport._lose(f"{_describe(error)}, in the middle of the handshake")
                raise trio.BrokenResourceError from None
            if not data:
                transport._lose(f"closed in the middle of the handshake; {_CHECK_SERVER}")
                raise trio.BrokenResourceError
            answer += data
        head, rest = bytes(answer[: end + 4]), bytes(answer[end + 4 :])
        problem = _refusal(head, rest) if end >= 0 else f"its answer is not HTTP; {_CHECK_SERVER}"
        if problem:
            transport._lose(problem)
            raise trio.BrokenResourceError
        transport._parser.feed(rest)
        return head

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        # Returns when the kernel has it: a peer that floods pings and reads no pongs stops our reading, not fills our memory.
        await self._transport._send_now(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self._transport._finish()
        await trio.lowlevel.cancel_shielded_checkpoint()


_CHECK_SERVER: Final = "is this the address of an ORB engine, and does it speak TLS (wss) where we do not, or the reverse?"
_HINTS: Final = {
    301: "redirects are not followed, connect to the new address",
    302: "redirects are not followed, connect to the new address",
    307: "redirects are not followed, connect to the new address",
    308: "redirects are not followed, connect to the new address",
    401: "check the credentials sent as headers",
    403: "check the host name and the Origin header",
    404: "check the path of the URL, usually /ws",
    429: "too many connections from here, try later",
    503: "the engine is full or stopping, try later",
}


# Why the answer to our upgrade refuses it; empty if it does not.
def _refusal(head: bytes, body: bytes) -> str:
    line = head.split(b"\r\n", 1)[0].decode("latin-1")
    protocol, _, status = line.partition(" ")
    if not protocol.startswith("HTTP/"):
        return f"its answer is not HTTP; {_CHECK_SERVER}"
    if status[:3] == "101":
        return ""
    hint = _HINTS.get(int(status[:3]) if status[:3].isdecimal() else 0, "check the address")
    text = " ".join(body[:200].decode("utf-8", "replace").split())
    return f"refused the WebSocket upgrade with HTTP {status}{': ' * bool(text)}{text}; {hint}"


def _describe(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else None
    return str(cause or error) or type(cause or error).__name__


# How to take leave of the peer when the session ends with `error`: nobody should be told 1000 about a crash.
def _farewell(error: BaseException) -> tuple[int, str]:
    if isinstance(error, RemoteProtocolError):
        return error.close_code, error.reason
    return (1011, "internal error") if isinstance(error, Exception) else (1001, "going away")


@asynccontextmanager
async def _open(transport: Transport, connect: _Connect, deadline: float) -> AsyncIterator[Transport]:
    async with open_service_nursery() as nursery:
        nursery.start_soon(transport._serve, connect, deadline)
        try:
            await transport._opened.wait()
            if transport._websocket is None:
                raise transport._loss()
            yield transport
        except BaseException as error:
            await transport.close(*_farewell(error))
            raise
        await transport.close()


def open_server_transport(
    stream: trio.abc.Stream,
    head: bytes,
    *,
    peer: str,
    limits: TransportLimits | None = None,
    flusher: Flusher | None = None,
) -> AbstractAsyncContextManager[Transport]:
    """Accept a WebSocket whose upgrade request has been read and found good.

    Args:
        stream: The connection; belongs to the transport from here on.
        head: Every byte read so far: the whole request, and whatever the peer pipelined behind it.
        peer: The other end, for logs.
        limits: What it may cost.
        flusher: Whom to tell of frames queued.

    Returns:
        A context manager around the open connection. Leaving it closes: with 1000, with the code of a `RemoteProtocolError`
        that passes through, with 1011 for any other exception, with 1001 when cancelled.

    Raises:
        ConnectionLost: the handshake failed.
    """

    async def connect(nursery: trio.Nursery, control: trio.abc.Stream) -> trio_websocket.WebSocketConnection:
        request = await trio_websocket.wrap_server_stream(nursery, control)
        return await request.accept()

    limits = limits or TransportLimits()
    end = head.find(b"\r\n\r\n") + 4
    transport = Transport(
        _pipe(stream, limits), server=True, peer=peer, limits=limits, flusher=flusher, head=head[:end]
    )
    transport._parser.feed(head[end:])
    return _open(transport, connect, trio.current_time() + limits.handshake_timeout)


@asynccontextmanager
async def open_client_transport(
    url: str,
    *,
    open_stream: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
    limits: TransportLimits | None = None,
    ssl_context: ssl.SSLContext | None = None,
    headers: Iterable[tuple[str, str]] = (),
) -> AsyncIterator[Transport]:
    """Connect to a WebSocket server; leaving the context closes as in `open_server_transport`.

    Args:
        url: ``ws://host:port/path`` or ``wss://…``.
        open_stream: Called in place of opening a TCP connection to the host; TLS still goes on top for ``wss``.
        limits: What it may cost; `handshake_timeout` covers TCP, TLS and upgrade together.
        ssl_context: For ``wss``, if the system's trusted authorities are not the right ones.
        headers: Sent with the upgrade request.

    Raises:
        ConfigError: the URL is not one of a WebSocket.
        ConnectionLost: there is no connection; the text tells what the server answered and what to check.
    """
    limits = limits or TransportLimits()
    host, port, secure, resource = _split(url)
    peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    extra = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]

    async def connect(nursery: trio.Nursery, control: trio.abc.Stream) -> trio_websocket.WebSocketConnection:
        return await trio_websocket.wrap_client_stream(
            nursery,
            # Any Stream will do: the annotation only lists what it opens itself.
            cast("trio.SocketStream", control),
            peer,
            resource,
            extra_headers=extra,
        )

    deadline = trio.current_time() + limits.handshake_timeout
    stream = await _connect_stream(
        host, port, open_stream, (ssl_context or ssl.create_default_context()) if secure else None, deadline
    )
    transport = Transport(_pipe(stream, limits), server=False, peer=peer, limits=limits, flusher=None)
    async with _open(transport, connect, deadline):
        yield transport


def _split(url: str) -> tuple[str, int, bool, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is no URL: {error}") from None
    if parts.scheme not in ("ws", "wss") or not host:
        raise ConfigError(f"{url!r} is no WebSocket URL; it should look like ws://localhost:5000/ws")
    secure = parts.scheme == "wss"
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return host, port or (443 if secure else 80), secure, resource


async def _connect_stream(
    host: str,
    port: int,
    open_stream: Callable[[], Awaitable[trio.abc.Stream]] | None,
    ssl_context: ssl.SSLContext | None,
    deadline: float,
) -> trio.abc.Stream:
    stream: trio.abc.Stream | None = None
    try:
        with trio.move_on_at(deadline):
            stream = await (open_stream() if open_stream else trio.open_tcp_stream(host, port))
            if ssl_context is None:
                return stream
            secure = trio.SSLStream(stream, ssl_context, server_hostname=host, https_compatible=True)
            await secure.do_handshake()
            return secure
    except (OSError, trio.BrokenResourceError) as error:
        if stream is None:
            raise ConnectionLost(
                f"cannot connect to {host}:{port}: {_describe(error)}; is the engine running, and is that its address?"
            ) from error
        await trio.aclose_forcefully(stream)
        raise ConnectionLost(
            f"no TLS with {host}:{port}: {_describe(error)}; check the certificate, and that the server speaks TLS"
        ) from error
    except BaseException:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        raise
    if stream is not None:
        await trio.aclose_forcefully(stream)
    raise ConnectionLost(f"no answer from {host}:{port}; is the engine running, and is that its address?")


def _pipe(stream: trio.abc.Stream, limits: TransportLimits) -> Pipe:
    return open_pipe(stream, user_timeout=limits.write_timeout + limits.ping_timeout)

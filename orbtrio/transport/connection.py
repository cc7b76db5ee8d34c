"""A WebSocket connection: what a session does with it, and how it ends.

However a connection ends, it ends once: `_lose` writes down why, closes the network, and thereby wakes
whoever waits, who then finds the reason written down. Only what the peer did wrong takes another way:
`RemoteProtocolError` out of `receive`, so that the session can close with the right code.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import attrs
import trio

from orbtrio.errors import ConnectionLost, RemoteProtocolError
from orbtrio.transport.frames import FrameParser, encode_masked, frame_header
from orbtrio.transport.incoming import Reader
from orbtrio.transport.outgoing import Flusher, Writer
from orbtrio.transport.pipes import BROKEN, Interrupted, Pipe, describe
from orbtrio.transport.websocket import ControlStream, announced, ping

if TYPE_CHECKING:
    from orbtrio.transport.turns import Turns
    from orbtrio.transport.websocket import ReadHead, Upgrade, WebSocket

__all__ = ["Transport", "TransportLimits"]

logger = logging.getLogger("orbtrio.transport")

# The part of a timeout after which silence is suspicious; in the rest it has to prove itself.
_SURE: Final = 0.9


@attrs.frozen(kw_only=True)
class TransportLimits:
    """What a connection may cost. Times in seconds.

    Attributes:
        max_message_bytes: Largest message to receive; `Transport.max_message_bytes` changes it later.
        max_fragments: Most frames of one message.
        max_buffered_bytes: Most unsent bytes; more, and the connection is cut.
        handshake_timeout: To connect and to upgrade, together.
        close_timeout: To send what is queued, and to hear the peer's close frame.
        write_timeout: In which at least one byte must leave, if any wait to.
        message_timeout: In which a message that has begun must go on.
        ping_interval: Silence after which the peer is asked for a sign of life.
        ping_timeout: In which any byte must come then.
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


class Transport:
    """One end of a WebSocket connection; made by `open_server_transport` and `open_client_transport`.

    Attributes:
        peer: The other end, for logs.
        announced: The extensions that the server said it understands (P-60); none at the server's own end.
    """

    def __init__(
        self,
        pipe: Pipe,
        *,
        server: bool,
        peer: str,
        limits: TransportLimits,
        read_head: ReadHead,
        flusher: Flusher | None = None,
        turns: Turns | None = None,
    ) -> None:
        self.peer = peer
        self.announced: frozenset[str] = frozenset()
        self._pipe = pipe
        self._server = server
        self._limits = limits
        self._parser = FrameParser(
            masked=server, max_message_bytes=limits.max_message_bytes, max_fragments=limits.max_fragments
        )
        self._reader = Reader(pipe, self._parser, turns)
        self._writer = Writer(
            pipe,
            max_bytes=limits.max_buffered_bytes,
            timeout=limits.write_timeout,
            lose=self._lose,
            fail=self._stop_writing,
            flusher=flusher,
        )
        self._control = ControlStream(
            pipe,
            self._reader,
            self._writer,
            read_head=read_head,
            masked=server,
            lose=self._lose,
            finish=self._finish,
        )
        self._websocket: WebSocket | None = None
        self._services = trio.CancelScope()
        self._opened = trio.Event()
        self._violation: RemoteProtocolError | None = None
        # What broke a write; what we said when we began to close; why the connection is over.
        self._break: str | None = None
        self._farewell: tuple[str, int] | None = None
        self._closing_scope = trio.CancelScope()
        self._loss: tuple[str, int | None] | None = None
        self._ended = trio.Event()

    def __repr__(self) -> str:
        state = "ended" if self._loss else "closing" if self._farewell else "open"
        return f"<Transport {self.peer}, {state}, {self._writer.unsent} bytes unsent>"

    @property
    def max_message_bytes(self) -> int:
        """Largest message to receive; holds for all that has not been parsed yet."""
        return self._parser.max_message_bytes

    @max_message_bytes.setter
    def max_message_bytes(self, size: int) -> None:
        self._parser.max_message_bytes = size

    @property
    def buffered_bytes(self) -> int:
        """Bytes queued that the network has not taken."""
        return self._writer.unsent

    @property
    def last_received(self) -> float:
        """When the last byte came, in Trio's time."""
        return self._reader.last_received

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more: the connection is over, or about to be."""
        return self._farewell is not None or self._writer.stopped

    # ---- messages

    async def receive(self, *, most: int | None = None) -> list[bytes]:
        """Wait for messages: every whole binary message that one read brought, at least one.

        Args:
            most: Return at most so many. The rest stays unparsed, so that `max_message_bytes` may change
                in between.

        Raises:
            RemoteProtocolError: the peer broke the rules of WebSocket or a limit; close with its code.
            ConnectionLost: the peer closed or vanished, or the connection was given up.

        For one task at a time. Cancelling loses nothing.
        """
        if self._parser.missing <= 0:
            await trio.lowlevel.checkpoint()  # held back: there may be no reason to wait below
        if not self.closed:  # pings among messages that have been seen now
            self._control.offer_nowait()
        while True:
            if self._farewell is not None:
                await self._ended.wait()
            if self._loss is not None:
                raise self._connection_lost()
            if self._violation is not None:
                raise self._violation
            messages = self._reader.take(most)
            if messages:
                return messages
            self._control.offer_nowait()
            if self._control.lags:
                await self._control.offer()
            elif self._parser.close is not None:
                await self._answer_close(self._parser.close)
            elif self._parser.missing <= 0:
                await trio.lowlevel.checkpoint()  # behind thousands of fragments
            else:
                await self._read(most)

    async def _read(self, most: int | None) -> None:
        try:
            if not await self._reader.read(most):
                self._lose(self._break or "the peer hung up without a close frame")
        except Interrupted:
            pass
        except BROKEN as error:
            self._lose(describe(error))

    async def _answer_close(self, frame: bytes) -> None:
        with trio.move_on_after(self._limits.close_timeout):
            # Answered or not: nobody hears us, but what the peer said is known.
            if not self._writer.stopped:
                await self._control.offer_close(frame)
                await self._ended.wait()
        self._finish()

    def queue(self, *parts: bytes) -> None:
        """Add a binary message, given in parts, to what the next flush writes; never blocks, never raises.

        Dropped if nothing can be sent any more, as whoever receives will hear. If more than
        `max_buffered_bytes` gather, the connection is cut.
        """
        if self._farewell is not None:
            return
        if self._server:
            size = 0
            for part in parts:
                size += len(part)
            self._writer.add(frame_header(size), parts, size)
        else:
            header, payload = encode_masked(b"".join(parts))
            self._writer.add(header, (payload,), len(payload))

    def flush(self) -> None:
        """Write what is queued in one system call; never blocks, never raises.

        What the network does not take at once, a task writes.
        """
        self._writer.flush()

    def send(self, *parts: bytes) -> None:
        """`queue`, then `flush`."""
        self.queue(*parts)
        self.flush()

    async def wait_sent(self, below: int = 0) -> None:
        """Wait until at most `below` bytes are unsent.

        Raises:
            ConnectionLost: the connection ended first.
        """
        await self._writer.wait(below)
        if self._writer.stopped:
            raise self._connection_lost()

    # ---- the end

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send what is queued and a close frame, and wait for the peer's; `close_timeout` at most.

        Idempotent, never raises. Cancelling does not shorten it: a peer must hear why it is sent away.
        """
        with trio.CancelScope(shield=True):
            if self._websocket is None:
                self.abort()
            elif self._loss is None and self._farewell is None:
                self.flush()
                self._farewell = reason or "closed from here", code
                self._control.take_over()
                self._pipe.interrupt()
                self._closing_scope.deadline = trio.current_time() + self._limits.close_timeout
                with self._closing_scope:
                    # Lone surrogates would make wsproto raise.
                    text = reason.encode(errors="replace").decode()
                    await self._websocket.aclose(code, text or None)
                    # If the peer was faster, its close frame is still being answered.
                    await self._ended.wait()
                self._finish()
            await self._ended.wait()
            await self._pipe.aclose()

    def abort(self, reason: str = "aborted from here") -> None:
        """End the connection at once and drop what is unsent; idempotent, never raises."""
        self._lose(reason)

    # What the peer said before it went, and why it did, can still be read (F-05); then reading ends as well.
    def _stop_writing(self, reason: str) -> None:
        if not self._opened.is_set():
            # Nobody reads before the upgrade has been sent, so nothing can be heard either.
            self._lose(reason)
            return
        self._break = reason
        self._writer.stop()
        assert self._writer.nursery is not None
        self._writer.nursery.start_soon(self._stop_reading, reason)

    async def _stop_reading(self, reason: str) -> None:
        await trio.sleep(self._limits.close_timeout)
        self._lose(reason)

    def _lose(self, reason: str, code: int | None = None) -> None:
        if self._loss is not None:
            return
        self._loss = reason, code
        logger.debug("%s: connection ended: %s", self.peer, reason)
        self._writer.stop()
        self._control.shut()
        self._pipe.close()
        self._ended.set()
        self._closing_scope.cancel()
        if not self._opened.is_set():
            self._services.cancel()

    # After a close handshake, whoever began it, or when one was given up.
    def _finish(self) -> None:
        if self._farewell is not None:
            self._lose(*self._farewell)
        elif self._parser.close is not None:
            self._lose(self._parser.close_reason or "closed by the peer", self._parser.close_code)
        else:
            self._lose(self._break or "not a WebSocket peer")

    def _connection_lost(self) -> ConnectionLost:
        reason, code = self._loss or (self._break or "lost", None)
        return ConnectionLost(reason, code=code)

    # ---- services

    async def run(self, upgrade: Upgrade, deadline: float) -> None:
        """Make the connection and keep it until it ends; whoever opens the transport starts this task.

        Once it is open, cancelling from outside does not reach in here: `close` needs these tasks, to
        send what is queued and to hear the peer, exactly when the session has been cancelled.
        """
        try:
            with self._services:
                async with trio.open_nursery() as nursery:
                    self._writer.nursery = nursery
                    with trio.move_on_at(deadline):
                        self._websocket = await upgrade(nursery, self._control)
                    if self._websocket is not None:
                        self.announced = announced(self._websocket)
                        self._services.shield = True
                        nursery.start_soon(self._keep_alive, self._websocket)
                        nursery.start_soon(self._watch_progress)
                        self._opened.set()
                        await self._ended.wait()
                    self._lose("no WebSocket handshake in time")
                    nursery.cancel_scope.cancel()
        # What hostile bytes make trio-websocket and h11 raise during the handshake, UnicodeDecodeError among
        # it, ends this connection and nothing else. Later it is a bug, but still one connection's.
        except* Exception as group:
            level = logging.ERROR if self._opened.is_set() else logging.DEBUG
            logger.log(level, "%s: the connection failed", self.peer, exc_info=group)
            self._lose(f"not a WebSocket peer: {describe(group)}")
        finally:
            self._lose("aborted from here")
            self._opened.set()
            with trio.CancelScope(shield=True):
                await self._pipe.aclose()

    async def wait_opened(self) -> None:
        """Wait for the opening handshake.

        Raises:
            ConnectionLost: it failed.
        """
        await self._opened.wait()
        if self._websocket is None:
            raise self._connection_lost()

    # Ask a silent peer for a sign of life, and give up on one that gives none (F-06, F-10). Any byte is one;
    # a peer that sends without being asked is not asked.
    async def _keep_alive(self, websocket: WebSocket) -> None:
        reader, timeout = self._reader, self._limits.ping_timeout
        while True:
            await trio.sleep_until(reader.last_received + self._limits.ping_interval)
            asked = trio.current_time()
            if asked < reader.last_received + self._limits.ping_interval:
                continue
            with trio.move_on_at(asked + timeout * _SURE):
                if not await ping(websocket):
                    return
            # Held up since: the question may not have left, or has just left (F-34).
            if reader.last_received >= asked or trio.current_time() > asked + timeout:
                continue
            listening = await self._listen_until(asked + timeout, timeout)
            if listening and reader.last_received < asked:
                self._lose(f"no answer to ping within {timeout:g} s")

    # Cut off a peer that stops half-way through a message: its beginning is memory of ours (B-21).
    async def _watch_progress(self) -> None:
        reader, timeout = self._reader, self._limits.message_timeout
        while True:
            since = reader.stalled_since
            due = trio.current_time() + timeout
            if since is not None and since + timeout > due - timeout:
                due = since + timeout
            listening = await self._listen_until(due, timeout)
            # A message that began while we slept is due later.
            if listening and since is not None and reader.stalled_since == since:
                self._violation = RemoteProtocolError("a message stopped half-way", close_code=1008)
                self._pipe.interrupt()
                return

    # Sleep until `due`; whether the session was receiving in the last part of the `span` before it. If not,
    # silence is not the peer's: bytes may be here and unread (F-34, F-36).
    async def _listen_until(self, due: float, span: float) -> bool:
        await trio.sleep_until(due - span * (1 - _SURE))
        listening = self._reader.waiting
        await trio.sleep_until(due)
        # A reader that wakes together with us gets its turn first.
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        return listening and self._reader.waiting

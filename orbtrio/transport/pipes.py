"""Where bytes come from and go to: one interface over TCP sockets and over any other Trio stream.

`SocketPipe` drives the socket itself. Trio's `SocketStream` costs 18 us per `send_all` and as much per
`receive_some`, the system calls below them 5 together: at one call for 32 small messages that is more
than everything else the transport does. Only public parts of Trio are used for it: `detach`,
`wait_readable`, `wait_writable`, `notify_closing`.

`StreamPipe` is for the rest: TLS, and memory streams in tests. There nothing can be sent without
waiting, so every flush takes a task.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

import trio

if TYPE_CHECKING:
    from orbtrio.transport.turns import Turns

__all__ = ["BROKEN", "Interrupted", "Pipe", "SocketPipe", "StreamPipe", "describe", "open_pipe"]

BROKEN: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""What every operation of a pipe may raise once it is broken or closed."""

# Trio asks the kernel for 16 KiB, so that 2 MiB leave in a hundred pieces, each with its wake-up.
_UNSENT_LOW_WATER: Final = 256 * 1024
_SOCKET_SEND_BYTES: Final = 256 * 1024
# A stream takes a piece or fails, so this much must get through a slow link within the write timeout.
_STREAM_SEND_BYTES: Final = 64 * 1024


class Interrupted(Exception):
    """`Pipe.interrupt` was called while we waited in `Pipe.receive`."""


class Pipe(Protocol):
    """Bytes in and out; one task may receive and one may send at a time."""

    async def receive(self, most: int) -> bytes:
        """Wait for bytes, at most so many; b"" at the end. Cancelling loses nothing."""

    async def receive_into(self, buffer: memoryview, turns: Turns | None = None) -> int:
        """Wait for bytes, as many as there is room for; how many, 0 at the end. Cancelling loses nothing.

        The buffer may be used by others until there are bytes; then it is the caller's until it waits again.

        Args:
            buffer: Where the bytes go to.
            turns: They are read in a turn of the loop that has time left; None if that does not matter.
        """

    def send_now(self, data: bytes) -> int:
        """Send what goes without waiting; how many bytes that was."""

    async def send_some(self, data: memoryview) -> int:
        """Wait until some bytes are sent; how many. After cancelling, nobody knows how many more."""

    def interrupt(self) -> None:
        """Wake the task inside `receive` with `Interrupted`, if there is one."""

    def close(self) -> None:
        """Stop everything at once; whoever waits is woken. Idempotent, never raises."""

    async def aclose(self) -> None:
        """Close, and release what `close` could not without waiting. Idempotent, never raises."""


class SocketPipe:
    """A connected TCP or Unix socket.

    Args:
        sock: Belongs to the pipe from here on.
        user_timeout: Seconds after which the kernel gives up on bytes that nobody acknowledges.
    """

    def __init__(self, sock: socket.socket, *, user_timeout: float) -> None:
        self._socket = sock
        self._interrupts = 0
        sock.setblocking(False)
        # Not every platform has these, and Unix sockets refuse them. Without the second, a link that
        # went dead with bytes under way is given up after fifteen minutes of retransmission (F-09).
        with suppress(AttributeError, OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_LOW_WATER)
        with suppress(AttributeError, OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(user_timeout * 1000))

    async def receive(self, most: int) -> bytes:
        buffer = bytearray(most)
        return bytes(memoryview(buffer)[: await self.receive_into(memoryview(buffer))])

    async def receive_into(self, buffer: memoryview, turns: Turns | None = None) -> int:
        while True:
            self._check_open()
            try:
                await trio.lowlevel.wait_readable(self._socket)
                if turns is not None:
                    await self._enter(turns)
                return self._socket.recv_into(buffer)
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:
                # `interrupt` and `close` wake us alike.
                self._check_open()
                raise Interrupted from None

    async def _enter(self, turns: Turns) -> None:
        interrupts = self._interrupts
        await turns.enter()
        self._check_open()
        if self._interrupts > interrupts:
            raise Interrupted

    def send_now(self, data: bytes) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def send_some(self, data: memoryview) -> int:
        while True:
            self._check_open()
            # `interrupt` means the receiver, but wakes everybody who waits for the socket.
            with suppress(BlockingIOError, trio.ClosedResourceError):
                await trio.lowlevel.wait_writable(self._socket)
                return self._socket.send(data[:_SOCKET_SEND_BYTES])

    def _check_open(self) -> None:
        # Trio's own complaint about a closed socket is a ValueError.
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError

    def interrupt(self) -> None:
        self._interrupts += 1
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)

    def close(self) -> None:
        self.interrupt()
        self._socket.close()

    async def aclose(self) -> None:
        self.close()


class StreamPipe:
    """Any other Trio stream.

    Args:
        stream: Belongs to the pipe from here on.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._receiving: trio.CancelScope | None = None
        self._closed = False

    async def receive(self, most: int, turns: Turns | None = None) -> bytes:
        self._check_open()
        with trio.CancelScope() as self._receiving:
            try:
                if turns is not None:
                    await turns.enter()
                return bytes(await self._stream.receive_some(most))
            finally:
                self._receiving = None
        self._check_open()
        raise Interrupted

    async def receive_into(self, buffer: memoryview, turns: Turns | None = None) -> int:
        data = await self.receive(len(buffer), turns)
        buffer[: len(data)] = data
        return len(data)

    def send_now(self, data: bytes) -> int:
        return 0

    async def send_some(self, data: memoryview) -> int:
        self._check_open()
        piece = data[:_STREAM_SEND_BYTES]
        await self._stream.send_all(piece)
        return len(piece)

    def interrupt(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError

    def close(self) -> None:
        self._closed = True
        self.interrupt()

    async def aclose(self) -> None:
        self.close()
        with suppress(*BROKEN):
            await trio.aclose_forcefully(self._stream)


def open_pipe(stream: trio.abc.Stream, *, user_timeout: float) -> Pipe:
    """Take over a stream: its socket if it has one of its own, else the stream itself.

    Args:
        stream: Of no use afterwards, except that closing it does no harm.
        user_timeout: As for `SocketPipe`.
    """
    if not isinstance(stream, trio.SocketStream):
        return StreamPipe(stream)
    old = stream.socket
    # Told its family and type, Python asks the kernel nothing, and nothing can fail with the socket in
    # no one's hands.
    sock = socket.socket(old.family, old.type, old.proto, fileno=old.detach())
    return SocketPipe(sock, user_timeout=user_timeout)


def describe(error: BaseException) -> str:
    """What happened, for people: the operating system's or the TLS library's words where there are any."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, trio.BrokenResourceError) and error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__

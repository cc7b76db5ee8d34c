"""What a `Transport` reads from and writes to: one interface over TCP sockets and over any other Trio stream.

`SocketPipe` drives the socket itself. Trio's `SocketStream` costs 18 us per `send_all` and as much per `receive_some`, the two
system calls below it 5; with 32 responses joined to one call that is the difference between transport and work. It uses public
Trio only: `detach`, `wait_readable`, `wait_writable`, `notify_closing`.

`StreamPipe` serves the rest (TLS, memory streams in tests) through `receive_some` and `send_all`. Nothing can be sent there
without waiting, so that every flush takes a task; those who use TLS or run under a mock clock can afford it.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final, Protocol

import trio

__all__ = ["Interrupted", "Pipe", "SocketPipe", "StreamPipe", "open_pipe"]

# Trio's default of 16 KiB makes a socket take a 2 MiB message in over a hundred pieces.
_UNSENT_LOW_WATER: Final = 256 * 1024
_SEND_BYTES: Final = 256 * 1024


class Interrupted(Exception):
    """Somebody else called `Pipe.interrupt` while we waited to receive."""


class Pipe(Protocol):
    """Bytes in and out. Every operation but `interrupt` and `close` raises `OSError` or `trio.BrokenResourceError` once broken
    and `trio.ClosedResourceError` once closed."""

    async def receive(self, most: int) -> bytes:
        """Wait for bytes; b"" at the end. Cancelling loses nothing."""

    def send_now(self, data: bytes | memoryview) -> int:
        """Send what fits without waiting; how many bytes that was."""

    async def send_some(self, data: memoryview) -> int:
        """Wait until some bytes are sent; how many. Cancelling leaves it unknown how many more were."""

    def interrupt(self) -> None:
        """Wake the task inside `receive` with `Interrupted`."""

    def close(self) -> None:
        """Close at once, whoever waits is woken; idempotent, never raises."""

    async def aclose(self) -> None:
        """Close, and let go of everything that `close` could not without waiting; idempotent, never raises."""


class SocketPipe:
    """A connected, non-blocking stdlib socket; owned and closed here."""

    def __init__(self, sock: socket.socket, *, user_timeout: float) -> None:
        self._socket = sock
        self._recv = sock.recv
        self.send_now = self._send_now
        self._interrupted = False
        sock.setblocking(False)
        # A dead link is otherwise found only after the kernel's fifteen minutes of retransmission (F-09). Not every platform has
        # these options, and a socket that is not TCP (a Unix socket) refuses them.
        with suppress(OSError, AttributeError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_LOW_WATER)
        with suppress(OSError, AttributeError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(user_timeout * 1000))

    async def receive(self, most: int) -> bytes:
        while True:
            try:
                await trio.lowlevel.wait_readable(self._socket)
                return self._recv(most)
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:
                if self._interrupted and self._socket.fileno() >= 0:
                    self._interrupted = False
                    raise Interrupted from None
                raise

    def _send_now(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def send_some(self, data: memoryview) -> int:
        while True:
            # A woken `receive` wakes us as well: the notice goes to everybody who waits for the socket.
            try:
                await trio.lowlevel.wait_writable(self._socket)
                return self._socket.send(data[:_SEND_BYTES])
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:
                if self._socket.fileno() < 0:
                    raise

    def interrupt(self) -> None:
        if self._socket.fileno() >= 0:
            self._interrupted = True
            trio.lowlevel.notify_closing(self._socket)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    async def aclose(self) -> None:
        self.close()


class StreamPipe:
    """Any other Trio stream; owned and closed here."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._receiving: trio.CancelScope | None = None
        self._closed = False
        self._interrupted = False

    async def receive(self, most: int) -> bytes:
        if self._closed:
            raise trio.ClosedResourceError
        with trio.CancelScope() as self._receiving:
            try:
                return bytes(await self._stream.receive_some(most))
            finally:
                self._receiving = None
        raise trio.ClosedResourceError if self._closed else Interrupted

    def send_now(self, data: bytes | memoryview) -> int:
        return 0

    async def send_some(self, data: memoryview) -> int:
        if self._closed:
            raise trio.ClosedResourceError
        piece = data[:_SEND_BYTES]
        await self._stream.send_all(piece)
        return len(piece)

    def interrupt(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()

    def close(self) -> None:
        self._closed = True
        self.interrupt()

    async def aclose(self) -> None:
        self.close()
        with suppress(OSError, trio.BrokenResourceError):
            await trio.aclose_forcefully(self._stream)


def open_pipe(stream: trio.abc.Stream, *, user_timeout: float) -> Pipe:
    """Take over `stream`: its socket if it is a plain one, else the stream itself.

    Args:
        stream: Belongs to the pipe from here on; closing it as well does no harm.
        user_timeout: Seconds after which the kernel gives up on bytes nobody acknowledges.
    """
    if not isinstance(stream, trio.SocketStream):
        return StreamPipe(stream)
    outer = stream.socket
    return SocketPipe(
        socket.socket(outer.family, outer.type, outer.proto, fileno=outer.detach()), user_timeout=user_timeout
    )

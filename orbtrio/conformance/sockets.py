"""The world of real programs: TCP connections, real time, one thread.

Everything happens inside `SocketWorld.wait` (and inside a `send` that the target does not take at once): all
connections are read as bytes arrive, so that what happened when is known of all of them, whichever the case
looks at. A second thread or event loop would only blur that.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import selectors
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

from orbtrio.conformance.model import Inconclusive, TargetGone
from orbtrio.conformance.world import PipeEnded, PipeStuck, never

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SocketPipe", "SocketWorld", "free_port"]

_READ_BYTES: Final = 256 * 1024

# A target that takes nothing for so long, in seconds, is stuck.
_SEND_PATIENCE: Final = 5.0

_CONNECT_PATIENCE: Final = 5.0

# With this, closing a socket sends RST.
_NO_LINGER: Final = struct.pack("ii", 1, 0)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port of this machine that nobody listens on at the moment."""
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])


class SocketPipe:
    """A TCP connection to or from the target. See `world.Pipe`.

    Attributes:
        open: Until we have closed or reset it.
    """

    def __init__(self, world: SocketWorld, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = bytearray()
        self.ended = ""
        self.listener: Callable[[], None] = _nobody
        self._world = world
        self._socket = sock
        self._unsent = bytearray()
        self._paused = False
        self.open = True
        self._update()

    @property
    def paused(self) -> bool:
        """While True nothing is read: what the target writes backs up in its buffers."""
        return self._paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._paused = paused
        self._update()

    def send(self, data: bytes) -> None:
        """Hand all of it to the kernel.

        Raises:
            PipeEnded: the connection is gone.
            PipeStuck: the target has taken nothing for five seconds.
        """
        if self._is_gone():
            raise PipeEnded("the connection is gone")
        self._unsent += data
        self.write_some()
        last_progress = self._world.now()
        while self._unsent:
            left = len(self._unsent)
            self._update()
            self._world.turn(0.1)
            if self._is_gone():
                break
            if len(self._unsent) < left:
                last_progress = self._world.now()
            elif self._world.now() > last_progress + _SEND_PATIENCE:
                raise PipeStuck(f"nothing of {left} bytes was taken for {_SEND_PATIENCE:.0f} s")
        if self._is_gone():
            raise PipeEnded("the connection went while it was written to")

    def finish(self) -> None:
        """Send FIN; what the target still sends is read."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End the connection with FIN."""
        if self.open:
            self.open = False
            self._update()
            # Unread bytes would turn the FIN into an RST.
            with contextlib.suppress(OSError):
                while self._socket.recv(_READ_BYTES):
                    pass
            self._socket.close()

    def reset(self) -> None:
        """End the connection with RST."""
        if self.open:
            self.open = False
            self._update()
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._socket.close()

    def read_some(self) -> None:
        """Take what has arrived; called by the world."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._end("RST")
            return
        if data:
            self.received += data
            self.listener()
        else:
            self._end("FIN")

    def write_some(self) -> None:
        """Hand on what can be handed on; called by the world."""
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            # It may have sent something before it went, a close frame perhaps.
            self._unsent.clear()
            self.read_some()
            # Reading may have seen a plain end only: the kernel tells of a reset once.
            self.ended = ""
            self._end("RST")
        self._update()

    def _is_gone(self) -> bool:
        return not self.open or self.ended == "RST"

    def _end(self, how: str) -> None:
        if not self.ended:
            self.ended = how
            self._update()
            self.listener()

    def _update(self) -> None:
        reading = self.open and not self._paused and not self.ended
        writing = self.open and bool(self._unsent) and self.ended != "RST"
        events = (selectors.EVENT_READ if reading else 0) | (selectors.EVENT_WRITE if writing else 0)
        self._world.watch(self._socket, events, self)


class SocketWorld:
    """Connections to a target at an address, or from a target to one of ours, in real time.

    Args:
        address: Host and port where an engine under test listens.
        listen: Host and port where a worker or client under test will connect to.
        is_alive: Whether the target's process runs, if that is known.

    Raises:
        OSError: nobody can listen there.
    """

    virtual = False

    def __init__(
        self,
        address: tuple[str, int] | None = None,
        *,
        listen: tuple[str, int] | None = None,
        is_alive: Callable[[], bool] | None = None,
    ) -> None:
        self._address = address
        self._is_alive = is_alive
        self._selector = selectors.DefaultSelector()
        self._arrivals: collections.deque[SocketPipe] = collections.deque()
        self._pipes: list[SocketPipe] = []
        self._start = time.monotonic()
        self._server: socket.socket | None = None
        if listen is not None:
            self._server = socket.create_server(listen, backlog=128)
            self._server.setblocking(False)
            self._selector.register(self._server, selectors.EVENT_READ, None)

    def now(self) -> float:
        """Seconds since this world began."""
        return time.monotonic() - self._start

    def connect(self) -> SocketPipe:
        """A connection to the target.

        Raises:
            TargetGone: nobody listens there.
        """
        if self._address is None:
            raise TargetGone("this target connects to us; nobody can connect to it")
        try:
            sock = socket.create_connection(self._address, timeout=_CONNECT_PATIENCE)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL):
                raise Inconclusive(
                    f"this machine gives us no more connections ({error}): raise ulimit -n"
                ) from error
            host, port = self._address
            raise TargetGone(f"nothing can be reached at {host}:{port}: {error}") from error
        return self._adopt(sock)

    def accept(self, seconds: float) -> SocketPipe | None:
        """The next connection that the target opens within this time, if it does."""
        self.wait(seconds, lambda: bool(self._arrivals))
        return self._arrivals.popleft() if self._arrivals else None

    def wait(self, seconds: float, until: Callable[[], bool] = never) -> bool:
        """Read, until the condition holds (True) or the time is over (False)."""
        deadline = self.now() + seconds
        if until():
            return True
        while True:
            left = deadline - self.now()
            self.turn(max(left, 0.0))
            if until():
                return True
            if left <= 0:
                return False

    def alive(self) -> bool:
        """Whether the target's process runs, as far as one can tell."""
        return self._is_alive is None or self._is_alive()

    def close(self) -> None:
        """End all connections."""
        for pipe in self._pipes:
            pipe.reset()
        if self._server is not None:
            self._server.close()
        self._selector.close()

    def turn(self, seconds: float) -> None:
        """Read what arrives next, wherever; at most so long."""
        for key, events in self._selector.select(seconds):
            if key.data is None:
                self._accept()
                continue
            pipe: SocketPipe = key.data
            if events & selectors.EVENT_WRITE:
                pipe.write_some()
            if events & selectors.EVENT_READ and not pipe.paused:
                pipe.read_some()

    def watch(self, sock: socket.socket, events: int, pipe: SocketPipe) -> None:
        """Have this connection called for these events only."""
        if sock.fileno() < 0:
            return
        known = self._selector.get_map().get(sock)
        if known is None:
            if events:
                self._selector.register(sock, events, pipe)
        elif not events:
            self._selector.unregister(sock)
        elif known.events != events:
            self._selector.modify(sock, events, pipe)

    def _adopt(self, sock: socket.socket) -> SocketPipe:
        pipe = SocketPipe(self, sock)
        self._pipes = [*(known for known in self._pipes if known.open), pipe]
        return pipe

    def _accept(self) -> None:
        assert self._server is not None
        with contextlib.suppress(BlockingIOError):
            self._arrivals.append(self._adopt(self._server.accept()[0]))


def _nobody() -> None:
    pass

"""A TCP proxy that delays, holds, crumbles and records what passes, connection by connection."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["ChaosProxy", "jitter", "reset"]

_READ = 1 << 16


def reset(sock: socket.socket) -> None:
    """Close with a TCP reset."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class ChaosProxy:
    """Listens on a port of 127.0.0.1 and passes every connection on to another one.

    Args:
        target: Port of 127.0.0.1 where connections go.
        delay: Seconds that a piece of data takes, drawn anew for each; order within a connection is kept.
        crumbs: Pass on one byte at a time.

    Attributes:
        port: Where it listens.
        recorded: What went to the target, per connection.
        holding: While set, data towards the target is gathered; cleared, it goes in one write.
    """

    def __init__(
        self,
        target: int,
        *,
        delay: Callable[[], float] | None = None,
        crumbs: bool = False,
    ) -> None:
        self._target, self._delay, self._crumbs = target, delay, crumbs
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.port: int = self._listener.getsockname()[1]
        self.recorded: list[bytearray] = []
        self.holding = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def __enter__(self) -> ChaosProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for sock in self._sockets:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            record = bytearray()
            self.recorded.append(record)
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += (near, far)
            for source, sink, kept in ((near, far, record), (far, near, None)):
                arguments = (source, sink, kept)
                self._threads.append(threading.Thread(target=self._pass, args=arguments, daemon=True))
                self._threads[-1].start()

    def _pass(self, source: socket.socket, sink: socket.socket, record: bytearray | None) -> None:
        with suppress(OSError):
            while data := source.recv(_READ):
                if record is not None:
                    record += data
                    data = self._gather(source, data, record)
                if self._delay is not None:
                    time.sleep(self._delay())
                if self._crumbs:
                    for position in range(len(data)):
                        sink.sendall(data[position : position + 1])
                else:
                    sink.sendall(data)
        for sock, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
            with suppress(OSError):
                sock.shutdown(how)

    def _gather(self, source: socket.socket, data: bytes, record: bytearray) -> bytes:
        if not self.holding.is_set():
            return data
        gathered = bytearray(data)
        source.settimeout(0.01)
        try:
            while self.holding.is_set():
                with suppress(TimeoutError):
                    more = source.recv(_READ)
                    if not more:
                        break
                    gathered += more
                    record += more
        finally:
            source.settimeout(None)
        return bytes(gathered)


def jitter(mean: float, spread: float, seed: int) -> Callable[[], float]:
    """Delays drawn evenly from ``mean - spread`` to ``mean + spread``."""
    draw = random.Random(seed)
    return lambda: draw.uniform(mean - spread, mean + spread)

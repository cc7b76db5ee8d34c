"""How long an engine lets anybody wait while it is busy: a process that pings it, and does nothing else.

A process of its own, because the load is as busy as the engine and would measure itself.
"""

from __future__ import annotations

import multiprocessing
import time
from typing import TYPE_CHECKING, Final

from benchmarks import wire

if TYPE_CHECKING:
    import socket
    from multiprocessing.connection import Connection

__all__ = ["Pinger"]

_INTERVAL: Final = 0.01
_TIMEOUT: Final = 60.0


class Pinger:
    """A connection to the engine at `port` on this machine, held by a process of its own."""

    def __init__(self, port: int) -> None:
        # Not a fork: it would share the load's memory, and the load would pay for every page it then changes.
        context = multiprocessing.get_context("spawn")
        self._orders, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(port, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._orders.recv()  # it is connected

    def start(self) -> None:
        """Begin to ping."""
        self._orders.send("start")

    def stop(self) -> list[float]:
        """Stop pinging; seconds from each ping to its pong."""
        self._orders.send("stop")
        latencies: list[float] = self._orders.recv()
        return latencies

    def close(self) -> None:
        """Hang up."""
        self._orders.close()
        self._process.join()


def _serve(port: int, orders: Connection) -> None:
    sock = wire.open_websocket(port, _TIMEOUT)
    sock.settimeout(_TIMEOUT)
    sock.sendall(wire.registration(None, ""))
    orders.send("connected")
    try:
        while orders.recv() == "start":
            latencies = []
            while not orders.poll(_INTERVAL):
                latencies.append(_ping(sock))
            orders.recv()
            orders.send(latencies)
    except EOFError:
        sock.close()


def _ping(sock: socket.socket) -> float:
    start = time.perf_counter()
    sock.sendall(wire.frame(b"", wire.PING))
    unread = b""
    while True:
        data = sock.recv(4096)
        if not data:
            raise ConnectionError("the engine closed the pinger's connection")
        _, controls, unread = wire.take_frames(unread + data)
        if any(opcode == wire.PONG for opcode, _ in controls):
            return time.perf_counter() - start

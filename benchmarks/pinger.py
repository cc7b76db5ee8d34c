"""How long an engine lets anybody wait while it is busy: a process that pings it, and does nothing else.

A process of its own, because the load is as busy as the engine and would measure itself. It asks the load the
same question at the same time, over a socket of their own: on a machine where both often wait for a
processor, the load's answer is late too. The kernel says how long the engine itself was ready to run and had
none, and what is left is the engine's own.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from contextlib import suppress
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Final

import attrs

from benchmarks import wire

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

__all__ = ["Pinger", "Stalls"]

# Seconds between an answer and the next question. A stall that begins in between looks so much shorter.
_INTERVAL: Final = 0.003
_TIMEOUT: Final = 60.0


@attrs.frozen
class Stalls:
    """The longest times from a question to its answer, in seconds.

    Attributes:
        engine: Of the engine.
        own: Of the engine, without the time for which it was ready to run and waited for a processor.
        load: Of the load.
    """

    engine: float = 0.0
    own: float = 0.0
    load: float = 0.0

    def longest(self, other: Stalls) -> Stalls:
        """The longer of each."""
        return Stalls(*map(max, attrs.astuple(self), attrs.astuple(other)))


class Pinger:
    """A connection to an engine on this machine, held by a process of its own.

    Args:
        port: Where the engine listens.
        pids: Its processes.

    Attributes:
        mirror: A socket that the load has to answer as an engine answers pings: send back what comes.
    """

    def __init__(self, port: int, pids: Sequence[int]) -> None:
        # Not a fork: it would share the load's memory, and the load would pay for every page it then changes.
        context = multiprocessing.get_context("spawn")
        self._orders, theirs = context.Pipe()
        self.mirror, looking = socket.socketpair()
        self._process = context.Process(target=_serve, args=(port, pids, looking, theirs), daemon=True)
        self._process.start()
        theirs.close()
        looking.close()
        self._orders.recv()  # it is connected

    def start(self) -> None:
        """Begin to ping."""
        self._orders.send("start")

    def stop(self) -> Stalls:
        """Stop pinging; what was found.

        Raises:
            ConnectionError: the engine hung up, or does not answer.
        """
        self._orders.send("stop")
        longest: Stalls | str = self._orders.recv()
        if isinstance(longest, str):
            raise ConnectionError(longest)
        return longest

    def close(self) -> None:
        """Hang up. The load has closed its end of the mirror."""
        self._orders.close()
        self._process.join()


def _serve(port: int, pids: Sequence[int], mirror: socket.socket, orders: Connection) -> None:
    engine = wire.open_websocket(port, _TIMEOUT)
    engine.sendall(wire.registration(None, ""))
    mirror.setblocking(False)
    orders.send("connected")
    try:
        while _next_order(engine, orders) == "start":
            longest = Stalls()
            while not orders.poll(_INTERVAL):
                waited = _waited(pids)
                seconds, load = _ask(engine, mirror, orders)
                own = max(0.0, seconds - (_waited(pids) - waited))
                longest = longest.longest(Stalls(seconds, own, load))
            orders.recv()
            orders.send(longest)
    except EOFError:  # told to end
        pass
    except ConnectionError as error:
        with suppress(OSError):
            orders.send(str(error))
    finally:
        engine.close()


# Seconds for which the first threads of these processes were ready to run and had no processor, so far; of
# one that is waiting, up to when it last ran.
def _waited(pids: Sequence[int]) -> float:
    total = 0
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/schedstat", "rb") as file:
            total += int(file.read().split()[1])
    return total / 1e9


# Meanwhile the engine may ask whether this end is alive.
def _next_order(engine: socket.socket, orders: Connection) -> str:
    unread = b""
    while True:
        ready = wait([engine, orders])
        if engine in ready:
            data = engine.recv(4096)
            if not data:
                raise ConnectionError("the engine closed the pinger's connection")
            _, controls, unread = wire.take_frames(unread + data)
            _answer_pings(engine, controls)
        if orders in ready:
            order: str = orders.recv()
            return order


def _answer_pings(engine: socket.socket, controls: list[tuple[int, bytes]]) -> None:
    for opcode, payload in controls:
        if opcode == wire.PING:
            engine.sendall(wire.frame(payload, wire.PONG))


# Seconds that the engine and the load took to answer; 0 for a load that has stopped meanwhile and does not.
def _ask(engine: socket.socket, mirror: socket.socket, orders: Connection) -> tuple[float, float]:
    token = os.urandom(8)  # an answer may come after it was waited for
    start = time.perf_counter()
    mirror.send(token)
    engine.sendall(wire.frame(token, wire.PING))
    answered = [0.0, 0.0]
    unread = reflected = b""
    waiting: list[Any] = [engine, mirror, orders]
    while engine in waiting or mirror in waiting:
        ready = wait(waiting, _TIMEOUT)
        now = time.perf_counter()
        if not ready:
            raise ConnectionError("the engine does not answer pings")
        if engine in ready:
            data = engine.recv(4096)
            if not data:
                raise ConnectionError("the engine closed the pinger's connection")
            _, controls, unread = wire.take_frames(unread + data)
            _answer_pings(engine, controls)
            if (wire.PONG, token) in controls:
                answered[0] = now - start
                waiting.remove(engine)
        if mirror in ready:
            reflected += mirror.recv(4096)
            if reflected.endswith(token):
                answered[1] = now - start
                waiting.remove(mirror)
        if orders in ready:  # the load has nothing to do any more, and looks at nobody
            waiting = [other for other in waiting if other is engine]
    return answered[0], answered[1]

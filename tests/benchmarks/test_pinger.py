from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks import pinger, wire
from benchmarks.pinger import Stalls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

PING = b"\x89\x01p"


@pytest.fixture
def engine() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def orders() -> Iterator[tuple[Connection, Connection]]:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        yield ours, theirs


def test_pings_of_an_engine_are_answered_while_nothing_is_measured(
    engine: tuple[socket.socket, socket.socket], orders: tuple[Connection, Connection]
) -> None:
    taken: list[str] = []
    thread = threading.Thread(target=lambda: taken.append(pinger._next_order(engine[1], orders[1])))
    thread.start()
    engine[0].sendall(PING)
    assert engine[0].recv(100) == wire.frame(b"p", wire.PONG)
    orders[0].send("start")
    thread.join()
    assert taken == ["start"]


def test_an_engine_that_hangs_up_is_found(
    engine: tuple[socket.socket, socket.socket], orders: tuple[Connection, Connection]
) -> None:
    engine[0].close()
    with pytest.raises(ConnectionError, match="closed the pinger's connection"):
        pinger._next_order(engine[1], orders[1])


def test_a_load_that_has_stopped_is_not_waited_for(
    engine: tuple[socket.socket, socket.socket], orders: tuple[Connection, Connection]
) -> None:
    reflected, mirror = socket.socketpair()
    with reflected, mirror:
        orders[0].send("stop")

        def answer() -> None:
            frame = engine[0].recv(100)
            token = bytes(byte ^ frame[2 + index % 4] for index, byte in enumerate(frame[6:]))
            # It also asks for a pong itself, and has an old one on its way.
            engine[0].sendall(PING + b"\x8a\x03old" + bytes((0x8A, len(token))) + token)

        thread = threading.Thread(target=answer)
        thread.start()
        seconds, own = pinger._ask(engine[1], mirror, orders[1])
        thread.join()
        assert seconds > 0
        assert own == 0
        assert engine[0].recv(100) == wire.frame(b"p", wire.PONG)


def test_waiting_for_a_processor_is_told_from_running_and_sleeping() -> None:
    # Two that are always ready, on the same processor: each waits for half of the time.
    processor = min(os.sched_getaffinity(0))
    pin = f"import os; os.sched_setaffinity(0, {{{processor}}}); print(flush=True)\nwhile True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", pin], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for process in busy:
            assert process.stdout is not None
            process.stdout.readline()
        pids = [process.pid for process in busy]
        give_up = time.monotonic() + 20
        while pinger._waited(pids) < 0.05:
            assert time.monotonic() < give_up
            time.sleep(0.01)
    finally:
        for process in busy:
            process.kill()
            process.communicate()
    assert pinger._waited(pids) == 0  # they are gone


def test_the_longest_of_each_is_kept() -> None:
    assert Stalls(3, 1, 1).longest(Stalls(2, 2, 0)) == Stalls(3, 2, 1)

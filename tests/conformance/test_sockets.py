"""Real TCP connections, on the loopback, both ends in one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orbtrio.conformance import sockets
from orbtrio.conformance.model import TargetGone
from orbtrio.conformance.sockets import SocketPipe, SocketWorld, free_port
from orbtrio.conformance.world import PipeEnded, PipeStuck

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def worlds() -> Iterator[tuple[SocketWorld, SocketWorld]]:
    address = ("127.0.0.1", free_port())
    there = SocketWorld(listen=address)
    here = SocketWorld(address)
    yield here, there
    here.close()
    there.close()


@pytest.fixture
def pipes(worlds: tuple[SocketWorld, SocketWorld]) -> tuple[SocketPipe, SocketPipe]:
    here, there = worlds
    near = here.connect()
    far = there.accept(5)
    assert far is not None
    return near, far


def test_bytes_arrive_and_listeners_hear_of_it(
    worlds: tuple[SocketWorld, SocketWorld], pipes: tuple[SocketPipe, SocketPipe]
) -> None:
    near, far = pipes
    heard = []
    far.listener = lambda: heard.append(bytes(far.received))
    near.send(b"hello")
    assert worlds[1].wait(5, lambda: far.received == b"hello")
    assert heard[-1] == b"hello"


@pytest.mark.parametrize(("leave", "how"), [("close", "FIN"), ("finish", "FIN"), ("reset", "RST")])
def test_how_a_connection_ended_is_seen(
    worlds: tuple[SocketWorld, SocketWorld], pipes: tuple[SocketPipe, SocketPipe], leave: str, how: str
) -> None:
    near, far = pipes
    near.send(b"last words")
    getattr(near, leave)()
    assert worlds[1].wait(5, lambda: bool(far.ended))
    assert far.ended == how
    if how == "FIN":
        assert far.received == b"last words"


def test_what_is_half_closed_can_still_be_read(
    worlds: tuple[SocketWorld, SocketWorld], pipes: tuple[SocketPipe, SocketPipe]
) -> None:
    near, far = pipes
    near.finish()
    far.send(b"still here")
    assert worlds[0].wait(5, lambda: near.received == b"still here")


def test_nothing_is_sent_on_what_is_gone(
    worlds: tuple[SocketWorld, SocketWorld], pipes: tuple[SocketPipe, SocketPipe]
) -> None:
    near, far = pipes
    far.reset()
    assert worlds[0].wait(5, lambda: near.ended == "RST")
    with pytest.raises(PipeEnded):
        near.send(b"x")
    near.close()
    with pytest.raises(PipeEnded):
        near.send(b"x")


def test_a_connection_may_go_while_it_is_written_to(
    worlds: tuple[SocketWorld, SocketWorld], pipes: tuple[SocketPipe, SocketPipe]
) -> None:
    near, far = pipes
    far.reset()
    with pytest.raises(PipeEnded):
        near.send(bytes(64 << 20))


def test_who_takes_nothing_is_stuck(
    pipes: tuple[SocketPipe, SocketPipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_SEND_PATIENCE", 0.2)
    near, far = pipes
    far.paused = True
    with pytest.raises(PipeStuck, match="was taken"):
        near.send(bytes(64 << 20))


def test_a_paused_pipe_reads_nothing_until_it_goes_on(
    worlds: tuple[SocketWorld, SocketWorld], pipes: tuple[SocketPipe, SocketPipe]
) -> None:
    near, far = pipes
    far.paused = True
    near.send(b"hello")
    assert not worlds[1].wait(0.05, lambda: bool(far.received))
    assert far.paused
    far.paused = False
    assert worlds[1].wait(5, lambda: far.received == b"hello")


def test_nobody_listens() -> None:
    with pytest.raises(TargetGone, match="nothing can be reached at"):
        SocketWorld(("127.0.0.1", free_port())).connect()
    with pytest.raises(TargetGone, match="connects to us"):
        SocketWorld().connect()


def test_waiting_ends_with_the_time(worlds: tuple[SocketWorld, SocketWorld]) -> None:
    here, there = worlds
    start = here.now()
    assert not here.wait(0.02)
    assert here.now() - start >= 0.02
    assert there.accept(0.01) is None
    assert here.alive()
    assert not SocketWorld(is_alive=lambda: False).alive()

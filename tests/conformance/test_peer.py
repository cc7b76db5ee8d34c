"""A WebSocket from either side, good or evil; and the log of it."""

from __future__ import annotations

import pytest

from orbtrio.conformance.model import Violation
from orbtrio.conformance.peer import Peer, WireLog, announced_in
from tests.conformance.pipes import MemoryPipe, memory_pipes


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> WireLog:
    return WireLog(clock, ["s3cret"])


@pytest.fixture
def peers(log: WireLog) -> tuple[Peer, Peer]:
    near, far = memory_pipes()
    server = Peer(far, log, "server", server=True)
    client = Peer(near, log, "client")
    client.ask()
    assert client.open
    assert server.open
    return client, server


def test_messages_arrive_decoded_with_their_time(peers: tuple[Peer, Peer], clock: Clock) -> None:
    client, server = peers
    clock.now = 12.5
    client.send({"type": "x", "list": [1]})
    server.send({"inputs": []})
    assert (server.messages[0].value, server.messages[0].at) == ({"type": "x", "list": [1]}, 2.5)
    assert client.messages[0].value == {"inputs": []}


def test_a_message_may_come_in_fragments(peers: tuple[Peer, Peer]) -> None:
    client, server = peers
    client.send_fragments([b"\x82", b"", b"\x01", b"\x02"])
    assert server.messages[0].value == [1, 2]


def test_what_is_no_cbor_is_noted_and_no_message(peers: tuple[Peer, Peer]) -> None:
    client, server = peers
    client.send(b"\xff")
    assert server.messages == []
    assert "no CBOR item" in server.undecodable[0]


def test_text_is_kept_apart(peers: tuple[Peer, Peer]) -> None:
    client, server = peers
    client.send_text("hello")
    assert (server.texts, server.messages) == (["hello"], [])


def test_pings_are_answered_unless_told_otherwise(peers: tuple[Peer, Peer]) -> None:
    client, server = peers
    client.ping(b"one")
    server.answers_pings = False
    client.ping(b"two")
    assert client.pongs == [b"one"]
    assert [payload for _, payload in server.pings] == [b"one", b"two"]


def test_a_close_frame_tells_code_and_reason(peers: tuple[Peer, Peer]) -> None:
    client, server = peers
    server.close(1008, "not you")
    assert client.closed is not None
    assert (client.closed.code, client.closed.reason, client.closed.how) == (1008, "not you", "close frame")
    assert str(client.closed) == "closed with 1008 'not you'"
    assert not client.ended_by_us
    assert server.ended_by_us


@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_an_end_without_a_close_frame_says_so(peers: tuple[Peer, Peer], how: str) -> None:
    client, server = peers
    server.drop(how)
    assert client.closed is not None
    assert (client.closed.code, client.closed.how) == (None, how)
    assert "without a close frame" in str(client.closed)
    client.send({"a": 1})
    client.drop()


def test_a_polite_drop_is_a_normal_closure(peers: tuple[Peer, Peer]) -> None:
    client, server = peers
    client.drop("close")
    assert server.closed is not None
    assert server.closed.code == 1000


def test_a_cut_leaves_half_a_frame(peers: tuple[Peer, Peer]) -> None:
    client, server = peers
    client.cut({"type": "never whole"}, 1000)
    assert server.messages == []
    assert server.closed is not None
    assert server.closed.how == "RST"


def test_bytes_that_are_no_websocket_end_it(peers: tuple[Peer, Peer]) -> None:
    client, server = peers
    client.send_raw(b"\xff\xff\xff\xff", "an impossible frame")
    assert server.closed is not None
    assert server.closed.how == "broken"


def test_an_http_answer_is_a_refusal(log: WireLog) -> None:
    near, far = memory_pipes()
    client = Peer(near, log, "client")
    client.ask("/elsewhere", headers=[("Origin", "http://evil.example")])
    assert b"GET /elsewhere" in far.received
    assert b"evil.example" in far.received
    far.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    assert client.refusal == 404
    assert client.closed is not None
    assert client.closed.how == "refused"


def test_a_target_that_takes_nothing_breaks_a_promise(peers: tuple[Peer, Peer]) -> None:
    client, _ = peers
    assert isinstance(client.pipe, MemoryPipe)
    client.pipe.stuck = True
    with pytest.raises(Violation, match="reads what it is sent"):
        client.send({"a": 1})


def test_what_had_arrived_before_somebody_listened_is_read(log: WireLog) -> None:
    near, far = memory_pipes()
    Peer(near, log, "client").ask()
    assert Peer(far, log, "server", server=True).open


def test_the_log_has_everything_in_order_without_secrets(peers: tuple[Peer, Peer], log: WireLog) -> None:
    client, server = peers
    client.send({"worker_secret": "other", "n": "s3cret"})
    log.remark("and then s3cret")
    client.close(1000, "bye")
    lines = [str(event) for event in log.events()]
    assert lines[0] == "t=0.000 client -> GET /ws, Upgrade: websocket"
    assert 't=0.000 client -> {"worker_secret": "(masked)", "n": "(masked)"}' in lines
    assert "t=0.000 -- and then (masked)" in lines
    assert "t=0.000 client -> close 1000 bye" in lines
    assert server.closed is not None


def test_a_flood_is_counted_and_not_kept(log: WireLog) -> None:
    for number in range(5000):
        log.remark(str(number))
    events = log.events()
    assert len(events) == 2001
    assert events[-1].text == "3000 more lines left out"


def test_what_an_engine_announces_is_known_on_both_sides(log: WireLog) -> None:
    near, far = memory_pipes()
    server = Peer(far, log, "server", server=True, announces=["progress", "cancel"])
    client = Peer(near, log, "client")
    client.ask()
    assert client.announced == server.announced == {"cancel", "progress"}


def test_an_engine_may_announce_nothing(peers: tuple[Peer, Peer]) -> None:
    assert {peer.announced for peer in peers} == {frozenset()}


def test_announcements_are_read_however_they_are_written() -> None:
    headers = [(b"Orb-Extensions", b"a,b , ,"), (b"server", b"c"), (b"orb-extensions", b"d")]
    assert announced_in(headers) == {"a", "b", "d"}

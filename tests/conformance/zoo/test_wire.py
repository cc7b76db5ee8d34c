"""Handshakes, frames, pings and CBOR: what the model does before anything is a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cbor2
import pytest
from wsproto.events import BytesMessage, Ping, RejectConnection

from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.zoo import wire
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.wire import Refused, WebSocketServer, decode
from tests.conformance.zoo.speaking import SECRET, Speaker, client, inputs, request, worker

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> SimulatedWorld:
    return SimulatedWorld(ModelEngine(tmp_path, secret=SECRET))


@pytest.mark.parametrize(("path", "status"), [("/ws", 101), ("/ws?x=1", 101), ("/", 404), ("/wss", 404)])
def test_only_the_path_is_served(world: SimulatedWorld, path: str, status: int) -> None:
    assert Speaker(world, path).status == status


def test_web_pages_are_refused(world: SimulatedWorld) -> None:
    speaker = Speaker(world, headers=[(b"Origin", b"http://a.page")])
    assert speaker.status == 403
    assert speaker.pipe.ended == "FIN"


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 4"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b""),
        (b"GET /ws HTTP/1.1\r\nHost: \xff\r\n\r\n", b""),
        (b"x" * 200_000, b""),
    ],
    ids=["plain", "tls", "host", "endless"],
)
def test_what_is_no_handshake_is_ended(world: SimulatedWorld, sent: bytes, answered: bytes) -> None:
    pipe = world.connect()
    pipe.send(sent)
    assert pipe.ended == "FIN"
    assert bytes(pipe.received).startswith(answered)
    assert Speaker(world).status == 101


def test_a_silent_connection_is_ended_at_5_s(world: SimulatedWorld) -> None:
    pipe = world.connect()
    world.wait(4.9)
    early = pipe.ended
    world.wait(0.2)
    assert (early, pipe.ended) == ("", "FIN")


def test_whoever_does_not_register_is_closed_at_10_s(world: SimulatedWorld) -> None:
    speaker = Speaker(world)
    world.wait(9.9)
    assert not speaker.gone
    world.wait(0.2)
    assert speaker.closed == (1008, "not registered in time")


def test_frames_behind_the_handshake_and_several_in_one_read_count(world: SimulatedWorld) -> None:
    one = worker(world)
    asker = Speaker(world)
    frames = [
        asker.socket.send(BytesMessage(data=cbor2.dumps(message)))
        for message in ({"type": "i_am_server"}, request(1), request(2))
    ]
    asker.push(b"".join(frames))
    assert inputs(one) == [[1], [2]]


def test_a_message_may_come_in_pieces(world: SimulatedWorld) -> None:
    one, asker = worker(world), client(world)
    data = cbor2.dumps(request(1))
    for piece, last in ((data[:10], False), (b"", False), (data[10:], True)):
        for byte in asker.socket.send(BytesMessage(data=piece, message_finished=last)):
            asker.push(bytes([byte]))
    assert inputs(one) == [[1]]


def test_too_many_fragments_are_refused(world: SimulatedWorld) -> None:
    speaker = client(world)
    frame = speaker.socket.send(BytesMessage(data=b"", message_finished=False))
    continuation = speaker.socket.send(BytesMessage(data=b"", message_finished=False))
    speaker.push(frame + continuation * 2000)
    assert speaker.closed == (1008, "too many fragments")


def test_text_frames_are_refused(world: SimulatedWorld) -> None:
    speaker = client(world)
    speaker.say_text("{}")
    assert speaker.closed == (1003, "text frame")


@pytest.mark.parametrize("registered", [True, False])
def test_message_limits(tmp_path: Path, registered: bool) -> None:
    engine = ModelEngine(tmp_path, secret=SECRET)
    assert engine.message_bytes == 32 * 1024 * 1024
    engine.message_bytes = 100_000
    world = SimulatedWorld(engine)
    speaker = client(world) if registered else Speaker(world)
    limit = 100_000 if registered else 64 * 1024
    frame = speaker.socket.send(BytesMessage(data=bytes(limit + 1)))
    speaker.push(frame)
    assert speaker.closed == (1009, "message too big")


def test_what_follows_a_refusal_is_discarded_and_silence_ends_it(world: SimulatedWorld) -> None:
    speaker = Speaker(world)
    speaker.pipe.paused = True
    speaker.say({"type": "nonsense"})
    speaker.say({"type": "i_am_server"})
    speaker.push(speaker.socket.send(Ping(payload=b"x")))
    world.wait(2.1)
    speaker.pipe.paused = False
    assert speaker.closed == (1008, "not a registration")
    assert speaker.pongs == []
    assert speaker.pipe.ended == "FIN"


def test_broken_frames_close_1002(world: SimulatedWorld) -> None:
    speaker = client(world)
    speaker.push(b"\xf7\x80\x00\x00\x00\x00")
    assert speaker.closed
    assert speaker.closed[0] == 1002
    assert speaker.pipe.ended == "FIN"


def test_bytes_behind_a_close_frame_do_no_harm(world: SimulatedWorld) -> None:
    speaker = client(world)
    ping = speaker.socket.send(Ping(payload=b"x"))
    speaker.push(b"\x88\x80\x00\x00\x00\x00" + ping)
    assert speaker.pipe.ended == "FIN"
    assert Speaker(world).status == 101


def test_pings_are_answered(world: SimulatedWorld) -> None:
    speaker = client(world)
    speaker.push(speaker.socket.send(Ping(payload=b"abc")))
    assert speaker.pongs == [b"abc"]


def test_a_peer_that_answers_pings_stays_for_hours(world: SimulatedWorld) -> None:
    speaker = client(world)
    world.wait(3600.0)
    assert not speaker.gone
    assert 150 <= speaker.pings <= 180


def test_a_peer_that_talks_is_not_pinged(world: SimulatedWorld) -> None:
    speaker = client(world)
    for _ in range(20):
        world.wait(10.0)
        speaker.say({"type": "still here"})
    assert speaker.pings == 0


def test_a_dead_peer_is_found_within_40_s_of_silence(world: SimulatedWorld) -> None:
    one, asker = worker(world), client(world)
    one.answers_pings = False
    asker.say(request(1))
    world.wait(40.1)
    assert one.pipe.ended == "RST"
    assert inputs(worker(world)) == [[1]]


# --- CBOR ---


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xa1",
        b"\xa1\x61",
        b"\xa0\x00",
        b"\x80",
        b"\x01",
        b"\xbf\xff",
        b"\xa1\x01\x02",
        b"\xa1\x41a\x02",
        b"\xa2\x61a\x01\x61a\x02",
        b"\xa1\x61a\x62\xc3\x28",
        b"\xa1\x61a\x1c",
        b"\xa1\x61a\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xa1\x61a\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\xa1\x61a\xd8\x1c\xa0",
        b"\xa1\x61a\xd8\x1d\x00",
        b"\xa1\x61a" + b"\x81" * 70 + b"\x00",
        b"\xa1\x61a" + b"\xc1" * 70 + b"\x00",
    ],
    ids=lambda data: data[:12].hex(),
)
def test_hostile_cbor_is_refused(data: bytes) -> None:
    with pytest.raises(Refused, match="undecodable"):
        decode(data)


def test_too_many_items_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_ITEMS", 1000)
    decode(cbor2.dumps({"a": [[]] * 997}))
    with pytest.raises(Refused):
        decode(cbor2.dumps({"a": [[]] * 998}))


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x41x", b"x"),
        (b"\xd8\x40\x41x", b"x"),
        (b"\xd8\x40\x01", cbor2.CBORTag(64, 1)),
        (b"\xc4\x82\x1a\x3b\x9a\xca\x00\x01", cbor2.CBORTag(4, [10**9, 1])),
        (b"\xc1\x01", cbor2.CBORTag(1, 1)),
        (b"\xf7", cbor2.undefined),
        (b"\x18\x01", 1),
        (b"\xf9\x3c\x00", 1.0),
    ],
)
def test_what_is_allowed_arrives(data: bytes, value: Any) -> None:
    assert decode(b"\xa1\x61a" + data) == {"a": value}
    assert decode(b"\xd9\xd9\xf7\xa1\x61a" + data) == {"a": value}


def test_subclasses_say_what_messages_mean(tmp_path: Path) -> None:
    world = SimulatedWorld(WebSocketServer())
    speaker = Speaker(world)
    with pytest.raises(NotImplementedError):
        speaker.say({})
    with pytest.raises(NotImplementedError):
        speaker.pipe.reset()
    assert RejectConnection is not None

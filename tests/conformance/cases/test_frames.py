"""Frames are what RFC 6455 says, unless somebody asks for something else."""

from __future__ import annotations

import pytest
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from orbtrio.conformance.cases.frames import BINARY, CONTINUATION, PING, TEXT, frame


def read(data: bytes) -> list[object]:
    server = Connection(ConnectionType.SERVER)
    server.receive_data(data)
    return list(server.events())


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536])
def test_a_frame_of_any_length_is_read_by_a_library(length: int) -> None:
    payloads = [event.data for event in read(frame(BINARY, b"x" * length)) if isinstance(event, BytesMessage)]
    assert b"".join(payloads) == b"x" * length


def test_fragments_make_one_message() -> None:
    first, second = read(frame(TEXT, b"a", final=False) + frame(CONTINUATION, b"b"))
    assert isinstance(first, TextMessage)
    assert isinstance(second, TextMessage)
    assert (first.message_finished, second.message_finished) == (False, True)


def test_control_frames_carry_their_payload() -> None:
    (ping,) = read(frame(PING, b"p"))
    assert isinstance(ping, Ping)
    assert bytes(ping.payload) == b"p"


@pytest.mark.parametrize(
    "data",
    [
        frame(BINARY, b"a", masked=False),
        frame(BINARY, b"a", reserved=1),
        frame(BINARY, b"a", length=2**63),
        frame(7, b"a"),
    ],
    ids=["unmasked", "reserved bit", "length", "opcode"],
)
def test_what_is_asked_for_can_be_wrong(data: bytes) -> None:
    (event,) = read(data)
    assert isinstance(event, CloseConnection)
    assert event.code == 1002


def test_a_declared_length_does_not_depend_on_the_payload() -> None:
    assert frame(BINARY, b"abc", length=2**62)[1:10] == b"\xff" + (2**62).to_bytes(8, "big")

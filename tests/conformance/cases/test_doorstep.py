"""What stands instead of a handshake is none, except where it says so."""

from __future__ import annotations

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import Request

from orbtrio.conformance.cases.doorstep import PIPE_JUNK, handshake, pipe_junk

# wsproto takes these for handshakes; what is wrong with them comes later, or is for the engine to notice.
TAKEN = {"short key", "compression", "long header", "many headers", "lengths", "path", "http/9"}


def accepted(data: bytes) -> bool:
    server = WSConnection(ConnectionType.SERVER)
    try:
        server.receive_data(data)
        return any(isinstance(event, Request) for event in server.events())
    except Exception:
        return False


def test_a_handshake_is_one() -> None:
    assert accepted(handshake("/ws", extra=[b"X-More: 1"]))


@pytest.mark.parametrize("name", sorted(PIPE_JUNK.keys() - TAKEN))
def test_junk_is_no_handshake(name: str) -> None:
    assert not accepted(pipe_junk(name, 3))


def test_all_junk_differs_and_noise_follows_its_seed() -> None:
    assert len({pipe_junk(name, 3) for name in PIPE_JUNK}) == len(PIPE_JUNK)
    assert pipe_junk("noise", 3) == pipe_junk("noise", 3) != pipe_junk("noise", 4)


def test_long_headers_are_long() -> None:
    assert len(pipe_junk("long header", 0)) > 300_000
    assert pipe_junk("many headers", 0).count(b"\r\n") > 10_000

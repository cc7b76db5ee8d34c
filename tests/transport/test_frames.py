from __future__ import annotations

import builtins
import os
import time
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orbtrio.errors import RemoteProtocolError
from orbtrio.transport import frames
from orbtrio.transport.frames import FrameParser, FrameSkipper, encode_masked, frame_header, python_mask
from tests.transport.peers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    close_payload,
    frame,
    split_frames,
)

MOST = 1 << 20


def parser(*, masked: bool = True, max_message_bytes: int = MOST, max_fragments: int = 16) -> FrameParser:
    return FrameParser(masked=masked, max_message_bytes=max_message_bytes, max_fragments=max_fragments)


def take(data: bytes, **limits: int) -> list[bytes]:
    parsing = parser(**limits)  # type: ignore[arg-type]
    parsing.feed(data)
    return parsing.take()


def take_one_byte_at_a_time(data: bytes) -> None:
    parsing = parser()
    for byte in data:
        parsing.feed(bytes((byte,)))
        assert parsing.take() == []


# ---- frames out

SIZES = [0, 1, 2, 3, 4, 5, 125, 126, 127, 299, 300, 4095, 4096, 65535, 65536, 70001]


@pytest.mark.parametrize("size", SIZES)
def test_server_frame_is_what_others_read(size: int) -> None:
    payload = os.urandom(size)
    assert split_frames(frame_header(size) + payload) == ([(BINARY, payload)], b"")


@pytest.mark.parametrize("size", SIZES)
def test_client_frame_is_masked_and_what_others_read(size: int) -> None:
    payload = os.urandom(size)
    header, masked = encode_masked(payload)
    assert header[1] & 128
    assert split_frames(header + masked) == ([(BINARY, payload)], b"")


def test_each_client_frame_has_its_own_key() -> None:
    assert len({encode_masked(b"payload") for _ in range(100)}) == 100


@pytest.mark.parametrize("size", SIZES)
def test_both_masks_agree(size: int) -> None:
    data, key = os.urandom(size), os.urandom(4)
    expected = bytes(byte ^ key[index % 4] for index, byte in enumerate(data))
    assert python_mask(data, key) == frames.mask(memoryview(data), key) == expected


def test_python_masks_where_the_accelerator_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_websockets(name: str, *args: Any) -> Any:
        if name.startswith("websockets"):
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_websockets)
    assert frames._choose_mask() is python_mask


# ---- frames in


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_message_comes_out_as_it_went_in(size: int, masked: bool) -> None:
    payload = os.urandom(size)
    parsing = parser(masked=masked)
    parsing.feed(frame(payload, masked=masked))
    assert parsing.take() == [payload]
    assert parsing.unparsed == parsing.held == 0


def test_fragments_come_out_as_one_message() -> None:
    data = frame(b"one ", fin=False) + frame(b"", CONTINUATION, fin=False) + frame(b"message", CONTINUATION)
    assert take(data + frame(b"next")) == [b"one message", b"next"]


def test_most_leaves_the_rest_unparsed() -> None:
    parsing = parser(max_message_bytes=4)
    parsing.feed(frame(b"1") + frame(b"ping", PING) + frame(b"message"))
    assert parsing.take(1) == [b"1"]
    assert not parsing.control
    parsing.max_message_bytes = 7
    assert parsing.take(1) == [b"message"]
    assert list(parsing.control) == [frame(b"ping", PING)]


VIOLATIONS = {
    "text frame (B-14, P-50)": (frame(b"text", TEXT), 1003),
    "fragmented text": (frame(b"text", TEXT, fin=False), 1003),
    "unmasked (B-15)": (frame(b"clear", masked=False), 1002),
    "unmasked, long": (frame(bytes(300), masked=False), 1002),
    "unmasked ping": (frame(b"", PING, masked=False), 1002),
    "first reserved bit (B-15)": (frame(b"", reserved=4), 1002),
    "second reserved bit": (frame(b"", reserved=2), 1002),
    "third reserved bit": (frame(b"", PING, reserved=1), 1002),
    "opcode 3 (B-15)": (frame(b"", 3), 1002),
    "opcode 7": (frame(b"", 7), 1002),
    "opcode 11": (frame(b"", 11), 1002),
    "opcode 15": (frame(b"", 15), 1002),
    "fragmented ping (B-15)": (frame(b"", PING, fin=False), 1002),
    "ping of 126 bytes (B-15)": (frame(bytes(126), PING), 1002),
    "close of 65,536 bytes, declared only": (frame(b"", CLOSE, declared=65536), 1002),
    "lone continuation (B-15)": (frame(b"", CONTINUATION), 1002),
    "lone continuation that goes on": (frame(b"", CONTINUATION, fin=False), 1002),
    "new message inside a fragmented one": (frame(b"", fin=False) + frame(b""), 1002),
    "two bytes for a small length": (frame(bytes(125), length_bytes=2), 1002),
    "eight bytes for a middling length": (frame(bytes(200), length_bytes=8), 1002),
    "two bytes for a ping's length": (frame(b"ping", PING, length_bytes=2), 1002),
    "one byte too large (B-16)": (frame(b"", declared=MOST + 1), 1009),
    "declared length 2^63-1 (B-16)": (frame(b"", declared=(1 << 63) - 1), 1009),
    "declared length 2^64-1 (B-16)": (frame(b"", declared=(1 << 64) - 1), 1009),
    "fragments too large together": (
        frame(bytes(9), fin=False) + frame(b"", CONTINUATION, declared=MOST - 8),
        1009,
    ),
    "one fragment too many (B-17)": (
        frame(b"", fin=False) + 16 * frame(b"", CONTINUATION, fin=False),
        1008,
    ),
    "close of one byte (B-20)": (frame(b"\x03", CLOSE), 1002),
    "close with code 999 (B-20)": (frame(close_payload(999), CLOSE), 1002),
    "close with code 1005": (frame(close_payload(1005), CLOSE), 1002),
    "close with code 2000": (frame(close_payload(2000), CLOSE), 1002),
    "close with code 5000": (frame(close_payload(5000), CLOSE), 1002),
    "close with a reason that is not UTF-8 (B-20)": (frame(close_payload(1000) + b"\xff", CLOSE), 1002),
}


@pytest.mark.parametrize(("data", "code"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_violation_is_told_after_the_messages_before_it(data: bytes, code: int) -> None:
    parsing = parser()
    parsing.feed(frame(b"good") + data)
    assert parsing.take() == [b"good"]
    for _ in range(2):
        with pytest.raises(RemoteProtocolError) as caught:
            parsing.take()
        assert caught.value.close_code == code
        parsing.feed(frame(b"too late"))


@pytest.mark.parametrize(("data", "code"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_violation_is_told_however_the_bytes_come(data: bytes, code: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        take_one_byte_at_a_time(data)
    assert caught.value.close_code == code


def test_masked_frame_of_a_server_is_a_violation() -> None:
    parsing = parser(masked=False)
    parsing.feed(frame(b"", masked=True))
    with pytest.raises(RemoteProtocolError, match="masked frame of a server") as caught:
        parsing.take()
    assert caught.value.close_code == 1002


def test_largest_message_and_most_fragments_are_legal() -> None:
    assert take(frame(b"12345"), max_message_bytes=5) == [b"12345"]
    data = frame(b"1", fin=False) + 3 * frame(b"2", CONTINUATION, fin=False) + frame(b"3", CONTINUATION)
    assert take(data, max_message_bytes=5, max_fragments=5) == [b"12223"]


@pytest.mark.parametrize("code", [1000, 1001, 1013, 3000, 4999])
def test_close_frame_is_set_aside_with_what_it_says(code: int) -> None:
    closing = frame(close_payload(code, "grüße"), CLOSE)
    parsing = parser()
    parsing.feed(frame(b"last") + closing + frame(b"too late"))
    assert parsing.take() == [b"last"]
    assert (parsing.close, parsing.close_code, parsing.close_reason) == (closing, code, "grüße")
    assert parsing.take() == []


def test_close_frame_may_say_nothing() -> None:
    parsing = parser()
    parsing.feed(frame(b"", CLOSE))
    assert parsing.take() == []
    assert parsing.close is not None
    assert parsing.close_code is None


def test_nothing_is_kept_of_a_message_that_is_too_large() -> None:
    parsing = parser(max_message_bytes=10)
    parsing.feed(frame(bytes(11))[:6])
    with pytest.raises(RemoteProtocolError):
        parsing.take()
    assert parsing.held == 6


@pytest.mark.parametrize("opcode", [BINARY, PING])
def test_thousands_of_frames_are_taken_in_several_turns(opcode: int) -> None:
    parsing = parser()
    parsing.feed(5000 * frame(b"", opcode))
    turns = []
    while parsing.missing <= 0:
        turns.append(len(parsing.take()) + len(parsing.control))
        parsing.control.clear()
    assert turns == [2048, 2048, 904]


def test_no_message_is_taken_behind_many_bytes() -> None:
    parsing = parser(max_message_bytes=1 << 20)
    messages = [bytes(200_000), bytes(50_000), bytes(300_000), b"small"]
    parsing.feed(b"".join(map(frame, messages)))
    assert parsing.take() == messages[:2]
    assert parsing.missing <= 0
    assert parsing.take() == messages[2:3]
    assert parsing.take() == messages[3:]


def test_a_million_empty_fragments_are_not_looked_at() -> None:
    # B-17: eleven seconds of one core otherwise.
    parsing = parser(max_fragments=1024)
    parsing.feed(frame(b"", fin=False) + 1_000_000 * frame(b"", CONTINUATION, fin=False))
    started = time.process_time()
    with pytest.raises(RemoteProtocolError) as caught:
        parsing.take()
    assert caught.value.close_code == 1008
    assert time.process_time() - started < 3


@pytest.mark.parametrize(("size", "step"), [(2 << 20, 1400), (32 << 20, 256 * 1024)])
@pytest.mark.parametrize("masked", [True, False])
def test_large_message_in_small_reads_is_copied_a_few_times_at_most(
    size: int, step: int, masked: bool
) -> None:
    payload = bytes(size)
    data = b"".join(encode_masked(payload)) if masked else frame_header(size) + payload
    data += frame(b"next", masked=masked)
    seconds = []
    for _ in range(3):  # the machine may be busy with other things
        parsing = parser(masked=masked, max_message_bytes=size)
        started = time.process_time()
        messages = []
        at = 0
        while at < len(data):
            # As a reader does it.
            piece = memoryview(data)[at : at + step]
            room = parsing.room()
            if room is None:
                parsing.feed(bytes(piece))
            else:
                piece = piece[: len(room)]
                room[: len(piece)] = piece
                parsing.fill(len(piece))
            at += len(piece)
            messages += parsing.take()
        seconds.append(time.process_time() - started)
        assert messages == [payload, b"next"]
    # Quadratic growth would copy a gigabyte and more: seconds.
    assert min(seconds) < 0.5


def test_progress_of_a_message_can_be_seen() -> None:
    parsing = parser()
    seen = [parsing.held]
    for data in (frame(b"", fin=False), frame(b"ab", CONTINUATION, fin=False), frame(b"c", CONTINUATION)[:3]):
        parsing.feed(data)
        assert parsing.take() == []
        seen.append(parsing.held)
    assert seen == sorted(set(seen))
    held = parsing.held
    parsing.feed(frame(b"c", CONTINUATION)[3:] + frame(b"", PING))
    assert parsing.take() == [b"abc"]
    assert parsing.held == 0 < held


def test_a_ping_is_no_progress() -> None:
    parsing = parser()
    parsing.feed(frame(b"ab", fin=False))
    parsing.take()
    held = parsing.held
    parsing.feed(frame(b"", PING))
    parsing.take()
    assert parsing.held == held


CONTROL = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))
PIECES = st.tuples(st.binary(max_size=300), st.lists(CONTROL, max_size=2))
MESSAGES = st.lists(st.lists(PIECES, min_size=1, max_size=4), max_size=6)


@given(messages=MESSAGES, cuts=st.lists(st.integers(0, 4000)), masked=st.booleans())
@example(
    messages=[[(bytes(70_000), []), (bytes(70_000), [(PING, b"")])]], cuts=[10, 66_000, 70_010], masked=True
)
def test_any_chunking_of_any_legal_frames_gives_the_same_messages(
    messages: list[list[tuple[bytes, list[tuple[int, bytes]]]]], cuts: list[int], masked: bool
) -> None:
    data, expected, control = b"", [], []
    for pieces in messages:
        expected.append(b"".join(payload for payload, _ in pieces))
        for index, (payload, between) in enumerate(pieces):
            opcode, last = CONTINUATION if index else BINARY, index == len(pieces) - 1
            data += frame(payload, opcode, fin=last, masked=masked)
            for opcode, text in between:
                control.append(frame(text, opcode, masked=masked))
                data += control[-1]
    parsing = parser(masked=masked)
    taken = []
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, stop in pairwise(edges):
        parsing.feed(data[start:stop])
        taken += parsing.take()
    assert taken == expected
    assert list(parsing.control) == control
    assert parsing.held == 0


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_messages_or_a_violation(data: bytes, masked: bool) -> None:
    parsing = parser(masked=masked)
    parsing.feed(data)
    with suppress(RemoteProtocolError):
        while messages := parsing.take():
            assert all(type(message) is bytes for message in messages)


# ---- after our close frame

CLOSING = frame(close_payload(1000, "bye"), CLOSE)


@pytest.mark.parametrize(
    "before",
    [
        b"",
        frame(bytes(100_000)),
        frame(b"half", fin=False) + frame(b"", PING) + frame(bytes(300), CONTINUATION),
        *(data for data, code in VIOLATIONS.values() if code in {1003, 1008}),
        frame(b"clear", masked=False),
        frame(b"", reserved=4),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_peers_close_frame_is_found_behind_anything(before: bytes, step: int) -> None:
    skipper = FrameSkipper(masked=True)
    data = before + CLOSING
    found = [skipper.feed(data[start : start + step]) for start in range(0, len(data), step)]
    assert found[:-1] == (len(found) - 1) * [None]
    assert found[-1] == CLOSING


@pytest.mark.parametrize(
    "closing",
    [
        frame(b"", CLOSE, masked=False),
        frame(b"", CLOSE, fin=False),
        frame(b"", CLOSE, reserved=1),
        frame(bytes(200), CLOSE),
        frame(b"\x03", CLOSE),
    ],
)
def test_malformed_close_frame_is_the_end_too(closing: bytes) -> None:
    assert FrameSkipper(masked=True).feed(closing) == b""


def test_close_frame_of_a_server_is_found() -> None:
    closing = frame(close_payload(1000), CLOSE, masked=False)
    assert FrameSkipper(masked=False).feed(closing) == closing


@given(st.binary(max_size=400))
def test_skipper_never_raises(data: bytes) -> None:
    FrameSkipper(masked=True).feed(data)

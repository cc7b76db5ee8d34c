from __future__ import annotations

import pytest
import trio
import trio.testing

from orbtrio.errors import RemoteProtocolError
from orbtrio.transport.frames import FrameParser
from orbtrio.transport.incoming import Reader
from orbtrio.transport.pipes import StreamPipe
from orbtrio.transport.turns import Turns
from tests.transport.peers import CONTINUATION, PING, TEXT, frame


def open_reader() -> tuple[Reader, trio.testing.MemorySendStream]:
    theirs, ours = trio.testing.memory_stream_pair()
    parser = FrameParser(masked=True, max_message_bytes=1 << 20, max_fragments=10)
    assert theirs.send_stream is not None
    return Reader(StreamPipe(ours), parser), theirs.send_stream


async def test_reader_feeds_the_parser_until_the_end() -> None:
    reader, stream = open_reader()
    assert reader.take(None) == []
    await stream.send_all(frame(b"1") + frame(b"2"))
    assert await reader.read()
    assert reader.take(1) == [b"1"]
    assert reader.take(None) == [b"2"]
    await stream.aclose()
    assert not await reader.read()


async def test_readers_share_a_buffer_and_each_keeps_its_own_half_of_a_frame() -> None:
    first, first_stream = open_reader()
    second, second_stream = open_reader()
    ones, twos = frame(b"1" * 50_000), frame(b"2" * 60_000)
    for stream, reader, data in ((first_stream, first, ones), (second_stream, second, twos)):
        await stream.send_all(data[:40_000])
        assert await reader.read()
        assert reader.take(None) == []
    for stream, reader, data in ((first_stream, first, ones), (second_stream, second, twos)):
        await stream.send_all(data[40_000:] + frame(b"next"))
        assert await reader.read()
    assert first.take(None) == [b"1" * 50_000, b"next"]
    assert second.take(None) == [b"2" * 60_000, b"next"]


async def test_large_frame_is_read_in_few_pieces_that_grow_with_what_has_come() -> None:
    reader, stream = open_reader()
    payload = bytes(range(256)) * 4000
    data = frame(payload) + frame(b"next")
    pieces = [1000, 5000, 20_000]
    for size in pieces:
        await stream.send_all(data[:size])
        data = data[size:]
        assert await reader.read()
        assert reader.take(None) == []
    await stream.send_all(data)
    messages: list[bytes] = []
    reads = 0
    while len(messages) < 2:
        assert await reader.read()
        messages += reader.take(None)
        reads += 1
    assert messages == [payload, b"next"]
    assert reads <= 4
    assert reader.parser.held == 0


async def test_not_more_is_held_than_eight_times_what_came_of_a_frame() -> None:
    reader, stream = open_reader()
    await stream.send_all(frame(bytes(1 << 20))[:100])
    assert await reader.read()
    assert reader.take(None) == []
    room = reader.parser.room()
    assert room is not None
    assert len(room) == 700


@pytest.mark.parametrize("most", [1, None])
async def test_messages_of_a_large_read_wait_for_who_takes_them(most: int | None) -> None:
    reader, stream = open_reader()
    payloads = [b"1" * 9000, b"2" * 9000, b"3" * 9000]
    await stream.send_all(b"".join(map(frame, payloads)))
    assert await reader.read(most)
    assert reader.take(1) == payloads[:1]
    assert reader.take(1) == payloads[1:2]
    assert reader.take(None) == payloads[2:]


@pytest.mark.parametrize(
    ("payload", "most"), [(bytes(300_000), 1), (bytes(10_000), 26), (bytes(50), 65_536 // 56)]
)
async def test_large_messages_are_read_many_at_a_time_and_small_ones_are_not(
    payload: bytes, most: int
) -> None:
    reader, stream = open_reader()
    left = 1_000_000 // len(payload)
    await stream.send_all(frame(payload) * left)
    counts = []
    while left:
        await reader.read()
        counts.append(len(reader.take(None)))
        left -= counts[-1]
    assert max(counts) in (most, most + 1)


async def test_a_read_takes_the_usual_large_message_whole() -> None:
    reader, stream = open_reader()
    reads = 0
    for _ in range(3):
        await stream.send_all(frame(bytes(330_000)))
        reads = 0
        while not reader.take(None):
            await reader.read()
            reads += 1
    assert reads == 1


async def test_what_is_wrong_with_a_frame_is_said_behind_the_messages_before_it() -> None:
    reader, stream = open_reader()
    await stream.send_all(frame(bytes(20_000)) + frame(b"text", TEXT))
    assert await reader.read()
    assert reader.take(None) == [bytes(20_000)]
    with pytest.raises(RemoteProtocolError, match="text frame"):
        reader.take(None)
    await stream.send_all(bytes(20_000))
    assert await reader.read()
    with pytest.raises(RemoteProtocolError, match="text frame"):
        reader.take(None)


async def test_reader_knows_when_somebody_waits_and_when_bytes_came(
    mock_clock: trio.testing.MockClock,
) -> None:
    reader, stream = open_reader()
    async with trio.open_nursery() as nursery:
        waiting = [reader.waiting]
        nursery.start_soon(reader.read)
        await trio.testing.wait_all_tasks_blocked()
        waiting.append(reader.waiting)
        mock_clock.jump(7)
        await stream.send_all(frame(b"1"))
    waiting.append(reader.waiting)
    assert reader.last_received == 7.0
    with trio.move_on_after(0):
        await reader.read()
    waiting.append(reader.waiting)
    assert waiting == [False, True, False, False]


HALF_FRAME = [
    (frame(b"whole") + frame(b"half")[:5], 1.0),
    (frame(b"half")[5:-1], 2.0),
    (frame(b"half")[-1:], None),
    (frame(b"half")[:5], 4.0),
    (frame(b"half")[5:] + frame(b"half")[:5], 5.0),
]
FRAGMENTS = [
    (frame(b"half", fin=False), 1.0),
    (frame(b"", PING), 1.0),
    (frame(b"", CONTINUATION, fin=False), 3.0),
    (frame(b"", CONTINUATION), None),
]


@pytest.mark.parametrize("steps", [HALF_FRAME, FRAGMENTS])
async def test_stall_begins_when_a_message_stops_growing(
    steps: list[tuple[bytes, float | None]], mock_clock: trio.testing.MockClock
) -> None:
    reader, stream = open_reader()
    for data, stalled_since in steps:
        mock_clock.jump(1)
        await stream.send_all(data)
        await reader.read()
        reader.take(None)
        with trio.move_on_after(0):
            await reader.read()
        assert reader.stalled_since == stalled_since


async def test_who_brings_much_waits_for_a_turn_with_time_left_and_others_do_not() -> None:
    time = 0.0
    turns = Turns(1, lambda: time)
    theirs, ours = trio.testing.memory_stream_pair()
    reader = Reader(
        StreamPipe(ours), FrameParser(masked=True, max_message_bytes=1 << 20, max_fragments=10), turns
    )
    with turns.followed(), trio.fail_after(50):
        await theirs.send_all(frame(bytes(40_000)))
        await reader.read()
        assert reader.parser.unparsed == 16 * 1024  # and not more, of somebody who was silent
        await turns.enter()
        time += 100
        done = trio.Event()

        async def read() -> None:
            await reader.read()
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await done.wait()
            assert time == 100
        assert reader.take(None) == [bytes(40_000)]

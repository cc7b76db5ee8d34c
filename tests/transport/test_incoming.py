from __future__ import annotations

import pytest
import trio
import trio.testing

from orbtrio.transport.frames import FrameParser
from orbtrio.transport.incoming import Reader
from orbtrio.transport.pipes import StreamPipe
from tests.transport.peers import CONTINUATION, PING, frame


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

"""Pings answered where they are parsed; test_connection has the whole connection around it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from orbtrio.transport.frames import FrameParser
from orbtrio.transport.outgoing import Writer
from orbtrio.transport.pipes import StreamPipe
from orbtrio.transport.pongs import Pongs
from tests.transport.peers import BINARY, PING, PONG, frame, split_frames

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@attrs.define
class Setting:
    pongs: Pongs
    parser: FrameParser
    writer: Writer
    peer: trio.abc.Stream

    def find(self, *frames: bytes) -> list[bytes]:
        """Have frames parsed, and their pings answered; the messages among them."""
        self.parser.feed(b"".join(frames))
        messages = self.parser.take()
        self.pongs.answer()
        return messages

    def late(self) -> bytes | None:
        return self.pongs.late

    async def sent(self) -> bytes:
        """What the peer gets if it reads now."""
        data = bytearray()

        async def read() -> None:
            while True:
                data.extend(await self.peer.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return bytes(data)

    async def seen(self) -> list[tuple[int, bytes]]:
        """The same, as frames."""
        frames, rest = split_frames(await self.sent())
        assert not rest
        return frames


@asynccontextmanager
async def open_pongs(*, server: bool = True, reads: bool = True) -> AsyncIterator[Setting]:
    peer, ours = trio.testing.memory_stream_pair() if reads else trio.testing.lockstep_stream_pair()
    ends: list[str] = []
    parser = FrameParser(masked=server, max_message_bytes=1000, max_fragments=10)
    async with peer, ours, trio.open_nursery() as nursery:
        writer = Writer(StreamPipe(ours), max_bytes=10_000, timeout=10, lose=ends.append, fail=ends.append)
        writer.nursery = nursery
        yield Setting(Pongs(parser, writer, server=server), parser, writer, peer)
        assert not ends
        nursery.cancel_scope.cancel()


def pings(start: int, stop: int, *, masked: bool = True) -> list[bytes]:
    return [frame(b"%d" % number, PING, masked=masked) for number in range(start, stop)]


@pytest.mark.parametrize("server", [True, False])
@pytest.mark.parametrize("payload", [b"", b"?", bytes(range(125))])
async def test_a_pong_repeats_what_the_ping_said(server: bool, payload: bytes) -> None:
    async with open_pongs(server=server) as setting:
        setting.find(frame(payload, PING, masked=server))
        data = await setting.sent()
        assert split_frames(data) == ([(PONG, payload)], b"")
        # A client masks, with a key of its own.
        assert (data[1] >> 7) == (not server)
        assert not setting.parser.control


async def test_every_mask_is_fresh() -> None:
    async with open_pongs(server=False) as setting:
        setting.find(*(4 * [frame(b"same", PING, masked=False)]))
        data = await setting.sent()
        assert len({data[start : start + 10] for start in range(0, 40, 10)}) > 1


async def test_all_pings_of_a_read_are_answered_in_their_order() -> None:
    async with open_pongs() as setting:
        assert setting.find(*pings(0, 2), frame(b"message"), *pings(2, 3)) == [b"message"]
        assert await setting.seen() == [(PONG, b"0"), (PONG, b"1"), (PONG, b"2")]


async def test_pongs_of_the_peer_are_left_to_others() -> None:
    async with open_pongs() as setting:
        unasked = [frame(b"%d" % number, PONG) for number in range(2)]
        setting.find(unasked[0], *pings(0, 1), unasked[1])
        assert list(setting.parser.control) == unasked
        assert await setting.seen() == [(PONG, b"0")]


async def test_a_pong_goes_behind_what_is_queued_and_takes_it_along() -> None:
    async with open_pongs() as setting:
        setting.writer.add(frame(b"queued", masked=False))
        setting.find(*pings(0, 1))
        assert await setting.seen() == [(BINARY, b"queued"), (PONG, b"0")]


async def test_of_a_flood_of_pings_the_first_and_the_latest_are_answered() -> None:
    # B-18.
    async with open_pongs() as setting:
        setting.find(*pings(0, 100))
        assert setting.late() == frame(b"99", PING)
        await setting.pongs.wait_for_room()
        setting.pongs.answer()
        assert setting.late() is None
        numbers = [int(payload) for _, payload in await setting.seen()]
        assert numbers == [*range(16), 99]


async def test_who_reads_no_pongs_is_owed_no_more_than_a_few(autojump_clock: trio.testing.MockClock) -> None:
    # B-19.
    async with open_pongs(reads=False) as setting:
        setting.find(*pings(0, 10))
        setting.find(*pings(10, 20))
        owed = setting.writer.unsent
        for start in range(20, 1000, 20):
            setting.find(*pings(start, start + 20))
        assert setting.writer.unsent == owed == 16 * 4 - 10
        assert setting.late() == frame(b"999", PING)
        with trio.move_on_after(1) as patience:
            await setting.pongs.wait_for_room()
        assert patience.cancelled_caught
        # It begins to read.
        frames = await setting.seen()
        await setting.pongs.wait_for_room()
        setting.pongs.answer()
        assert setting.late() is None
        frames += await setting.seen()
        assert [int(payload) for _, payload in frames] == [*range(16), 999]


async def test_room_is_counted_behind_other_bytes_too() -> None:
    async with open_pongs(reads=False) as setting:
        setting.writer.add(bytes(1000))
        setting.find(*pings(0, 16))
        setting.find(*pings(16, 17))
        assert setting.late() == frame(b"16", PING)


async def test_nobody_waits_for_room_on_a_connection_that_has_ended() -> None:
    async with open_pongs(reads=False) as setting, trio.open_nursery() as nursery:
        setting.find(*pings(0, 20))
        nursery.start_soon(setting.pongs.wait_for_room)
        await trio.testing.wait_all_tasks_blocked()
        setting.writer.stop()
        await setting.pongs.wait_for_room()
        setting.find(*pings(20, 40))
        assert setting.late() is None
        assert setting.writer.unsent == 0

"""What trio-websocket is shown, step by step; test_connection and test_opening have the real one on top."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from orbtrio.errors import ConnectionLost
from orbtrio.transport.frames import FrameParser
from orbtrio.transport.incoming import Reader
from orbtrio.transport.outgoing import Writer
from orbtrio.transport.pipes import Pipe, StreamPipe
from orbtrio.transport.websocket import ControlStream
from tests.transport.peers import CLOSE, PING, PONG, close_payload, frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BYE = frame(close_payload(1000), CLOSE)


@attrs.define
class Setting:
    control: ControlStream
    reader: Reader
    pipe: StreamPipe
    peer: trio.abc.Stream
    ends: list[str]

    async def read(self, *frames: bytes) -> None:
        """Have the session read frames."""
        await self.peer.send_all(b"".join(frames))
        await self.reader.read()
        self.reader.take(None)
        self.control.offer_nowait()


@asynccontextmanager
async def open_control(
    head: bytes = b"head", *, lost: bool = False, broken: bool = False
) -> AsyncIterator[Setting]:
    peer, ours = trio.testing.memory_stream_pair()
    pipe = StreamPipe(ours)
    ends: list[str] = []

    async def read_head(pipe: Pipe) -> tuple[bytes, bytes]:
        if lost:
            raise ConnectionLost("refused")
        if broken:
            raise OSError("broken")
        return head, frame(b"behind")

    reader = Reader(pipe, FrameParser(masked=True, max_message_bytes=1000, max_fragments=10))
    writer = Writer(pipe, max_bytes=1000, timeout=1, lose=ends.append, fail=ends.append)
    control = ControlStream(
        pipe,
        reader,
        writer,
        read_head=read_head,
        masked=True,
        lose=ends.append,
        finish=lambda: ends.append("finished"),
    )
    async with peer, trio.open_nursery() as nursery:
        writer.nursery = nursery
        yield Setting(control, reader, pipe, peer, ends)
        await pipe.aclose()
        nursery.cancel_scope.cancel()


async def test_head_goes_up_and_what_is_behind_it_to_the_parser() -> None:
    async with open_control() as setting:
        assert await setting.control.receive_some() == b"head"
        assert setting.reader.take(None) == [b"behind"]


@pytest.mark.parametrize(
    ("lost", "broken", "reason"),
    [(True, False, "refused"), (False, True, "broken in the middle of the handshake")],
)
async def test_failed_handshake_is_a_broken_network(lost: bool, broken: bool, reason: str) -> None:
    async with open_control(lost=lost, broken=broken) as setting:
        with pytest.raises(trio.BrokenResourceError):
            await setting.control.receive_some()
        assert setting.ends == [reason]


async def test_pongs_come_one_at_a_time_and_data_and_pings_never() -> None:
    async with open_control() as setting:
        await setting.control.receive_some()
        pongs = [frame(b"%d" % number, PONG) for number in range(3)]
        await setting.read(pongs[0], frame(b"data"), pongs[1], frame(b"", PING), pongs[2])
        assert [await setting.control.receive_some() for _ in pongs] == pongs


async def test_a_pong_beyond_what_may_wait_is_handed_over_when_there_is_room() -> None:
    async with open_control() as setting, trio.open_nursery() as nursery:
        await setting.control.receive_some()
        await setting.read(*(frame(b"%d" % number, PONG) for number in range(17)))
        nursery.start_soon(setting.control.offer)
        await trio.testing.wait_all_tasks_blocked()
        assert setting.control.lags
        assert await setting.control.receive_some() == frame(b"0", PONG)
        await trio.testing.wait_all_tasks_blocked()
        assert not setting.control.lags


async def test_of_a_flood_of_pongs_one_is_kept() -> None:
    async with open_control() as setting:
        await setting.control.receive_some()
        await setting.read(*(frame(b"%d" % number, PONG) for number in range(100)))
        assert list(setting.reader.parser.control) == [frame(b"99", PONG)]


async def test_nobody_waits_for_room_when_the_connection_closes() -> None:
    async with open_control() as setting:
        await setting.control.receive_some()
        await setting.read(*(100 * [frame(b"", PONG)]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(setting.control.offer)
            nursery.start_soon(setting.control.offer_close, BYE)
            await trio.testing.wait_all_tasks_blocked()
            setting.control.take_over()
        setting.control.offer_nowait()


async def test_asking_for_more_after_the_close_frame_finishes() -> None:
    async with open_control() as setting:
        await setting.control.receive_some()
        await setting.read(BYE)
        assert setting.reader.parser.close == BYE
        for _ in range(2):
            await setting.control.offer_close(BYE)
        assert await setting.control.receive_some() == BYE
        assert setting.ends == []
        assert await setting.control.receive_some() == b""
        assert setting.ends == ["finished"]


async def test_when_closing_it_reads_for_itself_and_sees_the_close_frame_only() -> None:
    async with open_control() as setting:
        await setting.control.receive_some()
        await setting.read(frame(b"", PING), frame(b"half")[:3])
        setting.control.take_over()
        await setting.peer.send_all(frame(b"half")[3:] + frame(b"", PING) + BYE)
        assert await setting.control.receive_some() == BYE


async def test_when_closing_it_waits_for_the_session_to_leave() -> None:
    async with open_control() as setting, trio.open_nursery() as nursery:
        await setting.control.receive_some()
        seen: list[bytes] = []

        async def receive() -> None:
            seen.append(await setting.control.receive_some())

        nursery.start_soon(setting.reader.read)
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        setting.control.take_over()
        # The session's last read brings the close frame, if it is woken by that before it is by us.
        await setting.peer.send_all(BYE)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [BYE]


@pytest.mark.parametrize("end", ["hangs up", "is interrupted", "sends nonsense"])
async def test_when_closing_the_end_may_come_without_a_close_frame(end: str) -> None:
    async with open_control() as setting:
        await setting.control.receive_some()
        setting.control.take_over()
        if end == "hangs up":
            await trio.aclose_forcefully(setting.peer)
            assert await setting.control.receive_some() == b""
        elif end == "sends nonsense":
            await setting.peer.send_all(frame(b"\x03", CLOSE))
            assert await setting.control.receive_some() == b""
        else:
            setting.pipe.close()
            with pytest.raises(trio.BrokenResourceError):
                await setting.control.receive_some()


async def test_when_all_is_over_the_network_is_broken() -> None:
    async with open_control() as setting:
        await setting.control.receive_some()
        setting.control.shut()
        with pytest.raises(trio.BrokenResourceError):
            await setting.control.receive_some()


async def test_sending_waits_for_the_network_and_closing_for_what_was_sent() -> None:
    async with open_control() as setting:
        await setting.control.send_all(bytearray(b"pong"))
        assert await setting.peer.receive_some() == b"pong"
        await setting.control.wait_send_all_might_not_block()
        await setting.control.aclose()
        assert setting.ends == ["finished"]

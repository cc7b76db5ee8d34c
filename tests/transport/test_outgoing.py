from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from orbtrio.transport.outgoing import Flusher, Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from orbtrio.transport.turns import Turns


class FakePipe:
    """Takes as many bytes at once as the next of `gulps` says; waits for `more` where there is none."""

    def __init__(self, gulps: Iterable[int | OSError] = ()) -> None:
        self.gulps = deque(gulps)
        self.calls = 0
        self.taken = b""
        self._more, self._gulps = trio.open_memory_channel[int](100)

    def more(self, gulp: int) -> None:
        self._more.send_nowait(gulp)

    def _take(self, data: bytes, gulp: int) -> int:
        self.calls += 1
        self.taken += data[:gulp]
        return len(data[:gulp])

    def send_now(self, data: bytes) -> int:
        gulp = self.gulps.popleft() if self.gulps else 0
        if isinstance(gulp, OSError):
            raise gulp
        return self._take(data, gulp)

    async def send_some(self, data: memoryview) -> int:
        gulp = await self._gulps.receive()
        if not gulp:
            raise OSError("broken")
        return self._take(bytes(data), gulp)

    async def receive(self, most: int) -> bytes:
        raise NotImplementedError

    async def receive_into(self, buffer: memoryview, turns: Turns | None = None) -> int:
        raise NotImplementedError

    def interrupt(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


@asynccontextmanager
async def open_writer(
    pipe: FakePipe, flusher: Flusher | None = None
) -> AsyncIterator[tuple[Writer, list[str]]]:
    losses: list[str] = []

    def lose(reason: str) -> None:
        losses.append(reason)
        writer.stop()

    writer = Writer(pipe, max_bytes=100, timeout=10.0, lose=lose, fail=lose, flusher=flusher)
    async with trio.open_nursery() as nursery:
        writer.nursery = nursery
        yield writer, losses
        nursery.cancel_scope.cancel()


async def test_everything_added_leaves_in_one_call() -> None:
    pipe = FakePipe([100])
    async with open_writer(pipe) as (writer, losses):
        writer.add(b"1", (b"2", b"3"), 2)
        writer.add(b"4")
        assert writer.unsent == 4
        writer.flush()
        writer.flush()
        assert (pipe.taken, pipe.calls, writer.unsent, losses) == (b"1234", 1, 0, [])


async def test_rest_follows_in_order_and_is_counted() -> None:
    pipe = FakePipe([2])
    async with open_writer(pipe) as (writer, losses):
        writer.add(b"12345")
        writer.flush()
        writer.add(b"6")
        writer.flush()
        assert writer.unsent == 4
        for gulp, unsent in ((1, 3), (2, 1), (1, 0)):
            pipe.more(gulp)
            await trio.testing.wait_all_tasks_blocked()
            assert writer.unsent == unsent
        assert pipe.taken == b"123456"
        pipe.gulps.append(1)
        writer.add(b"7")
        writer.flush()
        assert pipe.taken == b"1234567"
        assert losses == []


async def test_waiting_ends_when_little_enough_is_left() -> None:
    pipe = FakePipe()
    async with open_writer(pipe) as (writer, _), trio.open_nursery() as nursery:
        done: list[str] = []

        async def wait(below: int) -> None:
            await writer.wait(below)
            done.append(f"{below} left")

        async def write() -> None:
            await writer.write_all(b"pong")
            done.append("written")

        writer.add(b"123456")
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        writer.add(b"behind the pong")
        nursery.start_soon(wait, 20)
        nursery.start_soon(wait, 0)
        for gulp, expected in ((4, []), (3, ["20 left"]), (3, ["20 left", "written"])):
            pipe.more(gulp)
            await trio.testing.wait_all_tasks_blocked()
            assert done == expected
        pipe.more(100)
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["20 left", "written", "0 left"]


async def test_waiting_ends_when_what_nobody_had_flushed_is_flushed() -> None:
    async with open_writer(FakePipe([100])) as (writer, _), trio.open_nursery() as nursery:
        writer.add(b"queued")
        nursery.start_soon(writer.wait, 0)
        await trio.testing.wait_all_tasks_blocked()
        writer.flush()


async def test_stopped_writer_drops_everything_and_wakes_everybody() -> None:
    async with open_writer(FakePipe()) as (writer, losses), trio.open_nursery() as nursery:

        async def write() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await writer.write_all(b"pong")

        nursery.start_soon(write)
        nursery.start_soon(writer.wait, 0)
        await trio.testing.wait_all_tasks_blocked()
        writer.stop()
        writer.add(b"dropped")
        writer.flush()
        assert writer.unsent == 0
        nursery.start_soon(write)
    assert losses == ["cancelled in the middle of a write"]


async def test_too_much_unsent_is_the_end() -> None:
    async with open_writer(FakePipe()) as (writer, losses):
        writer.add(bytes(100))
        assert losses == []
        writer.add(b"1")
        assert losses == ["the peer does not read: 101 bytes unsent"]


async def test_broken_pipe_is_the_end() -> None:
    async with open_writer(FakePipe([OSError("gone")])) as (writer, losses):
        writer.add(b"1")
        writer.flush()
        assert losses == ["gone"]
    pipe = FakePipe()
    async with open_writer(pipe) as (writer, losses):
        writer.add(b"1")
        writer.flush()
        pipe.more(0)
        await trio.testing.wait_all_tasks_blocked()
        assert losses == ["broken"]


async def test_write_without_progress_is_the_end(autojump_clock: trio.testing.MockClock) -> None:
    pipe = FakePipe()
    async with open_writer(pipe) as (writer, losses):
        writer.add(b"123")
        writer.flush()
        for _ in range(2):
            await trio.sleep(9)
            pipe.more(1)
        await trio.sleep(9)
        assert losses == []
        await trio.sleep(2)
        assert losses == ["the peer took no byte for 10 s"]


async def test_flusher_lists_a_writer_once() -> None:
    flusher = Flusher()
    pipe = FakePipe([100, 100])
    async with open_writer(pipe, flusher) as (writer, _):
        writer.add(b"1")
        writer.add(b"2")
        flusher.flush()
        flusher.flush()
        assert (pipe.taken, pipe.calls) == (b"12", 1)
        writer.add(b"3")
        flusher.flush()
        assert (pipe.taken, pipe.calls) == (b"123", 2)

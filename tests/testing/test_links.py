"""Links: streams like any other, until a fault is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from orbtrio.testing import Link

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from orbtrio.testing.links import LinkEnd


async def test_ends_keep_trios_contract_of_a_stream() -> None:
    async def make() -> tuple[LinkEnd, LinkEnd]:
        link = Link("memory:1", capacity=1024)
        return link.peer_end, link.engine_end

    async def make_full() -> tuple[LinkEnd, LinkEnd]:
        link = Link("memory:1", capacity=1024)
        await link.peer_end.send_all(bytes(1024))
        await link.engine_end.send_all(bytes(1024))
        return link.peer_end, link.engine_end

    await trio.testing.check_half_closeable_stream(make, make_full)


async def test_sender_waits_once_the_buffer_is_full() -> None:
    link = Link("memory:1", capacity=10)
    await link.peer_end.send_all(bytes(10))
    with trio.move_on_after(0.01) as impatient:
        await link.peer_end.send_all(b"x")
    assert impatient.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.peer_end.send_all, b"more than fits")
        received = b""
        while len(received) < 24:
            received += await link.engine_end.receive_some()
    assert received == bytes(10) + b"more than fits"
    assert link.to_engine.carried == 24


async def test_bytes_sent_may_be_changed_afterwards() -> None:
    link = Link("memory:1")
    data = bytearray(b"before")
    await link.peer_end.send_all(data)
    data[:] = b"after."
    assert await link.engine_end.receive_some() == b"before"


async def test_cut_loses_what_is_under_way() -> None:
    link = Link("memory:1")
    await link.peer_end.send_all(b"lost")
    link.cut()
    for end in (link.peer_end, link.engine_end):
        with pytest.raises(trio.BrokenResourceError):
            await end.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await end.send_all(b"x")


async def test_cut_after_so_many_bytes_lets_exactly_these_arrive() -> None:
    link = Link("memory:1")
    link.to_engine.cut_after(3)
    await link.peer_end.send_all(b"abcdef")
    assert await link.engine_end.receive_some() == b"abc"
    with pytest.raises(trio.BrokenResourceError):
        await link.engine_end.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await link.peer_end.receive_some()


async def test_hang_up_lets_arrive_what_was_sent() -> None:
    link = Link("memory:1")
    await link.peer_end.send_all(b"last words")
    link.hang_up()
    assert await link.engine_end.receive_some() == b"last words"
    assert await link.engine_end.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await link.engine_end.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await link.peer_end.receive_some()


async def test_stalled_link_delivers_when_it_is_resumed(autojump_clock: MockClock) -> None:
    link = Link("memory:1")
    link.stall()
    await link.peer_end.send_all(b"up")
    await link.engine_end.send_all(b"down")
    await link.peer_end.send_eof()
    for end in (link.peer_end, link.engine_end):
        with trio.move_on_after(60) as impatient:
            await end.receive_some()
        assert impatient.cancelled_caught
    link.resume()
    assert await link.engine_end.receive_some() == b"up"
    assert await link.engine_end.receive_some() == b""
    assert await link.peer_end.receive_some() == b"down"


async def test_one_direction_stalls_alone() -> None:
    link = Link("memory:1")
    link.to_peer.stall()
    await link.peer_end.send_all(b"up")
    assert await link.engine_end.receive_some() == b"up"


async def test_delayed_bytes_stay_in_order_and_are_overtaken_by_other_links(
    autojump_clock: MockClock,
) -> None:
    slow, fast = Link("memory:1"), Link("memory:2")
    slow.delay = 0.2
    assert (slow.delay, fast.delay) == (0.2, 0)
    arrivals: list[tuple[bytes, float]] = []

    async def read(link: Link) -> None:
        while data := await link.engine_end.receive_some():
            arrivals.append((data, trio.current_time() - start))

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, slow)
        nursery.start_soon(read, fast)
        await slow.peer_end.send_all(b"first")
        await trio.sleep(0.1)
        await slow.peer_end.send_all(b"second")
        await fast.peer_end.send_all(b"third")
        for link in (slow, fast):
            await link.peer_end.aclose()
    assert [data for data, _ in arrivals] == [b"third", b"first", b"second"]
    assert [at for _, at in arrivals] == pytest.approx([0.1, 0.2, 0.3])


async def test_reads_can_be_made_small() -> None:
    link = Link("memory:1")
    link.to_engine.largest_read = 1
    await link.peer_end.send_all(b"ab")
    await link.peer_end.send_all(b"c")
    assert [await link.engine_end.receive_some() for _ in range(3)] == [b"a", b"b", b"c"]


async def test_one_read_brings_all_that_has_arrived() -> None:
    link = Link("memory:1")
    await link.peer_end.send_all(b"ab")
    await link.peer_end.send_all(b"c")
    assert await link.engine_end.receive_some() == b"abc"


def stall(link: Link) -> None:
    link.stall()


def slow_down(link: Link) -> None:
    link.delay = 60


def announce_cut(link: Link) -> None:
    link.to_engine.cut_after(1)


def make_reads_small(link: Link) -> None:
    link.to_engine.largest_read = 1


@pytest.mark.parametrize("fault", [stall, slow_down, announce_cut, make_reads_small])
async def test_heal_undoes_every_fault_but_a_cut(fault: Callable[[Link], None]) -> None:
    link = Link("memory:1")
    fault(link)
    await link.peer_end.send_all(b"abc")
    link.heal()
    assert await link.engine_end.receive_some() == b"abc"
    link.cut()
    link.heal()
    with pytest.raises(trio.BrokenResourceError):
        await link.engine_end.receive_some()
    assert "memory:1" in repr(link)

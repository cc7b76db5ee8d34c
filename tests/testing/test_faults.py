"""Faults by number: the wire breaks after that byte and in that manner, the program ends there."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from orbtrio.testing.faults import Striker, Sweep, Wire


async def read_all(stream: trio.abc.ReceiveStream) -> tuple[bytes, str]:
    """What comes, and how it ends: in good order, with an error, or never."""
    data = b""
    try:
        with trio.move_on_after(1):
            while piece := await stream.receive_some():
                data += piece
            return data, "end"
    except trio.BrokenResourceError:
        return data, "error"
    return data, "silence"


def test_sweep_is_named_as_it_is_asked_for() -> None:
    assert str(Sweep("worker", "to_peer", "fin")) == "worker:to_peer:fin"
    assert str(Sweep("engine", "", "cancel")) == "engine:cancel"


@pytest.mark.parametrize("position", [0, 1, 4, 5, 6, 9, 10])
@pytest.mark.parametrize("direction", ["to_engine", "to_peer"])
@pytest.mark.parametrize(
    ("manner", "here", "there"),
    [("reset", "error", "error"), ("fin", "end", "silence"), ("silence", "silence", "silence")],
)
async def test_wire_breaks_in_its_manner_after_so_many_bytes(
    manner: str, here: str, there: str, direction: str, position: int, autojump_clock: trio.testing.MockClock
) -> None:
    wire = Wire("memory:1")
    ends = (wire.peer_end, wire.engine_end)
    sender, receiver = ends if direction == "to_engine" else ends[::-1]
    wire.announce(direction, manner, position)
    await sender.send_all(b"01234")
    await sender.send_all(b"56789")
    assert await read_all(receiver) == (b"0123456789"[:position], here)
    assert wire.struck
    if manner != "silence":
        with pytest.raises(trio.BrokenResourceError):
            await sender.send_all(b"more")
    assert await read_all(sender) == (b"", there)


async def test_wire_that_nobody_breaks_is_a_link(autojump_clock: trio.testing.MockClock) -> None:
    wire = Wire("memory:1")
    await wire.peer_end.send_all(b"01234")
    assert (wire.peer_end.closed, wire.engine_end.closed) == (False, False)
    await wire.peer_end.aclose()
    assert (wire.peer_end.closed, wire.engine_end.closed) == (True, False)
    with pytest.raises(trio.ClosedResourceError):
        await wire.peer_end.send_all(b"56789")
    assert await read_all(wire.engine_end) == (b"01234", "end")
    assert wire.way("to_engine").carried == 5
    assert not wire.struck


def test_striker_counts_the_steps_of_a_task_and_its_children_and_cancels_at_one() -> None:
    async def steps(of: list[int]) -> None:
        for number in range(3):
            of.append(number)
            await trio.lowlevel.checkpoint()

    async def program(mine: list[int]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(steps, mine)
            nursery.start_soon(steps, mine)

    async def main(striker: Striker, mine: list[int], others: list[int]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(steps, others)
            with striker.watch():
                await program(mine)

    def run(at: int | None) -> tuple[Striker, list[int], list[int]]:
        striker, mine, others = Striker(at), list[int](), list[int]()
        trio.run(main, striker, mine, others, instruments=[striker])
        return striker, sorted(mine), others

    whole, mine, others = run(None)
    assert (mine, others, whole.struck) == ([0, 0, 1, 1, 2, 2], [0, 1, 2], False)
    done = []
    for at in range(1, whole.steps + 1):
        striker, mine, others = run(at)
        assert striker.struck
        assert others == [0, 1, 2]
        done.append(len(mine))
    assert done == sorted(done)
    assert done[0] < 6
    assert not run(whole.steps + 1)[0].struck

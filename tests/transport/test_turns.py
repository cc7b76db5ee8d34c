"""Who gets into which turn, by a clock that only work moves."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import trio
import trio.testing

from orbtrio.transport.turns import Turns


class Hall:
    """Tasks whose work takes time of a clock of its own, and what happened in which turn."""

    def __init__(self, budget: float = 10) -> None:
        self.time = 0.0
        self.turns = Turns(budget, lambda: self.time)
        self.turn = 0
        self.entered: list[tuple[int, int]] = []  # turn and name

    async def work(self, name: int, cost: float, times: int = 1) -> None:
        for _ in range(times):
            await trio.lowlevel.checkpoint()  # as a task that a readable socket wakes
            await self.turns.enter()
            self.entered.append((self.turn, name))
            self.time += cost

    async def count_turns(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.turn += 1

    def per_turn(self) -> list[int]:
        """How many got into each turn."""
        return list(Counter(turn for turn, _ in self.entered).values())


async def run(hall: Hall, *tasks: tuple[int, float, int]) -> None:
    """Run tasks, given as name, cost and times, until all have done their work."""
    with hall.turns.followed(), trio.fail_after(50):
        async with trio.open_nursery() as counting:
            counting.start_soon(hall.count_turns)
            async with trio.open_nursery() as nursery:
                for task in tasks:
                    nursery.start_soon(hall.work, *task)
            counting.cancel_scope.cancel()


async def test_nobody_waits_while_there_is_time() -> None:
    hall = Hall()
    await run(hall, *((name, 0.1, 1) for name in range(50)))
    assert len(hall.entered) == 50
    assert len(hall.per_turn()) <= 2  # the counter's place within a turn differs from turn to turn


async def test_a_turn_that_has_lasted_its_time_takes_nobody_more() -> None:
    hall = Hall(budget=10)
    await run(hall, *((name, 1, 1) for name in range(300)))
    assert len({name for _, name in hall.entered}) == 300
    # Each turn lasts its time, and at most one piece of work more.
    assert max(hall.per_turn()) <= 2 * 11
    assert len(hall.per_turn()) >= 300 // 12


async def test_turns_are_used_to_the_full_once_it_is_known_how_many_fit() -> None:
    hall = Hall(budget=10)
    await run(hall, *((name, 0.5, 20) for name in range(100)))
    assert len(hall.entered) == 2000
    assert len(hall.per_turn()) <= 1.2 * 2000 / 20


async def test_one_gets_through_in_every_turn_however_long_others_make_it() -> None:
    hall = Hall(budget=10)

    async def others() -> None:
        while True:
            hall.time += 100
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(others)
        await run(hall, *((name, 1, 3) for name in range(10)))
        nursery.cancel_scope.cancel()
    assert len(hall.entered) == 30


async def test_the_line_is_first_come_first_served() -> None:
    hall = Hall(budget=10)
    await run(hall, *((name, 20, 5) for name in range(8)))
    names = [name for _, name in hall.entered]
    # Between two works of one each other has one; the order within a turn is dice, so some have more.
    for name in range(8):
        places = [place for place, other in enumerate(names) if other == name]
        assert all(later - earlier <= 24 for earlier, later in pairwise(places))


@pytest.mark.parametrize("patience", range(1, 12))
async def test_who_gives_up_blocks_nobody(patience: int) -> None:
    # Whatever state those are in who are cancelled: in line, let go, or sent back.
    hall = Hall(budget=10)
    with hall.turns.followed(), trio.fail_after(50):
        async with trio.open_nursery() as nursery:
            impatient = [trio.CancelScope() for _ in range(20)]

            async def try_to_work(scope: trio.CancelScope, name: int) -> None:
                with scope:
                    await hall.work(name, 4, 3)

            for name, scope in enumerate(impatient):
                nursery.start_soon(try_to_work, scope, name)
            nursery.start_soon(hall.work, 100, 4, 3)
            nursery.start_soon(hall.work, 101, 4, 3)
            for _ in range(patience):
                await trio.lowlevel.checkpoint()
            for scope in impatient[::2]:
                scope.cancel()
            await trio.lowlevel.checkpoint()
            for scope in impatient[1::2]:
                scope.cancel()
    assert Counter(name for _, name in hall.entered if name >= 100) == {100: 3, 101: 3}
    hall.entered.clear()
    await run(hall, *((name, 4, 2) for name in range(10)))
    assert len(hall.entered) == 20


async def test_afterwards_nobody_waits() -> None:
    hall = Hall()
    await run(hall, (0, 100, 1))
    hall.time += 1000
    for _ in range(3):
        await hall.turns.enter()
    assert not hall.turns.over

"""Virtual time stands still while threads work."""

from __future__ import annotations

import threading
import time

import pytest
import trio
from trio.testing import MockClock

from orbtrio.testing import wait_until_idle
from orbtrio.testing.clock import seeded_schedule, steady_clock


@pytest.fixture
def autojump_clock() -> MockClock:
    """Trio's own, which our users have."""
    return MockClock(autojump_threshold=0)


async def test_no_time_passes_while_a_thread_works(autojump_clock: MockClock) -> None:
    with steady_clock(), trio.fail_after(1):
        start = trio.current_time()
        await trio.to_thread.run_sync(time.sleep, 0.05)
        assert trio.current_time() == start


async def test_time_passes_again_when_the_last_thread_is_done(autojump_clock: MockClock) -> None:
    with steady_clock():
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for seconds in (0.01, 0.05):
                nursery.start_soon(trio.to_thread.run_sync, time.sleep, seconds)
        await trio.sleep(1000)
        assert trio.current_time() - start == 1000


async def test_time_does_not_wait_for_a_thread_that_nobody_waits_for(autojump_clock: MockClock) -> None:
    release = threading.Event()
    with steady_clock():
        start = trio.current_time()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: trio.to_thread.run_sync(release.wait, abandon_on_cancel=True))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        await trio.sleep(1000)
        assert trio.current_time() - start == 1000
    release.set()


async def test_watches_may_overlap_and_leave_the_clock_as_it_was(autojump_clock: MockClock) -> None:
    first, second = steady_clock(), steady_clock()
    async with trio.open_nursery() as nursery:
        first.__enter__()
        nursery.start_soon(trio.to_thread.run_sync, time.sleep, 0.02)
        await trio.testing.wait_all_tasks_blocked()
        second.__enter__()
        first.__exit__(None, None, None)
        assert autojump_clock.autojump_threshold > 0
        second.__exit__(None, None, None)
        assert autojump_clock.autojump_threshold == 0


async def test_real_clock_is_left_alone() -> None:
    with steady_clock():
        await trio.to_thread.run_sync(time.sleep, 0.001)


async def test_idle_means_that_threads_have_ended_too(autojump_clock: MockClock) -> None:
    ended = []

    async def work() -> None:
        for seconds in (0.01, 0.02):
            await trio.to_thread.run_sync(time.sleep, seconds)
        ended.append(True)
        await trio.sleep(1000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await wait_until_idle()
        assert ended == [True]
        assert trio.current_time() == pytest.approx(0)
        nursery.cancel_scope.cancel()


def order_of_tasks(seed: int) -> list[int]:
    order: list[int] = []

    async def step(number: int) -> None:
        await trio.lowlevel.checkpoint()
        order.append(number)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(step, number)

    with seeded_schedule(seed):
        trio.run(main)
    return order


def test_the_seed_decides_the_order_of_tasks() -> None:
    assert order_of_tasks(1) == order_of_tasks(1) != order_of_tasks(2)

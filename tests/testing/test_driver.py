"""A Trio program goes on only when the test says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from orbtrio.testing.driver import Driver

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def driver() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    driver.close()


def test_a_call_returns_when_all_that_it_caused_has_happened(driver: Driver) -> None:
    seen: list[str] = []

    async def cause(nursery: trio.Nursery) -> str:
        nursery.start_soon(note)
        return "done"

    async def note() -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        seen.append("noted")

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nurseries.append(nursery)
            await trio.sleep_forever()

    nurseries: list[trio.Nursery] = []
    driver.start(run)
    assert driver.call(cause, nurseries[0]) == "done"
    assert seen == ["noted"]


def test_a_call_raises_what_the_function_raised(driver: Driver) -> None:
    async def fail() -> None:
        raise KeyError("no such thing")

    with pytest.raises(KeyError):
        driver.call(fail)


def test_time_passes_from_deadline_to_deadline(driver: Driver) -> None:
    woken: list[float] = []

    async def sleep() -> None:
        for _ in range(3):
            await trio.sleep(2)
            woken.append(trio.current_time())

    driver.start(sleep)
    driver.step(10)
    assert driver.now() == 2
    driver.step(0.5)
    assert driver.now() == 2.5
    driver.advance(10)
    assert (driver.now(), woken) == (12.5, [2, 4, 6])


def test_what_a_started_task_raises_is_raised_at_the_latest_at_the_end() -> None:
    async def fail() -> None:
        await trio.sleep(1)
        raise KeyError("late")

    driver = Driver()
    driver.start(fail)
    with pytest.raises(ExceptionGroup) as caught:
        driver.advance(2)
    assert caught.group_contains(KeyError)
    driver.close()

"""Whoever polls looks again until a span without work is over, and then sleeps; time goes on as ever."""

from __future__ import annotations

import math
from itertools import count
from typing import Any

import pytest
import trio

import orbtrio
from orbtrio import _polling
from orbtrio._polling import _PollingClock, busy_polling

SPAN = 0.25


class Time:
    """A processor's time, which stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def clock(time: Time) -> _PollingClock:
    return _PollingClock(SPAN, time)


@pytest.fixture
def yields(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    seen: list[None] = []
    monkeypatch.setattr(_polling, "_YIELD", lambda: seen.append(None))
    return seen


def work(clock: _PollingClock) -> None:
    task: Any = None
    clock.before_task_step(task)


def test_after_work_it_looks_again_until_the_span_is_over(
    time: Time, clock: _PollingClock, yields: list[None]
) -> None:
    deadline = clock.current_time() + 10
    work(clock)
    assert clock.deadline_to_sleep_time(deadline) == 0
    time.now += SPAN - 0.01
    assert clock.deadline_to_sleep_time(deadline) == 0
    assert len(yields) == 2  # whoever else could run has run before each look
    time.now += 0.02
    assert clock.deadline_to_sleep_time(deadline) == pytest.approx(10 - SPAN - 0.01)
    assert len(yields) == 2


def test_work_begins_the_span_anew(time: Time, clock: _PollingClock) -> None:
    for _ in range(3):
        work(clock)
        assert clock.deadline_to_sleep_time(math.inf) == 0
        time.now += SPAN - 0.01
    assert clock.deadline_to_sleep_time(math.inf) == 0
    time.now += 0.02
    assert clock.deadline_to_sleep_time(math.inf) == math.inf


def test_without_work_it_sleeps_at_once(clock: _PollingClock) -> None:
    assert clock.deadline_to_sleep_time(clock.current_time() + 1) == pytest.approx(1)
    assert clock.deadline_to_sleep_time(clock.current_time() - 1) < 0  # Trio knows what to do with that


def test_two_loops_do_not_have_the_same_time(time: Time) -> None:
    assert _PollingClock(SPAN, time).current_time() != _PollingClock(SPAN, time).current_time()


def test_no_span_is_no_change() -> None:
    assert busy_polling(0) is None


class Waits(trio.abc.Instrument):
    """How long a loop was ready to sleep each time that it looked; it is woken when it sleeps."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._slept = trio.Event()

    async def wait(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        await self._slept.wait()

    def before_io_wait(self, timeout: float) -> None:
        self.seconds.append(timeout)
        if timeout:
            self._token.run_sync_soon(self._slept.set)


def test_a_run_polls_and_then_sleeps() -> None:
    steps = count(1000, 0.001)  # a look at the clock takes a millisecond
    waits = Waits()
    trio.run(waits.wait, clock=_PollingClock(SPAN, lambda: next(steps)), instruments=[waits])
    (sleep,) = [index for index, seconds in enumerate(waits.seconds) if seconds > 0]
    # Trio itself asks for the time once between two looks.
    assert sleep == pytest.approx(SPAN / 0.002, abs=5)


def test_with_a_span_that_does_not_end_it_never_sleeps() -> None:
    async def nap() -> float:
        began = trio.current_time()
        await trio.sleep(0.001)
        return trio.current_time() - began

    waits = Waits()
    assert 0.001 <= trio.run(nap, clock=orbtrio.busy_polling(1e6), instruments=[waits]) < 60
    assert set(waits.seconds) == {0}

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from orbtrio._waking import Signal, call_soon


async def test_a_signal_wakes_its_waiter_each_time() -> None:
    signal = Signal()
    for _ in range(2):
        signal.set()
        with trio.fail_after(50):
            await signal.wait()
    with trio.move_on_after(0) as scope:
        await signal.wait()
    assert scope.cancelled_caught


async def test_a_signal_is_for_one_waiter() -> None:
    signal = Signal()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(signal.wait)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="another task"):
            await signal.wait()
        signal.set()


def test_what_is_called_soon_is_called_in_trio_or_not_at_all() -> None:
    called: list[str] = []

    async def main() -> trio.lowlevel.TrioToken:
        token = trio.lowlevel.current_trio_token()
        call_soon(token, lambda: called.append("in time"))
        assert called == []
        with trio.fail_after(50):
            while not called:
                await trio.lowlevel.checkpoint()
        return token

    call_soon(trio.run(main), lambda: called.append("too late"))
    assert called == ["in time"]

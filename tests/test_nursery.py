"""What comes out of a nursery of services: the failure itself, whatever happened beside it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from orbtrio._nursery import open_service_nursery


async def fail(error: Exception) -> None:
    raise error


async def run_until_cancelled() -> None:
    async with open_service_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(trio.sleep_forever)
        await trio.sleep_forever()


async def fail_when_cancelled() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise KeyError


async def test_services_end_with_the_block() -> None:
    async with open_service_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)


async def test_error_of_the_block_comes_out_bare() -> None:
    async def run() -> None:
        async with open_service_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await fail(KeyError())

    with pytest.raises(KeyError):
        await run()


async def test_error_of_a_service_comes_out_bare() -> None:
    async def run() -> None:
        async with open_service_nursery() as nursery:
            nursery.start_soon(fail, KeyError())
            await trio.sleep_forever()

    with pytest.raises(KeyError):
        await run()


async def test_several_errors_stay_a_group() -> None:
    with pytest.RaisesGroup(KeyError, IndexError, flatten_subgroups=True):
        async with open_service_nursery() as nursery:
            nursery.start_soon(fail, KeyError())
            nursery.start_soon(fail, IndexError())
            await trio.sleep_forever()


async def test_cancellation_passes() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await run_until_cancelled()
    assert scope.cancelled_caught


async def test_failure_is_not_hidden_by_a_cancellation_from_outside() -> None:
    """Else a link that is lost just when its worker is told to stop would end the worker with a traceback."""
    caught = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            async with open_service_nursery() as nursery:
                nursery.start_soon(run_until_cancelled)
                await fail_when_cancelled()
        except KeyError as error:
            caught.append(error)
        await trio.lowlevel.checkpoint()
    assert len(caught) == 1
    assert scope.cancelled_caught

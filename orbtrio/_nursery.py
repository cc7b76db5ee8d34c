"""A nursery for background services behind an ``async with``.

`trio.open_nursery` wraps whatever leaves its block in an exception group, so that ``async with connect(...)``
would turn a user's own ``ValueError`` into an ``ExceptionGroup``. The services started here belong to us and
the block belongs to the user: an exception of the block comes out bare, one of a service comes out bare if it
is alone, and a group remains only where several things really failed at once.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["open_service_nursery"]


@asynccontextmanager
async def open_service_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery whose services are cancelled when the block ends.

    Raises:
        BaseException: what the block or a service raised; `BaseExceptionGroup` only for several at once.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        failure = _alone(group)
    # Raised outside the except clause: the group must not appear as the context of its own member.
    if failure is not None:
        raise failure


# What failed, without the cancellations that came along. They are not lost: whoever was cancelled hears it
# again at the next checkpoint. A group of both would slip through every ``except`` for the failure.
def _alone(group: BaseExceptionGroup) -> BaseException:
    _, failures = group.split(trio.Cancelled)
    error: BaseException = failures or group
    while isinstance(error, BaseExceptionGroup) and (not failures or len(error.exceptions) == 1):
        error = error.exceptions[0]
    return error

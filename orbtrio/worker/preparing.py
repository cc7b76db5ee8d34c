"""Decoding ahead: what must happen to a job before it can be computed happens while others compute.

A model that waits for pictures to be decoded is a model that does not compute. So `prepare` runs in threads
of its own, over every job of a batch as soon as that has arrived. A thread takes job after job, because a hop
to a thread costs more than many a preparation.

What `prepare` raises is its job's error; the handler never sees the job.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from orbtrio.errors import ConfigError

if TYPE_CHECKING:
    from orbtrio.worker.jobs import Batch, Job

__all__ = ["Prepare", "Preparer"]

# From a job's input to what its handler gets in place of it.
Prepare: TypeAlias = Callable[[dict[str, Any]], Any]

# Decoders of pictures let go of the interpreter's lock: two of them keep up with most models.
_FEWEST_THREADS: Final = 2


class Preparer:
    """Runs `prepare` over batch after batch.

    Args:
        prepare: Sync, and to be called in several threads at once.
        concurrency: Calls of the handler that may run at once.

    Raises:
        ConfigError: it is async.
    """

    def __init__(self, prepare: Prepare, *, concurrency: int) -> None:
        if inspect.iscoroutinefunction(prepare):
            raise ConfigError("prepare is an async function: make it a plain one, it runs in a thread")
        self._prepare = prepare
        self._limiter = trio.CapacityLimiter(max(_FEWEST_THREADS, concurrency))

    async def run(self, batch: Batch) -> None:
        """Prepare all jobs of `batch`, in any order. Cancelling waits for the calls that are running."""
        waiting = deque(batch.jobs.values())
        async with trio.open_nursery() as nursery:
            for _ in range(min(int(self._limiter.total_tokens), len(waiting))):
                nursery.start_soon(self._work, waiting)

    async def _work(self, waiting: deque[Job]) -> None:
        await trio.to_thread.run_sync(self._prepare_all, waiting, limiter=self._limiter)

    def _prepare_all(self, waiting: deque[Job]) -> None:
        # Whether any are left is for no thread to know: the other may take the last.
        with suppress(IndexError):
            while True:
                trio.from_thread.check_cancelled()
                self._prepare_one(waiting.popleft())

    def _prepare_one(self, job: Job) -> None:
        if job.cancelled or job.failure is not None:
            return
        try:
            job.input = self._prepare(job.input)
        except Exception as error:  # Foreign code, like the handler.
            job.failure = error

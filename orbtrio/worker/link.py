"""One connection of a worker, from its registration to its end.

    engine --> _read --> _Backlog --> _prepare_ahead --> _compute: the handler --> outbox --> engine
                                (if there is something to prepare)

A handler that takes one batch after the other gets them so. One that does several jobs side by side has
slots (`HandlerRunner.slots`): whatever batch a job came in, it begins when a slot is free and no older job
waits, and is answered when it is done. A slot that waited for the rest of its batch would be a slot less, for
as long as the longest of thirty-two chats. Batches are prepared side by side then, for with one job in each
nothing else could be, and still taken up in their order.

Reading never waits for computing, for whoever does not read answers no pings, hears of no cancelled job and
learns nothing of a lost connection. Memory has to end somewhere all the same: with `MAX_BACKLOG` waiting,
reading stops. An engine that knows `max_unanswered_batches` never gets there; one that does not ends up with
full TCP windows, or counts us as dead and gives the jobs to others.

Everything between registration and close belongs to one link: backlog, running batch, reports, answers. With
the link they end, because the engine has given its jobs to somebody else by then; an answer on the next link
would be a stranger's. All jobs of a lost link are cancelled, so that a handler that looks can stop.

Messages are decoded here without `protocol.Connection`. Its table ends a conversation at the first message
out of place, and rightly so for the engine, which talks to strangers. A worker has one engine, of any make
and version; if that says something odd, to hang up would cost it all jobs in hand and bring it nothing. So
what is odd is logged and skipped. The other way round it is strict: nothing is sent that the engine has not
announced it understands (P-60).
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from orbtrio._nursery import open_service_nursery
from orbtrio.errors import ConnectionLost, InvalidMessage
from orbtrio.protocol import codec
from orbtrio.protocol.messages import CancelJobs, JobBatch, WorkerDrain
from orbtrio.worker.handlers import one_line
from orbtrio.worker.jobs import Batch
from orbtrio.worker.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orbtrio.transport import Transport
    from orbtrio.worker.handlers import HandlerRunner
    from orbtrio.worker.inline import InlineFiles
    from orbtrio.worker.jobs import Job
    from orbtrio.worker.preparing import Preparer

__all__ = ["MAX_BACKLOG", "Link"]

logger = logging.getLogger("orbtrio.worker")

# Bytes of jobs that wait in memory; a job counts for its message's bytes and for the objects it becomes.
MAX_BACKLOG: Final = 64 * 1024 * 1024
_JOB_OVERHEAD: Final = 1024

# Batches that are prepared before their turn. Where they are prepared one by one, one of them lies in the
# channel and one waits to be put there. Decoded pictures are large.
_PREPARED_AHEAD: Final = 2

# Lines about odd messages that one link may write to the log; the rest goes to debug.
_MOST_COMPLAINTS: Final = 10


class Link:
    """A connection over which the worker has just registered.

    Args:
        transport: The connection.
        runner: Computes.
        preparer: Prepares, if there is anything to.
        files: Where to keep files that come with batches, if they may.
        extensions: Those that both ends know.
        drain_timeout: Seconds to wait for an engine that was asked to let us go.
    """

    def __init__(
        self,
        transport: Transport,
        runner: HandlerRunner,
        *,
        preparer: Preparer | None,
        files: InlineFiles | None,
        extensions: frozenset[str],
        drain_timeout: float,
    ) -> None:
        self._transport = transport
        self._runner = runner
        self._preparer = preparer
        self._files = files
        self._extensions = extensions
        self._drain_timeout = drain_timeout
        self._typed_arrays = "typed_arrays" in extensions
        self._outbox = Outbox(transport, typed_arrays=self._typed_arrays)
        self._report = self._outbox.report if "progress" in extensions else None
        self._backlog = _Backlog()
        # From their arrival until they are answered, and how many of their jobs are not.
        self._open: dict[Batch, int] = {}
        self._finishing = False
        # What is prepared for the slots, if there are any and there is anything to prepare.
        self._ahead: _Ahead | None = None
        # Around whatever may be left at once when it is time to finish; None while a batch is in hand.
        self._idle: trio.CancelScope | None = None

    async def serve(self, stop: trio.Event) -> None:
        """Take batches and answer them until asked to stop.

        An engine that knows of draining sends what is left elsewhere, gets all its answers, and closes. With
        any other the batches in hand are finished, and the rest is its business.

        Raises:
            ConnectionLost: the connection ended; with code 1000 after draining.
            RemoteProtocolError: the engine broke the rules of WebSocket.
        """
        try:
            async with open_service_nursery() as nursery:
                nursery.start_soon(self._read)
                nursery.start_soon(self._watch_stop, stop)
                slots = self._runner.slots
                if self._preparer is None and self._files is None:
                    take = self._backlog.take
                elif slots > 1:
                    self._ahead = _Ahead(self._backlog, self._prepare, slots)
                    nursery.start_soon(self._ahead.run)
                    take = self._ahead.take
                else:
                    put, prepared = trio.open_memory_channel[Batch](_PREPARED_AHEAD - 1)
                    nursery.start_soon(self._prepare_ahead, put)
                    take = prepared.receive
                if slots > 1:
                    await self._fill_slots(take, slots)
                else:
                    await self._compute(take)
                with suppress(ConnectionLost):
                    await self._transport.wait_sent()
        finally:
            if self._files is not None:
                for batch in self._open:
                    await self._files.delete(batch)

    async def _watch_stop(self, stop: trio.Event) -> None:
        await stop.wait()
        if "drain" in self._extensions:
            logger.info("asking the engine to send its jobs elsewhere")
            self._transport.send(codec.encode(WorkerDrain()))
            await trio.sleep(self._drain_timeout)
            logger.warning("the engine has not let go of us within %g s", self._drain_timeout)
        self._finishing = True
        if self._idle is not None:
            self._idle.cancel()

    # --- In.

    async def _read(self) -> None:
        complaints = 0
        try:
            while True:
                await self._backlog.wait_room()
                for raw in await self._transport.receive():
                    problem = self._take_in(raw)
                    if problem:
                        complaints += 1
                        logger.log(logging.INFO if complaints <= _MOST_COMPLAINTS else logging.DEBUG, problem)
        finally:
            # It reads as long as there is a link.
            for batch in self._open:
                for job in batch.jobs.values():
                    job.cancelled = True

    # What is wrong with it; "" if nothing is.
    def _take_in(self, raw: bytes) -> str:
        try:
            message = codec.decode(raw, unwrap_typed_arrays=True, extensions=self._extensions)
        except InvalidMessage as error:
            return f"skipped a message: {one_line(error)}"
        if isinstance(message, CancelJobs):
            self._cancel(message.job_ids)
            return ""
        if not isinstance(message, JobBatch):
            return f"skipped a {type(message).__name__}, which is nothing for a worker"
        batch = Batch(message, size=len(raw), report=self._report, typed_arrays=self._typed_arrays)
        self._open[batch] = len(batch.jobs)
        self._backlog.put(batch)
        if message.malformed:
            return f"skipped {message.malformed} members of a batch that are no jobs"
        return ""

    # Ids that are not here have been answered: both messages were on their way.
    def _cancel(self, job_ids: list[str]) -> None:
        for batch in self._open:
            for job_id in job_ids:
                job = batch.jobs.get(job_id)
                if job is not None:
                    job.cancelled = True
        self._runner.cancel_unwanted()

    # --- Through.

    async def _prepare_ahead(self, put: trio.MemorySendChannel[Batch]) -> None:
        while True:
            batch = await self._backlog.take()
            await self._prepare(batch)
            await put.send(batch)

    async def _prepare(self, batch: Batch) -> None:
        if self._files is not None:
            await self._files.write(batch)
        if self._preparer is not None:
            await self._preparer.run(batch)

    # The next batch; None when it is time to finish.
    async def _next(self, take: Callable[[], Awaitable[Batch]]) -> Batch | None:
        if self._finishing:
            return None
        batch = None
        with trio.CancelScope() as self._idle:
            batch = await take()
        self._idle = None
        return batch

    async def _compute(self, take: Callable[[], Awaitable[Batch]]) -> None:
        while (batch := await self._next(take)) is not None:
            if batch.jobs:
                await self._runner.run(batch.jobs.values(), self._outbox.answer)
                await self._close(batch)
            else:
                await self._answer_nothing(batch)

    # A batch is taken when a slot is free and not before: what has not begun can still go elsewhere.
    async def _fill_slots(self, take: Callable[[], Awaitable[Batch]], count: int) -> None:
        slots = trio.Semaphore(count)
        async with trio.open_nursery() as nursery:
            await slots.acquire()
            while (batch := await self._next(take)) is not None:
                if not batch.jobs:
                    await self._answer_nothing(batch)
                for job in batch.jobs.values():
                    nursery.start_soon(self._compute_one, job, batch, slots)
                    await slots.acquire()

    async def _compute_one(self, job: Job, batch: Batch, slots: trio.Semaphore) -> None:
        await self._runner.run((job,), self._outbox.answer)
        self._open[batch] -= 1
        if not self._open[batch]:
            await self._close(batch)
        if self._ahead is not None:
            self._ahead.note_answer()
        slots.release()

    # The spec's example does the same, and whoever counts batches wants an answer to each.
    async def _answer_nothing(self, batch: Batch) -> None:
        await self._outbox.answer([])
        await self._close(batch)

    async def _close(self, batch: Batch) -> None:
        if self._files is not None:
            await self._files.delete(batch)
        del self._open[batch]


class _Ahead:
    """Prepares batches side by side and hands them out in their order, for a handler with slots.

    It takes batches in until every slot has a job or will have, and then two more: no others lie in memory.

    Args:
        backlog: Where they come from.
        prepare: What to do with one.
        slots: How many jobs run at once.
    """

    def __init__(self, backlog: _Backlog, prepare: Callable[[Batch], Awaitable[None]], slots: int) -> None:
        self._backlog = backlog
        self._prepare = prepare
        self._slots = slots
        # Batches that nobody has taken yet, and whether they are prepared.
        self._batches: deque[tuple[Batch, trio.Event]] = deque()
        self._jobs_unanswered = 0
        self._arrived = trio.lowlevel.ParkingLot()
        self._changed = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        """Prepare until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                while len(self._batches) >= self._most:
                    await self._changed.park()
                batch = await self._backlog.take()
                self._jobs_unanswered += len(batch.jobs)
                ready = trio.Event()
                self._batches.append((batch, ready))
                self._arrived.unpark()
                nursery.start_soon(self._prepare_one, batch, ready)

    @property
    def _most(self) -> int:
        return _PREPARED_AHEAD if self._jobs_unanswered >= self._slots else self._slots

    async def _prepare_one(self, batch: Batch, ready: trio.Event) -> None:
        await self._prepare(batch)
        ready.set()

    async def take(self) -> Batch:
        """The oldest batch, once it is prepared. For one task."""
        while not self._batches:
            await self._arrived.park()
        await self._batches[0][1].wait()
        batch, _ = self._batches.popleft()
        self._changed.unpark()
        return batch

    def note_answer(self) -> None:
        """One of the jobs of batches that were taken is done."""
        self._jobs_unanswered -= 1
        self._changed.unpark()


class _Backlog:
    """Batches that wait to be computed. A memory channel counts what it holds; this weighs it."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._weight = 0
        self._arrived = trio.lowlevel.ParkingLot()
        self._taken = trio.lowlevel.ParkingLot()

    def put(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._weight += _weight(batch)
        self._arrived.unpark()

    async def take(self) -> Batch:
        while not self._batches:
            await self._arrived.park()
        batch = self._batches.popleft()
        self._weight -= _weight(batch)
        self._taken.unpark()
        return batch

    async def wait_room(self) -> None:
        if self._weight > MAX_BACKLOG:
            logger.warning(
                "%d batches wait in memory: not reading more before some are done", len(self._batches)
            )
        while self._weight > MAX_BACKLOG:
            await self._taken.park()


def _weight(batch: Batch) -> int:
    return batch.size + _JOB_OVERHEAD * (1 + len(batch.jobs))

"""Keeps a worker connected: registers, reads batches while it computes, answers, reconnects.

    engine --> _read --> _Backlog --> _compute, which calls the handler --> answers --> engine

Reading never waits for computing, for whoever does not read answers no pings and learns nothing of a lost
connection. Memory has to end somewhere all the same: with `MAX_BACKLOG` waiting, reading stops. An engine
that knows `max_unanswered_batches` never gets there; one that does not ends up with full TCP windows, or
counts us as dead and gives the jobs to others.

Everything between registration and close belongs to one link: backlog, running batch, answers. With the link
they end, because the engine has given its jobs to somebody else by then; an answer on the next link would be
a stranger's.

Messages are decoded here without `protocol.Connection`. Its table ends a conversation at the first message
out of place, and rightly so for the engine, which talks to strangers. A worker has one engine, of any make
and version; if that says something odd, to hang up would cost it all jobs in hand and bring it nothing. So
what is odd is logged and skipped.

Spec: "Connection Management", "Worker Implementation".
"""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from orbtrio._nursery import open_service_nursery
from orbtrio.errors import ConnectionLost, InvalidMessage, RemoteProtocolError
from orbtrio.protocol import codec
from orbtrio.protocol.messages import JobBatch, RegisterWorker, WorkerOutput
from orbtrio.transport import TransportLimits, open_client_transport
from orbtrio.worker.handlers import HandlerRunner, one_line

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from orbtrio.transport import Transport
    from orbtrio.worker.handlers import BatchHandler, Entry, Handler
    from orbtrio.worker.settings import WorkerSettings

__all__ = ["MAX_BACKLOG", "MAX_MESSAGE_BYTES", "run_worker"]

logger = logging.getLogger("orbtrio.worker")

# What we say we accept, and do. The engine then need not split batches of large inputs.
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024

# One batch to compute and one to have at hand when it is done. More would only keep jobs from idler workers.
_UNANSWERED_BATCHES: Final = 2

# Bytes of jobs that wait in memory; a job counts for its message's bytes and for the objects it becomes.
MAX_BACKLOG: Final = 64 * 1024 * 1024
_JOB_OVERHEAD: Final = 1024

# Results travel in messages of this size, larger ones alone. An engine bounds what decoding a message may
# cost; in 64 KiB even the costliest CBOR stays below it. The spec's own limit of trouble, 1 MiB in stock
# libraries, is far away.
_OUTPUT_BYTES: Final = 64 * 1024

# Unsent bytes beyond which computing waits for an engine that does not read.
_MOST_UNSENT: Final = 4 * 1024 * 1024

# Waits between attempts, in seconds. The first is short for an engine that restarts in a blink; a refusal
# does not heal so fast.
_FIRST_WAIT: Final = 0.1
_FIRST_WAIT_AFTER_REFUSAL: Final = 2.0
_LONGEST_WAIT: Final = 60.0

# A link that lived this long shows that all is well in principle: the next attempt starts from the shortest
# wait again.
_LIVED_LONG: Final = 30.0

# A link closed with 1008 before this age was refused; later ones broke some other rule.
_REGISTRATION_TIME: Final = 15.0

# Lines about odd messages that one link may write to the log; the rest goes to debug.
_MOST_COMPLAINTS: Final = 10


async def run_worker(
    handler: Handler | BatchHandler,
    settings: WorkerSettings,
    *,
    batched: bool = False,
    concurrency: int = 1,
    stop: trio.Event | None = None,
    open_stream: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve jobs with `handler` until cancelled or stopped, through every restart of the engine.

    A sync handler runs in a thread, an async one in a task; pings are answered meanwhile. Its result is a
    dict of result fields, to which the job's id is added. What goes wrong becomes the ``error`` of the job
    concerned, never of its neighbours:

    - A ``ValueError`` is the handler's word to whoever sent the job: its text is the answer. Any other
      exception is answered with its class and text in one line, and logged with its traceback. A field
      ``error`` may also be returned like any other.
    - If a batched handler raises, it is called again with each of the jobs alone. An exception in a result's
      place of the list it returns is that job's error and saves the second call.
    - A result that is no dict, cannot be encoded, or exceeds 16 MiB is an error; so are all of a batch if
      their number is wrong.

    Lost links are opened again after 0.05 to 60 s, longer each time; the waits start over after a link of
    half a minute. A refused registration (1008) is logged as an error with the engine's reason and retried
    more slowly, from 1 s upwards: secrets and allow-lists are changed while workers run, and a fleet that has
    exited does not come back by itself. What a lost link had in hand is dropped, for the engine gives it to
    another worker.

    Args:
        handler: Takes the ``input`` of one job, a dict with references already replaced by paths. With
            `batched`: takes a list of inputs, `settings.max_batch_size` at most, and returns as many results
            in the same order. The files belong to the engine.
        settings: Whom to serve, and as what.
        batched: The handler takes lists.
        concurrency: Calls of the handler that may run at once, in as many threads or tasks. Above 1 the order
            of jobs is lost.
        stop: Set it to end well: the batch in hand is finished and answered, the link closed with 1000.
        open_stream: Called for each connection in place of opening a TCP connection.
        ssl_context: For ``wss``, in place of the system's trusted authorities.
        task_status: Started when the first registration is sent. That it is accepted shows only in that the
            link stays.

    Raises:
        ConfigError: `concurrency` is less than 1, or the server's URL is not one of a WebSocket.
        BaseException: what the handler raised that is no `Exception`.

    Cancelling waits for running calls of a sync handler, for threads cannot be stopped. Spec: "Worker
    Implementation".
    """
    runner = HandlerRunner(
        handler, batched=batched, concurrency=concurrency, max_batch_size=settings.max_batch_size
    )
    connect = partial(
        open_client_transport,
        settings.server_url,
        open_stream=open_stream,
        limits=TransportLimits(max_message_bytes=MAX_MESSAGE_BYTES),
        ssl_context=ssl_context,
    )
    worker = _Worker(runner, settings, connect, trio.Event() if stop is None else stop)
    async with open_service_nursery() as nursery:
        nursery.start_soon(worker.watch_stop)
        await worker.run(task_status)


class _Worker:
    """Link after link, until it is stopped."""

    def __init__(
        self,
        runner: HandlerRunner,
        settings: WorkerSettings,
        connect: Callable[[], AbstractAsyncContextManager[Transport]],
        stop: trio.Event,
    ) -> None:
        self._runner = runner
        self._settings = settings
        self._connect = connect
        self._stop = stop
        # Around whatever may be left at once when asked to stop; None while a batch is in hand.
        self._idle: trio.CancelScope | None = None

    async def watch_stop(self) -> None:
        await self._stop.wait()
        if self._idle is not None:
            self._idle.cancel()

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        settings = self._settings
        registration = codec.encode(
            RegisterWorker(
                worker_type=settings.worker_type,
                worker_secret=settings.worker_secret,
                max_batch_size=settings.max_batch_size,
                max_latency=settings.max_latency,
                eager=True,
                max_unanswered_batches=_UNANSWERED_BATCHES,
                max_message_bytes=MAX_MESSAGE_BYTES,
            )
        )
        waits = _Waits()
        announced = False
        while not self._stop.is_set():
            opened = math.inf
            try:
                with trio.CancelScope() as self._idle:
                    async with self._connect() as transport:
                        transport.send(registration)
                        opened = trio.current_time()
                        logger.info(
                            "connected to %s, registered as %s", settings.server_url, settings.worker_type
                        )
                        if not announced:
                            task_status.started()
                            announced = True
                        await self._serve(transport)
            except (ConnectionLost, RemoteProtocolError) as loss:
                lived = trio.current_time() - opened
                refused = _is_refusal(loss, lived)
                wait = waits.next(lived=lived, refused=refused)
                self._log_loss(loss, refused, wait)
                with trio.move_on_after(wait) as self._idle:
                    await self._stop.wait()

    def _log_loss(self, loss: Exception, refused: bool, wait: float) -> None:
        settings = self._settings
        if refused:
            logger.error(
                "%s refused the registration: %s; check that WORKER_SECRET is the engine's and that its"
                " WORKER_TYPES include %r; next attempt in %.1f s",
                *(settings.server_url, one_line(loss), settings.worker_type, wait),
            )
        else:
            logger.warning(
                "no link to %s: %s; next attempt in %.1f s", settings.server_url, one_line(loss), wait
            )

    # One link: reads in the background, computes here. Returns when stopped; a lost link is for the reader to
    # find and to raise.
    async def _serve(self, transport: Transport) -> None:
        backlog = _Backlog()
        answer = partial(_answer, transport)
        async with open_service_nursery() as nursery:
            nursery.start_soon(_read, transport, backlog)
            while not self._stop.is_set():
                batch = None
                with trio.CancelScope() as self._idle:
                    batch = await backlog.take()
                self._idle = None
                if batch is None:
                    break
                if batch.jobs:
                    await self._runner.run(batch.jobs, answer)
                else:
                    # The spec's example does the same, and whoever counts batches wants an answer to each.
                    await answer([])
            with suppress(ConnectionLost):
                await transport.wait_sent()


# The engine never says that it accepts a registration, only that it does not, within ten seconds.
def _is_refusal(loss: Exception, lived: float) -> bool:
    return isinstance(loss, ConnectionLost) and loss.code == 1008 and lived < _REGISTRATION_TIME


class _Waits:
    """How long to wait before the next attempt: longer each time, at random, lest a fleet return as one."""

    def __init__(self) -> None:
        self._ceiling = 0.0

    def next(self, *, lived: float, refused: bool) -> float:
        """The next wait after a link that lived for so many seconds, or did not come about (negative)."""
        if lived >= _LIVED_LONG:
            self._ceiling = 0.0
        first = _FIRST_WAIT_AFTER_REFUSAL if refused else _FIRST_WAIT
        self._ceiling = min(max(2 * self._ceiling, first), _LONGEST_WAIT)
        return random.uniform(self._ceiling / 2, self._ceiling)


# --- One link ---------------------------------------------------------------------------------------------


class _Backlog:
    """Batches that wait to be computed. A memory channel counts what it holds; this weighs it."""

    def __init__(self) -> None:
        self._batches: deque[tuple[JobBatch, int]] = deque()
        self._weight = 0
        self._arrived = trio.lowlevel.ParkingLot()
        self._taken = trio.lowlevel.ParkingLot()

    def put(self, batch: JobBatch, size: int) -> None:
        weight = size + _JOB_OVERHEAD * (1 + len(batch.jobs))
        self._batches.append((batch, weight))
        self._weight += weight
        self._arrived.unpark()

    async def take(self) -> JobBatch:
        while not self._batches:
            await self._arrived.park()
        batch, weight = self._batches.popleft()
        self._weight -= weight
        self._taken.unpark()
        return batch

    async def wait_room(self) -> None:
        if self._weight > MAX_BACKLOG:
            logger.warning(
                "%d batches wait in memory: not reading more before some are done", len(self._batches)
            )
        while self._weight > MAX_BACKLOG:
            await self._taken.park()


async def _read(transport: Transport, backlog: _Backlog) -> None:
    complaints = 0
    while True:
        await backlog.wait_room()
        for raw in await transport.receive():
            problem = ""
            try:
                message = codec.decode(raw, unwrap_typed_arrays=True)
            except InvalidMessage as error:
                problem = f"skipped a message: {one_line(error)}"
            else:
                if isinstance(message, JobBatch):
                    backlog.put(message, len(raw))
                    if message.malformed:
                        problem = f"skipped {message.malformed} members of a batch that are no jobs"
                else:
                    problem = f"skipped a {type(message).__name__}, which is nothing for a worker"
            if problem:
                complaints += 1
                logger.log(logging.INFO if complaints <= _MOST_COMPLAINTS else logging.DEBUG, problem)


# A lost link is the reader's to report; until it does, what is sent here goes nowhere.
async def _answer(transport: Transport, entries: list[Entry]) -> None:
    for message in _messages(entries):
        transport.send(codec.encode(message))
        with suppress(ConnectionLost):
            await transport.wait_sent(_MOST_UNSENT)


def _messages(entries: list[Entry]) -> Iterator[WorkerOutput]:
    part: list[Entry] = []
    size = 0
    for entry in entries:
        if part and size + len(entry[1]) > _OUTPUT_BYTES:
            yield WorkerOutput(part)
            part, size = [], 0
        part.append(entry)
        size += len(entry[1])
    yield WorkerOutput(part)

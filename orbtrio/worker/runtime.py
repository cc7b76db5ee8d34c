"""Keeps a worker connected: one link after the other, and what happens in between.

What happens on a link is `link`'s business. Here is what outlives it: the handler, the threads, the directory
for files, the waits between attempts, and the wish to stop; and what the worker asks for when it registers.

Batches are for handlers that take them, or one job after the other. For one that does `slots` jobs side by
side they are a nuisance: an engine holds a job back until its batch is full or the latency over, thirty
seconds by default, beside slots that are free, and counts as one what begins and ends at different times. So
unless MAX_BATCH_SIZE is given, such a worker asks for batches of one job, which are always full, and as many
of them as it has slots, plus one to have at hand. Any engine then sends a job at once; ours keeps the others,
which can still go to other workers. It costs a message for each job, 0.1 ms at the worker's end: nothing for
a text, or for a call of somebody's API. Rejected: batches of a few with a short latency, which still wait,
and of which two that are half full use up the credit beside free slots.

Spec: "Connection Management", "Worker Implementation".
"""

from __future__ import annotations

import logging
import math
import random
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from orbtrio._nursery import open_service_nursery
from orbtrio.errors import ConnectionLost, RemoteProtocolError
from orbtrio.protocol import codec
from orbtrio.protocol.messages import RegisterWorker
from orbtrio.transport import TransportLimits, open_client_transport
from orbtrio.worker.handlers import HandlerRunner, one_line
from orbtrio.worker.inline import open_inline_files
from orbtrio.worker.link import Link
from orbtrio.worker.preparing import Preparer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from orbtrio.transport import Transport
    from orbtrio.worker.handlers import BatchHandler, Handler
    from orbtrio.worker.preparing import Prepare
    from orbtrio.worker.settings import WorkerSettings

__all__ = ["MAX_MESSAGE_BYTES", "run_worker"]

logger = logging.getLogger("orbtrio.worker")

# What we say we accept, and do. The engine then need not split batches of large inputs.
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024

# Most jobs of a batch, where nobody says so: the spec's.
_BATCH_SIZE: Final = 32

# What every worker of ours asks for. Messages of these go only to an engine that has announced them.
_EXTENSIONS: Final = frozenset({"cancel", "drain", "progress", "typed_arrays"})

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


async def run_worker(
    handler: Handler | BatchHandler,
    settings: WorkerSettings,
    *,
    batched: bool = False,
    concurrency: int = 1,
    batches_at_hand: int = 1,
    prepare: Prepare | None = None,
    with_jobs: bool = False,
    stop: trio.Event | None = None,
    drain_timeout: float = 30.0,
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

    Vectors may stand anywhere in a result, and in what a job reports, as they are: numpy arrays,
    `array.array` and whatever else lends its memory, of float32 or float64. To an engine that knows
    ``typed_arrays`` they go as they lie in memory, so that ``{"embedding": vectors[0]}`` costs next to
    nothing beside ``vectors[0].tolist()``; to any other as lists of floats. Of several dimensions, they are
    lists of their rows. Arrays of other numbers are an error of the job: convert them.

    With `concurrency` above 1 and not `batched`, jobs run side by side: each begins as soon as one of so many
    slots is free, in order of arrival, and is answered as soon as it is done, whatever came with it. For this
    the worker registers batches of one job, and takes one job more than there are slots; our engine keeps the
    rest. If MAX_BATCH_SIZE is given it asks for batches of that size instead, and whenever one is unanswered
    the engine lets others fill for MAX_LATENCY_MS, free slots or not. Beginning and answering a job by itself
    takes about 0.15 ms: handlers that are quicker should take lists, or one job after the other.

    Decoding and checking of inputs belongs into `prepare`: it runs in threads, over each job of a batch as
    soon as that has arrived, while earlier batches compute. What it returns takes the input's place; what it
    raises is the job's error, and the handler never sees the job.

    A handler that takes long asks for jobs (`with_jobs`), and gets a `Job` where it would get an input. It
    tells of its progress with ``job.report``, which raises `JobCancelled` once nobody waits for the job any
    more: the client took it back, its time is over, or the link is gone. So a loop that reports stops by
    itself; one that does not calls ``job.check_cancelled()``, or, with many jobs in one call, looks at
    ``job.cancelled`` and returns anything for those. A language model, for example::

        class Writer:
            def prepare(self, job_input):  # while the text before is written
                return tokens_of(job_input["prompt"])  # a ValueError is the answer

            def __call__(self, job):
                pieces = []
                for piece in model.generate(job.input, temperature=job.extra.get("temperature", 1.0)):
                    pieces.append(piece)
                    job.report(text=piece)  # raises JobCancelled, and the loop ends
                return {"text": "".join(pieces)}

        writer = Writer()
        await run_worker(writer, settings, with_jobs=True, prepare=writer.prepare)

    Reports reach the client in order and before the answer, if engine and client know of progress; else they
    go nowhere. In a thread they wait while the engine takes no more. A job that is computed a second time,
    because its batch failed, reports no more if it has reported before. An async handler is cancelled as a
    task of Trio's is, at its next await, once all jobs of the call are. Cancelled jobs that have not begun
    are skipped. A handler that notices nothing is left alone: its results are answered as ever.

    Lost links are opened again after 0.05 to 60 s, longer each time; the waits start over after a link of
    half a minute. A refused registration (1008) is logged as an error with the engine's reason and retried
    more slowly, from 1 s upwards: secrets and allow-lists are changed while workers run, and a fleet that has
    exited does not come back by itself. What a lost link had in hand is dropped, for the engine gives it to
    another worker.

    Args:
        handler: Takes the ``input`` of one job, a dict with references already replaced by paths. With
            `batched`: takes a list of inputs, `settings.max_batch_size` at most (32 if that is None), and
            returns as many results in the same order. The files belong to the engine and are gone after the
            answer.
        settings: Whom to serve, and as what.
        batched: The handler takes lists.
        concurrency: Calls of the handler that may run at once, in as many threads or tasks. Above 1 jobs
            begin in their order, but end in any.
        batches_at_hand: How many may wait here while one is computed. 0 for jobs that take minutes, of which
            the next could meanwhile be done by another worker; it costs a round trip to the engine for each.
        prepare: Takes the ``input`` of one job and returns what the handler gets. Called in up to
            `concurrency` threads at once, two at least, and for no more than two batches ahead of those that
            a call is free for; what it returned for those lies in memory.
        with_jobs: The handler takes jobs in place of inputs.
        stop: Set it to end well. An engine that knows of draining sends no more, gives what we have not begun
            to others, and closes when it has all answers. With any other, what is in hand is finished and
            answered, the batch or those that have begun, and the link closed with 1000.
        drain_timeout: Seconds to wait for the former before doing as with the latter.
        open_stream: Called for each connection in place of opening a TCP connection.
        ssl_context: For ``wss``, in place of the system's trusted authorities.
        task_status: Started when the first registration is sent. That it is accepted shows only in that the
            link stays.

    Raises:
        ConfigError: `concurrency` is less than 1, `prepare` is async, the server's URL is not one of a
            WebSocket, or there is no place for the files of ``ORB_INLINE_RESOURCES``.
        BaseException: what handler or `prepare` raised that is no `Exception`.

    Cancelling waits for running calls of sync functions, for threads cannot be stopped; their jobs are
    cancelled at once. Spec: "Worker Implementation".
    """
    runner = HandlerRunner(
        handler,
        batched=batched,
        with_jobs=with_jobs,
        concurrency=concurrency,
        max_batch_size=settings.max_batch_size or _BATCH_SIZE,
    )
    preparer = None if prepare is None else Preparer(prepare, concurrency=concurrency)
    connect = partial(
        open_client_transport,
        settings.server_url,
        open_stream=open_stream,
        limits=TransportLimits(max_message_bytes=MAX_MESSAGE_BYTES),
        ssl_context=ssl_context,
    )
    async with open_inline_files() if settings.inline_resources else nullcontext() as files:
        start_link = partial(Link, runner=runner, preparer=preparer, files=files, drain_timeout=drain_timeout)
        worker = _Worker(
            start_link,
            settings,
            connect,
            trio.Event() if stop is None else stop,
            slots=runner.slots,
            at_hand=batches_at_hand,
        )
        async with open_service_nursery() as nursery:
            nursery.start_soon(worker.watch_stop)
            await worker.run(task_status)


class _Worker:
    """Link after link, until it is stopped."""

    def __init__(
        self,
        start_link: Callable[..., Link],
        settings: WorkerSettings,
        connect: Callable[[], AbstractAsyncContextManager[Transport]],
        stop: trio.Event,
        *,
        slots: int,
        at_hand: int,
    ) -> None:
        self._start_link = start_link
        self._settings = settings
        self._connect = connect
        self._stop = stop
        self._slots = slots
        self._at_hand = at_hand
        self._extensions = _EXTENSIONS | ({"inline_resources"} if settings.inline_resources else set())
        # Around whatever may be left at once when asked to stop; a link sees to that itself.
        self._idle: trio.CancelScope | None = None

    async def watch_stop(self) -> None:
        await self._stop.wait()
        if self._idle is not None:
            self._idle.cancel()

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        settings = self._settings
        size = settings.max_batch_size or (_BATCH_SIZE if self._slots == 1 else 1)
        registration = codec.encode(
            RegisterWorker(
                worker_type=settings.worker_type,
                worker_secret=settings.worker_secret,
                max_batch_size=size,
                max_latency=settings.max_latency,
                eager=True,
                max_unanswered_batches=math.ceil(self._slots / size) + self._at_hand,
                max_message_bytes=MAX_MESSAGE_BYTES,
                extensions=self._extensions,
            )
        )
        waits = _Waits()
        started = False
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
                        if not started:
                            task_status.started()
                            started = True
                        self._idle = None
                        agreed = self._extensions & transport.announced
                        await self._start_link(transport, extensions=agreed).serve(self._stop)
            except (ConnectionLost, RemoteProtocolError) as loss:
                if self._stop.is_set():
                    logger.info("the link has ended: %s", one_line(loss))
                    return
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

"""From jobs to answers: calls a worker's handler so that every job gets exactly one entry, come what may.

A handler is foreign code. It may be sync or async, take one input or a list, raise, return too few results or
things that CBOR cannot carry. What to call next and what to make of the outcome is the same for all four
kinds, so it is written once, as generators that yield the jobs of each call and are sent its result, or
thrown its exception (`_one_by_one`, `_together`). Two drivers run them: `_drive` in a thread, `_drive_async`
in the event loop. Rejected: wrapping sync handlers as async ones, which costs a hop to a thread per job (100
us) where this costs one per batch.

Jobs that nobody waits for any more are answered without a call. A call that runs already is told: by the flag
of its jobs, which it may look at or not, and in the event loop by the cancel scope around it, once all of its
jobs are cancelled. However it ends then, it ends as any other: with a result, or with an exception.

Answers leave in rounds. A round ends when the batch is done or `_ROUND` has passed, so that a quick model
answers a batch in one message, while the first result of a slow one does not wait for the thirty-first: it
has a deadline, and a client.

Where jobs run side by side (`HandlerRunner.slots`), the link keeps the slots filled, whatever batch their
jobs came in, and calls `run` once for each job.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import trio

from orbtrio.errors import ConfigError, InvalidMessage
from orbtrio.protocol import codec
from orbtrio.worker.jobs import Job, JobCancelled
from orbtrio.worker.outbox import MAX_ENTRY_BYTES, Entry

__all__ = ["BatchHandler", "Handler", "HandlerRunner", "one_line"]

logger = logging.getLogger("orbtrio.worker")

# What a handler is given for each job: the input as it was sent, what `prepare` made of it, or a `Job`.
_Given: TypeAlias = Any
Result: TypeAlias = Mapping[str, Any]
Handler: TypeAlias = Callable[[_Given], Result] | Callable[[_Given], Awaitable[Result]]
BatchHandler: TypeAlias = (
    Callable[[list[_Given]], Sequence[Result | Exception]]
    | Callable[[list[_Given]], Awaitable[Sequence[Result | Exception]]]
)
Answer: TypeAlias = Callable[[list[Entry]], Awaitable[None]]
# Yields the jobs of each call, returns the entries of the round.
_Round: TypeAlias = Generator[list[Job], Any, list[Entry]]

# Seconds of work after which what is done is answered. Far above a round's cost, and nobody waits for less.
_ROUND: Final = 0.1

# Error texts are for people, who may find them in a list of a thousand. The whole of it is in the worker's
# log.
_MAX_ERROR_TEXT: Final = 500


class HandlerRunner:
    """Runs one handler over batch after batch.

    Args:
        handler: Sync or async. Takes one input and returns its result, or, if `batched`, takes a list of
            inputs and returns as many results, where an exception in a result's place is that job's error.
        batched: Which of the two it is.
        with_jobs: It takes jobs in place of inputs.
        concurrency: How many calls may run at once.
        max_batch_size: Most inputs of one call.

    Attributes:
        slots: How many jobs run side by side, each begun and answered by itself. 1 for a handler that has
            one call at a time, or takes whole batches: it wants one batch after the other.

    Raises:
        ConfigError: `concurrency` is less than 1.
    """

    def __init__(
        self,
        handler: Handler | BatchHandler,
        *,
        batched: bool,
        with_jobs: bool = False,
        concurrency: int,
        max_batch_size: int,
    ) -> None:
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency}: set it to 1 or more")
        self._call = _call_with(handler, batched=batched, with_jobs=with_jobs)
        self._is_async = _is_async(handler)
        self._round = partial(_together, max_batch_size) if batched else _one_by_one
        self._concurrency = concurrency
        self.slots = 1 if batched else concurrency
        # The calls that run in the event loop, each in a scope.
        self._calls: dict[trio.CancelScope, list[Job]] = {}
        # Not Trio's own limiter: the forty threads of somebody's other work must not keep a model waiting,
        # nor the reverse.
        self._threads = trio.CapacityLimiter(concurrency)

    async def run(self, jobs: Iterable[Job], answer: Answer) -> None:
        """Compute `jobs` in their order and pass the entries to `answer` as they get ready, one for each job.

        Cancelling this task waits for the calls of a sync handler that are running, since threads cannot be
        stopped, and skips the rest. Nothing is answered then.

        Raises:
            BaseException: only what is no `Exception`: those become errors of their jobs.
        """
        waiting = deque(jobs)
        if self._concurrency == 1 or len(waiting) == 1:
            await self._work(waiting, answer)
            return
        async with trio.open_nursery() as nursery:
            for _ in range(min(self._concurrency, len(waiting))):
                nursery.start_soon(self._work, waiting, answer)

    def cancel_unwanted(self) -> None:
        """End the calls of an async handler of which every job is cancelled; others have the jobs' flags."""
        for scope, jobs in self._calls.items():
            if all(job.cancelled for job in jobs):
                scope.cancel()

    async def _work(self, waiting: deque[Job], answer: Answer) -> None:
        while waiting:
            if self._is_async:
                entries = await _drive_async(self._round(waiting, trio.current_time), self._call, self._calls)
            else:
                entries = await trio.to_thread.run_sync(
                    _drive, self._round(waiting, time.monotonic), self._call, limiter=self._threads
                )
            # Threads end later than the link, with jobs cancelled for no other reason. The engine gives those
            # to other workers, if it is not told that they are cancelled.
            await trio.lowlevel.checkpoint_if_cancelled()
            if entries:
                await answer(entries)
            else:
                await trio.lowlevel.checkpoint()  # As it is between any two calls, see `_drive_async`.


def _is_async(handler: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(type(handler), "__call__", None)  # noqa: B004  (not whether it can be called, but how)
    )


# Turns the jobs of a call into the handler's argument. Lists are copied, for a handler may sort its own.
def _call_with(
    handler: Callable[[Any], Any], *, batched: bool, with_jobs: bool
) -> Callable[[list[Job]], Any]:
    if batched:
        return lambda jobs: handler(jobs[:] if with_jobs else [job.input for job in jobs])
    if with_jobs:
        return lambda jobs: handler(jobs[0])
    return lambda jobs: handler(jobs[0].input)


# --- What to call, and what to make of it -----------------------------------------------------------------


def _one_by_one(waiting: deque[Job], clock: Callable[[], float]) -> _Round:
    entries: list[Entry] = []
    until = clock() + _ROUND
    while (job := _next(waiting, entries)) is not None:
        try:
            result = yield [job]
        except Exception as error:  # The handler's, thrown in by the driver: the job's error.
            entries.append(_failed(job, error))
        else:
            entries.append(_answered(job, result))
        if clock() >= until:
            break
    return entries


def _together(most: int, waiting: deque[Job], clock: Callable[[], float]) -> _Round:
    entries: list[Entry] = []
    jobs: list[Job] = []
    while len(jobs) < most and (job := _next(waiting, entries)) is not None:
        jobs.append(job)
    if not jobs:
        return entries
    try:
        results = yield jobs
    except Exception as error:  # The handler's, as above.
        if len(jobs) == 1:
            return [*entries, _failed(jobs[0], error)]
        for job in jobs:
            job.start_over()
        if isinstance(error, JobCancelled) and any(job.cancelled for job in jobs):
            # Nobody's fault. The next round answers those that are cancelled and runs the others.
            waiting.extendleft(reversed(jobs))
            return entries
        # Whose fault it was is unknown, so each has a second chance, alone. One bad job costs its batch some
        # time and nothing else.
        logger.warning("the handler raised %s; its %d jobs run one by one", _describe(error), len(jobs))
    else:
        return entries + _matched(jobs, results)
    for job in jobs:
        entries += yield from _together(1, deque([job]), clock)
    return entries


# The next job to run. Those that are not to be run are answered on the way.
def _next(waiting: deque[Job], entries: list[Entry]) -> Job | None:
    try:
        while True:
            job = waiting.popleft()
            if not job.cancelled and job.failure is None:
                return job
            entries.append(_failed(job, job.failure or JobCancelled("cancelled")))
    except IndexError:
        # To ask whether any are left would be too early: other threads take from the same deque.
        return None


def _drive(steps: _Round, call: Callable[[list[Job]], Any]) -> list[Entry]:
    try:
        jobs = next(steps)
        while True:
            # Raises once the link is gone: nobody wants the rest.
            trio.from_thread.check_cancelled()
            try:
                result = call(jobs)
            except Exception as error:  # Foreign code: whatever it raises concerns its jobs only.
                jobs = steps.throw(error)
            else:
                jobs = steps.send(result)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


async def _drive_async(
    steps: _Round, call: Callable[[list[Job]], Awaitable[Any]], calls: dict[trio.CancelScope, list[Job]]
) -> list[Entry]:
    called = False
    try:
        jobs = next(steps)
        while True:
            # One for all calls up to the first that is cancelled: a scope of its own would make a quick call
            # half as expensive again.
            with trio.CancelScope() as scope:
                try:
                    while True:
                        calls[scope] = running = jobs
                        # A handler without an await of its own must not keep pings from being answered.
                        # Before the first call there was another round's answer, or a wait for jobs.
                        if called:
                            await trio.lowlevel.checkpoint()
                        called = True
                        try:
                            result = await call(running)
                        except Exception as error:  # Foreign code, as above.
                            jobs = steps.throw(error)
                        else:
                            jobs = steps.send(result)
                        if running[0].cancelled:
                            break  # So may be the scope.
                finally:
                    del calls[scope]
            if scope.cancelled_caught:
                jobs = steps.throw(JobCancelled("cancelled"))
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


# --- Entries ----------------------------------------------------------------------------------------------


def _matched(jobs: list[Job], results: Any) -> list[Entry]:
    if not isinstance(results, Sequence) or isinstance(results, (str, bytes)):
        problem = f"the handler returned {type(results).__name__}, not a list of results"
    elif len(results) != len(jobs):
        problem = f"the handler returned {len(results)} results for {len(jobs)} jobs"
    else:
        return [_answered(job, result) for job, result in zip(jobs, results, strict=True)]
    return [_refused(job, problem) for job in jobs]


def _answered(job: Job, result: Any) -> Entry:
    if isinstance(result, Exception):
        return _failed(job, result)
    if not isinstance(result, Mapping):
        return _refused(job, f"the handler returned {type(result).__name__}, not a dict")
    try:
        entry = codec.output_entry(job.job_id, result, typed_arrays=job.typed_arrays)
    except InvalidMessage as error:
        return _refused(job, f"the result {one_line(error).removeprefix('output: ')}")
    except Exception as error:  # A result is a foreign object too; encoding one calls its methods.
        return _refused(job, f"the result cannot be encoded: {_describe(error)}")
    if len(entry) > MAX_ENTRY_BYTES:
        return _refused(job, f"the result has {len(entry)} bytes, more than the {MAX_ENTRY_BYTES} that fit")
    return job.job_id, entry


# The input's fault, or the model's, or nobody's.
def _failed(job: Job, error: Exception) -> Entry:
    if isinstance(error, JobCancelled):
        logger.debug("job %r was cancelled", job.job_id)
        return _error(job, "cancelled")
    # `ValueError` itself is how a handler speaks to whoever sent the job. Anything else was not foreseen.
    if type(error) is ValueError and str(error):
        logger.info("job %r: %s", job.job_id, one_line(error))
        return _error(job, one_line(error))
    logger.error("job %r failed", job.job_id, exc_info=error)
    return _error(job, _describe(error))


# The handler's own fault: its author should hear of it.
def _refused(job: Job, problem: str) -> Entry:
    logger.error("job %r: %s", job.job_id, problem)
    return _error(job, problem)


def _error(job: Job, text: str) -> Entry:
    return job.job_id, codec.output_entry(job.job_id, {"error": text})


def _describe(error: BaseException) -> str:
    text = one_line(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def one_line(error: BaseException) -> str:
    """The text of `error` for a log or an answer: one line, 500 characters at most, always encodable."""
    try:
        text = str(error)
    except Exception:  # An exception is an object of the handler's as well, down to its __str__.
        text = "its text cannot be shown"
    # Lone surrogates, as in names of files that are not UTF-8, cannot be encoded.
    text = " ".join(text.encode(errors="replace").decode().split())
    return text if len(text) <= _MAX_ERROR_TEXT else f"{text[: _MAX_ERROR_TEXT - 1]}…"

"""Many jobs in, many results out: what stands behind `Client.submit_many`.

One task per call, the feeder, draws jobs from the user's iterable and hands them to the client; the results
wait in a queue for the consumer. There is no task, event or cancel scope per job.

A feeder is needed because nobody else could do its work: an asynchronous source may take an hour to give its
next job, while results are ready, and it cannot be interrupted and asked again later. It lives in the
client's nursery rather than in a nursery inside an async generator, where cancel scopes would stay open
across a ``yield``. So `JobResults` is a plain iterator, and the part that the feeder holds on to, `_Flow`, is
another object: a loop left by ``break`` lets go of the iterator, and the feeder must not keep it alive.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
import trio

from orbtrio._waking import Signal, call_soon
from orbtrio.errors import ConnectionLost, InvalidMessage

if TYPE_CHECKING:
    from types import TracebackType

    from orbtrio.client.outbox import Outbox
    from orbtrio.client.tickets import Ticket

__all__ = ["Job", "JobResult", "JobResults"]

# How long the feeder may draw jobs without letting others run, in seconds.
_TURN: Final = 0.002


@attrs.frozen(eq=False)
class Job:
    """One job for `Client.submit_many`.

    Attributes:
        worker_type: The queue that it is for, e.g. ``"embedding"``.
        input: What the worker gets; may hold `Image` and `Document` values.
        extra: Fields that travel beside the input.
        timeout: Seconds from when it is drawn from the source; None for the client's default.
        tag: Yours: comes back with the result, and is never sent.
    """

    worker_type: str
    input: Mapping[str, Any]
    extra: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)
    timeout: float | None = attrs.field(default=None, kw_only=True)
    tag: Any = attrs.field(default=None, kw_only=True)


@attrs.frozen(eq=False)
class JobResult:
    """What became of a job.

    Attributes:
        job: The job, as it was given.
        error: Why there is no output: whatever `Client.submit` would have raised. None if there is one.
    """

    job: Job
    error: Exception | None
    _output: dict[str, Any] | None = attrs.field(repr=False)

    @property
    def output(self) -> dict[str, Any]:
        """The worker's fields.

        Raises:
            Exception: `error`, if there is one.
        """
        if self._output is None:
            assert self.error is not None
            raise self.error
        return self._output


JobSource: TypeAlias = Iterable[Job] | AsyncIterable[Job]
# Client's half of `submit`: encode a job, take it into the outbox, tell the writer.
Enter: TypeAlias = Callable[[Job, "_Flow"], Awaitable["Ticket"]]
# Client's nursery for feeders: raises if the client has ended.
Start: TypeAlias = Callable[[Callable[[], Awaitable[None]]], None]


class JobResults:
    """The results of `Client.submit_many`, as they come. For one task at a time.

    Leaving the loop early forgets the jobs that have no result yet, and has the engine stop them if it can.
    That happens when the iterator is closed, by `aclose` or by ``async with``, or else when it is garbage.
    """

    _token: trio.lowlevel.TrioToken | None = None  # of Trio's thread, once the feeder runs in it

    def __init__(
        self,
        source: JobSource,
        enter: Enter,
        outbox: Outbox,
        start: Start,
        max_in_flight: int,
        max_in_flight_bytes: int,
    ) -> None:
        if max_in_flight < 1 or max_in_flight_bytes < 1:
            raise ValueError("max_in_flight and max_in_flight_bytes are at least 1")
        self._start = start
        self._flow = _Flow(source, enter, outbox, max_in_flight, max_in_flight_bytes)

    def __aiter__(self) -> JobResults:
        return self

    async def __anext__(self) -> JobResult:
        """The next result. Only waits, and only is a checkpoint, if none is ready.

        Raises:
            StopAsyncIteration: all have been handed over.
            ConnectionLost, RegistrationRefused: the client has ended, so there will be no more.
            Exception: the source's own, after the results of the jobs that it had given.
        """
        flow = self._flow
        if self._token is None and not flow.fed:
            self._start(flow.feed)
            self._token = trio.lowlevel.current_trio_token()
        while not flow.ready:
            if flow.over:
                failure, flow.failure = flow.failure, None
                raise failure or StopAsyncIteration
            await flow.arrived.wait()
        return flow.take()

    async def aclose(self) -> None:
        """Forget what has no result yet, and wait until the source has been let go."""
        self._flow.abandon()
        if self._token is not None:
            await self._flow.done.wait()

    async def __aenter__(self) -> JobResults:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # `async for` does not close its iterator when it is left by `break`, so this is how most of them end.
    def __del__(self) -> None:
        if self._token is not None and not self._flow.over:
            call_soon(self._token, self._flow.abandon)


class _Flow:
    """The owner of the jobs of one `submit_many`.

    Attributes:
        ready: Results that wait for the consumer, with the bytes that each job held.
        held: Jobs drawn from the source and not handed over yet.
        fed: Whether no more jobs will be drawn.
        failure: Why, if it is not that the source is exhausted.
        done: The feeder has let go of the source.
    """

    def __init__(
        self, source: JobSource, enter: Enter, outbox: Outbox, max_in_flight: int, max_in_flight_bytes: int
    ) -> None:
        self.ready: deque[tuple[JobResult, int]] = deque()
        self.held = 0
        self.arrived = Signal()
        self.fed = False
        self.failure: Exception | None = None
        self.done = trio.Event()
        self._source = source
        self._enter = enter
        self._outbox = outbox
        self._held_bytes = 0
        self._max_in_flight = max_in_flight
        self._max_bytes = max_in_flight_bytes
        self._room = Signal()
        self._scope = trio.CancelScope()

    @property
    def over(self) -> bool:
        """Whether all results there will ever be have been handed over."""
        return self.fed and not self.held

    def ended(self, ticket: Ticket) -> None:
        """A job has its outcome."""
        self._put(JobResult(ticket.tag, ticket.error, ticket.output), ticket.size)

    def reported(self, ticket: Ticket, piece: dict[str, Any], size: int) -> None:
        """Of many jobs, only the results count."""

    def take(self) -> JobResult:
        """Hand over the oldest result; the feeder may draw another job."""
        result, size = self.ready.popleft()
        self.held -= 1
        self._held_bytes -= size
        # Woken for every single place, the feeder would send every single job in a request of its own.
        if self.held <= self._max_in_flight - max(1, self._max_in_flight // 8):
            self._room.set()
        return result

    def abandon(self) -> None:
        """Nobody wants more results."""
        self._scope.cancel()
        self._forget()
        self.fed = True
        self.failure = None
        self.arrived.set()

    async def feed(self) -> None:
        """Draw jobs while there is room for them, until the source has no more."""
        try:
            with self._scope:
                await self._draw_all()
        # The user's iterable may raise anything. Its consumer must see it, the client itself must not care.
        except Exception as error:
            self.failure = error
        except trio.Cancelled:
            self.failure = ConnectionLost("the client was closed before all jobs were done")
            raise
        finally:
            if self._scope.cancel_called:
                # A job may have come in between `abandon` and the checkpoint that told this task of it.
                self._forget()
            self.fed = True
            self.arrived.set()
            self.done.set()

    async def _draw_all(self) -> None:
        if not isinstance(self._source, AsyncIterable):
            await self._draw(_Steps(iter(self._source)))
        elif isinstance(self._source, AsyncGenerator):
            # If it is not exhausted, nobody else will close it.
            async with aclosing(self._source):
                await self._draw(self._source)
        else:
            await self._draw(aiter(self._source))

    async def _draw(self, jobs: AsyncIterator[Job]) -> None:
        turn_ends = time.perf_counter() + _TURN
        async for job in jobs:
            if not isinstance(job, Job):
                raise TypeError(f"submit_many takes orbtrio.Job objects, not {type(job).__name__}")
            try:
                ticket = await self._enter(job, self)
            except (InvalidMessage, OSError, TypeError, ValueError) as error:
                # This job's mistake, not the source's: what cannot be encoded, a missing file.
                self._put(JobResult(job, error, None), 0)
            else:
                self._held_bytes += ticket.size
            self.held += 1
            while self.held >= self._max_in_flight or self._held_bytes >= self._max_bytes:
                await self._room.wait()
            # A source may be slow without ever waiting, for example when it decodes a video.
            if time.perf_counter() >= turn_ends:
                await trio.lowlevel.checkpoint()
                turn_ends = time.perf_counter() + _TURN

    def _forget(self) -> None:
        for ticket in self._outbox.owned_by(self):
            self._outbox.forget(ticket)
        self.ready.clear()
        self.held = 0

    def _put(self, result: JobResult, size: int) -> None:
        self.ready.append((result, size))
        self.arrived.set()


class _Steps:
    """A synchronous iterator as an asynchronous one. Not a generator, so that it may be dropped half way."""

    def __init__(self, jobs: Iterator[Job]) -> None:
        self._jobs = jobs

    def __aiter__(self) -> _Steps:
        return self

    async def __anext__(self) -> Job:
        for job in self._jobs:
            return job
        raise StopAsyncIteration

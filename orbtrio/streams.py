"""A job in pieces, as its reader sees it: what `Client.stream` and `Engine.stream` return.

The pieces wait in a queue until they are read. That queue belongs to the reader alone: to stop reading the
connection for its sake would stop everybody's answers, so what it may hold is bounded, and a reader that
falls too far behind loses its job. Rejected: to drop the oldest pieces or to merge them, for nobody but the
reader knows whether a text can do without a word, and it would not hear that one is missing.

A job may have to begin again: its worker was lost, or the connection was. Then its pieces come again, too,
from the first. What has not been read of the former ones is out of date and dropped; what has been read is
the reader's to forget, as `JobStream.attempt` tells.

A plain iterator rather than an asynchronous generator: one of those that is left by ``break`` is closed some
time later, in a task that nobody has chosen. Whoever has the job holds on to `Pieces`, the reader to a
`JobStream`, so that a stream let go of is garbage, and its job is cancelled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from orbtrio._waking import Signal, call_soon
from orbtrio.errors import JobRefused

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["JobStream", "Pieces"]

# Gives the job up; the result of `Start`.
Forget: TypeAlias = Callable[[], None]
# Submits the job, which then feeds these pieces.
Start: TypeAlias = Callable[["Pieces"], Awaitable[Forget]]


class JobStream:
    """The pieces of a job, as the worker reports them; made by `Client.stream` and
    `Engine.stream`. For one task at a time.

    Leaving it before its end cancels the job, and the worker is told to stop: when it is closed, by `aclose`
    or by ``async with``; when the task that waits for a piece is cancelled; or else when it is garbage.

    A slow reader costs memory up to the bounds of `Pieces`: those of `ClientLimits`, or 10,000 pieces and
    64 MiB in an engine's own process. Beyond, the job is cancelled, and when the pieces have been read,
    `JobRefused` of kind ``"slow_reader"`` is raised.

    Attributes:
        attempt: In which run of the job the last piece was made, from 1. When it has grown, the job was begun
            again, after its worker or the connection was lost: this piece is the first again, and the former
            ones do not count.
    """

    _token: trio.lowlevel.TrioToken | None = None  # of Trio's thread, once there is a job

    def __init__(self, start: Start, pieces: Pieces) -> None:
        self.attempt = 1
        self._start: Start | None = start  # until it has been called: it holds the input
        self._pieces = pieces

    def __repr__(self) -> str:
        pieces = self._pieces
        state = "over" if pieces.over else "not begun" if self._start else "under way"
        return f"<JobStream {state}, attempt {self.attempt}, {len(pieces.unread)} pieces unread>"

    @property
    def output(self) -> dict[str, Any]:
        """The worker's fields, once the job is done: the same that ``submit`` would have returned.

        Raises:
            Exception: why there is none: what the loop has raised.
            RuntimeError: there is none yet, or the stream was left before there was one.
        """
        pieces = self._pieces
        if pieces.error is not None:
            raise pieces.error
        if pieces.output is None:
            how = "was left, or never began" if pieces.over else "has not ended: read it to its end"
            raise RuntimeError(f"no output: the stream {how}")
        return pieces.output

    def __aiter__(self) -> JobStream:
        return self

    async def __anext__(self) -> dict[str, Any]:
        """The next piece. Only waits, and only is a checkpoint, if none is there.

        Raises:
            StopAsyncIteration: the job is done: see `output`. Or the stream was left.
            Exception: the job failed; what ``submit`` would have raised. Once, then the stream is over.
            trio.BusyResourceError: another task is waiting for a piece.
        """
        await self._begin()
        pieces = self._pieces
        while not pieces.unread:
            if pieces.over:
                self.attempt = max(self.attempt, pieces.runs)
                raise pieces.take_failure() or StopAsyncIteration
            try:
                await pieces.arrived.wait()
            except trio.Cancelled:
                pieces.leave()
                raise
        self.attempt = pieces.attempt
        return pieces.take()

    async def aclose(self) -> None:
        """Leave the stream: if the job is not done, it is cancelled. Never waits."""
        self._pieces.leave()

    async def __aenter__(self) -> JobStream:
        """Submit the job, if that has not been done; what is wrong with it is raised here."""
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # `async for` does not close its iterator when it is left by `break`, so this is how most of them end.
    def __del__(self) -> None:
        if self._token is not None and not self._pieces.over:
            call_soon(self._token, self._pieces.leave)

    async def _begin(self) -> None:
        start, self._start = self._start, None
        if start is None or self._pieces.over:
            return
        try:
            # Its files may have to be read. Cancelled meanwhile, nothing has been submitted.
            forget = await start(self._pieces)
        except BaseException:
            self._pieces.leave()
            raise
        self._token = trio.lowlevel.current_trio_token()
        self._pieces.begin(forget)


class Pieces:
    """What a worker has told of one job, between whoever has the job and the reader.

    Args:
        max_unread, max_bytes: What a reader may leave waiting.
        advice: What a slow reader may do about it.

    Attributes:
        unread: The pieces that wait for the reader, with their bytes.
        attempt: Which run of the job they are from.
        arrived: Set when there is something to see.
        over: Whether there will be no more pieces.
        output, error: What became of the job, once it has ended.
        runs: How often it was begun until then.
    """

    def __init__(self, max_unread: int = 10_000, max_bytes: int = 64 << 20, advice: str = "") -> None:
        self.unread: deque[tuple[dict[str, Any], int]] = deque()
        self.attempt = 1
        self.arrived = Signal()
        self.over = False
        self.output: dict[str, Any] | None = None
        self.error: Exception | None = None
        self.runs = 1
        self._max_unread = max_unread
        self._max_bytes = max_bytes
        self._advice = advice
        self._bytes = 0
        self._forget: Forget | None = None
        self._failure: Exception | None = None

    # --- Whoever has the job.

    def begin(self, forget: Forget) -> None:
        """The job is under way, until it ends or `forget` is called."""
        if self.over:
            # Left by another task, while the job's files were read.
            forget()
        else:
            self._forget = forget

    def end(self, output: dict[str, Any] | None, error: Exception | None, *, run: int) -> None:
        """The job has its outcome, one of the two, in this run."""
        self.output = output
        self.error = self._failure = error
        self.runs = run
        # It holds the input, too.
        self._forget = None
        self.over = True
        self.arrived.set()

    def report(self, piece: dict[str, Any], size: int, *, run: int) -> None:
        """The worker has told something, in this run."""
        if run != self.attempt:
            self.attempt = run
            self._drop_unread()
        unread = len(self.unread)
        if unread >= self._max_unread or (unread and self._bytes + size > self._max_bytes):
            self._give_up()
            text = f"{unread} pieces ({self._bytes} bytes) wait to be read, and another one has come"
            self.end(None, JobRefused("slow_reader", f"{text}: read faster{self._advice}"), run=run)
            return
        self.unread.append((piece, size))
        self._bytes += size
        self.arrived.set()

    # --- The reader.

    def take(self) -> dict[str, Any]:
        """Hand over the oldest piece."""
        piece, size = self.unread.popleft()
        self._bytes -= size
        return piece

    def take_failure(self) -> Exception | None:
        """Why the job failed, if it did and the reader has not been told."""
        failure, self._failure = self._failure, None
        return failure

    def leave(self) -> None:
        """Nobody reads any more."""
        self._give_up()
        self._drop_unread()
        self._failure = None
        self.over = True
        self.arrived.set()

    def _give_up(self) -> None:
        forget, self._forget = self._forget, None
        if forget is not None:
            forget()

    def _drop_unread(self) -> None:
        self.unread.clear()
        self._bytes = 0

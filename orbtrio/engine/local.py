"""Jobs submitted in process, without a socket: the other kind of requester. See `jobs.Requester`.

What a job holds on to (`_Caller`, `_Listener`) is another object than what the program does, so that a stream
which is let go of is garbage, and its job is cancelled.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import trio

from orbtrio import inputs
from orbtrio.errors import JobError, JobRefused, JobTimedOut
from orbtrio.protocol import codec
from orbtrio.protocol.messages import JobRequest, WorkerRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from types import TracebackType

    from orbtrio.engine.exchange import Exchange
    from orbtrio.engine.jobs import Job

__all__ = ["LocalStream", "submit"]

_TENANT: Final = "local"

# How far a reader may fall behind.
_MAX_UNREAD: Final = 10_000
_MAX_UNREAD_BYTES: Final = 64 << 20


class _Caller:
    # One awaiting `submit`.
    def __init__(self) -> None:
        self.open_jobs: dict[Hashable, Job] = {}
        self.extensions: frozenset[str] = frozenset()
        self.output: dict[str, Any] = {}
        self.done = trio.Event()

    def deliver(self, job: Job, output: bytes) -> None:
        self.output = codec.decode_item(output)
        self.done.set()

    def report(self, job: Job, entry: bytes) -> None: ...

    def refuse(self, client_job_id: Any, kind: str, text: str) -> None:
        self.output = {"error": text, "error_kind": kind}
        self.done.set()


async def submit(
    exchange: Exchange,
    worker_type: str,
    input: Mapping[str, Any],
    *,
    timeout: float | None,  # noqa: ASYNC109  not the caller's patience but the job's deadline
    extra: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Run one job; see `Engine.submit`."""
    request = await _request(worker_type, input, extra)
    caller = _Caller()
    try:
        with trio.move_on_after(math.inf if timeout is None else timeout):
            await exchange.accept(caller, _TENANT, request)
            await caller.done.wait()
    finally:
        exchange.abandon_all(caller)
        exchange.flush()
    if not caller.done.is_set():
        raise JobTimedOut(f"no answer within {timeout:g} s")
    return _result(caller.output)


async def _request(
    worker_type: str, input: Mapping[str, Any], extra: Mapping[str, Any] | None
) -> WorkerRequest:
    wire_input, resources = await inputs.attach(input)
    # What comes from the network was proved by its decoder.
    codec.encode_value([wire_input, extra or {}])
    used = tuple(resource.resource_id for resource in resources)
    job = JobRequest("", worker_type, wire_input, dict(extra) if extra else None, used)
    return WorkerRequest([job], [], resources)


def _result(output: dict[str, Any]) -> dict[str, Any]:
    output.pop("id", None)
    error = JobError.of(output)
    if error is not None:
        raise error
    return output


# --- Streams ------------------------------------------------------------------------------------------------


class LocalStream:
    """What a worker tells of a job, piece by piece; made by `Engine.stream`. For one task at a time.

    Leaving it before its end cancels the job: when it is closed, by `aclose` or by ``async with``; when the
    task that waits for a piece is cancelled; or else when it is garbage. A reader that leaves more than
    10,000 pieces or 64 MiB unread loses its job: `JobRefused` of kind ``"slow_reader"``.
    """

    _token: trio.lowlevel.TrioToken | None = None  # of Trio's thread, once there is a job

    def __init__(
        self,
        serving: Callable[[], Exchange],
        worker_type: str,
        input: Mapping[str, Any],
        extra: dict[str, Any],
    ) -> None:
        self._serving = serving
        self._job: tuple[str, Mapping[str, Any], dict[str, Any]] | None = worker_type, input, extra
        self._listener = _Listener()

    @property
    def attempt(self) -> int:
        """In which run of the job the last piece was made; see `orbtrio.client.JobStream.attempt`."""
        return self._listener.attempt_read

    @property
    def output(self) -> dict[str, Any]:
        """The worker's fields, once the job is done: what `Engine.submit` would have returned.

        Raises:
            JobError: why there is none.
            RuntimeError: there is none yet, or the stream was left before there was one.
        """
        output = self._listener.output
        if output is None:
            raise RuntimeError("no output: the stream was left, or has not been read to its end")
        return _result(dict(output))

    def __aiter__(self) -> LocalStream:
        return self

    async def __anext__(self) -> dict[str, Any]:
        """The next piece.

        Raises:
            StopAsyncIteration: the job is done: see `output`. Or the stream was left.
            JobError: the job failed; what `Engine.submit` would have raised. Once, then the stream is over.
        """
        await self._begin()
        listener = self._listener
        while not listener.unread:
            if listener.over:
                output = listener.take_output()
                if output is not None:
                    _result(dict(output))
                raise StopAsyncIteration
            try:
                await listener.changed.wait()
            except trio.Cancelled:
                listener.leave()
                raise
        return listener.take()

    async def aclose(self) -> None:
        """Leave the stream: if the job is not done, it is cancelled. Never waits."""
        self._listener.leave()

    async def __aenter__(self) -> LocalStream:
        """Submit the job; what is wrong with it is raised here."""
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # `async for` does not close its iterator when it is left by `break`, so this is how most of them end.
    def __del__(self) -> None:
        if self._token is not None and not self._listener.over:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._listener.leave)

    async def _begin(self) -> None:
        job, self._job = self._job, None
        if job is None or self._listener.over:
            return
        self._token = trio.lowlevel.current_trio_token()
        try:
            exchange = self._listener.exchange = self._serving()
            await exchange.accept(self._listener, _TENANT, await _request(*job))
        except BaseException:
            self._listener.leave()
            raise


class _Listener:
    # The owner of a stream's job, and what its worker has told.
    def __init__(self) -> None:
        self.open_jobs: dict[Hashable, Job] = {}
        self.extensions = frozenset({"engine_errors", "progress"})
        self.exchange: Exchange | None = None
        self.unread: deque[tuple[dict[str, Any], int]] = deque()
        self.attempt_read = 1
        self.output: dict[str, Any] | None = None
        self.over = False
        self.changed = trio.Event()
        self._attempt = 1
        self._unread_bytes = 0
        self._told = False

    def deliver(self, job: Job, output: bytes) -> None:
        self._end(codec.decode_item(output))

    def refuse(self, client_job_id: Any, kind: str, text: str) -> None:
        self._end({"error": text, "error_kind": kind})

    def report(self, job: Job, entry: bytes) -> None:
        if job.deliveries != self._attempt:  # from the beginning: what has not been read is out of date
            self._attempt = job.deliveries
            self._drop_unread()
        if len(self.unread) >= _MAX_UNREAD or self._unread_bytes + len(entry) > _MAX_UNREAD_BYTES:
            error = JobRefused("slow_reader", f"{len(self.unread)} pieces wait to be read")
            self._abandon()
            self._end({"error": error.text, "error_kind": error.kind})
            return
        self.unread.append((codec.decode_item(codec.progress_fields(entry)), len(entry)))
        self._unread_bytes += len(entry)
        self._wake()

    def take(self) -> dict[str, Any]:
        piece, size = self.unread.popleft()
        self._unread_bytes -= size
        self.attempt_read = self._attempt
        if not self.unread and not self.over:
            self.changed = trio.Event()
        return piece

    # The outcome, for the reader to hear once.
    def take_output(self) -> dict[str, Any] | None:
        told, self._told = self._told, True
        return None if told else self.output

    def leave(self) -> None:
        self._drop_unread()
        self._told = True
        self.over = True
        self._abandon()
        self._wake()

    def _abandon(self) -> None:
        if self.exchange is not None and self.open_jobs:
            self.exchange.abandon_all(self)
            self.exchange.flush()

    def _end(self, output: dict[str, Any]) -> None:
        self.output = output
        self.over = True
        self._wake()

    def _drop_unread(self) -> None:
        self.unread.clear()
        self._unread_bytes = 0

    def _wake(self) -> None:
        self.changed.set()

"""Jobs submitted in process, without a socket: the other kind of requester. See `jobs.Requester`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import trio

from orbtrio import inputs
from orbtrio.engine.clients import TOO_LARGE
from orbtrio.errors import JobError, JobTimedOut
from orbtrio.protocol import codec
from orbtrio.protocol.messages import JobRequest, WorkerRequest
from orbtrio.streams import JobStream, Pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from orbtrio.engine.exchange import Exchange
    from orbtrio.engine.jobs import Job

__all__ = ["open_stream", "submit"]

_TENANT: Final = "local"


# The output in a worker's entry, or what stands for it.
def _decoded(entry: bytes, *, arrays: bool) -> dict[str, Any]:
    lists: bytes | None = entry if arrays else codec.without_typed_arrays(entry)
    if lists is None:
        kind, text = TOO_LARGE
        return {"error": text, "error_kind": kind}
    output: dict[str, Any] = codec.decode_item(lists, typed_arrays=arrays)
    return output


class _Caller:
    # One awaiting `submit`.
    def __init__(self, *, arrays: bool) -> None:
        self.open_jobs: dict[Hashable, Job] = {}
        self.extensions: frozenset[str] = frozenset()
        self._arrays = arrays
        self.output: dict[str, Any] = {}
        self.done = trio.Event()

    def deliver(self, job: Job, output: bytes) -> None:
        self.output = _decoded(output, arrays=self._arrays)
        self.done.set()

    def report(self, job: Job, entry: bytes) -> bool:
        return True

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
    arrays: bool,
) -> dict[str, Any]:
    """Run one job; see `Engine.submit`."""
    request = await _request(worker_type, input, extra)
    caller = _Caller(arrays=arrays)
    try:
        with trio.move_on_after(math.inf if timeout is None else timeout):
            await exchange.accept(caller, _TENANT, request)
            await caller.done.wait()
    finally:
        exchange.abandon_all(caller)
        exchange.flush()
    if not caller.done.is_set():
        raise JobTimedOut(f"no answer within {timeout:g} s")
    output, error = _outcome(caller.output)
    if error is not None:
        raise error
    return output


async def _request(
    worker_type: str, input: Mapping[str, Any], extra: Mapping[str, Any] | None
) -> WorkerRequest:
    wire_input, resources = await inputs.attach(input)
    # What comes from the network was proved by its decoder.
    codec.encode_value([wire_input, extra or {}])
    used = tuple(resource.resource_id for resource in resources)
    job = JobRequest("", worker_type, wire_input, dict(extra) if extra else None, used)
    return WorkerRequest([job], [], resources)


# What a worker's entry or the engine's words come to: the output, and the error that it stands for, if any.
def _outcome(output: dict[str, Any]) -> tuple[dict[str, Any], JobError | None]:
    output.pop("id", None)
    return output, JobError.of(output)


# --- Streams ------------------------------------------------------------------------------------------------


def open_stream(
    serving: Callable[[], Exchange],
    worker_type: str,
    input: Mapping[str, Any],
    extra: Mapping[str, Any],
    *,
    arrays: bool,
) -> JobStream:
    """Run one job and follow how it gets on; see `Engine.stream`.

    Args:
        serving: The exchange, asked for when the stream begins.
        worker_type, input, extra, arrays: As for `submit`.
    """

    async def start(pieces: Pieces) -> Callable[[], None]:
        exchange = serving()
        caller = _StreamCaller(pieces, arrays=arrays)

        def forget() -> None:
            exchange.abandon_all(caller)
            exchange.flush()

        try:
            await exchange.accept(caller, _TENANT, await _request(worker_type, input, extra))
        except BaseException:
            forget()
            raise
        return forget

    return JobStream(start, Pieces())


class _StreamCaller:
    # The owner of a stream's job.
    def __init__(self, pieces: Pieces, *, arrays: bool) -> None:
        self.open_jobs: dict[Hashable, Job] = {}
        self.extensions = frozenset({"engine_errors", "progress"})
        self._pieces = pieces
        self._arrays = arrays

    def deliver(self, job: Job, output: bytes) -> None:
        self._end(_decoded(output, arrays=self._arrays), job.deliveries)

    def refuse(self, client_job_id: Any, kind: str, text: str) -> None:
        self._end({"error": text, "error_kind": kind}, self._pieces.attempt)

    def report(self, job: Job, entry: bytes) -> bool:
        lists = entry if self._arrays else codec.without_typed_arrays(entry)
        if lists is not None:
            piece = codec.decode_item(codec.progress_fields(lists), typed_arrays=self._arrays)
            self._pieces.report(piece, len(lists), run=job.deliveries)
        return True  # if the reader is too slow, the pieces have given the job up themselves

    def _end(self, output: dict[str, Any], run: int) -> None:
        output, error = _outcome(output)
        self._pieces.end(None if error else output, error, run=run)

"""Scripted peers: the ends of connections that do what a test tells them, and nothing by themselves.

They speak through the same transport and codec as the real ones, so that a script says what is sent, never
how. A task of their own reads all the time: it answers pings and closes, and keeps what arrives for the
script to fetch. A peer that does not read is a link that stalls (`Link.stall`). They check nothing of what
they are told to send; to send what no well-behaved peer would is what they are for.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import trio

from orbtrio.errors import ConnectionLost, InvalidMessage, RemoteProtocolError
from orbtrio.protocol import codec
from orbtrio.protocol.messages import (
    BatchJob,
    CancelJobs,
    CancelRequest,
    JobBatch,
    JobRequest,
    ProgressReport,
    Resource,
    WorkerDrain,
    WorkerOutput,
    WorkerProgress,
    WorkerRequest,
    WorkerResponse,
    WorkerResponses,
)
from orbtrio.transport import TransportLimits

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from orbtrio.protocol.messages import Message
    from orbtrio.testing.links import Link
    from orbtrio.transport import Transport

__all__ = ["FakeClient", "FakeWorker", "Outcome", "ScriptedPeer"]

# What a worker's script gives as the outcome of a job: the result's fields, or how to compute them.
Outcome: TypeAlias = Mapping[str, Any] | Callable[[BatchJob], Mapping[str, Any]]

_M = TypeVar("_M", bound="Message")

# A scripted peer never loses patience: what ends a connection is the other end's doing, or the script's.
_A_YEAR: Final = 366 * 86400.0
LIMITS: Final = TransportLimits(
    max_message_bytes=1 << 30,
    max_buffered_bytes=1 << 30,
    write_timeout=_A_YEAR,
    message_timeout=_A_YEAR,
    ping_interval=_A_YEAR,
)


class ScriptedPeer:
    """One end of a connection.

    Attributes:
        link: The wire; its faults are the script's to choose.
        lost: Why the connection has ended, with the close code; None as long as it has not.
        raw: Every message that has arrived, as bytes.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.lost: ConnectionLost | None = None
        self.raw: list[bytes] = []
        self._arrived: deque[Message] = deque()
        self._changed = trio.lowlevel.ParkingLot()
        self._transport: Transport | None = None
        self._task = trio.CancelScope()
        self._farewell = 1000

    def __repr__(self) -> str:
        state = "open" if self.lost is None else f"lost: {self.lost}"
        return f"<{type(self).__name__} on {self.link.name}, {state}>"

    def send(self, message: Message | bytes) -> None:
        """Send a message, or any bytes as one. Never waits.

        Raises:
            ConnectionLost: the connection has ended.
        """
        if self.lost is not None:
            raise self.lost
        assert self._transport is not None
        self._transport.send(message if isinstance(message, bytes) else codec.encode(message))

    async def receive(self) -> Message:
        """The next message that has arrived, or will.

        Raises:
            ConnectionLost: the connection has ended, and all that came before has been received.
        """
        await self.wait_message()
        return self._arrived.popleft()

    async def wait_message(self) -> Message:
        """As `receive`, but leave the message to be received."""
        await trio.lowlevel.checkpoint()
        while not self._arrived:
            if self.lost is not None:
                raise self.lost
            await self._changed.park()
        return self._arrived[0]

    def receive_nowait(self) -> Message:
        """As `receive`, for what is here already.

        Raises:
            trio.WouldBlock: nothing is.
        """
        if not self._arrived:
            raise trio.WouldBlock
        return self._arrived.popleft()

    @property
    def has_message(self) -> bool:
        """Whether a message has arrived that was not received yet."""
        return bool(self._arrived)

    async def wait_lost(self) -> ConnectionLost:
        """Wait until the connection has ended; how it did."""
        await trio.lowlevel.checkpoint()
        while self.lost is None:
            await self._changed.park()
        return self.lost

    async def close(self, code: int = 1000) -> None:
        """Close the connection in good order."""
        self._farewell = code
        self._task.cancel()
        await self.wait_lost()

    # --- For the fabric and the fake engine.

    async def run(
        self,
        connection: AbstractAsyncContextManager[Transport],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Live on a connection until it ends or `close` is called; its failure to come about is raised."""
        lost = ConnectionLost("the script has ended")
        try:
            async with connection as self._transport:
                task_status.started()
                try:
                    with self._task:
                        await self._read(self._transport)
                    lost = ConnectionLost("closed by the script", code=self._farewell)
                except ConnectionLost as error:
                    lost = error
                except RemoteProtocolError as error:
                    lost = ConnectionLost(error.reason, code=error.close_code)
                await self._transport.close(lost.code or 1000, lost.reason)
        finally:
            self.lost = lost
            self._changed.unpark_all()

    async def _read(self, transport: Transport) -> None:
        while True:
            for raw in await transport.receive():
                self.raw.append(raw)
                try:
                    self._arrived.append(codec.decode(raw, unwrap_typed_arrays=True))
                except InvalidMessage as error:
                    raise RemoteProtocolError(str(error), close_code=error.close_code) from error
                self._changed.unpark_all()

    async def _receive(self, kind: type[_M]) -> _M:
        message = await self.receive()
        if not isinstance(message, kind):
            raise AssertionError(f"{self!r} expected {kind.__name__} but received {message!r}")
        return message


class FakeWorker(ScriptedPeer):
    """A worker whose every answer is in the script."""

    async def receive_batch(self) -> list[BatchJob]:
        """The jobs of the next batch.

        Raises:
            ConnectionLost: the connection has ended, and all that came before has been received.
        """
        return (await self._receive(JobBatch)).jobs

    def answer(self, jobs: BatchJob | Iterable[BatchJob], outcome: Outcome | None = None) -> None:
        """Answer jobs, one or several, in one message.

        Args:
            jobs: Of any batch; nobody checks whether they are still open.
            outcome: The fields of each job's result, or a function of the job; by default its input comes
                back, ``{"echo": …}``.

        Raises:
            ConnectionLost: the connection has ended.
        """
        entries = []
        for job in [jobs] if isinstance(jobs, BatchJob) else jobs:
            if outcome is None:
                fields: Mapping[str, Any] = {"echo": job.input}
            else:
                fields = outcome(job) if callable(outcome) else outcome
            entries.append((job.job_id, codec.output_entry(job.job_id, fields)))
        self.send(WorkerOutput(entries))

    def fail(self, jobs: BatchJob | Iterable[BatchJob], error: str) -> None:
        """Answer jobs with an error."""
        self.answer(jobs, {"error": error})

    def report(self, jobs: BatchJob | Iterable[BatchJob], **fields: Any) -> None:
        """Tell progress of jobs, of all in one message. For a worker that asked for ``progress``."""
        ids = [job.job_id for job in ([jobs] if isinstance(jobs, BatchJob) else jobs)]
        self.send(WorkerProgress([(job_id, codec.progress_entry(job_id, fields)) for job_id in ids]))

    async def receive_cancels(self) -> list[str]:
        """The ids of the next ``cancel_jobs``. For a worker that asked for ``cancel``.

        Raises:
            ConnectionLost: the connection has ended, and all that came before has been received.
        """
        return (await self._receive(CancelJobs)).job_ids

    def drain(self) -> None:
        """Ask for no more batches. For a worker that asked for ``drain``."""
        self.send(WorkerDrain())

    async def answer_all(self, outcome: Outcome | None = None) -> None:
        """Answer every batch at once, until the connection ends; for a task of its own."""
        try:
            while True:
                self.answer(await self.receive_batch(), outcome)
        except ConnectionLost:
            pass


class FakeClient(ScriptedPeer):
    """A client that submits what the script says and keeps what comes back.

    Attributes:
        outputs: Every answer so far: the client's job id, and the output.
    """

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._numbers = itertools.count(1)

    @property
    def outputs(self) -> list[tuple[Any, dict[str, Any]]]:
        outputs: list[tuple[Any, dict[str, Any]]] = []
        for raw in self.raw:
            message = codec.decode(raw, unwrap_typed_arrays=True)
            together = message.responses if isinstance(message, WorkerResponses) else [message]
            outputs += [
                (one.client_job_id, one.output) for one in together if isinstance(one, WorkerResponse)
            ]
        return outputs

    def submit(
        self, worker_type: str, *inputs: Mapping[str, Any], resources: Iterable[Resource] = ()
    ) -> list[str]:
        """Send one request with a job for each input; what is wrong with it is for the engine to find.

        Returns:
            The ids given to the jobs, in order.
        """
        ids = [f"job-{next(self._numbers)}" for _ in inputs]
        jobs = [
            JobRequest(client_job_id, worker_type, dict(job_input))
            for client_job_id, job_input in zip(ids, inputs, strict=True)
        ]
        self.send(WorkerRequest(jobs, [], tuple(resources)))
        return ids

    async def receive_response(self) -> WorkerResponse:
        """The next answer.

        Raises:
            ConnectionLost: the connection has ended, and all that came before has been received.
        """
        return await self._receive(WorkerResponse)

    async def receive_progress(self) -> ProgressReport:
        """The next word about a job's progress. For a client that asked for ``progress``.

        Raises:
            ConnectionLost: the connection has ended, and all that came before has been received.
        """
        return await self._receive(ProgressReport)

    def cancel(self, *client_job_ids: Any) -> None:
        """Say that these jobs are no longer wanted. For a client that asked for ``cancel``."""
        self.send(CancelRequest(list(client_job_ids)))

"""The workers and clients that the suite plays against an engine, and the jobs that go between them.

Each job has a mark in its input, so that a delivery tells which job it is. What an earlier plan left
behind in the engine is answered as soon as it shows up, and forgotten.

Messages of extensions are sorted for those who asked for them; to all others they are strays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

from orbtrio.conformance.notation import encode
from orbtrio.conformance.peer import Message, Peer, WireLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from orbtrio.conformance.world import Pipe

__all__ = [
    "Batch",
    "Delivery",
    "Job",
    "Jobs",
    "Report",
    "Response",
    "SuiteClient",
    "SuiteWorker",
    "answer_to",
]


@attrs.define(eq=False)
class Job:
    """A job of the suite.

    Attributes:
        number: Unique within the stage.
        job_id: The client's identifier.
        worker_type: Who is to do it.
        input: With the mark by which it is recognised.
        extra: Further fields of the job.
        client: Who submitted it.
        submitted: When; None while it has not been.
        deliveries: Which workers got it, in order.
        responses: What its client was answered.
        reports: What its client was told of its progress.
    """

    number: int
    job_id: Any
    worker_type: str
    input: Any
    extra: dict[str, Any]
    client: SuiteClient
    submitted: float | None = None
    deliveries: list[Delivery] = attrs.field(factory=list)
    responses: list[Response] = attrs.field(factory=list)
    reports: list[Report] = attrs.field(factory=list)

    @property
    def errors(self) -> list[Any]:
        """Kinds of the errors by which the engine itself ended it."""
        outputs = [response.output for response in self.responses if isinstance(response.output, dict)]
        return [output["error_kind"] for output in outputs if "error_kind" in output]

    def wire(self) -> dict[str, Any]:
        """As it stands in a request."""
        return {"job_id": self.job_id, "worker_type": self.worker_type, "input": self.input, **self.extra}

    def __str__(self) -> str:
        return f"job {self.job_id!r}"


@attrs.frozen(eq=False)
class Delivery:
    """A job as a worker got it.

    Attributes:
        at: When.
        worker: Who.
        batch: In which of its batches.
        entry: As it stood there: ``{"id", "input", ...}``.
        job: Which it is.
    """

    at: float
    worker: SuiteWorker
    batch: Batch
    entry: dict[str, Any]
    job: Job

    @property
    def id(self) -> Any:
        """The engine's identifier."""
        return self.entry.get("id")

    @property
    def input(self) -> Any:
        """What the worker is to work on."""
        return self.entry.get("input")


@attrs.define(eq=False)
class Batch:
    """A batch as a worker got it, without what earlier stages left behind.

    Attributes:
        at: When.
        message: As it came.
        deliveries: Its jobs.
    """

    at: float
    message: Message
    deliveries: list[Delivery]


@attrs.frozen(eq=False)
class Response:
    """An answer as a client got it.

    Attributes:
        at: When.
        job_id: As echoed.
        output: The worker's output, or the engine's error.
        message: The whole message.
    """

    at: float
    job_id: Any
    output: Any
    message: dict[str, Any]


@attrs.frozen(eq=False)
class Report:
    """What a client was told of a job's progress.

    Attributes:
        at: When.
        progress: The fields.
        attempt: Of the message; 1 if it was not there.
    """

    at: float
    progress: Any
    attempt: Any


class Jobs(Protocol):
    """What players need of their stage."""

    log: WireLog

    def now(self) -> float:
        """Seconds since the stage was set."""
        ...

    def job_of(self, entry: Any) -> Job | None:
        """Which of this stage's jobs an entry of a batch is."""
        ...

    def make_job(
        self,
        client: SuiteClient,
        input: dict[str, Any] | None,
        *,
        worker_type: str | None,
        job_id: Any,
        extra: dict[str, Any] | None,
    ) -> Job:
        """A job with a mark in its input."""
        ...


class SuiteWorker(Peer):
    """A worker that the suite plays.

    Attributes:
        worker_type: What it registered as.
        max_batch_size: Likewise.
        batches: What it got.
        deliveries: The same, job by job.
        auto: Called with each batch as it arrives; answers, if it is to be answered at once.
        asked: Extensions that it asked for.
        recalled: The ids of each `cancel_jobs` that it got, if it asked for that.
        stray: Messages that are neither.
    """

    def __init__(
        self, stage: Jobs, pipe: Pipe, name: str, worker_type: str, *, log: WireLog | None = None
    ) -> None:
        self.worker_type = worker_type
        self.max_batch_size = 32
        self.batches: list[Batch] = []
        self.deliveries: list[Delivery] = []
        self.auto: Callable[[list[Delivery]], None] | None = None
        self.asked: frozenset[str] = frozenset()
        self.recalled: list[Any] = []
        self.stray: list[Message] = []
        self._stage = stage
        super().__init__(pipe, log or stage.log, name)

    def received(self, message: Message) -> None:
        """Sort a batch into what it is."""
        inputs = message.value.get("inputs") if isinstance(message.value, dict) else None
        if "cancel" in self.asked and _kind(message) == "cancel_jobs":
            self.recalled.append(message.value.get("ids"))
            return
        if not isinstance(inputs, list):
            self.stray.append(message)
            return
        batch = Batch(message.at, message, [])
        leftovers = []
        for entry in inputs:
            job = self._stage.job_of(entry)
            if job is None:
                leftovers.append(entry)
                continue
            delivery = Delivery(message.at, self, batch, entry, job)
            batch.deliveries.append(delivery)
            job.deliveries.append(delivery)
            self.deliveries.append(delivery)
        if leftovers:
            # The canary's, or of an earlier plan.
            self._log.remark(f"{len(leftovers)} of these jobs are not of this plan", peer=self.name)
            ids = [entry["id"] for entry in leftovers if isinstance(entry, dict) and "id" in entry]
            self.output([{"id": job_id, "leftover": True} for job_id in ids])
            if not batch.deliveries:
                return
        self.batches.append(batch)
        if self.auto is not None:
            self.auto(batch.deliveries)

    def output(self, entries: Sequence[Any]) -> None:
        """Send a `worker_output` with these entries."""
        self.send({"type": "worker_output", "output": list(entries)})

    def answer(self, *deliveries: Delivery, **fields: Any) -> None:
        """Answer these jobs in one message: ``{"id", "echo": <input>}``, or ``id`` and the fields given.

        Without any job nothing is sent: an engine that answers an output with an empty batch would never end.
        """
        if deliveries:
            self.output([answer_to(delivery, fields) for delivery in deliveries])

    def report(self, *deliveries: Delivery, **fields: Any) -> None:
        """Report on these jobs in one message, with these fields each."""
        entries = [{"id": delivery.id, **fields} for delivery in deliveries]
        self.send({"type": "worker_progress", "progress": entries})

    def recalled_ids(self) -> list[Any]:
        """Everything that it was told to stop, one after the other."""
        return [job_id for ids in self.recalled for job_id in (ids if isinstance(ids, list) else [ids])]

    def answer_all(self) -> None:
        """Answer everything it has not answered by `answer_all` before, and whatever comes, at once."""
        self.answer(*self.deliveries)
        self.auto = lambda deliveries: self.answer(*deliveries)


def answer_to(delivery: Delivery, fields: dict[str, Any] | None = None) -> dict[str, Any]:
    """The usual answer to a job: its input, echoed."""
    return {"id": delivery.id, **(fields or {"echo": delivery.input})}


class SuiteClient(Peer):
    """A client that the suite plays.

    Attributes:
        responses: What it got, all of it.
        asked: Extensions that it asked for.
        together: How many answers came in each `worker_responses`, if it asked for `batched_responses`.
        stray: Messages that are neither responses nor what it asked for.
    """

    def __init__(self, stage: Jobs, pipe: Pipe, name: str, *, log: WireLog | None = None) -> None:
        self.responses: list[Response] = []
        self.asked: frozenset[str] = frozenset()
        self.together: list[int] = []
        self.stray: list[Message] = []
        self._stage = stage
        # By the identifier's CBOR, for 1, 1.0 and True are one key to Python.
        self._by_id: dict[bytes, list[Job]] = {}
        super().__init__(pipe, log or stage.log, name)

    def received(self, message: Message) -> None:
        """Sort a response to its job."""
        value, kind = message.value, _kind(message)
        if kind == "worker_response":
            self._respond(message.at, value)
        elif kind == "worker_responses" and "batched_responses" in self.asked:
            entries = [entry for entry in value.get("responses", []) if isinstance(entry, dict)]
            self.together.append(len(entries))
            for entry in entries:
                self._respond(message.at, entry)
        elif kind == "worker_progress" and "progress" in self.asked:
            report = Report(message.at, value.get("progress"), value.get("attempt", 1))
            for job in self._by_id.get(encode(value.get("job_id")), ()):
                job.reports.append(report)
        else:
            self.stray.append(message)

    def _respond(self, at: float, value: dict[str, Any]) -> None:
        response = Response(at, value.get("job_id"), value.get("output"), value)
        self.responses.append(response)
        for job in self._by_id.get(encode(response.job_id), ()):
            job.responses.append(response)

    def cancel(self, *jobs: Job) -> None:
        """Say that these jobs are not wanted any more."""
        self.send({"type": "cancel_request", "job_ids": [job.job_id for job in jobs]})

    def job(
        self,
        input: dict[str, Any] | None = None,
        *,
        worker_type: str | None = None,
        job_id: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> Job:
        """A job of this client that has not been submitted yet."""
        return self._stage.make_job(self, input, worker_type=worker_type, job_id=job_id, extra=extra)

    def request(self, jobs: Iterable[Job], resources: Sequence[Any] | None = None) -> None:
        """Submit jobs in one request, with these resources."""
        jobs = list(jobs)
        for job in jobs:
            job.submitted = self._stage.now()
            self._by_id.setdefault(encode(job.job_id), []).append(job)
        message: dict[str, Any] = {"type": "worker_request", "jobs": [job.wire() for job in jobs]}
        if resources is not None:
            message["resources"] = list(resources)
        self.send(message)

    def submit(self, input: dict[str, Any] | None = None, **options: Any) -> Job:
        """Submit one job in a request of its own; options as of `job`."""
        job = self.job(input, **options)
        self.request([job])
        return job


def _kind(message: Message) -> Any:
    return message.value.get("type") if isinstance(message.value, dict) else None

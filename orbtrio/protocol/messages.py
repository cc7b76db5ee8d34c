"""The messages of the protocol. One that exists is valid.

Registrations check themselves when they are built (`registration`). All others are plain slotted classes that
trust; `from_wire` fills them in one loop of exact type checks, for half a microsecond a job, against three
times that with validators. Only the codec calls `from_wire` and `to_wire`. Rejected: a structuring library
(it casts where we must refuse), and dicts all the way down (nobody could tell any more what has been
checked).

An invalid *job* is no invalid *message*: the spec skips the job and runs its neighbours. So it becomes an
`InvalidJob`; a member of a batch or an output that is none is counted; the message stands.

Whatever else others send is ignored, unknown types and the messages of extensions that nobody asked for
included. A tag, or anything of a type that we did not ask for, fails the check of the field that it stands
in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from orbtrio.errors import InvalidMessage
from orbtrio.protocol import references
from orbtrio.protocol.answers import (
    MISSING,
    ProgressReport,
    WorkerOutput,
    WorkerProgress,
    WorkerResponse,
    WorkerResponses,
    list_of,
)
from orbtrio.protocol.references import MAX_RESOURCE_BYTES, Resource
from orbtrio.protocol.registration import (
    DEFAULT_MESSAGE_BYTES,
    EXTENSIONS,
    MAX_BATCH_SIZE,
    MAX_WORKER_TYPE,
    RegisterClient,
    RegisterWorker,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "DEFAULT_MESSAGE_BYTES",
    "EXTENSIONS",
    "EXTENSION_MESSAGES",
    "MAX_BATCH_SIZE",
    "MAX_JOBS",
    "MAX_RESOURCE_BYTES",
    "MISSING",
    "BatchJob",
    "CancelJobs",
    "CancelRequest",
    "InvalidJob",
    "JobBatch",
    "JobRequest",
    "Message",
    "ProgressReport",
    "RegisterClient",
    "RegisterWorker",
    "Registration",
    "Resource",
    "UnknownMessage",
    "WorkerDrain",
    "WorkerOutput",
    "WorkerProgress",
    "WorkerRequest",
    "WorkerResponse",
    "WorkerResponses",
    "drop_undefined",
]

# Ten times what one worker's queue holds. To refuse jobs one by one takes time, too.
MAX_JOBS: Final = 10_000


@attrs.define(eq=False)
class JobRequest:
    """One valid job of a request.

    Attributes:
        client_job_id: The client's own id (wire: ``job_id``), of any CBOR type. Only echoed.
        worker_type: The queue that it is for.
        input: What the worker gets. May hold references.
        extra: Fields beside ``input`` that pass through to the worker; None if there are none.
        references: Ids of the resources that `input` refers to, each once.
        encoded: `input` as it came, if it may be passed on like that.
    """

    client_job_id: Any
    worker_type: str
    input: dict[str, Any]
    extra: dict[str, Any] | None = None
    references: tuple[str, ...] = ()
    encoded: bytes | memoryview | None = None


@attrs.frozen
class InvalidJob:
    """A job that cannot be run; its neighbours can. Spec: "Engine-Side Error Handling".

    Attributes:
        client_job_id: The client's id, or `MISSING`.
        reason: Safe to show to the client.
    """

    client_job_id: Any
    reason: str


@attrs.define(eq=False)
class WorkerRequest:
    """Jobs of a client, with the resources that they share.

    Attributes:
        jobs: The valid ones, in their order.
        invalid: The others.
        resources: Every reference of a job names one of these, and each of these is named by a job.

    Spec: "Resource Submission".
    """

    jobs: list[JobRequest]
    invalid: list[InvalidJob] = attrs.Factory(list)
    resources: tuple[Resource, ...] = ()

    @classmethod
    def from_wire(cls, wire: dict[str, Any], *, may_refer: bool = True) -> WorkerRequest:
        """Check a ``worker_request``.

        Args:
            wire: The message.
            may_refer: False if there can be no reference in it, which saves the search.

        Raises:
            InvalidMessage: no list of jobs, or bad resource objects (1008).
            ResourceRejected: a resource too large, missing or unused (1009).
        """
        members = wire.get("jobs")
        if type(members) is not list or len(members) > MAX_JOBS:
            raise InvalidMessage(f"expected a list of at most {MAX_JOBS}", path="jobs")
        jobs: list[JobRequest] = []
        invalid: list[InvalidJob] = []
        skipped: list[object] = []
        for member in members:
            # Nearly every job is exactly this. Whatever differs goes the careful way.
            if (
                type(member) is dict
                and len(member) == 3
                and type(client_job_id := member.get("job_id")) is str
                and type(worker_type := member.get("worker_type")) is str
                and type(job_input := member.get("input")) is dict
                and 0 < len(worker_type) <= MAX_WORKER_TYPE
            ):
                jobs.append(JobRequest(client_job_id, worker_type, job_input))
                continue
            job = _job_from_wire(member)
            if isinstance(job, JobRequest):
                jobs.append(job)
            else:
                invalid.append(job)
                skipped.append(member)
        resources = references.resources_from_wire(wire.get("resources"))
        if resources or may_refer:
            found = references.match([job.input for job in jobs], resources, skipped=skipped)
            for job, ids in zip(jobs, found, strict=True):
                job.references = ids
        return cls(jobs, invalid, resources)


# The fields of a job that are not passed through beside its input. ``id`` will be the engine's.
_OWN_FIELDS: Final = frozenset({"job_id", "worker_type", "input", "id"})


def _job_from_wire(wire: object) -> JobRequest | InvalidJob:
    if type(wire) is not dict or "job_id" not in wire:
        return InvalidJob(MISSING, "expected a map with a job_id")
    client_job_id = wire["job_id"]
    worker_type = wire.get("worker_type")
    if type(worker_type) is not str or not 0 < len(worker_type) <= MAX_WORKER_TYPE:
        return InvalidJob(client_job_id, f"worker_type: expected 1 to {MAX_WORKER_TYPE} characters")
    job_input = wire.get("input", {})
    if type(job_input) is not dict:
        return InvalidJob(client_job_id, "input: expected a map")
    extra = {name: value for name, value in wire.items() if name not in _OWN_FIELDS}
    return JobRequest(client_job_id, worker_type, job_input, extra or None)


@attrs.define(eq=False)
class BatchJob:
    """One job as a worker gets it.

    Attributes:
        job_id: The engine's id (wire: ``id``); the result carries it back.
        input: What to work on. References are paths by now.
        extra: Fields beside ``input``; None if there are none.
    """

    job_id: str
    input: dict[str, Any]
    extra: dict[str, Any] | None = None

    @classmethod
    def from_wire(cls, wire: Any) -> BatchJob | None:
        """Check one member of ``inputs``; None if it cannot be run, or could not be answered."""
        job_id = wire.get("id", wire.get("job_id")) if type(wire) is dict else None
        if type(job_id) is not str:
            return None
        rest = {name: value for name, value in wire.items() if name not in ("id", "job_id")}
        # The public engine sends the input's fields beside the id.
        job_input = rest.pop("input") if "input" in rest else rest
        if type(job_input) is not dict:
            return None
        return cls(job_id, job_input, rest if rest and rest is not job_input else None)


@attrs.define(eq=False)
class JobBatch:
    """Jobs for a worker, in one message; the only message without a ``type``. Spec: "Job Batch Distribution".

    Attributes:
        jobs: In the order sent.
        malformed: The number of members that were no job. One bad job does not spoil its batch.
        resources: Extension ``inline_resources``: each file that the jobs name, as its path and its bytes.
    """

    jobs: list[BatchJob]
    malformed: int = 0
    resources: list[tuple[str, bytes]] = attrs.Factory(list)

    @classmethod
    def from_wire(cls, wire: dict[str, Any], *, inline_resources: bool = True) -> JobBatch:
        """Check a batch.

        Args:
            wire: The message.
            inline_resources: Whether its resources are to be read; a field of that name is ignored if not.
        """
        members = list_of(wire, "inputs")
        jobs = [job for member in members if (job := BatchJob.from_wire(member)) is not None]
        batch = cls(jobs, len(members) - len(jobs))
        for member in list_of(wire, "resources") if inline_resources and "resources" in wire else ():
            file = (member.get("path"), member.get("data")) if type(member) is dict else (None, None)
            if type(file[0]) is not str or type(file[1]) is not bytes:
                raise InvalidMessage("expected maps of a path and data", path="resources")
            batch.resources.append((file[0], file[1]))
        return batch


# --- Extensions -------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class CancelRequest:
    """Extension ``cancel``: a client no longer wants these jobs.

    Attributes:
        client_job_ids: The ids that the client gave; of any CBOR type, as there.
    """

    client_job_ids: list[Any]

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> CancelRequest:
        """Check a ``cancel_request``."""
        ids = list_of(wire, "job_ids")
        if len(ids) > MAX_JOBS:
            raise InvalidMessage(f"expected a list of at most {MAX_JOBS}", path="job_ids")
        return cls(ids)

    def to_wire(self) -> dict[str, Any]:
        """The ``cancel_request``."""
        return {"type": "cancel_request", "job_ids": self.client_job_ids}


@attrs.define(eq=False)
class CancelJobs:
    """Extension ``cancel``: nobody waits for these jobs any more. The worker still answers each of them.

    Attributes:
        job_ids: The engine's ids, as in the batch.
    """

    job_ids: list[str]

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> CancelJobs:
        """Check a ``cancel_jobs``; what is no id of ours is left out."""
        return cls([job_id for job_id in list_of(wire, "ids") if type(job_id) is str])

    def to_wire(self) -> dict[str, Any]:
        """The ``cancel_jobs``."""
        return {"type": "cancel_jobs", "ids": self.job_ids}


@attrs.frozen
class WorkerDrain:
    """Extension ``drain``: a worker wants no new batches; once it has answered all it has, it is closed."""

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> WorkerDrain:
        """Check a ``worker_drain``; it has no fields."""
        return cls()

    def to_wire(self) -> dict[str, Any]:
        """The ``worker_drain``."""
        return {"type": "worker_drain"}


@attrs.frozen
class UnknownMessage:
    """A message of a type that this version does not know; to be ignored.

    Attributes:
        message_type: How what it calls itself begins. A stranger's text: escape it before you show it.
    """

    message_type: str


Registration: TypeAlias = RegisterWorker | RegisterClient
Message: TypeAlias = (
    Registration
    | WorkerRequest
    | JobBatch
    | WorkerOutput
    | WorkerResponse
    | WorkerProgress
    | ProgressReport
    | CancelRequest
    | CancelJobs
    | WorkerDrain
    | WorkerResponses
    | UnknownMessage
)

# The messages of extensions, by their type on the wire: which extension, and how they are checked. That of
# ``worker_progress`` is an engine's; a worker's is cut into entries instead.
EXTENSION_MESSAGES: Final[Mapping[str, tuple[str, Callable[[dict[str, Any]], Message]]]] = {
    "worker_progress": ("progress", ProgressReport.from_wire),
    "cancel_request": ("cancel", CancelRequest.from_wire),
    "cancel_jobs": ("cancel", CancelJobs.from_wire),
    "worker_drain": ("drain", WorkerDrain.from_wire),
    "worker_responses": ("batched_responses", WorkerResponses.from_wire),
}

# What we read one level down, by the field that holds it. All else passes through, whatever it is.
_READ_FIELDS: Final = {
    "worker_config": {"worker_type", "max_batch_size", "max_latency_ms", "max_message_bytes"}
    | {"max_unanswered_batches", "eager", "extensions"},
    "resources": {"id", "type", "data"},
    "jobs": {"job_id", "worker_type", "input"},
    "inputs": {"id", "job_id", "input"},
}


def drop_undefined(wire: dict[str, Any], undefined: object) -> None:
    """Take `undefined` out of the fields that we read: JavaScript sends it for what is absent."""
    for name in [name for name, value in wire.items() if value is undefined]:
        del wire[name]
    for name in _READ_FIELDS.keys() & wire.keys():
        value = wire[name]
        for fields in value if type(value) is list else [value]:
            if type(fields) is dict and undefined in fields.values():
                for field in _READ_FIELDS[name] & fields.keys():
                    if fields[field] is undefined:
                        del fields[field]

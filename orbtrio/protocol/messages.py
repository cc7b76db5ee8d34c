"""The messages of the protocol. One that exists is valid.

The rare messages are frozen attrs classes that check themselves when they are built, whoever builds them.
The hot ones are plain slotted classes that trust; `from_wire` fills them in one loop of exact type checks,
for half a microsecond a job, against three times that with validators. Only the codec calls `from_wire`.
Rejected: a structuring library (it casts where we must refuse), and dicts all the way down (nobody could
tell any more what has been checked).

An invalid *job* is no invalid *message*: the spec skips the job and runs its neighbours. So it becomes an
`InvalidJob`; a member of a batch or an output that is none is counted; the message stands.

Whatever else others send is ignored: unknown fields of a registration, unknown extensions, unknown types. A
tag, or anything of a type that we did not ask for, fails the check of the field that it stands in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from orbtrio.errors import InvalidMessage
from orbtrio.protocol import references
from orbtrio.protocol.references import MAX_RESOURCE_BYTES, Resource

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "EXTENSIONS",
    "MAX_BATCH_SIZE",
    "MAX_JOBS",
    "MAX_RESOURCE_BYTES",
    "MISSING",
    "BatchJob",
    "InvalidJob",
    "JobBatch",
    "JobRequest",
    "Message",
    "RegisterClient",
    "RegisterWorker",
    "Registration",
    "Resource",
    "UnknownMessage",
    "WorkerOutput",
    "WorkerRequest",
    "WorkerResponse",
]

# What a peer may ask for when it registers.
EXTENSIONS: Final = frozenset(
    {"engine_errors", "progress", "cancel", "drain", "inline_resources", "batched_responses"}
)

# A worker that asks for larger batches gets these. No more than this is ever queued for one worker.
MAX_BATCH_SIZE: Final = 1000

# Ten times what one worker's queue holds. To refuse jobs one by one takes time, too.
MAX_JOBS: Final = 10_000

# Stock WebSocket libraries refuse messages of 1 MiB, so a worker that says nothing is sent less.
DEFAULT_MESSAGE_BYTES: Final = 900 * 1024

# Worker types become names of queues, and appear in settings, metrics and logs.
_MAX_WORKER_TYPE: Final = 128

MISSING: Final = attrs.NOTHING  # the client's id of a job that has none; null could be an id


# --- Rules for fields ---------------------------------------------------------------------------------------


def _rule(expected: str, holds: Callable[[Any], bool]) -> Callable[..., None]:
    def validate(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not holds(value):
            raise InvalidMessage(f"expected {expected}", path=attribute.name)

    return validate


_text = _rule("text", lambda value: type(value) is str)
_flag = _rule("true or false", lambda value: type(value) is bool)
_whole = _rule("a positive whole number", lambda value: type(value) is int and value > 0)
_seconds = _rule("a positive number", lambda value: type(value) in (int, float) and 0 < value < 1e9)
_names = _rule("a list of text", lambda value: type(value) is frozenset)
_worker_type = _rule(
    f"1 to {_MAX_WORKER_TYPE} printable characters without a slash",
    lambda value: (
        type(value) is str and 0 < len(value) <= _MAX_WORKER_TYPE and value.isprintable() and "/" not in value
    ),
)


# JavaScript has one type of number: its 32 may arrive as 32.0.
def _as_whole(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value


def _as_batch_size(value: Any) -> Any:
    value = _as_whole(value)
    return min(value, MAX_BATCH_SIZE) if type(value) is int else value


# A list is what came from the wire.
def _as_names(value: Any) -> Any:
    if type(value) is list and all(type(name) is str for name in value):
        return EXTENSIONS.intersection(value)
    return value


# The optional fields that are there. Null is as good as absent.
def _given(wire: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := wire.get(name)) is not None}


@attrs.frozen(kw_only=True)
class RegisterWorker:
    """A worker introduces itself. Always its first message.

    Attributes:
        worker_type: The queue it serves, e.g. ``"embedding"``.
        worker_secret: Shared; kept out of repr and logs. One that was absent, or no text, is ``""``: it
            gets the same refusal as any wrong one.
        max_batch_size: Most jobs per batch, 1 to 1000; more is clamped.
        max_latency: Longest wait of a batch's oldest job, in seconds (wire: ``max_latency_ms``).
        eager: Extension: while it has nothing to do, send what is queued at once.
        max_unanswered_batches: Extension: the batches it wants to hold at a time; None for no limit.
        max_message_bytes: Extension: the largest batch that it can receive.
        extensions: Names out of `EXTENSIONS` that it asks for.

    Raises:
        InvalidMessage: a field has the wrong type or range (close code 1008).

    Spec: "Worker Registration".
    """

    worker_type: str = attrs.field(validator=_worker_type)
    worker_secret: str = attrs.field(repr=False, validator=_text)
    max_batch_size: int = attrs.field(default=32, converter=_as_batch_size, validator=_whole)
    max_latency: float = attrs.field(default=30.0, validator=_seconds)
    eager: bool = attrs.field(default=False, validator=_flag)
    max_unanswered_batches: int | None = attrs.field(
        default=None, converter=_as_whole, validator=attrs.validators.optional(_whole)
    )
    max_message_bytes: int = attrs.field(default=DEFAULT_MESSAGE_BYTES, converter=_as_whole, validator=_whole)
    extensions: frozenset[str] = attrs.field(default=frozenset(), converter=_as_names, validator=_names)

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> RegisterWorker:
        """Check an ``i_am_worker``."""
        config = wire.get("worker_config")
        if type(config) is not dict:
            raise InvalidMessage("expected a map", path="worker_config")
        secret = wire.get("worker_secret")
        names = ("max_batch_size", "eager", "max_unanswered_batches", "max_message_bytes", "extensions")
        optional = _given(config, *names)
        latency_ms = _as_whole(config.get("max_latency_ms"))
        if latency_ms is not None:
            if type(latency_ms) is not int or latency_ms < 1:
                raise InvalidMessage("expected a positive whole number", path="max_latency_ms")
            optional["max_latency"] = latency_ms / 1000
        secret = secret if type(secret) is str else ""
        return cls(worker_type=config.get("worker_type", ""), worker_secret=secret, **optional)


@attrs.frozen(kw_only=True)
class RegisterClient:
    """A client introduces itself (wire: ``i_am_server``, as the public engine's client is itself a server).

    Attributes:
        token: Says whose client it is, where the engine asks; kept out of repr and logs.
        version: What it calls its version, if that is text. Any is welcome.
        extensions: Names out of `EXTENSIONS` that it asks for.

    Raises:
        InvalidMessage: a field has the wrong type (1008).
    """

    token: str | None = attrs.field(default=None, repr=False, validator=attrs.validators.optional(_text))
    version: str | None = attrs.field(default=None, validator=attrs.validators.optional(_text))
    extensions: frozenset[str] = attrs.field(default=frozenset(), converter=_as_names, validator=_names)

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> RegisterClient:
        """Check an ``i_am_server``."""
        version = wire.get("version")
        given = _given(wire, "token", "extensions")
        return cls(version=version if type(version) is str else None, **given)


@attrs.define(eq=False)
class JobRequest:
    """One valid job of a request.

    Attributes:
        client_job_id: The client's own id (wire: ``job_id``), of any CBOR type. Only echoed.
        worker_type: The queue that it is for.
        input: What the worker gets. May hold references.
        extra: Fields beside ``input`` that pass through to the worker; None if there are none.
        references: Ids of the resources that `input` refers to, each once.
    """

    client_job_id: Any
    worker_type: str
    input: dict[str, Any]
    extra: dict[str, Any] | None = None
    references: tuple[str, ...] = ()


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
                and 0 < len(worker_type) <= _MAX_WORKER_TYPE
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
    if type(worker_type) is not str or not 0 < len(worker_type) <= _MAX_WORKER_TYPE:
        return InvalidJob(client_job_id, f"worker_type: expected 1 to {_MAX_WORKER_TYPE} characters")
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
    """

    jobs: list[BatchJob]
    malformed: int = 0

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> JobBatch:
        """Check a batch."""
        members = wire.get("inputs")
        if type(members) is not list:
            raise InvalidMessage("expected a list", path="inputs")
        jobs = [job for member in members if (job := BatchJob.from_wire(member)) is not None]
        return cls(jobs, len(members) - len(jobs))


@attrs.define(eq=False)
class WorkerOutput:
    """Results of a worker. Spec: "Worker Output".

    Attributes:
        entries: For each result the engine's job id, and the entry as one CBOR map that is known to be valid.
        malformed: The number of members that were no entry. The good ones count all the same.
    """

    entries: list[tuple[str, bytes]]
    malformed: int = 0


@attrs.define(eq=False)
class WorkerResponse:
    """A client's job is done.

    Attributes:
        client_job_id: The id that the client gave.
        output: The worker's entry; or ``error`` and ``error_kind`` if the engine ended the job.
    """

    client_job_id: Any
    output: dict[str, Any]

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> WorkerResponse:
        """Check a ``worker_response``."""
        output = wire.get("output")
        if type(output) is not dict:
            raise InvalidMessage("expected a map", path="output")
        return cls(wire.get("job_id", MISSING), output)


@attrs.frozen
class UnknownMessage:
    """A message of a type that this version does not know; to be ignored.

    Attributes:
        message_type: How what it calls itself begins. A stranger's text: escape it before you show it.
    """

    message_type: str


Registration: TypeAlias = RegisterWorker | RegisterClient
Message: TypeAlias = Registration | WorkerRequest | JobBatch | WorkerOutput | WorkerResponse | UnknownMessage

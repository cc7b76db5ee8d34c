"""The messages of the protocol. One that exists is valid.

Each class checks itself when it is built, whoever builds it, so nobody downstream asks again. `from_wire` makes one from
a decoded CBOR map; the codec alone calls it.

The rare messages are frozen attrs classes with validators. The two hot ones, `WorkerRequest` with its `JobRequest` and
`WorkerOutput`, are plain slotted classes filled by a loop of exact type checks: 0.55 µs a job, against 1.4–1.9 with
validators. Rejected: structuring by library (it casts instead of checking, and costs more), and dicts all the way down (a reader
could no longer tell what has been checked).

An invalid *job* is no invalid *message*: the spec skips the job and runs its neighbours, so it becomes an `InvalidJob`.
"""

from __future__ import annotations

import enum
import math
from typing import Any, Final, Literal, TypeAlias, cast

import attrs

from orbtrio.errors import InvalidMessage, ResourceRejected
from orbtrio.protocol import references

__all__ = [
    "EXTENSIONS",
    "MAX_BATCH_SIZE",
    "MAX_RESOURCE_BYTES",
    "MISSING",
    "BatchJob",
    "InvalidJob",
    "JobBatch",
    "JobRequest",
    "Message",
    "Missing",
    "RegisterClient",
    "RegisterWorker",
    "Resource",
    "UnknownMessage",
    "WorkerOutput",
    "WorkerRequest",
    "WorkerResponse",
]

Wire: TypeAlias = dict[str, Any]

# What a peer may ask for at registration. Other names are ignored, so that old and new peers mix freely.
EXTENSIONS: Final = frozenset(
    {"engine_errors", "progress", "cancel", "drain", "inline_resources", "batched_responses"}
)

# A batch is one message; beyond this size a worker's claim about itself is not believed. Larger values are clamped.
MAX_BATCH_SIZE: Final = 1000

# Spec, "Resource Validation": 2MB per resource.
MAX_RESOURCE_BYTES: Final = 2 * 1024 * 1024

# Worker types become names of queues, settings and metrics. No type in use is near this length.
_MAX_WORKER_TYPE: Final = 128

# Beyond this a float64, all that JavaScript has, cannot count.
_MAX_SAFE_INTEGER: Final = 2**53


class Missing(enum.Enum):
    """Type of `MISSING`, which stands where null is a value of its own."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


# --- Field rules -------------------------------------------------------------------------------------------------------


def _text(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if type(value) is not str:
        raise InvalidMessage("expected text", path=attribute.name)


def _optional_text(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        _text(instance, attribute, value)


def _worker_type(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if (
        type(value) is not str
        or not 0 < len(value) <= _MAX_WORKER_TYPE
        or not value.isprintable()
        or "/" in value
    ):
        raise InvalidMessage(
            f"expected 1 to {_MAX_WORKER_TYPE} printable characters without a slash", path=attribute.name
        )


def _flag(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if type(value) is not bool:
        raise InvalidMessage("expected true or false", path=attribute.name)


def _positive(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if type(value) not in (int, float) or not 0 < cast("float", value) < math.inf:
        raise InvalidMessage("expected a positive, finite number", path=attribute.name)


def _positive_whole(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if type(value) is not int or value < 1:
        raise InvalidMessage("expected a positive whole number", path=attribute.name)


def _optional_positive_whole(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        _positive_whole(instance, attribute, value)


def _names(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if type(value) is not frozenset or any(type(name) is not str for name in value):
        raise InvalidMessage("expected a frozen set of text", path=attribute.name)


# JavaScript has one number type: its 32 may arrive as a float, which is the whole number all the same.
def _whole(value: Any, path: str) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or value < 1:
        raise InvalidMessage("expected a positive whole number", path=path)
    return min(value, _MAX_SAFE_INTEGER)


# Null and absence mean the same in optional fields: the default.
def _optional(wire: Wire, name: str, check: Any) -> dict[str, Any]:
    value = wire.get(name)
    return {} if value is None else {name: check(value, name)}


def _wire_extensions(value: Any, path: str) -> frozenset[str]:
    if type(value) is not list or any(type(name) is not str for name in value):
        raise InvalidMessage("expected a list of text", path=path)
    return EXTENSIONS.intersection(value)


# The same error, seen from the whole message.
def _within(path: str, error: InvalidMessage) -> InvalidMessage:
    problem = str(error).removeprefix(f"{error.path}: ")
    return type(error)(problem, path=f"{path}.{error.path}")


def _unchecked(value: Any, path: str) -> Any:
    return value


# --- Registration ------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class RegisterWorker:
    """A worker introduces itself. Always its first message.

    Attributes:
        worker_type: The queue it serves, e.g. ``"embedding"``.
        worker_secret: Shared secret; kept out of repr and logs. One that is absent or no text arrives as ``""``, so that it is
            refused like any other wrong secret, with the same words.
        max_batch_size: Most jobs per batch, at least 1; above 1000 it is clamped.
        max_latency: Longest wait of a batch's oldest job, in seconds (wire: ``max_latency_ms``). Whether it exceeds the job timeout
            is the engine's policy.
        eager: Extension: an idle worker is sent what is queued at once.
        max_unanswered_batches: Extension: batches it will hold at a time; None for no limit.
        max_message_bytes: Extension: largest batch message it accepts.
        extensions: Names out of `EXTENSIONS` that it asks for.

    Raises:
        InvalidMessage: a field has the wrong type or range (close code 1008).

    Spec: "Worker Registration".
    """

    worker_type: str = attrs.field(validator=_worker_type)
    worker_secret: str = attrs.field(repr=False, validator=_text)
    max_batch_size: int = attrs.field(default=32, validator=_positive_whole)
    max_latency: float = attrs.field(default=30.0, validator=_positive)
    eager: bool = attrs.field(default=False, validator=_flag)
    max_unanswered_batches: int | None = attrs.field(default=None, validator=_optional_positive_whole)
    max_message_bytes: int = attrs.field(default=900 * 1024, validator=_positive_whole)
    extensions: frozenset[str] = attrs.field(default=frozenset(), validator=_names)

    def __attrs_post_init__(self) -> None:
        if self.max_batch_size > MAX_BATCH_SIZE:
            object.__setattr__(self, "max_batch_size", MAX_BATCH_SIZE)

    @classmethod
    def from_wire(cls, wire: Wire) -> RegisterWorker:
        """Check the decoded map of an ``i_am_worker``."""
        config = wire.get("worker_config")
        if type(config) is not dict:
            raise InvalidMessage("expected a map", path="worker_config")
        secret = wire.get("worker_secret")
        latency_ms = config.get("max_latency_ms")
        try:
            return cls(
                worker_type=config.get("worker_type"),
                worker_secret=secret if type(secret) is str else "",
                max_latency=30.0 if latency_ms is None else _whole(latency_ms, "max_latency_ms") / 1000,
                **_optional(config, "max_batch_size", _whole),
                **_optional(config, "eager", _unchecked),
                **_optional(config, "max_unanswered_batches", _whole),
                **_optional(config, "max_message_bytes", _whole),
                **_optional(config, "extensions", _wire_extensions),
            )
        except InvalidMessage as error:
            raise _within("worker_config", error) from None


@attrs.frozen(kw_only=True)
class RegisterClient:
    """A client introduces itself (wire: ``i_am_server``, for the public engine's client is a server to others).

    Attributes:
        token: Chooses its tenant where the engine asks for tokens; kept out of repr and logs.
        version: Whatever version it says it has. Any is accepted.
        extensions: Names out of `EXTENSIONS` that it asks for.

    Raises:
        InvalidMessage: a field has the wrong type (close code 1008).
    """

    token: str | None = attrs.field(default=None, repr=False, validator=_optional_text)
    version: str | None = attrs.field(default=None, validator=_optional_text)
    extensions: frozenset[str] = attrs.field(default=frozenset(), validator=_names)

    @classmethod
    def from_wire(cls, wire: Wire) -> RegisterClient:
        """Check the decoded map of an ``i_am_server``."""
        version = wire.get("version")
        return cls(
            token=wire.get("token"),
            version=version if type(version) is str else None,
            **_optional(wire, "extensions", _wire_extensions),
        )


# --- Requests ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Resource:
    """Bytes that jobs of the same request refer to.

    Attributes:
        resource_id: Unique within its request; any text.
        kind: ``"image"`` or ``"document"``.
        data: At most 2 MiB. A document's text as UTF-8.

    Raises:
        InvalidMessage: wrong kind or types (close code 1008).
        ResourceRejected: too large (close code 1009).

    Spec: "Resource Reference Model", "Resource Validation".
    """

    resource_id: str = attrs.field(validator=_text)
    kind: Literal["image", "document"] = attrs.field()
    data: bytes = attrs.field(repr=False)

    @kind.validator
    def _check_kind(self, attribute: attrs.Attribute[Any], value: object) -> None:
        if value not in ("image", "document"):
            raise InvalidMessage("expected image or document", path="type")

    @data.validator
    def _check_data(self, attribute: attrs.Attribute[Any], value: object) -> None:
        if type(value) is not bytes:
            raise InvalidMessage("expected bytes", path="data")
        if len(value) > MAX_RESOURCE_BYTES:
            raise ResourceRejected(f"larger than {MAX_RESOURCE_BYTES} bytes", path="data")

    @classmethod
    def from_wire(cls, wire: object, path: str) -> Resource:
        """Check one member of ``resources``."""
        if type(wire) is not dict:
            raise InvalidMessage("expected a map", path=path)
        kind = wire.get("type")
        data = wire.get("data")
        if kind == "document":
            if type(data) is not str:
                raise InvalidMessage("expected text in a document", path=f"{path}.data")
            data = data.encode()
        try:
            return cls(wire.get("id"), kind, data)
        except InvalidMessage as error:
            raise _within(path, error) from None


@attrs.define(eq=False)
class JobRequest:
    """One valid job of a request.

    Attributes:
        client_job_id: The client's own id (wire: ``job_id``), whatever CBOR kind it is. Only echoed.
        worker_type: The queue it is for.
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
        client_job_id: The client's id, `MISSING` if there is none.
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
        resources: Each is referred to by a job; each reference of a job is among them.

    Spec: "Resource Submission".
    """

    jobs: list[JobRequest]
    invalid: list[InvalidJob] = attrs.Factory(list)
    resources: tuple[Resource, ...] = ()

    @classmethod
    def from_wire(cls, wire: Wire, *, may_refer: bool = True) -> WorkerRequest:
        """Check the decoded map of a ``worker_request``.

        Args:
            wire: The whole message.
            may_refer: False if no reference can be in it, which saves the search.

        Raises:
            InvalidMessage: no list of jobs, or bad resource objects (1008).
            ResourceRejected: a resource too large, missing or unused (1009).
        """
        wire_jobs = wire.get("jobs")
        if type(wire_jobs) is not list:
            raise InvalidMessage("expected a list", path="jobs")
        jobs: list[JobRequest] = []
        add = jobs.append
        invalid: list[InvalidJob] = []
        for job in wire_jobs:
            # Most jobs are exactly like this. Whatever differs goes the careful way.
            if (
                type(job) is dict
                and len(job) == 3
                and type(client_job_id := job.get("job_id")) is str
                and type(worker_type := job.get("worker_type")) is str
                and type(job_input := job.get("input")) is dict
                and 0 < len(worker_type) <= _MAX_WORKER_TYPE
            ):
                add(JobRequest(client_job_id, worker_type, job_input))
            else:
                checked = _job_from_wire(job)
                if type(checked) is JobRequest:
                    add(checked)
                else:
                    invalid.append(cast("InvalidJob", checked))
        resources = _resources_from_wire(wire.get("resources"))
        if resources or may_refer:
            _match(jobs, resources)
        return cls(jobs, invalid, resources)


# The fields of a job that are not passed through beside its input. ``id`` is not the client's to set.
_JOB_FIELDS: Final = frozenset({"job_id", "worker_type", "input", "id"})


def _job_from_wire(job: object) -> JobRequest | InvalidJob:
    if type(job) is not dict:
        return InvalidJob(MISSING, "expected a map")
    if "job_id" not in job:
        return InvalidJob(MISSING, "job_id: expected an id")
    client_job_id = job["job_id"]
    worker_type = job.get("worker_type")
    if type(worker_type) is not str or not 0 < len(worker_type) <= _MAX_WORKER_TYPE:
        return InvalidJob(client_job_id, f"worker_type: expected 1 to {_MAX_WORKER_TYPE} characters")
    job_input = job.get("input", {})
    if type(job_input) is not dict:
        return InvalidJob(client_job_id, "input: expected a map")
    extra = {name: value for name, value in job.items() if name not in _JOB_FIELDS}
    return JobRequest(client_job_id, worker_type, job_input, extra or None)


def _resources_from_wire(wire: object) -> tuple[Resource, ...]:
    if wire is None:
        return ()
    if type(wire) is not list:
        raise InvalidMessage("expected a list", path="resources")
    return tuple(Resource.from_wire(resource, f"resources[{i}]") for i, resource in enumerate(wire))


# Fill in each job's references, and hold them against the resources.
def _match(jobs: list[JobRequest], resources: tuple[Resource, ...]) -> None:
    unused = {resource.resource_id for resource in resources}
    if len(unused) < len(resources):
        raise InvalidMessage("two resources with the same id", path="resources")
    known = frozenset(unused)
    for index, job in enumerate(jobs):
        job.references = references.collect(job.input)
        if not known.issuperset(job.references):
            raise ResourceRejected(
                "refers to a resource that is not in this request", path=f"jobs[{index}].input"
            )
        unused.difference_update(job.references)
    if unused:
        raise ResourceRejected(f"{len(unused)} not referred to by any job", path="resources")


# --- Work and its results ----------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class BatchJob:
    """One job as a worker gets it.

    Attributes:
        job_id: The engine's id (wire: ``id``), to be given back with the result.
        input: What to work on; references are paths by now.
        extra: Fields beside ``input``; None if there are none.
    """

    job_id: str
    input: dict[str, Any]
    extra: dict[str, Any] | None = None

    @classmethod
    def from_wire(cls, wire: object) -> BatchJob | None:
        """Check one member of ``inputs``; None if it cannot be run, or not be answered for want of an id."""
        if type(wire) is not dict:
            return None
        job_id = wire.get("id", wire.get("job_id"))
        if type(job_id) is not str:
            return None
        rest = {name: value for name, value in wire.items() if name not in ("id", "job_id")}
        if "input" not in rest:
            return cls(job_id, rest)
        job_input = rest.pop("input")
        return cls(job_id, job_input, rest or None) if type(job_input) is dict else None


@attrs.define(eq=False)
class JobBatch:
    """Jobs sent to a worker in one message; the only message without a ``type``. Spec: "Job Batch Distribution".

    Attributes:
        jobs: In the order sent. May be empty.
        malformed: Number of members that were no job. One bad job does not spoil its batch.
    """

    jobs: list[BatchJob]
    malformed: int = 0

    @classmethod
    def from_wire(cls, wire: Wire) -> JobBatch:
        """Check the decoded map of a batch."""
        members = wire.get("inputs")
        if type(members) is not list:
            raise InvalidMessage("expected a list", path="inputs")
        jobs = [job for member in members if (job := BatchJob.from_wire(member)) is not None]
        return cls(jobs, len(members) - len(jobs))


@attrs.define(eq=False)
class WorkerOutput:
    """Results of a worker. Spec: "Worker Output".

    Attributes:
        entries: The engine's job id, and the whole entry as one CBOR map, known to be valid: it is only passed on.
        malformed: Number of members that were no entry. The good ones count all the same.
    """

    entries: list[tuple[str, bytes]]
    malformed: int = 0


@attrs.define(eq=False)
class WorkerResponse:
    """A client's job is done.

    Attributes:
        client_job_id: The id that the client gave.
        output: The worker's entry, or ``{"error", "error_kind"}`` if the engine ended the job.
    """

    client_job_id: Any
    output: dict[str, Any]

    @classmethod
    def from_wire(cls, wire: Wire) -> WorkerResponse:
        """Check the decoded map of a ``worker_response``."""
        if "job_id" not in wire:
            raise InvalidMessage("expected an id", path="job_id")
        output = wire.get("output")
        if type(output) is not dict:
            raise InvalidMessage("expected a map", path="output")
        return cls(wire["job_id"], output)


@attrs.frozen
class UnknownMessage:
    """A message of a type that this version does not know; to be ignored.

    Attributes:
        message_type: The start of what it calls itself. From the peer: escape it before showing it.
    """

    message_type: str


Message: TypeAlias = (
    RegisterWorker
    | RegisterClient
    | WorkerRequest
    | JobBatch
    | WorkerOutput
    | WorkerResponse
    | UnknownMessage
)

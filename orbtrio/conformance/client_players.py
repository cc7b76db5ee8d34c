"""The engine that the suite plays for a client under test: a connection, what came on it, and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from orbtrio.conformance.notation import encode
from orbtrio.conformance.peer import Message, Peer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orbtrio.conformance.peer import WireLog
    from orbtrio.conformance.world import Pipe

__all__ = ["Request", "SubmittedJob", "SuiteEngine", "result_for"]

# What stands in a result of the documented types: the client's user may look at it.
_RESULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "embedding": {"embedding": [0.6, 0.8], "shape": [2]},
    **{name: {"response": "a street"} for name in ("llm", "vlm", "caption")},
    "object_detection": {"detections": []},
    "segmentation": {"masks": [], "labels": [], "boxes": []},
    "video_segmentation": {
        "cross_job_id": "",
        "frame_count": 1,
        **{name: [] for name in ("objects", "scores", "labels", "boxes", "masks")},
    },
    "motion_energy": {"motion_energy": 0.5},
}


@attrs.frozen(eq=False)
class SubmittedJob:
    """A job of the client.

    Attributes:
        at: When it came.
        wire: As it stood in its request.
        request: Which.
    """

    at: float
    wire: Any
    request: Request

    @property
    def fields(self) -> dict[Any, Any]:
        """The same; empty if it is no map."""
        return self.wire if isinstance(self.wire, dict) else {}

    @property
    def job_id(self) -> Any:
        """The client's identifier."""
        return self.fields.get("job_id")

    @property
    def worker_type(self) -> Any:
        """Who is to do it."""
        return self.fields.get("worker_type")

    @property
    def key(self) -> bytes:
        """Its identifier's CBOR: 1, 1.0 and True are one key to Python."""
        return encode(self.job_id)

    @property
    def content(self) -> bytes:
        """The rest of it, with resources in place of references, by which it is recognised elsewhere."""
        resources = self.request.resources
        brought = {
            encode(resource["id"]): resource.get("data")
            for resource in (resources if isinstance(resources, list) else [])
            if isinstance(resource, dict) and "id" in resource
        }
        return encode([_resolved(self.fields[name], brought) for name in self.fields if name != "job_id"])


@attrs.define(eq=False)
class Request:
    """A ``worker_request`` as it came.

    Attributes:
        at: When.
        value: The message.
        jobs: What of its ``jobs`` is a list, entry by entry.
    """

    at: float
    value: dict[Any, Any]
    jobs: list[SubmittedJob] = attrs.field(factory=list)

    @property
    def resources(self) -> Any:
        """Its resources."""
        return self.value.get("resources", [])


class SuiteEngine(Peer):
    """The engine's end of a connection that the client opened.

    Attributes:
        introductions: Messages by which the client said who it is.
        requests: What it asked for.
        jobs: The same, job by job.
        open_jobs: Those that have not been answered, oldest first.
        answered: Those that have.
        cancelled: Identifiers of jobs that it does not want any more, if it was told that we understand that.
        stray: Messages of other kinds.
    """

    def __init__(
        self, pipe: Pipe, log: WireLog, name: str, *, announces: frozenset[str] = frozenset()
    ) -> None:
        self.introductions: list[Message] = []
        self.requests: list[Request] = []
        self.jobs: list[SubmittedJob] = []
        self.open_jobs: list[SubmittedJob] = []
        self.answered: list[SubmittedJob] = []
        self.cancelled: list[Any] = []
        self.stray: list[Message] = []
        super().__init__(pipe, log, name, server=True, announces=announces)

    def received(self, message: Message) -> None:
        """Sort it."""
        value = message.value
        kind = value.get("type") if isinstance(value, dict) else None
        if kind == "i_am_server":
            self.introductions.append(message)
        elif kind == "worker_request":
            request = Request(message.at, value)
            entries = value.get("jobs")
            for entry in entries if isinstance(entries, list) else []:
                request.jobs.append(SubmittedJob(message.at, entry, request))
            self.requests.append(request)
            self.jobs += request.jobs
            self.open_jobs += request.jobs
        elif kind == "cancel_request" and "cancel" in self.announced:
            names = value.get("job_ids")
            self.cancelled += names if isinstance(names, list) else [names]
        else:
            self.stray.append(message)

    @property
    def asked(self) -> frozenset[str]:
        """The extensions that the client asked for when it introduced itself."""
        values = [message.value.get("extensions") for message in self.introductions]
        names = values[0] if values and isinstance(values[0], list) else []
        return frozenset(name for name in names if isinstance(name, str))

    @property
    def left_politely(self) -> bool:
        """The client has closed the connection, as one does."""
        return self.closed is not None and self.closed.code in (1000, 1001)

    def respond(self, job_id: Any, output: Any, **fields: Any) -> None:
        """Send a ``worker_response`` with this output, and these fields beside it."""
        self.send({"type": "worker_response", "job_id": job_id, "output": output, **fields})

    def answer(self, job: SubmittedJob, **fields: Any) -> None:
        """Answer a job: with these fields, or with a result as the spec prints it for its type."""
        if job in self.open_jobs:
            self.open_jobs.remove(job)
            self.answered.append(job)
        self.respond(job.job_id, {"id": f"orb-{len(self.answered)}", **(fields or result_for(job))})

    def answer_together(self, jobs: Sequence[SubmittedJob]) -> None:
        """Answer these jobs in one message, as one may to a client that asked for `batched_responses`."""
        responses = [
            {"job_id": job.job_id, "output": {"id": f"orb-{number}", **result_for(job)}}
            for number, job in enumerate(jobs)
        ]
        self.open_jobs = [job for job in self.open_jobs if job not in jobs]
        self.answered += jobs
        self.send({"type": "worker_responses", "responses": responses})

    def answer_all(self) -> None:
        """Answer everything that is open."""
        for job in self.open_jobs[:]:
            self.answer(job)


def result_for(job: SubmittedJob) -> dict[str, Any]:
    """A result of the job's type."""
    job_input = job.fields.get("input")
    result = dict(_RESULTS.get(str(job.worker_type), {"result": "done"}))
    if "cross_job_id" in result and isinstance(job_input, dict):
        result["cross_job_id"] = job_input.get("cross_job_id", "")
    return result


def _resolved(value: Any, brought: Mapping[bytes, Any]) -> Any:
    if isinstance(value, list):
        return [_resolved(item, brought) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("__type") == "resource-ref":
        return [brought.get(encode(value.get("id")))]
    return {name: _resolved(item, brought) for name, item in value.items()}

"""What comes back: a worker's results and progress, and what a client hears of them.

The engine passes all of it on as bytes; the values are for both ends. See `messages` for the rest.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from orbtrio.errors import InvalidMessage

__all__ = [
    "MISSING",
    "ProgressReport",
    "WorkerOutput",
    "WorkerProgress",
    "WorkerResponse",
    "WorkerResponses",
    "list_of",
]

MISSING: Final = attrs.NOTHING  # the client's id of a job that has none; null could be an id


def list_of(wire: dict[str, Any], name: str) -> list[Any]:
    """The list in the field `name`."""
    members = wire.get(name)
    if type(members) is not list:
        raise InvalidMessage("expected a list", path=name)
    return members


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

    def to_wire(self) -> dict[str, Any]:
        """The ``worker_response``."""
        return {"type": "worker_response", "job_id": self.client_job_id, "output": self.output}


@attrs.define(eq=False)
class WorkerResponses:
    """Extension ``batched_responses``: answers that were ready together.

    Attributes:
        responses: In the order in which they would have come singly.
    """

    responses: list[WorkerResponse]

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> WorkerResponses:
        """Check a ``worker_responses``."""
        responses = []
        for member in list_of(wire, "responses"):
            if type(member) is not dict:
                raise InvalidMessage("expected maps", path="responses")
            responses.append(WorkerResponse.from_wire(member))
        return cls(responses)

    def to_wire(self) -> dict[str, Any]:
        """The ``worker_responses``."""
        members = [{"job_id": one.client_job_id, "output": one.output} for one in self.responses]
        return {"type": "worker_responses", "responses": members}


@attrs.define(eq=False)
class WorkerProgress:
    """Extension ``progress``: what a worker has to tell about jobs before it answers them.

    Attributes:
        entries, malformed: As of a `WorkerOutput`.
    """

    entries: list[tuple[str, bytes]]
    malformed: int = 0


@attrs.define(eq=False)
class ProgressReport:
    """Extension ``progress``: the same, for a client (wire: ``worker_progress`` too).

    Attributes:
        client_job_id: The id that the client gave.
        progress: The worker's fields, without ``id``.
        attempt: 1, or more after the worker was lost: another one has started from the beginning.
    """

    client_job_id: Any
    progress: dict[str, Any]
    attempt: int = 1

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> ProgressReport:
        """Check a ``worker_progress`` of an engine."""
        progress, attempt = wire.get("progress"), wire.get("attempt", 1)
        if type(progress) is not dict:
            raise InvalidMessage("expected a map", path="progress")
        if type(attempt) is not int or attempt < 1:
            raise InvalidMessage("expected a positive whole number", path="attempt")
        return cls(wire.get("job_id", MISSING), progress, attempt)

    def to_wire(self) -> dict[str, Any]:
        """The ``worker_progress``."""
        again = {"attempt": self.attempt} if self.attempt > 1 else {}
        own = {"type": "worker_progress", "job_id": self.client_job_id}
        return {**own, **again, "progress": self.progress}

"""A client at the other end of a connection: how it hears of its jobs. See `jobs.Requester`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orbtrio.protocol import codec
from orbtrio.protocol.messages import MISSING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from orbtrio.engine.jobs import Job
    from orbtrio.transport import Transport

__all__ = ["RemoteClient"]


class RemoteClient:
    """A client that hears what it asked for when it registered.

    Args:
        transport: The connection.
        extensions: What it asked for.
    """

    def __init__(self, transport: Transport, extensions: frozenset[str] = frozenset()) -> None:
        self.open_jobs: dict[Hashable, Job] = {}
        self.extensions = extensions
        self._transport = transport
        self._engine_errors = "engine_errors" in extensions
        self._progress = "progress" in extensions

    def deliver(self, job: Job, output: bytes) -> None:
        self._transport.queue(job.response_head, output)

    def report(self, job: Job, entry: bytes) -> None:
        if self._progress:
            fields = codec.progress_fields(entry)
            self._transport.queue(*codec.progress_parts(job.response_head, job.deliveries, fields))

    def refuse(self, client_job_id: Any, kind: str, text: str) -> None:
        # A stock client hears nothing, as the spec says ("Callback never invoked"); nor could it tell which
        # job without an id.
        if self._engine_errors and client_job_id is not MISSING:
            self._transport.queue(codec.response_head(client_job_id), codec.error_output(text, kind))

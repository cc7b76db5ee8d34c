"""The extensions, as the model worker has them: each again a method of its own.

It reports when it begins with a batch and when it ends, answers cancelled jobs at once, drains when it is to
end, works on the files that come with a batch, and answers with vectors as they lie in memory. All of that
only on links whose engine announced it.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Any

import cbor2
from wsproto.events import CloseConnection, Event

from orbtrio.conformance.simulation import Exited

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orbtrio.conformance.simulation import Handle, Host

__all__ = ["WorkerExtensions"]


class WorkerExtensions:
    """Half of the model worker.

    Attributes:
        announced: What the engine of this link understands.
        batches: What is in hand, the oldest first.
        computing: When that is done.
        files: What came with each of them, by their identity.
        opened: What came with the one that is being answered.
        ending: It has been asked to end.
    """

    host: Host
    connected: bool

    def __init__(self) -> None:
        self.announced: frozenset[str] = frozenset()
        self.batches: deque[list[Any]] = deque()
        self.computing: Handle | None = None
        self.files: dict[int, dict[str, bytes]] = {}
        self.opened: dict[str, bytes] = {}
        self.ending = False

    # --- what the other half does ---

    def compute(self) -> None:
        """Begin with the oldest batch."""
        raise NotImplementedError

    def id_of(self, job: dict[str, Any]) -> Any:
        """By what a job is answered."""
        raise NotImplementedError

    def send_output(self, entries: list[dict[str, Any]]) -> None:
        """Answer jobs."""
        raise NotImplementedError

    def send(self, message: Any) -> None:
        """One message."""
        raise NotImplementedError

    def send_event(self, event: Event) -> None:
        """One frame."""
        raise NotImplementedError

    # --- negotiation ---

    def asks_for(self) -> list[str]:
        """The extensions that it asks for."""
        return ["cancel", "drain", "inline_resources", "progress", "typed_arrays"]

    def on_announcement(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """What the engine understands."""
        text = b",".join(bytes(value) for name, value in headers if bytes(name).lower() == b"orb-extensions")
        self.announced = frozenset(name.strip() for name in text.decode().split(","))

    def understands(self, name: str) -> bool:
        """Whether the engine does."""
        return name in self.announced

    def on_extension_message(self, message: Any) -> bool:
        """No batch; whether it was anything."""
        if not isinstance(message, dict) or message.get("type") != "cancel_jobs":
            return False
        ids = message.get("ids")
        self.on_cancel([job_id for job_id in ids if isinstance(job_id, str)] if isinstance(ids, list) else [])
        return True

    # --- progress ---

    def report_on(self, jobs: list[Any]) -> None:
        """Say that it begins with these."""
        if self.understands("progress"):
            ids = [self.id_of(job) for job in jobs if isinstance(job, dict)]
            self.report([{"id": job_id, "percent": 0} for job_id in ids if isinstance(job_id, str)])

    def report(self, entries: list[dict[str, Any]]) -> None:
        """One message."""
        if entries:
            self.send({"type": "worker_progress", "progress": entries})

    # --- typed arrays ---

    def vector(self, numbers: list[float]) -> Any:
        """Numbers of a result: as bytes, for an engine that takes those."""
        return self.typed(numbers) if self.understands("typed_arrays") else numbers

    def typed(self, numbers: list[float]) -> cbor2.CBORTag:
        """As float64, little-endian."""
        return cbor2.CBORTag(86, struct.pack(f"<{len(numbers)}d", *numbers))

    # --- cancelling ---

    def on_cancel(self, ids: list[str]) -> None:
        """Jobs that nobody wants any more are answered so, once, and not computed."""
        for job_id in dict.fromkeys(ids):
            for jobs in list(self.batches):
                wanted = [job for job in jobs if not isinstance(job, dict) or self.id_of(job) != job_id]
                if len(wanted) < len(jobs):
                    jobs[:] = wanted
                    self.answer_cancelled(job_id)
                    self.drop_if_empty(jobs)

    def answer_cancelled(self, job_id: str) -> None:
        """A cancelled job is answered, too."""
        self.send_output([{"id": job_id, "error": "cancelled"}])

    def drop_if_empty(self, jobs: list[Any]) -> None:
        """Nothing of the batch is left."""
        if jobs:
            return
        first = self.batches[0] is jobs
        self.batches = deque(batch for batch in self.batches if batch is not jobs)
        self.files.pop(id(jobs), None)
        if first and self.computing is not None:
            self.computing.cancel()
            self.computing = None
            if self.batches:
                self.compute()
            self.on_idle()

    # --- draining ---

    def terminate(self) -> None:
        """It has been asked to end."""
        self.ending = True
        if self.connected and self.drains():
            self.send({"type": "worker_drain"})
        else:
            self.on_idle()

    def drains(self) -> bool:
        """Whether the engine says when it may go."""
        return self.understands("drain")

    def on_idle(self) -> None:
        """Nothing is in hand. Who cannot drain goes now, if it is to end."""
        if self.ending and not self.batches and not (self.connected and self.drains()):
            self.leave()

    def on_lost(self) -> None:
        """The link is over: who is to end needs no other."""
        self.announced = frozenset()
        if self.ending:
            raise Exited("asked to end")

    def leave(self) -> None:
        """End in order."""
        self.send_event(CloseConnection(1000))
        raise Exited("asked to end")

    # --- files that come with a batch ---

    def keep_files(self, message: dict[str, Any], jobs: list[Any]) -> None:
        """Until its jobs are answered."""
        entries = message.get("resources")
        if self.understands("inline_resources") and isinstance(entries, list):
            self.files[id(jobs)] = {entry["path"]: entry["data"] for entry in entries if self.is_file(entry)}

    def is_file(self, entry: Any) -> bool:
        """A path and bytes."""
        return (
            isinstance(entry, dict)
            and isinstance(entry.get("path"), str)
            and isinstance(entry.get("data"), bytes)
        )

    def open_files(self, jobs: list[Any]) -> None:
        """From now on these are what there is to read."""
        self.opened = self.files.pop(id(jobs), {})

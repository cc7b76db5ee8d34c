"""What is known of a worker under test from plan to plan: its link, what it can do, how long that takes."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any, Final

import attrs

from orbtrio.conformance.examples import sample_input
from orbtrio.conformance.notation import diagnostic
from orbtrio.conformance.peer import Message, Peer, WireLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orbtrio.conformance.world import Pipe

__all__ = ["IMAGE", "OTHER_PICTURE", "Answer", "Bench", "WorkJob", "WorkerLink"]

# Stands for the path of a picture in the inputs that a user gives.
IMAGE: Final = "{image}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# A second picture, of the size of `PICTURE` and as different from it as a white wall.
OTHER_PICTURE: Final = (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress(16 * (b"\0" + 16 * b"\xff")))
    + _chunk(b"IEND", b"")
)


@attrs.frozen(eq=False)
class Answer:
    """An entry of a worker's output.

    Attributes:
        at: When it came.
        entry: As it came.
    """

    at: float
    entry: dict[str, Any]

    @property
    def failed(self) -> bool:
        """It is an error, not a result."""
        return self.entry.get("error") is not None


class WorkerLink(Peer):
    """A connection of the worker under test.

    Attributes:
        connected_at: When it was accepted.
        first: The first message on it, which should be the registration.
        answers: Entries of all outputs, by the CBOR diagnostic notation of their ``id``.
        outputs: Messages that are outputs.
        reports: Messages of progress, if the worker was told that we understand them.
        drains: Messages by which it says that it wants to go, likewise.
        stray: Messages that are none of these.
    """

    def __init__(
        self, pipe: Pipe, log: WireLog, name: str, *, announces: frozenset[str] = frozenset()
    ) -> None:
        self.connected_at = log.now()
        self.first: Message | None = None
        self.answers: dict[str, list[Answer]] = {}
        self.outputs: list[Message] = []
        self.reports: list[Message] = []
        self.drains: list[Message] = []
        self.stray: list[Message] = []
        super().__init__(pipe, log, name, server=True, announces=announces)

    @property
    def registered_as(self) -> dict[str, Any]:
        """The ``worker_config`` of the registration; empty if there is none."""
        value = self.first.value if self.first is not None else None
        config = value.get("worker_config") if isinstance(value, dict) else None
        return config if isinstance(config, dict) else {}

    @property
    def asked(self) -> frozenset[str]:
        """The extensions that it asked for."""
        names = self.registered_as.get("extensions")
        return (
            frozenset(name for name in names if isinstance(name, str))
            if isinstance(names, list)
            else frozenset()
        )

    @property
    def max_batch_size(self) -> int:
        """What it registered, or the default."""
        size = self.registered_as.get("max_batch_size")
        return int(size) if isinstance(size, int | float) and size >= 1 else 32

    def has_ended(self) -> bool:
        """It is over, whoever ended it."""
        return self.closed is not None

    def has_spoken(self) -> bool:
        """Something was said on it, or it is over."""
        return self.first is not None or self.closed is not None

    def received(self, message: Message) -> None:
        """Sort it."""
        value = message.value
        kind = value.get("type") if isinstance(value, dict) else None
        if self.first is None:
            self.first = message
        elif kind == "worker_progress" and "progress" in self.announced:
            self.reports.append(message)
        elif kind == "worker_drain" and "drain" in self.announced:
            self.drains.append(message)
        elif kind == "worker_output":
            self.outputs.append(message)
            entries = value.get("output")
            for entry in entries if isinstance(entries, list) else ():
                if isinstance(entry, dict):
                    known = self.answers.setdefault(diagnostic(entry.get("id")), [])
                    known.append(Answer(message.at, entry))
        else:
            self.stray.append(message)

    def take_over(self, log: WireLog, name: str) -> None:
        """Begin anew, for the next stage: only that it is registered is remembered."""
        self._log, self.name = log, name
        self.answers.clear()
        for kept in (self.messages, self.outputs, self.reports, self.drains, self.stray):
            kept.clear()
        for other in (self.undecodable, self.texts, self.pings):
            other.clear()
        self.pongs.clear()
        log.remark("has been connected and registered since before this plan:", peer=name)
        if self.first is not None:
            log.add(name, "<-", self.first.value)


@attrs.define(eq=False)
class WorkJob:
    """A job for the worker.

    Attributes:
        id: By which it is to be answered.
        entry: As it stands in the batch.
        link: On which it was sent.
    """

    id: str
    entry: dict[str, Any]
    link: WorkerLink | None = None

    @property
    def answers(self) -> list[Answer]:
        """What came for it on the link on which it was sent."""
        return [] if self.link is None else self.link.answers.get(diagnostic(self.id), [])


@attrs.define(kw_only=True, eq=False)
class Bench:
    """What is known of the worker under test, from plan to plan.

    Attributes:
        folder: For pictures.
        worker_type: As what it is tested; None until its registration has told.
        max_batch_size, max_latency_ms: What it is started with. Unusual, to be told from defaults.
        given: Inputs that the user gave, instead of samples; ``{image}`` in them is a picture's path.
        good: Numbers of the inputs that it answered by a result; None: not tried, all are taken for good.
        job_seconds: That it takes for a job.
        link: That the last plan left in order.
        losses: Links that it has lost in this life: its back-off has grown by them.
        restart: Starts it again; None where each plan has a fresh one anyway.
        terminate: Asks its process to end, by SIGTERM; None if that is not possible.
    """

    folder: Path
    worker_type: str | None = None
    max_batch_size: int = 7
    max_latency_ms: int = 250
    given: tuple[dict[str, Any], ...] = ()
    good: tuple[int, ...] | None = None
    job_seconds: float = 0.0
    link: WorkerLink | None = None
    losses: int = 0
    restart: Callable[[], None] | None = None
    terminate: Callable[[], None] | None = None

    def inputs(self, image: str) -> list[dict[str, Any]]:
        """All ways in which a job can be put, the simplest first."""
        if self.given:
            return [_replaced(given, image) for given in self.given]
        ways: list[dict[str, Any]] = []
        for number in range(10):
            way = sample_input(self.worker_type or "", image, number)
            if way in ways:
                break
            ways.append(way)
        return ways


def _replaced(value: Any, image: str) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(inner, image) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, image) for inner in value]
    return image if value == IMAGE else value

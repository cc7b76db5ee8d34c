"""The books of a soak: every event in a log, and what is known of each connection and each job.

Numbers of jobs stand for ids in all that is written down, because ids differ from run to run.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TextIO

import attrs

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["TIMEOUT", "Book", "ClientBook", "EventLog", "JobHistory", "SoakFailure", "WorkerBook"]

TIMEOUT: Final = 300.0


class SoakFailure(AssertionError):
    """A promise is broken; the text tells the whole story of it."""


class EventLog:
    """Every event in one line, digested; the same seed makes the same lines, byte for byte.

    Attributes:
        lines: How many there are.
        counts: How often each interesting state was reached.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.lines = 0
        self._file = file
        self._digest = hashlib.blake2b(digest_size=16)

    def write(self, now: float, text: str) -> str:
        line = f"{now:.6f} {text}\n"
        self.lines += 1
        self._digest.update(line.encode())
        if self._file is not None:
            self._file.write(line)
        return line

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()


@attrs.define(eq=False)
class Book:
    """A connection as the oracle sees it.

    Attributes:
        doomed: Something was done that ends it.
        suspect: It may have ended without the peer knowing.
        gone: The peer knows that it has ended.
        slow: Bytes of it have been delayed.
        slack: Seconds by which messages may be late because of the link.
        sound_since: When it was last in doubt.
    """

    name: str
    sound_since: float
    doomed: bool = False
    suspect: bool = False
    gone: bool = False
    slow: bool = False
    slack: float = 0.0

    @property
    def sound(self) -> bool:
        return not (self.doomed or self.suspect or self.gone)


@attrs.define(eq=False)
class WorkerBook(Book):
    """Attributes: what it registered as; what it holds, and in which of its batches."""

    worker_type: str = ""
    max_batch_size: int = 1
    max_latency: float = 30.0
    credit: int | None = None
    eager: bool = False
    batches: int = 0
    held: dict[int, tuple[JobHistory, int]] = attrs.Factory(dict)
    last_of_key: dict[Hashable, int] = attrs.Factory(dict)

    def open_batches(self, now: float) -> int:
        """How many batches it owes something of; what is past its deadline is owed no more."""
        return len({batch for job, batch in self.held.values() if now < job.submitted_at + TIMEOUT})


@attrs.define(eq=False)
class ClientBook(Book):
    """Attributes: whether it asked for `engine_errors`, and its jobs without an end, by its own ids."""

    engine_errors: bool = False
    open: dict[Hashable, JobHistory] = attrs.Factory(dict)


@attrs.define(eq=False)
class JobHistory:
    """One job: what it was, and all that happened to it.

    Attributes:
        fields: What the worker must get as input, but for the path of its resource.
        refusal: Why the engine must refuse it; empty if it must not.
        deliveries: Workers that it reached, in order.
        owner_from: Which of them is the first that may have it now.
        answers: What each of those sent as its answer.
        too_large: Whether one was too large to be delivered.
        end: The kind of its end as the client heard it, ``"answer"`` or one of P-31; or ``"silence"``.
    """

    number: int
    client: ClientBook
    client_job_id: Hashable
    worker_type: str
    fields: dict[str, Any]
    resource: str | None
    key: str | None
    refusal: str
    submitted_at: float
    deaths_before: int = 0
    deliveries: list[WorkerBook] = attrs.Factory(list)
    owner_from: int = 0
    answers: dict[WorkerBook, bytes] = attrs.Factory(dict)
    too_large: bool = False
    end: str = ""
    ended_at: float = math.inf
    events: list[str] = attrs.Factory(list)

    def story(self) -> str:
        """All that is known of it, for whoever has to find out why."""
        names = ", ".join(book.name + " (sound)" * book.sound for book in self.deliveries)
        return (
            f"job {self.number} of {self.client.name} for {self.worker_type}, "
            f"sent at {self.submitted_at:.6f}\n"
            f"reached: {names or 'nobody'}; end: {self.end or 'none yet'}\n" + "".join(self.events)
        )

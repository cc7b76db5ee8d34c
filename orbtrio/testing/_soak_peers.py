"""The peers of a soak: scripted ones whose script is drawn.

A peer tells the oracle what reaches it before anything else happens, and what it sends as its good answers.
What it does then, and when, is drawn from the stage's generator; the stage does it later.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from orbtrio.errors import ConnectionLost
from orbtrio.protocol import codec
from orbtrio.protocol.messages import JobBatch, RegisterClient, RegisterWorker, WorkerOutput, WorkerResponse
from orbtrio.testing._soak_books import TIMEOUT
from orbtrio.testing.peers import LIMITS, ScriptedPeer
from orbtrio.transport import open_client_transport

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from orbtrio.protocol.messages import Message
    from orbtrio.testing._soak_books import Book, ClientBook, JobHistory, WorkerBook
    from orbtrio.testing._soak_oracle import Oracle
    from orbtrio.testing.links import Link
    from orbtrio.transport import Transport

__all__ = ["LARGEST_RESULT", "SECRET", "SoakClient", "SoakPeer", "SoakWorker", "Stage"]

SECRET: Final = "a secret for soaks"

# The engine of a soak takes messages of 256 KiB from workers, 64 of them for what is around an output.
LARGEST_RESULT: Final = 192 * 1024

_URL: Final = "ws://localhost/ws"


class Stage(Protocol):
    """Where peers act."""

    rng: random.Random
    oracle: Oracle
    healing: bool

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something after so many seconds."""

    def fault(self, kind: str, whom: str) -> None:
        """Count a fault, and write it down."""

    def left(self, peer: SoakPeer) -> None:
        """A peer's connection has ended."""


class SoakPeer(ScriptedPeer):
    """A connection with a book.

    Attributes:
        book: What the oracle knows of it.
    """

    def __init__(self, link: Link, stage: Stage, book: Book, registration: Message) -> None:
        super().__init__(link)
        self.book = book
        self.stage = stage
        self._registration = registration

    @property
    def usable(self) -> bool:
        """Whether it can send: it is connected, and knows of no end."""
        return self._transport is not None and self.lost is None

    async def live(self) -> None:
        """From connecting to the end, whatever that is."""
        self.stage.oracle.join(self.book)
        try:
            await self.run(open_client_transport(_URL, open_stream=self.link.dial, limits=LIMITS))
        except ConnectionLost as error:
            self.lost = error
        code = self.lost.code if self.lost is not None else None
        self.stage.oracle.gone(self.book, f"closed with {code}" if code else "broken")
        self.stage.left(self)

    async def _read(self, transport: Transport) -> None:
        self.send(self._registration)
        while True:
            for raw in await transport.receive():
                self._take(codec.decode(raw), raw)

    def _take(self, message: Message, raw: bytes) -> None:
        raise NotImplementedError

    def cut(self) -> None:
        """Reset the connection."""
        self.stage.oracle.doom(self.book)
        self.link.cut()

    def send_safely(self, message: Message | bytes) -> bool:
        """Send, if there is still a connection; whether there was."""
        if self.usable:
            self.send(message)
        return self.usable


class SoakWorker(SoakPeer):
    """A worker that answers as it pleases.

    Attributes:
        mute: It answers nothing any more, until all heals.
        deadly: It dies of the next batch.
        flaps: How often it will go again soon after it has come.
    """

    book: WorkerBook

    def __init__(self, link: Link, stage: Stage, book: WorkerBook, registration: RegisterWorker) -> None:
        super().__init__(link, stage, book, registration)
        self.registration = registration
        self.mute = False
        self.deadly = False
        self.flaps = 0
        self.done: deque[str] = deque(maxlen=20)
        self.ids: dict[int, str] = {}

    def _take(self, message: Message, raw: bytes) -> None:
        oracle = self.stage.oracle
        if not isinstance(message, JobBatch):
            oracle.fail(f"{self.book.name} gets no batch but {message!r:.200}")
        jobs = oracle.batch(self.book, message.jobs)
        for job, member in zip(jobs, message.jobs, strict=True):
            self.ids[job.number] = member.job_id
        if self.stage.healing:
            self._answer_later(jobs, self.stage.rng.uniform(0.01, 0.5))
        elif self.deadly or any(job.fields.get("poison") for job in jobs):
            self.stage.fault("worker dies of its batch", self.book.name)
            self.deadly = False
            self.cut()
        elif not self.mute:
            self._plan(jobs)

    def _plan(self, jobs: list[JobHistory]) -> None:
        rng = self.stage.rng
        if rng.random() < 0.6:
            self._answer_later(jobs, rng.expovariate(1 / 0.5))
            return
        shuffled = jobs[:]
        rng.shuffle(shuffled)
        while shuffled:
            count = rng.randint(1, len(shuffled))
            part, shuffled = shuffled[:count], shuffled[count:]
            mood = rng.random()
            if mood < 0.90:
                self._answer_later(part, rng.expovariate(1 / 3.0))
            elif mood < 0.95:
                self._answer_later(part, rng.uniform(20, TIMEOUT - 10))
            elif mood < 0.98:
                self.stage.fault("answer after the deadline", self.book.name)
                self._answer_later(part, rng.uniform(TIMEOUT, TIMEOUT + 60))
            else:
                self.stage.fault("no answer at all", self.book.name)

    def _answer_later(self, jobs: list[JobHistory], seconds: float) -> None:
        self.stage.later(seconds, lambda: self.answer(jobs))

    def answer_all(self) -> None:
        """Answer whatever it holds."""
        self.answer([job for job, _ in self.book.held.values()])

    def answer(self, jobs: Iterable[JobHistory]) -> None:
        """Answer those of some jobs that it still holds, if it can."""
        if not self.usable or (self.mute and not self.stage.healing):
            return
        entries = []
        for job in jobs:
            if job.number not in self.book.held:
                continue
            job_id = self.ids.pop(job.number)
            entry = codec.output_entry(job_id, self._result(job))
            too_large = len(entry) > LARGEST_RESULT
            self.stage.oracle.answering(self.book, job, entry, too_large=too_large)
            self.done.append(job_id)
            if too_large:  # two of them would make a message that no worker may send
                self.send(WorkerOutput([(job_id, entry)]))
            else:
                entries.append((job_id, entry))
        if entries:
            self.stage.oracle.note(f"{self.book.name} answers {len(entries)}")
            self.send(WorkerOutput(entries))

    def _result(self, job: JobHistory) -> dict[str, Any]:
        rng = self.stage.rng
        if job.fields.get("vast"):
            return {"n": job.number, "vast": bytes(LARGEST_RESULT)}
        if rng.random() < 0.05:
            return {"error": f"{job.number} failed for reason {rng.random()}"}
        return {"n": job.number, "v": [rng.random(), rng.randbytes(rng.randint(0, 40)), None, {"k": -1}]}

    def babble(self, job_ids: Iterable[str]) -> bool:
        """Answer what is not to be answered: what it has answered, what others have, what nobody has."""
        entries = [(job_id, codec.output_entry(job_id, {"wrong": True})) for job_id in job_ids]
        return bool(entries) and self.send_safely(WorkerOutput(entries))


class SoakClient(SoakPeer):
    """A client that keeps nothing: all books are the oracle's."""

    book: ClientBook

    def __init__(self, link: Link, stage: Stage, book: ClientBook) -> None:
        extensions = frozenset({"engine_errors"} if book.engine_errors else ())
        super().__init__(link, stage, book, RegisterClient(extensions=extensions))

    def _take(self, message: Message, raw: bytes) -> None:
        if not isinstance(message, WorkerResponse):
            self.stage.oracle.fail(f"{self.book.name} gets no response but {message!r:.200}")
        self.stage.oracle.response(self.book, raw, message)

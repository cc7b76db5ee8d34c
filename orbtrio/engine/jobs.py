"""The job table: which jobs there are, and what may happen to each.

Pure: no trio, no sockets, no clock; time is an argument. Every change is a plain function, so no other task
sees it half done.

| job | claim | output of its owner | worker lost | deadline, silence | client gone, cancels | engine ends |
|---|---|---|---|---|---|---|
| QUEUED | IN_FLIGHT | - | - | SETTLED | SETTLED | SETTLED |
| IN_FLIGHT | - | SETTLED | QUEUED | SETTLED, or ABANDONED | ABANDONED | SETTLED |
| ABANDONED | - | SETTLED | SETTLED | SETTLED | - | - |
| SETTLED | - | - | - | - | - | - |

A missing cell is a lost race (a late output, a second deadline), never an error: the method says so in its
result and nothing changes. A job is *open* while QUEUED or IN_FLIGHT. It stops being open exactly once, and
the method that did it hands the job to its caller, who alone answers the client and releases the files
(`exchange.py` has the one function for that).

ABANDONED exists because a worker still owes an answer to a job that nobody waits for: until it answers, that
counts against its credit (P-15). Such a job has a deadline of its own, after which its worker is no longer
believed to answer. At its deadline a job is abandoned only if the worker can be told to stop, or if the
deadline was the job's own choice, for else a client with short ones could spend a worker's credit many times
over; after the engine's own timeout, nothing more is expected of a worker that cannot be told.

There may be 100,000 jobs, so nothing is kept of one that can be had again: not the beginning of its response,
for one, which takes as long to make at the end as at the beginning. An open job of 100 bytes takes 600.

There is no task, event or timer per job (`performance.md`, section 3: 1.4 µs a job this way, 75 with them).
Jobs of the engine's own timeout stand in order of acceptance, which is the order of their deadlines, and so
do the abandoned; one reaper looks at the oldest of each, and at those few that `watches` has.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from orbtrio.engine.watches import Watch, Watches
from orbtrio.protocol import splice

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from orbtrio.engine.resources import HeldFile

__all__ = ["Batch", "Job", "JobState", "JobTable", "Owner", "Requester", "acceptance"]


class JobState(enum.Enum):
    """Where a job stands; see the table in the module's docstring."""

    QUEUED = "queued"
    IN_FLIGHT = "in flight"
    ABANDONED = "abandoned"
    SETTLED = "settled"


# Enum members looked up through the class cost a dictionary walk each time; the hot path compares against
# these.
QUEUED = JobState.QUEUED
IN_FLIGHT = JobState.IN_FLIGHT
ABANDONED = JobState.ABANDONED
SETTLED = JobState.SETTLED


class Requester(Protocol):
    """Whoever submitted a job: a client's connection, or a caller of `Engine.submit`."""

    open_jobs: dict[Hashable, Job]
    extensions: frozenset[str]

    def deliver(self, job: Job, output: bytes) -> None:
        """Take the worker's output, one CBOR map."""

    def report(self, job: Job, entry: bytes) -> bool:
        """Take what the worker says before that, one CBOR map.

        False if there is no room for it any more: the job is to be given up. Nothing was taken then.
        """

    def refuse(self, client_job_id: Any, kind: str, text: str) -> None:
        """Learn that the engine ended the job, or never accepted it. P-31."""


class Owner(Protocol):
    """Whoever holds a job until it is settled: a worker's queue, or the backlog of its worker type.

    Attributes:
        cancels: Whether it can be told to stop.
    """

    @property
    def cancels(self) -> bool: ...

    def cancel(self, job_ids: list[str]) -> None:
        """Nobody waits for these any more, which it has; only if it `cancels`."""

    def let_go(self, job: Job) -> None:
        """Stop counting a job that is being settled; called once, with `job.batch` as it was."""

    def send_due(self) -> None:
        """Send what may leave now that jobs were let go."""


@attrs.define(eq=False, slots=True)
class Batch:
    """Jobs that went to a worker in one message.

    Attributes:
        sent_at: When, in seconds of the trio clock.
        jobs: In the order of the message.
        owed: How many of them the worker has not answered yet.
    """

    sent_at: float
    jobs: list[Job] = attrs.Factory(list)
    owed: int = 0


@attrs.define(eq=False, slots=True, weakref_slot=False)
class Job:
    """One accepted job.

    Attributes:
        job_id: Ours; wire ``id``. The client's own id is only echoed. It ends in the number of the job, and
            what is before that is the same in all.
        client_job_id: The client's; wire ``job_id``, any CBOR value.
        client_key: The client's id as a dictionary key; unless it is text, `response_head`.
        requester: Gets the answer.
        worker_type: Which workers may run it.
        affinity: Jobs of a type with the same key go to the same worker, in order; None for any. P-12.
        wire: Its entry of a batch, already encoded: a redelivery sends the same bytes again.
        accepted_at: Seconds of the trio clock; the latency of its batch counts from here. P-10.
        deadline: Seconds of the trio clock.
        files: Resources that it refers to.
        owner: Who holds it now.
        state: Where it stands.
        batch: The batch in which it was sent; None while it is queued.
        deliveries: How often it was sent to a worker.
        watch: If it has a deadline of its own, or must not fall silent; None for nearly all.
        told_late: Bytes of progress that its client got while it was behind with reading.
    """

    job_id: str
    client_job_id: Any
    client_key: Hashable
    requester: Requester
    worker_type: str
    affinity: str | None
    wire: bytes
    accepted_at: float
    deadline: float
    files: tuple[HeldFile, ...]
    owner: Owner
    state: JobState = QUEUED
    batch: Batch | None = None
    deliveries: int = 0
    watch: Watch | None = None
    told_late: int = 0

    @property
    def response_head(self) -> bytes:
        """The response message up to the output, encoded."""
        key: Any = self.client_key
        return splice.response_head_of_text(key.encode()) if type(key) is str else key

    def claim(self, batch: Batch) -> None:
        """QUEUED -> IN_FLIGHT; for the owner, in the step that sends `batch`."""
        self.state = IN_FLIGHT
        self.batch = batch
        self.deliveries += 1
        batch.jobs.append(self)
        if self.watch is not None:
            self.watch.sent(batch.sent_at)


class JobTable:
    """All jobs that somebody may still answer, oldest first.

    Attributes:
        open_jobs: How many are QUEUED or IN_FLIGHT.
        size_bytes: What all of those take on the wire.
        watches: Of those that have one.
    """

    def __init__(self) -> None:
        # Open, with the usual timeout. An OrderedDict would take 40 bytes more for each. But what was deleted
        # from the front of a dict makes the next look at it slow (198 µs after 50,000), so nobody looks
        # before the first can be due, nor often at what is left of a dict that was larger.
        self._jobs: dict[str, Job] = {}
        self._first_due = math.inf  # none of them is before
        self._expired = 0  # how many of them were, of the dict as it is
        self._watched: dict[str, Job] = {}  # open, with a watch
        self._owed: OrderedDict[str, Job] = OrderedDict()  # abandoned, in that order
        self.watches = Watches()
        self.open_jobs = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._jobs) + len(self._watched) + len(self._owed)

    def __iter__(self) -> Iterator[Job]:
        # A copy, because whoever goes through all jobs is about to end them.
        jobs = [*self._jobs.values(), *self._watched.values(), *self._owed.values()]
        return iter(sorted(jobs, key=acceptance))

    @property
    def next_deadline(self) -> float:
        """When the reaper has to look next; infinity while there are no jobs."""
        owed = next(iter(self._owed.values())).deadline if self._owed else math.inf
        return min(self.watches.next_look, self._first_due if self._jobs else math.inf, owed)

    def accept(self, job: Job) -> None:
        """Take in a new, QUEUED job. Deadlines of those without a watch must not decrease."""
        if job.watch is None:
            if not self._jobs:
                self._first_due = job.deadline
            self._jobs[job.job_id] = job
        else:
            self._watched[job.job_id] = job
            self.watches.add(job.watch)
        self.open_jobs += 1
        self.size_bytes += len(job.wire)
        job.requester.open_jobs[job.client_key] = job

    def answer(self, job_id: str, owner: Owner) -> Job | None:
        """An output arrived from `owner`.

        Returns:
            The job, now SETTLED, for the caller to deliver; None if there is nothing to deliver because the
            id is unknown, late, a duplicate, another worker's, or nobody waits for it. P-23.
        """
        job = self._jobs.get(job_id)
        if job is None:
            job = self._watched.get(job_id) or self._owed.get(job_id)
        if job is None or job.owner is not owner or job.batch is None:
            return None
        return self._settle(job)

    def report(self, job_id: str, owner: Owner, now: float) -> Job | None:
        """Progress arrived from `owner`; the job if it has it and somebody waits."""
        job = self._jobs.get(job_id) or self._watched.get(job_id)
        if job is None or job.owner is not owner or job.batch is None:
            return None
        if job.watch is not None:
            job.watch.heard_at = now
        return job

    def expire(self, now: float, until: float) -> tuple[list[Job], list[Owner]]:
        """Every job past its deadline ends, or was silent for too long. P-21.

        Args:
            now: The time.
            until: The deadline of those that their worker still owes an answer.

        Returns:
            Those that were open, oldest first, and whoever held any of them, each once: its credit may have
            come back.
        """
        due = self._take_due(now)
        for job in self._owed.values():
            if job.deadline > now:
                break
            due.append(job)
        due += [self._watched[job_id] for job_id in self.watches.take_due(now)]
        expired: list[Job] = []
        owners: dict[Owner, None] = {}  # in order, so that what follows is the same in every run
        for job in due:
            owners[job.owner] = None
            # With a watch, the job may have ended long before the usual time: its worker is at it still, and
            # has no room for another, whether it can be told or not.
            if job.state is IN_FLIGHT and (job.owner.cancels or job.watch is not None):
                self.abandon(job, until)
                expired.append(job)
            elif self._settle(job) is not None:
                expired.append(job)
        if self._expired > len(self._jobs):
            self._jobs = dict(self._jobs)
            self._expired = 0
        return expired, list(owners)

    # Those with the usual timeout that are due.
    def _take_due(self, now: float) -> list[Job]:
        due: list[Job] = []
        if now >= self._first_due:
            for job in self._jobs.values():
                if job.deadline > now:
                    self._first_due = job.deadline
                    break
                due.append(job)
            self._expired += len(due)
        return due

    def end(self, job: Job) -> bool:
        """The engine itself ends an open job; True if it was open. The caller tells the client why."""
        if job.state is not QUEUED and job.state is not IN_FLIGHT:
            return False
        self._settle(job)
        return True

    def abandon(self, job: Job, until: float) -> bool:
        """Nobody waits for the answer any more; True if the job was open. P-25.

        Args:
            job: Any.
            until: When its worker, if it has one, is no longer believed to answer it.
        """
        if job.state is not IN_FLIGHT:
            return self.end(job)
        self._close(job)
        job.state = ABANDONED
        job.deadline = until
        self._owed[job.job_id] = job
        return True

    def requeue(self, job: Job, owner: Owner) -> bool:
        """The worker is gone; True if the job is QUEUED now, with `owner`, to be sent again. P-22."""
        if job.state is QUEUED:
            job.owner = owner
            return True
        if job.state is IN_FLIGHT:
            job.state = QUEUED
            job.owner = owner
            job.batch = None
            if job.watch is not None:
                job.watch.returned()
            return True
        if job.state is ABANDONED:
            del self._owed[job.job_id]
            job.state = SETTLED
        return False

    def _settle(self, job: Job) -> Job | None:
        # The owner first: it reads job.batch to know whether the job was queued or out.
        job.owner.let_go(job)
        if job.state is ABANDONED:
            del self._owed[job.job_id]
            job.state = SETTLED
            return None
        self._close(job)
        job.state = SETTLED
        return job

    # It is open no more. Its bytes need not wait: it will not be sent again, and a queue drops its dead only
    # when they surface.
    def _close(self, job: Job) -> None:
        if job.watch is None:
            del self._jobs[job.job_id]
        else:
            del self._watched[job.job_id]
            self.watches.remove(job.job_id)
        self.size_bytes -= len(job.wire)
        job.wire = b""
        self.open_jobs -= 1
        del job.requester.open_jobs[job.client_key]


def acceptance(job: Job) -> tuple[int, str]:
    """Sort key: jobs that were accepted earlier first."""
    return len(job.job_id), job.job_id

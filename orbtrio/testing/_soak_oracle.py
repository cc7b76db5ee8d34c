"""The promises that a soak holds the engine to.

The oracle never asks the engine. It is told what peers do and what reaches them, and by whom links were
harmed; from that alone it says what may happen and what must. Whatever may not happen is raised as a
`SoakFailure` with the whole history of the job.

What a link was doing decides how much is known. A peer is *sound* while nothing was done to its connection
that could end it: the engine has no reason to drop it. It is *suspect* from the moment that its link stalls,
or is announced to be cut, until the link is well again and the connection has been seen to live. About what
is sound everything is demanded, about the rest only what no fault excuses.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from orbtrio.testing._soak_books import (
    TIMEOUT,
    Book,
    ClientBook,
    EventLog,
    JobHistory,
    SoakFailure,
    WorkerBook,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from orbtrio.protocol.messages import BatchJob, WorkerResponse

__all__ = ["Oracle"]

MAX_DELIVERIES: Final = 3
MAX_QUEUED: Final = 1000

# The engine gathers deletions for a tenth of a second and promises a second (P-42).
_DELETION: Final = 1.2
_ROUNDING: Final = 1e-6

# A lost client whose end the engine could not see is found out by a ping.
_HALF_OPEN: Final = 45.0


class Oracle:
    """The books of one soak.

    Attributes:
        stopping_at: When the engine was told to stop: from then on it may end jobs for that reason.
        disk_trouble_at: When the disk was last full or broken.
        disk_slack: Seconds that it takes to write or delete a file.
        healed_at: When all faults ended; infinity while there are any.
    """

    def __init__(self, log: EventLog, clock: Callable[[], float]) -> None:
        self.log = log
        self.stopping_at = math.inf
        self.disk_trouble_at = -math.inf
        self.disk_slack = 0.0
        self.healed_at = math.inf
        self.jobs: dict[int, JobHistory] = {}
        self.resources: dict[str, bytes] = {}
        self.workers: list[WorkerBook] = []
        self.clients: list[ClientBook] = []
        self.deaths: Counter[str] = Counter()
        self._clock = clock
        self._joined_at: dict[str, float] = {}
        self._lost_at: dict[str, float] = {}
        self._open: Counter[str] = Counter()
        self._keepers: dict[tuple[str, str], WorkerBook] = {}
        self._due: deque[JobHistory] = deque()
        self._full_at: dict[str, float] = {}
        self._resource_jobs: dict[str, list[JobHistory]] = {}

    @property
    def now(self) -> float:
        return self._clock()

    @property
    def stopping(self) -> bool:
        return self.now >= self.stopping_at

    # ------------------------------------------------------------------------------------------ writing down

    def note(self, text: str, jobs: Iterable[JobHistory] = ()) -> None:
        line = self.log.write(self.now, text)
        for job in jobs:
            job.events.append(line)

    def count(self, state: str) -> None:
        self.log.counts[state] += 1

    def fail(self, text: str, job: JobHistory | None = None) -> NoReturn:
        """Raises: SoakFailure, always."""
        self.note(f"FAILURE {text}")
        history = "" if job is None else f"\n{job.story()}"
        raise SoakFailure(f"at {self.now:.6f} s of virtual time: {text}{history}")

    def join(self, book: Book) -> None:
        """A peer begins to connect."""
        if isinstance(book, WorkerBook):
            self.workers.append(book)
            self._joined_at[book.worker_type] = self.now
        elif isinstance(book, ClientBook):
            self.clients.append(book)

    def begin_job(self, job: JobHistory) -> JobHistory:
        """Remember how many workers of its type were lost before it: three later ones may end it."""
        ailing = sum(not book.sound for book in self.workers if book.worker_type == job.worker_type)
        job.deaths_before = self.deaths[job.worker_type] - ailing
        return job

    # ------------------------------------------------------------------------------------------------ events

    def submitted(self, jobs: Sequence[JobHistory]) -> None:
        for job in jobs:
            self.jobs[job.number] = job
            job.client.open[job.client_job_id] = job
            self._open[job.worker_type] += 1
            if self._open[job.worker_type] > MAX_QUEUED:
                self._full_at[job.worker_type] = self.now
            self._due.append(job)
            if job.resource is not None:
                self._resource_jobs.setdefault(job.resource, []).append(job)
        client, numbers = jobs[0].client.name, " ".join(str(job.number) for job in jobs)
        self.note(f"{client} submits {numbers} for {jobs[0].worker_type}", jobs)

    def batch(self, worker: WorkerBook, batch: Sequence[BatchJob]) -> list[JobHistory]:
        """A batch has reached a worker: is it one that it should have got?"""
        jobs = [self._find(worker, member) for member in batch]
        worker.batches += 1
        numbers = " ".join(str(job.number) for job in jobs)
        self.note(f"{worker.name} gets {numbers}", jobs)
        if not 1 <= len(jobs) <= worker.max_batch_size:
            self.fail(f"{worker.name} gets {len(jobs)} jobs in a batch of at most {worker.max_batch_size}")
        for job, member in zip(jobs, batch, strict=True):
            self._check_delivery(worker, job, alone=len(jobs) == 1)
            self._check_input(worker, job, member)
            if worker.sound:
                job.owner_from = len(job.deliveries)
            job.deliveries.append(worker)
            worker.held[job.number] = job, worker.batches
        open_batches = worker.open_batches(self.now)
        if worker.credit is not None and open_batches > worker.credit:
            self.fail(f"{worker.name} has {open_batches} open batches, more than its credit", jobs[0])
        self._count_batch(worker, jobs, open_batches)
        return jobs

    def answering(
        self, worker: WorkerBook, job: JobHistory, entry: bytes, *, too_large: bool = False
    ) -> None:
        """A worker sends its one good answer of a job."""
        worker.held.pop(job.number)
        job.answers[worker] = entry
        job.too_large |= too_large
        if job.end or job.client.gone:
            self.count("late answer")

    def response(self, client: ClientBook, raw: bytes, message: WorkerResponse) -> None:
        """An answer has reached a client: is it its own, the first, in time, and what the worker sent?"""
        job = client.open.pop(message.client_job_id, None)
        kind = str(message.output.get("error_kind", "answer"))
        if job is None:
            old = [job for job in self.jobs.values() if job.client_job_id == message.client_job_id]
            who = "answered before" if old and old[0].client is client else "somebody else's or nobody's"
            self.fail(f"{client.name} gets {kind} for a job that is {who}", old[0] if old else None)
        self._end(job, kind)
        self.note(f"{client.name} gets {kind} for {job.number}", [job])
        if self.now > self._latest(job):
            self.fail(f"{kind} is delivered after the deadline", job)
        if kind == "answer":
            self._check_answer(job, raw)
        else:
            self._check_refusal(job, kind)

    def doom(self, book: Book) -> None:
        """Something is done now that ends the connection."""
        if not book.doomed and not book.gone:
            self._note_death(book)
            book.doomed = True

    def suspect(self, book: Book) -> None:
        """From now on nobody knows."""
        self._note_death(book)
        book.suspect = True

    def trust(self, book: Book) -> None:
        """The connection has been seen to live, with nothing left that could harm it."""
        if not book.gone and not book.doomed:
            book.suspect = False
            book.sound_since = self.now

    def gone(self, book: Book, why: str) -> None:
        """The peer has noticed the end of its connection."""
        self.note(f"{book.name} is gone: {why}")
        was_sound = book.sound
        if was_sound and not self.stopping:
            self.fail(f"the engine dropped {book.name}, which had done no wrong: {why}")
        self.doom(book)
        book.gone = True
        if isinstance(book, ClientBook):
            files = False
            heard = not was_sound or bool(book.slack) or not book.engine_errors
            for job in book.open.values():
                if not heard and job.submitted_at < self.stopping_at:
                    self.fail("the engine has stopped, and the client has heard nothing", job)
                files = files or job.resource is not None
                self._end(job, "abandoned")
            self.count("client lost with jobs open" if book.open else "client lost without jobs")
            if files:
                self.count("client lost with files")
            book.open.clear()

    # ------------------------------------------------------------------------------------ what time demands

    def look(self) -> None:
        """Whoever should have heard by now has."""
        now = self.now
        while self._due and (self._due[0].end or now > self._latest(self._due[0])):
            job = self._due.popleft()
            if job.end:
                continue
            if job.client.sound and job.client.engine_errors:
                self.fail("the deadline is over, and the client has heard nothing", job)
            elif job.client.engine_errors:
                self._due.append(job)  # once the client is sound again
                return
            job.client.open.pop(job.client_job_id)
            self._end(job, "silence")

    def demand_progress(self, patience: float) -> list[JobHistory]:
        """Jobs that should have ended long since all is well; with no reason left for silence."""
        left = []
        for job in self.jobs.values():
            if job.client.gone or not job.client.sound:
                continue
            excused = job.refusal or self._excuse(job)
            if not job.end and (job.client.engine_errors or not excused):
                left.append(job)
            in_time = job.submitted_at + TIMEOUT > self.healed_at + patience
            if job.end in ("silence", "timeout") and not excused and in_time:
                self.fail("it timed out although all was well in time", job)
        return left

    def files_wanted(self) -> tuple[set[str], set[str]]:
        """Resources that must be on disk now, and those that may be."""
        must, may = set(), set()
        for resource, jobs in self._resource_jobs.items():
            if any(self._may_need_file(job) for job in jobs):
                may.add(resource)
            if any(self._must_need_file(job) for job in jobs):
                must.add(resource)
        return must, may

    def forget(self) -> None:
        """Every job has ended and every peer is gone: begin anew."""
        self.jobs.clear()
        self.resources.clear()
        self.workers.clear()
        self.clients.clear()
        self._joined_at.clear()
        self._lost_at.clear()
        self._open.clear()
        self._keepers.clear()
        self._due.clear()
        self._full_at.clear()
        self._resource_jobs.clear()
        self.healed_at = math.inf
        self.stopping_at = math.inf

    # ------------------------------------------------------------------------------------------- one promise

    def _latest(self, job: JobHistory) -> float:
        late = job.client.slack + self.disk_slack + _ROUNDING
        return max(job.submitted_at + TIMEOUT, job.client.sound_since) + late

    def _end(self, job: JobHistory, kind: str) -> None:
        job.end = kind
        job.ended_at = self.now
        self._open[job.worker_type] -= 1

    def _note_death(self, book: Book) -> None:
        if isinstance(book, WorkerBook):
            self.deaths[book.worker_type] += 1
            self._lost_at[book.worker_type] = self.now

    def _find(self, worker: WorkerBook, member: BatchJob) -> JobHistory:
        job = self.jobs.get(member.input.get("n", -1))
        if job is None:
            self.fail(f"{worker.name} gets a job that nobody has submitted: {member.input!r:.200}")
        return job

    def _check_delivery(self, worker: WorkerBook, job: JobHistory, *, alone: bool) -> None:
        if job.worker_type != worker.worker_type:
            self.fail(f"{worker.name} of type {worker.worker_type} gets it", job)
        if job.refusal:
            self.fail(f"{worker.name} gets what the engine must refuse ({job.refusal})", job)
        if worker in job.deliveries:
            self.fail(f"{worker.name} gets it twice", job)
        if len(job.deliveries) >= MAX_DELIVERIES:
            self.fail(f"{worker.name} gets it as the fourth", job)
        if len(job.deliveries) == MAX_DELIVERIES - 1 and worker.sound:
            self.count("suspect sent alone")
            if not alone:
                self.fail("it was in hand when two workers died, and has neighbours in its batch", job)
        if job.deliveries:
            self.count("redelivery")
        # What a suspect has been sent may have lain on the wire while the job went on to others.
        if not worker.sound:
            return
        for other in job.deliveries:
            if other.sound:
                self.fail(f"{worker.name} gets it while {other.name} lives and has had it", job)
        if self._has_ended(job) and not worker.slow:
            self.fail(f"{worker.name} gets it after its end", job)
        self._check_latency(worker, job)
        if job.key is not None:
            self._check_key(worker, job, job.key)

    # Where all workers are stock ones and none came or went, nothing waits longer than they asked for. P-10.
    def _check_latency(self, worker: WorkerBook, job: JobHistory) -> None:
        if job.worker_type != "stock" or job.deliveries or job.client.slack or worker.slow:
            return
        # A suspect job holds up a queue (P-22), and stays one until its deadline.
        lost_at = self._lost_at.get(job.worker_type, -math.inf)
        if max(lost_at + TIMEOUT, self._joined_at[job.worker_type]) >= job.submitted_at:
            return
        peers = [book for book in self.workers if book.worker_type == job.worker_type and not book.gone]
        longest = max(book.max_latency for book in peers)
        if self.now - job.submitted_at > longest + _ROUNDING:
            self.fail(f"it waited {self.now - job.submitted_at:.6f} s; its workers ask for {longest:g}", job)
        self.count("latency checked")

    # P-12: one key, one worker, in order, while that worker lives.
    def _check_key(self, worker: WorkerBook, job: JobHistory, key: str) -> None:
        keeper = self._keepers.get((job.worker_type, key))
        if keeper is not None and keeper is not worker:
            if keeper.sound:
                self.fail(f"{worker.name} gets key {key!r}, which belongs to {keeper.name}", job)
            self.count("key moved")
        self._keepers[job.worker_type, key] = worker
        before = worker.last_of_key.get((job.client, key), -1)
        if job.number < before:
            self.fail(f"{worker.name} has had job {before} of the same key before it", job)
        worker.last_of_key[job.client, key] = job.number

    def _check_input(self, worker: WorkerBook, job: JobHistory, member: BatchJob) -> None:
        fields = dict(member.extra or {}) | member.input
        fields.pop("timestamp", None)
        path = fields.pop("file", None)
        if fields != job.fields:
            self.fail(f"{worker.name} gets another input: {fields!r:.300}, not {job.fields!r:.300}", job)
        if job.resource is None:
            return
        if worker.sound and not worker.slow:
            try:
                data = Path(str(path)).read_bytes()
            except OSError as error:
                self.fail(f"{worker.name} cannot read the job's file: {error.strerror}", job)
            if data != self.resources[job.resource]:
                self.fail(f"{worker.name} finds other bytes in the job's file", job)
            self.count("file read")

    def _count_batch(self, worker: WorkerBook, jobs: list[JobHistory], open_batches: int) -> None:
        if len(jobs) == worker.max_batch_size > 1:
            self.count("full batch")
        elif not worker.eager and self.now - jobs[0].submitted_at >= worker.max_latency - _ROUNDING:
            self.count("partial batch by timer")
        if open_batches > 1:
            self.count("two open batches")
        if worker.credit is not None and open_batches == worker.credit:
            self.count("credit spent")

    def _check_answer(self, job: JobHistory, raw: bytes) -> None:
        if not job.deliveries:
            self.fail("it is answered, and no worker has had it", job)
        owners = job.deliveries[job.owner_from :]
        if not any(raw.endswith(job.answers.get(owner, raw + b"?")) for owner in owners):
            names = " or ".join(owner.name for owner in owners)
            self.fail(f"its answer is not what {names}, who has it, has sent: ...{raw[-120:]!r}", job)
        if job.refusal or job.too_large:
            self.fail("it is answered, and should have been refused", job)
        if len(job.deliveries) > 1:
            self.count("answered after redelivery")

    def _check_refusal(self, job: JobHistory, kind: str) -> None:
        if not job.client.engine_errors:
            self.fail(f"a stock client is told {kind}", job)
        if kind == job.refusal:
            self.count(f"refused: {kind}")
            return
        possible = {
            "timeout": self.now >= job.submitted_at + TIMEOUT - _ROUNDING,
            "queue_full": self._may_be_full(job),
            "worker_lost": self.deaths[job.worker_type] - job.deaths_before >= MAX_DELIVERIES,
            "result_too_large": job.too_large,
            "engine_stopped": self.stopping,
        }
        if not possible.get(kind, False):
            self.fail(f"the client is told {kind}, for which there is no reason", job)
        self.count(f"ended: {kind}")
        if kind == "timeout" and any(job.number in book.held and book.sound for book in job.deliveries):
            self.count("timeout while a worker holds the job")
        if kind == "worker_lost" and job.fields.get("poison"):
            self.count("poison job ended with worker_lost")

    def _may_be_full(self, job: JobHistory) -> bool:
        disk = job.resource is not None and self.disk_trouble_at >= job.submitted_at
        return disk or self._full_at.get(job.worker_type, -math.inf) >= job.submitted_at

    # Whether the engine knew of its end before this moment.
    def _has_ended(self, job: JobHistory) -> bool:
        grace = _HALF_OPEN if job.end == "abandoned" else 0
        return job.end == "answer" or self.now > job.ended_at + grace

    # Why a stock client may wait in vain for a job. P-21, P-31.
    def _excuse(self, job: JobHistory) -> bool:
        lost = self.deaths[job.worker_type] - job.deaths_before >= MAX_DELIVERIES
        return lost or job.too_large or self.stopping or self._may_be_full(job)

    def _may_need_file(self, job: JobHistory) -> bool:
        grace = _DELETION + self.disk_slack + (_HALF_OPEN if job.end == "abandoned" else 0)
        return self.now < min(job.ended_at, self._latest(job)) + grace or job.client.suspect

    def _must_need_file(self, job: JobHistory) -> bool:
        if job.end or not job.client.sound or not job.deliveries or not job.deliveries[-1].sound:
            return False
        return job.number in job.deliveries[-1].held and self.now < job.submitted_at + TIMEOUT

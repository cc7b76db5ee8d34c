"""The oracle of a soak: it knows every job, and what must and must not become of it.

It never asks the engine. It is told what peers do and what reaches them, and by whom links were harmed; from
that alone it says what may happen and what must. Whatever may not happen is raised as a `SoakFailure` with
the whole history of the job.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from orbtrio.testing._soak_books import TIMEOUT, Book, ClientBook, EventLog, JobHistory, WorkerBook
from orbtrio.testing._soak_rules import Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orbtrio.protocol.messages import BatchJob, WorkerResponse

__all__ = ["Oracle"]

MAX_QUEUED: Final = 1000


class Oracle(Rules):
    """The books of one soak, and who tells it what."""

    def __init__(self, log: EventLog, clock: Callable[[], float]) -> None:
        super().__init__(log, clock)
        self._due: deque[JobHistory] = deque()
        self._resource_jobs: dict[str, list[JobHistory]] = {}

    def join(self, book: Book) -> None:
        """A peer begins to connect."""
        if isinstance(book, WorkerBook):
            self.workers.append(book)
            self.joined_at[book.worker_type] = self.now
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
            self.open_jobs[job.worker_type] += 1
            if self.open_jobs[job.worker_type] > MAX_QUEUED:
                self.full_at[job.worker_type] = self.now
            self._due.append(job)
            if job.resource is not None:
                self._resource_jobs.setdefault(job.resource, []).append(job)
        client, numbers = jobs[0].client.name, " ".join(str(job.number) for job in jobs)
        self.note(f"{client} submits {numbers} for {jobs[0].worker_type}", jobs)

    def batch(self, worker: WorkerBook, batch: Sequence[BatchJob]) -> list[JobHistory]:
        """A batch has reached a worker: is it one that it should have got?"""
        jobs = [self.find(worker, member) for member in batch]
        worker.batches += 1
        numbers = " ".join(str(job.number) for job in jobs)
        self.note(f"{worker.name} gets {numbers}", jobs)
        if not 1 <= len(jobs) <= worker.max_batch_size:
            self.fail(f"{worker.name} gets {len(jobs)} jobs in a batch of at most {worker.max_batch_size}")
        for job, member in zip(jobs, batch, strict=True):
            self.check_delivery(worker, job, alone=len(jobs) == 1)
            self.check_input(worker, job, member)
            if worker.sound:
                job.owner_from = len(job.deliveries)
            job.deliveries.append(worker)
            worker.held[job.number] = job, worker.batches
        open_batches = worker.open_batches(self.now)
        if worker.credit is not None and open_batches > worker.credit:
            self.fail(f"{worker.name} has {open_batches} open batches, more than its credit", jobs[0])
        self.count_batch(worker, jobs, open_batches)
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
        if self.now > self.latest(job):
            self.fail(f"{kind} is delivered after the deadline", job)
        if kind == "answer":
            self.check_answer(job, raw)
        else:
            self.check_refusal(job, kind)

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
        while self._due and (self._due[0].end or now > self.latest(self._due[0])):
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
            excused = job.refusal or self.excuse(job)
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
            if any(self.may_need_file(job) for job in jobs):
                may.add(resource)
            if any(self.must_need_file(job) for job in jobs):
                must.add(resource)
        return must, may

    def forget(self) -> None:
        """Every job has ended and every peer is gone: begin anew."""
        self.jobs.clear()
        self.resources.clear()
        self.workers.clear()
        self.clients.clear()
        self.joined_at.clear()
        self.lost_at.clear()
        self.open_jobs.clear()
        self.keepers.clear()
        self._due.clear()
        self.full_at.clear()
        self._resource_jobs.clear()
        self.healed_at = math.inf
        self.stopping_at = math.inf

    def _end(self, job: JobHistory, kind: str) -> None:
        job.end = kind
        job.ended_at = self.now
        self.open_jobs[job.worker_type] -= 1

    def _note_death(self, book: Book) -> None:
        if isinstance(book, WorkerBook):
            self.deaths[book.worker_type] += 1
            self.lost_at[book.worker_type] = self.now

"""The promises about one message: what a worker may get, and what a client may hear.

What a link was doing decides how much is known. A peer is *sound* while nothing was done to its connection
that could end it: the engine has no reason to drop it. It is *suspect* from the moment that its link stalls,
or is announced to be cut, until the link is well again and the connection has been seen to live. About what
is sound everything is demanded, about the rest only what no fault excuses.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from orbtrio.testing._soak_books import TIMEOUT, ClientBook, EventLog, JobHistory, SoakFailure, WorkerBook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from orbtrio.protocol.messages import BatchJob

__all__ = ["Rules"]

MAX_DELIVERIES: Final = 3

# The engine gathers deletions for a tenth of a second and promises a second (P-42).
_DELETION: Final = 1.2
_ROUNDING: Final = 1e-6

# A lost client whose end the engine could not see is found out by a ping.
_HALF_OPEN: Final = 45.0


class Rules:
    """What is known at the moment, and what follows from it.

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
        self.joined_at: dict[str, float] = {}
        self.lost_at: dict[str, float] = {}
        self.open_jobs: Counter[str] = Counter()
        self.keepers: dict[tuple[str, str], WorkerBook] = {}
        self.full_at: dict[str, float] = {}

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

    # ------------------------------------------------------------------------------------------- one promise

    def latest(self, job: JobHistory) -> float:
        late = job.client.slack + self.disk_slack + _ROUNDING
        return max(job.submitted_at + TIMEOUT, job.client.sound_since) + late

    def find(self, worker: WorkerBook, member: BatchJob) -> JobHistory:
        job = self.jobs.get(member.input.get("n", -1))
        if job is None:
            self.fail(f"{worker.name} gets a job that nobody has submitted: {member.input!r:.200}")
        return job

    def check_delivery(self, worker: WorkerBook, job: JobHistory, *, alone: bool) -> None:
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
        if self.has_ended(job) and not worker.slow:
            self.fail(f"{worker.name} gets it after its end", job)
        self.check_latency(worker, job)
        if job.key is not None:
            self.check_key(worker, job, job.key)

    # Where all workers are stock ones and none came or went, nothing waits longer than they asked for. P-10.
    def check_latency(self, worker: WorkerBook, job: JobHistory) -> None:
        if job.worker_type != "stock" or job.deliveries or worker.slow:
            return
        if job.client.slack or self.disk_slack:
            return
        # A suspect job holds up a queue (P-22), and stays one until its deadline.
        lost_at = self.lost_at.get(job.worker_type, -math.inf)
        if max(lost_at + TIMEOUT, self.joined_at[job.worker_type]) >= job.submitted_at:
            return
        peers = [book for book in self.workers if book.worker_type == job.worker_type and not book.gone]
        longest = max(book.max_latency for book in peers)
        if self.now - job.submitted_at > longest + _ROUNDING:
            self.fail(f"it waited {self.now - job.submitted_at:.6f} s; its workers ask for {longest:g}", job)
        self.count("latency checked")

    # P-12: one key, one worker, in order, while that worker lives.
    def check_key(self, worker: WorkerBook, job: JobHistory, key: str) -> None:
        keeper = self.keepers.get((job.worker_type, key))
        if keeper is not None and keeper is not worker:
            if keeper.sound:
                self.fail(f"{worker.name} gets key {key!r}, which belongs to {keeper.name}", job)
            self.count("key moved")
        self.keepers[job.worker_type, key] = worker
        before = worker.last_of_key.get((job.client, key), -1)
        if job.number < before:
            self.fail(f"{worker.name} has had job {before} of the same key before it", job)
        worker.last_of_key[job.client, key] = job.number

    def check_input(self, worker: WorkerBook, job: JobHistory, member: BatchJob) -> None:
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

    def count_batch(self, worker: WorkerBook, jobs: list[JobHistory], open_batches: int) -> None:
        if len(jobs) == worker.max_batch_size > 1:
            self.count("full batch")
        elif not worker.eager and self.now - jobs[0].submitted_at >= worker.max_latency - _ROUNDING:
            self.count("partial batch by timer")
        if open_batches > 1:
            self.count("two open batches")
        if worker.credit is not None and open_batches == worker.credit:
            self.count("credit spent")

    def check_answer(self, job: JobHistory, raw: bytes) -> None:
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

    def check_refusal(self, job: JobHistory, kind: str) -> None:
        if not job.client.engine_errors:
            self.fail(f"a stock client is told {kind}", job)
        if kind == job.refusal:
            self.count(f"refused: {kind}")
            return
        possible = {
            "timeout": self.now >= job.submitted_at + TIMEOUT - _ROUNDING,
            "queue_full": self.may_be_full(job),
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

    def may_be_full(self, job: JobHistory) -> bool:
        disk = job.resource is not None and self.disk_trouble_at >= job.submitted_at
        return disk or self.full_at.get(job.worker_type, -math.inf) >= job.submitted_at

    # Whether the engine knew of its end before this moment.
    def has_ended(self, job: JobHistory) -> bool:
        grace = _HALF_OPEN if job.end == "abandoned" else 0
        return job.end == "answer" or self.now > job.ended_at + grace

    # Why a stock client may wait in vain for a job. P-21, P-31.
    def excuse(self, job: JobHistory) -> bool:
        lost = self.deaths[job.worker_type] - job.deaths_before >= MAX_DELIVERIES
        return lost or job.too_large or self.stopping or self.may_be_full(job)

    def may_need_file(self, job: JobHistory) -> bool:
        grace = _DELETION + self.disk_slack + (_HALF_OPEN if job.end == "abandoned" else 0)
        return self.now < min(job.ended_at, self.latest(job)) + grace or job.client.suspect

    def must_need_file(self, job: JobHistory) -> bool:
        if job.end or not job.client.sound or not job.deliveries or not job.deliveries[-1].sound:
            return False
        return job.number in job.deliveries[-1].held and self.now < job.submitted_at + TIMEOUT

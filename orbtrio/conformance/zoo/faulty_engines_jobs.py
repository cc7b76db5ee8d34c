"""Engines that are wrong about answers, time, and what becomes of jobs when a peer goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutant
from orbtrio.conformance.zoo.wire import Refused

if TYPE_CHECKING:
    from orbtrio.conformance.zoo.dispatch import Client, Job, Worker
    from orbtrio.conformance.zoo.files import Resource

__all__: list[str] = []

# --- OUT ----------------------------------------------------------------------------------------------------


@mutant("answers-twice", kills=("ORB-OUT-01",))
class AnswersTwice(ModelEngine):
    """Sends each answer to its client twice."""

    def answer(self, client: Client, job: Job, entry: dict[str, Any]) -> None:
        super().answer(client, job, entry)
        super().answer(client, job, entry)


@mutant("job-id-as-text", kills=("ORB-OUT-02",))
class JobIdAsText(ModelEngine):
    """Makes a text of whatever the client gave as job_id."""

    def response_for(self, job: Job, entry: dict[str, Any]) -> dict[str, Any]:
        return {**super().response_for(job, entry), "job_id": str(job.client_id)}


@mutant("results-by-position", kills=("ORB-OUT-03",))
class ResultsByPosition(ModelEngine):
    """Takes the first result for the first job, whatever its id says."""

    def on_output(self, worker: Worker, message: dict[str, Any]) -> None:
        entries = message.get("output")
        if type(entries) is list and len(entries) == len(worker.in_flight):
            for entry, known in zip(entries, list(worker.in_flight), strict=True):
                if type(entry) is dict and entry.get("id") in list(worker.in_flight):
                    entry["id"] = known
        super().on_output(worker, message)


@mutant("duplicates-delivered", kills=("ORB-OUT-04",))
class DuplicatesDelivered(ModelEngine):
    """Remembers who asked, and passes on what a worker says about a job that it has answered already."""

    def settle(self, job: Job) -> None:
        self.remember(job)
        super().settle(job)

    def remember(self, job: Job) -> None:
        """For ever."""
        if job.owner is not None and job.client is not None:
            self.answered = {**getattr(self, "answered", {}), job.id: (job.owner, job.client, job)}

    def on_result(self, worker: Worker, entry: dict[str, Any]) -> None:
        owner, client, job = getattr(self, "answered", {}).get(entry["id"], (None, None, None))
        if owner is worker:
            self.answer(client, job, entry)
        super().on_result(worker, entry)


@mutant("foreign-answers", kills=("ORB-OUT-05",))
class ForeignAnswers(ModelEngine):
    """Takes an answer from whoever sends it first, owner or not."""

    def may_answer(self, worker: Worker, job: Job) -> bool:
        return True


@mutant("unknown-id-closes", kills=("ORB-OUT-06",))
class UnknownIdCloses(ModelEngine):
    """Hangs up on a worker for an id that it has never given to anybody."""

    def new_id(self, wire: dict[str, Any]) -> str:
        return f"job-{super().new_id(wire)}"

    def on_result(self, worker: Worker, entry: dict[str, Any]) -> None:
        if not entry["id"].startswith("job-"):
            raise Refused("output is not valid")
        super().on_result(worker, entry)


@mutant("errors-swallowed", kills=("ORB-OUT-07",))
class ErrorsSwallowed(ModelEngine):
    """Takes an error for the end of a job, and tells nobody."""

    def answer(self, client: Client, job: Job, entry: dict[str, Any]) -> None:
        if "error" not in entry:
            super().answer(client, job, entry)


@mutant("errors-retried", kills=("ORB-OUT-07",))
class ErrorsRetried(ModelEngine):
    """Takes an error for a reason to try again, though it is the job's result."""

    def on_result(self, worker: Worker, entry: dict[str, Any]) -> None:
        job = self.job_of(entry)
        if "error" in entry and job is not None and job.owner is worker:
            self.take_from_owner(job)
            self.requeue([job])
        else:
            super().on_result(worker, entry)


@mutant("one-message-per-batch", kills=("ORB-OUT-08",))
class OneMessagePerBatch(ModelEngine):
    """Takes one output for the answer to the whole batch, and forgets what is not in it."""

    def on_output(self, worker: Worker, message: dict[str, Any]) -> None:
        before = {job_id: batch for batch in worker.batches for job_id in batch}
        whole = {job_id: set(batch) for job_id, batch in before.items()}
        super().on_output(worker, message)
        for job_id in [job_id for job_id in worker.in_flight if before.get(job_id) != whole.get(job_id)]:
            self.settle(self.jobs[job_id])


@mutant("job-id-never-free", kills=("ORB-OUT-09",))
class JobIdNeverFree(ModelEngine):
    """Keeps the job_id of a job that is done, and takes the next one that has it for a duplicate."""

    def settle(self, job: Job) -> None:
        taken = {key: known for key, known in job.client.open.items() if known is job} if job.client else {}
        super().settle(job)
        if job.client is not None and job.client.connection.failed is False:
            job.client.open.update(taken)


@mutant("one-bad-entry-spoils-all", kills=("ORB-OUT-10",))
class OneBadEntrySpoilsAll(ModelEngine):
    """Throws a whole output away if one of its entries is malformed."""

    def on_output(self, worker: Worker, message: dict[str, Any]) -> None:
        entries = message.get("output")
        if type(entries) is not list or all(type(e) is dict and type(e.get("id")) is str for e in entries):
            super().on_output(worker, message)


@mutant("nulls-dropped", kills=("ORB-OUT-11",))
class NullsDropped(ModelEngine):
    """Leaves out the fields of a result that are null."""

    def response_for(self, job: Job, entry: dict[str, Any]) -> dict[str, Any]:
        return super().response_for(job, {name: value for name, value in entry.items() if value is not None})


@mutant("bytes-become-lists", kills=("ORB-OUT-11",))
class BytesBecomeLists(ModelEngine):
    """Passes on byte strings as lists of numbers, as everything looks that went through JSON."""

    def response_for(self, job: Job, entry: dict[str, Any]) -> dict[str, Any]:
        plain = {name: list(value) if type(value) is bytes else value for name, value in entry.items()}
        return super().response_for(job, plain)


@mutant("late-answer-closes", kills=("ORB-OUT-12",))
class LateAnswerCloses(ModelEngine):
    """Hangs up on a worker that answers a job whose time is over."""

    late: frozenset[str] = frozenset()

    def on_timeout(self, job: Job) -> None:
        self.late |= {job.id}
        super().on_timeout(job)

    def on_result(self, worker: Worker, entry: dict[str, Any]) -> None:
        if entry["id"] in self.late:
            raise Refused("output is not valid")
        super().on_result(worker, entry)


# --- LIF ----------------------------------------------------------------------------------------------------


@mutant("half-the-time", kills=("ORB-TMO-01",))
class HalfTheTime(ModelEngine):
    """Gives jobs up after half of their five minutes."""

    def deadline_for(self, job: Job) -> float:
        return job.queued_at + self.job_timeout / 2


@mutant("clock-restarts", kills=("ORB-TMO-01",))
class ClockRestarts(ModelEngine):
    """The time that a job was queued does not count: its five minutes begin anew when it is sent."""

    def hand_over(self, job: Job, worker: Worker) -> None:
        super().hand_over(job, worker)
        if job.timer is not None:
            job.timer.cancel()
        job.timer = self.host.call_at(self.host.now() + self.job_timeout, lambda: self.on_timeout(job))


@mutant("late-answers-delivered", kills=("ORB-TMO-02",))
class LateAnswersDelivered(ModelEngine):
    """A job whose time is over is answered all the same, if its worker comes back."""

    def on_timeout(self, job: Job) -> None:
        if job.owner is None:
            super().on_timeout(job)
        else:
            self.release_resources(job)


@mutant("everybody-is-told", kills=("ORB-TMO-04",))
class EverybodyIsTold(ModelEngine):
    """Sends errors of its own also to clients that never asked for them and cannot know what they are."""

    def tell(self, client: Client | None, client_id: Any, kind: str, text: str) -> None:
        if client is not None:
            client.wants_errors = True
        super().tell(client, client_id, kind, text)


@mutant("timeouts-untold", kills=("ORB-TMO-04",))
class TimeoutsUntold(ModelEngine):
    """Tells nobody that a job's time is over, not even those who asked for it."""

    def tell(self, client: Client | None, client_id: Any, kind: str, text: str) -> None:
        if kind != "timeout":
            super().tell(client, client_id, kind, text)


# --- REC ----------------------------------------------------------------------------------------------------


@mutant("queued-jobs-lost", kills=("ORB-REC-01",))
class QueuedJobsLost(ModelEngine):
    """What was queued for a worker goes down with it."""

    def lost_jobs(self, worker: Worker) -> list[Job]:
        return list(worker.in_flight.values())


@mutant("jobs-in-hand-lost", kills=("ORB-REC-02",))
class JobsInHandLost(ModelEngine):
    """What a worker had in hand goes down with it."""

    def lost_jobs(self, worker: Worker) -> list[Job]:
        return list(worker.queue)


@mutant("dead-workers-jobs-lost", kills=("ORB-REC-01", "ORB-REC-02", "ORB-REC-03"))
class DeadWorkersJobsLost(ModelEngine):
    """A dead worker's jobs are lost, all of them."""

    def lost_jobs(self, worker: Worker) -> list[Job]:
        return []


@mutant("no-successor-no-job", kills=("ORB-REC-03",))
class NoSuccessorNoJob(ModelEngine):
    """Gives a dead worker's jobs to others of its type, or to nobody if there is none just now."""

    def requeue(self, jobs: list[Job]) -> None:
        super().requeue([job for job in jobs if self.candidates(job)])


@mutant("impatient", kills=("ORB-REC-04",))
class Impatient(ModelEngine):
    """Sends a job to somebody else when its worker takes longer than two seconds."""

    def hand_over(self, job: Job, worker: Worker) -> None:
        super().hand_over(job, worker)
        self.host.call_at(self.host.now() + 2.0, lambda: self.take_away(job, worker))

    def take_away(self, job: Job, worker: Worker) -> None:
        """Though it is alive."""
        if job.owner is worker:
            self.take_from_owner(job)
            self.requeue([job])


@mutant("jobs-of-the-dead", kills=("ORB-REC-05",))
class JobsOfTheDead(ModelEngine):
    """Has workers do the queued jobs of a client that is gone."""

    def abandon(self, job: Job) -> None:
        job.client = None
        self.release_resources(job)


@mutant("second-loss-is-final", kills=("ORB-REC-06",))
class SecondLossIsFinal(ModelEngine):
    """Gives a job up when the second worker was lost with it, long before the third delivery."""

    max_deliveries = 2


@mutant("poison-for-ever", kills=("ORB-REC-06",))
class PoisonForEver(ModelEngine):
    """Hands a job that kills its workers to one after the other."""

    max_deliveries = 10**9


# --- SEC ----------------------------------------------------------------------------------------------------


@mutant("resources-for-everybody", kills=("ORB-SEC-02",))
class ResourcesForEverybody(ModelEngine):
    """Whoever knows the id of another client's resource may refer to it."""

    def check_references(self, resources: dict[str, Resource], referenced: set[str]) -> None:
        known = {resource.id: resource for job in self.jobs.values() for resource in job.resources}
        resources.update({name: known[name] for name in referenced - resources.keys() if name in known})
        super().check_references(resources, referenced)


@mutant("one-stuck-worker-stops-all", kills=("ORB-SEC-04",))
class OneStuckWorkerStopsAll(ModelEngine):
    """Stops serving everybody while one worker has more than 40 jobs that it does not take in."""

    def may_send(self, worker: Worker) -> bool:
        return not any(len(other.in_flight) > 40 for other in self.workers if other is not worker)

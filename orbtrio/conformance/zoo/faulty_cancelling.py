"""Engines that are wrong about cancelling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutant
from orbtrio.conformance.zoo.wire import Connection, Refused

if TYPE_CHECKING:
    from orbtrio.conformance.zoo.dispatch import Client, Job, Worker

__all__: list[str] = []


@mutant("cancels-what-runs-only", kills=("ORB-EXT-08",))
class CancelsWhatRunsOnly(ModelEngine):
    """Looks for jobs to cancel among those that workers have."""

    def cancel(self, job: Job) -> None:
        if job.owner is not None:
            super().cancel(job)


@mutant("cancels-what-waits-only", kills=("ORB-EXT-08",))
class CancelsWhatWaitsOnly(ModelEngine):
    """Looks for jobs to cancel in the queues."""

    def cancel(self, job: Job) -> None:
        if job.owner is None:
            super().cancel(job)


@mutant("cancelled-jobs-are-sent", kills=("ORB-EXT-08",))
class CancelledJobsAreSent(ModelEngine):
    """Tells the client that a queued job is cancelled, and has it done all the same."""

    def cancel(self, job: Job) -> None:
        if job.queue is None:
            super().cancel(job)
        else:
            client, job.client = job.client, None
            self.tell(client, job.client_id, "cancelled", "cancelled by the client")


@mutant("cancelled-is-timeout", kills=("ORB-EXT-08",))
class CancelledIsTimeout(ModelEngine):
    """Calls a cancelled job one that was not done in time."""

    def cancel(self, job: Job) -> None:
        self.fail(job, "timeout", "not done in time")


@mutant("first-of-a-cancel-request", kills=("ORB-EXT-08",))
class FirstOfACancelRequest(ModelEngine):
    """Cancels the first job of a request to cancel several."""

    def on_cancel_request(self, client: Client, message: dict[str, Any]) -> None:
        super().on_cancel_request(client, {**message, "job_ids": message["job_ids"][:1]})


@mutant("nobody-is-recalled", kills=("ORB-EXT-09",))
class NobodyIsRecalled(ModelEngine):
    """Does not tell a worker that a client has cancelled its job."""

    def recall(self, job: Job, worker: Worker, why: str) -> None:
        if why != "cancelled":
            super().recall(job, worker, why)


@mutant("everybody-is-recalled", kills=("ORB-EXT-09",))
class EverybodyIsRecalled(ModelEngine):
    """Tells all workers that a job is cancelled."""

    def recall(self, job: Job, worker: Worker, why: str) -> None:
        for each in self.workers:
            super().recall(job, each, why)


@mutant("recalled-by-the-clients-name", kills=("ORB-EXT-09",))
class RecalledByTheClientsName(ModelEngine):
    """Tells the worker the client's identifier of the job, which it never heard."""

    def recall(self, job: Job, worker: Worker, why: str) -> None:
        if "cancel" in worker.asked:
            self.send(worker.connection, {"type": "cancel_jobs", "ids": [job.client_id]})


@mutant("whole-batch-recalled", kills=("ORB-EXT-09",))
class WholeBatchRecalled(ModelEngine):
    """Tells a worker to stop the whole batch when one job of it is cancelled."""

    def recall(self, job: Job, worker: Worker, why: str) -> None:
        if "cancel" in worker.asked:
            ids = [job.id, *worker.in_flight]
            self.send(worker.connection, {"type": "cancel_jobs", "ids": ids})


@mutant("deadlines-unrecalled", kills=("ORB-EXT-10",))
class DeadlinesUnrecalled(ModelEngine):
    """Has workers compute on when a job's time is over."""

    def recall(self, job: Job, worker: Worker, why: str) -> None:
        if why != "timeout":
            super().recall(job, worker, why)


@mutant("heartbeats-unrecalled", kills=("ORB-EXT-10",))
class HeartbeatsUnrecalled(ModelEngine):
    """Has workers compute on when a heartbeat was missed."""

    def recall(self, job: Job, worker: Worker, why: str) -> None:
        if why != "heartbeat_timeout":
            super().recall(job, worker, why)


@mutant("lost-clients-unrecalled", kills=("ORB-EXT-10",))
class LostClientsUnrecalled(ModelEngine):
    """Has workers compute on for a client that is gone."""

    def recall(self, job: Job, worker: Worker, why: str) -> None:
        if why != "client gone":
            super().recall(job, worker, why)


@mutant("cancelled-answers-delivered", kills=("ORB-EXT-11",))
class CancelledAnswersDelivered(ModelEngine):
    """Delivers what a worker says of a job that its client has cancelled."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cancelled: dict[str, tuple[Job, Client]] = {}

    def cancel(self, job: Job) -> None:
        if job.client is not None:
            self.cancelled[job.id] = job, job.client
        super().cancel(job)

    def on_result(self, worker: Worker, entry: dict[str, Any]) -> None:
        job, client = self.cancelled.pop(entry["id"], (None, None))
        if job is not None and client in self.clients:
            assert client is not None
            self.answer(client, job, entry)
        super().on_result(worker, entry)


@mutant("cancelled-names-are-used-up", kills=("ORB-EXT-11",))
class CancelledNamesAreUsedUp(ModelEngine):
    """Skips a new job under a name that was cancelled."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.used: set[str] = set()

    def cancel(self, job: Job) -> None:
        self.used.add(repr(job.client_id))
        super().cancel(job)

    def problem_of(self, client: Client, wire: Any) -> tuple[str, str] | None:
        if repr(wire.get("job_id")) in self.used:
            return "invalid_job", "this job_id was cancelled"
        return super().problem_of(client, wire)


@mutant("anybody-cancels", kills=("ORB-EXT-12",))
class AnybodyCancels(ModelEngine):
    """Cancels the job of that name, whoever's it is."""

    def job_to_cancel(self, client: Client, name: Any) -> Job | None:
        of_this_name = (job for job in self.jobs.values() if job.client_id == name)
        return super().job_to_cancel(client, name) or next(of_this_name, None)


@mutant("unknown-names-close", kills=("ORB-EXT-12",))
class UnknownNamesClose(ModelEngine):
    """Closes the connection of a client that cancels what is not there."""

    def job_to_cancel(self, client: Client, name: Any) -> Job | None:
        job = super().job_to_cancel(client, name)
        if job is None:
            raise Refused("request is not valid")
        return job


@mutant("unknown-names-are-told", kills=("ORB-EXT-12",))
class UnknownNamesAreTold(ModelEngine):
    """Answers that what is not there is cancelled."""

    def job_to_cancel(self, client: Client, name: Any) -> Job | None:
        job = super().job_to_cancel(client, name)
        if job is None:
            self.tell(client, name, "cancelled", "there is no such job")
        return job


@mutant("cancelling-frees-the-worker", kills=("ORB-EXT-13",))
class CancellingFreesTheWorker(ModelEngine):
    """Takes a batch for answered when its open jobs are cancelled, and sends the next."""

    def keep_entry(self, job: Job, worker: Worker) -> None:
        pass


@mutant("cancelling-costs-the-worker", kills=("ORB-EXT-13",))
class CancellingCostsTheWorker(ModelEngine):
    """Never takes a batch with a cancelled job for answered."""

    def on_recalled(self, worker: Worker, job_id: str) -> None:
        pass


@mutant("everybody-hears-of-cancelling", kills=("ORB-EXT-14",))
class EverybodyHearsOfCancelling(ModelEngine):
    """Sends cancel_jobs to workers that never asked."""

    def recall(self, job: Job, worker: Worker, why: str) -> None:
        if why == "cancelled":
            self.send(worker.connection, {"type": "cancel_jobs", "ids": [job.id]})
        else:
            super().recall(job, worker, why)


@mutant("everybody-cancels", kills=("ORB-EXT-14",))
class EverybodyCancels(ModelEngine):
    """Obeys a cancel_request of a client that never asked for it to mean anything."""

    def on_extension_message(self, connection: Connection, kind: Any, message: dict[str, Any]) -> None:
        if kind == "cancel_request":
            self.on_cancel_request(connection.role, message)
        else:
            super().on_extension_message(connection, kind, message)


@mutant("cancelled-told-unasked", kills=("ORB-EXT-14",))
class CancelledToldUnasked(ModelEngine):
    """Answers cancelled jobs to clients that did not ask for the engine's errors."""

    def cancel(self, job: Job) -> None:
        client = job.client
        assert client is not None
        client.wants_errors = True
        super().cancel(job)

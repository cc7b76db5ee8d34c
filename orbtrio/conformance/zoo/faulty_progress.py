"""Engines that are wrong about progress, heartbeats, and jobs' own deadlines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutant
from orbtrio.conformance.zoo.wire import Connection, Refused

if TYPE_CHECKING:
    from orbtrio.conformance.zoo.dispatch import Client, Job, Worker

__all__: list[str] = []


@mutant("unknown-name-spoils-the-list", kills=("ORB-EXT-01",))
class UnknownNameSpoilsTheList(ModelEngine):
    """Takes a list of extensions in which one is unknown for no list."""

    def asked_in(self, names: Any) -> frozenset[str]:
        asked = super().asked_in(names)
        return asked if type(names) is list and set(names) == asked else frozenset()


@mutant("unknown-extensions-refused", kills=("ORB-EXT-01",))
class UnknownExtensionsRefused(ModelEngine):
    """Closes the connection of whoever asks for an extension that it does not have."""

    def asked_in(self, names: Any) -> frozenset[str]:
        asked = super().asked_in(names)
        if type(names) is list and set(names) - asked:
            raise Refused("registered twice")
        return asked


# --- Progress -----------------------------------------------------------------------------------------------


@mutant("progress-backwards", kills=("ORB-EXT-02",))
class ProgressBackwards(ModelEngine):
    """Works through the entries of a progress message from the last to the first."""

    def on_progress(self, worker: Worker, message: dict[str, Any]) -> None:
        super().on_progress(worker, {**message, "progress": message["progress"][::-1]})


@mutant("first-progress-only", kills=("ORB-EXT-02",))
class FirstProgressOnly(ModelEngine):
    """Looks at the first entry of a progress message only."""

    def on_progress(self, worker: Worker, message: dict[str, Any]) -> None:
        super().on_progress(worker, {**message, "progress": message["progress"][:1]})


@mutant("progress-with-the-answer", kills=("ORB-EXT-02",))
class ProgressWithTheAnswer(ModelEngine):
    """Gathers what it hears of a job, and sends it with the answer."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.gathered: dict[str, list[dict[str, Any]]] = {}

    def on_report(self, worker: Worker, entry: dict[str, Any]) -> None:
        self.gathered.setdefault(entry["id"], []).append(entry)

    def on_result(self, worker: Worker, entry: dict[str, Any]) -> None:
        for report in self.gathered.pop(entry["id"], ()):
            super().on_report(worker, report)
        super().on_result(worker, entry)


@mutant("progress-in-no-hurry", kills=("ORB-EXT-02",))
class ProgressInNoHurry(ModelEngine):
    """Passes progress on when there is nothing else to do, perhaps behind the answer."""

    def report_for(self, job: Job, entry: dict[str, Any]) -> dict[str, Any]:
        report, client = super().report_for(job, entry), job.client
        assert client is not None
        self.host.call_at(self.host.now() + 0.001, lambda: self.send(client.connection, report))
        return {"type": "engine_notice"}


@mutant("progress-with-ids", kills=("ORB-EXT-02",))
class ProgressWithIds(ModelEngine):
    """Passes the engine's own id on among a report's fields."""

    def report_for(self, job: Job, entry: dict[str, Any]) -> dict[str, Any]:
        return {**super().report_for(job, entry), "progress": entry}


@mutant("anybody-reports", kills=("ORB-EXT-03",))
class AnybodyReports(ModelEngine):
    """Passes on what any worker says of a job that is open."""

    def may_report(self, worker: Worker, job: Job) -> bool:
        return True


@mutant("strange-progress-closes", kills=("ORB-EXT-03",))
class StrangeProgressCloses(ModelEngine):
    """Closes the connection of a worker that reports on a job of another's."""

    def may_report(self, worker: Worker, job: Job) -> bool:
        if job.owner is not worker:
            raise Refused("output is not valid")
        return True


@mutant("progress-of-the-done", kills=("ORB-EXT-04",))
class ProgressOfTheDone(ModelEngine):
    """Remembers jobs, and passes on what their last worker says of them after their end."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.known: dict[str, tuple[Worker, Job]] = {}

    def hand_over(self, job: Job, worker: Worker) -> None:
        self.known[job.id] = worker, job
        super().hand_over(job, worker)

    def on_report(self, worker: Worker, entry: dict[str, Any]) -> None:
        known = self.known.get(entry["id"])
        if entry["id"] in self.jobs or known is None or known[0] is not worker:
            super().on_report(worker, entry)
        elif (client := known[1].client) is not None and self.wants_progress(client):
            self.send(client.connection, self.report_for(known[1], entry))


@mutant("progress-for-everybody", kills=("ORB-EXT-05",))
class ProgressForEverybody(ModelEngine):
    """Tells each client of its jobs' progress, whether it asked or not."""

    def wants_progress(self, client: Client) -> bool:
        return True


@mutant("progress-from-everybody", kills=("ORB-EXT-05",))
class ProgressFromEverybody(ModelEngine):
    """Listens to a worker that never said that it would report."""

    def on_extension_message(self, connection: Connection, kind: Any, message: dict[str, Any]) -> None:
        if kind == "worker_progress":
            self.on_progress(connection.role, message)
        else:
            super().on_extension_message(connection, kind, message)


@mutant("attempts-untold", kills=("ORB-EXT-07",))
class AttemptsUntold(ModelEngine):
    """Does not say that a report belongs to another attempt."""

    def attempt_of(self, job: Job) -> dict[str, Any]:
        return {}


# --- Heartbeats ---------------------------------------------------------------------------------------------


@mutant("no-heartbeat", kills=("ORB-EXT-06", "ORB-EXT-10"))
class NoHeartbeat(ModelEngine):
    """Takes heartbeat_ms for a field like any other."""

    def on_alive(self, job: Job) -> None:
        pass


@mutant("heartbeat-in-the-queue", kills=("ORB-EXT-06",))
class HeartbeatInTheQueue(ModelEngine):
    """Has a heartbeat count from when the job was submitted."""

    def on_queued(self, job: Job) -> None:
        self.on_alive(job)
        super().on_queued(job)


@mutant("deaf-heartbeat", kills=("ORB-EXT-06",))
class DeafHeartbeat(ModelEngine):
    """Gives a job up after its heartbeat, whatever its worker reports."""

    def on_alive(self, job: Job) -> None:
        if job.heartbeat_timer is None:
            super().on_alive(job)


@mutant("heartbeat-is-a-timeout", kills=("ORB-EXT-06",))
class HeartbeatIsATimeout(ModelEngine):
    """Calls a missed heartbeat a timeout."""

    def on_heartbeat_over(self, job: Job) -> None:
        self.end_in_hand(job, "timeout", "no progress for too long")


@mutant("impatient-heartbeat", kills=("ORB-EXT-06",))
class ImpatientHeartbeat(ModelEngine):
    """Looks for a heartbeat half as long after each report as it may take."""

    def set_times(self, job: Job, client: Client, wire: dict[str, Any]) -> None:
        super().set_times(job, client, wire)
        if job.heartbeat is not None:
            job.heartbeat *= 0.5


# --- A job's own deadline -----------------------------------------------------------------------------------


@mutant("no-own-timeout", kills=("ORB-EXT-23",))
class NoOwnTimeout(ModelEngine):
    """Gives each job five minutes, whatever it asks for."""

    def deadline_for(self, job: Job) -> float:
        return job.queued_at + self.job_timeout


@mutant("own-timeout-from-delivery", kills=("ORB-EXT-23",))
class OwnTimeoutFromDelivery(ModelEngine):
    """Has a job's own time begin when a worker has it; if none does, it never ends."""

    def deadline_for(self, job: Job) -> float:
        return job.queued_at + self.job_timeout

    def hand_over(self, job: Job, worker: Worker) -> None:
        super().hand_over(job, worker)
        if job.own_timeout is not None:
            self.host.call_at(self.host.now() + job.own_timeout, lambda: self.on_own_timeout(job))

    def on_own_timeout(self, job: Job) -> None:
        """Its time is over, if it is not done."""
        if not job.done:
            self.on_timeout(job)


@mutant("own-timeout-eaten", kills=("ORB-EXT-23",))
class OwnTimeoutEaten(ModelEngine):
    """Keeps the times that a job asks for from its worker."""

    def wire_for(self, job_id: str, job_input: Any, wire: dict[str, Any]) -> dict[str, Any]:
        out = super().wire_for(job_id, job_input, wire)
        return {name: value for name, value in out.items() if name not in ("timeout_ms", "heartbeat_ms")}


@mutant("own-timeout-in-half", kills=("ORB-EXT-23",))
class OwnTimeoutInHalf(ModelEngine):
    """Gives a job half of the time that it asks for."""

    def set_times(self, job: Job, client: Client, wire: dict[str, Any]) -> None:
        if "timeout_ms" in wire:
            wire = {**wire, "timeout_ms": wire["timeout_ms"] / 2}
        super().set_times(job, client, wire)


@mutant("own-timeout-without-end", kills=("ORB-EXT-24",))
class OwnTimeoutWithoutEnd(ModelEngine):
    """Gives a job whatever time it asks for."""

    def longest_timeout(self) -> float:
        return 1e12


@mutant("long-timeouts-are-invalid", kills=("ORB-EXT-24",))
class LongTimeoutsAreInvalid(ModelEngine):
    """Refuses a job that asks for more time than there is."""

    def is_valid_time(self, value: Any) -> bool:
        return super().is_valid_time(value) and value <= 1000 * self.longest_timeout()


@mutant("any-timeout-is-valid", kills=("ORB-EXT-25",))
class AnyTimeoutIsValid(ModelEngine):
    """Takes a job whose deadline is no positive number as if it had none."""

    def own_problem_of(self, client: Client, wire: dict[str, Any]) -> str | None:
        return None

    def set_times(self, job: Job, client: Client, wire: dict[str, Any]) -> None:
        if self.is_valid_time(wire.get("timeout_ms", 1)):
            super().set_times(job, client, wire)


@mutant("truth-is-a-time", kills=("ORB-EXT-25",))
class TruthIsATime(ModelEngine):
    """Takes true for one millisecond, as languages do whose truth is a number."""

    def is_valid_time(self, value: Any) -> bool:
        return isinstance(value, int | float) and value > 0


@mutant("invalid-timeout-spoils-all", kills=("ORB-EXT-25",))
class InvalidTimeoutSpoilsAll(ModelEngine):
    """Closes a client's connection for a job with an invalid deadline."""

    def own_problem_of(self, client: Client, wire: dict[str, Any]) -> str | None:
        problem = super().own_problem_of(client, wire)
        if problem is not None:
            raise Refused("request is not valid")
        return None


@mutant("own-timeout-for-everybody", kills=("ORB-EXT-26",))
class OwnTimeoutForEverybody(ModelEngine):
    """Takes timeout_ms for a deadline though the client never asked."""

    def deadline_for(self, job: Job) -> float:
        value: Any = job.wire.get("timeout_ms")
        return job.queued_at + (value / 1000 if self.is_valid_time(value) else self.job_timeout)


@mutant("heartbeat-for-everybody", kills=("ORB-EXT-26",))
class HeartbeatForEverybody(ModelEngine):
    """Takes heartbeat_ms for a heartbeat though the client never asked."""

    def set_times(self, job: Job, client: Client, wire: dict[str, Any]) -> None:
        super().set_times(job, client, wire)
        if self.is_valid_time(wire.get("heartbeat_ms")):
            job.heartbeat = wire["heartbeat_ms"] / 1000


@mutant("own-times-checked-for-everybody", kills=("ORB-EXT-26",))
class OwnTimesCheckedForEverybody(ModelEngine):
    """Refuses jobs for a field that their client never asked to be understood."""

    def own_problem_of(self, client: Client, wire: dict[str, Any]) -> str | None:
        bad = [name for name in ("timeout_ms", "heartbeat_ms") if not self.is_valid_time(wire.get(name, 1))]
        return f"{bad[0]} must be a number above 0" if bad else None

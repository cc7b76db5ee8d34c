"""Workers that are wrong: about registering, and about batches."""

from __future__ import annotations

from typing import Any, Final

from orbtrio.conformance.model import Role
from orbtrio.conformance.simulation import Crashed
from orbtrio.conformance.zoo.mutants import mutant
from orbtrio.conformance.zoo.worker import BadInput, ModelWorker

__all__: list[str] = []


# --- Registering --------------------------------------------------------------------------------------------


@mutant("worker-never-registers", kills=("ORB-WRK-01",), role=Role.WORKER)
class NeverRegisters(ModelWorker):
    """Connects, and waits for the engine to begin."""

    def on_open(self) -> None:
        pass


@mutant("worker-registers-late", kills=("ORB-WRK-01",), role=Role.WORKER)
class RegistersLate(ModelWorker):
    """Loads its model after it has connected, and registers when that is done."""

    def on_open(self) -> None:
        self.host.call_at(self.host.now() + 15.0, super().on_open)


@mutant("worker-wrong-type-field", kills=("ORB-WRK-01",), role=Role.WORKER)
class WrongTypeField(ModelWorker):
    """Calls its registration `register`, as other protocols do."""

    def registration(self) -> dict[str, Any]:
        return {**super().registration(), "type": "register"}


@mutant("worker-secret-in-config", kills=("ORB-WRK-01",), role=Role.WORKER)
class SecretInConfig(ModelWorker):
    """Puts its secret into worker_config, where no engine looks for it."""

    def registration(self) -> dict[str, Any]:
        message = super().registration()
        message["worker_config"]["worker_secret"] = message.pop("worker_secret")
        return message


@mutant("worker-own-batch-size", kills=("ORB-WRK-01",), role=Role.WORKER)
class OwnBatchSize(ModelWorker):
    """Registers a batch size of its own, whatever MAX_BATCH_SIZE says."""

    def registration(self) -> dict[str, Any]:
        message = super().registration()
        message["worker_config"]["max_batch_size"] = 5
        return message


# --- Answers ------------------------------------------------------------------------------------------------


@mutant("worker-drops-last-answer", kills=("ORB-WRK-02",), role=Role.WORKER)
class DropsLastAnswer(ModelWorker):
    """Leaves out the last answer of a batch of more than one job."""

    def send_output(self, entries: list[dict[str, Any]]) -> None:
        super().send_output(entries[: max(len(entries) - 1, 1)])


@mutant("worker-answers-twice", kills=("ORB-WRK-02",), role=Role.WORKER)
class AnswersTwice(ModelWorker):
    """Sends each output twice, to be sure."""

    def send_output(self, entries: list[dict[str, Any]]) -> None:
        if entries:
            super().send_output(entries)
        super().send_output(entries)


@mutant("worker-reports-progress", kills=("ORB-WRK-02",), role=Role.WORKER)
class ReportsProgress(ModelWorker):
    """Tells the engine how it gets on, in a message that the protocol does not know."""

    def send_output(self, entries: list[dict[str, Any]]) -> None:
        if entries:
            self.send({"type": "worker_progress", "done": len(entries)})
        super().send_output(entries)


@mutant("worker-reads-only-id", kills=("ORB-WRK-03",), role=Role.WORKER)
class ReadsOnlyId(ModelWorker):
    """Does not know that an id may stand in job_id."""

    def id_of(self, job: dict[str, Any]) -> Any:
        return job.get("id")


@mutant("worker-prefers-job-id", kills=("ORB-WRK-03",), role=Role.WORKER)
class PrefersJobId(ModelWorker):
    """Takes job_id for the id where there are both."""

    def id_of(self, job: dict[str, Any]) -> Any:
        return job.get("job_id") or job.get("id")


@mutant("worker-all-or-nothing", kills=("ORB-WRK-04",), role=Role.WORKER)
class AllOrNothing(ModelWorker):
    """One bad job makes every job of its batch an error."""

    def answers(self, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        entries = super().answers(jobs)
        if any("error" in entry for entry in entries):
            return [{"id": entry["id"], "error": "the batch failed"} for entry in entries]
        return entries


@mutant("worker-error-is-a-map", kills=("ORB-WRK-05",), role=Role.WORKER)
class ErrorIsAMap(ModelWorker):
    """Reports errors as maps with a code and a text."""

    def error(self, job_input: Any, text: str) -> dict[str, Any]:
        return {"error": {"code": 400, "message": text}}


@mutant("worker-error-beside-results", kills=("ORB-WRK-05",), role=Role.WORKER)
class ErrorBesideResults(ModelWorker):
    """Sends an empty result along with each error."""

    def error(self, job_input: Any, text: str) -> dict[str, Any]:
        return {"error": text, "embedding": [], "shape": [0]}


@mutant("worker-dies-on-unknown-fields", kills=("ORB-WRK-06",), role=Role.WORKER)
class DiesOnUnknownFields(ModelWorker):
    """A field that it does not know ends the process."""

    def on_batch(self, message: dict[str, Any], jobs: list[Any]) -> None:
        fields = {name for job in jobs if isinstance(job, dict) for name in job} | message.keys()
        if fields - {"inputs", "id", "job_id", "input"}:
            raise Crashed("unexpected field")
        super().on_batch(message, jobs)


@mutant("worker-refuses-unknown-fields", kills=("ORB-WRK-06",), role=Role.WORKER)
class RefusesUnknownFields(ModelWorker):
    """A further field in an input makes the job an error."""

    def result(self, job_input: dict[str, Any]) -> dict[str, Any]:
        if "conformance_extra" in job_input:
            raise BadInput("unknown field")
        return super().result(job_input)


@mutant("worker-forgets-while-busy", kills=("ORB-WRK-07",), role=Role.WORKER)
class ForgetsWhileBusy(ModelWorker):
    """A batch that comes while another is computed is lost."""

    def on_batch(self, message: dict[str, Any], jobs: list[Any]) -> None:
        if self.computing is None:
            super().on_batch(message, jobs)


@mutant("worker-holds-two-batches", kills=("ORB-WRK-07",), role=Role.WORKER)
class HoldsTwoBatches(ModelWorker):
    """Has room for one batch beside the one that it computes; a third is lost."""

    def on_batch(self, message: dict[str, Any], jobs: list[Any]) -> None:
        held = [batch for batch in [*self.batches, jobs] if batch and all(is_job(job) for job in batch)]
        if len(held) < 3:
            super().on_batch(message, jobs)


def is_job(entry: Any) -> bool:
    """Whether an entry of a batch looks as the page prints it."""
    return isinstance(entry, dict) and isinstance(entry.get("id"), str) and bool(entry.get("input"))


@mutant("worker-dies-on-second-batch", kills=("ORB-WRK-07",), role=Role.WORKER)
class DiesOnSecondBatch(ModelWorker):
    """Can do one batch, and ends with the next."""

    done = 0

    def on_batch(self, message: dict[str, Any], jobs: list[Any]) -> None:
        self.done += 1
        if self.done > 1:
            raise Crashed("a second batch")
        super().on_batch(message, jobs)


@mutant("worker-garbage-for-nothing", kills=("ORB-WRK-08",), role=Role.WORKER)
class GarbageForNothing(ModelWorker):
    """Answers a batch without jobs by an entry without an id."""

    def send_output(self, entries: list[dict[str, Any]]) -> None:
        super().send_output(entries or [{"error": "no jobs"}])


@mutant("worker-dies-on-empty-batch", kills=("ORB-WRK-08",), role=Role.WORKER)
class DiesOnEmptyBatch(ModelWorker):
    """Divides by the number of jobs."""

    def on_batch(self, message: dict[str, Any], jobs: list[Any]) -> None:
        if not jobs:
            raise Crashed("division by zero")
        super().on_batch(message, jobs)


@mutant("worker-full-batch-refused", kills=("ORB-WRK-16",), role=Role.WORKER)
class FullBatchRefused(ModelWorker):
    """Takes one job less than it registers."""

    def answers(self, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len(jobs) >= self.max_batch_size:
            return [{"id": self.id_of(job), "error": "too many jobs"} for job in jobs]
        return super().answers(jobs)


_MOST_ITEMS: Final = 100_000


@mutant("worker-intricate-batch-skipped", kills=("ORB-WRK-16",), role=Role.WORKER)
class IntricateBatchSkipped(ModelWorker):
    """Bounds what decoding a message may cost, and has a bound for one job in mind."""

    def on_batch(self, message: dict[str, Any], jobs: list[Any]) -> None:
        if _items(message) <= _MOST_ITEMS:
            super().on_batch(message, jobs)


def _items(value: Any) -> int:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_items, members))

"""Workers that are wrong about extensions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cbor2

from orbtrio.conformance.model import Role
from orbtrio.conformance.zoo.mutants import mutant
from orbtrio.conformance.zoo.worker import ModelWorker

__all__: list[str] = []


@mutant("worker-drains-unannounced", kills=("ORB-EXT-41",), role=Role.WORKER)
class DrainsUnannounced(ModelWorker):
    """Sends worker_drain to any engine when it is to end."""

    def drains(self) -> bool:
        return True


@mutant("worker-reports-unannounced", kills=("ORB-EXT-41",), role=Role.WORKER)
class ReportsUnannounced(ModelWorker):
    """Reports to any engine."""

    def understands(self, name: str) -> bool:
        return name == "progress" or super().understands(name)


@mutant("worker-never-answers-cancelled", kills=("ORB-EXT-42",), role=Role.WORKER)
class NeverAnswersCancelled(ModelWorker):
    """Says nothing any more of a job that is cancelled."""

    def answer_cancelled(self, job_id: str) -> None:
        pass


@mutant("worker-answers-cancelled-twice", kills=("ORB-EXT-42",), role=Role.WORKER)
class AnswersCancelledTwice(ModelWorker):
    """Says that a job is cancelled, and answers it when it is done all the same."""

    def on_cancel(self, ids: list[str]) -> None:
        held = {self.id_of(job) for jobs in self.batches for job in jobs if isinstance(job, dict)}
        for job_id in ids:
            if job_id in held:
                self.answer_cancelled(job_id)


@mutant("worker-cancels-the-batch", kills=("ORB-EXT-42",), role=Role.WORKER)
class CancelsTheBatch(ModelWorker):
    """Stops a whole batch when one of its jobs is cancelled."""

    def on_cancel(self, ids: list[str]) -> None:
        for jobs in list(self.batches):
            names = [self.id_of(job) for job in jobs if isinstance(job, dict)]
            if set(names) & set(ids):
                super().on_cancel([name for name in names if isinstance(name, str)])


@mutant("worker-answers-unknown-cancels", kills=("ORB-EXT-42",), role=Role.WORKER)
class AnswersUnknownCancels(ModelWorker):
    """Answers whatever it is told to stop, also what it does not have."""

    def on_cancel(self, ids: list[str]) -> None:
        held = {self.id_of(job) for jobs in self.batches for job in jobs if isinstance(job, dict)}
        super().on_cancel(ids)
        for job_id in ids:
            if job_id not in held:
                self.answer_cancelled(job_id)


@mutant("worker-reads-its-own-disk", kills=("ORB-EXT-43",), role=Role.WORKER)
class ReadsItsOwnDisk(ModelWorker):
    """Asks for files to come with the batch, and looks for them on its disk."""

    def keep_files(self, message: dict[str, Any], jobs: list[Any]) -> None:
        pass


@mutant("worker-keeps-files", kills=("ORB-EXT-43",), role=Role.WORKER)
class KeepsFiles(ModelWorker):
    """Keeps what came with a batch for later ones."""

    def open_files(self, jobs: list[Any]) -> None:
        known = self.opened
        super().open_files(jobs)
        self.opened = {**known, **self.opened}


@mutant("worker-writes-where-it-is-told", kills=("ORB-EXT-43",), role=Role.WORKER)
class WritesWhereItIsTold(ModelWorker):
    """Writes files to the paths that an engine on another machine names."""

    def open_files(self, jobs: list[Any]) -> None:
        super().open_files(jobs)
        for path, data in self.opened.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(data)


@mutant("worker-leaves-without-draining", kills=("ORB-EXT-44",), role=Role.WORKER)
class LeavesWithoutDraining(ModelWorker):
    """Answers what it has and goes, though the engine would know what to do with its queue."""

    def drains(self) -> bool:
        return False


@mutant("worker-drains-and-goes", kills=("ORB-EXT-44",), role=Role.WORKER)
class DrainsAndGoes(ModelWorker):
    """Says that it drains, and goes when it has answered what it has, whatever is under way to it."""

    def on_idle(self) -> None:
        if self.ending and not self.batches:
            self.leave()

    def terminate(self) -> None:
        super().terminate()
        self.on_idle()


@mutant("worker-drains-deaf", kills=("ORB-EXT-44",), role=Role.WORKER)
class DrainsDeaf(ModelWorker):
    """Takes no batch any more once it has said that it drains."""

    def on_batch(self, message: dict[str, Any], jobs: list[Any]) -> None:
        if not self.ending:
            super().on_batch(message, jobs)


@mutant("worker-drains-for-ever", kills=("ORB-EXT-44",), role=Role.WORKER)
class DrainsForEver(ModelWorker):
    """Comes back when it has drained, instead of ending."""

    def on_lost(self) -> None:
        self.ending = False


@mutant("worker-reports-late", kills=("ORB-EXT-45",), role=Role.WORKER)
class ReportsLate(ModelWorker):
    """Reports that a job is done behind its answer."""

    def send_output(self, entries: list[dict[str, Any]]) -> None:
        super().send_output(entries)
        if self.understands("progress"):
            self.report([{"id": entry["id"], "percent": 100} for entry in entries])


@mutant("worker-reports-by-number", kills=("ORB-EXT-45",), role=Role.WORKER)
class ReportsByNumber(ModelWorker):
    """Reports on jobs by their number in the batch."""

    def report(self, entries: list[dict[str, Any]]) -> None:
        super().report([{**entry, "id": str(number)} for number, entry in enumerate(entries)])


@mutant("worker-reports-a-map", kills=("ORB-EXT-45",), role=Role.WORKER)
class ReportsAMap(ModelWorker):
    """Reports on its jobs in a map by id."""

    def report(self, entries: list[dict[str, Any]]) -> None:
        self.send({"type": "worker_progress", "progress": {entry["id"]: entry for entry in entries}})


@mutant("worker-types-unannounced", kills=("ORB-EXT-46",), role=Role.WORKER)
class TypesUnannounced(ModelWorker):
    """Answers any engine with typed arrays."""

    def vector(self, numbers: list[float]) -> Any:
        return self.typed(numbers)


@mutant("worker-types-half-a-number", kills=("ORB-EXT-46",), role=Role.WORKER)
class TypesHalfANumber(ModelWorker):
    """Loses the last byte of a typed array."""

    def typed(self, numbers: list[float]) -> cbor2.CBORTag:
        tag = super().typed(numbers)
        return cbor2.CBORTag(tag.tag, tag.value[:-1])


@mutant("worker-types-backwards", kills=("ORB-EXT-46",), role=Role.WORKER)
class TypesBackwards(ModelWorker):
    """Calls its bytes big-endian, which they are not."""

    def typed(self, numbers: list[float]) -> cbor2.CBORTag:
        return cbor2.CBORTag(82, super().typed(numbers).value)

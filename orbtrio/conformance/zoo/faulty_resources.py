"""Engines that are wrong about resources in ways that no reading of the spec covers."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutant

if TYPE_CHECKING:
    from orbtrio.conformance.zoo.dispatch import Job, Worker
    from orbtrio.conformance.zoo.files import Resource

__all__: list[str] = []


@mutant("a-copy-for-each-job", kills=("ORB-RES-11",))
class ACopyForEachJob(ModelEngine):
    """Writes a file for each job that refers to a resource, instead of one for all."""

    def path_for(self, resource: Resource) -> str:
        assert resource.path is not None
        copy = resource.path.with_stem(f"{resource.path.stem}-{self.nonce()}")
        shutil.copy(resource.path, copy)
        return str(copy)


@mutant("no-extension", kills=("ORB-RES-15",))
class NoExtension(ModelEngine):
    """Calls files by their id alone."""

    def file_name(self, resource: Resource) -> str:
        return f"{self.stem(resource.id)}-{self.nonce()}"


@mutant("leak-in-the-queue", kills=("ORB-RES-09",))
class LeakInTheQueue(ModelEngine):
    """The files of jobs whose time was over before a worker had them stay for ever."""

    def on_timeout(self, job: Job) -> None:
        if job.owner is None:
            job.resources.clear()
        super().on_timeout(job)


@mutant("leak-in-hand", kills=("ORB-TMO-03",))
class LeakInHand(ModelEngine):
    """The files of jobs that a worker held when their time was over stay for ever."""

    def on_timeout(self, job: Job) -> None:
        if job.owner is not None:
            job.resources.clear()
        super().on_timeout(job)


@mutant("any-map-with-a-type-is-a-reference", kills=("ORB-RES-14",))
class AnyMapWithATypeIsAReference(ModelEngine):
    """Takes whatever has a ``__type`` for a reference, and loses the fields beside."""

    def resolve(self, value: Any, resources: dict[str, Resource]) -> Any:
        if type(value) is dict and "__type" in value and resources:
            return self.path_for(next(iter(resources.values())))
        return super().resolve(value, resources)


@mutant("pictures-in-text-mode", kills=("ORB-RES-02",))
class PicturesInTextMode(ModelEngine):
    """Changes line ends in pictures, and leaves documents as they are."""

    def content(self, resource: Resource) -> bytes:
        return resource.data.replace(b"\r\n", b"\n") if resource.kind == "image" else resource.data


@mutant("leak-on-error", kills=("ORB-RES-08",))
class LeakOnError(ModelEngine):
    """The files of jobs whose worker reported an error stay for ever."""

    def on_result(self, worker: Worker, entry: dict[str, Any]) -> None:
        job = self.job_of(entry)
        if job is not None and "error" in entry:
            job.resources.clear()
        super().on_result(worker, entry)

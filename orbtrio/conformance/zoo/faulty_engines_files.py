"""Engines that are wrong about resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutant
from orbtrio.conformance.zoo.wire import Refused

if TYPE_CHECKING:
    from orbtrio.conformance.zoo.dispatch import Job, Worker
    from orbtrio.conformance.zoo.files import Resource

__all__: list[str] = []

# --- RES ----------------------------------------------------------------------------------------------------


@mutant("relative-path", kills=("ORB-RES-01",))
class RelativePath(ModelEngine):
    """Tells workers a path that is relative to its own directory."""

    def path_for(self, resource: Resource) -> str:
        return str(resource.path and resource.path.relative_to(self.root))


@mutant("text-mode", kills=("ORB-RES-02",))
class TextMode(ModelEngine):
    """Writes files in text mode: line ends change, and pictures with them."""

    def content(self, resource: Resource) -> bytes:
        return resource.data.replace(b"\r\n", b"\n")


@mutant("first-64-kib", kills=("ORB-RES-02",))
class First64KiB(ModelEngine):
    """Writes what one write takes, and not the rest."""

    def content(self, resource: Resource) -> bytes:
        return resource.data[: 64 * 1024]


@mutant("resources-of-any-size", kills=("ORB-RES-03",))
class ResourcesOfAnySize(ModelEngine):
    """Stores resources beyond 2 MB."""

    def may_be_stored(self, resource: Resource) -> bool:
        return True


@mutant("too-big-1008", kills=("ORB-RES-03",))
class TooBigIsPolicy(ModelEngine):
    """Closes with 1008 for a resource that is too big, instead of 1009."""

    def close_code_for(self, problem: str) -> int:
        return 1008 if problem == "resource too big" else super().close_code_for(problem)


@mutant("limit-of-1-mib", kills=("ORB-RES-04",))
class LimitOf1MiB(ModelEngine):
    """Refuses resources beyond 1 MiB, which is what WebSocket libraries do unless told otherwise."""

    def may_be_stored(self, resource: Resource) -> bool:
        return len(resource.data) <= 1024 * 1024


@mutant("missing-resources-pass", kills=("ORB-RES-05",))
class MissingResourcesPass(ModelEngine):
    """Sends workers references to resources that nobody sent."""

    def refuses_missing(self, ids: set[str]) -> bool:
        return False


@mutant("refused-files-stay", kills=("ORB-RES-05",))
class RefusedFilesStay(ModelEngine):
    """Writes the files before it looks at the references, and leaves them there when it refuses."""

    def check_references(self, resources: dict[str, Resource], referenced: set[str]) -> None:
        self.store(resources, "early")
        super().check_references(resources, referenced)


@mutant("unused-resources-pass", kills=("ORB-RES-06",))
class UnusedResourcesPass(ModelEngine):
    """Accepts resources that no job refers to."""

    def refuses_unused(self, ids: set[str]) -> bool:
        return False


@mutant("first-job-deletes", kills=("ORB-RES-07",))
class FirstJobDeletes(ModelEngine):
    """Deletes a file with the first job that is done, while others still need it."""

    def release(self, resource: Resource) -> None:
        self.delete(resource)


@mutant("leak-on-answer", kills=("ORB-RES-08",))
class LeakOnAnswer(ModelEngine):
    """The files of jobs that are answered stay for ever."""

    def on_result(self, worker: Worker, entry: dict[str, Any]) -> None:
        job = self.job_of(entry)
        if job is not None and self.may_answer(worker, job):
            job.resources.clear()
        super().on_result(worker, entry)


@mutant("leak-on-timeout", kills=("ORB-RES-09", "ORB-TMO-03"))
class LeakOnTimeout(ModelEngine):
    """The files of jobs whose time is over stay for ever."""

    def on_timeout(self, job: Job) -> None:
        job.resources.clear()
        super().on_timeout(job)


@mutant("leak-on-client-loss", kills=("ORB-RES-10",))
class LeakOnClientLoss(ModelEngine):
    """The files of a client that goes away stay for ever."""

    def abandon(self, job: Job) -> None:
        job.resources.clear()
        super().abandon(job)


@mutant("copies", kills=("ORB-RES-11",))
class Copies(ModelEngine):
    """Writes identical resources of a request once each."""

    def identity(self, resource: Resource) -> object:
        return resource.id


@mutant("one-file-per-id", kills=("ORB-RES-12",))
class OneFilePerId(ModelEngine):
    """The next request's resource of the same id replaces the file that a worker is about to read."""

    def nonce(self) -> str:
        return "0"

    def write(self, resource: Resource, path: Any) -> None:
        path.unlink(missing_ok=True)
        super().write(resource, path)


# It climbs two levels at most: no experiment may leave its directory.
@mutant("path-traversal", kills=("ORB-RES-13",))
class PathTraversal(ModelEngine):
    """Makes file names of ids as they are: "../" leaves the tenant's directory."""

    def stem(self, resource_id: str) -> str:
        parts = resource_id.replace("\0", "")[:200].split("/")
        return "../" * min(parts.count(".."), 2) + super().stem(parts[-1] or "empty")


@mutant("references-at-the-top-only", kills=("ORB-RES-14",))
class ReferencesAtTheTopOnly(ModelEngine):
    """Resolves references among an input's fields, and not those in lists and maps below."""

    def resolve(self, value: Any, resources: dict[str, Resource]) -> Any:
        one = super().resolve
        return {
            name: one(field, resources) if type(field) is dict and "__type" in field else field
            for name, field in value.items()
        }


@mutant("extension-by-type", kills=("ORB-RES-15",))
class ExtensionByType(ModelEngine):
    """Calls every image .jpg."""

    def extension(self, resource: Resource) -> str:
        return "jpg" if resource.kind == "image" else "txt"


@mutant("javascript-bytes-refused", kills=("ORB-RES-16",))
class JavascriptBytesRefused(ModelEngine):
    """Knows no tag 64: the Uint8Array of a JavaScript client is refused."""

    def decode(self, data: bytes) -> dict[str, Any]:
        if b"data\xd8\x40" in data:
            raise Refused("undecodable message")
        return super().decode(data)


@mutant("latin-1-documents", kills=("ORB-RES-17",))
class Latin1Documents(ModelEngine):
    """Writes documents in the machine's old encoding instead of UTF-8."""

    def content(self, resource: Resource) -> bytes:
        return (
            resource.data.decode().encode("latin-1", "replace")
            if resource.kind == "document"
            else resource.data
        )

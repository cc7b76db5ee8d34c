"""Where the model engine keeps resources: one file each, deleted with the last job that names it."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from typing import TYPE_CHECKING, Any, Final

import attrs

from orbtrio.conformance.zoo.wire import Refused

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FileRules", "Resource", "find_references"]

MOST_BYTES: Final = 2 * 1024 * 1024
PLAIN_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"%PDF", "pdf"),
)


@attrs.define(eq=False)
class Resource:
    """Some bytes. Once stored they have a path, and jobs that use it."""

    id: str
    kind: str
    data: bytes
    path: Path | None = None
    users: int = 0


def find_references(value: Any) -> list[str]:
    """The ids of all references in a job's input, however deep."""
    if type(value) is dict:
        if set(value) == {"__type", "id"} and value["__type"] == "resource-ref":
            return [value["id"]] if type(value["id"]) is str else []
        return [found for member in value.values() for found in find_references(member)]
    if type(value) is list:
        return [found for member in value for found in find_references(member)]
    return []


class FileRules:
    """The rules about resources, one method each. Part of the model engine."""

    root: Path

    def may_be_stored(self, resource: Resource) -> bool:
        """2 MiB each; documents in UTF-8."""
        return len(resource.data) <= MOST_BYTES

    def resource_is_valid(self, wire: Any) -> bool:
        """An id, and bytes of an image or text of a document."""
        if type(wire) is not dict or type(wire.get("id")) is not str:
            return False
        kinds = {"image": bytes, "document": str}
        return type(wire.get("type")) is str and type(wire.get("data")) is kinds.get(wire["type"])

    def parse_resources(self, wires: Any) -> dict[str, Resource]:
        """The resources of a request, by id. `Refused` for all, if one is not right."""
        if type(wires) is not list or not all(self.resource_is_valid(wire) for wire in wires):
            raise Refused("resource is not valid")
        found: dict[str, Resource] = {}
        for wire in wires:
            data = wire["data"].encode() if type(wire["data"]) is str else wire["data"]
            resource = Resource(wire["id"], wire["type"], data)
            if resource.id in found:
                raise Refused("resource is not valid")
            if not self.may_be_stored(resource):
                raise Refused("resource too big")
            found[resource.id] = resource
        return found

    def check_references(self, resources: dict[str, Resource], referenced: set[str]) -> None:
        """Every reference has its resource, every resource a reference."""
        if self.refuses_missing(referenced - resources.keys()):
            raise Refused("resource is missing")
        if self.refuses_unused(resources.keys() - referenced):
            raise Refused("resource is not referenced")

    def refuses_missing(self, ids: set[str]) -> bool:
        """References without a resource."""
        return bool(ids)

    def refuses_unused(self, ids: set[str]) -> bool:
        """Resources without a reference."""
        return bool(ids)

    def store(self, resources: dict[str, Resource], tenant: str) -> None:
        """Write them, identical bytes once."""
        stored: dict[object, Resource] = {}
        for name, resource in resources.items():
            first = resources[name] = stored.setdefault(self.identity(resource), resource)
            if first.path is None:
                self.write(first, self.directory(tenant) / self.file_name(first))

    def identity(self, resource: Resource) -> object:
        """Resources of a request with equal identities share a file."""
        return resource.kind, resource.data

    def directory(self, tenant: str) -> Path:
        """Where a tenant's files are."""
        return self.root / "unblink-engine" / tenant / "files" / "frames"

    def file_name(self, resource: Resource) -> str:
        """``{resource_id}-{nonce}.{ext}``; what is no plain id is replaced by a digest."""
        return f"{self.stem(resource.id)}-{self.nonce()}.{self.extension(resource)}"

    def stem(self, resource_id: str) -> str:
        """An id, as a part of a file's name."""
        if PLAIN_ID.match(resource_id):
            return resource_id
        return hashlib.sha256(resource_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def nonce(self) -> str:
        """Nobody can guess a file's name, and no two have the same."""
        return secrets.token_hex(8)

    def extension(self, resource: Resource) -> str:
        """By what the bytes say, not by what the client says."""
        for magic, extension in MAGIC:
            if resource.data.startswith(magic):
                return extension
        if resource.data[:4] == b"RIFF" and resource.data[8:12] == b"WEBP":
            return "webp"
        return "txt" if resource.kind == "document" else "bin"

    def write(self, resource: Resource, path: Path) -> None:
        """Whole, new, and readable for nobody else."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self.content(resource))
        resource.path = path

    def content(self, resource: Resource) -> bytes:
        """What a worker will read."""
        return resource.data

    def resolve(self, value: Any, resources: dict[str, Resource]) -> Any:
        """A copy of a job's input with paths for references."""
        if type(value) is dict:
            if (
                set(value) == {"__type", "id"}
                and value["__type"] == "resource-ref"
                and value["id"] in resources
            ):
                return self.path_for(resources[value["id"]])
            return {name: self.resolve(member, resources) for name, member in value.items()}
        if type(value) is list:
            return [self.resolve(member, resources) for member in value]
        return value

    def path_for(self, resource: Resource) -> str:
        """What a worker is told."""
        return str(resource.path)

    def release(self, resource: Resource) -> None:
        """One job less uses it."""
        resource.users -= 1
        if resource.users == 0:
            self.delete(resource)

    def delete(self, resource: Resource) -> None:
        """Nobody uses it any more."""
        if resource.path is not None:
            resource.path.unlink(missing_ok=True)

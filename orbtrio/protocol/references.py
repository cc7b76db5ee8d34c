"""Resources, and the references to them inside of jobs.

A reference is exactly ``{"__type": "resource-ref", "id": <text>}``, at any depth of lists and maps. A map
with one key more is ordinary data and left alone: a worker's own vocabulary must never be mistaken for
ours. Tagged values are opaque, so nobody looks into them.

`collect` and `replace` keep stacks of their own instead of recursing. Values from the network are at most 64
levels deep; what a program submits in process may be deeper, and a `RecursionError` far from its cause helps
nobody.

Spec: "Resource System".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

from orbtrio.errors import InvalidMessage, ResourceRejected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "MARKER",
    "MAX_RESOURCE_BYTES",
    "TYPED_ARRAY",
    "Resource",
    "collect",
    "match",
    "replace",
    "resources_from_wire",
]

# What every reference contains. The codec looks for it in a message's bytes, and can then skip the search
# in most.
MARKER: Final = "resource-ref"

# The tag in which JavaScript sends a Uint8Array.
TYPED_ARRAY: Final = 64

# Spec, "Resource Validation": "Maximum resource size: 2MB per resource".
MAX_RESOURCE_BYTES: Final = 2 * 1024 * 1024


@attrs.frozen
class Resource:
    """Bytes that jobs of the same request refer to.

    Attributes:
        resource_id: Unique within its request; any text.
        kind: What it is (wire: ``type``).
        data: At most 2 MiB. Of a document, its text as UTF-8. Of an image, perhaps a view of the message
            that brought it (see `images`).

    Raises:
        InvalidMessage: wrong types (close code 1008).
        ResourceRejected: too large (close code 1009).

    Spec: "Resource Reference Model", "Resource Validation".
    """

    resource_id: str
    kind: Literal["image", "document"]
    data: bytes | memoryview = attrs.field(repr=False)

    def __attrs_post_init__(self) -> None:
        if type(self.resource_id) is not str:
            raise InvalidMessage("expected text", path="id")
        if self.kind not in ("image", "document"):
            raise InvalidMessage("expected image or document", path="type")
        if not (type(self.data) is bytes or (self.kind == "image" and _is_view_of_bytes(self.data))):
            raise InvalidMessage(f"not the data of a resource of type {self.kind}", path="data")
        if len(self.data) > MAX_RESOURCE_BYTES:
            raise ResourceRejected(f"more than {MAX_RESOURCE_BYTES} bytes", path="data")

    @classmethod
    def from_wire(cls, wire: object) -> Resource:
        """Check one member of ``resources``."""
        if type(wire) is not dict:
            raise InvalidMessage("expected a map")
        kind: Any = wire.get("type")
        data: Any = wire.get("data")
        if kind == "document":
            # Bytes are no text, even if they might be UTF-8: None fails the check above.
            data = data.encode() if type(data) is str else None
        elif getattr(data, "tag", None) == TYPED_ARRAY and type(data.value) is bytes:
            data = data.value
        fields: dict[str, Any] = {"resource_id": wire.get("id"), "kind": kind, "data": data}
        return cls(**fields)


# Of other objects the content might change, or be something else than bytes.
def _is_view_of_bytes(data: object) -> bool:
    return type(data) is memoryview and type(data.obj) is bytes and data.contiguous and data.format == "B"


def resources_from_wire(wire: object) -> tuple[Resource, ...]:
    """Check a field ``resources``; it may be absent."""
    if wire is None:
        return ()
    if type(wire) is not list:
        raise InvalidMessage("expected a list", path="resources")
    resources: list[Resource] = []
    for index, member in enumerate(wire):
        try:
            resources.append(Resource.from_wire(member))
        except InvalidMessage as error:
            raise type(error)(str(error), path=f"resources[{index}]") from None
    return tuple(resources)


def match(
    inputs: Sequence[Any], resources: Sequence[Resource], *, skipped: Sequence[Any] = ()
) -> list[tuple[str, ...]]:
    """Hold the references in jobs against the resources beside them.

    Args:
        inputs: The input of each job.
        resources: All of the request.
        skipped: Jobs that cannot be run. They may still be the reason for a resource.

    Returns:
        For each input the ids it refers to.

    Raises:
        InvalidMessage: two resources with the same id (1008).
        ResourceRejected: a reference to nothing, or a resource without a reference (1009).
    """
    known = frozenset(resource.resource_id for resource in resources)
    if len(known) < len(resources):
        raise InvalidMessage("expected each id once", path="resources")
    used = set(collect(list(skipped)))
    found: list[tuple[str, ...]] = []
    for index, value in enumerate(inputs):
        ids = collect(value)
        if not known.issuperset(ids):
            raise ResourceRejected("refers to a resource that is not in the request", path=f"jobs[{index}]")
        used.update(ids)
        found.append(ids)
    if not used.issuperset(known):
        raise ResourceRejected("expected each to be referred to by a job", path="resources")
    return found


def collect(value: Any) -> tuple[str, ...]:
    """The ids that `value` refers to, each once, in order of appearance."""
    found: dict[str, None] = {}
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is dict:
            resource_id = _referred(item)
            if resource_id is not None:
                found[resource_id] = None
                continue
            members = list(item.values())
        elif type(item) is list:
            members = item
        else:
            continue
        # The stack gives back last what came first.
        waiting.extend(member for member in reversed(members) if type(member) in _CONTAINERS)
    return tuple(found)


_CONTAINERS: Final = (dict, list)


def replace(value: Any, paths: Mapping[str, str]) -> Any:
    """A copy of `value` in which every reference is its path.

    Maps and lists are new, everything else is shared with `value`, which stays as it is.

    Args:
        value: A job's input, or any part of one.
        paths: From resource id to path. What is absent here stays a reference.
    """
    # Each container is copied before its members are looked at: they are exchanged in the copy of their
    # parent.
    result: list[Any] = [value]
    waiting: list[Any] = [result]
    while waiting:
        container = waiting.pop()
        for key, member in list(container.items() if type(container) is dict else enumerate(container)):
            if type(member) in _CONTAINERS:
                resource_id = _referred(member)
                if resource_id is not None:
                    container[key] = paths.get(resource_id, member)
                else:
                    container[key] = copy = member.copy()
                    waiting.append(copy)
    return result[0]


# The id that a container refers to; None if it is ordinary data.
def _referred(item: Any) -> str | None:
    if type(item) is dict and len(item) == 2 and item.get("__type") == MARKER:
        resource_id = item.get("id")
        return resource_id if type(resource_id) is str else None
    return None

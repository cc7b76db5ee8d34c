"""Resource references inside a job's input: find them, replace them.

A reference is exactly ``{"__type": "resource-ref", "id": <text>}``, at any depth of lists and maps. A map with one key more
is ordinary data and left alone: a worker's own vocabulary must never be mistaken for ours. Tagged values are opaque and
not looked into.

Both functions keep their own stack instead of recursing. Values from the network are at most 64 deep, but those that a program submits
in process may be deeper, and a `RecursionError` far from its cause helps nobody.

Spec: "Resource Reference Model".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MARKER", "collect", "replace"]

# The text that every reference contains. The codec looks for its bytes to skip the search in most messages.
MARKER: Final = "resource-ref"


def collect(value: Any) -> tuple[str, ...]:
    """The ids that `value` refers to, each once, in order of first appearance."""
    found: dict[str, None] = {}
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is dict:
            resource_id = _referred(item)
            if resource_id is not None:
                found[resource_id] = None
            else:
                waiting.extend(reversed(item.values()))
        elif type(item) is list:
            waiting.extend(reversed(item))
    return tuple(found)


def replace(value: Any, paths: Mapping[str, str]) -> Any:
    """A copy of `value` in which every reference is its path.

    Maps and lists are new, everything else is shared with `value`, which is not changed.

    Args:
        value: A job's input, or any part of one.
        paths: Resource id to path. An id that is absent stays a reference.
    """
    # Each container is copied before its members are looked at, so that a member can be exchanged in its copied parent.
    result = [value]
    waiting: list[dict[Any, Any] | list[Any]] = [result]
    while waiting:
        container = waiting.pop()
        members = list(container.items()) if type(container) is dict else list(enumerate(container))
        for key, item in members:
            if type(item) is dict:
                resource_id = _referred(item)
                if resource_id is not None:
                    container[key] = paths.get(resource_id, item)
                    continue
                copy: dict[Any, Any] | list[Any] = dict(item)
            elif type(item) is list:
                copy = list(item)
            else:
                continue
            container[key] = copy
            waiting.append(copy)
    return result[0]


# The id that a map refers to; None if it is ordinary data.
def _referred(item: dict[Any, Any]) -> str | None:
    if len(item) == 2 and item.get("__type") == MARKER:
        resource_id = item.get("id")
        if type(resource_id) is str:
            return resource_id
    return None

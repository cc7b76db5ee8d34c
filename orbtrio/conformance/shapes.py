"""What fits the shapes that the spec prints for each worker type, and for the path of a resource.

`check_output` says in words what does not fit. It demands what the page says and what the page cannot mean
otherwise: parallel lists are equally long, a mask has a positive size, results and an error exclude each
other. Fields that the page does not name are nobody's fault.

The page's types are written down here as maps of checks, close to how they are printed, so that the two can
be compared by eye.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["check_output", "check_path"]

# Where the page puts a resource, below $XDG_DATA_HOME; it names the parts of the path, and so does this.
_STORED: Final = re.compile(
    r"/(?:.*/)?unblink-engine/(?P<tenant>[^/]+)/files/frames/(?P<resource>[^/]+)-(?P<nonce>[^/-]+)\.(?P<ext>[^/.]+)"
)
# Other ids may be written in another way: they could lead out of the directory.
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_path(path: object, resource_id: str) -> list[str]:
    """What does not fit "Storage" in the path that an engine put in place of a reference."""
    if not isinstance(path, str):
        return [f"the path must be a text, not {_shown(path)}"]
    stored = _STORED.fullmatch(path)
    if stored is None:
        return [
            f"{path!r} is not an absolute path like "
            ".../unblink-engine/{tenant_id}/files/frames/{resource_id}-{nonce}.{ext}"
        ]
    name = path.rpartition("/")[2]
    if _PLAIN_ID.fullmatch(resource_id) and not name.startswith(f"{resource_id}-"):
        return [f"the file's name {name!r} does not begin with the resource's id, {resource_id!r}"]
    return []


_Check: TypeAlias = "Callable[[str, Any], Iterator[str]]"


def _shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def _text(where: str, value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{where} must be a text, not {_shown(value)}"


def _number(least: float = -math.inf, most: float = math.inf, *, whole: bool = False) -> _Check:
    kind = "a whole number" if whole else "a number"
    if most < math.inf:
        kind += f" in [{least}, {most}]"
    elif least > -math.inf:
        kind += f" of at least {least}"

    def check(where: str, value: Any) -> Iterator[str]:
        # A JavaScript or numpy worker may send 3.0 where 3 is meant: the same number.
        fits = type(value) is int or (type(value) is float and math.isfinite(value))
        if not fits or not least <= value <= most or (whole and value != int(value)):
            yield f"{where} must be {kind}, not {_shown(value)}"

    return check


def _list(item: _Check, length: int | None = None, *, least: int = 0) -> _Check:
    def check(where: str, value: Any) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{where} must be a list, not {_shown(value)}"
        elif length is not None and len(value) != length:
            yield f"{where} must have {length} entries, not {len(value)}"
        elif len(value) < least:
            yield f"{where} must not be empty"
        else:
            for number, entry in enumerate(value):
                complaints = list(item(f"{where}[{number}]", entry))
                if complaints:
                    # The others are most likely wrong in the same way.
                    yield from complaints
                    return

    return check


def _map(fields: Mapping[str, _Check]) -> _Check:
    """A map with these fields. A name that ends in a question mark, as on the page, may be absent."""

    def check(where: str, value: Any) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{where} must be a map, not {_shown(value)}"
            return
        for printed, field in fields.items():
            name = printed.removesuffix("?")
            inside = f"{where}.{name}" if where else name
            if name in value:
                yield from field(inside, value[name])
            elif name == printed:
                yield f"{inside} is missing"

    return check


def _ordered(where: str, low: str, high: str, start: Any, end: Any) -> Iterator[str]:
    if start > end:
        yield f"{where}: {low} ({start}) must not be above {high} ({end})"


def _box(where: str, value: Any) -> Iterator[str]:
    complaints = list(_list(_number(), 4)(where, value))
    yield from complaints
    if not complaints:
        yield from _ordered(where, "x_min", "x_max", value[0], value[2])
        yield from _ordered(where, "y_min", "y_max", value[1], value[3])


def _named_box(where: str, value: Any) -> Iterator[str]:
    sides = ("x_min", "y_min", "x_max", "y_max")
    complaints = list(_map(dict.fromkeys(sides, _number()))(where, value))
    yield from complaints or _box(where, [value[side] for side in sides])


_SCORE: Final = _number(0, 1)
_MASK: Final = _map({"size": _list(_number(1, whole=True), 2), "counts": _text})

# What stands in a result beside `id`. All but video_segmentation mark every field as optional, because one
# type covers results and errors; here each names the field without which a result would be none.
_RESULTS: Final[Mapping[str, Mapping[str, _Check]]] = {
    "embedding": {"embedding": _list(_number(), least=1), "shape?": _list(_number(1, whole=True), 1)},
    "llm": {"response": _text},
    "vlm": {"response": _text},
    "caption": {"response": _text},
    "object_detection": {
        "detections": _list(_map({"label": _text, "score": _SCORE, "box": _named_box})),
    },
    "segmentation": {"masks": _list(_MASK), "labels?": _list(_text), "boxes?": _list(_box)},
    "video_segmentation": {
        "cross_job_id": _text,
        "frame_count": _number(0, whole=True),
        "objects": _list(_number(whole=True)),
        "scores": _list(_SCORE),
        "labels": _list(_text),
        "boxes": _list(_box),
        "masks": _list(_MASK),
    },
    "motion_energy": {"motion_energy": _SCORE},
}
# Beside an error, too.
_ALWAYS: Final = {"video_segmentation": {"cross_job_id": _text}}
# An entry of one belongs to the entry at the same place of the others.
_PARALLEL: Final = ("objects", "scores", "labels", "boxes", "masks")


def check_output(worker_type: str, entry: object) -> list[str]:
    """What does not fit the documented shape of an entry of a worker's ``output``, in words.

    Of a type that the spec does not document only ``id`` and ``error`` are checked.
    """
    if not isinstance(entry, dict):
        return [f"the output must be a map, not {_shown(entry)}"]
    results = _RESULTS.get(worker_type, {})
    if "error" in entry:
        always = _ALWAYS.get(worker_type, {})
        complaints = list(_map({"id": _text, "error": _text, **always})("", entry))
        names = {name.removesuffix("?") for name in results} - always.keys()
        beside = sorted(names & entry.keys())
        if beside:
            complaints.append(f"{' and '.join(beside)} beside the error: results or an error, never both")
        return complaints
    return list(_map({"id": _text, **results})("", entry)) or list(_relations(worker_type, entry))


def _relations(worker_type: str, entry: Mapping[str, Any]) -> Iterator[str]:
    if worker_type == "embedding" and "shape" in entry and entry["shape"] != [len(entry["embedding"])]:
        yield f"shape is {entry['shape']}, but the embedding has {len(entry['embedding'])} numbers"
    if worker_type in ("segmentation", "video_segmentation"):
        named = {name.removesuffix("?") for name in _RESULTS[worker_type]}
        lengths = {name: len(entry[name]) for name in _PARALLEL if name in named & entry.keys()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
            yield f"parallel lists must be equally long, and are not: {listed}"

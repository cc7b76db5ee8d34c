"""Photographs as jobs: what is on them, where exactly, and which one a text describes.

All are in the public domain or CC0 and come with scikit-image. The vision workers' builtin models are small:
what they must find here is what nobody could overlook.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any, Final

import attrs
import matplotlib.image
import numpy as np
import skimage.data

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    # Red, green, blue from 0 to 255: (height, width, 3).
    Pixels = npt.NDArray[np.uint8]
    Mask = npt.NDArray[np.bool_]  # (height, width)

__all__ = [
    "PHOTOGRAPHS",
    "STROLL",
    "Photograph",
    "encode",
    "find_wrong_detections",
    "find_wrong_search",
    "find_wrong_segments",
    "find_wrong_tracks",
    "load",
    "stroll",
]

_LEAST_SCORE: Final = 0.5

# Of its box. A cat's face fills nearly all of it, a cup with its handle less; a mask of one or the other kind
# of nothing is outside.
_LEAST_COVER: Final = 0.3
_MOST_COVER: Final = 0.98


@attrs.frozen
class Photograph:
    """A photograph of `skimage.data`.

    Attributes:
        query: A text that describes it and none of the others.
        label: What is on it, as COCO calls it; None if COCO has no name for it.
    """

    query: str
    label: str | None


PHOTOGRAPHS: Final = {
    "chelsea": Photograph("a house cat", "cat"),
    "astronaut": Photograph("astronaut in a space suit with a helmet", "person"),
    "coffee": Photograph("a cup of espresso", "cup"),
    "rocket": Photograph("a rocket launch", None),
}
"""By name."""

STROLL: Final = ("astronaut", "chelsea")
"""What the camera of `stroll` passes, from left to right."""

_VIEW: Final = (300, 460)  # height, width
_STEPS: Final = 12


def load(name: str) -> Pixels:
    """The pixels of a photograph."""
    pixels: Pixels = getattr(skimage.data, name)()
    return pixels


def encode(pixels: Pixels) -> bytes:
    """A picture as a PNG file."""
    file = io.BytesIO()
    matplotlib.image.imsave(file, np.ascontiguousarray(pixels), format="png")
    return file.getvalue()


@functools.cache
def stroll() -> tuple[Pixels, ...]:
    """The frames of a camera that moves from one photograph to the next."""
    height, width = _VIEW
    wall = np.hstack([load(name)[:height] for name in STROLL])
    left = np.linspace(0, wall.shape[1] - width, _STEPS).astype(int)
    return tuple(wall[:, start : start + width] for start in left)


# --- What is wrong ----------------------------------------------------------------------------------------


def find_wrong_search(
    pictures: Mapping[str, Sequence[float]], queries: Mapping[str, Sequence[float]]
) -> Iterator[str]:
    """Say which texts do not find their photograph; both arguments are embeddings by a photograph's name."""
    names = list(pictures)
    vectors = np.asarray([pictures[name] for name in names])
    for name, query in queries.items():
        nearest = names[int(np.argmax(vectors @ np.asarray(query)))]
        if nearest != name:
            yield f"{PHOTOGRAPHS[name].query!r} finds the photograph {nearest!r}, not {name!r}"


def find_wrong_detections(outputs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Say on which photographs an object was not found; `outputs` are those of ``object_detection``."""
    for name, output in outputs.items():
        found = {one["label"]: one["score"] for one in reversed(output["detections"])}
        label = PHOTOGRAPHS[name].label
        if label is not None and found.get(label, 0) < _LEAST_SCORE:
            yield f"{name}: no {label} was detected, but {found}"


def find_wrong_segments(
    outputs: Mapping[str, Mapping[str, Any]], masks: Mapping[str, Sequence[Mask]]
) -> Iterator[str]:
    """Say on which photographs an object has no sensible outline.

    Args:
        outputs: Of ``segmentation``, by photograph.
        masks: The same, decoded.
    """
    for name, output in outputs.items():
        label = PHOTOGRAPHS[name].label
        if label not in output["labels"]:
            if label is not None:
                yield f"{name}: no {label} was segmented, but {output['labels']}"
            continue
        place = output["labels"].index(label)
        x_min, y_min, x_max, y_max = output["boxes"][place]
        cover = masks[name][place].sum() / max(1.0, (x_max - x_min) * (y_max - y_min))
        if not _LEAST_COVER <= cover <= _MOST_COVER:
            yield f"{name}: the mask of the {label} covers {cover:.0%} of its box"


def find_wrong_tracks(outputs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say what is wrong with the answers of ``video_segmentation`` to the frames of `stroll`, in order."""
    ids: dict[str, set[int]] = {}
    for place, output in enumerate(outputs):
        for object_id, label in zip(output["objects"], output["labels"], strict=True):
            ids.setdefault(label, set()).add(object_id)
        if output["frame_count"] - outputs[0]["frame_count"] != place:
            yield f"frame {place} was counted as {output['frame_count']}"
    for name in STROLL:
        label = PHOTOGRAPHS[name].label or ""
        if len(ids.get(label, ())) != 1:
            yield f"the {label} has the ids {sorted(ids.get(label, ()))}, not one"

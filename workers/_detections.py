"""What a model finds in a picture: the values that pass between a worker and whichever model it runs.

A box is ``(x_min, y_min, x_max, y_max)`` in pixels of the picture that the model was given, clipped to it; a
mask is a bool array ``(height, width)`` of that picture. Plain Python numbers and texts everywhere else, so
that they can be answered as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Mask: TypeAlias = npt.NDArray[np.bool_]

Box: TypeAlias = tuple[float, float, float, float]


@attrs.frozen(kw_only=True)
class Detection:
    """A thing, how sure the model is of it, 0 to 1, and where it is."""

    label: str
    score: float
    box: Box


@attrs.frozen(kw_only=True, eq=False)
class Segment(Detection):
    """A thing with its outline."""

    mask: Mask


@attrs.frozen(kw_only=True, eq=False)
class TrackedSegment(Segment):
    """A thing that has been seen before, or will be: `object_id` is the same in every frame of a session."""

    object_id: int


def clipped(box: Box, width: float, height: float) -> Box:
    """The part of `box` that lies in a picture of this size."""
    x_min, y_min, x_max, y_max = box
    return (
        min(max(x_min, 0.0), width),
        min(max(y_min, 0.0), height),
        min(max(x_max, 0.0), width),
        min(max(y_max, 0.0), height),
    )


def area(box: Box) -> float:
    """In square pixels; 0.0 for a box that is turned inside out."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def overlap(one: Box, other: Box) -> float:
    """Of two boxes the shared area by the joint one, 0 to 1 ("intersection over union")."""
    shared = area(
        (max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3]))
    )
    joint = area(one) + area(other) - shared
    return shared / joint if joint else 0.0

"""Outlines as text: COCO's run-length encoding, as ``pycocotools.mask`` reads and writes it.

The lengths of the runs of equal pixels, column by column from the top left, beginning with pixels that do
not belong to the thing (perhaps none of them). From the fourth on, each length is written as its difference
to the one two before, for outlines change little from column to column; the numbers go in groups of five
bits, lowest first, each with a sixth bit that says whether more follow, as characters from ``0`` to ``o``.

Written here with numpy, rather than taken from pycocotools, so that nobody has to compile to read an answer;
the tests compare the two. Spec: "Image Segmentation Worker".
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt


def encode(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """The mask ``(height, width)`` as ``{"size": [height, width], "counts": text}``."""
    height, width = mask.shape
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    edges = [0, *changes.tolist(), pixels.size]
    counts = [end - start for start, end in itertools.pairwise(edges)]
    if pixels.size and pixels[0]:
        counts.insert(0, 0)
    return {"size": [height, width], "counts": _written(counts)}


def decode(rle: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """The mask back.

    Raises:
        ValueError: the text is no such encoding of a mask of that size.
    """
    height, width = rle["size"]
    counts = _read(rle["counts"])
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(f"counts: not the runs of a mask of {height}x{width} pixels")
    values = np.arange(len(counts)) % 2 == 1
    mask: npt.NDArray[np.bool_] = np.repeat(values, counts).reshape((height, width), order="F")
    return mask


def _written(counts: list[int]) -> str:
    text = bytearray()
    for place, count in enumerate(counts):
        number = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            bits = number & 0x1F
            number >>= 5
            # Done when what is left is the sign of what has been written.
            more = number != (-1 if bits & 0x10 else 0)
            text.append(48 + (bits | (0x20 if more else 0)))
    return text.decode("ascii")


def _read(text: str) -> list[int]:
    counts: list[int] = []
    number = shift = 0
    for character in text.encode():
        bits = character - 48
        if not 0 <= bits < 64:
            raise ValueError("counts: not a run-length encoding as COCO writes it")
        number |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                number -= 1 << shift
            counts.append(number + counts[-2] if len(counts) > 2 else number)
            number = shift = 0
    if shift:
        raise ValueError("counts: the run-length encoding ends in the middle of a number")
    return counts

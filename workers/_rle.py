"""Outlines as text: COCO's run-length encoding, as the protocol's masks have it.

Spec: "Image Segmentation Worker".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt


def encode(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """The mask ``(height, width)`` as ``{"size": [height, width], "counts": text}``."""
    height, width = mask.shape
    # COCO counts down the columns.
    counts: bytes = coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    return {"size": [height, width], "counts": counts.decode("ascii")}


def decode(rle: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """The mask back."""
    mask: npt.NDArray[np.bool_] = coco.decode(dict(rle)).astype(bool)
    return mask

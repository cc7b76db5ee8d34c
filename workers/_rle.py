"""Outlines as text: COCO's run-length encoding, as the protocol's masks have it.

Spec: "Image Segmentation Worker".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco

if TYPE_CHECKING:
    import numpy.typing as npt


def encode(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """The mask ``(height, width)`` as ``{"size": [height, width], "counts": text}``."""
    height, width = mask.shape
    # COCO counts down the columns.
    counts: bytes = coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    return {"size": [height, width], "counts": counts.decode("ascii")}

"""Outlines read back, as whoever gets an answer reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pycocotools import mask as coco

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt


def decode(rle: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """The mask ``(height, width)`` of an encoded outline."""
    mask: npt.NDArray[np.bool_] = coco.decode(dict(rle)).astype(bool)
    return mask

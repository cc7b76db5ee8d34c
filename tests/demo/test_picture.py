from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import matplotlib.image
import numpy as np
import pytest

from orbtrio.demo.clip import Clip
from orbtrio.demo.picture import draw_picture

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import SubFigure


def make_clip(lengths: list[int]) -> Clip:
    frame = cv2.imencode(".jpg", np.full((24, 32, 3), 128, np.uint8))[1].tobytes()
    return Clip(
        parts={f"camera-{number}": [frame] * length for number, length in enumerate(lengths)}, interval=0.04
    )


@pytest.mark.parametrize(
    ("lengths", "peak"),
    [([125, 125, 125, 125], 0.08), ([1, 2, 2, 2], 0.0), ([40], 0.02)],
    ids=["own clip", "seven still frames", "one media id"],
)
def test_picture_has_a_row_per_media_id(tmp_path: Path, lengths: list[int], peak: float) -> None:
    clip = make_clip(lengths)
    energies = {media_id: [0.0] + [peak] * (len(frames) - 1) for media_id, frames in clip.parts.items()}
    drawn: list[SubFigure] = []
    panels = [("first", drawn.append), ("second", drawn.append)]
    draw_picture(tmp_path / "out.png", "title", clip, energies, panels)
    picture = matplotlib.image.imread(tmp_path / "out.png")
    assert picture.shape[:2] == (1350, 1980)
    assert len(np.unique(picture.reshape(-1, 4), axis=0)) > 100
    assert [panel.get_suptitle() for panel in drawn] == ["first", "second"]

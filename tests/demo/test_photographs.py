from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import pytest

from orbtrio.demo import photographs
from orbtrio.demo.photographs import PHOTOGRAPHS


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_photograph_is_sent_as_it_is(name: str) -> None:
    pixels = photographs.load(name)
    assert pixels.ndim == 3
    read = matplotlib.image.imread(io.BytesIO(photographs.encode(pixels)), format="png")
    assert np.array_equal((read[:, :, :3] * 255).round().astype(np.uint8), pixels)


def test_the_stroll_begins_at_one_photograph_and_ends_at_the_other() -> None:
    frames = photographs.stroll()
    assert {frame.shape for frame in frames} == {(300, 460, 3)}
    assert np.array_equal(frames[0], photographs.load("astronaut")[:300, :460])
    assert np.array_equal(frames[-1][:, -400:], photographs.load("chelsea")[:300, -400:])


def test_a_score_below_a_half_is_no_detection() -> None:
    output = {"detections": [{"label": "cat", "score": 0.4}]}
    (mistake,) = photographs.find_wrong_detections({"chelsea": output})
    assert mistake == "chelsea: no cat was detected, but {'cat': 0.4}"


def test_a_photograph_of_what_coco_does_not_name_may_show_nothing() -> None:
    assert list(photographs.find_wrong_detections({"rocket": {"detections": []}})) == []
    assert (
        list(photographs.find_wrong_segments({"rocket": {"labels": [], "boxes": []}}, {"rocket": []})) == []
    )

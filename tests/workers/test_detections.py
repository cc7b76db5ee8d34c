"""Boxes and what is in them."""

from __future__ import annotations

import pytest

from workers._detections import Box, Detection, area, clipped, overlap


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 0, 4, 4), (0, 0, 4, 4), 1.0),
        ((0, 0, 4, 4), (2, 0, 6, 4), 1 / 3),
        ((0, 0, 4, 4), (1, 1, 3, 3), 1 / 4),
        ((0, 0, 4, 4), (4, 0, 8, 4), 0.0),
        ((0, 0, 4, 4), (9, 9, 12, 12), 0.0),
        ((1, 1, 1, 1), (1, 1, 1, 1), 0.0),
    ],
)
def test_overlap_is_the_shared_part_of_both(one: Box, other: Box, expected: float) -> None:
    assert overlap(one, other) == overlap(other, one) == pytest.approx(expected)


def test_box_is_cut_at_the_edges_of_the_picture() -> None:
    assert clipped((-3.0, 2.0, 20.0, 9.5), 10, 8) == (0.0, 2.0, 10, 8)
    assert area(clipped((12.0, 0.0, 20.0, 5.0), 10, 8)) == 0.0


def test_detections_are_values() -> None:
    one = Detection(label="cat", score=0.9, box=(0.0, 0.0, 1.0, 1.0))
    assert one == Detection(label="cat", score=0.9, box=(0.0, 0.0, 1.0, 1.0))

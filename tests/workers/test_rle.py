"""Outlines as text. That pycocotools writes the same is in tests/models/test_builtin_segmentation.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import _rle

if TYPE_CHECKING:
    from numpy.typing import NDArray


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.bool_]:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    runs = draw(st.lists(st.integers(1, 400), min_size=1))
    values = np.repeat(np.arange(len(runs) + 1) % 2 == draw(st.integers(0, 1)), [*runs, height * width])
    mask: NDArray[np.bool_] = values[: height * width].reshape(height, width)
    return mask


@given(masks())
def test_mask_comes_back(mask: NDArray[np.bool_]) -> None:
    rle = _rle.encode(mask)
    assert rle["size"] == list(mask.shape)
    assert np.array_equal(_rle.decode(rle), mask)


# What pycocotools 2.0.11 writes.
EXAMPLES = [
    (np.zeros((2, 3), bool), "6"),
    (np.ones((2, 3), bool), "06"),
    (np.array([[0, 1, 1], [0, 1, 0]], bool), "231"),
    (np.eye(4, dtype=bool), "01400000"),
    (np.pad(np.ones((5, 3), bool), ((40, 60), (2, 900))), "j75T3000lWl2"),
]


@pytest.mark.parametrize(("mask", "counts"), EXAMPLES)
def test_text_is_that_of_coco(mask: NDArray[np.bool_], counts: str) -> None:
    assert _rle.encode(mask) == {"size": list(mask.shape), "counts": counts}


def test_numbers_are_plain() -> None:
    rle = _rle.encode(np.ones((3, 2), bool))
    assert {type(side) for side in rle["size"]} == {int}
    assert type(rle["counts"]) is str


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ("5", "not the runs of a mask"),
        ("7", "not the runs of a mask"),
        ("", "not the runs of a mask"),
        ("7O", "not the runs of a mask"),
        ("6 ", "not a run-length encoding"),
        ("ä", "not a run-length encoding"),
        ("6P", "in the middle of a number"),
    ],
)
def test_other_text_is_refused(counts: str, problem: str) -> None:
    with pytest.raises(ValueError, match=rf"^counts: .*{problem}"):
        _rle.decode({"size": [2, 3], "counts": counts})

"""Outlines as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.workers.outlines import decode
from workers import _rle

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLES = [
    (np.zeros((2, 3), bool), "6"),
    (np.ones((2, 3), bool), "06"),
    (np.array([[0, 1, 1], [0, 1, 0]], bool), "231"),
    (np.eye(4, dtype=bool), "01400000"),
    (np.pad(np.ones((5, 3), bool), ((40, 60), (2, 900))), "j75T3000lWl2"),
]


@pytest.mark.parametrize(("mask", "counts"), EXAMPLES)
def test_text_is_that_of_coco_and_can_be_read_back(mask: NDArray[np.bool_], counts: str) -> None:
    rle = _rle.encode(mask)
    assert rle == {"size": list(mask.shape), "counts": counts}
    assert np.array_equal(decode(rle), mask)


def test_numbers_are_plain() -> None:
    rle = _rle.encode(np.ones((3, 2), bool))
    assert {type(side) for side in rle["size"]} == {int}
    assert type(rle["counts"]) is str

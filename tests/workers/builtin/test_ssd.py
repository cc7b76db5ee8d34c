"""What becomes of a detector's numbers. The detector itself is tested in tests/models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from workers.builtin import ssd, threads
from workers.builtin.ssd import LABELS, PASS, Detector

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# Number of the picture, number of the label, score, x_min, y_min, x_max, y_max.
Row = tuple[float, float, float, float, float, float, float]


class Network:
    """Stands for OpenCV and the network alike: answers with the rows that it was made with."""

    def __init__(self, *rows: Row) -> None:
        self.rows = rows
        self.passes: list[list[tuple[int, ...]]] = []
        self.dnn = self

    def blobFromImages(self, arrays: Sequence[NDArray[Any]], size: tuple[int, int]) -> None:
        assert size == (300, 300)
        self.passes.append([array.shape for array in arrays])

    def setInput(self, blob: None) -> None:
        pass

    def forward(self) -> NDArray[np.float32]:
        return np.array(self.rows, np.float32).reshape(1, 1, -1, 7)


def detector(*rows: Row) -> Detector:
    network = Network(*rows)
    return Detector(network, network)


def test_names_are_those_of_coco() -> None:
    assert len(LABELS) == 80
    assert (LABELS[1], LABELS[17], LABELS[44], LABELS[90]) == ("person", "cat", "bottle", "toothbrush")
    assert not {12, 26, 29, 30, 45, 66, 68, 69, 71, 83} & set(LABELS)


def test_boxes_are_in_pixels_of_the_picture_and_inside_of_it() -> None:
    model = detector((0, 17, 0.75, 0.5, -0.25, 1.5, 0.5))
    (found,) = model.detect([Image.new("RGB", (200, 100))])
    (one,) = found
    assert (one.label, one.score, one.box) == ("cat", 0.75, (100.0, 0.0, 200.0, 50.0))
    assert {type(number) for number in (one.score, *one.box)} <= {float, int}


def test_row_belongs_to_the_picture_that_it_names_likeliest_first() -> None:
    rows: list[Row] = [
        (1, 17, 0.625, 0, 0, 0.5, 0.5),
        (0, 1, 0.75, 0, 0, 1, 1),
        (1, 18, 0.875, 0.5, 0.5, 1, 1),
    ]
    found = detector(*rows).detect([Image.new("RGB", (10, 10)), Image.new("L", (20, 20))])
    assert [[one.label for one in detections] for detections in found] == [["person"], ["dog", "cat"]]


def test_unlikely_and_unnamed_things_are_left_out() -> None:
    rows: list[Row] = [(0, 1, 0.5, 0, 0, 0.5, 1), (0, 12, 0.9, 0, 0, 1, 1), (0, 0, 0.9, 0, 0, 1, 1)]
    picture = Image.new("RGB", (10, 10))
    assert detector(*rows).detect([picture]) == [[]]
    assert [one.label for one in detector(*rows).detect([picture], least=0.35)[0]] == ["person"]


def test_thing_under_two_names_is_what_it_is_likelier_to_be() -> None:
    rows: list[Row] = [
        (0, 51, 0.8, 0.1, 0.1, 0.9, 0.9),
        (0, 47, 0.9, 0.1, 0.1, 0.9, 0.91),
        (0, 50, 0.7, 0.1, 0.1, 0.9, 0.5),
    ]
    (found,) = detector(*rows).detect([Image.new("RGB", (10, 10))])
    assert [one.label for one in found] == ["cup", "spoon"]


def test_large_batch_takes_several_passes() -> None:
    model = detector()
    pictures = [Image.new("L", (30 + number, 20)) for number in range(PASS + 3)]
    assert model.detect(pictures) == [[] for _ in pictures]
    assert [len(shapes) for shapes in model._network.passes] == [PASS, 3]
    assert model._network.passes[0][1] == (20, 31, 3)


def test_nothing_is_found_in_no_pictures() -> None:
    assert detector().detect([]) == []


def test_files_are_found_and_threads_are_few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    asked: list[Any] = []
    cv2 = SimpleNamespace(
        setNumThreads=asked.append,
        dnn=SimpleNamespace(readNetFromTensorflow=lambda graph, shape: (graph, shape)),
    )
    monkeypatch.setattr(ssd, "runtime", lambda *names: {("cv2", "object-detection"): cv2}[names])
    monkeypatch.setattr(ssd, "package_file", lambda distribution, package, name, sha256: tmp_path / name)
    model = ssd.load()
    assert asked == [3]
    assert model._network == tuple(str(tmp_path / name) for name in ssd.FILES)


@pytest.mark.parametrize(
    ("value", "number"),
    [(None, 1), ("", 1), ("4", 4), ("4,2", 4), (" 2 ", 2), ("0", 1), ("many", 1), ("-3", 1)],
)
def test_threads_are_one_unless_somebody_says_so(
    value: str | None, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if value is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert threads() == number

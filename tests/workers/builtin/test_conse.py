"""Pictures by the names of what is in them; classifier and text model are fakes."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from workers.builtin import conse
from workers.builtin.conse import SIDE, Conse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

LABELS = ("cat", "dog", "cup", "moon")
SHARES = {"red": [200, 50, 0, 0], "blue": [0, 0, 250, 0], "black": [0, 0, 0, 0]}


class Classifier:
    """Knows pictures of one colour, by `SHARES`."""

    def __init__(self) -> None:
        self.opened = 0

    def open(self) -> Callable[[NDArray[np.uint8]], NDArray[Any]]:
        self.opened += 1
        return self.classify

    def classify(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        assert pixels.shape == (SIDE, SIDE, 3)
        assert pixels.dtype == np.uint8
        red, _, blue = pixels[0, 0]
        return np.array(SHARES["red" if red else "blue" if blue else "black"], np.uint8)


class Texts:
    """Gives each label an axis of its own, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        self.asked.append(texts)
        return np.eye(len(LABELS), dtype=np.float32)[[LABELS.index(text) for text in texts]]


@pytest.fixture
def texts() -> Texts:
    return Texts()


@pytest.fixture
def classifier() -> Classifier:
    return Classifier()


@pytest.fixture
def encode(classifier: Classifier, texts: Texts) -> Conse:
    return Conse(classifier.open, LABELS, texts)


def of(*colours: str) -> list[Image.Image]:
    return [Image.new("RGB", (30, 20), colour) for colour in colours]


def test_picture_is_the_mixture_of_its_names(encode: Conse) -> None:
    red, blue = encode(of("red", "blue"))
    np.testing.assert_allclose(red, np.array([200, 50, 0, 0]) / np.hypot(200, 50), atol=1e-6)
    np.testing.assert_allclose(blue, [0, 0, 1, 0])
    assert red.dtype == np.float32


def test_picture_that_has_no_name_still_has_a_vector_of_length_1(encode: Conse) -> None:
    (black,) = encode(of("black"))
    assert np.linalg.norm(black) == pytest.approx(1)


def test_likeliest_names_only_count(encode: Conse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conse, "NAMES", 1)
    (red,) = encode(of("red"))
    np.testing.assert_allclose(red, [1, 0, 0, 0])


def test_text_model_is_asked_for_a_name_once(encode: Conse, texts: Texts) -> None:
    encode(of("red", "red"))
    encode(of("blue", "red"))
    encode(of("blue"))
    assert texts.asked == [["cat", "dog"], ["cup"]]


def test_classifier_is_opened_for_the_first_picture_and_no_other(
    encode: Conse, classifier: Classifier
) -> None:
    assert classifier.opened == 0
    encode(of("red"))
    encode(of("blue"))
    assert classifier.opened == 1


def test_grey_picture_will_do(encode: Conse) -> None:
    encode([Image.new("L", (5, 5), 3)])


@pytest.mark.parametrize("missing", [None, conse.PACKAGE, conse.RUNTIME])
def test_both_package_and_runtime_are_needed(missing: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else object())
    assert conse.is_installed() is (missing is None)


class Interpreter:
    """Of the runtime: answers with the mean of what it was asked."""

    def __init__(self, path: str, num_threads: int) -> None:
        assert path.endswith(conse.WEIGHTS)
        assert num_threads == 1
        self.tensors: dict[int, NDArray[Any]] = {}

    def allocate_tensors(self) -> None:
        self.allocated = True

    def get_input_details(self) -> list[dict[str, int]]:
        return [{"index": 3}]

    def get_output_details(self) -> list[dict[str, int]]:
        return [{"index": 4}]

    def set_tensor(self, index: int, value: NDArray[Any]) -> None:
        assert self.allocated
        self.tensors[index] = value

    def invoke(self) -> None:
        self.tensors[4] = self.tensors[3].mean(axis=(1, 2)).astype(np.uint8)

    def get_tensor(self, index: int) -> NDArray[Any]:
        return self.tensors[index]


def test_loaded_classifier_answers_through_its_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / conse.LABELS).write_text("reddish\ngreenish\nbluish")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(conse, "package_file", lambda *names: tmp_path / names[2])
    monkeypatch.setattr(
        conse, "runtime", lambda module, extra: type("module", (), {"Interpreter": Interpreter})
    )
    asked: list[str] = []

    def texts(names: list[str]) -> NDArray[np.float32]:
        asked.extend(names)
        return np.eye(len(names), dtype=np.float32)

    (vector,) = conse.load(texts)(of("#ff0000"))
    np.testing.assert_allclose(vector, [1])
    assert asked == ["reddish"]

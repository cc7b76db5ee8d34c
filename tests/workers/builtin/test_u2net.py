"""Outlines out of a model's shares. The model itself is tested in tests/models."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from workers._detections import Box, Detection
from workers.builtin import ssd, u2net
from workers.builtin.labels import Labels
from workers.builtin.u2net import MOST_SEGMENTS, Outline, Segmenter, U2Net, whole_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


class BrightSession:
    """Stands for onnxruntime: whatever is bright stands out, faintly."""

    def __init__(self) -> None:
        self.shown: list[NDArray[np.float32]] = []

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="in")]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="out"), SimpleNamespace(name="coarser")]

    def run(self, names: list[str], given: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        assert names == ["out"]
        self.shown.append(given["in"])
        return [given["in"].mean(axis=1, keepdims=True) / 100]


def square_picture(edges: tuple[int, int, int, int], size: tuple[int, int] = (100, 80)) -> Image.Image:
    """White on black."""
    picture = Image.new("RGB", size)
    picture.paste((255, 255, 255), edges)
    return picture


class Finder:
    """Finds what the test says."""

    def __init__(self, *detections: Detection) -> None:
        self.detections = list(detections)

    def detect(self, pictures: Sequence[Image.Image], *, least: float = 0.0) -> list[list[Detection]]:
        return [list(self.detections) for _ in pictures]


def segmenter(*detections: Detection) -> Segmenter:
    labels = Labels(("cat", "dog"), None)
    return Segmenter(Finder(*detections), U2Net(BrightSession()), labels)


def thing(label: str, box: Box) -> Detection:
    return Detection(label=label, score=0.9, box=box)


# --- Boxes and outlines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((1.0, 2.0, 3.0, 4.0), (1, 2, 3, 4)),
        ((1.5, 2.5, 2.6, 4.1), (1, 2, 3, 5)),
        ((-5.0, -5.0, 50.0, 50.0), (0, 0, 10, 8)),
        ((3.2, 3.2, 3.2, 3.2), (3, 3, 4, 4)),
        ((10.0, 8.0, 10.0, 8.0), (9, 7, 10, 8)),
        ((-9.0, -9.0, -8.0, -8.0), (0, 0, 1, 1)),
    ],
)
def test_box_has_whole_pixels_of_the_picture(box: Box, pixels: tuple[int, int, int, int]) -> None:
    assert whole_pixels(box, (10, 8)) == pixels


def test_outline_fills_its_box_and_nothing_else() -> None:
    shares = np.zeros((320, 320), np.uint8)
    shares[:, :160] = 255
    mask = Outline(shares).mask((20.0, 10.0, 60.0, 40.0), (100, 80))
    assert mask.shape == (80, 100)
    assert mask.dtype == np.bool_
    assert mask[10:40, 20:39].all()
    assert mask.sum() == pytest.approx(20 * 30, abs=30)
    assert not mask[10:40, 41:60].any()


def test_outline_that_is_next_to_none_is_the_box() -> None:
    shares = np.zeros((320, 320), np.uint8)
    shares[:32] = 255
    mask = Outline(shares).mask((20.0, 10.0, 60.0, 40.0), (100, 80))
    assert mask[10:40, 20:60].all()
    assert mask.sum() == 40 * 30


@pytest.mark.parametrize("box", [(20.0, 10.0, 60.0, 40.0), (0.0, 0.0, 100.0, 80.0), (18.0, 8.0, 62.0, 42.0)])
def test_model_outlines_what_stands_out_in_the_box(box: Box) -> None:
    picture = square_picture((25, 15, 55, 35))
    mask = U2Net(BrightSession()).outline(picture, box).mask(box, picture.size)
    expected = np.zeros((80, 100), bool)
    expected[15:35, 25:55] = True
    # The large box is the fallback: the square is 7.5 % of it.
    if box[2] - box[0] < 90:
        assert (mask & expected).sum() / (mask | expected).sum() > 0.9
    else:
        assert mask.all()


def test_model_is_shown_the_box_with_a_margin_in_colours_of_its_training() -> None:
    session = BrightSession()
    U2Net(session).outline(square_picture((20, 10, 60, 40)), (20.0, 10.0, 60.0, 40.0))
    (shown,) = session.shown
    assert shown.shape == (1, 3, 320, 320)
    assert shown.dtype == np.float32
    black, white = (-np.array([0.485, 0.456, 0.406]), 1 - np.array([0.485, 0.456, 0.406]))
    deviation = np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(shown[0, :, 0, 0], black / deviation, rtol=1e-5)
    np.testing.assert_allclose(shown[0, :, 160, 160], white / deviation, rtol=1e-5)


@pytest.mark.parametrize("box", [(5.0, 5.0, 5.0, 60.0), (100.0, 80.0, 100.0, 80.0), (0.0, 0.0, 0.01, 0.01)])
def test_box_without_an_inside_has_an_outline_all_the_same(box: Box) -> None:
    mask = U2Net(BrightSession()).outline(square_picture((0, 0, 100, 80)), box).mask(box, (100, 80))
    assert mask.sum() >= 1


def test_dark_picture_of_one_colour_is_no_division_by_zero() -> None:
    mask = U2Net(BrightSession()).outline(Image.new("RGB", (10, 10)), (0.0, 0.0, 10.0, 10.0))
    assert mask.mask((0.0, 0.0, 10.0, 10.0), (10, 10)).all()


# --- Segments ----------------------------------------------------------------------------------------------


def test_things_that_are_asked_for_are_outlined() -> None:
    cat, dog = thing("cat", (0.0, 0.0, 50.0, 80.0)), thing("dog", (50.0, 0.0, 100.0, 80.0))
    picture = square_picture((10, 10, 90, 70))
    everything, cats, nothing = segmenter(cat, dog).segment([picture] * 3, [None, ["Cats"], ["zebra"]])
    assert [segment.label for segment in everything] == ["cat", "dog"]
    assert [(segment.label, segment.score, segment.box) for segment in cats] == [("cat", 0.9, cat.box)]
    assert nothing == []
    assert cats[0].mask[40, 30]
    assert not cats[0].mask[:, 51:].any()


def test_picture_has_so_many_segments_at_most() -> None:
    crowd = [thing("cat", (float(n), 0.0, n + 2.0, 10.0)) for n in range(MOST_SEGMENTS + 5)]
    (found,) = segmenter(*crowd).segment([square_picture((0, 0, 100, 80))], [None])
    assert [segment.box for segment in found] == [one.box for one in crowd[:MOST_SEGMENTS]]


# --- Loading -----------------------------------------------------------------------------------------------


def test_sessions_keep_no_memory_and_use_one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    made: list[Any] = []

    def session(path: str, options: Any, providers: list[str]) -> BrightSession:
        made.append((path, options, providers))
        return BrightSession()

    onnxruntime = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=session)
    monkeypatch.setattr(u2net, "runtime", lambda module, extra: onnxruntime)
    monkeypatch.setattr(u2net, "package_file", lambda *names: tmp_path / "u2netp.onnx")
    monkeypatch.setattr(ssd, "load", lambda extra: Finder())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    loaded = u2net.load()
    ((path, options, providers),) = made
    assert path == str(tmp_path / "u2netp.onnx")
    assert options.intra_op_num_threads == options.inter_op_num_threads == 1
    assert options.enable_cpu_mem_arena is False
    assert providers == ["CPUExecutionProvider"]
    assert loaded.labels.meant(["kitten", "cat"]) == {"cat"}, "no text model is installed"

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from orbtrio import drawing
from orbtrio.drawing import chart, colour_of, decode_mask, draw, sheet
from workers import _rle

GREY = Image.new("RGB", (800, 600), (128, 128, 128))
BOX = {"x_min": 100.0, "y_min": 200.0, "x_max": 300.0, "y_max": 400.0}
MASK = np.zeros((600, 800), bool)
MASK[250:350, 150:250] = True


def changed(drawn: Image.Image | None, x: int, y: int, original: Image.Image = GREY) -> bool:
    assert drawn is not None
    return drawn.getpixel((x, y)) != original.getpixel((x, y))


def test_a_detection_is_a_box_with_a_label() -> None:
    drawn = draw(GREY, {"detections": [{"label": "cat", "score": 0.91, "box": BOX}]})
    assert drawn is not None
    assert drawn.size == GREY.size
    for x, y in ((100, 300), (299, 300), (200, 200), (200, 399)):
        assert drawn.getpixel((x, y)) == colour_of(0)
    assert not changed(drawn, 200, 300)  # inside
    assert changed(drawn, 104, 195)  # the label, above
    assert GREY.getpixel((100, 300)) == (128, 128, 128)


def test_a_segment_is_tinted_half_and_edged_in_full() -> None:
    output = {"masks": [_rle.encode(MASK)], "labels": ["cat"], "boxes": [[100, 200, 300, 400]]}
    drawn = draw(GREY, output)
    assert drawn is not None
    assert drawn.getpixel((150, 300)) == colour_of(0)
    tinted: Any = drawn.getpixel((200, 300))
    for value, grey, full in zip(tinted, (128, 128, 128), colour_of(0), strict=True):
        assert min(grey, full) <= value <= max(grey, full)
    assert tinted not in ((128, 128, 128), colour_of(0))
    assert not changed(drawn, 280, 380)


def test_the_colour_of_a_tracked_object_is_that_of_its_number() -> None:
    video = {"objects": [5, 2], "scores": [0.9, 0.5], "labels": ["cat", "dog"]}
    drawn = draw(GREY, {**video, "boxes": [[100, 200, 300, 400], [400, 200, 500, 300]], "masks": []})
    assert drawn is not None
    assert drawn.getpixel((299, 300)) == colour_of(5)
    assert drawn.getpixel((499, 250)) == colour_of(2)
    assert colour_of(5) != colour_of(2)


def test_small_pictures_are_enlarged_with_all_that_is_on_them() -> None:
    small = Image.new("L", (80, 60), 128)
    drawn = draw(small, {"boxes": [[10, 20, 30, 40]], "masks": [_rle.encode(MASK[::10, ::10])], "labels": []})
    assert drawn is not None
    assert (drawn.size, drawn.mode) == ((640, 480), "RGB")
    assert drawn.getpixel((80, 240)) == colour_of(0)
    assert changed(drawn, 160, 240, Image.new("RGB", drawn.size, (128, 128, 128)))


def test_labels_in_the_same_place_give_way_to_each_other() -> None:
    boxes = [{"label": f"thing {place}", "score": 0.5, "box": BOX} for place in range(8)]
    drawn = draw(GREY, {"detections": boxes})
    assert drawn is not None
    colours = {colour for _, colour in drawn.getcolors(1 << 20) or []}
    assert {colour_of(place) for place in range(8)} <= colours


@pytest.mark.parametrize("output", [{"response": "a café " * 40}, {"motion_energy": 0.25}])
def test_words_stand_below_the_picture(output: dict[str, Any]) -> None:
    drawn = draw(GREY, output)
    assert drawn is not None
    assert drawn.width == GREY.width
    assert drawn.height > GREY.height
    assert drawn.crop((0, 0, 800, 600)).tobytes() == GREY.tobytes()


def test_what_cannot_be_seen_is_not_drawn() -> None:
    assert draw(GREY, {"embedding": [0.1], "shape": [1]}) is None
    assert draw(GREY, {}) is None


def test_nothing_found_is_the_picture_alone() -> None:
    drawn = draw(GREY, {"detections": []})
    assert drawn is not None
    assert drawn.tobytes() == GREY.tobytes()


@pytest.mark.parametrize(
    "output",
    [
        {"detections": [{"label": "cat"}]},
        {"detections": [{"label": "cat", "score": 0.5, "box": {"x_min": "a"}}]},
        {"detections": 3},
        {"boxes": [[1, 2, 3]]},
        {"boxes": [[1, 2, 3, 1e300]]},
        {"boxes": [[1, 2, 3, float("nan")]]},
        {"masks": [{"size": [2, 2], "counts": "4444"}]},
        {"masks": [{"size": [100_000, 100_000], "counts": [0, 10_000_000_000]}]},
        {"masks": [{"size": [2, 2], "counts": [5, -1]}]},
        {"masks": [{"size": [2, 2], "counts": []}]},
        {"masks": [{"size": [2, 2], "counts": "\N{SNOWMAN}"}]},
        {"masks": [{"size": [2, 2], "counts": "d"}]},
        {"masks": [{"size": [2, 2], "counts": "~"}]},
        {"masks": [{"size": [2, 2]}]},
        {"masks": ["x"]},
    ],
)
def test_outputs_of_another_shape_are_refused(output: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a result that can be drawn: "):
        draw(GREY, output)


@given(st.integers(1, 40), st.integers(1, 40), st.randoms(use_true_random=False))
def test_masks_are_read_as_workers_write_them(height: int, width: int, random: Any) -> None:
    mask = np.array([random.random() < 0.5 for _ in range(height * width)]).reshape(height, width)
    assert np.array_equal(np.asarray(decode_mask(_rle.encode(mask))) > 0, mask)


def test_masks_may_be_lists_of_lengths() -> None:
    assert np.asarray(decode_mask({"size": [2, 3], "counts": [1, 2, 3]})).tolist() == [
        [0, 255, 0],
        [255, 0, 0],
    ]


def test_a_sheet_shows_pictures_in_rows_of_one_height() -> None:
    red, blue = Image.new("RGB", (300, 100), (255, 0, 0)), Image.new("RGB", (100, 100), (0, 0, 255))
    drawn = sheet("title", [(red, "red"), (blue, "blue"), (blue, "")], columns=2, width=800)
    pixels = np.asarray(drawn)
    reds, blues = np.all(pixels == (255, 0, 0), axis=2), np.all(pixels == (0, 0, 255), axis=2)
    assert drawn.width == 800
    assert reds.any(axis=1).sum() == 192
    # The first row, and a last row that is no higher although it has one picture alone.
    assert blues.any(axis=1).sum() == 2 * 192


def test_a_chart_shows_the_curve_and_marks_on_it() -> None:
    drawn = chart([0.0, 0.5, 0.1], size=(400, 200), marked=[1], name="energy")
    assert drawn.size == (400, 200)
    assert colour_of(0) in {colour for _, colour in drawn.getcolors(1 << 20) or []}
    assert chart([0.0], size=(400, 200)).size == (400, 200)


def test_without_the_system_s_fonts_pillow_s_own_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def truetype(*arguments: Any) -> Any:
        raise OSError("cannot open resource")

    own = ImageFont.load_default(20)
    monkeypatch.setattr(ImageFont, "truetype", truetype)
    monkeypatch.setattr(ImageFont, "load_default", lambda size: own)
    drawing._font.cache_clear()
    assert drawing._font(20) is own
    drawing._font.cache_clear()

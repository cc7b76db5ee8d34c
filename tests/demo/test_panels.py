from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from orbtrio.demo import panels

if TYPE_CHECKING:
    from collections.abc import Callable

GREY = np.full((100, 120, 3), 100, np.uint8)
MASK = np.zeros((100, 120), bool)
MASK[20:60, 30:90] = True


def drawn(draw: Callable[[Any], None]) -> Any:
    """The first axes of a panel that has been drawn."""
    figure = Figure()
    (panel,) = figure.subfigures(1, 1, squeeze=False)[0]
    draw(panel)
    return panel.axes[0]


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_a_box_is_drawn_where_it_was_found() -> None:
    box = {"x_min": 30, "y_min": 20, "x_max": 90, "y_max": 60}
    output = {"detections": [{"label": "cat", "score": 0.914, "box": box}]}
    axes = drawn(lambda panel: panels.draw_boxes(panel, {"one": GREY}, {"one": output}))
    (frame,) = axes.patches
    assert (frame.get_x(), frame.get_y(), frame.get_width(), frame.get_height()) == (30, 20, 60, 40)
    assert texts(axes) == ["cat 0.91"]


def test_a_mask_is_coloured_and_nothing_else() -> None:
    output = {"labels": ["cat"], "boxes": [[30, 20, 90, 60]]}
    axes = drawn(lambda panel: panels.draw_masks(panel, {"one": GREY}, {"one": output}, {"one": [MASK]}))
    pixels = axes.images[0].get_array()
    assert (pixels[~MASK] == 100).all()
    assert (pixels[MASK] != 100).any(axis=1).all()
    assert texts(axes) == ["cat"]


def test_an_object_keeps_its_colour_from_frame_to_frame() -> None:
    first = {"objects": [4], "labels": ["cat"], "boxes": [[30, 20, 90, 60]]}
    second = {"objects": [2, 4], "labels": ["dog", "cat"], "boxes": [[0, 0, 1, 1], [30, 20, 90, 60]]}
    nothing = np.zeros_like(MASK)
    masks = [[MASK], [nothing, MASK]]

    def draw(panel: Any) -> None:
        panels.draw_tracks(panel, [GREY, GREY], [first, second], masks, shown=2)
        shown = [axes.images[0].get_array() for axes in panel.axes]
        assert np.array_equal(shown[0], shown[1])
        assert texts(panel.axes[1]) == ["dog #2", "cat #4"]

    drawn(draw)


def test_a_search_shows_what_was_found_and_how_near_it_is() -> None:
    axes = drawn(lambda panel: panels.draw_search(panel, [("a cat", 0.8349, GREY)]))
    assert axes.get_title() == "“a cat”\n0.83"


def test_talk_shows_questions_and_answers() -> None:
    axes = drawn(lambda panel: panels.draw_talk(panel, {"Why?": "Because.\n\nSo.", "What?": "That."}))
    assert texts(axes) == ["Q: Why?\nA: Because. So.\n\nQ: What?\nA: That."]

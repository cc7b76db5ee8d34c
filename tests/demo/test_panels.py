from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from orbtrio.demo import panels

if TYPE_CHECKING:
    from collections.abc import Callable

GREY = np.full((100, 120, 3), 100, np.uint8)


def drawn(draw: Callable[[Any], None]) -> Any:
    """The first axes of a panel that has been drawn."""
    figure = Figure()
    (panel,) = figure.subfigures(1, 1, squeeze=False)[0]
    draw(panel)
    return panel.axes[0]


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_what_was_found_is_drawn_on_the_picture() -> None:
    box = {"x_min": 30, "y_min": 20, "x_max": 90, "y_max": 60}
    found = {"detections": [{"label": "cat", "score": 0.914, "box": box}]}

    def draw(panel: Any) -> None:
        panels.draw_results(panel, [(GREY, found), (GREY, {"detections": []})])
        with_box, without = (axes.images[0].get_array() for axes in panel.axes)
        assert (with_box != without).any()
        assert (without == 100).all()

    drawn(draw)


def test_a_search_shows_what_was_found_and_how_near_it_is() -> None:
    axes = drawn(lambda panel: panels.draw_search(panel, [("a cat", 0.8349, GREY)]))
    assert axes.get_title() == "“a cat”\n0.83"


def test_talk_shows_questions_and_answers() -> None:
    axes = drawn(lambda panel: panels.draw_talk(panel, {"Why?": "Because.\n\nSo.", "What?": "That."}))
    assert texts(axes) == ["Q: Why?\nA: Because. So.\n\nQ: What?\nA: That."]

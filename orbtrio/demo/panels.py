"""What the workers said about photographs and texts, drawn where they said it, a row of axes each."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from orbtrio.drawing import draw

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from orbtrio.demo.photographs import Pixels

__all__ = ["INK", "draw_results", "draw_search", "draw_talk"]

INK: Final = "#1f2933"


def draw_results(
    panel: SubFigure, results: Sequence[tuple[Pixels, Mapping[str, Any]]], *, letters: float = 2.0
) -> None:
    """Pictures beside each other, each with what a vision worker found on it.

    Args:
        panel: Where to draw.
        results: Each picture with the worker's output.
        letters: How large words are; see `orbtrio.drawing.draw`.
    """
    for axes, (pixels, output) in zip(_row(panel, len(results)), results, strict=True):
        picture = Image.fromarray(pixels)
        axes.imshow(np.asarray(draw(picture, output, letters=letters) or picture))


def draw_search(panel: SubFigure, found: Sequence[tuple[str, float, Pixels]]) -> None:
    """Texts, and the photograph nearest to each; `found` has text, cosine and photograph."""
    for axes, (text, cosine, pixels) in zip(_row(panel, len(found)), found, strict=True):
        axes.imshow(pixels)
        axes.set_title(f"“{text}”\n{cosine:.2f}", size=10, color=INK)


def draw_talk(panel: SubFigure, answers: Mapping[str, str]) -> None:
    """Questions and the answers of ``llm``."""
    (axes,) = _row(panel, 1)
    lines = []
    for question, answer in answers.items():
        lines += [f"Q: {question}", *textwrap.wrap(f"A: {' '.join(answer.split())}", 110), ""]
    axes.text(0, 1, "\n".join(lines[:-1]), size=11, color=INK, va="top", family="monospace")


def _row(panel: SubFigure, count: int) -> list[Axes]:
    row = list(panel.subplots(1, count, squeeze=False)[0])
    for axes in row:
        axes.axis("off")
    return row

"""What the workers said about photographs and texts, drawn where they said it.

Everything is drawn on what was sent, so that a person sees at a glance whether it is right: boxes around
objects, colours over masks, the photograph that a text found. A colour stays with its object from frame to
frame.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.patches import Rectangle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from orbtrio.demo.photographs import Pixels

    Mask = npt.NDArray[np.bool_]  # (height, width)

__all__ = ["draw_boxes", "draw_masks", "draw_search", "draw_talk", "draw_tracks"]

INK: Final = "#1f2933"
_COLOURS: Final = ("#e11d48", "#2563eb", "#16a34a", "#d97706", "#7c3aed", "#0891b2")
_OPACITY: Final = 0.45


def draw_boxes(
    panel: SubFigure, photographs: Mapping[str, Pixels], outputs: Mapping[str, Mapping[str, Any]]
) -> None:
    """Boxes, labels and scores of ``object_detection``, a photograph beside the other."""
    for axes, (name, pixels) in zip(_row(panel, len(photographs)), photographs.items(), strict=True):
        axes.imshow(pixels)
        for place, one in enumerate(outputs[name]["detections"]):
            box = one["box"]
            corners = (box["x_min"], box["y_min"], box["x_max"], box["y_max"])
            _box(axes, corners, f"{one['label']} {one['score']:.2f}", _COLOURS[place % len(_COLOURS)])


def draw_masks(
    panel: SubFigure,
    photographs: Mapping[str, Pixels],
    outputs: Mapping[str, Mapping[str, Any]],
    masks: Mapping[str, Sequence[Mask]],
) -> None:
    """Masks and labels of ``segmentation``."""
    for axes, (name, pixels) in zip(_row(panel, len(photographs)), photographs.items(), strict=True):
        objects = range(len(masks[name]))
        axes.imshow(_tint(pixels, zip(objects, masks[name], strict=True)))
        for place, (label, box) in enumerate(
            zip(outputs[name]["labels"], outputs[name]["boxes"], strict=True)
        ):
            _box(axes, box, label, _COLOURS[place % len(_COLOURS)], line=0)


def draw_tracks(
    panel: SubFigure,
    frames: Sequence[Pixels],
    outputs: Sequence[Mapping[str, Any]],
    masks: Sequence[Sequence[Mask]],
    *,
    shown: int = 5,
) -> None:
    """Some frames of ``video_segmentation``, with the ids that it gave."""
    places = np.linspace(0, len(frames) - 1, min(shown, len(frames))).astype(int)
    for axes, place in zip(_row(panel, len(places)), places, strict=True):
        output = outputs[place]
        axes.imshow(_tint(frames[place], zip(output["objects"], masks[place], strict=True)))
        for object_id, label, box in zip(output["objects"], output["labels"], output["boxes"], strict=True):
            _box(axes, box, f"{label} #{object_id}", _COLOURS[object_id % len(_COLOURS)], line=0)
        axes.set_title(f"frame {place + 1}", size=9, color=INK)


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


def _box(axes: Axes, box: Sequence[float], text: str, colour: str, *, line: float = 2.5) -> None:
    x_min, y_min, x_max, y_max = box
    if line:
        frame = Rectangle((x_min, y_min), x_max - x_min, y_max - y_min, fill=False, ec=colour, lw=line)
        axes.add_patch(frame)
    style = {"boxstyle": "square,pad=0.25", "facecolor": colour, "edgecolor": "none"}
    axes.text(x_min + 4, y_min + 4, text, size=9, color="white", weight="bold", va="top", bbox=style)


def _tint(pixels: Pixels, masks: Iterable[tuple[int, Mask]]) -> Pixels:
    tinted = pixels.astype(float)
    for object_id, mask in masks:
        colour = _COLOURS[object_id % len(_COLOURS)].removeprefix("#")
        tinted[mask] = (1 - _OPACITY) * tinted[mask] + _OPACITY * np.frombuffer(
            bytes.fromhex(colour), np.uint8
        )
    return tinted.astype(np.uint8)

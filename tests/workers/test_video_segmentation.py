"""Video segmentation around a model of the test's. Spec: "Video Segmentation Worker (SAM3)"."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from orbtrio.worker import WorkerSettings
from tests.models.photographs import photograph_path
from tests.workers.outlines import decode
from workers import video_segmentation
from workers._detections import TrackedSegment
from workers._sessions import MOST_SESSIONS
from workers.builtin import tracking
from workers.video_segmentation import VideoSegmentation

if TYPE_CHECKING:
    from PIL import Image

SETTINGS = WorkerSettings(worker_type="video_segmentation", worker_secret="hush")
CHELSEA, COFFEE = str(photograph_path("chelsea")), str(photograph_path("coffee"))


class CountingSession:
    """Sees one thing more in every frame."""

    def __init__(self, prompts: list[str] | None, failure: Exception | None) -> None:
        self.label = "/".join(prompts or ["all"])
        self.failure = failure
        self.sizes: list[tuple[int, int]] = []

    def advance(self, picture: Image.Image) -> list[TrackedSegment]:
        self.sizes.append(picture.size)
        if self.failure is not None:
            raise self.failure
        mask = np.ones((picture.height, picture.width), bool)
        return [
            TrackedSegment(object_id=number, label=self.label, score=0.5, box=(0.0, 0.0, 8.0, 9.0), mask=mask)
            for number in range(1, len(self.sizes) + 1)
        ]


class CountingModel:
    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.started: list[CountingSession] = []

    def start(self, prompts: list[str] | None) -> CountingSession:
        self.started.append(CountingSession(prompts, self.failure))
        return self.started[-1]


def sent(
    worker: VideoSegmentation, cross_job_id: Any = "cam-1", frame: Any = CHELSEA, **fields: Any
) -> dict[str, Any]:
    """What the worker answers to a job."""
    job_input = {"cross_job_id": cross_job_id, "current_frame": frame, **fields}
    return worker(worker.prepare(job_input))


def numbers(result: dict[str, Any]) -> tuple[int, int]:
    """``frame_count``, and how many frames the model's session has seen."""
    return result["frame_count"], len(result["objects"])


# --- Answers -----------------------------------------------------------------------------------------------


def test_output_has_the_shape_of_the_spec() -> None:
    worker = VideoSegmentation(CountingModel())
    sent(worker)
    result = sent(worker)
    masks = result.pop("masks")
    assert result == {
        "cross_job_id": "cam-1",
        "frame_count": 2,
        "objects": [1, 2],
        "scores": [0.5, 0.5],
        "labels": ["all", "all"],
        "boxes": [[0.0, 0.0, 8.0, 9.0]] * 2,
    }
    assert [mask["size"] for mask in masks] == [[300, 451]] * 2
    assert decode(masks[0]).all()


def test_videos_are_apart() -> None:
    worker = VideoSegmentation(CountingModel())
    order = ("a", "b", "a", "a", "b")
    assert [numbers(sent(worker, name)) for name in order] == [(1, 1), (1, 1), (2, 2), (3, 3), (2, 2)]
    assert sent(worker, "b")["cross_job_id"] == "b"


def test_reset_begins_the_video_anew_with_its_frame() -> None:
    worker = VideoSegmentation(CountingModel())
    sent(worker)
    sent(worker, reset_session=False)
    assert numbers(sent(worker, reset_session=True)) == (1, 1)
    assert numbers(sent(worker, reset_session=None)) == (2, 2)


def test_prompts_are_kept_until_others_begin_the_video_anew() -> None:
    worker = VideoSegmentation(CountingModel())
    results = [
        sent(worker, prompts=prompts)
        for prompts in (["cat"], None, ["cat"], [], ["cat", "dog"], ["cat", "dog"])
    ]
    assert [numbers(result) for result in results] == [(1, 1), (2, 2), (3, 3), (4, 4), (1, 1), (2, 2)]
    assert [result["labels"][0] for result in results] == ["cat"] * 4 + ["cat/dog"] * 2


def test_hundred_and_first_video_is_remembered_in_place_of_the_one_unused_longest() -> None:
    worker = VideoSegmentation(CountingModel())
    for number in range(MOST_SESSIONS):
        sent(worker, f"cam-{number}")
    sent(worker, "cam-0")
    sent(worker, "one more")
    assert len(worker._videos) == 100
    assert numbers(sent(worker, "cam-0")) == (3, 3)
    assert numbers(sent(worker, "cam-2")) == (2, 2)
    assert numbers(sent(worker, "cam-1")) == (1, 1)


def test_frames_may_change_in_size() -> None:
    worker = VideoSegmentation(CountingModel())
    sizes = [sent(worker, frame=frame)["masks"][0]["size"] for frame in (CHELSEA, COFFEE)]
    assert sizes == [[300, 451], [400, 600]]


# --- Errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"frame": None}, "current_frame: expected the path of a picture"),
        ({"frame": "gone.png"}, "current_frame: there is no such file"),
        ({"frame": __file__}, "current_frame: not a picture that can be read"),
        ({"prompts": "cat"}, "prompts: expected a list of texts"),
        ({"reset_session": "yes"}, "reset_session: expected true or false"),
    ],
)
def test_error_names_its_video_and_its_field(fields: dict[str, Any], problem: str) -> None:
    result = sent(VideoSegmentation(CountingModel()), **fields)
    assert result.keys() == {"cross_job_id", "error"}
    assert result["cross_job_id"] == "cam-1"
    assert result["error"].startswith(problem)


@pytest.mark.parametrize("cross_job_id", [None, 7, ["cam-1"]])
def test_job_of_no_video_is_an_error_of_the_same_shape(cross_job_id: object) -> None:
    worker = VideoSegmentation(CountingModel())
    assert sent(worker, cross_job_id) == {"cross_job_id": "", "error": "cross_job_id: expected text"}
    assert len(worker._videos) == 0


def test_bad_frame_counts_and_costs_the_video_nothing_else() -> None:
    worker = VideoSegmentation(CountingModel())
    sent(worker)
    assert "error" in sent(worker, frame="gone.png")
    assert numbers(sent(worker)) == (3, 2)


def test_bad_frame_resets_all_the_same() -> None:
    worker = VideoSegmentation(CountingModel())
    sent(worker)
    assert "error" in sent(worker, frame="gone.png", reset_session=True)
    assert numbers(sent(worker)) == (2, 1)


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (RuntimeError("out of memory"), "RuntimeError: out of memory"),
        (ValueError("prompts: none"), "prompts: none"),
    ],
)
def test_failure_of_the_model_names_the_video(
    failure: Exception, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    result = sent(VideoSegmentation(CountingModel(failure)))
    assert result == {"cross_job_id": "cam-1", "error": text}
    assert "frame 1 of 'cam-1' failed" in caplog.text


# --- Which model -------------------------------------------------------------------------------------------


def test_builtin_model_is_the_one_without_model_id(monkeypatch: pytest.MonkeyPatch) -> None:
    model = CountingModel()
    monkeypatch.setattr(tracking, "load", lambda: model)
    assert video_segmentation.load(SETTINGS)._model is model


def test_model_id_names_one_of_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    model = CountingModel()
    route = SimpleNamespace(load={"facebook/sam3": model}.__getitem__)
    monkeypatch.setitem(sys.modules, "workers.huggingface", SimpleNamespace(video=route))
    settings = WorkerSettings(worker_type="x", worker_secret="hush", model_id="facebook/sam3")
    assert video_segmentation.load(settings)._model is model

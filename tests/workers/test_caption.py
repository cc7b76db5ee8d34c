"""Pictures in, words out; the model is a fake. Spec: "Image Captioning Worker"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from orbtrio.errors import ConfigError
from orbtrio.worker import WorkerSettings
from tests.workers.routes import fake_routes
from workers import caption
from workers.caption import Captions, Question

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS: dict[str, Any] = {"worker_type": "caption", "worker_secret": "hush"}


class Sizes:
    """Says how large the pictures are."""

    def describe(self, pictures: list[list[Image.Image]], queries: list[str | None]) -> list[str]:
        return [
            f"{query}: " + " ".join("{}x{}".format(*picture.size) for picture in own)
            for own, query in zip(pictures, queries, strict=True)
        ]


@pytest.fixture
def picture(tmp_path: Path) -> str:
    """The path of a picture of 100 by 10."""
    path = tmp_path / "picture.png"
    Image.new("RGB", (100, 10), "red").save(path)
    return str(path)


def run(*inputs: dict[str, Any]) -> list[dict[str, Any]]:
    worker = Captions(Sizes())
    return worker([worker.prepare(job_input) for job_input in inputs])


def test_answers_have_the_shape_of_the_spec(picture: str) -> None:
    assert run({"images": [picture]}, {"images": [picture, picture], "query": "how large?"}) == [
        {"response": "None: 100x10"},
        {"response": "how large?: 100x10 100x10"},
    ]


@pytest.mark.parametrize("query", [None, ""])
def test_nothing_to_ask_is_no_query(query: str | None, picture: str) -> None:
    question = Captions(Sizes()).prepare({"images": [picture], "query": query, "language": "en"})
    assert isinstance(question, Question)
    assert question.query is None


def test_many_pictures_share_the_pixels_of_a_job(picture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption, "JOB_PIXELS", 4000)
    assert run({"images": [picture] * 16}) == [{"response": "None:" + " 50x5" * 16}]


@pytest.mark.parametrize(
    ("job_input", "problem"),
    [
        ({}, "images: expected a list of paths of pictures"),
        ({"images": []}, "images: expected a list of paths of pictures"),
        ({"images": "a.png"}, "images: expected a list of paths of pictures"),
        ({"images": [7]}, "images[0]: expected the path of a picture"),
        ({"images": ["/no/such.png"]}, "images[0]: there is no such file"),
        ({"images": [__file__]}, "images[0]: not a picture that can be read"),
        ({"images": ["a.png"] * 17}, "images: 17 are too many, at most 16"),
        ({"images": ["a.png"], "query": ["why?"]}, "query: expected text"),
        ({"images": ["a.png"], "query": "a" * 4097}, "query: 4097 characters are too many, at most 4096"),
    ],
)
def test_bad_input_is_told_where(job_input: dict[str, Any], problem: str) -> None:
    """WRK-04."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the text is compared below)
        Captions(Sizes()).prepare(job_input)
    assert str(caught.value).startswith(problem)


def test_without_a_model_two_are_named() -> None:
    with pytest.raises(ConfigError, match=r"MODEL_ID is not set.*blip-image-captioning.*blip-vqa"):
        caption.load(WorkerSettings(**SETTINGS))


def test_a_model_is_loaded_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = fake_routes(monkeypatch, Sizes, huggingface="captioning")
    assert isinstance(caption.load(WorkerSettings(**SETTINGS, model_id="some/model")), Captions)
    assert loaded == ["some/model"]

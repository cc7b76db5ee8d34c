"""Which text and picture goes where, and which model is loaded. Spec: "Embedding Worker"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from orbtrio.worker import WorkerSettings
from tests.workers.routes import fake_routes
from workers import embedding
from workers.embedding import Embedder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


class TextModel:
    """Embeds a text as its length, and remembers what it was asked."""

    encode_pictures: Callable[[list[Image.Image]], NDArray[np.float32]] | None = None

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], bool]] = []

    def encode_texts(self, texts: list[str], *, query: bool) -> NDArray[np.float32]:
        self.calls.append((texts, query))
        return np.array([[len(text), int(query)] for text in texts], np.float32)


class PictureModel(TextModel):
    """Embeds a picture as its width, as well."""

    most_pixels = 100

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.encode_pictures = self._encode_pictures

    def _encode_pictures(self, pictures: list[Image.Image]) -> NDArray[np.float32]:
        self.batches.append(len(pictures))
        return np.array([[picture.width, 2] for picture in pictures], np.float32)


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[int], str]:
    """Writes a picture so wide; returns its path."""

    def write(width: int) -> str:
        path = tmp_path / f"{width}.png"
        Image.new("RGB", (width, 1)).save(path)
        return str(path)

    return write


def embed(model: TextModel, *inputs: dict[str, Any]) -> list[dict[str, Any]]:
    embedder = Embedder(model)
    results = embedder([embedder.prepare(job_input) for job_input in inputs])
    for result in results:
        assert result["embedding"].dtype == np.float32
        result["embedding"] = result["embedding"].tolist()
    return results


# --- Texts --------------------------------------------------------------------------------------------------


def test_texts_of_a_prompt_go_together_and_come_back_in_order() -> None:
    model = TextModel()
    results = embed(
        model,
        {"text": "a", "prompt_name": "passage"},
        {"text": "bb", "prompt_name": "query"},
        {"text": "ccc"},
        {"text": "dddd", "prompt_name": "query"},
        {"text": "eeeee", "prompt_name": None},
    )
    assert results == [
        {"embedding": [1.0, 0.0], "shape": [2]},
        {"embedding": [2.0, 1.0], "shape": [2]},
        {"embedding": [3.0, 0.0], "shape": [2]},
        {"embedding": [4.0, 1.0], "shape": [2]},
        {"embedding": [5.0, 0.0], "shape": [2]},
    ]
    assert model.calls == [(["bb", "dddd"], True), (["a", "ccc", "eeeee"], False)]


@pytest.mark.parametrize(
    ("job_input", "problem"),
    [
        ({}, "text: expected text to embed, or else filepath"),
        ({"text": None}, "text: expected text"),
        ({"text": b"bytes"}, "text: expected text"),
        ({"text": ["a", "b"]}, "text: expected text"),
        ({"text": "a", "filepath": "/frames/1.png"}, "text, filepath: expected one of them"),
        ({"text": "a", "prompt_name": "question"}, "prompt_name: expected 'query' or 'passage'"),
        ({"text": "a", "prompt_name": ["query"]}, "prompt_name: expected 'query' or 'passage'"),
        ({"text": "a" * 16_385}, "text: 16385 characters are too many"),
        ({"filepath": "/no/such.png"}, "filepath: there is no such file"),
        ({"filepath": 7}, "filepath: expected the path of a picture"),
    ],
)
def test_bad_input_is_refused_before_it_gets_to_a_batch(job_input: dict[str, Any], problem: str) -> None:
    """WRK-04."""
    with pytest.raises(ValueError, match=f"^{problem}"):
        Embedder(PictureModel()).prepare(job_input)


def test_unknown_fields_and_absent_values_do_not_matter() -> None:
    """WRK-06."""
    (result,) = embed(TextModel(), {"text": "a", "filepath": None, "language": "en"})
    assert result["shape"] == [2]


# --- Pictures -----------------------------------------------------------------------------------------------


def test_batch_of_texts_and_pictures_is_one_pass_of_each_kind(picture: Callable[[int], str]) -> None:
    model = PictureModel()
    results = embed(
        model, {"filepath": picture(7)}, {"text": "a"}, {"filepath": picture(9), "text": None}, {"text": "bb"}
    )
    assert [result["embedding"] for result in results] == [[7.0, 2.0], [1.0, 0.0], [9.0, 2.0], [2.0, 0.0]]
    assert model.calls == [(["a", "bb"], False)]
    assert model.batches == [2]


def test_picture_is_reduced_to_what_the_model_looks_at(picture: Callable[[int], str]) -> None:
    (result,) = embed(PictureModel(), {"filepath": picture(400)})
    assert result["embedding"][0] == 100


def test_model_for_texts_refuses_pictures(picture: Callable[[int], str]) -> None:
    with pytest.raises(ValueError, match=r"^filepath: the model of this worker is for texts only$"):
        Embedder(TextModel()).prepare({"filepath": picture(7)})


# --- Loading ------------------------------------------------------------------------------------------------


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Both routes are fakes; what was loaded, by its MODEL_ID."""
    return fake_routes(monkeypatch, TextModel, builtin="e5", huggingface="embedding")


@pytest.mark.parametrize("model_id", [None, "google/siglip2-base-patch16-224"])
def test_model_id_chooses_the_route(model_id: str | None, loaded: list[str | None]) -> None:
    settings = WorkerSettings(worker_type="embedding", worker_secret="hush", model_id=model_id)
    embedder = embedding.load(settings)
    assert loaded == [model_id]
    (result,) = embedder([embedder.prepare({"text": "abc"})])
    assert result["embedding"].tolist() == [3.0, 0.0]

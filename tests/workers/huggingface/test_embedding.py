"""Vectors from tokens, which way depends on what lies beside the weights; models are fakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from workers.huggingface import embedding  # noqa: E402
from workers.huggingface._common import Place  # noqa: E402
from workers.huggingface.embedding import (  # noqa: E402
    Embedder,
    TextEncoder,
    by_tokens,
    read_pooling,
    read_prompts,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

CPU = Place("cpu", torch.float32)


class Letters:
    """A token per letter, a = 1."""

    pad_token_id = 0
    padding_side = "right"

    def __call__(self, texts: Sequence[str], *, truncation: bool, max_length: int) -> dict[str, Any]:
        return {"input_ids": [[ord(letter) - 96 for letter in text[:max_length]] for text in texts]}


class Lengths:
    """A model that says how long each text is, and remembers what it was given."""

    def __init__(self) -> None:
        self.calls: list[list[list[int]]] = []

    def __call__(self, inputs: dict[str, Any]) -> Any:
        self.calls.append(inputs["input_ids"].tolist())
        return torch.stack([inputs["attention_mask"].sum(1), torch.ones(len(inputs["input_ids"]))], dim=1)


def encoder(model: Lengths, **options: Any) -> Embedder:
    options = {"prompts": {}, "longest": 99, **options}
    return Embedder(CPU, TextEncoder(CPU, Letters(), model, **options), None)


def test_texts_are_one_pass_of_unit_vectors_in_order() -> None:
    model = Lengths()
    vectors = encoder(model).encode_texts(["abcd", "a", "ab"], query=False)
    assert model.calls == [[[1, 0, 0, 0], [1, 2, 0, 0], [1, 2, 3, 4]]]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(vectors[:, 0] / vectors[:, 1], [4, 1, 2], rtol=1e-6)


def test_long_texts_are_not_padded_onto_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "SLICE_TOKENS", 6)
    model = Lengths()
    encoder(model).encode_texts(["abcde", "a", "abc", "ab"], query=False)
    assert model.calls == [[[1, 0], [1, 2]], [[1, 2, 3]], [[1, 2, 3, 4, 5]]]
    assert by_tokens([[1] * 9]) == [[[1] * 9]]


def test_no_texts_are_no_vectors() -> None:
    assert encoder(Lengths()).encode_texts([], query=True).shape == (0, 0)


def test_questions_and_passages_get_what_belongs_in_front_of_them() -> None:
    model = Lengths()
    texts = encoder(model, prompts={"query": "q", "passage": "p"})
    texts.encode_texts(["a"], query=True)
    texts.encode_texts(["a"], query=False)
    assert model.calls == [[[17, 1]], [[16, 1]]]


def test_siglip_gets_small_letters_padded_to_its_longest() -> None:
    model = Lengths()
    encoder(model, longest=4, always_longest=True, lower=True).encode_texts(["AB", "abcdef"], query=True)
    assert model.calls == [[[1, 2, 0, 0], [1, 2, 3, 4]]]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, [2.0, 3.0]),
        ({"pooling_mode_mean_tokens": True}, [2.0, 3.0]),
        ({"pooling_mode_cls_token": True}, [1.0, 3.0]),
        ({"pooling_mode_lasttoken": True}, [3.0, 3.0]),
    ],
)
def test_a_texts_vector_is_that_of_its_own_tokens(config: dict[str, bool], expected: list[float]) -> None:
    hidden = torch.tensor([[[1.0], [2.0], [3.0], [99.0]], [[3.0], [99.0], [99.0], [99.0]]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    assert read_pooling(config)(hidden, mask).flatten().tolist() == expected


@pytest.mark.parametrize(
    ("model_id", "config", "query", "passage"),
    [
        ("intfloat/multilingual-e5-small", {}, "query: ", "passage: "),
        ("intfloat/E5-large-v2", {"prompts": {}}, "query: ", "passage: "),
        ("/models/e5", {"prompts": None}, "query: ", "passage: "),
        ("some/base5-model", {}, None, None),
        ("some/e5", {"prompts": {"query": "Q: ", "document": "D: "}}, "Q: ", "D: "),
        ("some/model", {"prompts": {"query": "Q: ", "document": "", "passage": "P: "}}, "Q: ", "P: "),
    ],
)
def test_prompts_are_the_authors(
    model_id: str, config: dict[str, Any], query: str | None, passage: str | None
) -> None:
    prompts = read_prompts(model_id, config)
    assert prompts.get("query") == query
    assert prompts.get("passage") == passage

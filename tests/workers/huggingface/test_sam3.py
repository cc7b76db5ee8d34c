"""Pixels, words and outlines for SAM 3."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from orbtrio.errors import ConfigError  # noqa: E402
from workers.huggingface._common import Place, Source  # noqa: E402
from workers.huggingface._sam3 import around, image_side, outline, pixels, tokens, wanted  # noqa: E402


def test_pictures_become_squares_from_minus_one_to_one() -> None:
    half = Image.new("L", (2, 1))
    half.putpixel((0, 0), 255)
    squares = pixels([half, Image.new("RGB", (3, 5), (255, 0, 127))], 4)
    assert squares.shape == (2, 3, 4, 4)
    assert squares[0, 0, 0, 0] == 1
    assert squares[0, 0, 0, 3] == -1
    assert squares[1, :, 2, 2].tolist() == pytest.approx([1, -1, 0], abs=0.01)


def test_prompts_are_looked_for_once_each() -> None:
    assert wanted(["cat", "bus", "cat"]) == ["cat", "bus"]
    assert wanted(None) == wanted([]) == ["person", "animal", "vehicle"]
    with pytest.raises(ValueError, match="prompts: 17 are too many, at most 16"):
        wanted([str(number) for number in range(17)])


def test_words_have_the_length_that_the_model_was_trained_on() -> None:
    asked: dict[str, Any] = {}

    def tokenizer(prompts: list[str], **options: Any) -> dict[str, Any]:
        asked.update(options, prompts=prompts)
        return {"input_ids": 1, "attention_mask": 2, "token_type_ids": 3}

    assert tokens(tokenizer, ("cat",)) == {"input_ids": 1, "attention_mask": 2}
    assert asked["prompts"] == ["cat"]
    assert (asked["padding"], asked["max_length"], asked["truncation"]) == ("max_length", 32, True)


def test_an_outline_grows_to_the_picture() -> None:
    mask = outline(torch.tensor([[-1.0, 1.0]]), (8, 4))
    assert mask.shape == (4, 8)
    assert mask.dtype == np.bool_
    assert not mask[:, :4].any()
    assert mask[:, 4:].all()
    assert around(mask) == (4.0, 0.0, 8.0, 4.0)


def test_a_picture_that_is_no_square_is_none_of_this_models() -> None:
    source = Source("some/model", "a model", ("one", "other"), Place("cpu", torch.float32))
    assert image_side(source, SimpleNamespace(image_size=1008)) == 1008
    with pytest.raises(ConfigError, match="no square"):
        image_side(source, SimpleNamespace(image_size=[8, 4]))

"""What is found of what is named; the models are fakes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from workers.huggingface._common import Place  # noqa: E402
from workers.huggingface.masks import ClipSeg, Sam3  # noqa: E402

CPU = Place("cpu", torch.float32)
WORDS = {"cat": 1, "bus": 2, "person": 3, "animal": 4, "vehicle": 5}


@attrs.frozen
class Vision:
    last_hidden_state: Any
    fpn_hidden_states: Any
    fpn_position_encoding: Any


class Sam3Model:
    """Two queries: the first sees the left half of a picture, the surer the redder it is; the second nothing.

    A query about word n has a score that is less by n hundredths.
    """

    def __init__(self) -> None:
        self.passes: list[int] = []

    def get_vision_features(self, *, pixel_values: Any) -> Vision:
        redness = pixel_values[:, 0].mean((1, 2))
        return Vision(redness, (redness[:, None],), (torch.zeros(1, 1),))

    def __call__(self, *, vision_embeds: Vision, input_ids: Any, attention_mask: Any) -> SimpleNamespace:
        redness = vision_embeds.fpn_hidden_states[0]
        assert len(redness) == len(vision_embeds.last_hidden_state) == len(input_ids)
        assert len(vision_embeds.fpn_position_encoding[0]) == 1
        self.passes.append(len(input_ids))
        score = (redness - input_ids / 100) * 3
        left = torch.tensor([[9.0, 9.0, -9.0, -9.0]] * 4)
        nothing = torch.full((4, 4), -9.0)
        return SimpleNamespace(
            pred_logits=torch.cat([score, torch.full_like(score, 5.0)], dim=1),
            presence_logits=torch.full_like(score, 20.0),
            pred_boxes=torch.tensor([[[-0.1, 0.0, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0]]] * len(redness)),
            pred_masks=torch.stack([torch.stack([left, nothing])] * len(redness)),
        )


def tokenizer(prompts: list[str], **options: Any) -> dict[str, Any]:
    ids = torch.tensor([[WORDS[prompt]] for prompt in prompts])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


RED, BLUE = Image.new("RGB", (8, 4), "red"), Image.new("RGB", (4, 8), "blue")


def test_sam3_looks_for_each_picture_s_own_words_surest_first() -> None:
    model = Sam3Model()
    found = Sam3(CPU, tokenizer, model, 16).segment([RED, BLUE, RED], [["bus", "cat"], ["cat"], None])
    assert model.passes == [3, 2, 1], "a pass per turn, for those that still ask"
    assert [[segment.label for segment in segments] for segments in found] == [
        ["cat", "bus"],
        [],
        ["person", "animal", "vehicle"],
    ]
    cat = found[0][0]
    assert cat.box == pytest.approx((0.0, 0.0, 4.0, 4.0))
    assert cat.mask.shape == (4, 8)
    assert cat.mask[:, :3].all()
    assert not cat.mask[:, 5:].any()
    assert 0.5 < cat.score <= 1


class ClipSegModel:
    """A word's region is as many columns as its number; of the bus there is nothing."""

    def __call__(self, *, input_ids: Any, pixel_values: Any) -> SimpleNamespace:
        maps = torch.full((len(input_ids), 4, 8), -4.0)
        for place, (word,) in enumerate(input_ids.tolist()):
            if word != WORDS["bus"]:
                maps[place, :, :word] = word
        # As the real one does.
        return SimpleNamespace(logits=maps[0] if len(maps) == 1 else maps)


def processor(*, text: list[str], images: list[Image.Image], **options: Any) -> dict[str, Any]:
    assert len(text) == len(images)
    return {"input_ids": tokenizer(text)["input_ids"], "pixel_values": torch.zeros(len(images), 3, 2, 2)}


def test_clipseg_finds_a_region_per_word_or_nothing() -> None:
    found = ClipSeg(CPU, processor, ClipSegModel()).segment(
        [RED, RED, RED], [["cat", "bus", "person"], ["bus"], None]
    )
    assert [[segment.label for segment in segments] for segments in found] == [
        ["person", "cat"],
        [],
        ["vehicle", "animal", "person"],
    ]
    person = found[0][0]
    assert person.box == (0.0, 0.0, 3.0, 4.0)
    assert np.array_equal(person.mask.sum(0) > 0, [True] * 3 + [False] * 5)


def test_a_region_of_a_single_pair_is_found_too() -> None:
    ((cat,),) = ClipSeg(CPU, processor, ClipSegModel()).segment([RED], [["cat"]])
    assert cat.score == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-5)

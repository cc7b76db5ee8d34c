"""Chats with and without pictures, in batches; processor and model are fakes."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
jinja2 = pytest.importorskip("jinja2")
pytest.importorskip("transformers")

from workers.huggingface.vision_chat import VisionChatModel  # noqa: E402

from .test_chat import CPU, Counting  # noqa: E402
from .test_generation import Bytes  # noqa: E402


class Processor:
    """A token per letter and per picture; short ones padded in front."""

    def __init__(self) -> None:
        self.tokenizer = Bytes()
        self.batches: list[int] = []

    def apply_chat_template(self, chats: list[list[dict[str, Any]]], **options: Any) -> dict[str, Any]:
        assert options["sanitize_control_tokens"] is True
        rows = [
            "".join(part.get("text", "I") for message in chat for part in message["content"])
            for chat in chats
        ]
        if "!" in "".join(rows):
            raise jinja2.TemplateError("roles must alternate")
        self.batches.append(len(chats))
        longest = max(map(len, rows))
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, longest - len(row) :] = torch.tensor(list(row.encode()))
            mask[place, longest - len(row) :] = 1
        return {"input_ids": ids, "attention_mask": mask}


def chat(words: str, pictures: int = 1) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "image", "image": None}] * pictures
    return [{"role": "user", "content": [*parts, {"type": "text", "text": words}]}]


def answers(model: Counting, *chats: list[dict[str, Any]]) -> list[str]:
    return VisionChatModel(CPU, Processor(), model).generate(
        chats, max_tokens=3, on_token=lambda place, text: None, stop=lambda place: False
    )


def test_chats_with_pictures_go_together_and_those_without_too() -> None:
    model = Counting(context=99)
    assert answers(model, chat("ab"), chat("a", pictures=0), chat("a"), chat("c", pictures=2)) == ["xxx"] * 4
    assert model.calls == [([2, 3, 3], 3), ([1], 3)]


def test_where_the_context_ends_each_chat_is_on_its_own() -> None:
    model = Counting(context=10)
    assert answers(model, chat("a" * 7), chat("a")) == ["xx", "xxx"]
    assert model.calls == [([2], 3), ([8], 2)]


def test_a_chat_that_fills_the_context_is_told_so() -> None:
    with pytest.raises(ValueError, match="messages: 10 tokens are too many, at most 9; send fewer pictures"):
        answers(Counting(context=10), chat("a" * 9))


def test_what_the_template_does_not_take_is_told() -> None:
    with pytest.raises(ValueError, match=r"messages: .* does not take them .*roles must alternate"):
        answers(Counting(context=99), chat("!"))

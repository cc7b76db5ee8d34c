"""Chats in batches and at the end of the context; the model recites, the tokenizer counts characters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from workers.huggingface._common import Place  # noqa: E402
from workers.huggingface.chat import ChatModel  # noqa: E402

from .test_generation import Bytes  # noqa: E402

CPU = Place("cpu", torch.float32)


class Template(Bytes):
    """A token per character of the last message."""

    def apply_chat_template(self, chat: list[dict[str, str]], **options: Any) -> dict[str, list[int]]:
        assert options == {"add_generation_prompt": True, "sanitize_control_tokens": True}
        if chat[-1]["role"] == "system":
            raise ValueError("no system\nhere")
        return {"input_ids": list(chat[-1]["content"].encode())}


class Counting:
    """Answers x's until it is stopped; remembers how long its prompts were, row by row."""

    def __init__(self, context: int | None) -> None:
        text = SimpleNamespace(max_position_embeddings=context)
        self.config = SimpleNamespace(get_text_config=lambda: text)
        self.generation_config = SimpleNamespace(eos_token_id=0)
        self.calls: list[tuple[list[int], int]] = []

    def generate(
        self,
        *,
        input_ids: Any,
        attention_mask: Any,
        max_new_tokens: int,
        stopping_criteria: Any,
        **options: Any,
    ) -> None:
        self.calls.append((attention_mask.sum(1).tolist(), max_new_tokens))
        for _ in range(max_new_tokens):
            column = torch.full((len(input_ids), 1), ord("x"))
            input_ids = torch.cat([input_ids, column], dim=1)
            if stopping_criteria(input_ids, None).all():
                break


def said(text: str, role: str = "user") -> list[dict[str, Any]]:
    return [{"role": role, "content": text}]


def answers(model: Counting, *chats: list[dict[str, Any]], max_tokens: int = 3) -> list[str]:
    return ChatModel(CPU, Template(), model).generate(
        chats, max_tokens=max_tokens, on_token=lambda place, text: None, stop=lambda place: False
    )


def test_chats_are_written_together_the_short_ones_first() -> None:
    model = Counting(context=99)
    assert answers(model, said("hello"), said("a"), said("abc")) == ["xxx"] * 3
    assert model.calls == [([1, 3, 5], 3)]


def test_a_chat_near_the_end_of_the_context_cuts_no_other_short() -> None:
    model = Counting(context=10)
    assert answers(model, said("a" * 8), said("a"), said("b" * 9)) == ["xx", "xxx", "x"]
    assert model.calls == [([1], 3), ([8], 2), ([9], 1)]


def test_a_chat_that_fills_the_context_is_told_so() -> None:
    with pytest.raises(ValueError, match="messages: 10 tokens are too many, at most 9"):
        answers(Counting(context=10), said("a" * 10))


def test_a_model_without_a_limit_has_none() -> None:
    model = Counting(context=None)
    assert answers(model, said("a" * 5000)) == ["xxx"]


def test_what_the_template_does_not_take_is_told_in_a_line() -> None:
    with pytest.raises(ValueError, match=r"messages: .* does not take them \(ValueError: no system here\)"):
        answers(Counting(context=99), said("a", role="system"))

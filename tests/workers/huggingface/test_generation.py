"""Text out of tokens, and rows that end one by one; the tokenizer is a fake, and so is the model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from workers.huggingface._generation import Text, Watcher, context, ends, ready, write  # noqa: E402

END = 0


class Bytes:
    """A token per byte of UTF-8; 0 ends a text and is not shown."""

    pad_token_id: int | None = None
    eos_token_id = END
    padding_side = "right"

    @property
    def pad_token(self) -> None:
        raise AssertionError

    @pad_token.setter
    def pad_token(self, token: str) -> None:
        self.pad_token_id = END

    eos_token = "</s>"

    def decode(self, tokens: list[int], **options: Any) -> str:
        assert options["skip_special_tokens"] is True
        return bytes(token for token in tokens if token != END).decode(errors="replace")


class Recital:
    """A model that recites texts, each row its own, and then zeros, as finished rows get."""

    def __init__(self, *texts: str) -> None:
        self.rows = [list(text.encode()) for text in texts]
        self.generation_config = SimpleNamespace(eos_token_id=[END, 999])
        self.steps = 0

    def generate(
        self, *, max_new_tokens: int, stopping_criteria: Any, input_ids: Any, **options: Any
    ) -> None:
        assert options == {"num_beams": 1, "pad_token_id": None}
        for step in range(max_new_tokens):
            self.steps += 1
            column = [row[step] if step < len(row) else END for row in self.rows]
            input_ids = torch.cat([input_ids, torch.tensor(column)[:, None]], dim=1)
            if stopping_criteria(input_ids, None).all():
                break


def recite(*texts: str, max_tokens: int = 99, stop: Any = lambda place: False) -> tuple[list[str], list[Any]]:
    told: list[Any] = []
    model = Recital(*texts)
    rows = [(place + 10, Text()) for place in range(len(texts))]
    results = write(
        model,
        Bytes(),
        {"input_ids": torch.ones(len(texts), 1, dtype=torch.long)},
        rows,
        max_tokens=max_tokens,
        on_token=lambda place, text: told.append((place, text)),
        stop=stop,
    )
    return results, told


def test_each_row_is_told_in_pieces_and_ends_on_its_own() -> None:
    results, told = recite("abc", "d")
    assert results == ["abc", "d"]
    assert told == [(10, "a"), (11, "d"), (10, "b"), (10, "c")]


def test_a_character_is_told_when_all_of_it_is_there() -> None:
    results, told = recite("aä🐈z")
    assert results == ["aä🐈z"]
    assert told == [(10, "a"), (10, "ä"), (10, "🐈"), (10, "z")]


def test_half_a_character_at_the_end_is_shown_as_such() -> None:
    results, told = recite("aä", max_tokens=2)
    assert results == ["a\ufffd"]
    assert told == [(10, "a"), (10, "\ufffd")]


def test_a_row_that_nobody_wants_ends_and_the_others_go_on() -> None:
    results, _ = recite("abcdef", "uvwxyz", stop=lambda place: place == 10)
    assert results == ["a", "uvwxyz"]


def test_stop_is_asked_once_per_token() -> None:
    asked: list[int] = []

    def stop(place: int) -> bool:
        asked.append(place)
        return asked.count(place) == 3

    results, _ = recite("abcdef", "xy", stop=stop)
    assert results == ["abc", "xy"]
    assert asked.count(10) == 3


def test_when_all_rows_are_done_nothing_is_computed() -> None:
    model = Recital("abcdef", "uvwxyz")
    watcher = Watcher(Bytes(), {END}, [(0, Text()), (1, Text())], lambda *told: None, lambda place: True)
    model.generate(
        max_new_tokens=99,
        stopping_criteria=watcher,
        input_ids=torch.ones(2, 1, dtype=torch.long),
        num_beams=1,
        pad_token_id=None,
    )
    assert model.steps == 1


def test_an_attempt_that_is_repeated_tells_nothing_twice() -> None:
    text, tokenizer = Text(), Bytes()
    assert [text.add(token, tokenizer) for token in b"ab"] == ["a", "b"]
    text.begin()
    assert [text.add(token, tokenizer) for token in b"abc"] == ["", "", "c"]
    assert text.text == "abc"
    assert text.rest(tokenizer) == ""


def test_words_keep_the_spaces_that_their_tokens_lose_alone() -> None:
    words = {1: "▁Hello", 2: "▁world"}

    class Words:
        def decode(self, tokens: list[int], **options: Any) -> str:
            return "".join(words[token] for token in tokens).replace("▁", " ").lstrip()

    text = Text()
    assert [text.add(token, Words()) for token in (1, 2)] == ["Hello", " world"]


def test_the_ends_are_the_models_and_the_tokenizers() -> None:
    tokenizer = SimpleNamespace(eos_token_id=2)
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[7, 8]))
    assert ends(model, tokenizer) == {2, 7, 8}
    assert ends(SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None)), tokenizer) == {2}


def test_a_tokenizer_is_made_to_pad_on_the_left() -> None:
    tokenizer = ready(Bytes())
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token_id == END
    padding = SimpleNamespace(padding_side="right", pad_token_id=5)
    assert ready(padding).pad_token_id == 5


def test_the_context_is_that_of_the_text_model() -> None:
    text = SimpleNamespace(max_position_embeddings=64)
    assert context(SimpleNamespace(get_text_config=lambda: text)) == 64
    assert context(SimpleNamespace(get_text_config=SimpleNamespace)) is None

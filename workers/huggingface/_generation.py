"""Writing text token by token, many texts at once, each watched and each stopped on its own.

One object sits in the loop of ``model.generate`` as its stopping criterion, called after every token with all
rows: it reads the new tokens, tells what text they make, asks whether somebody still wants it, and answers
per row whether that row is done. A finished row goes on being padded until the last one is done; it costs
its share of each step no matter what, but it ends nothing and holds nothing up.

Rejected: a streamer of transformers, which sees the tokens but cannot stop a row; and decoding all of a row
with each token, which is quadratic. New tokens are decoded together with the few before them instead, since
one character may take several tokens, and one token may end a word or begin it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

OnToken: TypeAlias = Callable[[int, str], None]
Stop: TypeAlias = Callable[[int], bool]

# What tokenizers write for bytes that are no character yet.
_UNFINISHED: Final = "\ufffd"


class Text:
    """The text of one row as it grows. `told` survives an attempt that is repeated: nothing is told twice."""

    def __init__(self) -> None:
        self.told = 0
        self.begin()

    def begin(self) -> None:
        """Forget the tokens: the row is generated anew."""
        self.text = ""
        self._tokens: list[int] = []
        self._from = self._to = 0

    def add(self, token: int, tokenizer: Any) -> str:
        """Take a token; returns the text that is new with it and has not been told yet."""
        self._tokens.append(token)
        whole = _decoded(tokenizer, self._tokens[self._from :])
        if whole.endswith(_UNFINISHED):
            return ""
        self._accept(whole, tokenizer)
        return self._untold()

    def rest(self, tokenizer: Any) -> str:
        """At the end: whatever is left, even if it is half a character."""
        self._accept(_decoded(tokenizer, self._tokens[self._from :]), tokenizer)
        return self._untold()

    def _accept(self, whole: str, tokenizer: Any) -> None:
        # Decoded with the tokens before, whose own text is then cut off: alone they lose their spaces.
        before = _decoded(tokenizer, self._tokens[self._from : self._to])
        if len(whole) > len(before):
            self.text += whole[len(before) :]
            self._from, self._to = self._to, len(self._tokens)

    def _untold(self) -> str:
        new = self.text[self.told :]
        self.told += len(new)
        return new


def _decoded(tokenizer: Any, tokens: list[int]) -> str:
    text: str = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


class Watcher(StoppingCriteria):  # type: ignore[misc]
    """Tells each row's new text and stops the rows that nobody wants any more."""

    def __init__(
        self,
        tokenizer: Any,
        ends: set[int],
        rows: Sequence[tuple[int, Text]],
        on_token: OnToken,
        stop: Stop,
    ) -> None:
        self._tokenizer = tokenizer
        self._ends = ends
        self._rows = rows
        self._on_token = on_token
        self._stop = stop
        self._done = [False] * len(rows)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        """After each token: which rows are done."""
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if self._done[row]:
                continue
            place, text = self._rows[row]
            if token in self._ends:
                self._done[row] = True
            elif new := text.add(token, self._tokenizer):
                self._on_token(place, new)
            self._done[row] = self._done[row] or self._stop(place)
        return torch.tensor(self._done, device=input_ids.device)


def write(
    model: Any,
    tokenizer: Any,
    inputs: dict[str, Any],
    rows: Sequence[tuple[int, Text]],
    *,
    max_tokens: int,
    on_token: OnToken,
    stop: Stop,
) -> list[str]:
    """Continue each row of `inputs`, as the model's own generation settings say; returns the new texts.

    Args:
        model: Of transformers, with ``generate``.
        tokenizer: Its tokenizer.
        inputs: What ``generate`` takes: token ids padded on the left, and what goes with them.
        rows: For each row its place, as `on_token` and `stop` know it, and where its text goes.
        max_tokens: Most new tokens of a row.
        on_token: Called with a place and its new text.
        stop: Called with a place after each of its tokens; True ends the row.
    """
    for _, text in rows:
        text.begin()
    watcher = Watcher(tokenizer, ends(model, tokenizer), rows, on_token, stop)
    model.generate(
        **inputs,
        max_new_tokens=max_tokens,
        num_beams=1,
        pad_token_id=tokenizer.pad_token_id,
        stopping_criteria=StoppingCriteriaList([watcher]),
    )
    for place, text in rows:
        if rest := text.rest(tokenizer):
            on_token(place, rest)
    return [text.text for _, text in rows]


def ends(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end a text."""
    named = model.generation_config.eos_token_id
    found = set(named) if isinstance(named, (list, tuple)) else {named}
    return {token for token in found | {tokenizer.eos_token_id} if token is not None}


def ready(tokenizer: Any) -> Any:
    """Make a tokenizer pad on the left, as generating needs it; it may have no token for padding."""
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def context(config: Any) -> int | None:
    """Most tokens of a chat and its answer together; None if the model does not say."""
    longest: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return longest

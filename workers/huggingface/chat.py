"""Chat with language models: Llama, Qwen, Phi and whatever else has a chat template.

The chats of a batch are padded on the left and written together, one forward pass per token for all of them.
What people write stays text: a message that spells the model's control tokens cannot end its turn or begin
another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs
import jinja2

from ._common import Place, Slices, Source, inferring, padded, shown
from ._generation import OnToken, Stop, Text, context, ready, write

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES: Final = ("Qwen/Qwen3-0.6B", "microsoft/Phi-4-mini-instruct")


@attrs.frozen(eq=False)
class _Prompt:
    place: int
    tokens: list[int]
    text: Text = attrs.field(factory=Text)


class ChatModel:
    """A language model that continues chats."""

    def __init__(self, place: Place, tokenizer: Any, model: Any) -> None:
        self._place = place
        self._tokenizer = ready(tokenizer)
        self._model = model
        self._context = context(model.config)
        self._slices = Slices()

    def generate(
        self, chats: Sequence[list[dict[str, Any]]], *, max_tokens: int, on_token: OnToken, stop: Stop
    ) -> list[str]:
        """The next message of each chat.

        Args:
            chats: Messages, each with ``role`` and ``content``, a text.
            max_tokens: Most new tokens of each.
            on_token: Called with a chat's place and the text that is new, as it is written.
            stop: Called with a chat's place after each of its tokens; True ends it there.

        Raises:
            ValueError: a chat is too long, or the model's template refuses it.
        """
        prompts = [_Prompt(place, self._tokens(chat)) for place, chat in enumerate(chats)]

        def forward(part: Sequence[_Prompt]) -> list[str]:
            return self._write(part, max_tokens, on_token, stop)

        # A chat near the end of the context would cut its neighbours short: the limit is that of a batch.
        tight = {
            prompt.place
            for prompt in prompts
            if self._context is not None and len(prompt.tokens) + max_tokens > self._context
        }
        roomy = [prompt for prompt in prompts if prompt.place not in tight]
        answers = self._slices.run_sorted(roomy, lambda prompt: len(prompt.tokens), forward)
        results = {prompt.place: answer for prompt, answer in zip(roomy, answers, strict=True)}
        for place in sorted(tight):
            (results[place],) = self._slices.run([prompts[place]], forward)
        return [results[place] for place in range(len(chats))]

    def _tokens(self, chat: list[dict[str, Any]]) -> list[int]:
        try:
            tokens: list[int] = self._tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, sanitize_control_tokens=True
            )["input_ids"]
        except (jinja2.TemplateError, ValueError) as error:
            raise ValueError(
                f"messages: the model's chat template does not take them ({shown(error)})"
            ) from None
        if self._context is not None and len(tokens) >= self._context:
            raise ValueError(f"messages: {len(tokens)} tokens are too many, at most {self._context - 1}")
        return tokens

    @inferring
    def _write(self, part: Sequence[_Prompt], max_tokens: int, on_token: OnToken, stop: Stop) -> list[str]:
        tokens = [prompt.tokens for prompt in part]
        inputs = padded(tokens, filler=self._tokenizer.pad_token_id, left=True)
        if self._context is not None:
            max_tokens = min(max_tokens, self._context - inputs["input_ids"].shape[1])
        return write(
            self._model,
            self._tokenizer,
            self._place.take(inputs),
            [(prompt.place, prompt.text) for prompt in part],
            max_tokens=max_tokens,
            on_token=on_token,
            stop=stop,
        )


def load(model_id: str) -> ChatModel:
    """Load a chat model.

    Raises:
        ConfigError: it cannot be loaded, or has no chat template.
    """
    source = Source(model_id, "a chat model", EXAMPLES)
    tokenizer = source.part("AutoTokenizer")
    if tokenizer.chat_template is None:
        raise source.wrong_kind(
            "it has no chat template, so look for one with 'instruct' or 'chat' in its name"
        )
    return ChatModel(source.place, tokenizer, source.model("AutoModelForCausalLM"))

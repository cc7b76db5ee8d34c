"""Chat about pictures: LLaVA, SmolVLM, Qwen-VL and other models with a processor and a chat template.

The processor turns texts and pictures into one sequence of tokens, and how it does that differs from family
to family, so a batch goes through it as a whole; chats with pictures and chats without go separately, since
some processors cannot mix them. What people write stays text: nobody can forge a turn, or a picture that is
not there.

**Without torchvision** transformers refuses to load the processors of families that also know videos, though
only the videos need it. Those processors are put together here from their other parts.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import attrs
import jinja2
import transformers
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import is_torchvision_available

from ._common import Place, Slices, Source, inferring, shown
from ._generation import OnToken, Stop, Text, context, ready, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    pass

EXAMPLES: Final = ("HuggingFaceTB/SmolVLM-256M-Instruct", "llava-hf/llava-interleave-qwen-0.5b-hf")


@attrs.frozen(eq=False)
class _Prompt:
    place: int
    chat: list[dict[str, Any]]
    text: Text = attrs.field(factory=Text)

    @property
    def size(self) -> tuple[int, int]:
        """Pictures and characters: which chats are alike in length."""
        parts = [part for message in self.chat for part in message["content"]]
        return sum(part["type"] == "image" for part in parts), sum(
            len(part.get("text", "")) for part in parts
        )


class VisionChatModel:
    """A model that continues chats in which there are pictures."""

    def __init__(self, place: Place, processor: Any, model: Any) -> None:
        self._place = place
        self._processor = processor
        self._tokenizer = ready(processor.tokenizer)
        self._model = model
        self._context = context(model.config)
        self._slices = Slices()

    def generate(
        self, chats: Sequence[list[dict[str, Any]]], *, max_tokens: int, on_token: OnToken, stop: Stop
    ) -> list[str]:
        """The next message of each chat.

        Args:
            chats: Messages, each with ``role`` and ``content``, a list of ``{"type": "text", "text": ...}``
                and ``{"type": "image", "image": ...}`` with a picture.
            max_tokens: Most new tokens of each.
            on_token: Called with a chat's place and the text that is new, as it is written.
            stop: Called with a chat's place after each of its tokens; True ends it there.

        Raises:
            ValueError: a chat is too long, or the model's template refuses it.
        """
        prompts = [_Prompt(place, chat) for place, chat in enumerate(chats)]

        def forward(part: Sequence[_Prompt]) -> list[str]:
            return self._write(part, max_tokens, on_token, stop)

        results: dict[int, str] = {}
        for pictures in (True, False):
            alike = [prompt for prompt in prompts if (prompt.size[0] > 0) is pictures]
            answers = self._slices.run_sorted(alike, lambda prompt: prompt.size, forward)
            results |= {prompt.place: answer for prompt, answer in zip(alike, answers, strict=True)}
        return [results[place] for place in range(len(chats))]

    @inferring
    def _write(self, part: Sequence[_Prompt], max_tokens: int, on_token: OnToken, stop: Stop) -> list[str]:
        inputs = self._inputs([prompt.chat for prompt in part])
        length = inputs["input_ids"].shape[1]
        if self._context is not None and length + max_tokens > self._context:
            if len(part) > 1:
                # The limit is that of the batch, and would cut the short ones off.
                return [text for prompt in part for text in self._write([prompt], max_tokens, on_token, stop)]
            if length >= self._context:
                most = self._context - 1
                raise ValueError(
                    f"messages: {length} tokens are too many, at most {most}; send fewer pictures"
                )
            max_tokens = self._context - length
        return write(
            self._model,
            self._tokenizer,
            self._place.take(inputs),
            [(prompt.place, prompt.text) for prompt in part],
            max_tokens=max_tokens,
            on_token=on_token,
            stop=stop,
        )

    def _inputs(self, chats: list[list[dict[str, Any]]]) -> Any:
        try:
            return self._processor.apply_chat_template(
                chats,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                sanitize_control_tokens=True,
                processor_kwargs={"padding": True},
            )
        except jinja2.TemplateError as error:
            raise ValueError(
                f"messages: the model's chat template does not take them ({shown(error)})"
            ) from None


def load(model_id: str) -> VisionChatModel:
    """Load a model for chats about pictures.

    Raises:
        ConfigError: it cannot be loaded, or knows no pictures or no chats.
    """
    source = Source(model_id, "a vision language model", EXAMPLES)
    return from_source(source)


def from_source(source: Source) -> VisionChatModel:
    """As `load`, for a checkpoint that somebody has looked at already."""
    processor = load_processor(source)
    if not hasattr(processor, "image_processor"):
        raise source.wrong_kind(f"{type(processor).__name__} takes no pictures")
    if processor.chat_template is None:
        raise source.wrong_kind(
            "it has no chat template, so look for one with 'instruct' or 'chat' in its name"
        )
    return VisionChatModel(source.place, processor, source.model("AutoModelForImageTextToText"))


def load_processor(source: Source) -> Any:
    """The processor of a checkpoint, without the part for videos where that cannot be loaded."""
    config = source.part("AutoConfig")
    processor_class: Any = getattr(transformers, PROCESSOR_MAPPING_NAMES.get(config.model_type) or "", None)
    if (
        processor_class is None
        or "video_processor" not in processor_class.get_attributes()
        or is_torchvision_available()
    ):
        return source.part("AutoProcessor")

    class StillProcessor(processor_class):  # type: ignore[misc]
        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            if name != "video_processor":
                return super().check_argument_for_proper_class(name, argument)
            return type(argument)

    settings, _ = source.attempt(lambda: processor_class.get_processor_dict(source.model_id))
    own = {
        name: value
        for name, value in settings.items()
        if name not in ("processor_class", "image_processor", "video_processor", "tokenizer", "auto_map")
    }
    parts = {"image_processor": source.part("AutoImageProcessor"), "tokenizer": source.part("AutoTokenizer")}
    # SmolVLM's asks for these two even where there is no video.
    no_videos = SimpleNamespace(num_frames=None, fps=None)
    own.setdefault("chat_template", parts["tokenizer"].chat_template)
    return source.attempt(lambda: StillProcessor(**parts, video_processor=no_videos, **own))

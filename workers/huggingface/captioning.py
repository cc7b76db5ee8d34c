"""Captions, and answers to questions about pictures.

Four kinds of models do this, and the checkpoint tells which it is: BLIP and ViT-GPT2 write captions; BLIP for
visual question answering answers; Moondream brings code of its own, with ``caption`` and ``query``; and every
model for chats about pictures can do both. The first three look at one picture at a time, so a job with
several gets a line for each. A chat model sees all pictures of a job together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import torch

from . import vision_chat
from ._common import Place, Slices, Source, inferring

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image

    Asked: TypeAlias = tuple[Image.Image, str | None]

EXAMPLES: Final = ("Salesforce/blip-image-captioning-base", "Salesforce/blip-vqa-base")

# What is asked where the job asks nothing, of models that only answer.
ANYTHING: Final = "what is in the picture?"
DESCRIBE: Final = "Describe the picture in one sentence."
DESCRIBE_ALL: Final = "Describe the pictures in one sentence."

# A caption is a sentence; a model that goes on has lost its thread.
MOST_TOKENS: Final = 128


class Captioner(Protocol):
    """What the worker calls."""

    def describe(self, pictures: Sequence[Sequence[Image.Image]], queries: Sequence[str | None]) -> list[str]:
        """For each job's pictures and its query, or None, what there is to say."""


class PictureByPicture:
    """A model that looks at one picture at a time; jobs with several get a line for each.

    Args:
        forward: Says something of each picture, with its query, all in one batch.
        asks: Whether the model takes queries.
    """

    def __init__(self, forward: Callable[[Sequence[Asked]], Sequence[str]], *, asks: bool = True) -> None:
        self._forward = forward
        self._asks = asks
        self._slices = Slices()

    def describe(self, pictures: Sequence[Sequence[Image.Image]], queries: Sequence[str | None]) -> list[str]:
        """For each job a line per picture.

        Raises:
            ValueError: a job asks something, and the model cannot be asked.
        """
        if not self._asks and any(query is not None for query in queries):
            raise ValueError("query: this model only writes captions; leave it out, or set another MODEL_ID")
        asked = [(picture, query) for own, query in zip(pictures, queries, strict=True) for picture in own]
        lines = iter(self._slices.run(asked, self._forward))
        return ["\n".join(next(lines) for _ in own) for own in pictures]


class Blip:
    """BLIP, for captions, of which the query is then the beginning, or for answers."""

    def __init__(self, place: Place, processor: Any, model: Any, *, answers: bool) -> None:
        self._place = place
        self._processor = processor
        self._model = model
        self._answers = answers

    @inferring
    def forward(self, asked: Sequence[Asked]) -> list[str]:
        """As few passes as there are lengths of queries: captions go on right behind theirs, unpadded."""
        ids = [self._tokens(query) for _, query in asked]
        results: dict[int, str] = {}
        for length in sorted({len(tokens) for tokens in ids}):
            places = [place for place, tokens in enumerate(ids) if len(tokens) == length]
            inputs = self._processor.image_processor(
                images=[asked[place][0] for place in places], return_tensors="pt"
            )
            if length:
                inputs["input_ids"] = torch.tensor([ids[place] for place in places])
                inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            tokens = self._model.generate(**self._place.take(inputs), max_new_tokens=MOST_TOKENS)
            results |= zip(places, _texts(self._processor.tokenizer, tokens), strict=True)
        return [results[place] for place in range(len(asked))]

    def _tokens(self, query: str | None) -> list[int]:
        if query is None:
            if not self._answers:
                return []
            query = ANYTHING
        longest = self._model.config.text_config.max_position_embeddings - MOST_TOKENS
        tokens: list[int] = self._processor.tokenizer(query)["input_ids"]
        if len(tokens) > longest:
            raise ValueError(f"query: {len(tokens)} tokens are too many, at most {longest}")
        return tokens


class EncoderDecoder:
    """ViT-GPT2 and its kin: a picture in, a caption out."""

    def __init__(self, place: Place, processor: Any, tokenizer: Any, model: Any) -> None:
        self._place = place
        self._processor = processor
        self._tokenizer = tokenizer
        self._model = model

    @inferring
    def forward(self, asked: Sequence[Asked]) -> list[str]:
        """One pass."""
        inputs = self._processor(images=[picture for picture, _ in asked], return_tensors="pt")
        tokens = self._model.generate(**self._place.take(inputs), max_new_tokens=MOST_TOKENS)
        return _texts(self._tokenizer, tokens)


class OwnCode:
    """Moondream and its kin, whose code comes with the checkpoint and takes one picture."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @inferring
    def forward(self, asked: Sequence[Asked]) -> list[str]:
        """One after the other."""
        return [
            str(
                self._model.caption(picture)["caption"]
                if query is None
                else self._model.query(picture, query)["answer"]
            ).strip()
            for picture, query in asked
        ]


class Chat:
    """A model for chats about pictures, asked to describe them."""

    def __init__(self, model: vision_chat.VisionChatModel) -> None:
        self._model = model

    def describe(self, pictures: Sequence[Sequence[Image.Image]], queries: Sequence[str | None]) -> list[str]:
        """For each job one answer about all of its pictures."""
        chats = []
        for own, query in zip(pictures, queries, strict=True):
            if query is None:
                query = DESCRIBE if len(own) == 1 else DESCRIBE_ALL
            parts = [{"type": "image", "image": picture} for picture in own]
            chats.append([{"role": "user", "content": [*parts, {"type": "text", "text": query}]}])
        answers = self._model.generate(
            chats, max_tokens=MOST_TOKENS, on_token=lambda place, text: None, stop=lambda place: False
        )
        return [answer.strip() for answer in answers]


def load(model_id: str) -> Captioner:
    """Load a model that says what is in pictures.

    Raises:
        ConfigError: it cannot be loaded, or says nothing about pictures.
    """
    source = Source(model_id, "a model that describes pictures", EXAMPLES)
    config = source.part("AutoConfig")
    if config.model_type == "blip":
        answers = "BlipForQuestionAnswering" in (config.architectures or ())
        model = source.model("BlipForQuestionAnswering" if answers else "BlipForConditionalGeneration")
        return PictureByPicture(
            Blip(source.place, source.part("AutoProcessor"), model, answers=answers).forward
        )
    if config.model_type == "vision-encoder-decoder":
        parts = source.part("AutoImageProcessor"), source.part("AutoTokenizer")
        model = source.model("AutoModelForImageTextToText")
        return PictureByPicture(EncoderDecoder(source.place, *parts, model).forward, asks=False)
    if getattr(config, "auto_map", None):
        model = source.model("AutoModelForCausalLM")
        if not (hasattr(model, "caption") and hasattr(model, "query")):
            raise source.wrong_kind(f"its code, {type(model).__name__}, has no caption() and query()")
        return PictureByPicture(OwnCode(model).forward)
    return Chat(vision_chat.from_source(source))


def _texts(tokenizer: Any, tokens: torch.Tensor) -> list[str]:
    return [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]

"""Embeddings: SigLIP and SigLIP 2 (texts and pictures in one space), and text encoders of the BERT kind.

Text encoders are told apart by what their authors put beside the weights, in the files of
sentence-transformers: whether a text's vector is the mean of its tokens' or the first or last one's, and what
to write in front of questions and passages. Where those files are absent the mean counts, and models with
"e5" in their name get ``query:`` and ``passage:``, which E5 was trained with.

A batch is one forward pass unless its texts are so many or so long that they are sorted by length and cut
into slices of `SLICE_TOKENS`: padding one long text's length onto thirty short ones costs more than the
second pass.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from ._common import Place, Slices, Source, inferring, padded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from PIL import Image

    Vectors = npt.NDArray[np.float32]

EXAMPLES: Final = ("google/siglip2-base-patch16-224", "intfloat/multilingual-e5-small")

# Of a forward pass over texts, padding included: 32 texts of 512 tokens.
SLICE_TOKENS: Final = 16_384

E5_PROMPTS: Final = {"query": "query: ", "passage": "passage: "}


class Embedder:
    """Texts and pictures as vectors of length 1; the model can do one of them or both.

    Attributes:
        encode_pictures: Takes pictures, returns float32 ``(N, D)``; None if the model is for texts only.
    """

    def __init__(self, place: Place, texts: TextEncoder, pictures: PictureEncoder | None) -> None:
        self._place = place
        self._texts = texts
        self._slices = Slices()
        self._pictures = pictures
        self.encode_pictures: Callable[[Sequence[Image.Image]], Vectors] | None = None
        if pictures is not None:
            self.encode_pictures = self._encode_pictures

    def encode_texts(self, texts: Sequence[str], *, query: bool) -> Vectors:
        """Vectors, float32 ``(N, D)``; what a text has beyond the model's longest is not read."""
        tokens = self._texts.tokenize(texts, query=query)
        vectors: list[Vectors] = []
        order = sorted(range(len(tokens)), key=lambda place: len(tokens[place]))
        for part in by_tokens([tokens[place] for place in order]):
            vectors += self._slices.run(part, self._texts.forward)
        return _stacked(
            [vector for _, vector in sorted(zip(order, vectors, strict=True), key=lambda p: p[0])]
        )

    def _encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        assert self._pictures is not None
        return _stacked(self._slices.run(pictures, self._pictures.forward))


class TextEncoder:
    """A tokenizer, a model, and how a text's vector comes out of it."""

    def __init__(
        self,
        place: Place,
        tokenizer: Any,
        vectors: Callable[[dict[str, Any]], torch.Tensor],
        *,
        prompts: dict[str, str],
        longest: int,
        always_longest: bool = False,
        lower: bool = False,
    ) -> None:
        self._place = place
        self._tokenizer = tokenizer
        self._vectors = vectors
        self._prompts = prompts
        self._longest = longest
        self._lower = lower
        self._padded_to = longest if always_longest else 0

    def tokenize(self, texts: Sequence[str], *, query: bool) -> list[list[int]]:
        """The token ids of each text, not padded."""
        prompt = self._prompts.get("query" if query else "passage", "")
        texts = [prompt + (text.lower() if self._lower else text) for text in texts]
        encoded = self._tokenizer(texts, truncation=True, max_length=self._longest)
        tokens: list[list[int]] = encoded["input_ids"]
        return tokens

    @inferring
    def forward(self, tokens: Sequence[list[int]]) -> Vectors:
        """Vectors of length 1, in one pass."""
        inputs = padded(
            tokens,
            filler=self._tokenizer.pad_token_id,
            left=self._tokenizer.padding_side == "left",
            length=self._padded_to,
        )
        return _units(self._vectors(self._place.take(inputs)))


class PictureEncoder:
    """An image processor and the picture half of a model."""

    def __init__(self, place: Place, processor: Any, model: Any) -> None:
        self._place = place
        self._processor = processor
        self._model = model

    @inferring
    def forward(self, pictures: Sequence[Image.Image]) -> Vectors:
        """Vectors of length 1, in one pass."""
        inputs = self._processor(images=list(pictures), return_tensors="pt")
        return _units(_pooled(self._model.get_image_features(**self._place.take(inputs))))


def load(model_id: str) -> Embedder:
    """Load an embedding model.

    Raises:
        ConfigError: it cannot be loaded, or embeds nothing.
    """
    source = Source(model_id, "an embedding model", EXAMPLES)
    config = source.part("AutoConfig")
    tokenizer = source.part("AutoTokenizer")
    model = source.model("AutoModel")
    if hasattr(model, "get_text_features") and hasattr(model, "get_image_features"):
        # SigLIP was trained on texts in small letters, padded to their longest, without a mask to tell so.
        siglip = config.model_type.startswith("siglip")
        texts = TextEncoder(
            source.place,
            tokenizer,
            lambda inputs: _pooled(
                model.get_text_features(input_ids=inputs["input_ids"])
                if siglip
                else model.get_text_features(**inputs)
            ),
            prompts={},
            longest=config.text_config.max_position_embeddings,
            always_longest=siglip,
            lower=siglip,
        )
        pictures = PictureEncoder(source.place, source.part("AutoImageProcessor"), model)
        return Embedder(source.place, texts, pictures)
    if config.is_encoder_decoder or not hasattr(config, "max_position_embeddings"):
        raise source.wrong_kind(f"{type(model).__name__} has no text encoder that could be used alone")
    pool = read_pooling(_beside(source, "1_Pooling/config.json"))
    prompts = read_prompts(model_id, _beside(source, "config_sentence_transformers.json"))
    longest = min(tokenizer.model_max_length, _positions(config))

    def vectors(inputs: dict[str, Any]) -> torch.Tensor:
        return pool(model(**inputs).last_hidden_state, inputs["attention_mask"])

    texts = TextEncoder(source.place, tokenizer, vectors, prompts=prompts, longest=longest)
    return Embedder(source.place, texts, None)


def by_tokens(texts: Sequence[list[int]]) -> list[list[list[int]]]:
    """Texts, shortest first, in parts that have `SLICE_TOKENS` at most when padded, or one text."""
    parts: list[list[list[int]]] = []
    for tokens in texts:
        # Sorted, so each new one is the longest of its part.
        if not parts or (len(parts[-1]) + 1) * len(tokens) > SLICE_TOKENS:
            parts.append([])
        parts[-1].append(tokens)
    return parts


def _stacked(vectors: Sequence[Vectors]) -> Vectors:
    return np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)


def _units(vectors: torch.Tensor) -> Vectors:
    units: Vectors = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
    return units


# Transformers 5 returns an object where earlier ones returned the tensor.
def _pooled(output: Any) -> torch.Tensor:
    pooled: torch.Tensor = getattr(output, "pooler_output", output)
    return pooled


# RoBERTa and its kin keep two positions for padding, so that of 514 there are 512 to use.
def _positions(config: Any) -> int:
    reserved = (config.pad_token_id or 0) + 1 if "roberta" in config.model_type else 0
    longest: int = config.max_position_embeddings - reserved
    return longest


# --- What sentence-transformers keeps beside the weights ---------------------------------------------------


def _beside(source: Source, name: str) -> dict[str, Any]:
    from transformers.utils import cached_file

    def read() -> dict[str, Any]:
        path = cached_file(source.model_id, name, _raise_exceptions_for_missing_entries=False)
        content: dict[str, Any] = json.loads(Path(path).read_text()) if path else {}
        return content

    return source.attempt(read)


def read_pooling(config: dict[str, Any]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """How a text's vector comes out of its tokens', of which a mask says which count."""
    if config.get("pooling_mode_cls_token"):
        return lambda hidden, mask: hidden[:, 0]
    if config.get("pooling_mode_lasttoken"):
        return _last_token
    return _mean


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    counted = mask.unsqueeze(-1).to(torch.float32)
    total: torch.Tensor = (hidden.float() * counted).sum(1) / counted.sum(1).clamp(min=1)
    return total


# Of either padding side: the last place whose mask is set.
def _last_token(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    places = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * places).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


def read_prompts(model_id: str, config: dict[str, Any]) -> dict[str, str]:
    """What to write in front of a ``query`` and of a ``passage``."""
    given = {name: text for name, text in (config.get("prompts") or {}).items() if text}
    if "document" in given:
        given.setdefault("passage", given["document"])
    if not given and re.search(r"(?<![a-z0-9])e5(?![a-z0-9])", model_id.lower()):
        return E5_PROMPTS
    return given

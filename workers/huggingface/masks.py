"""Outlines of what is named: SAM 3, which finds every instance, and CLIPSeg, which finds the region.

Both look for words, so a job's prompts decide what they find and are its labels; without prompts they look
for `DEFAULT_PROMPTS`. Pictures are encoded once, in one pass per batch; then each prompt is one pass over all
pictures that ask for so many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

from .._detections import Segment, clipped
from ._common import Place, Slices, Source, inferring
from ._sam3 import EXAMPLES, LEAST_SCORE, around, image_side, outline, pixels, tokens, wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    Asked = tuple[Image.Image, list[str]]


class Segmenter(Protocol):
    """What the worker calls."""

    def segment(
        self, pictures: Sequence[Image.Image], prompts: Sequence[Sequence[str] | None]
    ) -> list[list[Segment]]:
        """What is in each picture of what its prompts name."""


class Sam3:
    """SAM 3 on single pictures."""

    def __init__(self, place: Place, tokenizer: Any, model: Any, side: int) -> None:
        self._place = place
        self._tokenizer = tokenizer
        self._model = model
        self._side = side
        self._slices = Slices()

    def segment(
        self, pictures: Sequence[Image.Image], prompts: Sequence[Sequence[str] | None]
    ) -> list[list[Segment]]:
        """Every instance of what each picture's prompts name, surest first.

        Raises:
            ValueError: a picture has too many prompts.
        """
        asked = [(picture, wanted(own)) for picture, own in zip(pictures, prompts, strict=True)]
        return self._slices.run(asked, self._forward)

    @inferring
    def _forward(self, asked: Sequence[Asked]) -> list[list[Segment]]:
        inputs = {"pixel_values": pixels([picture for picture, _ in asked], self._side)}
        vision = self._model.get_vision_features(**self._place.take(inputs))
        found: list[list[Segment]] = [[] for _ in asked]
        for turn in range(max(len(prompts) for _, prompts in asked)):
            places = [place for place, (_, prompts) in enumerate(asked) if len(prompts) > turn]
            words = tokens(self._tokenizer, [asked[place][1][turn] for place in places])
            output = self._model(vision_embeds=_rows(vision, places), **self._place.take(words))
            scores = output.pred_logits.float().sigmoid() * output.presence_logits.float().sigmoid()
            for row, place in enumerate(places):
                picture, prompts = asked[place]
                found[place] += self._segments(
                    prompts[turn], picture, scores[row], output.pred_boxes[row], output.pred_masks[row]
                )
        return [sorted(segments, key=lambda segment: -segment.score) for segments in found]

    def _segments(
        self,
        label: str,
        picture: Image.Image,
        scores: torch.Tensor,
        boxes: torch.Tensor,
        masks: torch.Tensor,
    ) -> list[Segment]:
        width, height = picture.size
        segments = []
        for query in torch.nonzero(scores > LEAST_SCORE).flatten().tolist():
            # One by one: two hundred masks of a large picture would be gigabytes.
            mask = outline(masks[query], picture.size)
            if mask.any():
                x_min, y_min, x_max, y_max = boxes[query].tolist()
                box = clipped((x_min * width, y_min * height, x_max * width, y_max * height), width, height)
                segments.append(Segment(label=label, score=scores[query].item(), box=box, mask=mask))
        return segments


class ClipSeg:
    """CLIPSeg: for each prompt the region, or nothing."""

    def __init__(self, place: Place, processor: Any, model: Any) -> None:
        self._place = place
        self._processor = processor
        self._model = model
        self._slices = Slices()

    def segment(
        self, pictures: Sequence[Image.Image], prompts: Sequence[Sequence[str] | None]
    ) -> list[list[Segment]]:
        """At most one segment per prompt, surest first. Raises `ValueError` for too many prompts."""
        chosen = [wanted(own) for own in prompts]
        asked = [(picture, prompt) for picture, own in zip(pictures, chosen, strict=True) for prompt in own]
        found = iter(self._slices.run(asked, self._forward))
        results = []
        for own in chosen:
            segments = [segment for _ in own if (segment := next(found)) is not None]
            results.append(sorted(segments, key=lambda segment: -segment.score))
        return results

    @inferring
    def _forward(self, asked: Sequence[tuple[Image.Image, str]]) -> list[Segment | None]:
        inputs = self._processor(
            text=[prompt for _, prompt in asked],
            images=[picture for picture, _ in asked],
            padding=True,
            truncation=True,
            return_tensors="pt",
        )
        logits = self._model(**self._place.take(inputs)).logits
        # Of a single pair the model drops the first dimension.
        maps = logits.reshape(len(asked), *logits.shape[-2:])
        return [
            self._segment(prompt, picture, own) for (picture, prompt), own in zip(asked, maps, strict=True)
        ]

    def _segment(self, label: str, picture: Image.Image, logits: torch.Tensor) -> Segment | None:
        mask = outline(logits, picture.size)
        if not mask.any():
            return None
        # As sure as the model is of the region's pixels on average.
        score = logits.float()[logits > 0].sigmoid().mean().item() if (logits > 0).any() else LEAST_SCORE
        return Segment(label=label, score=score, box=around(mask), mask=mask)


def load(model_id: str) -> Segmenter:
    """Load a model that outlines what is named.

    Raises:
        ConfigError: it cannot be loaded, or takes no words.
    """
    source = Source(model_id, "a segmentation model that takes prompts", EXAMPLES)
    config = source.part("AutoConfig")
    if config.model_type == "clipseg":
        processor = source.part("AutoProcessor")
        return ClipSeg(source.place, processor, source.model("CLIPSegForImageSegmentation"))
    if config.model_type not in ("sam3", "sam3_video"):
        raise source.wrong_kind(f"{config.model_type} is neither SAM 3 nor CLIPSeg")
    tokenizer = source.part("AutoTokenizer")
    # The published checkpoint is that for videos, of which this class takes its part.
    model = source.model("Sam3Model")
    return Sam3(source.place, tokenizer, model, image_side(source, model.config))


def _rows(vision: Any, places: Sequence[int]) -> Any:
    chosen = torch.tensor(places, device=vision.fpn_hidden_states[0].device)
    return type(vision)(
        last_hidden_state=vision.last_hidden_state[chosen],
        fpn_hidden_states=tuple(level[chosen] for level in vision.fpn_hidden_states),
        fpn_position_encoding=tuple(
            level[chosen] if len(level) > 1 else level for level in vision.fpn_position_encoding
        ),
    )

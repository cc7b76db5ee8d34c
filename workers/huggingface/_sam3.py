"""What SAM 3 needs for pictures and for videos alike: pixels, words, and outlines at the picture's size.

Its own processors exist only with torchvision, and do little: they resize, scale to -1...1, and tokenize to a
fixed length. That is done here, so there is one path, the same on every machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from .._detections import Box
    from ._common import Source

EXAMPLES: Final = ("facebook/sam3", "CIDAS/clipseg-rd64-refined")

# What is looked for where a job names nothing: SAM 3 and CLIPSeg find what they are told to.
DEFAULT_PROMPTS: Final = ("person", "animal", "vehicle")

# As in Sam3Processor: the text encoder was trained on this length.
PROMPT_TOKENS: Final = 32

# As in the model's card: of a thing, and of each pixel of its outline.
LEAST_SCORE: Final = 0.5

# SAM 3 spends up to 200 outlines on a prompt; a picture is not searched for ever.
MOST_PROMPTS: Final = 16


def wanted(prompts: Sequence[str] | None) -> list[str]:
    """The prompts of a job, each once, or the default ones.

    Raises:
        ValueError: there are too many.
    """
    chosen = list(dict.fromkeys(prompts or DEFAULT_PROMPTS))
    if len(chosen) > MOST_PROMPTS:
        raise ValueError(f"prompts: {len(chosen)} are too many, at most {MOST_PROMPTS}")
    return chosen


def pixels(pictures: Sequence[Image.Image], side: int) -> torch.Tensor:
    """Pictures as the model sees them: float32 ``(N, 3, side, side)``, -1 to 1, stretched to a square."""
    squares = [
        np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
        for picture in pictures
    ]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 127.5 - 1


def tokens(tokenizer: Any, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Token ids and mask of each prompt, of `PROMPT_TOKENS`."""
    encoded = tokenizer(
        list(prompts), padding="max_length", max_length=PROMPT_TOKENS, truncation=True, return_tensors="pt"
    )
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def outline(logits: torch.Tensor, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Where a small map of logits ``(h, w)`` is positive, in a picture of `size` ``(width, height)``."""
    large = torch.nn.functional.interpolate(
        logits.float()[None, None], size=size[::-1], mode="bilinear", align_corners=False
    )
    mask: npt.NDArray[np.bool_] = (large[0, 0] > 0).cpu().numpy()
    return mask


def around(mask: npt.NDArray[np.bool_]) -> Box:
    """The smallest box with the whole of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def image_side(source: Source, config: Any) -> int:
    """Pixels of the model's square."""
    side = config.image_size
    if not isinstance(side, int):
        raise source.wrong_kind(f"its pictures have the size {side}, which is no square")
    return side

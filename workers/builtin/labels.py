"""What a prompt means to a model that knows some names only: the names that say the same.

A prompt that is such a name means it, be it in capitals or the plural. Any other is compared by meaning:
multilingual-e5-small (`e5`), where it is installed, turns prompt and names into vectors. Its vectors all
point roughly the same way, ``dragon`` and ``truck`` included (.91), so what the names have in common is taken
off before they are compared. Then ``kitten`` is .68 of ``cat``, ``voiture`` .81 of ``car``, ``sofa`` .64 of
``couch``, while ``window`` is .45 of ``wine glass``, ``sky`` .44 of ``skis`` and ``dragon`` .33 of ``bird``.

It remains a small model that knows 80 names: ``astronaut`` (.28 of ``person``) and ``lorry`` (.42 of
``truck``) find nothing. A prompt that means nothing is no error, for a model that knows all words finds
nothing then either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt

    Encode: TypeAlias = Callable[[list[str]], npt.NDArray[np.float32]]

# See above. A name nearly as close as the closest is meant as well: "spoon and fork" are both.
_ALIKE: Final = 0.5
_NEARLY: Final = 0.1

# Single words say little to a model of sentences.
_SENTENCE: Final = "a photo of a {}"

# Prompts are few and come again with every frame; a stranger's may not pile up.
_MOST_REMEMBERED: Final = 1000


class Labels:
    """Names, and which of them a prompt means.

    Args:
        names: The names that the model knows.
        encode: Turns texts into vectors of length 1, ``(N, D)``; None where nothing can. First called when a
            prompt is none of the names.
    """

    def __init__(self, names: Iterable[str], encode: Encode | None) -> None:
        self._names = list(names)
        self._encode = encode
        self._vectors: npt.NDArray[np.float32] | None = None
        self._common: npt.NDArray[np.float32] | None = None
        self._known = {spelling: {name} for name in self._names for spelling in _spellings(name)}
        self._remembered: dict[str, set[str]] = {}

    def meant(self, prompts: list[str] | None) -> set[str]:
        """The names that any of `prompts` means; all, if there are none."""
        if prompts is None:
            return set(self._names)
        return set().union(*(self._meant(" ".join(prompt.casefold().split())) for prompt in prompts))

    def _meant(self, prompt: str) -> set[str]:
        names = self._known.get(prompt) or self._remembered.get(prompt)
        if names is None:
            names = self._alike(prompt)
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[prompt] = names
        return names

    def _alike(self, prompt: str) -> set[str]:
        if self._encode is None or not prompt:
            return set()
        if self._vectors is None or self._common is None:
            vectors = self._encode([_SENTENCE.format(name) for name in self._names])
            self._common = vectors.mean(axis=0)
            self._vectors = _unit(vectors - self._common)
        likeness = self._vectors @ _unit(self._encode([_SENTENCE.format(prompt)]) - self._common)[0]
        least = max(_ALIKE, float(likeness.max()) - _NEARLY)
        return {name for name, value in zip(self._names, likeness.tolist(), strict=True) if value >= least}


def _spellings(name: str) -> list[str]:
    plural = {"person": "people", "mouse": "mice", "knife": "knives", "sheep": "sheep"}.get(name)
    if plural is None:
        plural = name + ("es" if name.endswith(("s", "ch", "sh", "x")) else "s")
    return [name, plural]


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = vectors / np.maximum(lengths, np.float32(1e-12))
    return unit

"""Texts as jobs, and which of them must end up side by side.

Twelve questions, the passages that answer them, and the log of a gate camera, which answers none. The
vectors are right if the nearest passage to each question is its answer. The first texts are sent twice: a
text has one vector, whichever batch it travelled in.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["ANSWERS", "DIMENSIONS", "TEXTS", "Text", "find_wrong_vectors"]

DIMENSIONS: Final = 384

ANSWERS: Final = {
    "How do I feed a kitten?": "Young cats need small meals of wet food four times a day.",
    "What makes an espresso bitter?": "Coffee that is ground too fine or brewed too long tastes harsh.",
    "When was the first moon landing?": "Apollo 11 touched down on the lunar surface in July 1969.",
    "How do I change a bicycle tyre?": "Lift the wheel out and lever the rubber off the rim.",
    "What is the capital of Norway?": "Oslo has been the seat of the Norwegian government since 1814.",
    "How is bread made to rise?": "Yeast ferments the dough and fills it with bubbles of gas.",
    "Why do leaves turn red in autumn?": "Trees withdraw chlorophyll, which lets other pigments show.",
    "Who painted the Mona Lisa?": "Leonardo da Vinci worked on the portrait of Lisa Gherardini for years.",
    "How do interest rates affect savings?": "When the central bank raises its rate, deposits earn more.",
    "How do computers store pictures?": "An image file lists the colour of every pixel, often as JPEG.",
    "Où dorment les abeilles ?": "Bees spend the night in their hive, between the combs.",
    "Wie lernt man Gitarre?": "To play the guitar, practise a few chords every day until they sound clean.",
}
_WHO: Final = ("A red van", "A cyclist", "The postman", "A grey cat", "A drone", "A jogger", "A school class")
_DID: Final = ("passed", "stopped at", "came back to", "waited in front of")
_WHERE: Final = ("the north gate", "the loading bay", "the shed", "the car park", "the entrance", "the fence")
_LOG: Final = [f"{who} {did} {where}." for who, did, where in itertools.product(_WHO, _DID, _WHERE)]


@attrs.frozen
class Text:
    """One embedding job.

    Attributes:
        words: What to embed.
        prompt_name: ``"query"`` or ``"passage"``.
    """

    words: str
    prompt_name: str


_QUESTIONS: Final = [Text(question, "query") for question in ANSWERS]
_PASSAGES: Final = [Text(passage, "passage") for passage in [*ANSWERS.values(), *_LOG]]

TEXTS: Final = tuple(itertools.islice(itertools.cycle(_QUESTIONS + _PASSAGES), 200))
"""All questions, all passages, and from the beginning again up to 200."""


def find_wrong_vectors(vectors: Sequence[Sequence[float]]) -> Iterator[str]:
    """Say what is wrong with the embeddings of `TEXTS`, in their order; nothing if they are right."""
    by_text: dict[Text, np.ndarray] = {}
    for text, numbers in zip(TEXTS, vectors, strict=True):
        vector = np.asarray(numbers, dtype=np.float64)
        if vector.shape != (DIMENSIONS,):
            yield f"{text.words!r} has an embedding of shape {vector.shape}, not ({DIMENSIONS},)"
            return
        if abs(np.linalg.norm(vector) - 1) > 1e-3:
            yield f"the embedding of {text.words!r} has length {np.linalg.norm(vector):.4f}, not 1"
        if not np.array_equal(by_text.setdefault(text, vector), vector):
            yield f"{text.words!r} was sent twice and has two embeddings"
    passages = np.stack([by_text[text] for text in _PASSAGES])
    for question in _QUESTIONS:
        nearest = _PASSAGES[int(np.argmax(passages @ by_text[question]))].words
        if nearest != ANSWERS[question.words]:
            yield f"nearest to {question.words!r} is {nearest!r}, not {ANSWERS[question.words]!r}"

"""Questions to a language model, and how to tell that the answers are its own.

A small model may word its answer in any way; what it cannot do by accident is to name the right city.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["QUESTIONS", "ask", "find_wrong_answers"]

QUESTIONS: Final = {
    "What is the capital of France? Answer in one word.": "Paris",
    "Name three primary colors.": "red",
    "What is the opposite of hot? Answer in one word.": "cold",
}
"""By question, a word that its answer must contain."""

_MOST_TOKENS: Final = 40


def ask(question: str) -> dict[str, Any]:
    """A job's input."""
    return {"messages": [{"role": "user", "content": question}], "max_tokens": _MOST_TOKENS}


def find_wrong_answers(
    outputs: Mapping[str, Mapping[str, Any]], pieces: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Say what is wrong with the answers.

    Args:
        outputs: By question.
        pieces: What came of each answer while it was being written.
    """
    for question, word in QUESTIONS.items():
        answer = outputs[question]["response"]
        if word.lower() not in answer.lower():
            yield f"{question!r} was answered {answer!r}, without {word!r}"
        if "".join(pieces[question]).strip() != answer.strip():
            yield f"the pieces of the answer to {question!r} are {pieces[question]!r}, but it is {answer!r}"

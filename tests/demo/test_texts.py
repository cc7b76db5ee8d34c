from __future__ import annotations

import numpy as np
import pytest

from orbtrio.demo.texts import ANSWERS, DIMENSIONS, TEXTS, find_wrong_vectors


@pytest.fixture
def vectors() -> list[list[float]]:
    """A direction of its own for each text, and for each answer that of its question."""
    axes = np.eye(DIMENSIONS)
    places = {text: place for place, text in enumerate(dict.fromkeys(TEXTS))}
    questions = {answer: question for question, answer in ANSWERS.items()}
    by_words = {text.words: place for text, place in places.items()}
    return [list(axes[by_words[questions.get(text.words, text.words)]]) for text in TEXTS]


def test_there_are_200_texts_and_some_come_twice() -> None:
    assert len(TEXTS) == 200
    assert len(set(TEXTS)) < 200


def test_right_vectors_are_found_right(vectors: list[list[float]]) -> None:
    assert list(find_wrong_vectors(vectors)) == []


def test_a_vector_of_another_shape_is_wrong(vectors: list[list[float]]) -> None:
    vectors[3] = vectors[3][:-1]
    assert list(find_wrong_vectors(vectors)) == [
        f"{TEXTS[3].words!r} has an embedding of shape (383,), not (384,)"
    ]


def test_a_vector_of_another_length_is_wrong(vectors: list[list[float]]) -> None:
    vectors[150] = [2 * number for number in vectors[150]]
    assert list(find_wrong_vectors(vectors)) == [
        f"the embedding of {TEXTS[150].words!r} has length 2.0000, not 1"
    ]


def test_one_text_with_two_vectors_is_wrong(vectors: list[list[float]]) -> None:
    vectors[-1] = vectors[-2]
    assert list(find_wrong_vectors(vectors)) == [f"{TEXTS[-1].words!r} was sent twice and has two embeddings"]


def test_a_question_beside_the_wrong_passage_is_wrong(vectors: list[list[float]]) -> None:
    (question, answer), (_, other) = list(ANSWERS.items())[-2:]
    asked = next(place for place, text in enumerate(TEXTS) if text.words == question)
    vectors[asked] = vectors[asked + 1]
    assert list(find_wrong_vectors(vectors)) == [f"nearest to {question!r} is {other!r}, not {answer!r}"]

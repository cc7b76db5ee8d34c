"""Prompts and names. What the real model thinks alike is tested in tests/models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from workers.builtin.labels import Labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = ("cat", "dog", "person", "bus", "couch", "wine glass")

# Directions in a space where the first is common to all, as in the real one.
MEANINGS = {
    "cat": (9, 1, 0, 0, 0, 0, 0),
    "kitten": (9, 0.9, 0, 0, 0, 0, 0),
    "dog": (9, 0, 1, 0, 0, 0, 0),
    "pet": (9, 0.7, 0.7, 0, 0, 0, 0),
    "person": (9, 0, 0, 1, 0, 0, 0),
    "bus": (9, 0, 0, 0, 1, 0, 0),
    "couch": (9, 0, 0, 0, 0, 1, 0),
    "wine glass": (9, 0, 0, 0, 0, 0, 1),
    "dragon": (9, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2),
}


class Encoder:
    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        self.calls.append(texts)
        vectors = np.array([MEANINGS[text.removeprefix("a photo of a ")] for text in texts], np.float32)
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


@pytest.mark.parametrize("encode", [None, Encoder()])
def test_without_prompts_every_name_is_meant(encode: Encoder | None) -> None:
    assert Labels(NAMES, encode).meant(None) == set(NAMES)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("cat", "cat"),
        ("Cat", "cat"),
        (" CATS ", "cat"),
        ("people", "person"),
        ("buses", "bus"),
        ("couches", "couch"),
        ("Wine  Glass", "wine glass"),
        ("wine glasses", "wine glass"),
    ],
)
def test_name_means_itself_without_asking_a_model(prompt: str, name: str) -> None:
    encode = Encoder()
    assert Labels(NAMES, encode).meant([prompt]) == {name}
    assert encode.calls == []


def test_other_words_mean_what_is_alike() -> None:
    labels = Labels(NAMES, Encoder())
    assert labels.meant(["kitten"]) == {"cat"}
    assert labels.meant(["pet"]) == {"cat", "dog"}
    assert labels.meant(["dragon"]) == set()
    assert labels.meant(["kitten", "bus", "dragon"]) == {"cat", "bus"}


def test_without_a_model_other_words_mean_nothing() -> None:
    assert Labels(NAMES, None).meant(["kitten", "bus"]) == {"bus"}


def test_empty_prompt_means_nothing() -> None:
    assert Labels(NAMES, Encoder()).meant([" "]) == set()


def test_model_is_asked_once_about_a_prompt() -> None:
    encode = Encoder()
    labels = Labels(NAMES, encode)
    for _ in range(3):
        labels.meant(["kitten", "dragon"])
    assert len(encode.calls) == 3, "the names, and each prompt"


def test_prompts_do_not_pile_up() -> None:
    labels = Labels(NAMES, lambda texts: np.ones((len(texts), 2), np.float32))
    for number in range(2500):
        labels.meant([f"prompt {number}"])
    assert len(labels._remembered) <= 1000

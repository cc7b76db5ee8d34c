"""Answers as the workers give them, all right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from orbtrio.demo import photographs, talk
from orbtrio.demo.clip import Clip, compute_energies
from orbtrio.demo.photographs import PHOTOGRAPHS, STROLL
from orbtrio.demo.texts import ANSWERS, DIMENSIONS, TEXTS
from workers._rle import encode

if TYPE_CHECKING:
    from orbtrio.demo.jobs import Tag

BOX = (60.0, 40.0, 260.0, 240.0)


def mask_of(height: int, width: int) -> dict[str, Any]:
    """Three quarters of `BOX`."""
    mask = np.zeros((height, width), bool)
    mask[40:240, 60:210] = True
    return encode(mask)


def detection(label: str | None) -> dict[str, Any]:
    """Of one object, or of none."""
    box = dict(zip(("x_min", "y_min", "x_max", "y_max"), BOX, strict=True))
    return {"detections": [{"label": label, "score": 0.9, "box": box}] if label else []}


def segmentation(name: str) -> dict[str, Any]:
    """Of one object, or of none."""
    height, width = photographs.load(name).shape[:2]
    label = PHOTOGRAPHS[name].label
    found = [label] if label else []
    return {
        "masks": [mask_of(height, width) for _ in found],
        "labels": found,
        "boxes": [list(BOX) for _ in found],
    }


def track(place: int) -> dict[str, Any]:
    """The first half of the stroll sees one photograph's object, the second half the other's."""
    frames = photographs.stroll()
    object_id = int(place >= len(frames) // 2)
    return {
        "cross_job_id": "stroll",
        "frame_count": place + 1,
        "objects": [object_id],
        "scores": [0.9],
        "labels": [PHOTOGRAPHS[STROLL[object_id]].label],
        "boxes": [list(BOX)],
        "masks": [mask_of(*frames[place].shape[:2])],
    }


def unit(place: int) -> list[float]:
    """A vector of length 1, another one for each place."""
    vector = np.zeros(DIMENSIONS)
    vector[place % DIMENSIONS] = 1
    return vector.tolist()


def right_answers(clip: Clip) -> dict[Tag, dict[str, Any]]:
    """All of them."""
    answers: dict[Tag, dict[str, Any]] = {
        (media_id, place): {"motion_energy": energy}
        for media_id, frames in clip.parts.items()
        for place, energy in enumerate(compute_energies(frames))
    }
    # A question has the vector of its answer, and everything else one of its own.
    places: dict[str, int] = {}
    for text in TEXTS:
        places.setdefault(ANSWERS.get(text.words, text.words), len(places))
    for place, text in enumerate(TEXTS):
        vector = unit(places[ANSWERS.get(text.words, text.words)])
        answers["text", place] = {"embedding": vector, "shape": [DIMENSIONS]}
    for place, name in enumerate(PHOTOGRAPHS):
        answers["query", name] = answers["embedding", name] = {"embedding": unit(place)}
        answers["object_detection", name] = detection(PHOTOGRAPHS[name].label)
        answers["segmentation", name] = segmentation(name)
    for place in range(len(photographs.stroll())):
        answers["stroll", place] = track(place)
    for question, word in talk.QUESTIONS.items():
        answers["talk", question] = {"response": f"It is {word}.", "pieces": ["It", " is", f" {word}."]}
    return answers

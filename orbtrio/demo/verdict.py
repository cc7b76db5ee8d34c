"""What the demo makes of the answers: is every one right, and a picture of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from orbtrio.demo import panels, photographs, talk
from orbtrio.demo.clip import find_wrong_energies
from orbtrio.demo.photographs import PHOTOGRAPHS
from orbtrio.demo.picture import draw_picture
from orbtrio.demo.texts import TEXTS, find_wrong_vectors
from orbtrio.drawing import decode_mask

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orbtrio.demo.clip import Clip
    from orbtrio.demo.jobs import Tag
    from orbtrio.demo.photographs import Mask
    from orbtrio.demo.picture import Panel

    Answers = Mapping[Tag, dict[str, Any]]

__all__ = ["draw", "find_mistakes"]

_FRAMES_SHOWN: Final = 5


def find_mistakes(clip: Clip, answers: Answers) -> list[str]:
    """Say what was answered wrongly; empty if all is well."""
    segments = _of(answers, "segmentation")
    return [
        *find_wrong_energies(clip, _energies(clip, answers)),
        *find_wrong_vectors([answers["text", place]["embedding"] for place in range(len(TEXTS))]),
        *photographs.find_wrong_search(_vectors(answers, "embedding"), _vectors(answers, "query")),
        *photographs.find_wrong_detections(_of(answers, "object_detection")),
        *photographs.find_wrong_segments(segments, {name: _masks(one) for name, one in segments.items()}),
        *photographs.find_wrong_tracks(_stroll(answers)),
        *talk.find_wrong_answers(
            {question: answers["talk", question] for question in talk.QUESTIONS},
            {question: answers["talk", question]["pieces"] for question in talk.QUESTIONS},
        ),
    ]


def draw(path: Path, title: str, clip: Clip, answers: Answers) -> None:
    """Write a picture of all that was asked and answered."""
    shown = {name: photographs.load(name) for name in PHOTOGRAPHS}
    vectors, queries = _vectors(answers, "embedding"), _vectors(answers, "query")
    found = []
    for name, query in queries.items():
        cosines = {other: float(np.dot(vector, query)) for other, vector in vectors.items()}
        best = max(cosines, key=lambda other: cosines[other])
        found.append((PHOTOGRAPHS[name].query, cosines[best], shown[best]))
    talks = {question: answers["talk", question]["response"] for question in talk.QUESTIONS}
    detected = [(shown[name], output) for name, output in _of(answers, "object_detection").items()]
    outlined = [(shown[name], output) for name, output in _of(answers, "segmentation").items()]
    frames = list(zip(photographs.stroll(), _stroll(answers), strict=True))
    some = [frames[place] for place in np.linspace(0, len(frames) - 1, _FRAMES_SHOWN).astype(int)]
    rows: list[Panel] = [
        ("object_detection", lambda panel: panels.draw_results(panel, detected)),
        ("segmentation", lambda panel: panels.draw_results(panel, outlined)),
        (
            "video_segmentation: the same number is the same object",
            lambda panel: panels.draw_results(panel, some, letters=2.5),
        ),
        (
            "embedding: the photograph nearest to a text, and how near",
            lambda panel: panels.draw_search(panel, found),
        ),
        ("llm", lambda panel: panels.draw_talk(panel, talks)),
    ]
    draw_picture(path, title, clip, _energies(clip, answers), rows)


def _energies(clip: Clip, answers: Answers) -> dict[str, list[float]]:
    return {
        media_id: [answers[media_id, place]["motion_energy"] for place in range(len(frames))]
        for media_id, frames in clip.parts.items()
    }


def _of(answers: Answers, kind: str) -> dict[str, dict[str, Any]]:
    return {name: answers[kind, name] for name in PHOTOGRAPHS}


def _vectors(answers: Answers, kind: str) -> dict[str, list[float]]:
    return {name: output["embedding"] for name, output in _of(answers, kind).items()}


def _stroll(answers: Answers) -> list[dict[str, Any]]:
    return [answers["stroll", place] for place in range(len(photographs.stroll()))]


def _masks(output: Mapping[str, Any]) -> list[Mask]:
    return [np.asarray(decode_mask(mask)) > 0 for mask in output["masks"]]

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import matplotlib.image
import numpy as np
import pytest

from orbtrio.demo import verdict
from orbtrio.demo.clip import Clip
from tests.demo.answers import BOX, detection, right_answers, track, unit
from workers._rle import encode

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.demo.jobs import Tag

FRAME = cv2.imencode(".jpg", np.full((24, 32, 3), 128, np.uint8))[1].tobytes()
CLIP = Clip(parts={f"camera-{number}": [FRAME] * 2 for number in range(4)}, interval=0.04)
QUESTION = "What is the capital of France? Answer in one word."


def test_right_answers_have_no_mistakes_and_a_picture(tmp_path: Path) -> None:
    answers = right_answers(CLIP)
    assert verdict.find_mistakes(CLIP, answers) == []
    verdict.draw(tmp_path / "out.png", "title", CLIP, answers)
    assert matplotlib.image.imread(tmp_path / "out.png").shape[:2] == (1350, 1980)


@pytest.mark.parametrize(
    ("tag", "wrong", "mistake"),
    [
        (("camera-1", 1), {"motion_energy": 0.5}, "camera-1, frame 1: motion energy is 0.5, not 0.0"),
        (("text", 0), {"embedding": [1.0]}, "has an embedding of shape (1,)"),
        (("query", "chelsea"), {"embedding": unit(2)}, "'a house cat' finds the photograph 'coffee'"),
        (("object_detection", "chelsea"), detection("dog"), "chelsea: no cat was detected, but {'dog': 0.9}"),
        (
            ("segmentation", "coffee"),
            {"masks": [], "labels": ["fork"], "boxes": [list(BOX)]},
            "coffee: no cup was segmented, but ['fork']",
        ),
        (
            ("segmentation", "coffee"),
            {
                "masks": [encode(np.zeros((400, 600), bool))],
                "labels": ["cup"],
                "boxes": [list(BOX)],
            },
            "coffee: the mask of the cup covers 0% of its box",
        ),
        (("stroll", 3), {**track(3), "objects": [7]}, "the person has the ids [0, 7], not one"),
        (("stroll", 3), {**track(3), "frame_count": 3}, "frame 3 was counted as 3"),
        (("talk", QUESTION), {"response": "Rome", "pieces": ["Rome"]}, "'Rome', without 'Paris'"),
        (
            ("talk", QUESTION),
            {"response": "Paris.", "pieces": ["Par"]},
            "the pieces of the answer to 'What is the capital",
        ),
    ],
)
def test_a_wrong_answer_is_a_mistake(tag: Tag, wrong: dict[str, Any], mistake: str) -> None:
    mistakes = verdict.find_mistakes(CLIP, {**right_answers(CLIP), tag: wrong})
    assert mistake in "; ".join(mistakes)

from __future__ import annotations

import cv2
import numpy as np

from orbtrio.demo.clip import Clip
from orbtrio.demo.jobs import QUESTIONS, make_streams
from tests.demo.answers import right_answers


def test_every_answer_that_is_judged_was_asked_for() -> None:
    frame = cv2.imencode(".jpg", np.zeros((24, 32, 3), np.uint8))[1].tobytes()
    clip = Clip(parts={"camera-1": [frame] * 3, "camera-2": [frame]}, interval=0.04)
    asked = [job.tag for stream in make_streams(clip) for job in stream]
    asked += [("talk", question) for question in QUESTIONS]
    assert len(asked) == len(set(asked))
    assert set(asked) == set(right_answers(clip))


def test_a_camera_keeps_the_order_of_its_frames() -> None:
    frame = cv2.imencode(".jpg", np.zeros((24, 32, 3), np.uint8))[1].tobytes()
    clip = Clip(parts={"camera-1": [frame] * 2, "camera-2": [frame]}, interval=0.04)
    frames = make_streams(clip)[0]
    assert [job.tag for job in frames] == [("camera-1", 0), ("camera-2", 0), ("camera-1", 1)]

"""Things followed over a pan of photographs, in this process and as a worker at a real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import orbtrio
from tests.models.answers import answers_of
from tests.models.photographs import photograph, photograph_path
from tests.models.serving import serving
from tests.workers.outlines import decode
from workers._detections import overlap
from workers.builtin import tracking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.models.serving import Served

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

STEP = 55


def scene() -> Image.Image:
    """A woman, and beside her a motorcycle."""
    scene = Image.new("RGB", (1241, 500))
    scene.paste(photograph("astronaut").resize((500, 500)), (0, 0))
    scene.paste(photograph("motorcycle_left"), (500, 0))
    return scene


def frame(number: int) -> Image.Image:
    """The camera goes to the right: the woman leaves, the motorcycle comes."""
    return scene().crop((STEP * number, 0, STEP * number + 741, 500))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving("video_segmentation", tmp_path_factory.mktemp("video_segmentation")) as served:
        yield served


def test_numbers_stay_over_a_pan() -> None:
    session = tracking.load().start(None)
    history = [{one.label: one for one in session.advance(frame(number))} for number in range(7)]
    woman, motorcycle = history[0]["person"], history[0]["motorcycle"]
    assert {woman.object_id, motorcycle.object_id} == {1, 2}
    for number, seen in enumerate(history):
        assert len(seen) == 1 + (number < 5), "the woman is gone from the sixth frame on"
        assert seen["motorcycle"].object_id == motorcycle.object_id
        if number < 4:
            assert seen["person"].object_id == woman.object_id
        # Where the camera's step takes them, as far as they are in the picture.
        expected = (605.0 - STEP * number, 65.0, min(1180.0 - STEP * number, 741.0), 445.0)
        assert overlap(seen["motorcycle"].box, expected) > 0.6
        left, top, right, bottom = (round(edge) for edge in seen["motorcycle"].box)
        share = seen["motorcycle"].mask[top:bottom, left:right].mean()
        assert 0.3 < share < 0.9
        assert seen["motorcycle"].mask.shape == (500, 741)


async def test_videos_through_an_engine_are_apart_and_in_order(served: Served, tmp_path: Path) -> None:
    def job(video: str, number: int, **fields: Any) -> dict[str, Any]:
        path = tmp_path / f"{number}.png"
        frame(number).save(path)
        return {"cross_job_id": video, "current_frame": orbtrio.Image(path), **fields}

    outputs = await answers_of(
        served,
        "video_segmentation",
        job("pan", 0),
        job("back", 8, prompts=["motorbike"]),
        job("pan", 1),
        {"cross_job_id": "pan", "current_frame": orbtrio.Image(b"GIF89a no picture")},
        job("back", 7),
        job("pan", 2),
        {"cross_job_id": "pan", "current_frame": "/no/such.png"},
        job("pan", 3, reset_session=True),
        {"current_frame": orbtrio.Image(photograph_path("chelsea"))},
    )
    assert [output.get("cross_job_id") for output in outputs[:-1]] == [
        "pan",
        "back",
        "pan",
        "pan",
        "back",
        "pan",
        "pan",
        "pan",
    ]
    assert [output.get("frame_count") for output in outputs] == [1, 1, 2, None, 2, 4, None, 1, None]
    first, motorbike, second, bad, second_motorbike, fourth, missing, reset, nameless = outputs
    assert first.keys() == {"cross_job_id", "frame_count", "objects", "scores", "labels", "boxes", "masks"}
    for output in (first, second, fourth):
        assert dict(zip(output["labels"], output["objects"], strict=True)) == dict(
            zip(first["labels"], first["objects"], strict=True)
        )
        assert sorted(output["labels"]) == ["motorcycle", "person"]
        assert np.shape(output["boxes"]) == (2, 4)
        assert all(0.35 <= score <= 1 for score in output["scores"])
        assert all(decode(mask).shape == (500, 741) for mask in output["masks"])
    assert motorbike["labels"] == second_motorbike["labels"] == ["motorcycle"]
    assert motorbike["objects"] == second_motorbike["objects"] == [1]
    assert set(reset["objects"]) <= {1, 2}
    assert bad.keys() == missing.keys() == {"cross_job_id", "error"}
    assert bad["error"].startswith("current_frame: not a picture that can be read")
    assert missing["error"] == "current_frame: there is no such file"
    assert nameless == {"cross_job_id": "", "error": "cross_job_id: expected text"}


async def test_memory_is_bounded(served: Served) -> None:
    assert served.peak_megabytes() < 750

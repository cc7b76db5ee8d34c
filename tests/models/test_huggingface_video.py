"""SAM 3 on video with a tiny checkpoint, here and at a real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from orbtrio.errors import ConfigError
from orbtrio.worker import WorkerSettings
from tests.models import checkpoints
from tests.models.answers import answers_of
from tests.models.photographs import photograph
from tests.models.serving import serving
from tests.workers.outlines import decode
from workers import video_segmentation
from workers.huggingface import _sam3, video

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(300),
    # pycocotools 2.0.11, of its own decoder.
]

SCENE = photograph("chelsea")


def frame(number: int) -> Image.Image:
    """A view that pans to the right."""
    return SCENE.crop((2 * number, 0, 300 + 2 * number, 300))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.sam3_video(tmp_path_factory.mktemp("models") / "sam3_video")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> video.VideoModel:
    return video.load(str(checkpoint))


def test_forgetting_changes_nothing(model: video.VideoModel) -> None:
    """Beside a session of transformers that keeps everything: same objects, same outlines, frame by frame."""
    session = model.start(["cat"])
    keeping: Any = model.start(["cat"])._session
    keeping.processed_frames = None
    followed = set()
    for number in range(24):
        segments = session.advance(frame(number))
        output = model._model(inference_session=keeping, frame=_sam3.pixels([frame(number)], 56))
        expected = {
            int(object_id): _sam3.outline(logits[0], (300, 300))
            for object_id, logits in output.obj_id_to_mask.items()
            if object_id not in output.suppressed_obj_ids
        }
        assert session._session.obj_ids == keeping.obj_ids
        # What overlaps belongs to one of them, so only all of them together are the same.
        union, same = (
            torch.tensor(sum(masks)) > 0
            for masks in ([segment.mask for segment in segments], expected.values())
        )
        assert torch.equal(union, same)
        followed |= {segment.object_id for segment in segments}
    assert followed == {0, 1, 2}, "the same ones from the first frame to the last"
    assert len(keeping.processed_frames) == 24
    assert list(session._session.processed_frames) == [23]


def test_streams_do_not_mix(model: video.VideoModel) -> None:
    one, other = model.start(["cat"]), model.start(["person", "bus"])
    assert {segment.label for segment in one.advance(frame(0))} == {"cat"}
    assert {segment.label for segment in other.advance(frame(0))} == {"person", "bus"}
    assert {segment.label for segment in one.advance(frame(1))} == {"cat"}


def test_frames_may_change_in_size(model: video.VideoModel) -> None:
    session = model.start(None)
    session.advance(frame(0))
    (segment, *_) = session.advance(frame(1).resize((120, 80)))
    assert segment.mask.shape == (80, 120)


@pytest.mark.parametrize("family", ["sam3", "siglip"])
def test_models_of_another_kind_are_told_so(family: str, tmp_path: Path) -> None:
    settings = WorkerSettings(
        worker_type="video_segmentation",
        worker_secret="hush",
        model_id=str(getattr(checkpoints, family)(tmp_path)),
    )
    with pytest.raises(ConfigError, match=r"is not sam3_video.*facebook/sam3"):
        video_segmentation.load(settings)


async def test_a_worker_with_such_a_model_follows_a_stream_at_an_engine(
    checkpoint: Path, tmp_path: Path
) -> None:
    jobs: list[dict[str, Any]] = []
    for number in range(4):
        frame(number).save(tmp_path / f"{number}.png")
        path = str(tmp_path / f"{number}.png")
        jobs.append({"cross_job_id": "camera", "current_frame": path, "prompts": ["cat"]})
    with serving("video_segmentation", tmp_path, MODEL_ID=str(checkpoint)) as served:
        # One after the other: a stream has an order.
        outputs = [(await answers_of(served, "video_segmentation", job))[0] for job in jobs]
        bad = {"cross_job_id": "camera", "current_frame": "/no/such"}
        (error,) = await answers_of(served, "video_segmentation", bad)
    fields = {"cross_job_id", "frame_count", "objects", "scores", "labels", "boxes", "masks"}
    for number, output in enumerate(outputs, start=1):
        assert output.keys() == fields
        assert output["cross_job_id"] == "camera"
        assert output["frame_count"] == number
        assert set(output["labels"]) == {"cat"}
        assert all(mask["size"] == [300, 300] and decode(mask).any() for mask in output["masks"])
    assert error["cross_job_id"] == "camera"
    assert "no such file" in error["error"]
    assert set(outputs[0]["objects"]) >= set(outputs[-1]["objects"])

"""Outlines with tiny checkpoints of SAM 3 and CLIPSeg, here and at a real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from PIL import Image

from orbtrio.errors import ConfigError
from orbtrio.worker import Job, WorkerSettings
from tests.models import checkpoints
from tests.models.answers import answers_of
from tests.models.photographs import photograph, photograph_path
from tests.models.serving import serving
from tests.workers.outlines import decode
from workers import segmentation

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(300),
    # pycocotools 2.0.11, of its own decoder.
]

JOBS: list[dict[str, Any]] = [
    {"filepath": str(photograph_path("chelsea")), "prompts": ["cat", "person"]},
    {"filepath": str(photograph_path("coffee")), "prompts": ["cup"]},
    {"filepath": str(photograph_path("rocket"))},
]


def load(checkpoint: Path) -> segmentation.Segmentation:
    return segmentation.load(
        WorkerSettings(worker_type="segmentation", worker_secret="hush", model_id=str(checkpoint))
    )


def check(output: dict[str, Any] | Exception, job: dict[str, Any]) -> None:
    """Hold an answer against the spec."""
    assert isinstance(output, dict)
    assert output.keys() == {"masks", "labels", "boxes"}
    with Image.open(job["filepath"]) as picture:
        width, height = picture.size
    assert output["masks"]
    assert set(output["labels"]) <= set(job.get("prompts", ["person", "animal", "vehicle"]))
    for mask, (x_min, y_min, x_max, y_max) in zip(output["masks"], output["boxes"], strict=True):
        assert mask["size"] == [height, width]
        assert decode(mask).any()
        assert 0 <= x_min <= x_max <= width
        assert 0 <= y_min <= y_max <= height


@pytest.mark.parametrize("family", ["sam3", "sam3_video", "clipseg"])
def test_pictures_of_a_batch_get_the_outlines_of_each_alone(family: str, tmp_path: Path) -> None:
    worker = load(getattr(checkpoints, family)(tmp_path))
    together = worker([Job(worker.prepare(job)) for job in JOBS])
    for output, job in zip(together, JOBS, strict=True):
        check(output, job)
        (alone,) = worker([Job(worker.prepare(job))])
        assert isinstance(output, dict)
        assert isinstance(alone, dict)
        assert alone["labels"] == output["labels"]
        for mask, same in zip(alone["masks"], output["masks"], strict=True):
            assert (decode(mask) != decode(same)).mean() < 0.001


def test_the_published_checkpoint_lends_its_detector(tmp_path: Path) -> None:
    """It is one for videos; a name that did not fit would leave random weights, without an error."""
    checkpoint = checkpoints.sam3_video(tmp_path)
    whole = transformers.Sam3VideoModel.from_pretrained(checkpoint).detector_model.state_dict()
    model: Any = load(checkpoint)._model
    own = model._model.state_dict()
    assert own.keys() == whole.keys()
    assert all(torch.equal(own[name], whole[name]) for name in own)


def test_large_pictures_do_not_matter_to_the_model(tmp_path: Path) -> None:
    model: Any = load(checkpoints.sam3(tmp_path))._model
    small = photograph("chelsea")
    large = small.resize((small.width * 2, small.height * 2), Image.Resampling.NEAREST)
    one, two = model.segment([small, large], [["cat"], ["cat"]])
    assert len(one) == len(two)
    for found, twice in zip(one, two, strict=True):
        assert twice.box == pytest.approx([2 * edge for edge in found.box], abs=2)
        assert twice.mask.shape == (600, 902)


@pytest.mark.parametrize("family", ["siglip", "d_fine"])
def test_models_of_another_kind_are_told_so(family: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither SAM 3 nor CLIPSeg.*facebook/sam3.*clipseg"):
        load(getattr(checkpoints, family)(tmp_path))


async def test_a_worker_with_such_a_model_answers_at_an_engine(tmp_path: Path) -> None:
    checkpoint = checkpoints.sam3(tmp_path / "model")
    with serving("segmentation", tmp_path, MODEL_ID=str(checkpoint)) as served:
        many = {**JOBS[0], "prompts": [str(number) for number in range(17)]}
        *outputs, bad = await answers_of(served, "segmentation", *JOBS, many)
    for output, job in zip(outputs, JOBS, strict=True):
        check(output, job)
    assert bad == {"error": "prompts: 17 are too many, at most 16"}

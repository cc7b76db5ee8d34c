"""Video segmentation: follows things through the frames of a video, with their outlines.

    {cross_job_id: "cam-1", current_frame: "frame.jpg"}
        ->  {cross_job_id: "cam-1", frame_count: 7, objects: [1, 4], scores: [0.98, 0.61],
             labels: ["person", "dog"], boxes: [[8.1, 0.0, 408.4, 296.0], ...],
             masks: [{size: [480, 640], counts: "Q^T1..."}, ...]}

The jobs of one cross_job_id are the frames of one video, in order. A thing keeps its number in `objects` for
as long as it is followed. `frame_count` counts the video's jobs, from 1 on, those that failed included. An
error names the video too: {cross_job_id: "cam-1", error: "current_frame: there is no such file"}.

`reset_session: true` begins the video anew with this frame, and so do prompts that differ from its last ones
(a job without `prompts` keeps them). A hundred videos are remembered; the one unused longest is forgotten.

Without MODEL_ID, small models as in `segmentation`, and constant speed: 90 ms of CPU a frame and 600 ms an
outline, three outlines a frame, 600 MB. With it, Hugging Face's SAM3 video, such as facebook/sam3.

Spec: "Video Segmentation Worker (SAM3)".
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from orbtrio.worker import run_program

from ._pictures import Scaled, read_scaled
from ._sessions import Sessions
from .segmentation import answer, read_prompts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from orbtrio.worker import WorkerSettings

    from ._detections import TrackedSegment

logger = logging.getLogger("orbtrio.worker")


class Tracking(Protocol):
    """The model's memory of one video."""

    def advance(self, picture: Image.Image) -> Sequence[TrackedSegment]:
        """The things in the next frame, in its pixels."""


class Model(Protocol):
    """What follows things."""

    def start(self, prompts: list[str] | None) -> Tracking:
        """A new video, in which the things are followed that `prompts` ask for, or all."""


@attrs.define
class _Video:
    frames: int = 0
    prompts: list[str] | None = None
    tracking: Tracking | None = None


@attrs.frozen
class Frame:
    """What a job asks for; the problem in place of what cannot be read.

    Attributes:
        cross_job_id: Its video; None if it names none.
        reset: The video begins anew.
        prompts: What to follow; None if the job does not say.
        picture: The frame; None if there is a problem.
        problem: What is wrong.
    """

    cross_job_id: str | None
    reset: bool = False
    prompts: list[str] | None = None
    picture: Scaled | None = None
    problem: str = ""


class VideoSegmentation:
    """The videos, each with what the model remembers of it. Called with one frame at a time, in order."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._videos = Sessions(_Video)

    def prepare(self, job_input: dict[str, Any]) -> Frame:
        """Read a job's frame. What is wrong with it is kept for the result: an error names its video."""
        cross_job_id = job_input.get("cross_job_id")
        if not isinstance(cross_job_id, str):
            return Frame(None, problem="cross_job_id: expected text")
        reset = job_input.get("reset_session")
        try:
            if not isinstance(reset, bool | None):
                raise ValueError("reset_session: expected true or false")
            return Frame(
                cross_job_id,
                reset=bool(reset),
                prompts=read_prompts(job_input),
                picture=read_scaled(job_input.get("current_frame"), field="current_frame"),
            )
        except ValueError as error:
            return Frame(cross_job_id, reset=reset is True, problem=str(error))

    def __call__(self, frame: Frame) -> dict[str, Any]:
        """The things in a frame, or ``cross_job_id`` and ``error``."""
        if frame.cross_job_id is None:
            # The shape of an error has a text there.
            return {"cross_job_id": "", "error": frame.problem}
        if frame.reset:
            self._videos.forget(frame.cross_job_id)
        video = self._videos.get(frame.cross_job_id)
        if frame.prompts is not None and frame.prompts != video.prompts:
            video.frames, video.prompts, video.tracking = 0, frame.prompts, None
        video.frames += 1
        if frame.picture is None:
            return {"cross_job_id": frame.cross_job_id, "error": frame.problem}
        try:
            if video.tracking is None:
                video.tracking = self._model.start(video.prompts)
            segments = video.tracking.advance(frame.picture.image)
        except (
            Exception
        ) as error:  # A model's: whatever it raises is this frame's error, which names its video.
            logger.exception("frame %d of %r failed", video.frames, frame.cross_job_id)
            text = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
            return {"cross_job_id": frame.cross_job_id, "error": text}
        return {
            "cross_job_id": frame.cross_job_id,
            "frame_count": video.frames,
            "objects": [segment.object_id for segment in segments],
            "scores": [segment.score for segment in segments],
            **answer(frame.picture, segments),
        }


def load(settings: WorkerSettings) -> VideoSegmentation:
    """Load the model that ``MODEL_ID`` names, or the builtin one.

    Raises:
        ConfigError: it cannot be loaded; the text says what to install or to change.
    """
    if settings.model_id is None:
        from .builtin import tracking

        return VideoSegmentation(tracking.load())
    from .huggingface import video

    return VideoSegmentation(video.load(settings.model_id))


if __name__ == "__main__":
    run_program(load, worker_type="video_segmentation", description=__doc__)

"""What the demo asks: jobs in streams, each of which is sent in its order, beside the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from orbtrio.client import Job
from orbtrio.demo import photographs
from orbtrio.demo.photographs import PHOTOGRAPHS
from orbtrio.demo.talk import QUESTIONS, ask
from orbtrio.demo.texts import TEXTS
from orbtrio.inputs import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orbtrio.demo.clip import Clip

__all__ = ["QUESTIONS", "Tag", "ask", "make_streams"]

# What an answer is of: a kind, or a media id, and its place or name among those.
Tag: TypeAlias = tuple[str, int | str]


def make_streams(clip: Clip) -> list[list[Job]]:
    """All jobs, but for `QUESTIONS`."""
    pictures = {name: Image(photographs.encode(photographs.load(name))) for name in PHOTOGRAPHS}
    streams = (
        _frames(clip),
        _texts(),
        _pictures("embedding", pictures),
        _pictures("object_detection", pictures),
        _pictures("segmentation", pictures),
        _stroll(),
    )
    return list(map(list, streams))


def _frames(clip: Clip) -> Iterator[Job]:
    # By turns, as from cameras that run side by side; each media id's own frames stay in their order.
    for place in range(max(map(len, clip.parts.values()))):
        for media_id, frames in clip.parts.items():
            if place < len(frames):
                picture = Image(frames[place])
                job_input = {"media_id": media_id, "current_frame": picture}
                yield Job("motion_energy", job_input, tag=(media_id, place))


def _texts() -> Iterator[Job]:
    for place, text in enumerate(TEXTS):
        job_input = {"text": text.words, "prompt_name": text.prompt_name}
        yield Job("embedding", job_input, tag=("text", place))
    for name, photograph in PHOTOGRAPHS.items():
        job_input = {"text": photograph.query, "prompt_name": "query"}
        yield Job("embedding", job_input, tag=("query", name))


def _pictures(worker_type: str, pictures: Mapping[str, Image]) -> Iterator[Job]:
    for name, picture in pictures.items():
        yield Job(worker_type, {"filepath": picture}, tag=(worker_type, name))


def _stroll() -> Iterator[Job]:
    for place, pixels in enumerate(photographs.stroll()):
        picture = Image(photographs.encode(pixels))
        job_input = {"cross_job_id": "stroll", "current_frame": picture}
        yield Job("video_segmentation", job_input, tag=("stroll", place))

"""Follows things through the frames of a video: each keeps its number and, between looks, its outline.

Every frame goes through `ssd`. A thing is expected where its motion would take it, each edge of its box at
its own constant speed, so a thing that comes closer is expected larger. What is found is given to the thing
of the same name whose expected box overlaps it most, the best pair first. What is left over is new, if the
model is sure of it; once known, a thing is recognised at a lower score (`FAINT`), lest it come and go.
A thing that is not seen is expected for some frames more, with its speed, then forgotten. No appearance is
compared: two people who pass through each other may swap numbers.

Boxes are in shares of the frame's sides, whose overlap is that of the pixels, so frames may change in size.

An outline costs seven times as much as all boxes. So a frame has `OUTLINES_A_FRAME` new ones, of things that
have none and then of those whose is oldest; the others' stretch with their boxes. With up to three things in
view every outline is of its frame.

A session keeps two dozen things at most, seen and unseen, of 100 kB each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from .._detections import TrackedSegment, area, clipped, overlap
from . import ssd, u2net

if TYPE_CHECKING:
    from PIL import Image

    from .._detections import Box, Detection

# The score at which a known thing is still recognised; `ssd.LIKELY` makes a new one.
FAINT: Final = 0.35

# How many frames a thing may be unseen: a second and a half of the two to four frames a second that a camera
# of this protocol sends.
PATIENCE: Final = 5

OUTLINES_A_FRAME: Final = 3

# Overlap with the expected box below which two boxes are of two things. A first, unforeseen step may be as
# far as two thirds of the thing's width.
_LEAST_OVERLAP: Final = 0.2

_UNMOVING: Final = (0.0, 0.0, 0.0, 0.0)


@attrs.define(eq=False)
class _Track:
    object_id: int
    label: str
    score: float
    box: Box  # where it was last seen
    speed: Box = _UNMOVING  # of each edge, per frame
    unseen: int = 0  # frames since
    outline: u2net.Outline | None = None
    outline_age: int = 0  # frames since it was looked at

    def expected(self) -> Box:
        frames = self.unseen + 1
        x_min, y_min, x_max, y_max = (
            edge + frames * speed for edge, speed in zip(self.box, self.speed, strict=True)
        )
        return x_min, y_min, x_max, y_max

    def see(self, label_score: float, box: Box) -> None:
        # Half of the new speed, half of the old: boxes jitter.
        frames = self.unseen + 1
        left, top, right, bottom = ((new - old) / frames for new, old in zip(box, self.box, strict=True))
        if self.speed != _UNMOVING:
            left, top, right, bottom = (
                (new + old) / 2 for new, old in zip((left, top, right, bottom), self.speed, strict=True)
            )
        self.speed = (left, top, right, bottom)
        self.score, self.box, self.unseen = label_score, box, 0


class Session:
    """The things of one video."""

    def __init__(self, segmenter: u2net.Segmenter, meant: set[str]) -> None:
        self._segmenter = segmenter
        self._meant = meant
        self._tracks: list[_Track] = []
        self._last_id = 0

    def advance(self, picture: Image.Image) -> list[TrackedSegment]:
        """The things in the next frame, by their numbers, which begin with 1."""
        width, height = picture.size
        (detections,) = self._segmenter.detector.detect([picture], least=FAINT)
        seen = self._associate(
            [
                attrs.evolve(one, box=_scaled(one.box, 1 / width, 1 / height))
                for one in detections
                if one.label in self._meant
            ]
        )
        boxes = {track.object_id: _scaled(track.box, width, height) for track in seen}
        self._look(picture, seen, boxes)
        segments = []
        for track in seen:
            assert track.outline is not None
            box = boxes[track.object_id]
            segments.append(
                TrackedSegment(
                    object_id=track.object_id,
                    label=track.label,
                    score=track.score,
                    box=box,
                    mask=track.outline.mask(box, picture.size),
                )
            )
        return segments

    # Boxes in shares of the sides. Returns the tracks that are in this frame, by their numbers.
    def _associate(self, detections: list[Detection]) -> list[_Track]:
        pairs = sorted(
            (
                (overlap(track.expected(), detection.box), track, place)
                for track in self._tracks
                for place, detection in enumerate(detections)
                if track.label == detection.label
            ),
            key=lambda pair: -pair[0],
        )
        seen: dict[int, _Track] = {}
        taken: set[int] = set()
        for likeness, track, place in pairs:
            if likeness < _LEAST_OVERLAP:
                break
            if track.object_id not in seen and place not in taken:
                track.see(detections[place].score, detections[place].box)
                seen[track.object_id] = track
                taken.add(place)
        for track in self._tracks:
            if track.object_id not in seen:
                track.unseen += 1
        for place, detection in enumerate(detections):
            if place not in taken and detection.score >= ssd.LIKELY and len(seen) < u2net.MOST_SEGMENTS:
                self._last_id += 1
                seen[self._last_id] = _Track(self._last_id, detection.label, detection.score, detection.box)
        waited_for = [
            track
            for track in self._tracks
            if 0 < track.unseen <= PATIENCE and area(clipped(track.expected(), 1.0, 1.0)) > 0
        ]
        present = [seen[object_id] for object_id in sorted(seen)]
        self._tracks = present + waited_for[-u2net.MOST_SEGMENTS :]
        return present

    def _look(self, picture: Image.Image, seen: list[_Track], boxes: dict[int, Box]) -> None:
        for track in seen:
            track.outline_age += 1
        stale = sorted(seen, key=lambda track: (track.outline is not None, -track.outline_age))
        for place, track in enumerate(stale):
            if track.outline is None or place < OUTLINES_A_FRAME:
                track.outline = self._segmenter.outlines.outline(picture, boxes[track.object_id])
                track.outline_age = 0


def _scaled(box: Box, across: float, down: float) -> Box:
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


class Tracker:
    """The model of the worker: makes sessions."""

    def __init__(self, segmenter: u2net.Segmenter) -> None:
        self._segmenter = segmenter

    def start(self, prompts: list[str] | None) -> Session:
        """A new video, in which the things are followed that `prompts` mean, or all."""
        return Session(self._segmenter, self._segmenter.labels.meant(prompts))


def load() -> Tracker:
    """As `u2net.load`."""
    return Tracker(u2net.load("video-segmentation"))

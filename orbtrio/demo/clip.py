"""A video as jobs: its frames on four media ids.

Without a video we film one: four scenes, in each of which a photograph moves by known pixels per frame, so
that it is also known where nothing moves. The scenes are written to a file and read back like anybody's
video. The file is Motion JPEG, where equal frames come out equal; a codec that predicts frames from their
neighbours lets a still picture drift.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import attrs
import cv2
import skimage.data

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cv2.typing import MatLike  # pixels as OpenCV has them: [height, width, (blue, green, red)]

__all__ = ["MEDIA_IDS", "SCENES", "Clip", "Scene", "UnreadableVideo", "film", "read_clip"]

MEDIA_IDS: Final = ("camera-1", "camera-2", "camera-3", "camera-4")
MOST_FRAMES: Final = 500

# Frames this small stay far below the 2 MiB that a resource may have, whatever the video.
_LARGEST_SIDE: Final = 640

_WIDTH: Final = 320
_HEIGHT: Final = 240
_FRAMES_PER_SECOND: Final = 25.0


class UnreadableVideo(Exception):
    """The video cannot be read, or is too short to be shared between the media ids."""


@attrs.frozen
class Scene:
    """What one camera of our own clip films.

    Attributes:
        story: What a person sees.
        photo: Name of a photograph in `skimage.data`; those used are in the public domain or CC0.
        corner: Where the view begins in it, ``(left, top)`` in pixels.
        speeds: Pixels by which the view moves to the right before each frame; 0 repeats the frame before.
        pasted: A second photograph. It is shown small and moves in its place, while the view stands still.
    """

    story: str
    photo: str
    corner: tuple[int, int]
    speeds: tuple[int, ...]
    pasted: str | None = None


_FASTER_AND_SLOWER: Final = tuple(speed for speed in (1, 2, 3, 4, 3, 2, 1) for _ in range(5))
_AND_BACK: Final = tuple(-speed for speed in _FASTER_AND_SLOWER)
_HARDER_AND_HARDER: Final = tuple(step * side for step in range(1, 11) for side in (1, -1, -1, 1))


def _rest(frames: int) -> tuple[int, ...]:
    return (0,) * frames


SCENES: Final = (
    Scene(
        "a slow pan, a rest, a fast pan back",
        photo="chelsea",
        corner=(10, 30),
        speeds=_rest(25) + (2,) * 50 + _rest(25) + (-4,) * 25,
    ),
    Scene(
        "a small picture crosses a still one",
        photo="astronaut",
        corner=(100, 20),
        speeds=_rest(30) + (4,) * 55 + _rest(40),
        pasted="rocket",
    ),
    Scene(
        "the camera shakes, harder and harder",
        photo="coffee",
        corner=(140, 40),
        speeds=_rest(45) + _HARDER_AND_HARDER + _rest(40),
    ),
    Scene(
        "it speeds up, slows down and comes back",
        photo="camera",
        corner=(20, 60),
        speeds=_rest(15) + _FASTER_AND_SLOWER + _rest(25) + _AND_BACK + _rest(15),
    ),
)


def film(path: Path) -> None:
    """Write the scenes, one after the other, to a Motion JPEG file."""
    # OpenCV's own encoder: FFmpeg's adapts its quality on the way, and equal frames then come out unequal.
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    video = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, fourcc, _FRAMES_PER_SECOND, (_WIDTH, _HEIGHT))
    for frame in itertools.chain.from_iterable(map(_draw, SCENES)):
        video.write(frame)
    video.release()


def _draw(scene: Scene) -> Iterator[MatLike]:
    left, top = scene.corner
    photo = _load_photo(scene.photo)[top : top + _HEIGHT]
    if scene.pasted is None:
        for offset in itertools.accumulate(scene.speeds):
            yield photo[:, left + offset : left + offset + _WIDTH]
    else:
        small = cv2.resize(_load_photo(scene.pasted)[110:410, 170:470], (80, 80))
        for offset in itertools.accumulate(scene.speeds):
            frame = photo[:, left : left + _WIDTH].copy()
            frame[90:170, offset + 10 : offset + 90] = small
            yield frame


def _load_photo(name: str) -> MatLike:
    photo: MatLike = getattr(skimage.data, name)()
    return cv2.cvtColor(photo, cv2.COLOR_GRAY2BGR if photo.ndim == 2 else cv2.COLOR_RGB2BGR)


@attrs.frozen
class Clip:
    """The frames of a video, dealt to the media ids in consecutive parts of equal length.

    Attributes:
        parts: By media id, its frames as JPEG files, in their order.
        interval: Seconds between two of them.
    """

    parts: Mapping[str, Sequence[bytes]]
    interval: float


def read_clip(path: Path) -> Clip:
    """Read up to 500 frames, spread evenly over a video.

    Raises:
        UnreadableVideo: OpenCV finds fewer frames in it than there are media ids.
    """
    video = cv2.VideoCapture(str(path))
    stride = max(1, round(video.get(cv2.CAP_PROP_FRAME_COUNT) / MOST_FRAMES))
    frames: list[bytes] = []
    while len(frames) < MOST_FRAMES and all(video.grab() for _ in range(stride)):
        frames.append(_to_jpeg(video.retrieve()[1]))
    if len(frames) < len(MEDIA_IDS):
        raise UnreadableVideo(f"{path}: {len(frames)} frames found, where {len(MEDIA_IDS)} are the least")
    bounds = [len(frames) * part // len(MEDIA_IDS) for part in range(len(MEDIA_IDS) + 1)]
    parts = (frames[start:end] for start, end in itertools.pairwise(bounds))
    return Clip(
        parts=dict(zip(MEDIA_IDS, parts, strict=True)),
        interval=stride / (video.get(cv2.CAP_PROP_FPS) or _FRAMES_PER_SECOND),
    )


def _to_jpeg(frame: MatLike) -> bytes:
    largest = max(frame.shape[:2])
    if largest > _LARGEST_SIDE:
        scale = _LARGEST_SIDE / largest
        frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", frame)[1].tobytes()

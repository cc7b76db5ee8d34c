"""A video as jobs: its frames on four media ids.

Without a video we film one: four scenes, in each of which a photograph moves by known pixels per frame, so
that it is also known where nothing moves. The scenes are written to a file and read back like anybody's
video. The file is Motion JPEG, where equal frames come out equal; a codec that predicts frames from their
neighbours lets a still picture drift.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import cv2
import skimage.data

from workers.motion_energy import MotionEnergy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cv2.typing import MatLike  # pixels as OpenCV has them: [height, width, (blue, green, red)]

__all__ = [
    "SCENES",
    "Clip",
    "Scene",
    "UnreadableVideo",
    "compute_energies",
    "film",
    "find_wrong_energies",
    "read_clip",
]

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


SCENES: Final = {
    "camera-1": Scene(
        "a slow pan, a rest, a fast pan back",
        photo="chelsea",
        corner=(10, 30),
        speeds=_rest(25) + (2,) * 50 + _rest(25) + (-4,) * 25,
    ),
    "camera-2": Scene(
        "a small picture crosses a still one",
        photo="astronaut",
        corner=(100, 20),
        speeds=_rest(30) + (4,) * 55 + _rest(40),
        pasted="rocket",
    ),
    "camera-3": Scene(
        "the camera shakes, harder and harder",
        photo="coffee",
        corner=(140, 40),
        speeds=_rest(45) + _HARDER_AND_HARDER + _rest(40),
    ),
    "camera-4": Scene(
        "it speeds up, slows down and comes back",
        photo="camera",
        corner=(20, 60),
        speeds=_rest(15) + _FASTER_AND_SLOWER + _rest(25) + _AND_BACK + _rest(15),
    ),
}
"""By the media id that its frames get."""


def film(path: Path) -> None:
    """Write the scenes, one after the other, to a Motion JPEG file."""
    # OpenCV's own encoder: FFmpeg's adapts its quality on the way, and equal frames then come out unequal.
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    video = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, fourcc, _FRAMES_PER_SECOND, (_WIDTH, _HEIGHT))
    for frame in itertools.chain.from_iterable(map(_draw, SCENES.values())):
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
        scenes: By media id, what is known about its frames; empty for anybody's video.
    """

    parts: Mapping[str, Sequence[bytes]]
    interval: float
    scenes: Mapping[str, Scene] = attrs.field(factory=dict)


def read_clip(path: Path, scenes: Mapping[str, Scene] | None = None) -> Clip:
    """Read up to 500 frames, spread evenly over a video.

    Args:
        path: Any file that OpenCV can read.
        scenes: What was filmed, if it was `film` that wrote it.

    Raises:
        UnreadableVideo: fewer frames are found in it than there are media ids.
    """
    video = cv2.VideoCapture(str(path))
    # Of a file that does not know its length, the first 500.
    length = max(MOST_FRAMES, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
    frames: list[bytes] = []
    for number in range(length):
        if not video.grab():
            break
        if number * MOST_FRAMES >= len(frames) * length:
            frames.append(_to_jpeg(video.retrieve()[1]))
    if len(frames) < len(SCENES):
        raise UnreadableVideo(f"{path}: {len(frames)} frames found, where {len(SCENES)} are the least")
    bounds = [len(frames) * part // len(SCENES) for part in range(len(SCENES) + 1)]
    parts = (frames[start:end] for start, end in itertools.pairwise(bounds))
    return Clip(
        parts=dict(zip(SCENES, parts, strict=True)),
        interval=length / MOST_FRAMES / (video.get(cv2.CAP_PROP_FPS) or _FRAMES_PER_SECOND),
        scenes=scenes or {},
    )


def _to_jpeg(frame: MatLike) -> bytes:
    largest = max(frame.shape[:2])
    if largest > _LARGEST_SIDE:
        scale = _LARGEST_SIDE / largest
        frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", frame)[1].tobytes()


def find_wrong_energies(clip: Clip, energies: Mapping[str, Sequence[object]]) -> Iterator[str]:
    """Say what is wrong with the motion energies of a clip's frames; nothing if they are right.

    They must be what the worker's own code says in one process and in order, so that a frame which was lost,
    swapped or compared with another camera's shows. And that code must say what a person sees.
    """
    for media_id, frames in clip.parts.items():
        scene = clip.scenes.get(media_id)
        for place, right in enumerate(compute_energies(frames)):
            answer = energies[media_id][place]
            if answer != right:
                yield f"{media_id}, frame {place}: motion energy is {answer!r}, not {right}"
            elif not 0 <= right <= 1:
                yield f"{media_id}, frame {place}: motion energy is {right}, not from 0 to 1"
            elif place == 0 and right != 0:
                yield f"{media_id}, frame 0: motion energy is {right}, with no frame before"
            elif scene is not None and (right > 0) != (scene.speeds[place] != 0):
                yield f"{media_id}, frame {place}: motion energy is {right} at speed {scene.speeds[place]}"


def compute_energies(frames: Iterable[bytes]) -> Iterator[float]:
    """Motion energies of one media id's frames, by the worker's code but without a worker."""
    compare = MotionEnergy()
    with tempfile.TemporaryDirectory(prefix="orbtrio-demo-") as folder:
        path = Path(folder) / "frame.jpg"
        for frame in frames:
            path.write_bytes(frame)
            prepared = compare.prepare({"media_id": "", "current_frame": str(path)})
            yield compare(prepared)["motion_energy"]

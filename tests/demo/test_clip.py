from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import attrs
import cv2
import numpy as np
import pytest

from orbtrio.demo.clip import (
    SCENES,
    Clip,
    UnreadableVideo,
    compute_energies,
    film,
    find_wrong_energies,
    read_clip,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    film(path)
    return read_clip(path, SCENES)


def write_video(path: Path, frames: int, width: int = 32, height: int = 16) -> Path:
    """A video whose frames get brighter from the first to the last."""
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    video = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, fourcc, 10.0, (width, height))
    for number in range(frames):
        video.write(np.full((height, width, 3), 255 * number // frames, np.uint8))
    video.release()
    return path


def pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))


def test_own_clip_has_125_frames_on_each_of_four_media_ids(clip: Clip) -> None:
    assert {media_id: len(frames) for media_id, frames in clip.parts.items()} == dict.fromkeys(SCENES, 125)
    assert clip.interval == pytest.approx(0.04)


@pytest.mark.parametrize("media_id", SCENES)
def test_frames_differ_exactly_where_the_scene_moves(clip: Clip, media_id: str) -> None:
    frames = clip.parts[media_id]
    differ = [earlier != later for earlier, later in itertools.pairwise(frames)]
    assert differ == [speed != 0 for speed in SCENES[media_id].speeds[1:]]


def test_no_scene_leaves_its_photograph(clip: Clip) -> None:
    # A slice beyond the edge would be narrower, and the encoder would have refused it.
    assert {pixels(frame).shape for frames in clip.parts.values() for frame in frames[::31]} == {
        (240, 320, 3)
    }


def test_right_energies_are_found_right(clip: Clip) -> None:
    energies = {media_id: list(compute_energies(frames)) for media_id, frames in clip.parts.items()}
    assert list(find_wrong_energies(clip, energies)) == []


@pytest.fixture
def camera(clip: Clip) -> Clip:
    """The clip's second camera alone."""
    return attrs.evolve(clip, parts={"camera-2": clip.parts["camera-2"]})


@pytest.mark.parametrize("answer", [-0.1, 0.5, 2.0, None, "0.04"])
def test_a_wrong_energy_is_found(camera: Clip, answer: object) -> None:
    energies: list[Any] = list(compute_energies(camera.parts["camera-2"]))
    right, energies[60] = energies[60], answer
    expected = f"camera-2, frame 60: motion energy is {answer!r}, not {right}"
    assert list(find_wrong_energies(camera, {"camera-2": energies})) == [expected]


def test_swapped_frames_are_found(camera: Clip) -> None:
    frames = list(camera.parts["camera-2"])
    frames[50], frames[51] = frames[51], frames[50]
    mistakes = find_wrong_energies(camera, {"camera-2": list(compute_energies(frames))})
    assert [mistake.partition(":")[0] for mistake in mistakes] == ["camera-2, frame 50", "camera-2, frame 52"]


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (0, 1.5, "motion energy is 1.5, not from 0 to 1"),
        (0, 0.3, "motion energy is 0.3, with no frame before"),
        (20, 0.3, "motion energy is 0.3 at speed 0"),
        (60, 0.0, "motion energy is 0.0 at speed 4"),
    ],
)
def test_worker_code_that_does_not_see_what_is_there_is_found(
    camera: Clip, monkeypatch: pytest.MonkeyPatch, place: int, value: float, problem: str
) -> None:
    energies = list(compute_energies(camera.parts["camera-2"]))
    energies[place] = value
    monkeypatch.setattr("orbtrio.demo.clip.compute_energies", lambda frames: energies)
    mistakes = list(find_wrong_energies(camera, {"camera-2": energies}))
    assert mistakes == [f"camera-2, frame {place}: {problem}"]


def test_a_long_video_is_taken_from_end_to_end(tmp_path: Path) -> None:
    clip = read_clip(write_video(tmp_path / "long.avi", frames=1300))
    assert sum(map(len, clip.parts.values())) == 500
    assert clip.interval == pytest.approx(0.26)
    assert pixels(clip.parts["camera-4"][-1]).mean() > 250


def test_a_short_video_is_dealt_to_all_media_ids(tmp_path: Path) -> None:
    clip = read_clip(write_video(tmp_path / "short.avi", frames=7))
    assert [len(frames) for frames in clip.parts.values()] == [1, 2, 2, 2]


def test_large_frames_are_made_small(tmp_path: Path) -> None:
    clip = read_clip(write_video(tmp_path / "large.avi", frames=4, width=1280, height=360))
    assert pixels(clip.parts["camera-1"][0]).shape == (180, 640, 3)


@pytest.mark.parametrize("frames", [0, 3])
def test_too_short_a_video_is_refused(tmp_path: Path, frames: int) -> None:
    with pytest.raises(UnreadableVideo, match=f"{frames} frames found"):
        read_clip(write_video(tmp_path / "stub.avi", frames=frames))

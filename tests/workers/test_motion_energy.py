"""Motion energy on real photographs. Spec: "Motion Energy Detection Worker"."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from orbtrio.worker import WorkerSettings
from workers import motion_energy
from workers._sessions import MOST_SESSIONS
from workers.motion_energy import MotionEnergy

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Save = Callable[..., str]

PHOTOS = ("astronaut", "camera", "chelsea", "coffee")


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes pixels to a new file; its path."""
    numbers = itertools.count()

    def save_picture(pixels: NDArray[Any], extension: str = "png", **options: Any) -> str:
        path = tmp_path / f"{next(numbers)}.{extension}"
        Image.fromarray(pixels).save(path, **options)
        return str(path)

    return save_picture


def photo(name: str = "astronaut") -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = getattr(skimage.data, name)()
    return pixels


def panned(pixels: NDArray[np.uint8], columns: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two views of the same scene, so many pixels apart."""
    return pixels[:, : -columns or None], pixels[:, columns:]


def sent(worker: MotionEnergy, media_id: Any, current_frame: Any) -> dict[str, float]:
    """What the worker answers to a job."""
    return worker(worker.prepare({"media_id": media_id, "current_frame": current_frame}))


def energy_between(first: str, second: str) -> float:
    worker = MotionEnergy()
    assert sent(worker, "m", first) == {"motion_energy": 0.0}
    return sent(worker, "m", second)["motion_energy"]


# --- What it measures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PHOTOS)
def test_still_scene_has_none(name: str, save: Save) -> None:
    assert energy_between(save(photo(name)), save(photo(name))) == 0.0


@pytest.mark.parametrize("name", PHOTOS)
def test_more_panning_more_energy(name: str, save: Save) -> None:
    """Two pixels about 0.03, eighteen about 0.13, depending on how rich the picture is."""
    energies = [energy_between(*map(save, panned(photo(name), columns))) for columns in (2, 18)]
    assert 0.01 < energies[0] < 0.05
    assert 0.06 < energies[1] < 0.2
    assert energies[1] > 3 * energies[0]


def test_another_scene_has_most(save: Save) -> None:
    astronaut, coffee = photo("astronaut")[:400, :512], photo("coffee")[:400, :512]
    assert energy_between(save(astronaut), save(coffee)) > 0.2


@pytest.mark.parametrize(("first", "second", "energy"), [(0, 255, 1.0), (255, 0, 1.0), (10, 61, 0.2)])
def test_is_the_share_of_the_largest_change_possible(
    first: int, second: int, energy: float, save: Save
) -> None:
    frames = (save(np.full((48, 64), grey, np.uint8)) for grey in (first, second))
    assert energy_between(*frames) == pytest.approx(energy)


def test_is_the_mean_difference_of_blurred_greys(save: Save) -> None:
    """Against the formula, written out with numpy; Pillow rounds every blurred pixel."""

    def blurred(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        padded = np.pad(pixels.astype(float), 2, mode="edge")
        rows, columns = pixels.shape
        views = [padded[y : y + rows, x : x + columns] for y in range(5) for x in range(5)]
        mean: NDArray[np.float64] = np.mean(views, axis=0)
        return mean

    first, second = panned(photo("camera"), 7)
    expected = np.abs(blurred(first) - blurred(second)).mean() / 255
    assert energy_between(save(first), save(second)) == pytest.approx(expected, abs=0.001)


def test_noise_counts_for_less_than_motion(save: Save) -> None:
    scene = photo("camera")
    noise = np.random.default_rng(7).normal(0, 8, scene.shape)
    noisy = np.clip(scene + noise, 0, 255).astype(np.uint8)
    first, second = panned(scene, 2)
    assert energy_between(save(scene), save(noisy)) < energy_between(save(first), save(second))


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_reads_what_cameras_send(extension: str, save: Save) -> None:
    first, second = panned(photo()[:256, :256], 18)
    assert 0.1 < energy_between(save(first, extension), save(second, extension)) < 0.2


def test_colour_grey_and_transparency_are_the_same_picture(save: Save) -> None:
    colour = photo()
    grey = np.asarray(Image.fromarray(colour).convert("L"))
    transparent = np.dstack([colour, np.full(colour.shape[:2], 255, np.uint8)])
    assert energy_between(save(colour), save(grey)) == 0.0
    assert energy_between(save(colour), save(transparent)) == 0.0


def test_files_are_left_to_the_engine(save: Save) -> None:
    """WRK-15."""
    frames = [save(photo("camera")), save(photo("camera"))]
    energy_between(*frames)
    assert all(Path(frame).exists() for frame in frames)


# --- Sizes -------------------------------------------------------------------------------------------------


def test_other_size_is_resized(save: Save) -> None:
    picture = Image.fromarray(photo())
    smaller = np.asarray(picture.resize((320, 320)))
    assert energy_between(save(photo()), save(smaller)) < 0.02
    assert energy_between(save(smaller), save(photo())) < 0.02


def test_large_frames_are_kept_small(save: Save) -> None:
    large = np.asarray(Image.fromarray(photo()).resize((4000, 3000)))
    worker = MotionEnergy()
    frame = worker.prepare({"media_id": "m", "current_frame": save(large, "jpg")}).picture
    assert frame.width * frame.height <= motion_energy.KEPT_PIXELS
    assert frame.width / frame.height == pytest.approx(4 / 3, abs=0.01)
    sent(worker, "m", save(large, "jpg"))
    assert sent(worker, "m", save(large, "jpg")) == {"motion_energy": 0.0}


def test_smallest_frame_of_all(save: Save) -> None:
    assert energy_between(*(save(np.full((1, 1), grey, np.uint8)) for grey in (0, 255))) == 1.0


# --- Streams -----------------------------------------------------------------------------------------------


def test_streams_are_apart(save: Save) -> None:
    astronaut, coffee = save(photo("astronaut")), save(photo("coffee"))
    worker = MotionEnergy()
    for media_id, frame in (("a", astronaut), ("b", coffee), ("a", astronaut), ("b", coffee)):
        assert sent(worker, media_id, frame) == {"motion_energy": 0.0}


def test_hundred_and_first_stream_evicts_the_one_unused_longest(save: Save) -> None:
    black, white = (save(np.full((8, 8), grey, np.uint8)) for grey in (0, 255))
    worker = MotionEnergy()
    for n in range(MOST_SESSIONS):
        sent(worker, f"cam-{n}", black)
    sent(worker, "cam-0", black)
    sent(worker, "one more", black)
    assert sent(worker, "cam-0", white) == {"motion_energy": 1.0}
    assert sent(worker, "cam-2", white) == {"motion_energy": 1.0}
    assert sent(worker, "cam-1", white) == {"motion_energy": 0.0}
    assert len(worker._streams) == MOST_SESSIONS == 100


# --- What goes wrong ---------------------------------------------------------------------------------------


def test_missing_file_is_an_error_and_costs_the_stream_nothing(save: Save, tmp_path: Path) -> None:
    """WRK-13."""
    first, second = map(save, panned(photo(), 18))
    worker = MotionEnergy()
    sent(worker, "m", first)
    with pytest.raises(ValueError, match=r"current_frame: there is no such file$"):
        sent(worker, "m", str(tmp_path / "gone.png"))
    assert sent(worker, "m", second)["motion_energy"] > 0.1


@pytest.mark.parametrize(
    ("job_input", "problem"),
    [
        ({"current_frame": "x.png"}, "media_id: expected text"),
        ({"media_id": 7, "current_frame": "x.png"}, "media_id: expected text"),
        ({"media_id": "m"}, "current_frame: expected the path"),
        ({"media_id": "m", "current_frame": b"x.png"}, "current_frame: expected the path"),
        (
            {"media_id": "m", "current_frame": {"__type": "resource-ref", "id": "x"}},
            "current_frame: expected the path",
        ),
        ({"media_id": "m", "current_frame": "/"}, "no such file"),
        ({"media_id": "m", "current_frame": "/dev/zero"}, "no such file"),
        ({"media_id": "m", "current_frame": "x\0.png"}, "no such file"),
    ],
)
def test_wrong_input_is_named(job_input: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        MotionEnergy().prepare(job_input)


def test_damaged_pictures_are_errors(save: Save, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    good = [
        Path(save(photo(), extension)).read_bytes() for extension in ("png", "jpg", "gif", "webp", "tiff")
    ]
    broken = [data[: len(data) // 2] for data in good] + [data[:20] for data in good]
    texts = [b"", b"no picture at all", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>"]
    for data in broken + texts:
        path.write_bytes(data)
        with pytest.raises(ValueError, match="current_frame: not a picture that can be read") as caught:
            MotionEnergy().prepare({"media_id": "m", "current_frame": str(path)})
        assert str(tmp_path) not in str(caught.value)


def test_picture_of_too_many_pixels_is_refused_unread(save: Save) -> None:
    bomb = np.zeros((7000, 7000), bool)
    with pytest.raises(ValueError, match="49000000 pixels are too many"):
        MotionEnergy().prepare({"media_id": "m", "current_frame": save(bomb)})


def test_nothing_has_to_be_loaded() -> None:
    settings = WorkerSettings(worker_type="motion_energy", worker_secret="hush")
    assert isinstance(motion_energy.load(settings), MotionEnergy)

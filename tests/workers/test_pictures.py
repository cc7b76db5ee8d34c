"""Pictures from strangers."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.models.photographs import photograph
from workers._pictures import FORMATS, KEPT_PIXELS, Scaled, read_picture, read_scaled

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXTENSIONS = {
    "BMP": "bmp",
    "GIF": "gif",
    "JPEG": "jpg",
    "PNG": "png",
    "PPM": "ppm",
    "TIFF": "tiff",
    "WEBP": "webp",
}


def saved(picture: Image.Image, path: Path, **options: Any) -> str:
    picture.save(path, **options)
    return str(path)


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures' values, 0 to 255."""
    assert one.size == other.size
    first: NDArray[np.float64] = np.asarray(one, float)
    return float(np.abs(first - np.asarray(other, float)).mean())


# --- What is read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_shows_the_same_picture(name: str, tmp_path: Path) -> None:
    picture = photograph("chelsea")
    read = read_picture(saved(picture, tmp_path / f"a.{EXTENSIONS[name]}"))
    assert read.mode == "RGB"
    assert difference(read, picture) < (8 if name == "GIF" else 4)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "LAB"])
@pytest.mark.parametrize("wanted", ["RGB", "L"])
def test_colours_come_in_many_ways(mode: str, wanted: Any, tmp_path: Path) -> None:
    grey = photograph("camera").convert("L")
    if mode == "I;16":
        stored = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        stored = (grey.convert("RGB") if mode == "LAB" else grey).convert(mode)
    path = saved(stored, tmp_path / ("a.tiff" if mode in ("CMYK", "LAB") else "a.png"))
    for most_pixels in (KEPT_PIXELS, 10_000):
        read = read_picture(path, mode=wanted, most_pixels=most_pixels)
        assert read.mode == wanted
        # Black and white alone are far from grey, but as bright on the whole.
        expected = grey.resize(read.size, Image.Resampling.BOX)
        assert abs(np.asarray(read, float).mean() - np.asarray(expected, float).mean()) < 3
        if mode != "1":
            assert difference(read.convert("L"), expected) < 3


@pytest.mark.parametrize("extension", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_is_turned_as_its_camera_was(orientation: int, extension: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(photograph("chelsea"), tmp_path / f"a.{extension}", exif=exif)
    with Image.open(path) as stored:
        expected = ImageOps.exif_transpose(stored).convert("RGB")
    assert expected.size == ((451, 300) if orientation < 5 else (300, 451))
    for most_pixels in (KEPT_PIXELS, 20_000):
        read = read_scaled(path, most_pixels=most_pixels)
        assert read.size == expected.size
        assert difference(read.image, expected.resize(read.image.size, Image.Resampling.BOX)) < 4


def test_damaged_notes_of_the_camera_do_not_matter(tmp_path: Path) -> None:
    path = saved(photograph("chelsea"), tmp_path / "a.jpg", exif=b"Exif\0\0 not a TIFF")
    assert read_picture(path).size == (451, 300)


def test_first_picture_of_several_counts(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    path = saved(first, tmp_path / "a.gif", save_all=True, append_images=[second])
    assert read_picture(path).getpixel((4, 4)) == (255, 0, 0)


def test_file_is_closed_and_left_where_it_is(tmp_path: Path) -> None:
    path = saved(photograph("chelsea"), tmp_path / "a.png")
    before = os.listdir("/proc/self/fd")
    read = read_picture(path)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    Path(path).unlink()
    read.resize((10, 10))


# --- Sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", ["jpg", "png", "gif", "webp", "tiff"])
def test_large_picture_is_reduced_and_its_size_is_told(extension: str, tmp_path: Path) -> None:
    picture = photograph("chelsea").resize((1804, 1200))
    read = read_scaled(saved(picture, tmp_path / f"a.{extension}"), most_pixels=90_000)
    assert read.size == (1804, 1200)
    assert 80_000 < read.image.width * read.image.height <= 90_000
    assert read.image.width / read.image.height == pytest.approx(1804 / 1200, abs=0.01)
    assert difference(read.image, picture.resize(read.image.size, Image.Resampling.BOX)) < 10


def test_small_picture_keeps_every_pixel(tmp_path: Path) -> None:
    picture = photograph("chelsea")
    read = read_scaled(saved(picture, tmp_path / "a.png"))
    assert read.size == read.image.size == picture.size
    assert difference(read.image, picture) == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (60_000, 2)])
def test_strangest_shapes(size: tuple[int, int], tmp_path: Path) -> None:
    read = read_scaled(saved(Image.new("L", size), tmp_path / "a.png"), most_pixels=1000)
    assert read.size == size
    assert 1 <= read.image.width * read.image.height <= 1000


def test_box_is_told_in_pixels_of_the_original() -> None:
    scaled = Scaled(Image.new("L", (100, 50)), (400, 100))
    assert scaled.original_box((0.0, 10.0, 25.0, 50.0)) == (0.0, 20.0, 100.0, 100.0)


# --- What is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [None, 7, b"a.png", ["a.png"], {"__file__": "a.png"}])
def test_what_is_no_path_is_refused(path: object) -> None:
    with pytest.raises(ValueError, match=r"^images\[2\]: expected the path of a picture$"):
        read_picture(path, field="images[2]")


@pytest.mark.parametrize("path", ["", "gone.png", ".", "a\0b", "a" * 5000])
def test_missing_file_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^filepath: there is no such file$"):
        read_picture(str(tmp_path / path))


def test_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="no such file"):
        read_picture(str(tmp_path / "pipe.png"))


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"not a picture", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_picture_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"^filepath: not a picture that can be read, of BMP, GIF, JPEG"
    ) as caught:
        read_picture(str(tmp_path / "a.png"))
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tiff"])
def test_half_a_picture_is_refused(extension: str, tmp_path: Path) -> None:
    path = Path(saved(photograph("chelsea"), tmp_path / f"a.{extension}"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="not a picture that can be read"):
        read_picture(str(path))


@pytest.mark.parametrize(
    ("side", "problem"),
    [(7000, "49000000 pixels"), (10_000, "pixels are too many"), (14_000, "its pixels")],
)
def test_picture_of_too_many_pixels_is_refused_unread(side: int, problem: str, tmp_path: Path) -> None:
    """Pillow itself warns of the second and refuses the third."""
    path = saved(Image.new("1", (side, side)), tmp_path / "a.png")
    with pytest.raises(ValueError, match=rf"^filepath: .*{problem}.*at most 40000000$"):
        read_picture(path)


@pytest.mark.parametrize("ahead", [0, 500_000, 1 << 20])
def test_jpeg_of_endless_scans_is_refused_unread(ahead: int, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    saved(photograph("chelsea").resize((64, 64)), path, progressive=True)
    data = path.read_bytes()
    last = data[data.rindex(b"\xff\xda") : -2]
    path.write_bytes(data[:-2] + last * 150 + data[-2:])
    assert read_picture(str(path)).size == (64, 64)
    path.write_bytes(data[:-2] + last * 300 + bytes(ahead) + data[-2:])
    with pytest.raises(ValueError, match=r"^filepath: \d+ scans are too many, at most 200$"):
        read_picture(str(path))


def test_threads_may_read_at_once(tmp_path: Path) -> None:
    path = saved(photograph("chelsea"), tmp_path / "a.jpg")
    sizes: list[tuple[int, int]] = []
    readers = [threading.Thread(target=lambda: sizes.append(read_picture(path).size)) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert sizes == [(451, 300)] * 8

"""Reads the pictures that jobs name, at a cost that is known before.

A picture comes from a stranger, who may send a damaged one, one of gigabytes in 2 MiB, or the path of a pipe.
So there is a fixed list of formats (some of Pillow's start other programs) and a limit on pixels, both held
before anything is decoded, and what is decoded is reduced at once to what the caller's model can use: JPEG
while it is decoded, the others in the mode that they are stored in, before colours are converted.

Whoever answers in pixels answers in those of the original, so `read_scaled` tells its size along with the
reduced picture. Both are as a person sees the picture: a camera held sideways notes that in EXIF, and here it
is turned. Of a moving picture the first frame counts; what is transparent shows the colour behind it.

What is wrong is a `ValueError` whose text begins with the name of the job's field.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from typing import Final, Literal

import attrs
from PIL import Image

# A resource has 2 MiB, which is enough to name a picture of gigabytes. 8K video has 33 million pixels.
MAX_PIXELS: Final = 40_000_000

# What a picture is reduced to where the caller names nothing else: more than the models here look at. A batch
# of 32 then takes 128 MB, for Pillow keeps four bytes a pixel.
KEPT_PIXELS: Final = 1024 * 1024

# A JPEG tells its pixels in scans, each of which goes over all of them and may take 60 bytes: thirty thousand
# fit into 2 MiB and take minutes. Programs write a dozen.
MOST_SCANS: Final = 200
_SCAN: Final = b"\xff\xda"

FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_ORIENTATION: Final = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS: Final = {_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8]}
# Pixels of the others are numbers of a palette, or single bits: to average them makes no sense.
_AVERAGED: Final = {"L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}


@attrs.frozen
class Scaled:
    """A picture, reduced, and the size that it had.

    Attributes:
        image: What to look at.
        size: ``(width, height)`` of the original, turned as `image` is.
    """

    image: Image.Image
    size: tuple[int, int]

    def original_box(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """A box ``(x_min, y_min, x_max, y_max)`` in pixels of `image`, in pixels of the original."""
        across, down = self.size[0] / self.image.width, self.size[1] / self.image.height
        return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def read_picture(
    path: object,
    *,
    field: str = "filepath",
    mode: Literal["RGB", "L"] = "RGB",
    most_pixels: int = KEPT_PIXELS,
) -> Image.Image:
    """The picture in a file, in memory, the file closed.

    Args:
        path: What the job's field holds; anything but the path of a picture is the job's error.
        field: The field's name, for the error, e.g. ``messages[0].content[1].image``.
        mode: Of the result: colours or grey.
        most_pixels: The result's width times height is no more.

    Raises:
        ValueError: there is no such file, it is no picture of `FORMATS`, or damaged, or has more than
            `MAX_PIXELS`, or a JPEG more than `MOST_SCANS`.
    """
    return read_scaled(path, field=field, mode=mode, most_pixels=most_pixels).image


def read_scaled(
    path: object,
    *,
    field: str = "filepath",
    mode: Literal["RGB", "L"] = "RGB",
    most_pixels: int = KEPT_PIXELS,
) -> Scaled:
    """As `read_picture`, with the size of the original."""
    if not isinstance(path, str):
        raise ValueError(f"{field}: expected the path of a picture")
    # A path that was no reference comes from the client as it is: a pipe would never end, and a device might
    # not.
    if not os.path.isfile(path):
        raise ValueError(f"{field}: there is no such file")
    too_many, most = "", MAX_PIXELS
    try:
        with Image.open(path, formats=FORMATS) as opened:
            pixels = opened.width * opened.height
            if opened.format == "JPEG" and (scans := _count_scans(path)) > MOST_SCANS:
                too_many, most = f"{scans} scans", MOST_SCANS
            elif pixels > MAX_PIXELS:
                too_many = f"{pixels} pixels"
            else:
                return _decoded(opened, mode, most_pixels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        too_many = "its pixels"
    except Exception as error:  # Pillow: a damaged picture makes it raise whatever it stumbles over.
        known = ", ".join(FORMATS)
        raise ValueError(
            f"{field}: not a picture that can be read, of {known} ({type(error).__name__})"
        ) from None
    raise ValueError(f"{field}: {too_many} are too many, at most {most}")


# The mark of a scan stands nowhere in one; what a camera adds has it once in 64 KiB, by chance.
def _count_scans(path: str) -> int:
    count, last = 0, b""
    with open(path, "rb") as file:
        while count <= MOST_SCANS and (data := file.read(1 << 20)):
            count += (last + data).count(_SCAN)
            last = data[-1:]
    return count


def _decoded(opened: Image.Image, mode: Literal["RGB", "L"], most_pixels: int) -> Scaled:
    turn = None
    # Pillow turns TIFF by itself, as it is decoded, and tells the size that it will have.
    if opened.format != "TIFF":
        with suppress(Exception):  # Damaged EXIF makes Pillow raise anything; the picture may still be whole.
            turn = _TURNS.get(opened.getexif().get(_ORIENTATION, 1))
    width, height = opened.size
    wanted = _fitting(width, height, most_pixels)
    # JPEG decodes to a half, a quarter, an eighth of the size, and keeps brightness apart from colour: grey
    # alone takes half the time.
    opened.draft(mode, wanted)
    image = opened
    if image.mode not in _AVERAGED:
        image = _converted(image, mode)
    if image.size != wanted:
        image = image.resize(wanted, Image.Resampling.BOX, reducing_gap=2.0)
    image = _converted(image, mode)
    if turn is not None:
        image = image.transpose(turn)
    # Files without pixels of their own are decoded only now; after this the file is not needed.
    image.load()
    return Scaled(image, (height, width) if turn in _SIDEWAYS else (width, height))


def _converted(image: Image.Image, mode: Literal["RGB", "L"]) -> Image.Image:
    # Sixteen bits of grey: Pillow would cut them off at 255, and nearly all of a photograph became white.
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda value: value / 257).convert("L")
    if image.mode == "LAB":  # From there to grey Pillow knows no way.
        image = image.convert("RGB")
    return image.convert(mode)


def _fitting(width: int, height: int, most_pixels: int) -> tuple[int, int]:
    """The size of the same shape with no more pixels, each side at least 1."""
    if width * height <= most_pixels:
        return width, height
    factor = math.sqrt(most_pixels / (width * height))
    height = min(max(1, int(height * factor)), most_pixels)
    return min(max(1, int(width * factor)), most_pixels // height), height

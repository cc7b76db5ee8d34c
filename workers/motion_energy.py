"""Motion energy: how much the picture of a stream has changed since its last frame.

    {media_id: "cam-1", current_frame: "frame.jpg"}  ->  {motion_energy: 0.036}

The mean absolute difference of two frames in grey, each blurred by 5x5 pixels, as a share of the largest
possible one. The blur keeps the noise of a camera in the dark from counting as motion. Two pixels of panning
give about 0.03, a cut to another scene 0.2 and more. The first frame of a stream has nothing to differ from:
0.0.

Frames come from strangers, so what one may cost is bounded: a fixed list of formats (some of Pillow's start
other programs), a limit on pixels, and larger frames are reduced before they are compared and kept.

Spec: "Motion Energy Detection Worker".
"""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image, ImageChops, ImageFilter, ImageStat

from orbtrio.worker import run_program

if TYPE_CHECKING:
    from orbtrio.worker import WorkerSettings

# Spec: "Uses LRU cache with max 100 concurrent streams".
MAX_STREAMS: Final = 100

# A resource has 2 MiB, which is enough to name a picture of gigabytes. 8K video has 33 million pixels.
MAX_PIXELS: Final = 40_000_000

# What a frame is compared and kept at; a hundred streams then take 200 MB at most. Full HD passes unchanged.
KEPT_PIXELS: Final = 1920 * 1080

FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


class MotionEnergy:
    """The last frame of each stream, least recently used first. Called with one input at a time, in order."""

    def __init__(self) -> None:
        self._frames: OrderedDict[str, Image.Image] = OrderedDict()

    def __call__(self, job_input: dict[str, Any]) -> dict[str, float]:
        """Compare a frame with the one before it and keep it in its place.

        Args:
            job_input: ``media_id``, the stream, and ``current_frame``, the path of a picture.

        Returns:
            ``motion_energy`` from 0.0, nothing has changed, to 1.0, all black has become white. Of frames
            that differ in size, the earlier is resized to the later.

        Raises:
            ValueError: the input is not of this shape, or there is no readable picture. The stream's last
                frame stays.
        """
        media_id, path = job_input.get("media_id"), job_input.get("current_frame")
        if not isinstance(media_id, str):
            raise ValueError("media_id: expected text")
        if not isinstance(path, str):
            raise ValueError("current_frame: expected the path of a picture")
        frame = read_frame(Path(path))
        last = self._frames.get(media_id, frame)
        self._frames[media_id] = frame
        self._frames.move_to_end(media_id)
        if len(self._frames) > MAX_STREAMS:
            self._frames.popitem(last=False)
        if last.size != frame.size:
            last = last.resize(frame.size)
        return {"motion_energy": ImageStat.Stat(ImageChops.difference(last, frame)).mean[0] / 255}


def read_frame(path: Path) -> Image.Image:
    """The picture in `path`, in grey and blurred, with `KEPT_PIXELS` at most.

    Raises:
        ValueError: there is none, or it is damaged or too large.
    """
    # A path that was no reference comes from the client as it is: a pipe would never end, and a device might
    # not.
    if not path.is_file():
        raise ValueError("current_frame: there is no such file")
    try:
        with Image.open(path, formats=FORMATS) as image:
            pixels = image.width * image.height
            # JPEG keeps brightness apart from colour: grey alone takes half the time to decode.
            image.draft("L", image.size)
            grey = image.convert("L") if pixels <= MAX_PIXELS else image
    except Exception as error:  # Pillow: a damaged picture makes it raise whatever it stumbles over.
        known = ", ".join(FORMATS)
        raise ValueError(
            f"current_frame: not a picture that can be read, of {known} ({type(error).__name__})"
        ) from None
    if pixels > MAX_PIXELS:
        raise ValueError(f"current_frame: {pixels} pixels are too many, at most {MAX_PIXELS}")
    if pixels > KEPT_PIXELS:
        grey = grey.reduce(math.ceil(math.sqrt(pixels / KEPT_PIXELS)))
    return grey.filter(ImageFilter.BoxBlur(2))


def load(settings: WorkerSettings) -> MotionEnergy:
    """There is no model to load, only frames to remember."""
    return MotionEnergy()


if __name__ == "__main__":
    run_program(load, worker_type="motion_energy", description=__doc__)

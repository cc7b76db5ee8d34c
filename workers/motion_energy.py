"""Motion energy: how much the picture of a stream has changed since its last frame.

    {media_id: "cam-1", current_frame: "frame.jpg"}  ->  {motion_energy: 0.036}

The mean absolute difference of two frames in grey, each blurred by 5x5 pixels, as a share of the largest
possible one. The blur keeps the noise of a camera in the dark from counting as motion. Two pixels of panning
give about 0.03, a cut to another scene 0.2 and more. The first frame of a stream has nothing to differ from:
0.0.

Larger frames are reduced before they are compared and kept.

Spec: "Motion Energy Detection Worker".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs
from PIL import Image, ImageChops, ImageFilter, ImageStat

from orbtrio.worker import run_program

from ._pictures import read_picture
from ._sessions import Sessions

if TYPE_CHECKING:
    from orbtrio.worker import WorkerSettings

# What a frame is compared and kept at; a hundred streams then take 200 MB at most. Full HD passes unchanged.
KEPT_PIXELS: Final = 1920 * 1080


@attrs.frozen
class Frame:
    """A frame of a stream, in grey and blurred."""

    media_id: str
    picture: Image.Image


@attrs.define
class _Stream:
    last: Image.Image | None = None


class MotionEnergy:
    """The last frame of each stream. Called with one frame at a time, in order."""

    def __init__(self) -> None:
        self._streams = Sessions(_Stream)

    def prepare(self, job_input: dict[str, Any]) -> Frame:
        """Read the frame of a job: ``media_id``, the stream, and ``current_frame``, the path of a picture.

        Raises:
            ValueError: the input is not of this shape, or there is no readable picture. The stream's last
                frame stays.
        """
        media_id = job_input.get("media_id")
        if not isinstance(media_id, str):
            raise ValueError("media_id: expected text")
        picture = read_picture(
            job_input.get("current_frame"), field="current_frame", mode="L", most_pixels=KEPT_PIXELS
        )
        return Frame(media_id, picture.filter(ImageFilter.BoxBlur(2)))

    def __call__(self, frame: Frame) -> dict[str, float]:
        """Compare a frame with the one before it and keep it in its place.

        Returns:
            ``motion_energy`` from 0.0, nothing has changed, to 1.0, all black has become white. Of frames
            that differ in size, the earlier is resized to the later.
        """
        stream = self._streams.get(frame.media_id)
        last, stream.last = stream.last or frame.picture, frame.picture
        if last.size != frame.picture.size:
            last = last.resize(frame.picture.size)
        return {"motion_energy": ImageStat.Stat(ImageChops.difference(last, frame.picture)).mean[0] / 255}


def load(settings: WorkerSettings) -> MotionEnergy:
    """There is no model to load, only frames to remember."""
    return MotionEnergy()


if __name__ == "__main__":
    run_program(load, worker_type="motion_energy", description=__doc__)

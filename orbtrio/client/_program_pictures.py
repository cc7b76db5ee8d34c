"""The client's program and Pillow: pictures with results drawn on them, and pictures made small enough.

Everything in here takes its time and is meant for threads. Pillow may be missing: it is imported when it is
needed, and whoever asks is told what to install.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orbtrio.client._program_inputs import Refused
from orbtrio.inputs import Image
from orbtrio.protocol.messages import MAX_RESOURCE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["draw_result", "require_pillow", "shrink"]

_ADVICE: Final = "pip install pillow"
_FIRST_SIDE: Final = 2048
# Of a file's name, in bytes; file systems take 255.
_MOST_NAME: Final = 200


def require_pillow(what_for: str) -> None:
    """Raise `Refused` if Pillow is missing."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise Refused(f"{what_for} takes Pillow: {_ADVICE}") from None


def shrink(path: Path) -> Image:
    """A picture as a resource can hold it: as it is, or smaller and as JPEG.

    Raises:
        Refused: it is too large and cannot be read.
    """
    try:
        if path.stat().st_size <= MAX_RESOURCE_BYTES:
            return Image(path)
        picture = _open(path)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # Pillow's: a damaged picture makes it raise whatever it stumbles over.
        raise Refused(f"{path}: {type(error).__name__}: {error}") from None
    side = _FIRST_SIDE
    while True:
        picture.thumbnail((side, side))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        if file.tell() <= MAX_RESOURCE_BYTES:
            return Image(file.getvalue())
        side = side * 3 // 4


def draw_result(
    folder: Path, index: int, name: str | None, picture: Image, output: Mapping[str, Any]
) -> Path | None:
    """Write what a worker found in a picture as ``000007-name.png``.

    Args:
        folder: Where to.
        index: The job's, which keeps files of one name apart and sorts those of a video.
        name: The picture's.
        picture: As it was sent.
        output: The worker's.

    Returns:
        The file; None if there is nothing in the output to draw.

    Raises:
        Refused: picture or output cannot be read, or the file cannot be written.
    """
    from orbtrio.drawing import draw

    source = picture.source
    try:
        drawn = draw(_open(source if isinstance(source, Path) else io.BytesIO(source)), output)
        if drawn is None:
            return None
        stem = re.sub(r"[^\w.-]", "_", Path(name).stem) if name else "picture"
        stem = stem.encode()[:_MOST_NAME].decode(errors="ignore")
        path = folder / f"{index:06d}-{stem}.png"
        file = io.BytesIO()
        drawn.save(file, "PNG")
        _write(path, file.getvalue())
    except Exception as error:  # Pillow's, as above; a result that is drawn or not is a result all the same.
        raise Refused(f"not drawn: {type(error).__name__}: {error}") from None
    return path


# Whole or not at all: half a picture on a full disk looks like one.
def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError:
        path.unlink(missing_ok=True)
        raise


# Upright, as the workers see it.
def _open(file: Path | io.BytesIO) -> Any:
    from PIL import Image as Pictures
    from PIL import ImageOps

    with Pictures.open(file) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")

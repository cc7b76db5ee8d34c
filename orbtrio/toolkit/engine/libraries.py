"""Models that several instances of an engine share, in a directory that all of them see.

Instances start together and want the same model. Each that does not find it downloads it, into a directory of
its own beside the right one, and then gives that its name: renaming is one step, so nobody ever sees half a
model, and whoever comes second throws its copy away. A lock would save the second download; but a lock file
outlives whoever held it, and locks of the operating system do not hold on every shared volume (ET-136).

What is renamed has been written to the disk before, or a machine that loses its power would leave files of
the right names and no content, which nobody downloads again. An instance that is killed while it downloads
leaves its directory behind; whoever downloads next deletes it, once nothing in it has changed for a day.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["keep_library"]

_ATTEMPT: Final = ".tmp-"
# Nothing that downloads is silent for so many seconds.
_GIVEN_UP: Final = 86_400.0


def keep_library(directory: Path, download: Callable[[Path], None], *, name: str = "model") -> Path:
    """Get a model that may be there already.

    Args:
        directory: What all instances share: a task's `library_directory`.
        download: Fills an empty directory with the model; called only if it is not there.
        name: Of the model, if there are several.

    Returns:
        The directory with the whole of it. It is everybody's: read it, and change nothing.

    Raises:
        OSError: the directory cannot be written to.
        Exception: what `download` raised; nothing is left of its attempt.
    """
    kept = directory / name
    if kept.is_dir():
        return kept
    _clear_away(directory)
    attempt = directory / f"{_ATTEMPT}{uuid.uuid4()}"
    attempt.mkdir(parents=True)
    try:
        download(attempt)
        _sync(attempt)
        try:
            attempt.rename(kept)
        except OSError:
            # Refused because somebody was faster, for theirs is not empty. It is the same model.
            if not kept.is_dir():
                raise
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
    return kept


# What killed instances have left.
def _clear_away(directory: Path) -> None:
    limit = time.time() - _GIVEN_UP
    for attempt in directory.glob(f"{_ATTEMPT}*"):
        # Its owner may be about to rename it, or somebody else deletes it too.
        with suppress(OSError):
            if max(path.lstat().st_mtime for path in (attempt, *attempt.rglob("*"))) < limit:
                shutil.rmtree(attempt, ignore_errors=True)


def _sync(directory: Path) -> None:
    for path, _, names in os.walk(directory):
        for each in (path, *(os.path.join(path, name) for name in names)):
            descriptor = os.open(each, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

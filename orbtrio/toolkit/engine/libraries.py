"""Models that several instances of an engine share, in a directory that all of them see.

Instances start together and want the same model. Each that does not find it downloads it, into a directory of
its own beside the right one, and then gives that its name: renaming is one step, so nobody ever sees half a
model, and whoever comes second throws its copy away. A lock would save the second download; but a lock file
outlives whoever held it, and locks of the operating system do not hold on every shared volume (ET-136).
"""

from __future__ import annotations

import shutil
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["keep_library"]


def keep_library(directory: Path, download: Callable[[Path], None], *, name: str = "model") -> Path:
    """Get a model that may be there already.

    Args:
        directory: What all instances share: a task's `library_directory`.
        download: Fills an empty directory with the model; called only if it is not there.
        name: Of the model, if there are several.

    Returns:
        The directory with the whole of it.

    Raises:
        Exception: what `download` raised; nothing is left of its attempt.
    """
    kept = directory / name
    if kept.is_dir():
        return kept
    attempt = directory / f".tmp-{uuid.uuid4()}"
    attempt.mkdir(parents=True)
    try:
        download(attempt)
        # Refused if somebody was faster, for theirs is not empty.
        with suppress(OSError):
            attempt.rename(kept)
        if not kept.is_dir():
            raise OSError(f"the model could not be moved to {kept}")
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
    return kept

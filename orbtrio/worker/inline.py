"""Files for jobs whose engine has its disk elsewhere: the extension ``inline_resources``, P-44.

Such an engine sends the files along with the batch, each once, under the paths that they have at its end.
Here they get a directory and names of their own, and every text of an input that is such a path, to the
letter, is exchanged for the local one. Of the engine's path no more than a harmless suffix is kept, because
models look at it: whatever else it says, nothing is written anywhere else.

A file that cannot be written is the error of the jobs that name it. All disk work is done in threads.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import shutil
import tempfile
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from orbtrio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from orbtrio.worker.jobs import Batch

__all__ = ["InlineFiles", "open_inline_files"]

logger = logging.getLogger("orbtrio.worker")

# Never through what another user may have put there, and never handed on to programs that a model starts.
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_SUFFIX: Final = re.compile(r"\.[A-Za-z0-9]{1,16}\Z")


class InlineFiles:
    """Files that came with batches, in one directory; made by `open_inline_files`.

    Args:
        directory: Where. Ours alone.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count(1)

    async def write(self, batch: Batch) -> None:
        """Write down the files of `batch`, exchange their paths in its inputs, and forget their bytes.

        Cancelling waits until it is done.
        """
        if batch.resources:
            await trio.to_thread.run_sync(self._write, batch)

    async def delete(self, batch: Batch) -> None:
        """Delete the files of `batch`. Cannot be cancelled, for nobody else would."""
        if batch.files:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_delete, batch.files)

    def _write(self, batch: Batch) -> None:
        found: dict[str, str | ValueError] = {}
        while batch.resources:
            path, data = batch.resources.pop()
            suffix = _SUFFIX.search(path)
            local = str(self._directory / f"{next(self._numbers)}{suffix[0] if suffix else ''}")
            batch.files.append(local)
            try:
                with open(local, "xb", opener=_open) as file:
                    file.write(data)
            except OSError as error:
                logger.error("cannot write a job's file to %s: %s", self._directory, error.strerror)
                found[path] = ValueError(f"the worker cannot keep this job's file: {error.strerror}")
            else:
                found[path] = local
        for job in batch.jobs.values():
            job.failure = _exchange(job.input, found)


def _open(path: str, flags: int) -> int:
    return os.open(path, _FLAGS, mode=0o600)


def _delete(files: list[str]) -> None:
    for file in files:
        with suppress(OSError):  # Never written, or the handler was faster.
            os.unlink(file)


# Exchanges paths in place, at any depth of maps and lists; the exception of one that has no file here.
def _exchange(value: Any, found: Mapping[str, str | ValueError]) -> ValueError | None:
    failure = None
    waiting = [value]
    while waiting:
        container = waiting.pop()
        for key, member in container.items() if type(container) is dict else enumerate(container):
            if type(member) is str:
                local = found.get(member, member)
                if isinstance(local, ValueError):
                    failure = local
                elif local is not member:
                    # A key that is there: neither does the map grow, nor does the list.
                    container[key] = local
            elif type(member) in (dict, list):
                waiting.append(member)
    return failure


@asynccontextmanager
async def open_inline_files() -> AsyncIterator[InlineFiles]:
    """Have a directory for files, below the system's for temporary ones; it is gone at the end.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        directory = await trio.to_thread.run_sync(partial(tempfile.mkdtemp, prefix="orbtrio-worker-"))
    except OSError as error:
        raise ConfigError(
            f"ORB_INLINE_RESOURCES needs a directory for temporary files: {error}; set TMPDIR to one"
        ) from None
    try:
        yield InlineFiles(Path(directory))
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(partial(shutil.rmtree, directory, ignore_errors=True))

"""What a soak puts in the place of the machine: a disk with faults.

Threads end when they like, and the order in which they end would be another one in each run. So what the
store gives to a thread is done by the task that waits for it, after a time that the seed has drawn.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar
from unittest import mock

import trio

from orbtrio.engine import _disk, resources

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = ["Disk", "files_below", "listen_for_errors"]

_T = TypeVar("_T")

_INLINE_BYTES: Final = 64 * 1024


class Disk:
    """The real disk, with faults to be switched on.

    Attributes:
        full: A write fails half-way.
        stuck: Nothing can be deleted.
        delay: Longest time that a thread takes for a call, in seconds.
    """

    def __init__(self, rng: random.Random) -> None:
        self.full = False
        self.stuck = False
        self.delay = 0.0
        self._rng = rng
        self._write_all = _disk._write_all
        self._unlink = _disk._unlink

    def heal(self) -> None:
        """No fault any more."""
        self.full = self.stuck = False
        self.delay = 0.0

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Stand under every store of this process."""
        with ExitStack() as stack:
            for module, name, stand_in in (
                (resources, "_in_thread", self._in_thread),
                # By the real clock a disk is judged, and what a judgement changes, no seed could repeat.
                (resources, "_SLOW_DISK", float("inf")),
                # Or no resource of a small soak would be large enough for a thread.
                (resources, "_INLINE_BYTES", _INLINE_BYTES),
                (_disk, "_write_all", self._write),
                (_disk, "_unlink", self._delete),
            ):
                stack.enter_context(mock.patch.object(module, name, stand_in))
            yield

    async def _in_thread(self, function: Callable[..., _T], *args: Any, limiter: object = None) -> _T:
        await trio.sleep(self._rng.uniform(0, self.delay) if self.delay else 0)
        return function(*args)

    def _write(self, descriptor: int, data: bytes) -> None:
        if not self.full:
            self._write_all(descriptor, data)
            return
        self._write_all(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _delete(self, names: Iterable[str], directory: int) -> frozenset[str]:
        return frozenset(names) if self.stuck else self._unlink(names, directory)


def files_below(root: Path) -> list[str]:
    """Names of all files of a store, its lock excepted."""
    return sorted(path.name for path in root.rglob("*") if path.is_file() and path.name != ".lock")


class _Ear(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(self.format(record))


@contextmanager
def listen_for_errors() -> Iterator[list[str]]:
    """What the engine logs as errors: it must have no reason to, whatever peers do (I7)."""
    logger = logging.getLogger("orbtrio")
    ear = _Ear()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(ear)
    try:
        yield ear.heard
    finally:
        logger.removeHandler(ear)
        logger.propagate = propagate

"""A folder that pictures come into: each is handed on once, as soon as it is whole.

A file appears long before it is complete. It counts as whole when two looks have found it unchanged and its
last bytes are those with which its format ends; a format without such an end, or a file with something behind
it, as phones append, has to stay unchanged for longer. Whoever renames finished files into the folder waits
for two looks only.

To look is portable and knows network disks, which tell nobody of what comes. Rejected: inotify.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import trio

from orbtrio.client._program_inputs import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

__all__ = ["Watcher", "ends_rightly"]

# Without a format's end to go by, so long unchanged is whole. Seconds.
_SETTLED: Final = 5.0
_TAIL: Final = 64


@attrs.define
class _Seen:
    # What a file looked like, since when it has, and whether it has been handed on like that.
    shape: tuple[int, int]
    since: float
    done: bool = False


class Watcher:
    """Looks into a folder again and again.

    Args:
        folder: Its pictures are handed on; those in folders inside are not.
        interval: Seconds between two looks.
        existing: Whether those count that are there already.

    Attributes:
        problem: Why the last look failed, if it did; the folder is looked for again.
    """

    def __init__(self, folder: Path, *, interval: float = 0.5, existing: bool = False) -> None:
        self.problem = ""
        self._folder = folder
        self._interval = interval
        self._existing = existing
        self._seen: dict[str, _Seen] = {}
        self._say: Callable[[str], None] = lambda text: None

    async def pictures(self, say: Callable[[str], None] = lambda text: None) -> AsyncGenerator[Path, None]:
        """New pictures, and those that have been written anew, for ever.

        Args:
            say: Told when the folder cannot be looked into, and when it can be again.
        """
        self._say = say
        if not self._existing:
            for name, shape in (await self._look() or {}).items():
                self._seen[name] = _Seen(shape, trio.current_time(), done=True)
        while True:
            for path in await self._whole():
                yield path
            await trio.sleep(self._interval)

    async def _whole(self) -> list[Path]:
        found = await self._look()
        if found is None:
            return []  # Nothing is known of its pictures; forgotten, all would be new when it is back.
        now = trio.current_time()
        # Names that are gone are forgotten: what comes under such a name is new.
        self._seen = {name: seen for name, seen in self._seen.items() if name in found}
        whole = []
        for name, shape in sorted(found.items(), key=lambda item: item[1][1]):
            seen = self._seen.get(name)
            if seen is None or seen.shape != shape:
                self._seen[name] = _Seen(shape, now)
            elif not seen.done and shape[0]:
                path = self._folder / name
                settled = now - seen.since >= _SETTLED
                if settled or await trio.to_thread.run_sync(ends_rightly, path, abandon_on_cancel=True):
                    seen.done = True
                    whole.append(path)
        return whole

    # Size and time of each picture, by its name; None if it cannot be known.
    async def _look(self) -> dict[str, tuple[int, int]] | None:
        found, problem = None, ""
        try:
            found = await trio.to_thread.run_sync(_list, self._folder, abandon_on_cancel=True)
        except OSError as error:
            problem = f"{self._folder}: {error.strerror}"
        if problem != self.problem:
            self.problem = problem
            self._say(f"{problem}; looking again" if problem else f"{self._folder}: there again")
        return found


def _list(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            # Hidden ones are what programs write to before they rename.
            if entry.name.startswith(".") or Path(entry.name).suffix.lower() not in PICTURE_SUFFIXES:
                continue
            # Gone since, a link that leads nowhere or in a circle: that one's trouble, not the folder's.
            with suppress(OSError):
                if entry.is_file():
                    status = entry.stat()
                    found[entry.name] = (status.st_size, status.st_mtime_ns)
    return found


def ends_rightly(path: Path) -> bool:
    """Whether a file ends as its format does; of formats without an end, False."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
            size = file.seek(0, os.SEEK_END)
            file.seek(-min(size, _TAIL), os.SEEK_END)
            tail = file.read()
    except OSError:
        return False
    if head.startswith(b"\xff\xd8"):  # JPEG
        return tail.rstrip(b"\0").endswith(b"\xff\xd9")
    if head.startswith(b"\x89PNG"):
        return b"IEND" in tail[-12:]
    if head.startswith(b"GIF8"):
        return tail.endswith(b"\x3b")
    if head.startswith(b"RIFF"):  # WebP
        return size >= 8 + int.from_bytes(head[4:8], "little")
    if head.startswith(b"BM"):
        return size >= int.from_bytes(head[2:6], "little")
    return False

"""Directories that the engine gets: for a task, for the engine, for a library's model.

```
<cache>/<shard>/task/<internalJobId>/<internalTaskId>/tmp    scratch, purged when unused for three days
<cache>/<shard>/engine/<engineId>                            shared by all instances of an engine
<cache>/<shard>/libraries/<libraryId>/<libraryEngineModelId> shared by tasks and instances
<cache>/engines/<engineId>/<buildId>                         what a runner of flows reads
```

Ids come out of jobs and become names here, so they are refused unless they are one plain component of a path.
They are not made harmless by quoting, for engines and their operators look for a library under its id.

**Modes.** The engine may run as another user than we do. Who that can be is said by whoever makes the cache
directory, through its group: what we make below it is ``rwxrws---``, whatever the umask, and the group is
inherited where the cache directory has the setgid bit. Nobody else can look, since chunks and models are
other people's data. A cache directory that we have to make ourselves is for our user alone. Rejected:
``rwxrwxrwx`` and the sticky bit, with which no group has to be arranged, and every user of the machine can
read and replace a model that an engine is going to load.

**Purging** is by the newest modification time in the whole of a task's directory. Several toolkits share a
cache and none knows what the others have open, so each purge touches what is open here: that is new for all
of them, as long as each purges more often than things get old. A directory is renamed before it is deleted,
and its age looked at again under the new name, so that a task that begins in between either finds no
directory and makes one, or has made it look new. Links are never followed, since engines may make any:
everything goes by descriptors of directories.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from orbtrio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from orbtrio.toolkit.jobs import TaskInput
    from orbtrio.toolkit.settings import ToolkitSettings

__all__ = ["Directories"]

logger = logging.getLogger("orbtrio.toolkit")

_MODE: Final = stat.S_ISGID | stat.S_IRWXU | stat.S_IRWXG
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# What file systems take for a component, in bytes.
_LONGEST_NAME: Final = 255
# No id begins like this.
_DOOMED: Final = ".purge-"
# Purging against starting is a race of two; that the same task is purged twice while it starts is none.
_TRIES: Final = 3
_TOMORROW: Final = 86_400.0


class Directories:
    """Makes and purges directories. Its methods block as long as a disk does; `purge` belongs into a thread.

    Args:
        settings: Names the cache directory, the shard and the engine, and says when things are old.

    Raises:
        ConfigError: shard or engine cannot be directories' names.
    """

    def __init__(self, settings: ToolkitSettings) -> None:
        self._cache = settings.cache_directory
        try:
            self._root = self._cache / _name("ORB_TOOLKIT_SHARD", settings.shard)
            self._engine = self._root / "engine" / _name("ENGINE_ID", settings.engine_id)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self._tasks = self._root / "task"
        # They are there before and after a task.
        self._lasting = {str(path) for path in (self._root, self._tasks, self._engine.parent, self._engine)}
        self._purge_after = settings.purge_after

    @property
    def engine(self) -> Path:
        """Where all instances of the engine may keep what they share. It exists.

        Raises:
            OSError: it cannot be made.
        """
        return self._make(self._engine)

    def task(self, task: TaskInput) -> Path:
        """Where the engine may put what it needs while it works at a task. It exists, and is not purged soon.

        Raises:
            ValueError: an id cannot be a directory's name; the text says which and why.
            OSError: it cannot be made.
        """
        home = self._task_home(task.internal_job_id, task.internal_task_id)
        for _ in range(_TRIES - 1):
            try:
                return self._new(home)
            except FileNotFoundError:  # Just purged.
                continue
        return self._new(home)

    def library(self, task: TaskInput) -> Path | None:
        """Where the engine may keep a model of a library. It exists; None if the task names none.

        Raises:
            ValueError: an id cannot be a directory's name; the text says which and why.
            OSError: it cannot be made.
        """
        if not task.library_id or not task.library_engine_model_id:
            return None
        library = _name("libraryId", task.library_id)
        model = _name("libraryEngineModelId", task.library_engine_model_id)
        return self._make(self._root / "libraries" / library / model)

    def build(self, build_id: str) -> Path:
        """Where a build of the engine has its runtime definition. It exists. For all shards, as ET-55 says.

        Raises:
            ValueError: the id cannot be a directory's name; the text says why.
            OSError: it cannot be made.
        """
        return self._make(self._cache / "engines" / self._engine.name / _name("BUILD_ID", build_id))

    def purge(self, open_tasks: Collection[tuple[str, str]]) -> int:
        """Delete the directories of tasks that nobody has used for long.

        Args:
            open_tasks: Internal ids of job and task of those that are in hand here.

        Returns:
            How many were deleted. What cannot be deleted is logged and left.
        """
        for job_id, task_id in open_tasks:
            # It may not have come to making one.
            with suppress(OSError, ValueError):
                os.utime(self._task_home(job_id, task_id) / "tmp")
        count = 0
        for job in _subdirectories(self._tasks):
            for task in _subdirectories(job):
                if (task.parent.name, task.name) not in open_tasks:
                    count += self._purge(task)
            # Only an empty one goes, and a new task makes it again.
            with suppress(OSError):
                os.rmdir(job)
        return count

    def _task_home(self, job_id: str, task_id: str) -> Path:
        return self._tasks / _name("internalJobId", job_id) / _name("internalTaskId", task_id)

    def _new(self, home: Path) -> Path:
        path = self._make(home / "tmp")
        os.utime(path)
        return path

    # Like mkdir -p, but with our modes, and through no link below the cache directory.
    def _make(self, path: Path) -> Path:
        try:
            status = os.stat(self._cache)
        except FileNotFoundError:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self._cache.mkdir(mode=stat.S_IRWXU)
            status = os.stat(self._cache)
        _check_owner(self._cache, status)
        step = str(self._cache)
        for part in path.relative_to(self._cache).parts:
            step = os.path.join(step, part)
            # With every job. To look costs half of what it costs to fail at making what is there.
            if step in self._lasting:
                with suppress(FileNotFoundError):
                    if stat.S_ISDIR(os.lstat(step).st_mode):
                        continue
            try:
                os.mkdir(step, stat.S_IRWXU)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(step).st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, "not a directory", step) from None
            else:
                _set_mode(step)
        return path

    def _purge(self, home: Path) -> bool:
        limit = time.time() - self._purge_after
        try:
            if _used_since(home, limit):
                return False
            doomed = home.with_name(f"{_DOOMED}{secrets.token_hex(8)}")
            os.rename(home, doomed)
            if _used_since(doomed, limit):
                os.rename(doomed, home)
                return False
            shutil.rmtree(doomed)
        # A tree may be deeper than Python can follow; an engine that makes one must not end the purge.
        except (OSError, RecursionError) as error:
            logger.warning("a task's directory cannot be purged: %s: %s", home, error)
            return False
        return True


def _name(field: str, value: str) -> str:
    if not value:
        raise ValueError(f"{field} is empty: it names a directory")
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{field} holds half a character: it names a directory") from None
    if len(encoded) > _LONGEST_NAME:
        raise ValueError(f"{field} has {len(encoded)} bytes: a directory's name has {_LONGEST_NAME} at most")
    if "/" in value or value.startswith(".") or not value.isprintable():
        raise ValueError(
            f"{field} is {value!r}: it names a directory, so it must not begin with a dot or hold a slash or"
            " control characters"
        )
    return value


# In /tmp anybody may have made, under the name that we use by default, a directory to read what we put there.
def _check_owner(cache: Path, status: os.stat_result) -> None:
    if status.st_uid not in (os.geteuid(), 0) and cache.parent.stat().st_mode & stat.S_IWOTH:
        message = "belongs to another user; set ORB_TOOLKIT_CACHE to a directory of your own"
        raise PermissionError(errno.EPERM, message, str(cache))


def _set_mode(path: str) -> None:
    descriptor = os.open(path, _DIRECTORY)
    try:
        os.fchmod(descriptor, _MODE)
    finally:
        os.close(descriptor)


def _subdirectories(path: Path) -> Iterator[Path]:
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    # An engine may do to its directories what it likes; the others are purged all the same.
    except OSError as error:
        logger.warning("tasks' directories cannot be purged: %s: %s", path, error.strerror)
        return
    for name in names:
        yield path / name


# Anything below has been changed since then. Dates in the future come out of archives and mean nothing.
def _used_since(home: Path, limit: float) -> bool:
    future = time.time() + _TOMORROW
    if limit < os.lstat(home).st_mtime < future:
        return True
    for _, directories, files, descriptor in os.fwalk(home):
        for name in (*directories, *files):
            with suppress(FileNotFoundError):
                changed = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mtime
                if limit < changed < future:
                    return True
    return False

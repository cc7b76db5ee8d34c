"""The locked directory below which resource files live: every name in it, every system call on it.

All of it is synchronous, may block, and fails with plain `OSError`. `resources.py` calls it, mostly from
threads, and alone knows why a file exists and when it ends.

Only the root is ever reached by a path. Whatever stands below it is opened relative to its parent's
descriptor and without following links, so a link planted there is met, not followed. No descriptor below the
root is kept: to walk down again takes 10 µs of the 40 that the smallest file costs, notices a directory that
was deleted, moved or replaced meanwhile, and heals once it is a directory again. To keep one open per tenant
would be a thousand descriptors for a thousand clients, and would go on writing into a directory that has been
moved away, under a path that names nothing.

Whoever moves a directory away has taken the files in it: what is no longer below the root is no longer ours
to delete.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import filetype

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

__all__ = ["LockedDirectory", "WriteFailed", "extension", "file_name", "plain_name"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# Spec, "Storage": {tenant_id}/files/frames/{resource_id}-{nonce}.{ext}
_LAYOUT: Final = ("files", "frames")
# Hidden, so that no tenant's folder can have this name.
_LOCK: Final = ".lock"
_PARTIAL: Final = ".tmp"

# A name that needs no quoting anywhere: no separators, nothing hidden, nothing that looks like an option.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", re.ASCII)
# What `file_name` makes. A sweep deletes nothing else.
_OURS: Final = re.compile(_PLAIN.pattern + r"-[0-9a-f]{16}\.[a-z0-9]{2,4}(\.tmp)?", re.ASCII)

# By magic bytes: what `filetype` calls it, and what a reader of our files expects. Its other kinds are not
# asked for: they would cost another 35 µs where nothing matches, and whatever they might recognise (programs,
# archives) is "bin" to us all the same.
_EXTENSIONS: Final = {
    name: name
    for name in (
        *("jpg", "png", "webp", "gif", "bmp", "avif", "heic", "pdf"),
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mp3", "m4a", "ogg", "flac", "wav"),
    )
} | {"tif": "tiff"}
_MATCHERS: Final = tuple(kind for kind in filetype.types if kind.extension in _EXTENSIONS)
_MAGIC_BYTES: Final = 8192  # the library looks at no more

# A folder may be removed between two steps of a write, because its tenant had just left: then start again.
_RETRIES: Final = 2


def extension(kind: str, data: bytes | memoryview) -> str:
    """An extension out of a fixed table, by magic bytes; ``"txt"`` for any document; else ``"bin"``. B-63."""
    if kind == "document":
        return "txt"
    found = filetype.match(bytes(data[:_MAGIC_BYTES]), _MATCHERS)
    return "bin" if found is None else _EXTENSIONS[found.extension]


def file_name(resource_id: str, extension: str) -> str:
    """A new name for a resource's file, never given before.

    The nonce keeps apart what some file systems hold for the same name, such as two ids that differ in case.
    """
    return f"{plain_name(resource_id)}-{secrets.token_hex(8)}.{extension}"


def plain_name(name: str) -> str:
    """One component of a path, whatever `name` holds: itself if it is plain, else a digest of it. B-61."""
    if _PLAIN.fullmatch(name):
        return name
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class WriteFailed(Exception):
    """No file of the call was kept.

    Attributes:
        cause: What the system said.
        left: Files that could not be removed again: their names on disk, by the names they were to have.
    """

    def __init__(self, cause: OSError, left: Mapping[str, str]) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.left = left


class LockedDirectory:
    """The root of a store, held by this process alone. Its methods may be called by several threads at once.

    Attributes:
        path: Absolute; links above the root are resolved once and for all, the root itself must not be one.
    """

    def __init__(self, path: str) -> None:
        """Create the directory if need be, and lock it.

        Raises:
            BlockingIOError: another process, or another store of this one, holds the lock.
            OSError: it cannot be created, opened or made private.
        """
        parent, name = os.path.split(os.path.abspath(path))
        self.path = os.path.join(os.path.realpath(parent), name)
        self._descriptors: list[int] = []
        self._opening = threading.Lock()
        self._root = self._open_root()

    def close(self) -> None:
        """Give the lock back. No other method may be running, or be called any more."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def file_path(self, folder: str, name: str) -> str:
        """The absolute path of a file."""
        return os.path.join(self.path, folder, *_LAYOUT, name)

    def write(self, folder: str, files: Mapping[str, bytes | memoryview]) -> None:
        """Write all files into a folder, each whole before it has its name; or none.

        Raises:
            WriteFailed: nothing was written.
        """
        for _ in range(_RETRIES):
            try:
                self._write(folder, files)
            except WriteFailed as failure:
                if not isinstance(failure.cause, FileNotFoundError):
                    raise
            else:
                return
        self._write(folder, files)

    def delete(self, names: Mapping[str, Collection[str]]) -> frozenset[str]:
        """Delete files, given by folder; those already gone are no matter.

        Returns:
            The names of those that could not be deleted.
        """
        left: set[str] = set()
        for folder, names_there in names.items():
            try:
                with self._descend(folder) as (*_, frames):
                    left |= _unlink(names_there, frames)
            except FileNotFoundError:
                pass
            except OSError:
                left.update(names_there)
        return frozenset(left)

    def remove_folders(self, folders: Iterable[str]) -> None:
        """Remove those folders in which nothing is."""
        for folder in folders:
            with suppress(OSError), self._descend(folder) as descriptors:
                # From the inside out; the first that is not empty ends it.
                for name, parent in reversed(list(zip((folder, *_LAYOUT), descriptors, strict=False))):
                    os.rmdir(name, dir_fd=parent)

    def sweep(self, checkpoint: Callable[[], None] = lambda: None) -> tuple[int, int]:
        """Delete what a killed engine left: files of our naming in our layout, and folders thus emptied.

        Args:
            checkpoint: Called before each folder; may raise to stop the sweep.

        Returns:
            How many files were deleted, and how many could not be.
        """
        deleted = failed = 0
        for folder in _entries(self._root, os.DirEntry.is_dir):
            checkpoint()
            try:
                with self._descend(folder) as (*_, frames):
                    names = [name for name in _entries(frames, os.DirEntry.is_file) if _OURS.fullmatch(name)]
                    left = _unlink(names, frames)
            except OSError:  # not of our layout
                continue
            deleted += len(names) - len(left)
            failed += len(left)
            self.remove_folders([folder])
        return deleted, failed

    def _write(self, folder: str, files: Mapping[str, bytes | memoryview]) -> None:
        written: dict[str, str] = {}
        try:
            with self._descend(folder, create=True) as (*_, frames):
                try:
                    for name, data in files.items():
                        partial = name + _PARTIAL
                        descriptor = os.open(partial, _NEW_FILE, 0o600, dir_fd=frames)
                        written[name] = partial
                        _write_all(descriptor, data)
                        os.rename(partial, name, src_dir_fd=frames, dst_dir_fd=frames)
                        written[name] = name
                except OSError:
                    left = _unlink(written.values(), frames)
                    written = {name: on_disk for name, on_disk in written.items() if on_disk in left}
                    raise
        except OSError as error:
            raise WriteFailed(error, written) from error

    # Descriptors of the root, of a folder in it, and of each directory of the layout below that.
    @contextmanager
    def _descend(self, folder: str, *, create: bool = False) -> Iterator[list[int]]:
        descriptors = [self._checked_root(create=create)]
        try:
            for name in (folder, *_LAYOUT):
                descriptors.append(_open_directory(name, descriptors[-1], create=create))
            yield descriptors
        finally:
            for descriptor in descriptors[1:]:
                os.close(descriptor)

    # The root's descriptor, if the root's path still leads to it. If it does not, a write begins anew in
    # whatever directory is there, or in a new one, for a store that somebody has cleared by hand is the
    # likeliest accident of all. The old descriptor stays open until the end: another thread may be using it.
    def _checked_root(self, *, create: bool) -> int:
        with self._opening:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(self.path, follow_symlinks=False), os.fstat(self._root)):
                    return self._root
            if not create:
                raise FileNotFoundError(errno.ENOENT, "the store's directory is gone", self.path)
            self._root = self._open_root()
            return self._root

    def _open_root(self) -> int:
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        root = os.open(self.path, _DIRECTORY)
        try:
            # Nobody else can then plant anything below it.
            if stat.S_IMODE(os.fstat(root).st_mode) & 0o077:
                os.fchmod(root, 0o700)
            # A file that stays when we go: to delete a lock file lets two engines hold "the" lock, one on the
            # old file, one on a new one.
            lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=root)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BaseException:
                os.close(lock)
                raise
        except BaseException:
            os.close(root)
            raise
        self._descriptors += (lock, root)
        return root


def _open_directory(name: str, parent: int, *, create: bool) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    return os.open(name, _DIRECTORY, dir_fd=parent)


# Write everything and close.
def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    try:
        written = os.write(descriptor, data)
        # The system may take less than all of it, as it does just before the disk is full.
        while written < len(data):
            count = os.write(descriptor, memoryview(data)[written:])
            if not count:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            written += count
    finally:
        os.close(descriptor)


# Unlink what is there; return what could not be.
def _unlink(names: Iterable[str], directory: int) -> frozenset[str]:
    left = []
    for name in names:
        try:
            os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            pass
        except OSError:
            left.append(name)
    return frozenset(left)


# Names of the directories, or of the regular files, in a directory; links are neither.
def _entries(directory: int, is_wanted: Callable[..., bool]) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if is_wanted(entry, follow_symlinks=False)]

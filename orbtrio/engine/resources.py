"""Resources of open jobs, as files: who still needs which, how much they may take, when they go.

A resource becomes a file when its request arrives and is deleted when the last job that names it has ended.
In between it has *claims*: one per id from `ResourceStore.hold` for the request itself, one per job from
`retain`, given back by `release`. Files without claims wait for the cleaner.

This module keeps the books and touches no disk; `_disk.py` touches the disk and keeps no books. All books
are kept on the event loop, without locks: threads get and return plain values.

Writing. Few files, of 2 MiB together, are written where we stand: the system takes them in less than a
millisecond, and a thread fights with the loop for the interpreter at each system call (a file of 100 KB takes
25 % less CPU without). A disk that keeps the loop waiting loses this trust for a minute, then for two, and so
on. More goes to a thread in one hop, at most `_WRITERS` at a time. The thread belongs to a task of the store,
not to the caller, who can thus be cancelled at once: whoever finishes last sees to it that the files go.

Deleting. One task deletes what has gathered in a tenth of a second, in one hop. What could not be deleted is
tried again, ever more rarely, and counts against the quota until it is gone.
"""

from __future__ import annotations

import errno
import logging
import math
import time
from collections import Counter
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from orbtrio._nursery import open_service_nursery
from orbtrio.engine._disk import LockedDirectory, WriteFailed, extension, file_name, plain_name
from orbtrio.errors import ConfigError, OrbError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable, Iterable, Sequence
    from pathlib import Path

    from orbtrio.protocol.messages import Resource

__all__ = ["HeldFile", "ResourceStore", "StoreError", "StoreFull", "StoreLocked", "StoreUsage", "open_store"]

_log = logging.getLogger("orbtrio.engine.resources")

# Cancelled by `_run` alone, and only if the disk hangs at the end.
_in_thread: Final = partial(trio.to_thread.run_sync, abandon_on_cancel=True)

_WRITERS: Final = 4
_INLINE_BYTES: Final = (2 << 20) + 1  # so much is too much, and the largest resource is not
_INLINE_FILES: Final = 4
_SLOW_DISK: Final = 0.1  # less may be a processor that others use
_GATHER: Final = 0.1  # of the second that P-42 gives us
_FIRST_RETRY: Final = 1.0
_MINUTE: Final = 60.0
_EXIT_TIMEOUT: Final = 1.5  # an engine told twice to stop has two seconds (F-27)


class StoreError(OrbError):
    """Resources cannot be stored until the directory is well again. The text is fit for a peer."""


class StoreFull(StoreError):
    """The quota or the disk has no room; try again when jobs have ended."""


class StoreLocked(ConfigError):
    """Another engine uses the directory; the text says what to change."""


@attrs.define(eq=False)
class HeldFile:
    """One file, which exists as long as somebody claims it.

    Attributes:
        path: Absolute.
        size_bytes: Of its content.
        claims: How many jobs and requests need it. Changed by `ResourceStore` only.
    """

    path: str
    size_bytes: int
    claims: int
    _folder: str = attrs.field(repr=False)
    _name: str = attrs.field(repr=False)


@attrs.define
class StoreUsage:
    """The store at one moment.

    Attributes:
        files: On disk or being written, also those that wait for their deletion.
        bytes: What they count against the quota.
        pending_deletions: Files that nobody claims any more.
        failed_deletions: Attempts that failed, since the start.
    """

    files: int = 0
    bytes: int = 0
    pending_deletions: int = 0
    failed_deletions: int = 0


# One call of `hold` whose files a thread writes.
@attrs.define(eq=False)
class _Writing:
    folder: str
    held: dict[str, HeldFile] = attrs.Factory(dict)  # by resource id
    files: list[HeldFile] = attrs.Factory(list)  # each once
    contents: dict[str, bytes | memoryview] = attrs.Factory(dict)  # by file name
    size_bytes: int = 0
    finished: trio.Event = attrs.Factory(trio.Event)
    failure: WriteFailed | None = None
    unwanted: bool = False


class ResourceStore:
    """Files of open jobs; see `open_store`. Only `hold` waits, everything else is synchronous and at once."""

    def __init__(self, directory: LockedDirectory, quota_bytes: int) -> None:
        self._directory = directory
        self._quota_bytes = quota_bytes
        self._trusted_from = -math.inf
        self._distrust = _MINUTE
        self._now = StoreUsage()
        self._folders: Counter[str] = Counter()  # files in each
        self._forgotten: set[str] = set()  # folders to be removed when they are empty
        self._held: set[HeldFile] = set()
        self._unclaimed: list[HeldFile] = []
        self._stuck: list[HeldFile] = []  # could not be deleted
        self._retry_delay = _FIRST_RETRY
        self._retry_at = math.inf
        self._quiet_until = -math.inf
        self._work = trio.Event()
        self._closing = trio.Event()
        self._writers = trio.CapacityLimiter(_WRITERS)
        # On its own: deletions make room, so they must not queue behind writes.
        self._cleaner = trio.CapacityLimiter(1)

    @property
    def statistics(self) -> StoreUsage:
        """A snapshot."""
        return attrs.evolve(self._now)

    async def hold(self, tenant: str, resources: Sequence[Resource]) -> dict[str, HeldFile]:
        """Write resources to files: all or none, and none if cancelled. Same bytes become one file.

        Args:
            tenant: Whose they are; chooses the folder. Any text.
            resources: With distinct ids.

        Returns:
            Each resource's file, by resource id. Every entry is one claim, to be released by the caller.

        Raises:
            StoreFull: no room. Nothing is wrong with the request.
            StoreError: the directory cannot be written to.

        Spec: "Storage".
        """
        await trio.lowlevel.checkpoint()
        if self._closing.is_set():
            raise StoreError("the engine is stopping")
        writing = self._prepare(tenant, resources)
        few = len(writing.files) <= _INLINE_FILES and writing.size_bytes < _INLINE_BYTES
        if few and trio.current_time() >= self._trusted_from:
            self._write_here(writing)
        else:
            self._nursery.start_soon(self._write, writing)
            try:
                await writing.finished.wait()
            except BaseException:
                writing.unwanted = True
                if writing.finished.is_set() and writing.failure is None:
                    self._discard(writing.files)
                raise
        if writing.failure is not None:
            error = writing.failure.cause
            self._warn("cannot write: %s", error)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFull("the engine's disk is full") from error
            raise StoreError("the engine cannot store resources at present") from error
        if self._closing.is_set():  # while a thread wrote: the files go, or are gone
            raise StoreError("the engine is stopping")
        return writing.held

    def retain(self, file: HeldFile) -> None:
        """Claim a file once more, for a job that names it."""
        if not file.claims:
            raise ValueError("nobody claims this file any more, so it may be gone")
        file.claims += 1

    def release(self, file: HeldFile) -> None:
        """Give one claim back; within a second of the last the file is gone. Spec: "Resource Lifecycle"."""
        if not file.claims:
            raise ValueError("released more often than claimed")
        file.claims -= 1
        if not file.claims:
            self._unclaim(file)

    def forget_tenant(self, tenant: str) -> None:
        """Remove a tenant's directories as soon as they are empty; its next `hold` makes new ones."""
        folder = plain_name(tenant)
        if folder in self._folders:
            self._forgotten.add(folder)
            self._work.set()

    # Name the files of a request, and count them before a byte is written.
    def _prepare(self, tenant: str, resources: Sequence[Resource]) -> _Writing:
        writing = _Writing(plain_name(tenant))
        distinct: dict[Hashable, HeldFile] = {}
        # To hash 2 MiB takes 0.45 ms, to compare views forty times what bytes do: only where lengths agree.
        shapes = Counter((resource.kind, len(resource.data)) for resource in resources)
        for resource in resources:
            shape = (resource.kind, len(resource.data))
            key: Hashable = (resource.kind, bytes(resource.data)) if shapes[shape] > 1 else shape
            file = distinct.get(key)
            if file is None:
                name = file_name(resource.resource_id, extension(resource.kind, resource.data))
                path = self._directory.file_path(writing.folder, name)
                file = distinct[key] = HeldFile(path, len(resource.data), 0, writing.folder, name)
                writing.files.append(file)
                writing.contents[name] = resource.data
                writing.size_bytes += file.size_bytes
            file.claims += 1
            writing.held[resource.resource_id] = file
        if self._now.bytes + writing.size_bytes > self._quota_bytes:
            self._warn("full: %d bytes; ORB_STORE_QUOTA_BYTES allows %d", self._now.bytes, self._quota_bytes)
            raise StoreFull("the engine's store for resources is full")
        self._now.bytes += writing.size_bytes
        self._now.files += len(writing.files)
        self._folders[writing.folder] += len(writing.files)
        self._forgotten.discard(writing.folder)
        return writing

    def _write_here(self, writing: _Writing) -> None:
        began = time.perf_counter()
        try:
            self._directory.write(writing.folder, writing.contents)
        except WriteFailed as failure:
            writing.failure = failure
        if time.perf_counter() - began > _SLOW_DISK:
            self._trusted_from = trio.current_time() + self._distrust
            self._distrust = min(2 * self._distrust, 60 * _MINUTE)
        self._finish(writing)

    async def _write(self, writing: _Writing) -> None:
        try:
            await _in_thread(self._directory.write, writing.folder, writing.contents, limiter=self._writers)
        except WriteFailed as failure:
            writing.failure = failure
        self._finish(writing)
        writing.finished.set()

    def _finish(self, writing: _Writing) -> None:
        if writing.failure is None:
            self._held.update(writing.files)
            if writing.unwanted:
                self._discard(writing.files)
            return
        for file in writing.files:
            if file._name in writing.failure.left:
                file._name = writing.failure.left[file._name]
                self._unclaim(file)
            else:
                self._uncount(file)

    def _discard(self, files: Iterable[HeldFile]) -> None:
        for file in files:
            file.claims = 0
            self._unclaim(file)

    def _unclaim(self, file: HeldFile) -> None:
        self._held.discard(file)
        self._unclaimed.append(file)
        self._now.pending_deletions += 1
        self._work.set()

    def _uncount(self, file: HeldFile) -> None:
        self._now.files -= 1
        self._now.bytes -= file.size_bytes
        self._folders[file._folder] -= 1

    # Write and delete until `_closing`, then delete all there is and give the directory back. Not to
    # be cancelled from outside: it is what makes sure that nothing is left.
    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope(shield=True) as life:
            async with trio.open_nursery() as patience:
                async with trio.open_nursery() as self._nursery:
                    task_status.started()
                    while not self._closing.is_set():
                        with trio.move_on_at(self._retry_at):
                            await self._work.wait()
                        with trio.move_on_after(_GATHER):
                            await self._closing.wait()
                        self._work = trio.Event()
                        await self._clean(retry=trio.current_time() >= self._retry_at)
                    patience.start_soon(_cancel_after, _EXIT_TIMEOUT, life)
                self._discard(list(self._held))  # no writer is at work any more
                self._forgotten.update(self._folders)
                await self._clean(retry=True)
                patience.cancel_scope.cancel()
        if self._now.files:
            _log.warning("%s: the next start has %d files to sweep", self._directory.path, self._now.files)
        # A thread that hangs may still write to the directory: then the lock lives as long as the process.
        if not life.cancelled_caught:
            self._directory.close()

    # Delete what nobody claims, then the directories that nobody needs.
    async def _clean(self, *, retry: bool) -> None:
        due, self._unclaimed = self._unclaimed, []
        if retry:
            due += self._stuck
            self._stuck = []
        names: dict[str, list[str]] = {}
        for file in due:
            names.setdefault(file._folder, []).append(file._name)
        left = await _in_thread(self._directory.delete, names, limiter=self._cleaner) if due else frozenset()
        for file in due:
            if file._name in left:
                self._stuck.append(file)
            else:
                self._now.pending_deletions -= 1
                self._uncount(file)
        self._schedule_retry(len(left), retried=retry)
        empty = [folder for folder in self._forgotten if not self._folders[folder]]
        for folder in empty:
            self._forgotten.remove(folder)
            del self._folders[folder]
        if empty:
            await _in_thread(self._directory.remove_folders, empty, limiter=self._cleaner)

    def _schedule_retry(self, failed: int, *, retried: bool) -> None:
        if failed:
            self._now.failed_deletions += failed
            self._warn("cannot delete %d files", failed)
            if retried or math.isinf(self._retry_at):
                self._retry_at = trio.current_time() + self._retry_delay
                self._retry_delay = min(2 * self._retry_delay, _MINUTE)
        elif not self._stuck:
            self._retry_at = math.inf
            self._retry_delay = _FIRST_RETRY

    def _warn(self, text: str, *args: object) -> None:
        if trio.current_time() >= self._quiet_until:
            self._quiet_until = trio.current_time() + _MINUTE
            _log.warning("%s: " + text, self._directory.path, *args)


@asynccontextmanager
async def open_store(root: Path, *, quota_bytes: int) -> AsyncIterator[ResourceStore]:
    """Keep resources as files below `root` while the block runs; at its end all of them are deleted.

    What an engine that was killed left there is deleted first.

    Args:
        root: Made if need be, with mode 0700. It must not be a link itself.
        quota_bytes: Most bytes of files at a time.

    Raises:
        StoreLocked: another engine uses `root`.
        StoreError: `root` cannot be used; the text says why.
    """
    try:
        directory = await trio.to_thread.run_sync(LockedDirectory, str(root))
    except BlockingIOError:
        text = f"another engine uses {root}: stop it, or set XDG_DATA_HOME to another directory"
        raise StoreLocked(text) from None
    except OSError as error:
        text = f"cannot use {root}: {error.strerror}; XDG_DATA_HOME chooses another place"
        raise StoreError(text) from error
    try:
        deleted, failed = await trio.to_thread.run_sync(directory.sweep, trio.from_thread.check_cancelled)
    except BaseException:
        directory.close()
        raise
    if deleted or failed:
        _log.info("%s: swept %d files of an earlier engine, %d could not be deleted", root, deleted, failed)
    store = ResourceStore(directory, quota_bytes)
    async with open_service_nursery() as nursery:
        try:
            # Shielded: Trio leaves a task that starts under a cancellation to `start`, which would wait for
            # it, and it for the lines below, for ever.
            with trio.CancelScope(shield=True):
                await nursery.start(store._run)
            yield store
        finally:
            store._closing.set()
            store._work.set()


# By the real clock: to a mock clock that jumps whenever nothing moves, a thread takes for ever.
async def _cancel_after(seconds: float, scope: trio.CancelScope) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:  # noqa: ASYNC110 (there is no event for real time)
        await trio.sleep(0.05)
    scope.cancel()

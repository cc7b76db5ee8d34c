"""The resource store: claims, quota, deletion, and that nothing is left behind whatever happens."""
# ruff: noqa: ASYNC110, ASYNC220, ASYNC240 (a test waits for what has no event, and looks at the disk where it stands)

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from orbtrio.engine import resources
from orbtrio.engine._disk import LockedDirectory, WriteFailed, file_name
from orbtrio.engine.resources import StoreError, StoreFull, StoreLocked, open_store
from orbtrio.errors import ConfigError
from orbtrio.protocol.messages import Resource
from orbtrio.protocol.references import MAX_RESOURCE_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from trio.testing import MockClock

    from orbtrio.engine.resources import HeldFile, ResourceStore

HOLDING_ENGINE = """
import sys
from pathlib import Path

import trio

from orbtrio.engine.resources import open_store
from orbtrio.protocol.messages import Resource

async def main():
    async with open_store(Path(sys.argv[1]), quota_bytes=1 << 20) as store:
        await store.hold("tenant", [Resource("a", "image", b"x"), Resource("../b", "image", b"y")])
        print("ready", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
QUOTA = 1 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "unblink-engine"


@pytest.fixture
async def store(root: Path) -> AsyncIterator[ResourceStore]:
    async with open_store(root, quota_bytes=QUOTA) as store:
        yield store


@pytest.fixture
def in_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every write go to a thread, as large ones do."""
    monkeypatch.setattr(resources, "_INLINE_BYTES", 0)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, in_thread: None) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open()


class Gate:
    """A disk that hangs: writes wait, in their threads, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting = threading.Semaphore(0)
        self._opened = threading.Event()
        write = LockedDirectory.write

        def write_when_open(directory: LockedDirectory, *args: Any) -> None:
            self.waiting.release()
            self._opened.wait()
            write(directory, *args)

        monkeypatch.setattr(LockedDirectory, "write", write_when_open)

    async def wait_reached(self) -> None:
        await trio.to_thread.run_sync(self.waiting.acquire)

    def open(self) -> None:
        self._opened.set()


def image(
    resource_id: str = "img", data: bytes | memoryview = PNG, kind: Literal["image", "document"] = "image"
) -> Resource:
    return Resource(resource_id, kind, data)


# By `os.walk`, which takes no offence at a directory that the cleaner's thread removes meanwhile.
def on_disk(root: Path) -> set[str]:
    found = {os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names}
    return {path for path in found if not path.endswith("/.lock") and os.path.isfile(path)}


def directories(root: Path) -> set[str]:
    walk = os.walk(root)
    return {os.path.relpath(os.path.join(folder, name), root) for folder, names, _ in walk for name in names}


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(50):
        while not condition():
            await trio.sleep(0.001)


def failing(error: int) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        raise OSError(error, os.strerror(error))

    return call


class TestHolding:
    @pytest.mark.parametrize("inline_bytes", [0, 1 << 16], ids=["in a thread", "here"])
    async def test_files_are_there_whole(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, inline_bytes: int
    ) -> None:
        monkeypatch.setattr(resources, "_INLINE_BYTES", inline_bytes)
        async with open_store(root, quota_bytes=QUOTA) as store:
            held = await store.hold("tenant", [image("a", PNG), image("../b", b"text", "document")])
            frames = root / "tenant" / "files" / "frames"
            a, b = Path(held["a"].path), Path(held["../b"].path)
            assert a.parent == b.parent == frames
            assert a.name.startswith("a-")
            assert (a.suffix, b.suffix) == (".png", ".txt")
            assert ".." not in b.name
            assert (a.read_bytes(), b.read_bytes()) == (PNG, b"text")
            assert [file.size_bytes for file in held.values()] == [len(PNG), 4]
            assert (store.statistics.files, store.statistics.bytes) == (2, len(PNG) + 4)

    @pytest.mark.parametrize("inline_bytes", [0, 1 << 16], ids=["in a thread", "here"])
    async def test_views_are_written_like_bytes(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, inline_bytes: int
    ) -> None:
        monkeypatch.setattr(resources, "_INLINE_BYTES", inline_bytes)
        message = b"before" + PNG + b"between" + PNG + b"behind"
        view = memoryview(message)
        first, second = view[6 : 6 + len(PNG)], view[13 + len(PNG) : -6]
        async with open_store(root, quota_bytes=QUOTA) as store:
            held = await store.hold("tenant", [image("a", first), image("b", second), image("c", PNG)])
            assert held["a"] is held["b"] is held["c"]
            assert held["a"].path.endswith(".png")
            assert Path(held["a"].path).read_bytes() == PNG
            assert store.statistics.bytes == len(PNG)

    async def test_largest_resource(self, root: Path) -> None:
        """B-56."""
        async with open_store(root, quota_bytes=1 << 22) as store:
            held = await store.hold("tenant", [image(data=bytes(2_097_152))])
            assert os.path.getsize(held["img"].path) == 2_097_152

    async def test_nothing_to_hold(self, root: Path, store: ResourceStore) -> None:
        assert await store.hold("tenant", []) == {}
        assert on_disk(root) == set()

    async def test_same_bytes_are_stored_once(self, root: Path, store: ResourceStore) -> None:
        """P-43."""
        held = await store.hold(
            "tenant",
            [
                image("a", PNG),
                image("b", PNG),
                image("same length", PNG[::-1]),
                image("other kind", PNG, "document"),
            ],
        )
        assert held["a"] is held["b"]
        assert held["a"].claims == 2
        assert len(on_disk(root)) == 3
        assert store.statistics.bytes == 3 * len(PNG)
        again = await store.hold("tenant", [image("a", PNG)])
        assert again["a"].path != held["a"].path

    async def test_twins_of_a_name_stay_apart(self, root: Path, store: ResourceStore) -> None:
        """B-61."""
        ids = ["frame", "FRAME", "é", "e\u0301", "../x", "..\u2215x"]
        held = await store.hold("tenant", [image(name, name.encode()) for name in ids])
        assert {name: Path(file.path).read_bytes() for name, file in held.items()} == {
            i: i.encode() for i in ids
        }

    @pytest.mark.parametrize("tenant", ["../../x", "/etc", "a/b", "..", "", "x" * 4096, "\0", ".lock", "é"])
    async def test_tenants_cannot_leave_the_root(self, root: Path, store: ResourceStore, tenant: str) -> None:
        """B-61."""
        held = await store.hold(tenant, [image()])
        relative = Path(held["img"].path).relative_to(root)
        assert relative.parts[1:3] == ("files", "frames")
        assert set(relative.parts[0]) <= set("0123456789abcdef")
        assert on_disk(root) == {held["img"].path}

    async def test_slow_disk_loses_the_right_to_block_for_longer_each_time(
        self, store: ResourceStore, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
    ) -> None:
        here = []
        write = LockedDirectory.write

        def slow_write(directory: LockedDirectory, *args: Any) -> None:
            here.append(threading.current_thread() is threading.main_thread())
            write(directory, *args)
            time.sleep(resources._SLOW_DISK * 1.1)

        monkeypatch.setattr(LockedDirectory, "write", slow_write)
        for seconds in (0, 59, 2, 119, 2):
            mock_clock.jump(seconds)
            await store.hold("tenant", [image()])
        assert here == [True, False, True, False, True]

    async def test_largest_resource_is_written_where_we_stand_and_two_of_them_in_a_thread(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threads = []
        write = LockedDirectory.write

        def note_thread(directory: LockedDirectory, *args: Any) -> None:
            threads.append(threading.current_thread())
            write(directory, *args)

        monkeypatch.setattr(LockedDirectory, "write", note_thread)
        async with open_store(root, quota_bytes=8 << 20) as store:
            largest = bytes(MAX_RESOURCE_BYTES)
            await store.hold("tenant", [image("a", largest)])
            await store.hold("tenant", [image("a", largest), image("b", largest[:-1] + b"b")])
        assert threads[0] is threading.main_thread()
        assert threads[1] is not threading.main_thread()


class TestQuota:
    async def test_is_checked_before_writing(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async with open_store(root, quota_bytes=1000) as store:
            held = await store.hold("tenant", [image("a", b"a" * 600), image("twin", b"a" * 600)])
            monkeypatch.setattr(LockedDirectory, "write", failing(errno.EIO))
            with pytest.raises(StoreFull):
                await store.hold("tenant", [image("b", b"b" * 401)])
            monkeypatch.undo()
            exact = await store.hold("tenant", [image("b", b"b" * 400)])
            assert store.statistics.bytes == 1000
            assert on_disk(root) == {held["a"].path, exact["b"].path}

    async def test_room_comes_back_with_the_deletion(self, root: Path) -> None:
        async with open_store(root, quota_bytes=1000) as store:
            held = await store.hold("tenant", [image("a", b"a" * 600)])
            store.release(held["a"])
            with pytest.raises(StoreFull):
                await store.hold("tenant", [image("b", b"b" * 600)])
            await until(lambda: not store.statistics.bytes)
            await store.hold("tenant", [image("b", b"b" * 600)])

    async def test_concurrent_requests_cannot_exceed_it(self, root: Path, gate: Gate) -> None:
        refused = []

        async def hold(store: ResourceStore, name: str) -> None:
            try:
                await store.hold("tenant", [image(name, name.encode() * 400)])
            except StoreFull:
                refused.append(name)

        async with open_store(root, quota_bytes=1000) as store, trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(hold, store, name)
            await gate.wait_reached()
            await gate.wait_reached()
            assert store.statistics.bytes == 800
            gate.open()
        assert len(refused) == 1

    async def test_full_store_is_logged_once_a_minute(
        self, root: Path, caplog: pytest.LogCaptureFixture, mock_clock: MockClock
    ) -> None:
        async with open_store(root, quota_bytes=1) as store:
            for _ in range(3):
                with pytest.raises(StoreFull):
                    await store.hold("tenant", [image()])
            assert len(caplog.records) == 1
            assert "ORB_STORE_QUOTA_BYTES" in caplog.text
            mock_clock.jump(60)
            with pytest.raises(StoreFull):
                await store.hold("tenant", [image()])
            assert len(caplog.records) == 2


class TestReleasing:
    async def test_file_lives_until_its_last_claim(self, root: Path, store: ResourceStore) -> None:
        held = await store.hold("tenant", [image("a", b"a"), image("b", b"b")])
        store.retain(held["a"])
        for file in held.values():
            store.release(file)
        await until(lambda: store.statistics.files == 1)
        assert on_disk(root) == {held["a"].path}
        store.release(held["a"])
        assert store.statistics.pending_deletions == 1
        await until(lambda: not on_disk(root))
        await until(lambda: not store.statistics.files)
        assert store.statistics == resources.StoreUsage()

    async def test_twins_release_one_by_one(self, root: Path, store: ResourceStore) -> None:
        held = await store.hold("tenant", [image("a"), image("b")])
        for file in held.values():
            store.release(file)
        await until(lambda: not store.statistics.files)
        assert on_disk(root) == set()

    async def test_claims_cannot_go_below_none(self, store: ResourceStore) -> None:
        held = await store.hold("tenant", [image()])
        store.release(held["img"])
        with pytest.raises(ValueError, match="more often"):
            store.release(held["img"])
        with pytest.raises(ValueError, match="gone"):
            store.retain(held["img"])
        assert store.statistics.pending_deletions == 1

    async def test_many_files_take_few_hops(
        self, store: ResourceStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deletions = []
        delete = LockedDirectory.delete

        def counting(directory: LockedDirectory, names: Any) -> frozenset[str]:
            deletions.append(names)
            return delete(directory, names)

        monkeypatch.setattr(LockedDirectory, "delete", counting)
        held = [await store.hold(f"tenant-{i % 3}", [image()]) for i in range(30)]
        for files in held:
            store.release(files["img"])
        await until(lambda: not store.statistics.files)
        assert len(deletions) == 1


class TestFailingDeletions:
    async def test_are_tried_again(
        self,
        root: Path,
        store: ResourceStore,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """F-30: EACCES on unlink."""
        monkeypatch.setattr(resources, "_GATHER", 0)
        store._retry_delay = 0.01
        held = await store.hold("tenant", [image()])
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", failing(errno.EACCES))
            store.release(held["img"])
            await until(lambda: store.statistics.failed_deletions >= 3)
            assert store.statistics.bytes == len(PNG)
            assert store.statistics.pending_deletions == 1
        await until(lambda: not store.statistics.files)
        assert on_disk(root) == set()
        assert [record.message for record in caplog.records] == [f"{root}: cannot delete 1 files"]
        assert store._retry_delay == resources._FIRST_RETRY

    async def test_back_off(self, store: ResourceStore, mock_clock: MockClock) -> None:
        store._stuck = [None]  # type: ignore[list-item]  # only looked at for being there
        delays = []
        for _ in range(8):
            store._schedule_retry(1, retried=True)
            delays.append(store._retry_at - trio.current_time())
        assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
        # A fresh failure neither delays nor hurries the next attempt.
        due = store._retry_at
        mock_clock.jump(5)
        store._schedule_retry(1, retried=False)
        store._schedule_retry(0, retried=False)
        assert store._retry_at == due
        store._stuck = []

    async def test_fresh_ones_do_not_wait_for_stuck_ones(
        self, root: Path, store: ResourceStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        held = await store.hold("tenant", [image("stuck"), image("free", b"free")])
        unlink = os.unlink

        def unlink_some(name: str, **kwargs: Any) -> None:
            if name.startswith("stuck"):
                raise OSError(errno.EIO, "")
            unlink(name, **kwargs)

        monkeypatch.setattr(os, "unlink", unlink_some)
        store._retry_delay = 600.0
        store.release(held["stuck"])
        await until(lambda: store.statistics.failed_deletions)
        store.release(held["free"])
        await until(lambda: on_disk(root) == {held["stuck"].path})
        monkeypatch.undo()

    async def test_left_over_of_a_failed_write(
        self, root: Path, store: ResourceStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """F-30: a write fails, and so does the removal of what it had written."""
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", failing(errno.EIO))
            patch.setattr(os, "unlink", failing(errno.EIO))
            with pytest.raises(StoreError):
                await store.hold("tenant", [image("a"), image("never begun", b"x")])
            assert store.statistics == resources.StoreUsage(1, len(PNG), 1, 0)
            assert len(on_disk(root)) == 1
        await until(lambda: not store.statistics.files)
        assert on_disk(root) == set()
        assert store.statistics.bytes == 0


class TestForgettingTenants:
    async def test_empty_directories_go(self, root: Path, store: ResourceStore) -> None:
        held = await store.hold("tenant", [image()])
        await store.hold("other", [image()])
        store.forget_tenant("tenant")
        store.forget_tenant("nobody")
        await trio.sleep(0.2)
        assert "tenant" in directories(root)
        store.release(held["img"])
        await until(lambda: directories(root) == {"other", "other/files", "other/files/frames"})

    async def test_at_once_if_empty_already(self, root: Path, store: ResourceStore) -> None:
        store.release((await store.hold("tenant", [image()]))["img"])
        await until(lambda: not store.statistics.files)
        assert "tenant" in directories(root)
        store.forget_tenant("tenant")
        await until(lambda: directories(root) == set())

    async def test_a_new_request_keeps_them(self, root: Path, store: ResourceStore) -> None:
        store.release((await store.hold("tenant", [image()]))["img"])
        store.forget_tenant("tenant")
        held = await store.hold("tenant", [image()])
        await until(lambda: store.statistics.files == 1)
        store.release(held["img"])
        await until(lambda: not store.statistics.files)
        await trio.sleep(0.2)
        assert "tenant" in directories(root)


class TestCancelling:
    async def test_before_it_begins(self, root: Path, store: ResourceStore) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.hold("tenant", [image()])
        assert scope.cancelled_caught
        assert store.statistics == resources.StoreUsage()
        assert on_disk(root) == set()

    async def test_while_the_disk_hangs(self, root: Path, gate: Gate) -> None:
        async with open_store(root, quota_bytes=QUOTA) as store, trio.open_nursery() as nursery:
            nursery.start_soon(store.hold, "tenant", [image()])
            await gate.wait_reached()
            with trio.fail_after(50):
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await trio.testing.wait_all_tasks_blocked()
            assert store.statistics.bytes == len(PNG)
            gate.open()
            with trio.CancelScope(shield=True):
                await until(lambda: not store.statistics.files)
            assert on_disk(root) == set()

    async def test_whoever_finishes_last_cleans_up(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, in_thread: None
    ) -> None:
        """Cancelled in the very turn in which the file is done: either order, and nothing is left."""
        done = trio.Event()

        async def write_now(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            await done.wait()
            return function(*args)

        orders = set()
        discard = resources.ResourceStore._discard
        async with open_store(root, quota_bytes=QUOTA) as store:
            monkeypatch.setattr(resources, "_in_thread", write_now)

            def noting(store: ResourceStore, files: list[HeldFile]) -> None:
                orders.add(trio.lowlevel.current_task().name.endswith("_write"))
                discard(store, files)

            monkeypatch.setattr(resources.ResourceStore, "_discard", noting)
            for _ in range(100):
                done = trio.Event()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(store.hold, "tenant", [image()])
                    await trio.testing.wait_all_tasks_blocked()
                    done.set()
                    nursery.cancel_scope.cancel()
                if len(orders) == 2:
                    break
            monkeypatch.undo()
            await until(lambda: not store.statistics.files)
            assert on_disk(root) == set()
        assert orders == {True, False}

    async def test_write_that_fails_for_nobody(
        self, root: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with open_store(root, quota_bytes=QUOTA) as store:
            monkeypatch.setattr(os, "write", failing(errno.EIO))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.hold, "tenant", [image()])
                await gate.wait_reached()
                nursery.cancel_scope.cancel()
            gate.open()
            await until(lambda: not store.statistics.files)
            assert store.statistics == resources.StoreUsage()


class TestTrouble:
    """F-28, F-29, F-31: a clear error, and business as usual when it is over."""

    @pytest.mark.usefixtures("in_thread")
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
    async def test_full_disk(
        self, root: Path, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with open_store(root, quota_bytes=QUOTA) as store:
            with monkeypatch.context() as patch:
                patch.setattr(os, "write", failing(code))
                with pytest.raises(StoreFull) as caught:
                    await store.hold("tenant", [image("a"), image("b", b"b")])
            assert str(root) not in str(caught.value)
            assert str(root) in caplog.text
            assert store.statistics == resources.StoreUsage()
            assert on_disk(root) == set()
            await store.hold("tenant", [image("a"), image("b", b"b")])

    @pytest.mark.parametrize("place", ["tenant", "tenant/files", "tenant/files/frames", "."])
    @pytest.mark.parametrize("what", ["deleted", "file", "link"])
    async def test_directory_is_replaced(
        self, root: Path, store: ResourceStore, place: str, what: str
    ) -> None:
        held = await store.hold("tenant", [image()])
        victim = root / place
        away = root.parent / "away"
        victim.rename(away)
        if what == "file":
            victim.write_bytes(b"")
        elif what == "link":
            victim.symlink_to(away)
        before = on_disk(away)
        if what == "deleted":
            again = await store.hold("tenant", [image()])
            assert on_disk(root) == {again["img"].path}
        else:
            with pytest.raises(StoreError) as caught:
                await store.hold("tenant", [image()])
            assert type(caught.value) is StoreError
            victim.unlink()
            again = await store.hold("tenant", [image()])
            assert on_disk(root) == {again["img"].path}
        assert on_disk(away) == before
        store.release(held["img"])
        store.release(again["img"])
        await until(lambda: not store.statistics.files)

    async def test_read_only(self, root: Path, store: ResourceStore, monkeypatch: pytest.MonkeyPatch) -> None:
        held = await store.hold("tenant", [image()])
        with monkeypatch.context() as patch:
            patch.setattr(os, "mkdir", failing(errno.EROFS))
            patch.setattr(os, "unlink", failing(errno.EROFS))
            with pytest.raises(StoreError, match="at present"):
                await store.hold("other", [image()])
            store.release(held["img"])
            await until(lambda: store.statistics.failed_deletions)
        await store.hold("other", [image()])
        await until(lambda: store.statistics.files == 1)


class TestOpening:
    async def test_sweeps_what_a_killed_engine_left(
        self, root: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """F-24."""
        command = [sys.executable, "-c", HOLDING_ENGINE, str(root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
            assert engine.stdout is not None
            assert await trio.to_thread.run_sync(engine.stdout.readline) == "ready\n"
            assert len(on_disk(root)) == 2
            with pytest.raises(StoreLocked, match="XDG_DATA_HOME") as caught:
                async with open_store(root, quota_bytes=QUOTA):
                    pass
            assert isinstance(caught.value, ConfigError)
            assert len(on_disk(root)) == 2
            engine.send_signal(signal.SIGKILL)
        caplog.set_level(logging.INFO)
        async with open_store(root, quota_bytes=QUOTA):
            assert on_disk(root) == set()
            assert directories(root) == set()
        assert "swept 2 files" in caplog.text

    async def test_two_stores_of_one_process(self, root: Path, store: ResourceStore) -> None:
        """F-41."""
        with pytest.raises(StoreLocked):
            async with open_store(root, quota_bytes=QUOTA):
                pass

    async def test_root_that_is_no_directory(self, root: Path) -> None:
        root.write_bytes(b"")
        with pytest.raises(StoreError, match=r"File exists; XDG_DATA_HOME"):
            async with open_store(root, quota_bytes=QUOTA):
                pass

    async def test_cancelled_while_it_sweeps(self, root: Path) -> None:
        for i in range(20):
            path = root / f"tenant-{i}" / "files" / "frames" / file_name("a", "png")
            path.parent.mkdir(parents=True)
            path.write_bytes(b"x")
        with trio.CancelScope() as scope:
            scope.cancel()
            async with open_store(root, quota_bytes=QUOTA):
                raise AssertionError("never opened")
        with trio.CancelScope() as scope:
            sweep = LockedDirectory.sweep

            def cancel_and_sweep(
                directory: LockedDirectory, checkpoint: Callable[[], None]
            ) -> tuple[int, int]:
                trio.from_thread.run_sync(scope.cancel)
                return sweep(directory, checkpoint)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(LockedDirectory, "sweep", cancel_and_sweep)
                async with open_store(root, quota_bytes=QUOTA):
                    raise AssertionError("never opened")
        assert scope.cancelled_caught
        assert len(on_disk(root)) == 20
        async with open_store(root, quota_bytes=QUOTA):
            assert on_disk(root) == set()


class TestClosing:
    async def test_everything_of_ours_goes(self, root: Path) -> None:
        async with open_store(root, quota_bytes=QUOTA) as store:
            held = await store.hold("tenant", [image("a"), image("b", b"b")])
            await store.hold("other", [image()])
            store.release(held["a"])
            (root / "other" / "notes").write_bytes(b"mine")
        assert on_disk(root) == {str(root / "other" / "notes")}
        assert directories(root) == {"other"}
        with pytest.raises(StoreError, match="stopping"):
            await store.hold("tenant", [image()])
        async with open_store(root, quota_bytes=QUOTA):
            pass

    @pytest.mark.parametrize("end", ["error", "cancelled"])
    async def test_however_the_block_ends(self, root: Path, end: str) -> None:
        with trio.CancelScope() as scope, suppress(ZeroDivisionError):
            async with open_store(root, quota_bytes=QUOTA) as store:
                await store.hold("tenant", [image()])
                if end == "cancelled":
                    scope.cancel()
                    await trio.sleep_forever()
                raise ZeroDivisionError
        assert on_disk(root) == set()
        assert directories(root) == set()

    async def test_waits_for_a_file_that_is_being_written(self, root: Path, gate: Gate) -> None:
        async with trio.open_nursery() as outer, open_store(root, quota_bytes=QUOTA) as store:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.hold, "tenant", [image()])
                await gate.wait_reached()
                nursery.cancel_scope.cancel()
            outer.start_soon(trio.to_thread.run_sync, open_later, gate)
        assert on_disk(root) == set()
        assert store.statistics == resources.StoreUsage()

    async def test_does_not_wait_for_a_disk_that_hangs(
        self, root: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(resources, "_EXIT_TIMEOUT", 0.1)
        with trio.fail_after(50):
            async with open_store(root, quota_bytes=QUOTA) as store, trio.open_nursery() as nursery:
                nursery.start_soon(store.hold, "tenant", [image()])
                await gate.wait_reached()
                nursery.cancel_scope.cancel()
        assert "the next start has 1 files to sweep" in caplog.text
        # Its thread may still write, so nobody else gets the directory.
        with pytest.raises(StoreLocked):
            async with open_store(root, quota_bytes=QUOTA):
                pass
        gate.open()
        await until(lambda: on_disk(root))
        store._directory.close()
        async with open_store(root, quota_bytes=QUOTA):
            assert on_disk(root) == set()

    async def test_mock_clock_that_jumps_is_no_hanging_disk(
        self, root: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with open_store(root, quota_bytes=QUOTA) as store:
            await store.hold("tenant", [image()])
        assert caplog.records == []
        assert on_disk(root) == set()


def open_later(gate: Gate) -> None:
    time.sleep(0.05)
    gate.open()


# --- Any sequence of events --------------------------------------------------------------------------------

TENANTS = st.sampled_from(["tenant", "other", "../x"])
CONTENTS = st.binary(max_size=3)
STEPS = st.one_of(
    st.tuples(st.just("hold"), TENANTS, st.lists(CONTENTS, min_size=1, max_size=4)),
    st.tuples(st.just("cancelled hold"), TENANTS, st.lists(CONTENTS, min_size=1, max_size=4)),
    st.tuples(st.just("failed hold"), TENANTS, st.lists(CONTENTS, min_size=1, max_size=4)),
    st.tuples(st.just("retain"), st.integers(0, 100)),
    st.tuples(st.just("release"), st.integers(0, 100)),
    st.tuples(st.just("forget"), TENANTS),
    st.tuples(st.just("pause")),
)


@given(st.lists(STEPS, max_size=20), st.sampled_from([0, 1 << 16]))
def test_files_on_disk_are_those_with_claims(steps: list[tuple[Any, ...]], inline_bytes: int) -> None:
    """I4, for whatever a script of events does."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        patch.setattr(resources, "_INLINE_BYTES", inline_bytes)
        patch.setattr(resources, "_GATHER", 0)
        trio.run(perform, steps, Path(directory).resolve() / "store")


@asynccontextmanager
async def disturbed(step: str) -> AsyncIterator[None]:
    with pytest.MonkeyPatch.context() as patch, trio.CancelScope() as scope:
        if step == "cancelled hold":
            trio.lowlevel.current_trio_token().run_sync_soon(scope.cancel)
        if step == "failed hold":
            patch.setattr(LockedDirectory, "write", failing_write)
        with suppress(StoreError):
            yield


def failing_write(directory: LockedDirectory, folder: str, files: dict[str, bytes]) -> None:
    raise WriteFailed(OSError(errno.EIO, ""), {})


async def perform(steps: list[tuple[Any, ...]], root: Path) -> None:
    claims: list[HeldFile] = []
    async with open_store(root, quota_bytes=QUOTA) as store:
        for step, *arguments in steps:
            if step.endswith("hold"):
                tenant, contents = arguments
                async with disturbed(step):
                    held = await store.hold(tenant, [image(f"{i}", data) for i, data in enumerate(contents)])
                    claims += held.values()
            elif step == "retain" and claims:
                claims.append(claims[arguments[0] % len(claims)])
                store.retain(claims[-1])
            elif step == "release" and claims:
                store.release(claims.pop(arguments[0] % len(claims)))
            elif step == "forget":
                store.forget_tenant(*arguments)
            elif step == "pause":
                await trio.sleep(0.001)
            # At any time: what is claimed is there, and nothing is counted that cannot be.
            assert {file.path for file in claims} <= on_disk(root)
            assert store.statistics.bytes >= sum(file.size_bytes for file in set(claims))
        await until(
            lambda: not store.statistics.pending_deletions and store.statistics.files == len(set(claims))
        )
        assert on_disk(root) == {file.path for file in claims}
        assert store.statistics.bytes == sum(file.size_bytes for file in set(claims))
    assert on_disk(root) == set()
    assert directories(root) == set()

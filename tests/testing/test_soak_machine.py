"""The disk fails as told, the schedule repeats itself, errors are heard."""

from __future__ import annotations

import errno
import logging
import random
from typing import TYPE_CHECKING

import pytest
import trio

from orbtrio.engine._disk import LockedDirectory, WriteFailed
from orbtrio.engine.resources import StoreFull, open_store
from orbtrio.protocol.messages import Resource
from orbtrio.testing._soak_machine import Disk, files_below, listen_for_errors

if TYPE_CHECKING:
    from pathlib import Path

TEXT = Resource("r", "document", b"text" * 100)
LARGE = Resource("r", "document", b"text" * 50_000)


async def test_a_full_disk_writes_half_and_leaves_nothing(tmp_path: Path) -> None:
    disk = Disk(random.Random(1))
    with disk.installed():
        async with open_store(tmp_path / "store", quota_bytes=1 << 20) as store:
            disk.full = True
            with pytest.raises(StoreFull):
                await store.hold("tenant", [TEXT])
            assert files_below(tmp_path / "store") == []
            disk.heal()
            held = await store.hold("tenant", [TEXT])
            assert files_below(tmp_path / "store") == [held["r"].path.rpartition("/")[2]]


def test_a_stuck_disk_deletes_nothing(tmp_path: Path) -> None:
    disk = Disk(random.Random(1))
    directory = LockedDirectory(str(tmp_path / "store"))
    with disk.installed():
        directory.write("tenant", {"name": b"text"})
        disk.stuck = True
        assert directory.delete({"tenant": ["name"]}) == {"name"}
        disk.full = True
        with pytest.raises(WriteFailed) as failed:
            directory.write("tenant", {"other": b"text"})
        assert failed.value.cause.errno == errno.ENOSPC
        disk.heal()
        assert directory.delete({"tenant": ["name"]}) == frozenset()
    directory.close()


async def test_what_goes_to_a_thread_takes_virtual_time(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    disk = Disk(random.Random(1))
    with disk.installed():
        async with open_store(tmp_path / "store", quota_bytes=1 << 20) as store:
            disk.delay = 5.0
            begun = trio.current_time()
            await store.hold("tenant", [LARGE])
            assert 0 < trio.current_time() - begun <= 5.0


def test_errors_are_heard_and_warnings_are_not() -> None:
    logger = logging.getLogger("orbtrio.engine")
    with listen_for_errors() as heard:
        logger.warning("slow")
        logger.error("broken")
    logger.debug("nobody listens any more")
    assert heard == ["broken"]

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from orbtrio.demo.system import ProcessFailed, fetch_workers, open_system

pytestmark = pytest.mark.processes


def children() -> str:
    """The ids of our own child processes."""
    return "".join(path.read_text() for path in Path(f"/proc/{os.getpid()}/task").glob("*/children"))


async def test_all_workers_are_registered_until_the_block_is_left(tmp_path: Path) -> None:
    before = children()
    async with open_system(tmp_path, dict.fromkeys(["one", "two"], "workers.motion_energy")) as address:
        workers = await fetch_workers(address)
        assert [numbers["orb_worker_jobs_total"] for numbers in workers.values()] == [0, 0]
        assert children() != before
    assert children() == before


async def test_a_process_that_dies_ends_all_and_is_quoted(tmp_path: Path) -> None:
    before = children()
    with pytest.raises(ProcessFailed, match=r"(?s)workers\.nothing ended with status 1.*No module named"):
        async with open_system(tmp_path, {"broken": "workers.nothing"}):
            pytest.fail("entered")
    assert children() == before


async def test_sigterm_ends_all(tmp_path: Path) -> None:
    async def be_stopped() -> None:
        async with open_system(tmp_path, {}):
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep_forever()

    before = children()
    with pytest.raises(ProcessFailed, match="stopped by SIGTERM"):
        await be_stopped()
    assert children() == before


async def test_settings_of_the_environment_are_not_for_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_PORT", "not a port")
    monkeypatch.setenv("WORKER_TYPES", "nothing")
    async with open_system(tmp_path, {}) as address:
        assert await fetch_workers(address) == {}


async def test_workers_that_do_not_register_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orbtrio.demo.system._READY_TIMEOUT", 0.1)
    with pytest.raises(ProcessFailed, match="does not answer"):
        async with open_system(tmp_path, {"one": "workers.motion_energy"}):
            pytest.fail("entered")

"""A disk that is full of names, fails, or is taken away while the engine runs: F-29 to F-31."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.machine import file_system, injected
from tests.faults.peers import assert_settled
from tests.processes.harness import Client, ended, running_engine, stock_worker, wait_until

if TYPE_CHECKING:
    from tests.faults.report import Figures

Put = Callable[[Path, Path], None]  # in place of the store; gets a directory outside it

pytestmark = [pytest.mark.processes, pytest.mark.timeout(60)]

IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(1000)


def ask_with_file(client: Client, name: str, worker_type: str = "echo", images: int = 1) -> None:
    """One job that names images."""
    jobs = [
        {
            "job_id": name,
            "worker_type": worker_type,
            "input": {"filepath": {"__type": "resource-ref", "id": "0"}}
            | {
                f"image{number}": {"__type": "resource-ref", "id": str(number)} for number in range(1, images)
            },
        }
    ]
    resources = [{"id": str(n), "type": "image", "data": IMAGE + b"%d" % n} for n in range(images)]
    client.send({"type": "worker_request", "resources": resources, "jobs": jobs})


def answer(client: Client, name: str, **arguments: Any) -> tuple[dict[str, Any], float]:
    """Ask with a file; the output, and the seconds that it took."""
    began = time.monotonic()
    ask_with_file(client, name, **arguments)
    output = client.responses(1)[name]
    return output, time.monotonic() - began


def text_jobs_work(client: Client) -> None:
    """Jobs without files are not the disk's."""
    client.request(range(10))
    assert len([1 for output in client.responses(10).values() if "echo" in output]) == 10


def test_f29_no_names_left_refuses_the_request_and_leaves_nothing_behind(
    tmp_path: Path, figure: Figures
) -> None:
    with (
        file_system(tmp_path, "size=10m,nr_inodes=20"),
        running_engine(tmp_path) as engine,
        ended(stock_worker(engine)),
    ):
        client = Client(engine)
        output, seconds = answer(client, "many", images=40)
        assert output["error_kind"] == "queue_full", output
        left = len(engine.files_on_disk())
        text_jobs_work(client)
        output, _ = answer(client, "one")
        assert output["size_bytes"] == len(IMAGE) + 1
        assert_settled(engine)
        figure("F-29", "I3 I4", f"refused after {seconds * 1000:.0f} ms, {left} of 40 files left", "0 files")
        assert left == 0
        client.close()


def test_f30_writes_that_fail_refuse_the_request_and_heal(tmp_path: Path, figure: Figures) -> None:
    """EIO; the engine's sockets do not use this call. It never calls fsync: its files need not survive it."""
    with running_engine(tmp_path) as engine, ended(stock_worker(engine)):
        client = Client(engine)
        with injected(engine.process.pid, "write,writev,pwrite64:error=EIO"):
            output, seconds = answer(client, "broken")
            left = len(engine.files_on_disk())
            assert output["error_kind"], output
            text_jobs_work(client)
        healed, _ = answer(client, "healed")
        assert healed["size_bytes"] == len(IMAGE) + 1
        assert_settled(engine)
        kind = output["error_kind"]
        figure(
            "F-30",
            "I1 I4",
            f"EIO on write: {kind} after {seconds * 1000:.0f} ms, {left} files left",
            "0 files",
        )
        assert left == 0
        client.close()


@pytest.mark.parametrize("error", ["EIO", "EACCES"])
def test_f30_deletions_that_fail_are_repeated_until_they_succeed(
    tmp_path: Path, figure: Figures, error: str
) -> None:
    with running_engine(tmp_path) as engine, ended(stock_worker(engine)):
        client = Client(engine)
        with injected(engine.process.pid, f"unlink,unlinkat:error={error}"):
            for number in range(5):
                output, _ = answer(client, f"job-{number}")
                assert output["size_bytes"] == len(IMAGE) + 1
            time.sleep(1.5)
            orphans = len(engine.files_on_disk())
            assert engine.metrics()["orb_resource_files"] == orphans == 5
            text_jobs_work(client)
        took = wait_until(lambda: not engine.files_on_disk(), within=10)
        assert assert_settled(engine)["orb_resource_files"] == 0
        figure(
            "F-30",
            "I1 I4",
            f"{error} on unlink: {orphans} orphans, all gone {took:.1f} s after it heals",
            "0 left",
        )
        client.close()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that is not the engine's."""
    path = tmp_path / "outside"
    path.mkdir()
    return path


def put_file(files: Path, outside: Path) -> None:
    files.write_text("no directory")


def put_link(files: Path, outside: Path) -> None:
    files.symlink_to(outside)


def put_nothing(files: Path, outside: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("what", "put", "refused"),
    [
        ("deleted", put_nothing, False),
        ("a file in its place", put_file, True),
        ("a link in its place", put_link, True),
    ],
)
def test_f31_a_store_that_is_taken_away_ends_no_engine_and_no_link_is_followed(
    tmp_path: Path,
    outside: Path,
    figure: Figures,
    what: str,
    put: Put,
    refused: bool,
) -> None:
    with running_engine(tmp_path) as engine, ended(stock_worker(engine)):
        client = Client(engine)
        ask_with_file(client, "open", worker_type="nobody")
        wait_until(lambda: len(engine.files_on_disk()) == 1 and engine.metrics()["orb_open_jobs"] == 1)
        shutil.rmtree(engine.files)
        put(engine.files, outside)
        output, seconds = answer(client, "during")
        assert ("error_kind" in output) is refused, output
        text_jobs_work(client)
        if refused:
            engine.files.unlink()
        after, _ = answer(client, "after")
        assert after["size_bytes"] == len(IMAGE) + 1
        assert list(outside.iterdir()) == []
        verdict = f"{output['error_kind']}" if refused else "made anew"
        figure("F-31", "I1 I10", f"{what}: {verdict} after {seconds * 1000:.0f} ms, heals, nothing followed")
        client.close()
        wait_until(lambda: engine.metrics()["orb_open_jobs"] == 0)
        assert_settled(engine)


def test_f31_a_store_that_becomes_read_only_refuses_files_and_nothing_else(
    tmp_path: Path, figure: Figures
) -> None:
    """By strace, for no file system lets itself be made read-only while the engine's lock file is open."""
    with running_engine(tmp_path) as engine, ended(stock_worker(engine)):
        client = Client(engine)
        ask_with_file(client, "open", worker_type="nobody")
        wait_until(lambda: len(engine.files_on_disk()) == 1)
        calls = "openat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat"
        with injected(engine.process.pid, f"{calls}:error=EROFS"):
            output, seconds = answer(client, "during")
            assert "error_kind" in output
            text_jobs_work(client)
        assert answer(client, "after")[0]["size_bytes"] == len(IMAGE) + 1
        figure("F-31", "I1 I10", f"read-only: {output['error_kind']} after {seconds * 1000:.0f} ms, heals")
        client.close()
        assert_settled(engine)

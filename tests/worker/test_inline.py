"""Files that come with a batch."""

from __future__ import annotations

import logging
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trio

from orbtrio.errors import ConfigError
from orbtrio.protocol.messages import BatchJob, JobBatch
from orbtrio.worker.inline import InlineFiles, open_inline_files
from orbtrio.worker.jobs import Batch


def batch(*inputs: dict[str, Any], **files: bytes) -> Batch:
    """A batch of jobs with some files, whose paths begin with ``/engine/``."""
    jobs = [BatchJob(str(n), job_input) for n, job_input in enumerate(inputs)]
    return Batch(JobBatch(jobs, resources=[(f"/engine/{name}", data) for name, data in files.items()]))


def contents(directory: Path) -> dict[str, bytes]:
    """What is in the files there, by path."""
    return {str(path): path.read_bytes() for path in directory.iterdir()}


def modes(*paths: Path) -> set[int]:
    """Who may do what with them."""
    return {stat.S_IMODE(path.stat().st_mode) for path in paths}


@pytest.fixture
def files(tmp_path: Path) -> InlineFiles:
    return InlineFiles(tmp_path)


async def test_paths_are_exchanged_wherever_they_stand(files: InlineFiles, tmp_path: Path) -> None:
    jobs = batch(
        {"filepath": "/engine/cat", "query": "cat"},
        {"frames": [["/engine/cat", "/engine/cat.jpg"], {"deep": "/engine/dog"}], "n": 1, "none": None},
        cat=b"meow",
        dog=b"woof",
    )
    await files.write(jobs)
    first, second = (job.input for job in jobs.jobs.values())
    cat, dog = first["filepath"], second["frames"][1]["deep"]
    assert first == {"filepath": cat, "query": "cat"}
    assert second == {"frames": [[cat, "/engine/cat.jpg"], {"deep": dog}], "n": 1, "none": None}
    assert contents(tmp_path) == {cat: b"meow", dog: b"woof"}
    assert jobs.resources == []  # The bytes are not kept.
    assert all(job.failure is None for job in jobs.jobs.values())


async def test_files_are_ours_alone_and_gone_afterwards(files: InlineFiles, tmp_path: Path) -> None:
    jobs = batch({}, a=b"1", b=b"2")
    await files.write(jobs)
    assert modes(*map(Path, contents(tmp_path))) == {0o600}
    with trio.CancelScope() as scope:
        scope.cancel()
        await files.delete(jobs)
    assert contents(tmp_path) == {}
    await files.delete(jobs)  # What is gone is gone.


async def test_batches_without_files_cost_no_thread(
    files: InlineFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", None)
    jobs = batch({"filepath": "/engine/cat"})
    await files.write(jobs)
    await files.delete(jobs)
    assert jobs.jobs["0"].input == {"filepath": "/engine/cat"}


@pytest.mark.parametrize(
    ("path", "suffix"),
    [
        ("/data/frames/a-1.jpg", ".jpg"),
        ("/data/frames/archive.tar.gz", ".gz"),
        ("/data/frames.d/a", ""),
        ("relative.PNG", ".PNG"),
        ("/data/..", ""),
        ("/data/a.jpg/../../../etc/passwd", ""),
        ("/data/a.j\x00pg", ""),
        ("/data/a.jpg\n", ""),
        (f"/data/a.{'x' * 1000}", ""),
        ("", ""),
    ],
)
async def test_name_is_our_own_but_for_a_harmless_suffix(
    files: InlineFiles, tmp_path: Path, path: str, suffix: str
) -> None:
    jobs = Batch(JobBatch([BatchJob("a", {"filepath": path})], resources=[(path, b"data")]))
    await files.write(jobs)
    (written,) = contents(tmp_path)
    assert written == f"{tmp_path}/1{suffix}"
    assert jobs.jobs["a"].input == {"filepath": written}


async def test_file_of_another_at_our_place_is_left_alone(
    files: InlineFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "somebody's"
    (tmp_path / "1").symlink_to(target)
    jobs = batch({"filepath": "/engine/a"}, {"filepath": "/engine/b"}, {}, b=b"2", a=b"1")
    await files.write(jobs)
    failures = [job.failure for job in jobs.jobs.values()]
    assert str(failures[0]) == "the worker cannot keep this job's file: File exists"
    assert type(failures[0]) is ValueError
    assert failures[1:] == [None, None]
    assert not target.exists()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "File exists" in record.getMessage()


async def test_directory_is_ours_alone_and_gone_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def fail_inside() -> None:
        async with open_inline_files() as files:
            jobs = batch({"filepath": "/engine/a"}, a=b"1")
            await files.write(jobs)
            directory = Path(jobs.jobs["0"].input["filepath"]).parent
            assert directory.parent == tmp_path
            assert modes(directory) == {0o700}
            raise KeyError

    with pytest.raises(KeyError):
        await fail_inside()
    assert contents(tmp_path) == {}


async def test_no_place_for_the_directory_is_said_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="TMPDIR"):
        async with open_inline_files():
            raise AssertionError

"""Our client against a stock engine and stock workers, over real sockets: strangers with no extensions."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from orbtrio.client import ClientLimits, Job, connect
from orbtrio.errors import JobFailed, JobRefused, JobTimedOut
from orbtrio.inputs import Document, Image

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent
SECRET = "only for this test"


@contextmanager
def program(name: str, **environment: str) -> Iterator[str]:
    """A stock peer as a process of its own; yields what it says when it is ready."""
    command = [sys.executable, "-m", f"tests.stock.{name}"]
    variables = {**os.environ, "WORKER_SECRET": SECRET, **environment}
    with subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            word, _, rest = process.stdout.readline().strip().partition(" ")
            assert word == "READY"
            yield rest
        finally:
            process.kill()


@contextmanager
def engine(data_home: Path, port: str = "0") -> Iterator[str]:
    with program("stock_engine", SERVER_PORT=port, XDG_DATA_HOME=str(data_home)) as url:
        yield url


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[str]:
    """An engine and a worker for type ``embedding``; the engine's URL."""
    with engine(tmp_path) as url, program("stock_worker", SERVER_URL=url, MAX_LATENCY_MS="10"):
        yield url


async def test_single_jobs_and_their_errors(fabric: str) -> None:
    async with connect(fabric) as client:
        assert await client.submit("embedding", {"text": "hello"}) == {"echo": {"text": "hello"}}
        with pytest.raises(JobFailed, match="no model"):
            await client.submit("embedding", {"fail": "no model"})
        # A stock engine is silent about jobs that nobody serves.
        with pytest.raises(JobTimedOut):
            await client.submit("unknown", {}, timeout=0.2)


async def test_images_and_documents_are_files_when_the_worker_looks(fabric: str, tmp_path: Path) -> None:
    pixels = b"\x89PNG" + os.urandom(1_500_000)
    picture = tmp_path / "frame.png"
    picture.write_bytes(pixels)
    async with connect(fabric) as client:
        values = {Image(pixels): pixels, Image(picture): pixels, Document("Grüße"): "Grüße".encode()}
        for value, content in values.items():
            output = await client.submit("embedding", {"filepath": value})
            assert output["sha256"] == hashlib.sha256(content).hexdigest()
            assert output["size_bytes"] == len(content)
        frames = [os.urandom(100_000) for _ in range(10)]
        jobs = (Job("embedding", {"filepath": Image(frame)}, tag=frame) for frame in frames * 5)
        async for result in client.submit_many(jobs, max_in_flight=20):
            assert result.output["sha256"] == hashlib.sha256(result.job.tag).hexdigest()
    store = tmp_path / "unblink-engine"
    assert [path for path in store.rglob("*") if path.is_file()] == []


async def test_thousands_of_jobs_over_two_workers(fabric: str) -> None:
    with program("stock_worker", SERVER_URL=fabric, MAX_LATENCY_MS="10"):
        async with connect(fabric) as client:
            jobs = (Job("embedding", {"n": n, "text": "x" * 100}) for n in range(3000))
            seen = [result.output["echo"]["n"] async for result in client.submit_many(jobs)]
            assert sorted(seen) == list(range(3000))
            assert client.statistics().reconnects == 0


async def test_a_job_that_a_stock_engine_will_not_take_fails_alone(fabric: str) -> None:
    # No reference, by its exact shape. This engine does not look at the shape.
    dangling = {"filepath": {"__type": "resource-ref", "id": "never sent", "really": False}}
    async with connect(fabric, limits=ClientLimits(probe_time=0.1)) as client:
        jobs = [Job("embedding", dangling if n == 7 else {"n": n}) for n in range(20)]
        results = [result async for result in client.submit_many(jobs)]
    assert [result.job.input for result in results if result.error] == [dangling]
    [error] = [result.error for result in results if result.error]
    assert isinstance(error, JobRefused)
    assert "1009" in error.text


async def test_a_job_survives_the_engine(tmp_path: Path) -> None:
    """F-24, as the client sees it: the engine is killed, another takes its place."""
    with ExitStack() as first:
        url = first.enter_context(engine(tmp_path))
        async with connect(url) as client, trio.open_nursery() as nursery:
            answered = trio.Event()

            async def submit() -> None:
                assert await client.submit("embedding", {"text": "patient"}) == {"echo": {"text": "patient"}}
                answered.set()

            # There is no worker yet, so the job waits, and with it the engine ends.
            nursery.start_soon(submit)
            with pytest.raises(JobTimedOut):
                await client.submit("embedding", {}, timeout=0.1)
            first.close()
            port = url.removesuffix("/ws").rpartition(":")[2]
            with engine(tmp_path, port), program("stock_worker", SERVER_URL=url, MAX_LATENCY_MS="10"):
                await answered.wait()
            assert client.statistics().reconnects >= 1

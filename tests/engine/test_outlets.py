"""Files that travel with batches: the extension `inline_resources`, P-44."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest
import trio

from orbtrio.engine.outlets import FileOutlet, weight
from orbtrio.engine.resources import open_store
from orbtrio.errors import ConnectionLost
from orbtrio.protocol import codec, splice
from orbtrio.protocol.messages import CancelJobs, JobBatch, Resource
from orbtrio.testing import open_fabric, wait_until_idle
from tests.engine.extended import extended_client, extended_worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from orbtrio.engine.resources import HeldFile, ResourceStore
    from orbtrio.testing import FakeWorker

MIB = 1 << 20


def reference(resource_id: str) -> dict[str, str]:
    return {"__type": "resource-ref", "id": resource_id}


def image(name: str, size: int = 10) -> Resource:
    return Resource(name, "image", name.encode() * (size // len(name)))


async def batch(worker: FakeWorker) -> JobBatch:
    message = await worker.receive()
    assert isinstance(message, JobBatch)
    return message


async def inline_worker(fabric: Any, **settings: Any) -> FakeWorker:
    return await extended_worker(fabric, "inline_resources", "cancel", **settings)


# --- From wire to wire --------------------------------------------------------------------------------------


async def test_every_file_travels_once_with_a_batch(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker, client = await inline_worker(fabric), await extended_client(fabric)
        inputs: list[dict[str, Any]] = [
            {"filepath": reference("a")},
            {"files": [reference("b"), reference("a")]},
            {"n": 1},
        ]
        same = Resource("same", "image", image("a").data)
        client.submit("t", *inputs, {"filepath": reference("same")}, resources=[image("a"), image("b"), same])
        message = await batch(worker)
        files = dict(message.resources)
        assert len(files) == len(message.resources) == 2
        jobs = [job.input for job in message.jobs]
        assert files[jobs[0]["filepath"]] == image("a").data
        assert [files[path] for path in jobs[1]["files"]] == [image("b").data, image("a").data]
        assert jobs[2] == {"n": 1}
        assert jobs[3] == jobs[0]
        worker.answer(message.jobs)
        await trio.sleep(1)
        assert fabric.engine.statistics().files == 0


async def test_others_get_paths_only(autojump_clock: MockClock) -> None:
    """Also where the worker before them, which was lost, got the files."""
    async with open_fabric() as fabric:
        inline, client = await inline_worker(fabric), await extended_client(fabric)
        client.submit("t", {"filepath": reference("a")}, resources=[image("a")])
        assert len((await batch(inline)).resources) == 1
        inline.link.cut()
        worker = await extended_worker(fabric)
        message = await batch(worker)
        assert message.resources == []
        assert await trio.Path(message.jobs[0].input["filepath"]).read_bytes() == image("a").data
        assert b"resources" not in worker.raw[0]


async def test_files_count_against_the_size_of_a_batch(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await inline_worker(fabric, max_message_bytes=3 * MIB, eager=False)
        client = await extended_client(fabric)
        resources = [image(str(n), MIB) for n in range(5)]
        client.submit(
            "t", *({"n": n, "filepath": reference(str(n // 2))} for n in range(10)), resources=resources
        )
        batches = [await batch(worker)]
        while sum(len(message.jobs) for message in batches) < 10:
            batches.append(await batch(worker))
        assert [[job.input["n"] for job in message.jobs] for message in batches] == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [8, 9],
        ]
        assert [len(message.resources) for message in batches] == [2, 2, 1]
        assert max(map(len, worker.raw)) <= 3 * MIB


async def test_a_job_whose_files_fit_no_batch_goes_elsewhere_or_nowhere(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        small = await inline_worker(fabric)
        client = await extended_client(fabric)
        job: dict[str, Any] = {"filepath": reference("a")}
        client.submit("t", job, resources=[image("a", MIB)])
        response = await client.receive_response()
        assert response.output["error_kind"] == "invalid_job"
        assert "its workers take 921584; its resources travel with it" in response.output["error"]
        near = await extended_worker(fabric)
        client.submit("t", job, {"n": 1}, {"n": 2}, resources=[image("a", MIB)])
        assert "filepath" in (await batch(near)).jobs[0].input
        await wait_until_idle()
        assert all(len(raw) < 1000 for raw in small.raw)


async def test_one_that_helps_takes_what_it_can_carry(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        settings = {"max_batch_size": 1, "max_unanswered_batches": 1}
        busy, client = await extended_worker(fabric, **settings), await extended_client(fabric)
        client.submit(
            "t",
            {"n": 0},
            *({"n": n, "filepath": reference("a")} for n in range(1, 4)),
            *({"n": n} for n in range(4, 7)),
            resources=[image("a", MIB)],
        )
        await batch(busy)
        helper = await inline_worker(fabric, max_batch_size=8, max_unanswered_batches=1)
        assert [job.input["n"] for job in (await batch(helper)).jobs] == [4, 5, 6]


async def test_a_word_about_a_job_comes_after_the_job(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await inline_worker(fabric, max_message_bytes=16 * MIB)
        client = await extended_client(fabric, "cancel")
        ids = client.submit("t", {"filepath": reference("a")}, resources=[image("a", 2 * MIB)])
        while fabric.engine.statistics().workers[0].unanswered == 0:
            await trio.lowlevel.checkpoint()
        client.cancel(*ids)
        message = await batch(worker)
        assert await worker.receive_cancels() == [message.jobs[0].job_id]
        worker.fail(message.jobs, "cancelled")
        await trio.sleep(1)
        statistics = fabric.engine.statistics()
        assert (statistics.files, statistics.workers[0].unanswered) == (0, 0)


async def test_a_worker_that_does_not_read_keeps_few_files_in_memory(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await inline_worker(fabric, max_message_bytes=4 * MIB, max_batch_size=1)
        worker.link.to_peer.stall()
        client = await extended_client(fabric)
        client.submit(
            "t",
            *({"filepath": reference(str(n))} for n in range(8)),
            resources=[image(str(n), 2 * MIB) for n in range(8)],
        )
        await trio.sleep(5)
        (statistics,) = fabric.engine.statistics().workers
        assert statistics.unanswered < 4
        assert statistics.queued > 4
        worker.link.to_peer.heal()
        for _ in range(8):
            message = await batch(worker)
            assert len(message.resources) == 1
            worker.answer(message.jobs)
        await trio.sleep(1)
        assert fabric.engine.statistics().files == 0


async def test_a_worker_that_goes_claims_no_files(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker, client = await inline_worker(fabric, max_batch_size=1), await extended_client(fabric)
        worker.link.to_peer.stall()
        client.submit(
            "t",
            *({"filepath": reference(str(n))} for n in range(8)),
            resources=[image(str(n), MIB // 2) for n in range(8)],
        )
        await trio.sleep(1)
        worker.link.cut()
        await wait_until_idle()
        assert fabric.engine.statistics().files == 8
        client.link.cut()
        await trio.sleep(1)
        assert fabric.engine.statistics().files == 0


async def test_a_file_that_cannot_be_read_is_missed(autojump_clock: MockClock) -> None:
    """What the worker says to that is the job's result; its neighbours are none the worse."""
    async with open_fabric() as fabric:
        client = await extended_client(fabric)
        client.submit(
            "t",
            {"filepath": reference("a")},
            {"filepath": reference("b")},
            resources=[image("a"), image("b")],
        )
        await wait_until_idle()
        root = trio.Path(fabric.config.store_root)
        (path,) = [path for path in await root.glob("*/**/*") if path.name.startswith("a-")]
        await path.unlink()
        worker = await inline_worker(fabric)
        message = await batch(worker)
        assert [data for _, data in message.resources] == [image("b").data]
        assert len(message.jobs) == 2


# --- The outlet alone ---------------------------------------------------------------------------------------


class FakeOutlet:
    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.buffered_bytes = 0
        self.lost = False

    def queue(self, *parts: bytes) -> None:
        self.messages.append(codec.decode(b"".join(parts)))

    async def wait_sent(self, below: int = 0) -> None:
        await trio.lowlevel.checkpoint()
        while self.buffered_bytes > below:  # noqa: ASYNC110
            await trio.sleep(0.01)
        if self.lost:
            raise ConnectionLost("gone")


@contextlib.asynccontextmanager
async def outlet_and_files(
    tmp_path: Path, count: int
) -> AsyncIterator[tuple[FileOutlet, FakeOutlet, ResourceStore, list[HeldFile]]]:
    async with open_store(tmp_path / "store", quota_bytes=MIB) as store:
        held = await store.hold("t", [image(str(n)) for n in range(count)])
        fake = FakeOutlet()
        outlet = FileOutlet(fake, store, trio.CapacityLimiter(1), lambda: None)
        yield outlet, fake, store, list(held.values())


def claims(files: Sequence[HeldFile]) -> list[int]:
    return [file.claims for file in files]


JOBS = [codec.encode_job("a", {})]


async def test_nothing_overtakes_a_batch_with_files(tmp_path: Path) -> None:
    async with outlet_and_files(tmp_path, 2) as (outlet, fake, _, files):
        outlet.queue_batch(JOBS, [])
        assert len(fake.messages) == 1, "without files nothing waits"
        outlet.queue_batch(JOBS, files[:1])
        outlet.queue(codec.encode(CancelJobs(["a"])))
        outlet.queue_batch(JOBS, [])
        outlet.queue_batch(JOBS, files)
        assert len(fake.messages) == 1
        assert claims(files) == [3, 2]
        expected = len(JOBS[0]) * 3 + weight(files[0]) * 2 + weight(files[1])
        assert outlet.buffered_bytes > expected
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outlet.run)
            await outlet.wait_sent()
            assert outlet.buffered_bytes == 0
            kinds = [len(m.resources) if isinstance(m, JobBatch) else "cancel" for m in fake.messages]
            assert kinds == [0, 1, "cancel", 0, 2]
            assert claims(files) == [1, 1]
            outlet.queue(codec.encode(CancelJobs(["b"])))
            assert len(fake.messages) == 6
            nursery.cancel_scope.cancel()


async def test_files_are_read_when_what_went_ahead_has_left(tmp_path: Path) -> None:
    async with outlet_and_files(tmp_path, 1) as (outlet, fake, _, files):
        fake.buffered_bytes = 2 * MIB
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outlet.run)
            outlet.queue_batch(JOBS, files)
            await trio.sleep(0.05)
            assert fake.messages == []
            fake.buffered_bytes = 0
            await outlet.wait_sent()
            assert len(fake.messages) == 1
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("lost", [False, True])
async def test_an_outlet_that_has_ended_claims_nothing(tmp_path: Path, lost: bool) -> None:
    async with outlet_and_files(tmp_path, 1) as (outlet, fake, _, files):
        fake.buffered_bytes = 0 if lost else 2 * MIB
        fake.lost = lost
        outlet.queue_batch(JOBS, files)
        outlet.queue_batch(JOBS, files)
        assert claims(files) == [3]
        with trio.move_on_after(0.05):
            await outlet.run()
        assert claims(files) == [1]
        outlet.queue_batch(JOBS, files)
        assert claims(files) == [1]
        assert outlet.buffered_bytes == fake.buffered_bytes


async def test_links_are_not_followed(tmp_path: Path) -> None:
    async with outlet_and_files(tmp_path, 1) as (outlet, fake, _, files):
        os.rename(files[0].path, tmp_path / "elsewhere")
        os.symlink(tmp_path / "elsewhere", files[0].path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outlet.run)
            outlet.queue_batch(JOBS, files)
            await outlet.wait_sent()
            nursery.cancel_scope.cancel()
        assert fake.messages[0].resources == []


def test_the_weight_of_a_file_is_never_too_small() -> None:
    for size in (0, 23, 24, 255, 256, 65536):
        file: Any = type("File", (), {"size_bytes": size, "path": "é" * 300})
        written = b"".join(codec.batch_parts([], splice.resource_parts(file.path, bytes(size)), 1))
        assert len(written) - len(b"".join(codec.batch_parts([], (), 0))) <= weight(file) + 12

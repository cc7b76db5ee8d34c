"""Jobs submitted in process: how they end early. The rest is in test_server.py."""

from __future__ import annotations

import gc
from array import array
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
import trio

from orbtrio.errors import InvalidMessage, JobFailed, JobRefused, JobTimedOut
from orbtrio.protocol import codec
from orbtrio.testing import open_fabric, wait_until_idle
from tests.engine.extended import extended_worker

if TYPE_CHECKING:
    from trio.testing import MockClock

    from orbtrio.protocol.messages import BatchJob
    from orbtrio.testing import FakeWorker


async def test_a_cancelled_submit_tells_the_worker(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "cancel")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fabric.engine.submit, "t", {})
            (job,) = await worker.receive_batch()
            nursery.cancel_scope.cancel()
        assert await worker.receive_cancels() == [job.job_id]
        worker.fail(job, "cancelled")
        await wait_until_idle()
        assert fabric.engine.statistics().workers[0].unanswered == 0


async def test_a_timeout_tells_the_worker(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "cancel")
        with pytest.raises(JobTimedOut, match="no answer within 2 s"):
            await fabric.engine.submit("t", {}, timeout=2)
        (job,) = await worker.receive_batch()
        assert await worker.receive_cancels() == [job.job_id]


async def test_progress_of_a_job_that_nobody_watches_is_let_go(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "progress")
        outputs = []

        async def submit() -> None:
            outputs.append(await fabric.engine.submit("t", {"x": 1}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit)
            (job,) = await worker.receive_batch()
            worker.report(job, percent=50)
            worker.answer(job)
        assert outputs == [{"echo": {"x": 1}}]


# --- Arrays -------------------------------------------------------------------------------------------------

VECTOR = [0.5 * number for number in range(20)]


def answer_with(worker: FakeWorker, job: BatchJob, vector: Any) -> None:
    for kind, field in (("worker_progress", "progress"), ("worker_output", "output")):
        entry = {"id": job.job_id, "v": vector}
        worker.send(codec.encode_value({"type": kind, field: [entry]}, typed_arrays=True))


@pytest.mark.parametrize("arrays", [False, True])
@pytest.mark.parametrize("asked", [False, True])
async def test_vectors_are_lists_or_arrays_as_the_caller_likes(
    autojump_clock: MockClock, asked: bool, arrays: bool
) -> None:
    """P-61. Tags of workers that did not ask are tags like any other, except for who wants arrays."""
    single, double = array("f", VECTOR), array("d", VECTOR)
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "progress", *(["typed_arrays"] if asked else []))
        outputs: list[Any] = []

        async def submit() -> None:
            outputs.append(await fabric.engine.submit("t", {}, arrays=arrays))

        async def stream() -> None:
            reports = fabric.engine.stream("t", {}, arrays=arrays)
            outputs.extend([piece async for piece in reports])
            outputs.append(reports.output)

        for vector in (single, VECTOR):
            outputs.clear()
            for call, count in ((submit, 1), (stream, 3)):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call)
                    (job,) = await worker.receive_batch()
                    answer_with(worker, job, vector)
                assert len(outputs) == count
            expected: Any = VECTOR
            if arrays:
                expected = single if vector is single else double
            elif vector is single and not asked:
                expected = cbor2.CBORTag(85, single.tobytes())
            assert [output["v"] for output in outputs] == [expected] * 3
            assert all(type(output["v"]) is type(expected) for output in outputs)


@pytest.mark.parametrize("arrays", [False, True])
async def test_a_result_may_be_too_much_as_a_list(autojump_clock: MockClock, arrays: bool) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "progress", "typed_arrays")
        pieces: list[Any] = []

        async def stream() -> None:
            reports = fabric.engine.stream("t", {}, arrays=arrays)
            try:
                pieces.extend([len(piece["v"]) async for piece in reports])
            except JobRefused as error:
                pieces.append(error.kind)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream)
            (job,) = await worker.receive_batch()
            answer_with(worker, job, array("f", bytes(4_000_000)))
        assert pieces == ([1_000_000] if arrays else ["result_too_large"])


# --- Streams ------------------------------------------------------------------------------------------------


async def test_a_stream_gives_what_the_worker_tells_and_the_output(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "progress")
        pieces = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_answer_in_pieces, worker, ["a", "b", "c"])
            async with fabric.engine.stream("t", {"x": 1}, extra={"priority": 1}) as stream:
                with pytest.raises(RuntimeError, match="no output"):
                    _ = stream.output
                async for piece in stream:
                    pieces.append(piece)
                    await trio.sleep(0.5)
        assert pieces == [{"text": "a"}, {"text": "b"}, {"text": "c"}]
        assert stream.output == {"extra": {"priority": 1}, "input": {"x": 1}}
        assert stream.attempt == 1
        assert [piece async for piece in stream] == []


async def _answer_in_pieces(worker: FakeWorker, texts: list[str]) -> None:
    (job,) = await worker.receive_batch()
    for text in texts:
        worker.report(job, text=text)
        await trio.sleep(1)
    worker.answer(job, {"extra": job.extra, "input": job.input})


async def test_a_stream_may_be_read_late(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "progress")
        stream = fabric.engine.stream("t", {})
        async with stream:
            (job,) = await worker.receive_batch()
            worker.report(job, text="a")
            worker.report(job, text="b")
            worker.answer(job, {})
            await wait_until_idle()
            assert [piece async for piece in stream] == [{"text": "a"}, {"text": "b"}]
        assert stream.output == {}


async def test_a_job_that_fails_raises_from_the_loop_once(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "progress")
        stream = fabric.engine.stream("t", {})
        async with stream:
            (job,) = await worker.receive_batch()
            worker.report(job, text="a")
            worker.fail(job, "too hard")
            assert await anext(stream) == {"text": "a"}
            with pytest.raises(JobFailed, match="too hard"):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            with pytest.raises(JobFailed, match="too hard"):
                _ = stream.output


@pytest.mark.parametrize(
    ("terms", "error", "text"),
    [
        ({"timeout": 2.0}, JobTimedOut, "no answer within 2 s"),
        ({"heartbeat": 1.5}, JobRefused, r"heartbeat_timeout: no progress within 1\.5 s"),
        ({"timeout": 0}, JobRefused, "timeout_ms: expected a positive number"),
    ],
)
async def test_a_stream_ends_on_its_own_terms(
    autojump_clock: MockClock, terms: dict[str, Any], error: type[Exception], text: str
) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "progress", "cancel")
        stream = fabric.engine.stream("t", {}, **terms)
        with pytest.raises(error, match=text):
            await anext(stream)
        if "timeout" not in terms or terms["timeout"]:
            (job,) = await worker.receive_batch()
            assert await worker.receive_cancels() == [job.job_id]


async def test_a_stream_that_is_left_stops_its_job(autojump_clock: MockClock) -> None:
    """However it is left."""
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "progress", "cancel")

        async def expect_cancel() -> None:
            (job,) = await worker.receive_batch()
            worker.report(job, text="a")
            assert await worker.receive_cancels() == [job.job_id]
            worker.fail(job, "cancelled")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_cancel)
            async with fabric.engine.stream("t", {}) as stream:
                assert await anext(stream) == {"text": "a"}
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        with pytest.raises(RuntimeError, match="left"):
            _ = stream.output
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_cancel)
            async for _ in fabric.engine.stream("t", {}):
                break
            gc.collect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_cancel)
            stream = fabric.engine.stream("t", {})
            with trio.move_on_after(5):
                async for _ in stream:
                    pass
        assert fabric.engine.statistics().open_jobs == 0
        await stream.aclose()


async def test_a_stream_begins_again_with_another_worker(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        first = await extended_worker(fabric, "progress")
        async with fabric.engine.stream("t", {}) as stream:
            first.report(await first.receive_batch(), text="a")
            assert await anext(stream) == {"text": "a"}
            first.link.cut()
            second = await extended_worker(fabric, "progress")
            jobs = await second.receive_batch()
            second.report(jobs, text="b")
            await wait_until_idle()
            assert stream.attempt == 1
            assert await anext(stream) == {"text": "b"}
            assert stream.attempt == 2
            second.report(jobs, text="stale")
            await wait_until_idle()
            second.link.cut()
            third = await extended_worker(fabric, "progress")
            third.report(await third.receive_batch(), text="c")
            await wait_until_idle()
            assert await anext(stream) == {"text": "c"}
            assert stream.attempt == 3


@pytest.mark.parametrize(("pieces", "size"), [(10_001, 1), (70, 1 << 20)])
async def test_a_reader_that_falls_too_far_behind_loses_its_job(
    autojump_clock: MockClock, pieces: int, size: int
) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "progress", "cancel")
        async with fabric.engine.stream("t", {}) as stream:
            (job,) = await worker.receive_batch()
            for _ in range(pieces):
                worker.report(job, text="x" * size)
            assert await worker.receive_cancels() == [job.job_id]
            for _ in range(10_000 if size == 1 else 63):
                await anext(stream)
            with pytest.raises(JobRefused, match="slow_reader"):
                await anext(stream)


async def test_a_stream_that_never_began_leaves_nothing(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        stream = fabric.engine.stream("t", {})
        await stream.aclose()
        assert [piece async for piece in stream] == []
        with pytest.raises(InvalidMessage):
            async with fabric.engine.stream("t", {"x": object()}):
                raise AssertionError
        await fabric.engine.stop(grace=0)
        with pytest.raises(JobRefused, match="engine_stopped"):
            await anext(fabric.engine.stream("t", {}))


async def test_a_stream_hears_that_the_engine_stops(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric, fabric.engine.stream("t", {}) as stream:
        await fabric.engine.stop(grace=0)
        with pytest.raises(JobRefused, match="engine_stopped"):
            await anext(stream)

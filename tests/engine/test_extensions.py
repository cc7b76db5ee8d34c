"""Extensions from wire to wire, in virtual time: section 8 of the protocol's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cbor2
import pytest
import trio

from orbtrio.protocol import codec
from orbtrio.protocol.messages import (
    CancelRequest,
    JobRequest,
    Resource,
    WorkerOutput,
    WorkerProgress,
    WorkerRequest,
)
from orbtrio.testing import open_fabric, wait_until_idle
from tests.engine.extended import extended_client, extended_worker
from tests.engine.extension_search import search

if TYPE_CHECKING:
    from trio.testing import MockClock

    from orbtrio.testing import Fabric, FakeClient


def kinds(client: FakeClient) -> list[tuple[Any, str]]:
    """The jobs that the engine has ended itself, and why."""
    return [(job_id, output["error_kind"]) for job_id, output in client.outputs if "error_kind" in output]


def credit(fabric: Fabric) -> list[tuple[int, int]]:
    """Jobs waiting and unanswered, by worker."""
    return [(worker.queued, worker.unanswered) for worker in fabric.engine.statistics().workers]


# --- cancel -------------------------------------------------------------------------------------------------


async def test_a_cancelled_job_ends_at_once_wherever_it_is(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "cancel", max_batch_size=2, max_unanswered_batches=1)
        client = await extended_client(fabric, "cancel")
        ids = client.submit("t", *({"n": n} for n in range(5)))
        first = await worker.receive_batch()
        assert credit(fabric) == [(3, 2)]
        client.cancel(ids[1], ids[2], "unknown", 5, None, [1], ids[2])
        assert await worker.receive_cancels() == [first[1].job_id]
        await wait_until_idle()
        assert kinds(client) == [(ids[1], "cancelled"), (ids[2], "cancelled")]
        assert client.outputs[0][1]["error"] == "the client cancelled the job"
        assert credit(fabric) == [(2, 2)], "the worker still owes an answer"
        worker.answer(first[0])
        await wait_until_idle()
        assert credit(fabric) == [(2, 1)]
        worker.fail(first[1], "cancelled")
        assert [job.input["n"] for job in await worker.receive_batch()] == [3, 4]
        assert [job_id for job_id, _ in client.outputs] == [ids[1], ids[2], ids[0]]
        assert fabric.engine.statistics().ended == {"cancelled": 2}
        assert fabric.engine.statistics().cancels_sent == 1


async def test_an_id_is_free_again_once_its_job_is_cancelled(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "cancel", max_batch_size=1)
        client = await extended_client(fabric, "cancel")
        for n in range(3):
            client.send(WorkerRequest([JobRequest({"odd": 1}, "t", {"n": n})]))
            if n < 2:
                client.send(CancelRequest([{"odd": 1}]))
        batches = [await worker.receive_batch()]
        await wait_until_idle()
        while worker.has_message:
            message: Any = worker.receive_nowait()
            if hasattr(message, "jobs"):
                batches.append(message.jobs)
        assert batches[-1][0].input == {"n": 2}
        worker.answer([job for jobs in batches for job in jobs])
        await wait_until_idle()
        assert [output.get("echo") for _, output in client.outputs] == [None, None, {"n": 2}]


async def test_nobody_cancels_the_jobs_of_others(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "cancel")
        client, other = await extended_client(fabric, "cancel"), await extended_client(fabric, "cancel")
        (job_id,) = client.submit("t", {})
        other.cancel(job_id)
        worker.answer(await worker.receive_batch())
        response = await client.receive_response()
        assert "echo" in response.output
        assert other.outputs == []


async def test_a_stock_worker_hears_of_no_cancelling(autojump_clock: MockClock) -> None:
    """It goes on computing, and its answer is dropped."""
    async with open_fabric() as fabric:
        worker, client = await extended_worker(fabric), await extended_client(fabric, "cancel")
        (job_id,) = client.submit("t", {})
        jobs = await worker.receive_batch()
        client.cancel(job_id)
        await wait_until_idle()
        assert kinds(client) == [(job_id, "cancelled")]
        assert len(worker.raw) == 1
        assert credit(fabric) == [(0, 1)]
        worker.answer(jobs)
        await wait_until_idle()
        assert credit(fabric) == [(0, 0)]
        assert len(client.outputs) == 1


async def test_a_client_that_did_not_ask_cannot_cancel(autojump_clock: MockClock) -> None:
    """P-53: it has sent a message of unknown type."""
    async with open_fabric() as fabric:
        worker, client = await extended_worker(fabric, "cancel"), await extended_client(fabric)
        (job_id,) = client.submit("t", {})
        client.cancel(job_id)
        worker.answer(await worker.receive_batch())
        assert "echo" in (await client.receive_response()).output
        assert len(worker.raw) == 1


async def test_who_hears_no_engine_errors_may_cancel_all_the_same(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "cancel")
        client = await extended_client(fabric, "cancel", engine_errors=False)
        (job_id,) = client.submit("t", {})
        await worker.receive_batch()
        client.cancel(job_id)
        await worker.receive_cancels()
        assert client.raw == []
        assert fabric.engine.statistics().open_jobs == 0


async def test_a_client_that_goes_stops_its_jobs(autojump_clock: MockClock) -> None:
    """P-25: one message for all of a worker's."""
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "cancel")
        leaving, staying = await fabric.fake_client(), await fabric.fake_client()
        leaving.submit("t", *({} for _ in range(3)))
        jobs = await worker.receive_batch()
        staying.submit("t", {})
        await worker.receive_batch()
        leaving.link.cut()
        assert await worker.receive_cancels() == [job.job_id for job in jobs]
        await wait_until_idle()
        assert not worker.has_message


async def test_a_deadline_stops_the_job(autojump_clock: MockClock) -> None:
    async with open_fabric(job_timeout=10) as fabric:
        worker = await extended_worker(fabric, "cancel", max_batch_size=1, max_unanswered_batches=1)
        client = await extended_client(fabric)
        ids = client.submit("t", {"n": 0}, {"n": 1})
        (job,) = await worker.receive_batch()
        assert await worker.receive_cancels() == [job.job_id]
        await wait_until_idle()
        assert kinds(client) == [(ids[0], "timeout"), (ids[1], "timeout")]
        assert credit(fabric) == [(0, 1)]


async def test_a_worker_that_never_answers_is_believed_for_one_more_timeout(
    autojump_clock: MockClock,
) -> None:
    async with open_fabric(job_timeout=10) as fabric:
        worker = await extended_worker(fabric, "cancel", max_batch_size=1, max_unanswered_batches=1)
        client = await extended_client(fabric, "cancel")
        ids = client.submit("t", {"n": 0})
        jobs = await worker.receive_batch()
        client.cancel(*ids)
        await worker.receive_cancels()
        await trio.sleep(5)
        client.submit("t", {"n": 1})
        start = trio.current_time()
        assert (await worker.receive_batch())[0].input == {"n": 1}
        assert trio.current_time() - start == pytest.approx(5)
        worker.answer(jobs)
        await wait_until_idle()
        assert credit(fabric) == [(0, 1)], "too late: nobody counts it any more"


async def test_short_deadlines_spend_no_credit_twice(autojump_clock: MockClock) -> None:
    """P-15, also of a worker that cannot be told to stop: it is sent no more than it asked for."""
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, max_batch_size=1, max_unanswered_batches=1)
        client = await extended_client(fabric, "progress")
        for number in range(5):
            extra = {"heartbeat_ms" if number % 2 else "timeout_ms": 10}
            client.send(WorkerRequest([JobRequest(number, "t", {}, extra)]))
        await trio.sleep(1)
        assert kinds(client)[0] == (0, "timeout")
        assert len(worker.raw) == 1
        worker.answer(await worker.receive_batch())
        await wait_until_idle()
        assert len(worker.raw) == 2
        await trio.sleep(2 * fabric.config.job_timeout)
        assert credit(fabric) == [(0, 0)]


async def test_many_cancelled_jobs_are_as_many_messages_as_the_worker_takes(
    autojump_clock: MockClock,
) -> None:
    """P-16: or a client that goes would cost a worker its connection, and others their jobs."""
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "cancel", max_batch_size=10, max_message_bytes=500)
        client = await extended_client(fabric)
        client.submit("t", *({} for _ in range(100)))
        await wait_until_idle()
        sent: list[str] = []
        while worker.has_message:
            sent += [job.job_id for job in await worker.receive_batch()]
        await client.close()
        await wait_until_idle()
        told: list[str] = []
        while len(told) < len(sent):
            told += await worker.receive_cancels()
        assert told == sent
        assert len(sent) == 100
        assert max(map(len, worker.raw)) <= 500


async def test_cancelling_frees_files_at_once(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker, client = await extended_worker(fabric, "cancel"), await extended_client(fabric, "cancel")
        reference = {"__type": "resource-ref", "id": "r"}
        ids = client.submit("t", {"filepath": reference}, resources=[Resource("r", "image", b"x")])
        await worker.receive_batch()
        assert fabric.engine.statistics().files == 1
        client.cancel(*ids)
        await trio.sleep(1)
        assert fabric.engine.statistics().files == 0


async def test_a_worker_lost_after_a_cancel_is_missed_by_nobody(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker, client = await extended_worker(fabric, "cancel"), await extended_client(fabric, "cancel")
        ids = client.submit("t", {"n": 0}, {"n": 1})
        await worker.receive_batch()
        client.cancel(ids[0])
        await worker.receive_cancels()
        worker.link.cut()
        other = await extended_worker(fabric, "cancel")
        assert [job.input["n"] for job in await other.receive_batch()] == [1]


async def test_a_thousand_streaming_jobs_free_their_workers_at_once(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        workers = [await extended_worker(fabric, "cancel", "progress", max_batch_size=1) for _ in range(4)]
        client = await extended_client(fabric, "cancel", "progress")
        ids = client.submit("t", *({"n": n} for n in range(1000)))
        await wait_until_idle()
        assert sum(unanswered for _, unanswered in credit(fabric)) == 1000
        start = trio.current_time()
        client.cancel(*ids)
        for worker in workers:
            while True:
                message: Any = await worker.receive()
                if hasattr(message, "job_ids"):
                    break
            worker.send(_answers(message.job_ids))
        await wait_until_idle()
        assert credit(fabric) == [(0, 0)] * 4
        assert trio.current_time() - start < 1
        assert len(kinds(client)) == 1000


def _answers(job_ids: list[str]) -> Any:
    return WorkerOutput([(name, codec.output_entry(name, {"error": "cancelled"})) for name in job_ids])


# --- progress -----------------------------------------------------------------------------------------------


async def test_progress_reaches_who_asked_in_order_and_before_the_answer(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "progress", max_batch_size=1)
        client, deaf = await extended_client(fabric, "progress"), await extended_client(fabric)
        (job_id,) = client.submit("t", {})
        await wait_until_idle()
        deaf.submit("t", {})
        mine, other = await worker.receive_batch(), await worker.receive_batch()
        for percent in (10, 20):
            worker.report([*mine, *other], percent=percent)
        worker.answer([*mine, *other])
        worker.report(mine, percent=30)
        for percent in (10, 20):
            report = await client.receive_progress()
            assert (report.client_job_id, report.progress, report.attempt) == (
                job_id,
                {"percent": percent},
                1,
            )
        assert "echo" in (await client.receive_response()).output
        await wait_until_idle()
        assert not client.has_message, "nothing after the answer"
        assert len(deaf.raw) == 1
        assert fabric.engine.statistics().progress == 4


async def test_an_entry_without_an_id_is_nobodys(autojump_clock: MockClock) -> None:
    """B-66: not even if what stands behind it looks like one. It costs the worker nothing, either."""
    async with open_fabric() as fabric:
        worker, client = await extended_worker(fabric, "progress"), await extended_client(fabric, "progress")
        client.submit("t", {})
        jobs = await worker.receive_batch()
        members = [{}, "id", jobs[0].job_id]
        worker.send(codec.encode_value({"type": "worker_progress", "progress": members}))
        worker.send(codec.encode_value({"type": "worker_output", "output": members}))
        await wait_until_idle()
        assert client.raw == []
        worker.answer(jobs)
        assert "echo" in (await client.receive_response()).output


async def test_a_flood_of_progress_costs_its_job_and_not_the_connection(autojump_clock: MockClock) -> None:
    """B-73: a worker sends more than the client reads; the jobs of its neighbours are done."""
    async with open_fabric(max_buffered_bytes=4 << 20) as fabric:
        flooding = await extended_worker(fabric, "progress", "cancel")
        client = await extended_client(fabric, "progress")
        (flooded,) = client.submit("t", {})
        (job,) = await flooding.receive_batch()
        neighbour = await fabric.fake_worker("other", eager=True, extensions=frozenset({"progress"}))
        (quiet,) = client.submit("other", {})
        jobs = await neighbour.receive_batch()
        client.link.stall()
        for _ in range(100):
            flooding.report(job, text="x" * 80_000)
            await trio.lowlevel.checkpoint()
        neighbour.report(jobs, percent=50)
        neighbour.answer(jobs)
        assert await flooding.receive_cancels() == [job.job_id]
        await wait_until_idle()
        client.link.resume()
        await wait_until_idle()
        assert client.lost is None
        assert kinds(client) == [(flooded, "slow_reader")]
        assert [name for name, _ in client.outputs] == [flooded, quiet]
        flooding.answer(job)
        await wait_until_idle()
        assert [worker.unanswered for worker in fabric.engine.statistics().workers] == [0, 0]


async def test_only_the_jobs_owner_reports(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "progress", "cancel")
        client = await extended_client(fabric, "progress", "cancel")
        (job_id,) = client.submit("t", {})
        jobs = await worker.receive_batch()
        other = await extended_worker(fabric, "progress")
        other.report(jobs, percent=1)
        other.send(WorkerProgress([("unknown", b"\xa1\x62id\x67unknown")]))
        await wait_until_idle()
        assert client.raw == []
        client.cancel(job_id)
        await worker.receive_cancels()
        worker.report(jobs, percent=2)
        await wait_until_idle()
        assert len(client.raw) == 1, "the end of the job, and nothing after it"


async def test_progress_starts_again_with_another_worker(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        client = await extended_client(fabric, "progress")
        client.submit("t", {})
        for attempt in (1, 2):
            worker = await extended_worker(fabric, "progress")
            worker.report(await worker.receive_batch(), text="x")
            assert (await client.receive_progress()).attempt == attempt
            worker.link.cut()
            await wait_until_idle()


async def test_progress_of_a_worker_that_did_not_ask_is_nothing(autojump_clock: MockClock) -> None:
    """P-53: a stock worker may call its own messages as it likes, now and then."""
    async with open_fabric() as fabric:
        worker, client = await extended_worker(fabric), await extended_client(fabric, "progress")
        client.submit("t", {})
        jobs = await worker.receive_batch()
        worker.report(jobs, percent=1)
        worker.send(b"\xa1\x64type\x6fworker_progress")
        worker.send(b"\xa1\x64type\x6cworker_drain")
        worker.answer(jobs)
        assert "echo" in (await client.receive_response()).output
        for _ in range(100):
            worker.report(jobs, percent=1)
        assert (await worker.wait_lost()).code == 1008


async def test_progress_larger_than_any_result_goes_nowhere(autojump_clock: MockClock) -> None:
    async with open_fabric(max_worker_message_bytes=128 * 1024) as fabric:
        worker, client = await extended_worker(fabric, "progress"), await extended_client(fabric, "progress")
        client.submit("t", {})
        jobs = await worker.receive_batch()
        worker.report(jobs, text="x" * 70_000)
        worker.report(jobs, text="x")
        assert (await client.receive_progress()).progress == {"text": "x"}


# --- heartbeat_ms -------------------------------------------------------------------------------------------


async def test_silence_ends_a_job_and_stops_its_worker(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "progress", "cancel")
        client = await extended_client(fabric, "progress")
        client.send(WorkerRequest([JobRequest("j", "t", {}, {"heartbeat_ms": 2000})]))
        (job,) = await worker.receive_batch()
        start = trio.current_time()
        for _ in range(5):
            await trio.sleep(1.5)
            worker.report(job, percent=1)
        assert await worker.receive_cancels() == [job.job_id]
        assert trio.current_time() - start == pytest.approx(9.5)
        await wait_until_idle()
        assert kinds(client) == [("j", "heartbeat_timeout")]
        assert client.outputs[0][1]["error"] == "no progress within 2 s"


async def test_a_job_that_waits_is_not_silent(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        client = await extended_client(fabric, "progress")
        client.send(WorkerRequest([JobRequest("j", "t", {}, {"heartbeat_ms": 2000})]))
        await trio.sleep(100)
        for _ in range(2):
            worker = await extended_worker(fabric, "progress")
            await worker.receive_batch()
            await trio.sleep(1.5)
            worker.link.cut()
            await trio.sleep(50)
        assert client.outputs == []
        worker = await extended_worker(fabric, "progress")
        start = trio.current_time()
        await client.receive_response()
        assert trio.current_time() - start == pytest.approx(2)


async def test_the_deadline_holds_however_lively_a_job_is(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker, client = await extended_worker(fabric, "progress"), await extended_client(fabric, "progress")
        extra = {"heartbeat_ms": 2000, "timeout_ms": 5000}
        client.send(WorkerRequest([JobRequest("j", "t", {}, extra)]))
        jobs = await worker.receive_batch()
        for _ in range(6):
            worker.report(jobs, percent=1)
            await trio.sleep(1)
        assert kinds(client) == [("j", "timeout")]
        assert client.outputs[0][1]["error"] == "no answer within 5 s"


# --- drain --------------------------------------------------------------------------------------------------


async def test_a_draining_worker_finishes_what_it_has_and_is_closed(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "drain", max_batch_size=2, max_unanswered_batches=2)
        client = await extended_client(fabric)
        client.submit("t", *({"n": n} for n in range(7)))
        batches = [await worker.receive_batch() for _ in range(2)]
        assert credit(fabric) == [(3, 4)]
        worker.drain()
        await wait_until_idle()
        statistics = fabric.engine.statistics()
        assert statistics.workers[0].draining
        assert [(one.workers, one.draining, one.queued) for one in statistics.worker_types] == [(0, 1, 3)]
        worker.answer(batches[0])
        worker.drain()
        await wait_until_idle()
        assert worker.lost is None
        client.submit("t", {"n": 7})
        worker.answer(batches[1])
        lost = await worker.wait_lost()
        assert (lost.code, lost.reason) == (1000, "drained")
        assert len(worker.raw) == 2, "no batch after its word"
        await wait_until_idle()
        statistics = fabric.engine.statistics()
        assert statistics.workers == ()
        assert (statistics.connections_lost, statistics.peer_errors, statistics.redelivered) == (0, 0, 0)
        heir = await extended_worker(fabric)
        assert [job.input["n"] for job in await heir.receive_batch()] == [4, 5, 6, 7]
        assert len(client.outputs) == 4


async def test_its_jobs_move_at_once(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        client = await extended_client(fabric)
        leaving = await extended_worker(fabric, "drain", max_batch_size=1, max_unanswered_batches=1)
        client.submit("t", {"n": 0}, {"n": 1})
        await leaving.receive_batch()
        staying = await extended_worker(fabric, max_batch_size=1, max_unanswered_batches=1)
        await wait_until_idle()
        client.submit("t", *({"n": n} for n in range(2, 6)))
        await wait_until_idle()
        leaving.drain()
        start = trio.current_time()
        for n in range(1, 6):
            (job,) = await staying.receive_batch()
            assert job.input["n"] == n
            staying.answer(job)
        assert trio.current_time() == start


async def test_an_idle_worker_is_closed_at_once(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "drain")
        worker.drain()
        assert (await worker.wait_lost()).code == 1000


async def test_a_draining_worker_that_is_lost_leaves_its_jobs(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        client, worker = await extended_client(fabric), await extended_worker(fabric, "drain")
        client.submit("t", {"n": 0})
        await worker.receive_batch()
        worker.drain()
        await wait_until_idle()
        worker.link.cut()
        heir = await extended_worker(fabric)
        assert [job.input["n"] for job in await heir.receive_batch()] == [0]
        assert fabric.engine.statistics().redelivered == 1


async def test_sessions_move_on_when_their_worker_drains(autojump_clock: MockClock) -> None:
    """P-12: a key stays with its worker only as long as that takes jobs."""
    async with open_fabric() as fabric:
        workers = [
            await fabric.fake_worker("video_segmentation", max_batch_size=1, extensions=frozenset({"drain"}))
            for _ in range(2)
        ]
        client = await extended_client(fabric)

        def submit(n: int) -> None:
            client.submit("video_segmentation", {"cross_job_id": "a", "n": n})

        submit(0)
        await wait_until_idle()
        first, second = sorted(workers, key=lambda worker: not worker.has_message)
        assert (first.has_message, second.has_message) == (True, False)
        first.drain()
        await wait_until_idle()
        submit(1)
        assert (await second.receive_batch())[0].input["n"] == 1


async def test_abandoned_jobs_hold_up_a_drain(autojump_clock: MockClock) -> None:
    """The worker has not said yet that it has stopped."""
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "drain", "cancel")
        client = await extended_client(fabric, "cancel")
        ids = client.submit("t", {})
        jobs = await worker.receive_batch()
        worker.drain()
        client.cancel(*ids)
        await worker.receive_cancels()
        await trio.sleep(5)
        assert worker.lost is None
        worker.fail(jobs, "cancelled")
        assert (await worker.wait_lost()).code == 1000


@pytest.mark.parametrize("others", [0, 1])
async def test_an_engine_that_stops_lets_drains_end(autojump_clock: MockClock, others: int) -> None:
    """P-26: running jobs are finished, waiting ones go to workers that take jobs, or end."""
    async with open_fabric() as fabric:
        settings = {"max_batch_size": 1, "max_unanswered_batches": 1, "eager": True}
        worker = await extended_worker(fabric, "drain", **settings)
        client = await extended_client(fabric)
        ids = client.submit("t", {"n": 0}, {"n": 1})
        jobs = await worker.receive_batch()
        helpers = [await extended_worker(fabric, **settings) for _ in range(others)]
        async with trio.open_nursery() as nursery:
            worker.drain()
            await wait_until_idle()
            nursery.start_soon(fabric.engine.stop)
            await wait_until_idle()
            for helper in helpers:
                helper.answer(await helper.receive_batch())
            worker.answer(jobs)
        outputs = dict(client.outputs)
        assert outputs[ids[0]]["echo"] == {"n": 0}
        if others:
            assert outputs[ids[1]]["echo"] == {"n": 1}
        else:
            assert outputs[ids[1]]["error_kind"] == "engine_stopped"


async def test_a_worker_may_drain_while_the_engine_stops(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "drain", max_batch_size=1, max_unanswered_batches=1)
        client = await extended_client(fabric)
        ids = client.submit("t", {"n": 0}, {"n": 1})
        jobs = await worker.receive_batch()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fabric.engine.stop)
            await wait_until_idle()
            worker.drain()
            await wait_until_idle()
            worker.answer(jobs)
        assert dict(client.outputs)[ids[0]]["echo"] == {"n": 0}
        assert dict(client.outputs)[ids[1]]["error_kind"] == "engine_stopped"


async def test_a_worker_type_is_not_forgotten_while_a_worker_drains(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker, client = await extended_worker(fabric, "drain"), await extended_client(fabric)
        client.submit("t", {})
        jobs = await worker.receive_batch()
        worker.drain()
        # More types than the engine remembers.
        client.send(WorkerRequest([JobRequest(n, f"other-{n}", {}) for n in range(1500)]))
        await trio.sleep(300)
        worker.answer(jobs)
        assert (await worker.wait_lost()).code == 1000


# --- batched_responses --------------------------------------------------------------------------------------


async def test_answers_that_are_ready_together_travel_together(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, max_batch_size=100)
        client, single = await extended_client(fabric, "batched_responses"), await extended_client(fabric)
        ids = client.submit("t", *({"n": n} for n in range(10)))
        await wait_until_idle()
        others = single.submit("t", *({"n": n} for n in range(10, 20)))
        worker.answer([*await worker.receive_batch(), *await worker.receive_batch()])
        await wait_until_idle()
        assert (len(client.raw), len(single.raw)) == (1, 10)
        assert [job_id for job_id, _ in client.outputs] == ids
        assert [job_id for job_id, _ in single.outputs] == others
        await client.receive()
        client.submit("t", {})
        worker.answer(await worker.receive_batch())
        assert "echo" in (await client.receive_response()).output


async def test_what_the_engine_refuses_travels_together(autojump_clock: MockClock) -> None:
    async with open_fabric(worker_types=("t",)) as fabric:
        client = await extended_client(fabric, "batched_responses")
        client.submit("unknown", *({} for _ in range(300)))
        await wait_until_idle()
        assert len(client.raw) == 1
        assert len(kinds(client)) == 300


async def test_whoever_is_waiting_when_the_engine_stops_is_told(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        client = await extended_client(fabric, "batched_responses")
        client.submit("t", {}, {})
        await wait_until_idle()
        await fabric.engine.stop(grace=0)
        await client.wait_lost()
        assert [kind for _, kind in kinds(client)] == ["engine_stopped"] * 2


# --- typed_arrays -------------------------------------------------------------------------------------------


async def test_an_entry_with_a_broken_typed_array_is_nobodys_and_its_neighbours_count(
    autojump_clock: MockClock,
) -> None:
    """P-61, P-23."""
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "typed_arrays", "progress", max_batch_size=2)
        client = await extended_client(fabric, "typed_arrays", "progress")
        stock = await extended_client(fabric)
        for one in (client, stock):
            one.submit("t", {"n": 0}, {"n": 1})
        jobs = [*await worker.receive_batch(), *await worker.receive_batch()]
        broken = cbor2.CBORTag(85, b"12345")
        for kind, field in (("worker_progress", "progress"), ("worker_output", "output")):
            entries = [{"id": job.job_id, "v": broken if job.input["n"] else "good"} for job in jobs]
            worker.send(codec.encode_value({"type": kind, field: entries}))
        await wait_until_idle()
        assert [output["v"] for one in (client, stock) for _, output in one.outputs] == ["good", "good"]
        assert fabric.engine.statistics().outputs_dropped == 2
        assert fabric.engine.statistics().progress == 2
        worker.answer([job for job in jobs if job.input["n"]])
        await wait_until_idle()
        assert [len(one.outputs) for one in (client, stock)] == [2, 2]


# --- all of it at once --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
async def test_books_stay_right_whatever_happens_in_whatever_order(
    autojump_clock: MockClock, seed: int
) -> None:
    await search(seed, 40)

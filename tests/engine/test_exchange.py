"""The life of a job from wire to wire: sections 2 to 4 of the protocol's rules, in virtual time."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
import trio

from orbtrio.protocol import codec
from orbtrio.protocol.messages import JobRequest, Resource, WorkerOutput, WorkerRequest
from orbtrio.testing import open_fabric, wait_until_idle
from tests.engine.neighbours import open_neighbours

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from trio.testing import MockClock

    from orbtrio.protocol.messages import BatchJob
    from orbtrio.testing import Fabric, FakeClient, FakeWorker

MIB = 1 << 20
PNG = b"\x89PNG\r\n\x1a\n" + bytes(8) + b"IHDR"


def numbered(count: int, first: int = 0) -> list[dict[str, int]]:
    return [{"n": number} for number in range(first, first + count)]


def numbers(jobs: Sequence[BatchJob]) -> list[int]:
    return [job.input["n"] for job in jobs]


def refusals(client: FakeClient) -> list[tuple[Any, str]]:
    """The jobs that the engine has ended itself, and why."""
    return [(job_id, output["error_kind"]) for job_id, output in client.outputs if "error_kind" in output]


def reference(resource_id: str) -> dict[str, str]:
    return {"__type": "resource-ref", "id": resource_id}


async def files(fabric: Fabric) -> list[trio.Path]:
    """Every file of a resource, complete or not."""
    root = trio.Path(fabric.config.store_root)
    return [path for path in await root.glob("*/**/*") if await path.is_file()]


# ---------------------------------------------------------------------------------------------------- batches


async def test_partial_batch_leaves_when_its_oldest_job_has_waited_max_latency(
    autojump_clock: MockClock,
) -> None:
    """P-10: later jobs do not restart the clock, and a batch is never empty."""
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", max_latency=1.0)
        client = await fabric.fake_client()
        start = trio.current_time()
        for number in range(7):
            client.submit("t", {"n": number})
            await trio.sleep(0.3)
        assert numbers(await worker.receive_batch()) == [0, 1, 2, 3]
        assert numbers(await worker.receive_batch()) == [4, 5, 6]
        assert trio.current_time() - start == pytest.approx(2.2)
        await trio.sleep(100)
        assert len(worker.raw) == 2


async def test_full_batch_leaves_at_once(autojump_clock: MockClock) -> None:
    """P-10."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=3), await fabric.fake_client()
        start = trio.current_time()
        client.submit("t", *numbered(7))
        assert [numbers(await worker.receive_batch()) for _ in range(2)] == [[0, 1, 2], [3, 4, 5]]
        assert trio.current_time() == start
        assert numbers(await worker.receive_batch()) == [6]


async def test_stock_worker_is_sent_all_that_is_due(autojump_clock: MockClock) -> None:
    """P-15: TCP is its only brake."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        client.submit("t", *numbered(1000))
        await wait_until_idle()
        assert len(worker.raw) == 1000


async def test_credit_holds_back_what_is_due(autojump_clock: MockClock) -> None:
    """P-15, B-72: a worker that answers one job of each batch gets no more batches; the others do."""
    async with open_fabric() as fabric:
        stuck = await fabric.fake_worker("t", max_batch_size=2, max_unanswered_batches=1)
        client = await fabric.fake_client()
        client.submit("t", *numbered(4))
        jobs = await stuck.receive_batch()
        stuck.answer(jobs[0])
        await trio.sleep(100)
        assert len(stuck.raw) == 1
        other = await fabric.fake_worker("t", max_batch_size=2, max_unanswered_batches=1)
        assert numbers(await other.receive_batch()) == [2]
        stuck.answer(jobs[1])
        assert numbers(await stuck.receive_batch()) == [3]


async def test_eager_worker_waits_for_no_company_while_it_is_idle(autojump_clock: MockClock) -> None:
    """P-18."""
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=8, eager=True, max_unanswered_batches=1)
        client = await fabric.fake_client()
        start = trio.current_time()
        client.submit("t", {"n": 0})
        first = await worker.receive_batch()
        for number in (1, 2, 3):
            client.submit("t", {"n": number})
        await wait_until_idle()
        assert len(worker.raw) == 1
        worker.answer(first)
        assert numbers(await worker.receive_batch()) == [1, 2, 3]
        assert trio.current_time() == start


async def test_batches_stay_below_900_kib_unless_the_worker_takes_more(autojump_clock: MockClock) -> None:
    """P-16."""
    async with open_fabric() as fabric:
        client = await fabric.fake_client()
        for worker_type, limit in (("stock", 900 * 1024), ("roomy", 3 * MIB)):
            settings = {} if worker_type == "stock" else {"max_message_bytes": limit}
            worker = await fabric.fake_worker(worker_type, **settings)
            client.submit(worker_type, *({"n": number, "x": "x" * 400_000} for number in range(12)))
            received = 0
            while received < 12:
                received += len(await worker.receive_batch())
            sizes = [len(raw) for raw in worker.raw]
            assert max(sizes) <= limit
            assert sizes[0] > limit / 2


async def test_job_too_large_for_every_worker_is_refused(autojump_clock: MockClock) -> None:
    """P-16, P-31."""
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        client = await fabric.fake_client(engine_errors=True)
        ids = client.submit("t", {"x": "x" * 950_000}, {"x": "x" * 900_000})
        assert len(await worker.receive_batch()) == 1
        assert refusals(client) == [(ids[0], "invalid_job")]
        assert "send large data as a resource" in client.outputs[0][1]["error"]


async def test_worker_types_are_never_mixed(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        workers = [await fabric.fake_worker(name, max_batch_size=2) for name in ("a", "b")]
        client = await fabric.fake_client()
        client.send(WorkerRequest([JobRequest(n, "ab"[n % 2], {"n": n}) for n in range(4)]))
        assert [numbers(await worker.receive_batch()) for worker in workers] == [[0, 2], [1, 3]]


async def test_equal_workers_differ_by_a_batch_at_most(autojump_clock: MockClock) -> None:
    """P-12."""
    async with open_fabric() as fabric:
        for _ in range(3):
            await fabric.fake_worker("t", max_batch_size=4)
        client = await fabric.fake_client()
        for size in (1, 5, 2, 30, 4, 18):
            client.submit("t", *numbered(size))
            await wait_until_idle()
            loads = [worker.queued + worker.unanswered for worker in fabric.engine.statistics().workers]
            assert max(loads) - min(loads) <= 4


@pytest.mark.parametrize(
    ("worker_type", "field"), [("video_segmentation", "cross_job_id"), ("motion_energy", "media_id")]
)
@pytest.mark.parametrize(
    "keys",
    ["abc", [1, 2, 3], [None, True, 1.5], ["x" * 99 + "a", "x" * 99 + "b", b"c"]],
    ids=["text", "numbers", "odd", "long"],
)
async def test_jobs_of_one_session_stay_with_one_worker_in_order(
    autojump_clock: MockClock, worker_type: str, field: str, keys: Sequence[Any]
) -> None:
    """P-12: null is no session, anything else is."""
    async with open_fabric() as fabric:
        workers = [await fabric.fake_worker(worker_type, max_batch_size=1) for _ in range(2)]
        client = await fabric.fake_client()
        for number in range(12):
            client.submit(worker_type, {field: keys[number % 3], "n": number})
            await wait_until_idle()
        seen: dict[Any, set[FakeWorker]] = {}
        order: dict[Any, list[int]] = {}
        for worker in workers:
            for _ in worker.raw:
                (job,) = await worker.receive_batch()
                seen.setdefault(job.input[field], set()).add(worker)
                order.setdefault(job.input[field], []).append(job.input["n"])
        for key in keys:
            if key is not None:
                assert len(seen[key]) == 1
                assert order[key] == sorted(order[key])
        assert len({worker for owners in seen.values() for worker in owners}) == 2


async def test_session_moves_when_its_worker_is_lost(autojump_clock: MockClock) -> None:
    """P-12: one key, one worker, while that worker lives."""
    async with open_fabric(affinity={"t": "key"}) as fabric:
        workers = [await fabric.fake_worker("t", max_batch_size=1) for _ in range(2)]
        client = await fabric.fake_client()
        client.submit("t", {"key": "k", "n": 0})
        await wait_until_idle()
        keeper, other = workers if workers[0].raw else reversed(workers)
        keeper.link.cut()
        client.submit("t", {"key": "k", "n": 1})
        assert [numbers(await other.receive_batch()) for _ in range(2)] == [[0], [1]]


# --------------------------------------------------------------------------------------------- ids and fields


async def test_ids_are_ours_and_the_clients_is_only_echoed(autojump_clock: MockClock) -> None:
    """P-02: ours are unique and cannot be guessed, not even by a worker that knows others."""
    async with open_fabric() as fabric, open_fabric() as another:
        ids = []
        for each in (fabric, another):
            worker, client = await each.fake_worker("t", max_batch_size=2), await each.fake_client()
            client.submit("t", {}, {})
            jobs = await worker.receive_batch()
            ids += [job.job_id for job in jobs]
            worker.answer(jobs)
            await wait_until_idle()
            assert [job_id for job_id, _ in client.outputs] == ["job-1", "job-2"]
            assert [output["id"] for _, output in client.outputs] == [job.job_id for job in jobs]
        assert len(set(ids)) == 4
        prefixes = {job_id.rpartition("-")[0] for job_id in ids}
        assert len(prefixes) == 2
        assert min(map(len, prefixes)) >= 16


async def test_client_ids_may_be_any_cbor_and_come_back_as_they_were(autojump_clock: MockClock) -> None:
    """P-02: also when they are equal in Python, such as 1 and 1.0."""
    ids = [1, 1.0, True, "1", b"1", None, [1], [1.0], {"a": 1}, -1, 2**63, 1.5, "", cbor2.undefined]
    async with open_fabric() as fabric:
        worker, client = (
            await fabric.fake_worker("t", max_batch_size=len(ids) - 1),
            await fabric.fake_client(),
        )
        jobs = [{"job_id": job_id, "worker_type": "t", "input": {"n": n}} for n, job_id in enumerate(ids)]
        client.send(cbor2.dumps({"type": "worker_request", "jobs": jobs}))
        worker.answer(reversed(await worker.receive_batch()))
        await wait_until_idle()
        answers = {output["echo"]["n"]: job_id for job_id, output in client.outputs}
        assert [(type(answers[n]), answers[n]) for n in range(len(ids) - 1)] == [
            (type(i), i) for i in ids[:-1]
        ]


async def test_further_fields_of_a_job_pass_through_beside_its_input(autojump_clock: MockClock) -> None:
    """P-03: they never shadow id or input."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        job = {
            "job_id": "a",
            "worker_type": "t",
            "input": {"id": "in", "input": 1},
            "priority": 7,
            "id": "forged",
        }
        client.send(cbor2.dumps({"type": "worker_request", "jobs": [job]}))
        await worker.receive_batch()
        (sent,) = cbor2.loads(worker.raw[0])["inputs"]
        assert sent.pop("id").endswith("-1")
        assert sent == {"input": {"id": "in", "input": 1}, "priority": 7}


@pytest.mark.parametrize(("worker_type", "flat"), [("et:1", True), ("other", False)])
async def test_flat_dialect_puts_the_inputs_fields_beside_the_id(
    autojump_clock: MockClock, worker_type: str, flat: bool
) -> None:
    """P-04: with a timestamp, as workers of the public engine read it."""
    async with open_fabric(flat_types=["et:*"]) as fabric:
        worker, client = await fabric.fake_worker(worker_type, max_batch_size=1), await fabric.fake_client()
        job = {"job_id": "a", "worker_type": worker_type, "input": {"text": "x", "id": "forged"}, "extra": 1}
        client.send(cbor2.dumps({"type": "worker_request", "jobs": [job]}))
        await worker.receive_batch()
        (sent,) = cbor2.loads(worker.raw[0])["inputs"]
        assert sent["id"].endswith("-1")
        if flat:
            assert sent.keys() == {"id", "text", "extra", "timestamp"}
            assert type(sent["timestamp"]) is float
            assert sent["timestamp"] > 1.7e12
        else:
            assert sent["input"] == {"text": "x", "id": "forged"}
            assert "timestamp" not in sent


async def test_whatever_cbor_holds_arrives_unchanged(autojump_clock: MockClock) -> None:
    """P-51, B-39, B-40."""
    value = {
        "numbers": [0, -1, 2**64 - 1, -(2**63), 1.5, -0.0, float("inf"), 2.0**53 + 2],
        "text": "\0 \N{RIGHT-TO-LEFT OVERRIDE} \n \U0001f600",
        "bytes": bytes(range(256)),
        "others": [None, True, False, cbor2.undefined, cbor2.CBORSimpleValue(99)],
        "deep": {"a": [{"b": [[]]}]},
        "tagged": cbor2.CBORTag(4711, "x"),
        "": {},
    }
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        client.submit("t", value)
        (job,) = await worker.receive_batch()
        assert cbor2.dumps(job.input) == cbor2.dumps(value)
        worker.answer(job)
        response = await client.receive_response()
        assert cbor2.dumps(response.output["echo"]) == cbor2.dumps(value)


# ---------------------------------------------------------------------------------------------------- waiting


async def test_jobs_wait_for_the_first_worker_of_their_type(autojump_clock: MockClock) -> None:
    """P-13, F-20."""
    async with open_fabric() as fabric:
        client = await fabric.fake_client(engine_errors=True)
        client.submit("t", *numbered(3))
        await trio.sleep(200)
        worker = await fabric.fake_worker("t", max_batch_size=3)
        assert numbers(await worker.receive_batch()) == [0, 1, 2]
        assert refusals(client) == []


@pytest.mark.parametrize("with_worker", [False, True])
async def test_job_1001_is_refused_and_no_older_one_dropped(
    autojump_clock: MockClock, with_worker: bool
) -> None:
    """P-13, P-14."""
    async with open_fabric() as fabric:
        client = await fabric.fake_client(engine_errors=True)
        credit = {"max_unanswered_batches": 1, "max_batch_size": 10}
        workers = [await fabric.fake_worker("t", **credit)] if with_worker else []
        room = 1010 if with_worker else 1000
        ids = client.submit("t", *numbered(10))
        await wait_until_idle()
        ids += client.submit("t", *numbered(room - 10, 10))
        ids += client.submit("t", *numbered(2, room))
        await wait_until_idle()
        assert refusals(client) == [(job_id, "queue_full") for job_id in ids[room:]]
        worker = workers[0] if workers else await fabric.fake_worker("t", **credit)
        got: list[int] = []
        for _ in range(room // 10):
            jobs = await worker.receive_batch()
            got += numbers(jobs)
            worker.answer(jobs)
        assert got == list(range(room))


async def test_open_jobs_have_a_memory_budget(autojump_clock: MockClock) -> None:
    """G-10: whatever their number; what ends makes room."""
    async with open_fabric(max_open_bytes=MIB) as fabric, open_neighbours(fabric):
        worker = await fabric.fake_worker("t", max_batch_size=1, max_unanswered_batches=1)
        client = await fabric.fake_client(engine_errors=True)
        ids = client.submit("t", *({"x": "x" * 600_000} for _ in range(3)))
        worker.answer(await worker.receive_batch(), {})
        await wait_until_idle()
        assert refusals(client) == [(ids[2], "queue_full")]
        client.submit("t", {})
        worker.answer(await worker.receive_batch(), {})
        assert len(await worker.receive_batch()) == 1


# --------------------------------------------------------------------------------------------------- timeouts


@pytest.mark.parametrize("engine_errors", [False, True])
@pytest.mark.parametrize("where", ["no worker", "queue", "worker"])
async def test_job_ends_after_five_minutes_wherever_it_is(
    autojump_clock: MockClock, engine_errors: bool, where: str
) -> None:
    """P-21: a stock client hears nothing, others why; a late answer is dropped (F-43)."""
    async with open_fabric() as fabric:
        client = await fabric.fake_client(engine_errors=engine_errors)
        worker: FakeWorker | None = None
        if where != "no worker":
            worker = await fabric.fake_worker("t", max_batch_size=1, max_unanswered_batches=1)
        if worker is not None and where == "queue":
            client.submit("t", {"n": 0})
            await worker.receive_batch()
        (job_id,) = client.submit("t", {"n": 1})
        start = trio.current_time()
        await trio.sleep(299.99)
        assert fabric.engine.statistics().ended == {}
        await trio.sleep(0.02)
        statistics = fabric.engine.statistics()
        assert statistics.open_jobs == 0
        if engine_errors:
            assert refusals(client)[-1] == (job_id, "timeout")
        else:
            assert client.outputs == []
        if worker is not None and where == "worker":
            worker.answer(await worker.receive_batch())
            await wait_until_idle()
            assert fabric.engine.statistics().outputs_dropped == 1
            assert len(client.outputs) == engine_errors
        assert trio.current_time() - start < 301


async def test_one_clock_covers_queue_run_and_redelivery(autojump_clock: MockClock) -> None:
    """P-21."""
    async with open_fabric() as fabric:
        client = await fabric.fake_client(engine_errors=True)
        ids = client.submit("t", {})
        start = trio.current_time()
        for _ in range(2):
            await trio.sleep(100)
            worker = await fabric.fake_worker("t", max_batch_size=1)
            await worker.receive_batch()
            await trio.sleep(40)
            worker.link.cut()
            await worker.wait_lost()
        await client.receive_response()
        assert refusals(client) == [(ids[0], "timeout")]
        assert trio.current_time() - start == pytest.approx(300)


async def test_timeout_gives_back_the_credit_of_a_stuck_worker(autojump_clock: MockClock) -> None:
    """P-15, P-21."""
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=1, max_unanswered_batches=1)
        client = await fabric.fake_client()
        client.submit("t", {"n": 0})
        await trio.sleep(100)
        client.submit("t", {"n": 1})
        assert [numbers(await worker.receive_batch()) for _ in range(2)] == [[0], [1]]
        assert trio.current_time() == pytest.approx(300, abs=1)


# ----------------------------------------------------------------------------------------------- lost workers


async def test_lost_workers_jobs_go_to_the_front_in_their_old_order(autojump_clock: MockClock) -> None:
    """P-17, P-22, F-01, F-02: sent or not."""
    async with open_fabric() as fabric:
        credit = {"max_batch_size": 2, "max_unanswered_batches": 1}
        lost = await fabric.fake_worker("t", **credit)
        client = await fabric.fake_client()
        client.submit("t", *numbered(5))
        assert numbers(await lost.receive_batch()) == [0, 1]
        heir = await fabric.fake_worker("t", **credit)
        client.submit("t", *numbered(5, 5))
        jobs = await heir.receive_batch()
        lost.link.cut()
        await lost.wait_lost()
        got: list[int] = []
        while len(got) < 10 - len(jobs):
            heir.answer(jobs)
            jobs = await heir.receive_batch()
            got += numbers(jobs)
        assert got == sorted(got)
        assert got[:2] == [0, 1]
        assert fabric.engine.statistics().redelivered == 2


async def test_job_is_sent_three_times_at_most(autojump_clock: MockClock) -> None:
    """P-22, F-21."""
    async with open_fabric() as fabric:
        client = await fabric.fake_client(engine_errors=True)
        ids = client.submit("t", {"poison": True})
        for _ in range(3):
            assert refusals(client) == []
            victim = await fabric.fake_worker("t", max_batch_size=1)
            await victim.receive_batch()
            victim.link.cut()
            await victim.wait_lost()
        await wait_until_idle()
        assert refusals(client) == [(ids[0], "worker_lost")]
        last = await fabric.fake_worker("t", max_batch_size=1)
        await trio.sleep(400)
        assert last.raw == []


async def test_job_in_hand_when_two_workers_died_travels_alone(autojump_clock: MockClock) -> None:
    """P-22: so that a poisonous job takes no other with it."""
    async with open_fabric() as fabric:
        client = await fabric.fake_client(engine_errors=True)
        client.submit("t", *numbered(4))
        for _ in range(2):
            victim = await fabric.fake_worker("t", max_batch_size=4)
            assert numbers(await victim.receive_batch()) == [0, 1, 2, 3]
            victim.link.cut()
            await victim.wait_lost()
        worker = await fabric.fake_worker("t", max_batch_size=4)
        for number in range(4):
            batch = await worker.receive_batch()
            assert numbers(batch) == [number]
            await wait_until_idle()
            assert len(worker.raw) == number + 1, "the next waits until this one has been answered"
            worker.answer(batch)


async def test_queued_jobs_are_not_counted_as_sent(autojump_clock: MockClock) -> None:
    """P-22: what a worker never saw it cannot have died of."""
    async with open_fabric() as fabric:
        client = await fabric.fake_client(engine_errors=True)
        client.submit("t", *numbered(2))
        for _ in range(5):
            idle = await fabric.fake_worker("t")
            await trio.sleep(1)
            idle.link.cut()
            await idle.wait_lost()
        worker = await fabric.fake_worker("t", max_batch_size=2)
        assert numbers(await worker.receive_batch()) == [0, 1]
        assert fabric.engine.statistics().redelivered == 0


# ---------------------------------------------------------------------------------------------------- answers


async def test_answers_may_come_in_any_order_and_in_pieces(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=4), await fabric.fake_client()
        ids = client.submit("t", *numbered(4))
        jobs = await worker.receive_batch()
        worker.answer([jobs[3], jobs[1]])
        worker.answer(jobs[0])
        worker.answer(jobs[2])
        await wait_until_idle()
        assert [(job_id, output["echo"]["n"]) for job_id, output in client.outputs] == [
            (ids[number], number) for number in (3, 1, 0, 2)
        ]


async def test_first_answer_counts(autojump_clock: MockClock) -> None:
    """P-23, B-67: twice in one message, and again later."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        client.submit("t", {})
        (job,) = await worker.receive_batch()
        entries = [(job.job_id, codec.output_entry(job.job_id, {"take": take})) for take in (1, 2)]
        worker.send(WorkerOutput(entries))
        worker.answer(job, {"take": 3})
        await wait_until_idle()
        assert [output["take"] for _, output in client.outputs] == [1]
        statistics = fabric.engine.statistics()
        assert (statistics.answered, statistics.outputs_dropped) == (1, 2)
        assert worker.lost is None


async def test_only_the_owner_may_answer(autojump_clock: MockClock) -> None:
    """P-23, I8, F-08: not a neighbour, nor the owner before, nor anybody before the job is sent."""
    async with open_fabric() as fabric:
        first = await fabric.fake_worker("t", max_batch_size=1)
        client = await fabric.fake_client()
        client.submit("t", {})
        (job,) = await first.receive_batch()
        stranger = await fabric.fake_worker("t", max_batch_size=1)
        stranger.answer(job, {"by": "stranger"})
        first.link.stall()
        await trio.sleep(60)
        (again,) = await stranger.receive_batch()
        assert again.job_id == job.job_id
        first.answer(job, {"by": "first"})
        first.link.resume()
        await wait_until_idle()
        assert client.outputs == []
        stranger.answer(again, {"by": "owner"})
        await wait_until_idle()
        assert [output["by"] for _, output in client.outputs] == ["owner"]


async def test_good_entries_count_among_malformed_ones(autojump_clock: MockClock) -> None:
    """P-23."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=2), await fabric.fake_client()
        client.submit("t", *numbered(2))
        jobs = await worker.receive_batch()
        output = [
            None,
            {"id": jobs[0].job_id, "good": 1},
            {"id": 7},
            {"no": "id"},
            {"id": jobs[1].job_id, "good": 2},
        ]
        worker.send(cbor2.dumps({"type": "worker_output", "output": output}))
        await wait_until_idle()
        assert [output["good"] for _, output in client.outputs] == [1, 2]
        assert fabric.engine.statistics().outputs_dropped == 3


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"error": "no"}, {"error": "no"}),
        ({"error": "no", "result": 1}, {"error": "no", "result": 1}),
        ({"error": None, "result": 1}, {"error": None, "result": 1}),
        ({"error": {"code": 7}}, {"error": {"code": 7}}),
        ({"error": "é" * 10**6}, {"error": "é" * 4096}),
    ],
    ids=["error", "error and result", "null", "map", "2 MB"],
)
async def test_workers_error_is_delivered_and_never_retried(
    autojump_clock: MockClock, fields: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    """P-24, B-68: a long text is cut to 8 KiB."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        client.submit("t", {})
        (job,) = await worker.receive_batch()
        worker.answer(job, fields)
        response = await client.receive_response()
        assert response.output == {"id": job.job_id, **expected}
        await trio.sleep(400)
        assert len(worker.raw) == 1


async def test_result_too_large_for_the_client_is_an_error(autojump_clock: MockClock) -> None:
    """B-69."""
    async with open_fabric(max_worker_message_bytes=MIB) as fabric:
        worker, client = (
            await fabric.fake_worker("t", max_batch_size=1),
            await fabric.fake_client(engine_errors=True),
        )
        ids = client.submit("t", {})
        worker.answer(await worker.receive_batch(), {"x": bytes(MIB - 1000)})
        await wait_until_idle()
        assert refusals(client) == [(ids[0], "result_too_large")]
        assert worker.lost is None


async def test_job_whose_result_no_message_holds_ends_as_too_large(autojump_clock: MockClock) -> None:
    """B-69: each worker that tries is closed with 1009."""
    async with open_fabric(max_worker_message_bytes=MIB) as fabric:
        client = await fabric.fake_client(engine_errors=True)
        ids = client.submit("t", {})
        for _ in range(3):
            worker = await fabric.fake_worker("t", max_batch_size=1)
            worker.answer(await worker.receive_batch(), {"x": bytes(MIB)})
            assert (await worker.wait_lost()).code == 1009
        await wait_until_idle()
        assert refusals(client) == [(ids[0], "result_too_large")]


# ----------------------------------------------------------------------------------------------- lost clients


async def test_lost_clients_queued_jobs_are_cancelled(autojump_clock: MockClock) -> None:
    """P-25, F-18."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t"), await fabric.fake_client()
        client.submit("t", *numbered(5))
        await trio.sleep(1)
        client.link.cut()
        await trio.sleep(100)
        assert worker.raw == []
        statistics = fabric.engine.statistics()
        assert (statistics.abandoned, statistics.open_jobs) == (5, 0)


async def test_lost_clients_running_jobs_finish_for_nobody(autojump_clock: MockClock) -> None:
    """P-25: until then they take the worker's credit, for it is busy with them."""
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=1, max_unanswered_batches=1)
        lost, client = await fabric.fake_client(), await fabric.fake_client()
        lost.submit("t", {"n": 0})
        jobs = await worker.receive_batch()
        lost.link.cut()
        client.submit("t", {"n": 1})
        await trio.sleep(10)
        assert len(worker.raw) == 1
        worker.answer(jobs)
        assert numbers(await worker.receive_batch()) == [1]
        statistics = fabric.engine.statistics()
        assert (statistics.abandoned, statistics.answered, statistics.outputs_dropped) == (1, 0, 1)


async def test_running_jobs_of_a_lost_client_are_not_redelivered(autojump_clock: MockClock) -> None:
    """P-25, P-22."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        client.submit("t", {})
        await worker.receive_batch()
        await client.close()
        await wait_until_idle()
        worker.link.cut()
        heir = await fabric.fake_worker("t", max_batch_size=1)
        await trio.sleep(400)
        assert heir.raw == []


async def test_answer_never_reaches_another_client(autojump_clock: MockClock) -> None:
    """I8: equal ids of two clients, one of which is gone."""
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        clients = [await fabric.fake_client() for _ in range(3)]
        for number, client in enumerate(clients):
            assert client.submit("t", {"n": number}) == ["job-1"]
        jobs = [(await worker.receive_batch())[0] for _ in range(3)]
        clients[1].link.cut()
        worker.answer(reversed(jobs))
        await wait_until_idle()
        assert [[output["echo"]["n"] for _, output in client.outputs] for client in clients] == [[0], [], [2]]


# ----------------------------------------------------------------------------------------------- odd requests


@pytest.mark.parametrize("jobs", [..., None, {}, "jobs", 7])
async def test_request_without_a_list_of_jobs_closes_1008(autojump_clock: MockClock, jobs: Any) -> None:
    """P-30, B-52."""
    message = {"type": "worker_request", "jobs": jobs}
    if jobs is ...:
        del message["jobs"]
    async with open_fabric() as fabric, open_neighbours(fabric):
        client = await fabric.fake_client()
        client.send(cbor2.dumps(message))
        assert (await client.wait_lost()).code == 1008


async def test_million_jobs_are_refused_by_their_budget(autojump_clock: MockClock) -> None:
    """B-52."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        client = await fabric.fake_client()
        client.send(
            b"\xa2\x64type\x6eworker_request\x64jobs\x9a" + (10**6).to_bytes(4, "big") + b"\xf6" * 10**6
        )
        await wait_until_idle()
        assert client.lost is not None or fabric.engine.statistics().accepted == 0


INVALID: Mapping[str, tuple[Any, str]] = {
    "worker_type missing": ({"job_id": "bad", "input": {}}, "invalid_job"),
    "worker_type empty": ({"job_id": "bad", "worker_type": "", "input": {}}, "invalid_job"),
    "worker_type null": ({"job_id": "bad", "worker_type": None, "input": {}}, "invalid_job"),
    "worker_type long": ({"job_id": "bad", "worker_type": "x" * 200, "input": {}}, "invalid_job"),
    "worker_type unknown": ({"job_id": "bad", "worker_type": "unheard", "input": {}}, "unknown_worker_type"),
    "input list": ({"job_id": "bad", "worker_type": "t", "input": []}, "invalid_job"),
    "input null": ({"job_id": "bad", "worker_type": "t", "input": None}, "invalid_job"),
    "id twice": ({"job_id": "good-1", "worker_type": "t", "input": {}}, "invalid_job"),
}


@pytest.mark.parametrize(("bad", "kind"), INVALID.values(), ids=INVALID.keys())
@pytest.mark.parametrize("engine_errors", [False, True])
async def test_invalid_job_is_skipped_and_the_others_run(
    autojump_clock: MockClock, bad: Any, kind: str, engine_errors: bool
) -> None:
    """P-30, P-31, B-53, B-54, B-55: a stock client hears nothing of it."""
    good = [{"job_id": f"good-{number}", "worker_type": "t", "input": {"n": number}} for number in (1, 2)]
    async with open_fabric(worker_types=("t", "neighbour")) as fabric, open_neighbours(fabric):
        worker = await fabric.fake_worker("t", max_batch_size=2)
        client = await fabric.fake_client(engine_errors=engine_errors)
        client.send(cbor2.dumps({"type": "worker_request", "jobs": [good[0], bad, good[1]]}))
        assert numbers(await worker.receive_batch()) == [1, 2]
        assert refusals(client) == ([(bad["job_id"], kind)] if engine_errors else [])
        assert fabric.engine.statistics().refused == {kind: 1}


@pytest.mark.parametrize("bad", [None, 7, [], "job", {}, {"worker_type": "t"}])
async def test_invalid_job_without_an_id_cannot_be_answered(autojump_clock: MockClock, bad: Any) -> None:
    """P-30, B-52, B-53."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        worker = await fabric.fake_worker("t", max_batch_size=1)
        client = await fabric.fake_client(engine_errors=True)
        good = {"job_id": "good", "worker_type": "t", "input": {"n": 1}}
        client.send(cbor2.dumps({"type": "worker_request", "jobs": [bad, good]}))
        assert numbers(await worker.receive_batch()) == [1]
        assert client.outputs == []
        assert fabric.engine.statistics().refused == {"invalid_job": 1}


async def test_id_of_more_than_a_kilobyte_is_refused(autojump_clock: MockClock) -> None:
    """B-53: it would be kept and echoed for as long as the job is open."""
    async with open_fabric() as fabric:
        client = await fabric.fake_client(engine_errors=True)
        client.send(WorkerRequest([JobRequest("x" * 900, "t", {}), JobRequest("x" * 2000, "t", {})]))
        await wait_until_idle()
        assert refusals(client) == [("x" * 2000, "invalid_job")]
        assert fabric.engine.statistics().open_jobs == 1


async def test_jobs_wait_for_so_many_types_only(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P-13: an engine that recognises every type does not keep every name that somebody comes up with."""
    monkeypatch.setattr("orbtrio.engine.dispatch._MAX_POOLS", 3)
    async with open_fabric() as fabric:
        client = await fabric.fake_client(engine_errors=True)
        ids = [client.submit(f"type-{number}", {})[0] for number in range(4)]
        await wait_until_idle()
        assert refusals(client) == [(ids[3], "queue_full")]
        worker = await fabric.fake_worker("type-4")
        lost = await worker.wait_lost()
        assert (lost.code, lost.reason) == (1008, "the engine has jobs for too many other worker types")
        assert (await fabric.fake_worker("type-0")).lost is None
        await trio.sleep(301)
        assert (await fabric.fake_worker("type-4")).lost is None


async def test_id_may_be_used_again_once_its_job_has_ended(autojump_clock: MockClock) -> None:
    """B-53."""
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        client = await fabric.fake_client(engine_errors=True)
        for number in range(3):
            for _ in range(2):
                client.send(WorkerRequest([JobRequest("same", "t", {"n": number})]))
            worker.answer(await worker.receive_batch())
            await wait_until_idle()
        outcomes = ["error_kind" in output for _, output in client.outputs]
        assert sorted(outcomes) == [False] * 3 + [True] * 3


async def test_missing_input_is_an_empty_one(autojump_clock: MockClock) -> None:
    """B-55."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        client.send(cbor2.dumps({"type": "worker_request", "jobs": [{"job_id": 1, "worker_type": "t"}]}))
        assert [job.input for job in await worker.receive_batch()] == [{}]


async def test_empty_request_is_no_mistake(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        client = await fabric.fake_client()
        client.send(cbor2.dumps({"type": "worker_request", "resources": [], "jobs": []}))
        client.send(cbor2.dumps({"type": "worker_request", "resources": None, "jobs": []}))
        await wait_until_idle()
        assert client.lost is None


# -------------------------------------------------------------------------------------------------- resources


async def test_reference_becomes_the_path_of_a_private_file_that_the_worker_can_read(
    autojump_clock: MockClock,
) -> None:
    """P-40, P-42: at any depth, in the right place, with the extension of its content."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        resources = [Resource("img-001", "image", PNG), Resource("doc", "document", "größe".encode())]
        job_input = {"a": {"b": [1, reference("img-001")]}, "c": reference("doc"), "d": reference("img-001")}
        client.submit("t", job_input, resources=resources)
        (job,) = await worker.receive_batch()
        image, document = trio.Path(job.input["a"]["b"][1]), trio.Path(job.input["c"])
        assert job.input["d"] == str(image)
        assert await image.read_bytes() == PNG
        assert await document.read_text() == "größe"
        store = trio.Path(fabric.config.xdg_data_home) / "unblink-engine"
        tenant, *middle, name = image.relative_to(store).parts
        assert middle == ["files", "frames"]
        assert name.startswith("img-001-")
        assert (image.suffix, document.suffix) == (".png", ".txt")
        assert stat.S_IMODE((await image.stat()).st_mode) == 0o600
        assert stat.S_IMODE((await (store / tenant).stat()).st_mode) == 0o700


async def test_only_the_exact_shape_is_a_reference(autojump_clock: MockClock) -> None:
    """P-40, B-62: anything else is data of the worker's own."""
    job_input = {
        "more": {"__type": "resource-ref", "id": "r", "x": 1},
        "less": {"__type": "resource-ref"},
        "number": {"__type": "resource-ref", "id": 7},
        "other": {"__type": "resource", "id": "r"},
        "text": "resource-ref",
    }
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        client.submit("t", job_input)
        assert [job.input for job in await worker.receive_batch()] == [job_input]


def request(jobs: Sequence[Any], resources: Any = ...) -> bytes:
    message = {"type": "worker_request", "resources": resources, "jobs": jobs}
    if resources is ...:
        del message["resources"]
    return cbor2.dumps(message)


def using(*resource_ids: str) -> dict[str, Any]:
    return {"job_id": "using", "worker_type": "t", "input": {"x": [reference(name) for name in resource_ids]}}


PLAIN = {"job_id": "plain", "worker_type": "t", "input": {}}
IMAGE = {"id": "r", "type": "image", "data": PNG}
REJECTED: Mapping[str, tuple[bytes, int]] = {
    "B-56 one byte too large": (request([using("r")], [IMAGE | {"data": bytes(2 * MIB + 1)}]), 1009),
    "B-56 document too large in UTF-8": (
        request([using("r")], [{"id": "r", "type": "document", "data": "ß" * (MIB + 1)}]),
        1009,
    ),
    "B-57 more than a message": (request([using("r")], [IMAGE | {"data": bytes(MIB)}] * 33), 1009),
    "B-58 missing": (request([PLAIN, using("s")], [IMAGE]), 1009),
    "B-58 missing, no array": (request([PLAIN, using("r")]), 1009),
    "B-58 missing, null": (request([PLAIN, using("r")], None), 1009),
    "B-59 unreferenced": (request([PLAIN], [IMAGE]), 1009),
    "B-59 one of two unreferenced": (request([using("r")], [IMAGE, IMAGE | {"id": "s"}]), 1009),
    "B-60 id twice": (request([using("r")], [IMAGE, IMAGE]), 1008),
    "B-60 type unknown": (request([using("r")], [IMAGE | {"type": "video"}]), 1008),
    "B-60 type missing": (request([using("r")], [{"id": "r", "data": PNG}]), 1008),
    "B-60 data missing": (request([using("r")], [{"id": "r", "type": "image"}]), 1008),
    "B-60 image of text": (request([using("r")], [IMAGE | {"data": "text"}]), 1008),
    "B-60 document of bytes": (request([using("r")], [{"id": "r", "type": "document", "data": b"x"}]), 1008),
    "B-60 id no text": (request([using("r")], [IMAGE | {"id": 7}]), 1008),
    "B-60 no map": (request([using("r")], [7]), 1008),
    "B-60 no list": (request([using("r")], {"r": IMAGE}), 1008),
    "B-35 tagged data of another kind": (
        request([using("r")], [IMAGE | {"data": cbor2.CBORTag(65, b"xx")}]),
        1008,
    ),
}


@pytest.mark.parametrize(("message", "code"), REJECTED.values(), ids=REJECTED.keys())
async def test_rejected_resources_close_the_connection_and_nothing_is_kept(
    autojump_clock: MockClock, message: bytes, code: int
) -> None:
    """P-20, P-41: not even the jobs without resources."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        client = await fabric.fake_client(engine_errors=True)
        client.send(message)
        assert (await client.wait_lost()).code == code
        assert await files(fabric) == []
        statistics = fabric.engine.statistics()
        assert (statistics.accepted, statistics.files) == (0, 0)


async def test_resource_of_exactly_two_mebibytes_is_taken(autojump_clock: MockClock) -> None:
    """P-41, B-56: documents measured in UTF-8."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        document = {"id": "d", "type": "document", "data": "ß" * MIB}
        client.send(request([using("r", "d")], [IMAGE | {"data": bytes(2 * MIB)}, document]))
        (job,) = await worker.receive_batch()
        assert [(await trio.Path(path).stat()).st_size for path in job.input["x"]] == [2 * MIB, 2 * MIB]


async def test_byte_array_of_javascript_is_image_data(autojump_clock: MockClock) -> None:
    """P-50, B-35."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        client.send(request([using("r")], [IMAGE | {"data": cbor2.CBORTag(64, PNG)}]))
        (job,) = await worker.receive_batch()
        assert await trio.Path(job.input["x"][0]).read_bytes() == PNG


@pytest.mark.parametrize(
    "resource_id",
    [
        *(
            "../../x",
            "/etc/passwd",
            "a/b",
            "..",
            ".",
            "",
            "x" * 4096,
            "nul\0",
            "line\nbreak",
            "-rf",
            "CON",
            "%2e%2e",
        ),
        *("ünïcode", "a b", "\N{RIGHT-TO-LEFT OVERRIDE}gnp", "~root", "$(reboot)", ".hidden"),
    ],
)
async def test_no_id_leads_out_of_the_tenants_directory(autojump_clock: MockClock, resource_id: str) -> None:
    """B-61, P-42."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        client.send(request([using(resource_id)], [IMAGE | {"id": resource_id}]))
        (job,) = await worker.receive_batch()
        (path,) = await files(fabric)
        assert job.input["x"] == [str(path)]
        assert path.name.isascii()
        assert len(path.name) < 100
        assert not path.name.startswith(("-", "."))


async def test_ids_hold_for_their_request_only(autojump_clock: MockClock) -> None:
    """P-43, B-62: nobody refers to another's resource, nor to one of an earlier request."""
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        first, second = await fabric.fake_client(), await fabric.fake_client()
        first.send(request([using("r")], [IMAGE | {"data": b"first"}]))
        second.send(request([using("r")], [IMAGE | {"data": b"second"}]))
        paths = [(await worker.receive_batch())[0].input["x"][0] for _ in range(2)]
        assert {await trio.Path(path).read_bytes() for path in paths} == {b"first", b"second"}
        first.send(request([using("r")]))
        assert (await first.wait_lost()).code == 1009
        assert second.lost is None


async def test_equal_bytes_of_a_request_are_stored_once(autojump_clock: MockClock) -> None:
    """P-43."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        client.send(request([using("r", "s")], [IMAGE, IMAGE | {"id": "s"}]))
        (job,) = await worker.receive_batch()
        assert len(set(job.input["x"])) == len(await files(fabric)) == 1


async def test_hundred_thousand_references_to_one_resource(autojump_clock: MockClock) -> None:
    """B-64."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        client = await fabric.fake_client()
        client.send(request([using(*["r"] * 100_000)], [IMAGE]))
        assert (await client.wait_lost()).code == 1008
        client = await fabric.fake_client()
        worker = await fabric.fake_worker("t", max_batch_size=1)
        client.send(request([using(*["r"] * 3_000)], [IMAGE]))
        worker.answer(await worker.receive_batch(), {})
        await trio.sleep(1)
        await wait_until_idle()
        assert await files(fabric) == []


async def test_reference_sixty_levels_deep(autojump_clock: MockClock) -> None:
    """B-64."""
    deep: Any = reference("r")
    for _ in range(55):
        deep = [deep]
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        client.send(request([{"job_id": 1, "worker_type": "t", "input": {"x": deep}}], [IMAGE]))
        (job,) = await worker.receive_batch()
        value = job.input["x"]
        while isinstance(value, list):
            (value,) = value
        assert await trio.Path(value).exists()


async def answered(fabric: Fabric, worker: FakeWorker, client: FakeClient) -> None:
    worker.answer(await worker.receive_batch())


async def failed(fabric: Fabric, worker: FakeWorker, client: FakeClient) -> None:
    worker.fail(await worker.receive_batch(), "no")


async def timed_out(fabric: Fabric, worker: FakeWorker, client: FakeClient) -> None:
    await trio.sleep(300.001)


async def client_lost(fabric: Fabric, worker: FakeWorker, client: FakeClient) -> None:
    client.link.cut()


async def client_lost_while_queued(fabric: Fabric, worker: FakeWorker, client: FakeClient) -> None:
    worker.link.cut()
    await worker.wait_lost()
    client.link.cut()


async def workers_lost(fabric: Fabric, worker: FakeWorker, client: FakeClient) -> None:
    for _ in range(3):
        await worker.receive_batch()
        worker.link.cut()
        await worker.wait_lost()
        worker = await fabric.fake_worker("t", max_batch_size=1)


async def result_too_large(fabric: Fabric, worker: FakeWorker, client: FakeClient) -> None:
    worker.answer(await worker.receive_batch(), {"x": bytes(fabric.config.max_worker_message_bytes - 1000)})


@pytest.mark.parametrize("size", [100, 100_000], ids=["small", "large"])
@pytest.mark.parametrize(
    "end",
    [answered, failed, timed_out, client_lost, client_lost_while_queued, workers_lost, result_too_large],
)
async def test_file_goes_within_a_second_after_its_last_job_however_that_ends(
    autojump_clock: MockClock, end: Callable[[Fabric, FakeWorker, FakeClient], Awaitable[None]], size: int
) -> None:
    """P-42, I4."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=1), await fabric.fake_client()
        client.send(request([using("r")], [IMAGE | {"data": bytes(size)}]))
        await wait_until_idle()
        assert len(await files(fabric)) == 1
        await trio.sleep(100)
        assert fabric.engine.statistics().file_bytes == size
        await end(fabric, worker, client)
        await trio.sleep(1)
        await wait_until_idle()
        assert await files(fabric) == []
        statistics = fabric.engine.statistics()
        assert (statistics.files, statistics.file_bytes, statistics.open_jobs) == (0, 0, 0)


async def test_file_stays_while_one_of_its_jobs_is_open(autojump_clock: MockClock) -> None:
    """P-42."""
    async with open_fabric() as fabric:
        worker, client = await fabric.fake_worker("t", max_batch_size=3), await fabric.fake_client()
        jobs = [using("r") | {"job_id": number} for number in range(3)]
        client.send(request(jobs, [IMAGE]))
        for job in await worker.receive_batch():
            await trio.sleep(1)
            await wait_until_idle()
            assert len(await files(fabric)) == 1
            worker.answer(job)
        await trio.sleep(1)
        await wait_until_idle()
        assert await files(fabric) == []


async def test_resources_of_refused_jobs_are_not_kept(autojump_clock: MockClock) -> None:
    """P-42: queue full, of unknown type, an id that is taken."""
    async with open_fabric(worker_types=("t",), max_queued_jobs=1) as fabric:
        client = await fabric.fake_client(engine_errors=True)
        client.submit("t", {})
        for job in (using("r"), using("r") | {"worker_type": "unknown"}, using("r") | {"job_id": "job-1"}):
            client.send(request([job], [IMAGE]))
        await trio.sleep(1)
        await wait_until_idle()
        assert sorted(kind for _, kind in refusals(client)) == [
            "invalid_job",
            "queue_full",
            "unknown_worker_type",
        ]
        assert await files(fabric) == []


@pytest.mark.parametrize("engine_errors", [False, True])
async def test_full_store_refuses_jobs_with_resources_and_runs_the_others(
    autojump_clock: MockClock, engine_errors: bool
) -> None:
    """F-28, P-20."""
    async with open_fabric(store_quota_bytes=100) as fabric, open_neighbours(fabric):
        client = await fabric.fake_client(engine_errors=engine_errors)
        client.send(request([PLAIN, using("r")], [IMAGE | {"data": bytes(101)}]))
        await wait_until_idle()
        expected = [("plain", "queue_full"), ("using", "queue_full")] if engine_errors else []
        assert refusals(client) == expected
        assert fabric.engine.statistics().refused == {"queue_full": 2}
        assert await files(fabric) == []


async def test_client_lost_while_its_resources_are_written_leaves_nothing(autojump_clock: MockClock) -> None:
    """P-20, P-25."""
    async with open_fabric() as fabric, open_neighbours(fabric):
        for _ in range(5):
            client = await fabric.fake_client()
            client.send(request([using("r")], [IMAGE | {"data": bytes(2 * MIB)}]))
            await trio.lowlevel.checkpoint()
            client.link.hang_up()
        await trio.sleep(1)
        await wait_until_idle()
        assert await files(fabric) == []
        assert fabric.engine.statistics().open_jobs == 0

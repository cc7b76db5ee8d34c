"""Queues, pools and the dispatcher in virtual time: who gets which job, and when a batch leaves."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from orbtrio.engine.dispatch import Dispatcher, Pool
from orbtrio.engine.jobs import Job, JobState, JobTable
from orbtrio.engine.queues import QueueSettings, WorkerQueue, run_batcher
from orbtrio.errors import ConnectionLost
from orbtrio.protocol import codec

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


class FakeRequester:
    def __init__(self) -> None:
        self.open_jobs: dict[Hashable, Job] = {}
        self.extensions: frozenset[str] = frozenset()

    def deliver(self, job: Job, output: bytes) -> None: ...

    def report(self, job: Job, entry: bytes) -> bool:
        return True

    def refuse(self, client_job_id: Any, kind: str, text: str) -> None: ...


class FakeOutlet:
    """Takes batches; if told so, as a worker that does not read."""

    def __init__(self, times: list[float]) -> None:
        self.batches: list[list[str]] = []
        self.buffered_bytes = 0
        self.reads = True
        self.lost = False
        self._times = times

    def queue(self, *parts: bytes) -> None:
        message = b"".join(parts)
        self.batches.append([entry["id"] for entry in cbor2.loads(message)["inputs"]])
        self._times.append(trio.current_time())
        if not self.reads:
            self.buffered_bytes += len(message)

    async def wait_sent(self, below: int = 0) -> None:
        while self.buffered_bytes > below and not self.lost:  # noqa: ASYNC110 (the mock clock runs on)
            await trio.sleep(1)
        if self.lost:
            raise ConnectionLost


class Bench:
    """A pool, its table, and workers that only record what they are sent."""

    def __init__(self, *, affinity_field: str | None = None, max_queued: int = 1000) -> None:
        self.table = JobTable()
        self.too_large: list[Job] = []
        self.pool = Pool(
            "t", affinity_field=affinity_field, flat=False, max_queued=max_queued, too_large=self.refuse_large
        )
        self.requester = FakeRequester()
        self.numbers = itertools.count()
        self.sent: dict[WorkerQueue, list[list[str]]] = {}
        self.times: list[float] = []

    def refuse_large(self, job: Job) -> None:
        self.too_large.append(job)
        self.table.end(job)

    def worker(self, **settings: Any) -> WorkerQueue:
        settings = {"max_batch_size": 32, "max_latency": 30.0} | settings
        outlet = FakeOutlet(self.times)
        queue = WorkerQueue(f"t-{len(self.sent)}", "t", QueueSettings(**settings), self.pool, outlet)
        self.sent[queue] = outlet.batches
        self.pool.add(queue)
        return queue

    def jobs(self, count: int, *, key: str | None = None, size: int = 0) -> list[Job]:
        now = trio.current_time()
        jobs = []
        for _ in range(count):
            number = next(self.numbers)
            name = f"{number:05}"
            wire = codec.encode_job(name, {"x": "x" * size})
            jobs.append(
                Job(
                    name,
                    name,
                    name,
                    self.requester,
                    "t",
                    key,
                    wire,
                    now,
                    now + 300,
                    (),
                    self.pool,
                )
            )
            self.table.accept(jobs[-1])
            self.pool.enter()
        return jobs

    def deal(self, count: int, *, key: str | None = None, size: int = 0) -> list[Job]:
        jobs = self.jobs(count, key=key, size=size)
        self.pool.deal_new(jobs)
        return jobs

    def answer(self, queue: WorkerQueue, *, batches: int = 1) -> None:
        for batch in list(queue._open_batches)[:batches]:
            for job in list(batch.jobs):
                self.table.answer(job.job_id, queue)
        queue.send_due()
        self.pool.balance()

    def abandon(self, job: Job) -> None:
        self.table.abandon(job, trio.current_time() + 300)
        job.owner.send_due()
        self.pool.balance()

    def expire(self) -> None:
        _, owners = self.table.expire(trio.current_time(), trio.current_time() + 300)
        for owner in owners:
            owner.send_due()
        self.pool.balance()

    def lose(self, queue: WorkerQueue) -> None:
        jobs = self.pool.remove(queue)
        self.pool.requeue([job for job in jobs if self.table.requeue(job, self.pool)])

    def check_books(self) -> None:
        workers = list(self.pool.workers)
        waiting = [job for job in self.table if job.state is JobState.QUEUED]
        assert self.pool.jobs_queued == len(waiting)
        for queue in workers:
            mine = [job for job in self.table if job.owner is queue]
            assert queue.jobs_waiting == sum(job.batch is None for job in mine)
            assert queue.jobs_in_flight == sum(job.batch is not None for job in mine)
            assert queue.load == queue.load_level
            assert queue._bytes == sum(len(job.wire) for job in mine if job.batch is None)
        levels = [queue for level in self.pool._levels.values() for queue in level]
        assert sorted(map(id, levels)) == sorted(map(id, workers))


def names(jobs: Sequence[Job]) -> list[str]:
    return [job.job_id for job in jobs]


# ---------------------------------------------------------------------------------------------- batching


async def test_full_batch_leaves_at_once(autojump_clock: MockClock) -> None:
    bench = Bench()
    worker = bench.worker(max_batch_size=4)
    jobs = bench.deal(9)
    assert bench.sent[worker] == [names(jobs[:4]), names(jobs[4:8])]
    bench.check_books()


async def test_partial_batch_leaves_when_its_oldest_job_has_waited_max_latency(
    autojump_clock: MockClock,
) -> None:
    """P-10: later jobs do not restart the clock."""
    bench = Bench()
    worker = bench.worker(max_batch_size=100, max_latency=0.2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_batcher, worker, lambda: None)
        start = trio.current_time()
        for _ in range(8):
            bench.deal(1)
            await trio.sleep(0.05)
        await trio.sleep(1)
        assert [len(batch) for batch in bench.sent[worker]] in ([4, 4], [5, 3])
        assert bench.times[0] - start == pytest.approx(0.2)
        nursery.cancel_scope.cancel()
    bench.check_books()


async def test_steady_trickle_never_waits_longer_than_max_latency(autojump_clock: MockClock) -> None:
    bench = Bench()
    worker = bench.worker(max_batch_size=100, max_latency=0.2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_batcher, worker, lambda: None)
        accepted = {}
        for _ in range(100):
            (job,) = bench.deal(1)
            accepted[job.job_id] = job.accepted_at
            await trio.sleep(0.05)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    waits = [
        at - accepted[name]
        for at, batch in zip(bench.times, bench.sent[worker], strict=True)
        for name in batch
    ]
    assert len(waits) == 100
    assert max(waits) <= 0.2 + 1e-6


async def test_leftovers_of_a_full_batch_keep_their_own_clock(autojump_clock: MockClock) -> None:
    bench = Bench()
    worker = bench.worker(max_batch_size=4, max_latency=1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_batcher, worker, lambda: None)
        bench.deal(2)
        await trio.sleep(0.4)
        bench.deal(3)  # four leave, one stays, accepted at 0.4
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert [len(batch) for batch in bench.sent[worker]] == [4, 1]
    assert bench.times[1] - bench.times[0] == pytest.approx(1.0)


async def test_no_empty_batch_after_all_waiting_jobs_ended(autojump_clock: MockClock) -> None:
    bench = Bench()
    worker = bench.worker(max_batch_size=4, max_latency=1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_batcher, worker, lambda: None)
        for job in bench.deal(3):
            bench.abandon(job)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert bench.sent[worker] == []
    bench.check_books()


async def test_ended_jobs_do_not_fill_a_batch(autojump_clock: MockClock) -> None:
    bench = Bench()
    worker = bench.worker(max_batch_size=4)
    first = bench.deal(3)
    bench.abandon(first[0])
    bench.deal(1)
    assert bench.sent[worker] == []
    bench.deal(1)
    assert [len(batch) for batch in bench.sent[worker]] == [4]
    assert first[0].job_id not in bench.sent[worker][0]


async def test_many_ended_jobs_are_cleared_out_of_queue_and_backlog(autojump_clock: MockClock) -> None:
    bench = Bench(max_queued=100)
    for job in bench.deal(100):
        bench.abandon(job)
    assert len(bench.pool._backlog) <= 65
    worker = bench.worker(max_batch_size=1000)
    for job in bench.deal(100):
        bench.abandon(job)
    assert len(worker._jobs) <= 65
    bench.check_books()


async def test_batch_stays_below_the_workers_message_size(autojump_clock: MockClock) -> None:
    """P-16."""
    bench = Bench()
    worker = bench.worker(max_batch_size=32, max_message_bytes=10_000)
    bench.deal(10, size=3000)
    assert [len(batch) for batch in bench.sent[worker]] == [3, 3, 3]
    bench.check_books()


async def test_job_above_every_workers_message_size_is_ended(autojump_clock: MockClock) -> None:
    bench = Bench()
    worker = bench.worker(max_batch_size=2, max_message_bytes=10_000)
    (large,) = bench.deal(1, size=20_000)
    assert bench.too_large == [large]
    bench.deal(2)
    assert len(bench.sent[worker]) == 1
    bench.check_books()


async def test_large_job_goes_to_the_worker_that_takes_it(autojump_clock: MockClock) -> None:
    bench = Bench()
    bench.worker(max_batch_size=1, max_message_bytes=10_000)
    roomy = bench.worker(max_batch_size=1, max_message_bytes=100_000)
    for _ in range(4):
        (job,) = bench.deal(1, size=20_000)
        assert bench.sent[roomy][-1] == [job.job_id]
    assert bench.too_large == []
    bench.check_books()


# ------------------------------------------------------------------------------------------------ credit


async def test_credit_keeps_the_rest_queued_until_a_batch_is_answered(autojump_clock: MockClock) -> None:
    """P-15."""
    bench = Bench()
    worker = bench.worker(max_batch_size=4, max_unanswered_batches=2)
    bench.deal(14)
    assert [len(batch) for batch in bench.sent[worker]] == [4, 4]
    bench.answer(worker)
    assert [len(batch) for batch in bench.sent[worker]] == [4, 4, 4]
    bench.check_books()


async def test_worker_back_from_spent_credit_gets_all_that_is_overdue(autojump_clock: MockClock) -> None:
    bench = Bench()
    worker = bench.worker(max_batch_size=4, max_unanswered_batches=1, max_latency=1.0)
    bench.deal(6)
    await trio.sleep(5)
    bench.answer(worker)
    assert [len(batch) for batch in bench.sent[worker]] == [4, 2]


async def test_expired_jobs_give_their_credit_back(autojump_clock: MockClock) -> None:
    """B-72: a worker that never answers gets its next batch when the jobs of the last have ended."""
    bench = Bench()
    worker = bench.worker(max_batch_size=4, max_unanswered_batches=1)
    bench.deal(4)
    await trio.sleep(299)
    bench.deal(4)
    await trio.sleep(2)
    assert len(bench.sent[worker]) == 1
    bench.expire()
    assert len(bench.sent[worker]) == 2
    bench.check_books()


async def test_worker_that_does_not_read_gets_no_more_than_the_wire_holds(autojump_clock: MockClock) -> None:
    """P-15: the TCP window is a stock worker's brake; what is not sent can still go to another."""
    bench = Bench()
    stuck = bench.worker(max_batch_size=32)
    outlet = stuck._outlet
    assert isinstance(outlet, FakeOutlet)
    outlet.reads = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_batcher, stuck, lambda: None)
        await wait_all_tasks_blocked()
        bench.deal(900, size=20_000)
        assert 4 << 20 < outlet.buffered_bytes < 5 << 20
        assert stuck.jobs_waiting > 600
        helper = bench.worker(max_batch_size=32)
        assert len(bench.sent[helper]) > 0
        bench.check_books()
        outlet.reads, outlet.buffered_bytes = True, 0
        await trio.sleep(2)
        assert stuck.jobs_waiting < 32
        bench.check_books()
        nursery.cancel_scope.cancel()


async def test_queue_that_was_clogged_before_its_batcher_ran_is_served(autojump_clock: MockClock) -> None:
    bench = Bench()
    bench.deal(600, size=20_000)
    stuck = bench.worker(max_batch_size=32, max_latency=0.1)
    outlet = stuck._outlet
    assert isinstance(outlet, FakeOutlet)
    stuck._clogged = True
    bench.deal(40)
    sent = len(bench.sent[stuck])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_batcher, stuck, lambda: None)
        await trio.sleep(1)
        assert len(bench.sent[stuck]) > sent
        assert not stuck.jobs_waiting
        nursery.cancel_scope.cancel()


async def test_batcher_ends_when_the_worker_is_lost_while_its_wire_is_full(autojump_clock: MockClock) -> None:
    bench = Bench()
    stuck = bench.worker(max_batch_size=32)
    outlet = stuck._outlet
    assert isinstance(outlet, FakeOutlet)
    outlet.reads = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_batcher, stuck, lambda: None)
        await wait_all_tasks_blocked()
        bench.deal(900, size=20_000)
        await trio.sleep(5)
        outlet.lost = True


async def test_idle_worker_helps_one_whose_credit_is_spent(autojump_clock: MockClock) -> None:
    bench = Bench()
    busy = bench.worker(max_batch_size=4, max_unanswered_batches=1, eager=True)
    jobs = bench.deal(24)
    assert bench.sent[busy] == [names(jobs[:4])]
    helper = bench.worker(max_batch_size=4, max_unanswered_batches=1, eager=True)
    assert bench.sent[helper] == [names(jobs[4:8])], "the oldest of those that wait"
    bench.answer(helper)
    assert bench.sent[helper][1:] == [names(jobs[8:12])]
    bench.check_books()


# ------------------------------------------------------------------------------------------------- eager


async def test_lone_job_leaves_at_once_to_an_eager_worker_that_is_idle(autojump_clock: MockClock) -> None:
    """P-18."""
    bench = Bench()
    worker = bench.worker(eager=True, max_unanswered_batches=2)
    bench.deal(1)
    bench.deal(1)
    assert [len(batch) for batch in bench.sent[worker]] == [1], "busy: latency and size rule"
    bench.deal(40)
    assert [len(batch) for batch in bench.sent[worker]] == [1, 32]
    bench.answer(worker, batches=2)
    assert [len(batch) for batch in bench.sent[worker]] == [1, 32, 9]
    bench.check_books()


async def test_eager_workers_share_a_list_evenly(autojump_clock: MockClock) -> None:
    bench = Bench()
    workers = [bench.worker(eager=True, max_unanswered_batches=2) for _ in range(4)]
    bench.deal(8)
    assert [bench.sent[worker] and len(bench.sent[worker][0]) for worker in workers] == [2, 2, 2, 2]


# ------------------------------------------------------------------------------------------ distribution


async def test_stock_workers_of_one_type_share_evenly(autojump_clock: MockClock) -> None:
    """P-12: equal idle workers never differ by more than a batch."""
    bench = Bench()
    workers = [bench.worker() for _ in range(32)]
    counts: list[int] = []
    for _ in range(100):
        bench.deal(32)
        counts = [sum(map(len, bench.sent[worker])) for worker in workers]
        assert max(counts) - min(counts) <= 32
    assert sum(counts) == 3200
    bench.check_books()


async def test_one_batch_is_filled_before_the_next_is_begun(autojump_clock: MockClock) -> None:
    bench = Bench()
    workers = [bench.worker(max_batch_size=4) for _ in range(3)]
    for _ in range(12):
        bench.deal(1)
    assert [len(bench.sent[worker]) for worker in workers] == [1, 1, 1]


async def test_least_loaded_worker_is_next(autojump_clock: MockClock) -> None:
    bench = Bench()
    first, second = bench.worker(max_batch_size=2), bench.worker(max_batch_size=2)
    bench.deal(4)
    bench.answer(second)
    bench.deal(2)
    assert [len(bench.sent[first]), len(bench.sent[second])] == [1, 2]


async def test_jobs_wait_for_the_first_worker_of_their_type(autojump_clock: MockClock) -> None:
    """P-13; they are overdue, so they leave when it registers."""
    bench = Bench(max_queued=10)
    bench.deal(10)
    assert not bench.pool.has_room(None)
    await trio.sleep(60)
    worker = bench.worker(max_batch_size=4, max_latency=30)
    assert [len(batch) for batch in bench.sent[worker]] == [4, 4, 2]
    assert bench.pool.has_room(None)
    bench.check_books()


async def test_room_is_a_thousand_per_worker(autojump_clock: MockClock) -> None:
    """P-14."""
    bench = Bench()
    for _ in range(2):
        bench.worker(max_batch_size=1000, max_unanswered_batches=1)
    bench.deal(2000)  # sent
    bench.deal(1999)
    assert bench.pool.has_room(None)
    bench.deal(1)
    assert not bench.pool.has_room(None)


async def test_key_stays_with_its_worker_in_order(autojump_clock: MockClock) -> None:
    """P-12."""
    bench = Bench(affinity_field="k")
    workers = [bench.worker(max_batch_size=1) for _ in range(3)]
    homes: dict[str, set[WorkerQueue]] = {}
    for round_ in range(10):
        for key in "abcdef":
            (job,) = bench.deal(1, key=key)
            (home,) = [
                worker for worker in workers if bench.sent[worker] and bench.sent[worker][-1] == [job.job_id]
            ]
            homes.setdefault(key, set()).add(home)
        if round_ % 3 == 0:
            bench.answer(workers[0], batches=2)
    assert all(len(home) == 1 for home in homes.values())
    assert len(set.union(*homes.values())) == 3
    bench.check_books()


async def test_jobs_of_one_key_travel_together(autojump_clock: MockClock) -> None:
    bench = Bench(affinity_field="k")
    worker = bench.worker(eager=True, max_unanswered_batches=2)
    bench.deal(5, key="a")
    assert [len(batch) for batch in bench.sent[worker]] == [5]


async def test_jobs_without_a_key_take_none_along_that_has_one(autojump_clock: MockClock) -> None:
    """P-12. Of the jobs of one message some name a stream, and some do not."""
    bench = Bench(affinity_field="k")
    workers = [bench.worker(max_batch_size=4) for _ in range(2)]
    mixed = [bench.jobs(1, key=key)[0] for key in (None, "a", None, "b", "a", None, "a", None, "b", None)]
    bench.pool.deal_new(mixed)
    await trio.sleep(40)
    bench.pool.hurry()
    received = {worker: {name for batch in bench.sent[worker] for name in batch} for worker in workers}
    for key in ("a", "b"):
        own = {job.job_id for job in mixed if job.affinity == key}
        assert any(own <= names for names in received.values())
    assert sum(map(len, received.values())) == len(mixed)
    bench.check_books()


async def test_key_moves_with_its_jobs_when_its_worker_is_lost(autojump_clock: MockClock) -> None:
    bench = Bench(affinity_field="k")
    first, second = bench.worker(max_batch_size=1), bench.worker(max_batch_size=1)
    jobs = [*bench.deal(3, key="a"), *bench.deal(3, key="b")]
    bench.lose(first)
    bench.deal(1, key="a")
    received = [name for batch in bench.sent[second] for name in batch]
    own = (
        names(jobs[3:])
        if len(bench.sent[first]) == 3 and bench.sent[first][0] == [jobs[0].job_id]
        else names(jobs[:3])
    )
    assert received[:3] == own
    assert received[3:6] == sorted(received[3:6])
    assert len(received) == 7
    bench.check_books()


async def test_full_queue_of_a_keys_worker_has_no_room_for_that_key(autojump_clock: MockClock) -> None:
    bench = Bench(affinity_field="k", max_queued=10)
    for _ in range(2):
        bench.worker(max_batch_size=1, max_unanswered_batches=1)
    bench.deal(11, key="a")
    assert not bench.pool.has_room("a")
    assert bench.pool.has_room("b")


async def test_least_recently_used_key_is_forgotten(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orbtrio.engine.dispatch._MAX_AFFINITY_KEYS", 3)
    bench = Bench(affinity_field="k")
    bench.worker()
    for key in "abca":
        bench.deal(1, key=key)
    bench.deal(1, key="d")
    assert list(bench.pool._keys) == ["c", "a", "d"]


# -------------------------------------------------------------------------------------------------- loss


async def test_lost_workers_jobs_go_to_the_front_in_their_old_order(autojump_clock: MockClock) -> None:
    """P-17, P-22."""
    bench = Bench()
    lost = bench.worker(max_batch_size=4, max_unanswered_batches=1)
    early = bench.deal(6)
    other = bench.worker(max_batch_size=100, max_latency=30)
    await trio.sleep(1)
    late = bench.deal(2)
    bench.lose(lost)
    bench.pool.hurry()
    received = [name for batch in bench.sent[other] for name in batch]
    assert received == names(early + late)
    bench.check_books()


async def test_jobs_of_the_last_worker_wait_for_the_next(autojump_clock: MockClock) -> None:
    bench = Bench()
    lost = bench.worker(max_batch_size=4)
    jobs = bench.deal(6)
    bench.lose(lost)
    bench.check_books()
    heir = bench.worker(max_batch_size=4)
    bench.deal(2)
    assert bench.sent[heir] == [names(jobs[:4]), [*names(jobs[4:]), "00006", "00007"]]


async def test_requeue_over_several_workers_keeps_each_ones_order(autojump_clock: MockClock) -> None:
    bench = Bench()
    lost = bench.worker(max_batch_size=100)
    bench.deal(90)
    others = [bench.worker(max_batch_size=100) for _ in range(3)]
    bench.deal(60)
    bench.lose(lost)
    bench.pool.hurry()
    for worker in others:
        received = [name for batch in bench.sent[worker] for name in batch]
        assert received == sorted(received)
    assert sum(len(batch) for worker in others for batch in bench.sent[worker]) == 150
    bench.check_books()


async def test_job_in_hand_when_two_workers_died_travels_alone(autojump_clock: MockClock) -> None:
    """P-22: one poisonous job cannot take 31 others with it a third time."""
    bench = Bench()
    for _ in range(2):
        worker = bench.worker(max_batch_size=4)
        if not bench.table.open_jobs:
            bench.deal(4)
        bench.lose(worker)
    bench.deal(2)
    last = bench.worker(max_batch_size=4)
    bench.pool.hurry()
    assert [len(batch) for batch in bench.sent[last]] == [1], "nobody beside it, not even another suspect"
    for _ in range(5):
        bench.answer(last)
        bench.check_books()
    assert [len(batch) for batch in bench.sent[last]] == [1, 1, 1, 1, 2]


@pytest.mark.parametrize("credit", [None, 2])
async def test_poisonous_job_costs_none_of_its_31_neighbours(
    autojump_clock: MockClock, credit: int | None
) -> None:
    bench = Bench()
    poison, *_ = bench.deal(32)
    deaths = 0
    while deaths < 3:
        worker = bench.worker(max_unanswered_batches=credit)
        bench.pool.hurry()
        while poison.batch is None:
            bench.answer(worker)
        deaths += 1
        jobs = bench.pool.remove(worker)
        lost = [job for job in jobs if job.deliveries >= 3]
        assert lost == [poison] * (deaths == 3)
        for job in lost:
            bench.table.end(job)
        bench.pool.requeue([job for job in jobs if bench.table.requeue(job, bench.pool)])
        bench.check_books()
    worker = bench.worker()
    while bench.table.open_jobs:
        bench.answer(worker)


async def test_helper_takes_only_what_fits_its_messages(autojump_clock: MockClock) -> None:
    bench = Bench()
    large = bench.worker(max_batch_size=4, max_unanswered_batches=1, max_message_bytes=16 << 20)
    bench.deal(20, size=1_000_000)
    small = bench.worker(max_batch_size=4)
    assert bench.sent[small] == []
    bench.deal(4)
    assert [len(batch) for batch in bench.sent[small]] == [4]
    while large.jobs_waiting or large.jobs_in_flight:
        bench.answer(large)
    bench.check_books()


async def test_helper_takes_no_more_than_makes_both_equal(autojump_clock: MockClock) -> None:
    bench = Bench()
    ours = bench.worker(max_batch_size=32, max_unanswered_batches=2)
    bench.deal(960)
    stock = bench.worker(max_batch_size=32)
    assert abs((stock.jobs_waiting + stock.jobs_in_flight) - (ours.jobs_waiting + ours.jobs_in_flight)) <= 32
    one_by_one = bench.worker(max_batch_size=1)
    assert 1 < one_by_one.load <= ours.load
    bench.check_books()


async def test_jobs_of_a_lost_worker_are_spread_over_the_others(autojump_clock: MockClock) -> None:
    bench = Bench()
    workers = [bench.worker() for _ in range(8)]
    bench.deal(8 * 64 + 1)
    bench.lose(workers[0])
    loads = [worker.jobs_waiting + worker.jobs_in_flight for worker in workers[1:]]
    assert max(loads) - min(loads) <= 32
    bench.check_books()


async def test_large_jobs_are_spread_over_all_workers_that_take_them(autojump_clock: MockClock) -> None:
    bench = Bench()
    small = bench.worker(max_batch_size=4)
    roomy = [bench.worker(max_batch_size=4, max_message_bytes=16 << 20) for _ in range(3)]
    bench.deal(60, size=1_000_000)
    assert not bench.sent[small]
    assert [worker.jobs_in_flight + worker.jobs_waiting for worker in roomy] == [20, 20, 20]
    bench.check_books()


async def test_large_job_of_a_lost_worker_waits_for_its_like(autojump_clock: MockClock) -> None:
    bench = Bench()
    bench.worker(max_batch_size=1)
    roomy = bench.worker(max_batch_size=1, max_message_bytes=16 << 20)
    (job,) = bench.deal(1, size=1_000_000)
    bench.lose(roomy)
    assert bench.too_large == []
    heir = bench.worker(max_batch_size=1, max_message_bytes=16 << 20)
    assert bench.sent[heir] == [[job.job_id]]
    bench.check_books()


async def test_key_whose_worker_is_too_small_for_a_job_stays_there(autojump_clock: MockClock) -> None:
    bench = Bench(affinity_field="k")
    bench.worker(max_batch_size=1)
    bench.deal(1, key="a")
    roomy = bench.worker(max_batch_size=1, max_message_bytes=16 << 20)
    (large,) = bench.deal(1, key="a", size=1_000_000)
    (other,) = bench.deal(1, key="b", size=1_000_000)
    assert bench.too_large == [large]
    assert bench.sent[roomy] == [[other.job_id]]
    bench.deal(1, key="c", size=17_000_000)
    assert list(bench.pool._keys) == ["a", "b"]
    bench.check_books()


async def test_request_of_one_key_beyond_its_workers_limit_has_no_room(autojump_clock: MockClock) -> None:
    """P-14, also while the jobs are on their way through the channel."""
    bench = Bench(affinity_field="k", max_queued=10)
    for _ in range(3):
        bench.worker(max_batch_size=1, max_unanswered_batches=1)
    on_their_way = bench.jobs(10, key="a")
    assert not bench.pool.has_room("a")
    bench.pool.deal_new(on_their_way)
    assert bench.pool.has_room("a")


async def test_queue_at_its_limit_is_passed_over(autojump_clock: MockClock) -> None:
    bench = Bench(max_queued=10)
    wide = bench.worker(max_batch_size=1000, max_unanswered_batches=1)
    narrow = bench.worker(max_batch_size=1, max_unanswered_batches=1)
    bench.deal(20)
    assert (wide.jobs_waiting, narrow.jobs_waiting + narrow.jobs_in_flight) == (10, 10)


async def test_requeued_older_job_brings_the_alarm_forward(autojump_clock: MockClock) -> None:
    bench = Bench()
    lost = bench.worker(max_batch_size=100, max_latency=30)
    bench.deal(1)
    await trio.sleep(5)
    heir = bench.worker(max_batch_size=100, max_latency=6)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_batcher, heir, lambda: None)
        bench.pool._filling = heir
        heir.put(bench.jobs(1))
        heir.send_due()
        await wait_all_tasks_blocked()
        bench.lose(lost)
        await trio.sleep(1.5)
        assert [len(batch) for batch in bench.sent[heir]] == [2], "a second after the loss, not six"
        nursery.cancel_scope.cancel()


# -------------------------------------------------------------------------------------------- dispatcher


async def test_dispatcher_deals_each_type_to_its_own_workers(autojump_clock: MockClock) -> None:
    benches = {"a": Bench(), "b": Bench()}
    flushes = []
    dispatcher = Dispatcher(lambda worker_type: benches[worker_type].pool, lambda: flushes.append(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dispatcher.run)
        jobs: list[Job] = []
        for worker_type, bench in benches.items():
            assert dispatcher.pool(worker_type) is bench.pool
            bench.worker(max_batch_size=2)
            for job in bench.jobs(2):
                job.worker_type = worker_type
                jobs.append(job)
        dispatcher.submit([jobs[0], jobs[2]])
        dispatcher.submit([jobs[1], jobs[3]])
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert all(list(bench.sent.values()) == [[["00000", "00001"]]] for bench in benches.values())
    assert flushes == [1]
    assert dict(dispatcher.pools) == {name: bench.pool for name, bench in benches.items()}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_books_agree_after_any_events(data: st.DataObject) -> None:
    """Any order of events: nothing lost, nothing twice, all counts true."""

    async def main() -> None:
        affine = data.draw(st.booleans())
        bench = Bench(affinity_field="k" if affine else None)
        dealt: list[Job] = []
        for _ in range(data.draw(st.integers(1, 25))):
            event = data.draw(
                st.sampled_from(["deal", "deal", "worker", "answer", "lose", "abandon", "expire", "sleep"])
            )
            workers = list(bench.pool.workers)
            if event == "deal":
                key = data.draw(st.sampled_from("abc")) if affine else None
                dealt += bench.deal(
                    data.draw(st.integers(1, 40)), key=key, size=data.draw(st.sampled_from([0, 300]))
                )
            elif event == "worker":
                bench.worker(
                    max_batch_size=data.draw(st.integers(1, 8)),
                    eager=data.draw(st.booleans()),
                    max_unanswered_batches=data.draw(st.sampled_from([None, 1, 2])),
                    max_message_bytes=data.draw(st.sampled_from([1000, 900 * 1024])),
                )
            elif event == "answer" and workers:
                bench.answer(data.draw(st.sampled_from(workers)))
            elif event == "lose" and workers:
                bench.lose(data.draw(st.sampled_from(workers)))
            elif event == "abandon" and dealt:
                job = data.draw(st.sampled_from(dealt))
                bench.abandon(job)
            elif event == "expire":
                bench.expire()
            elif event == "sleep":
                await trio.sleep(data.draw(st.sampled_from([1, 40, 290])))
                for queue in workers:
                    queue.send_due()
            bench.check_books()
        # Heal: one good worker answers everything that is left.
        for queue in list(bench.pool.workers):
            bench.lose(queue)
        healer = bench.worker(max_batch_size=1000, max_latency=1000.0)
        bench.pool.hurry()
        while bench.table.open_jobs:
            bench.answer(healer)
        assert not len(bench.table)
        bench.check_books()

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_names_that_nobody_serves_are_forgotten(autojump_clock: MockClock) -> None:
    def make_pool(worker_type: str) -> Pool | None:
        if worker_type == "unknown":
            return None
        return Pool(worker_type, affinity_field=None, flat=False, max_queued=1, too_large=lambda _: None)

    dispatcher = Dispatcher(make_pool, lambda: None)
    assert dispatcher.pool("unknown") is None
    busy = dispatcher.pool("busy")
    assert busy is not None
    busy.jobs_queued = 1
    for number in range(3000):
        dispatcher.pool(f"name-{number}")
    assert len(dispatcher.pools) <= 1001
    assert dispatcher.pool("busy") is busy

"""The job table, without trio: every cell of its transition table, then any sequence of events."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from orbtrio.engine.jobs import Batch, Job, JobState, JobTable
from orbtrio.engine.watches import Watch
from orbtrio.protocol import codec

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

QUEUED, IN_FLIGHT, ABANDONED, SETTLED = JobState


class FakeRequester:
    def __init__(self) -> None:
        self.open_jobs: dict[Hashable, Job] = {}
        self.extensions: frozenset[str] = frozenset()

    def report(self, job: Job, entry: bytes) -> bool:
        raise AssertionError("the table never reports")

    def deliver(self, job: Job, output: bytes) -> None:
        raise AssertionError("the table never delivers")

    def refuse(self, client_job_id: Any, kind: str, text: str) -> None:
        raise AssertionError("the table never refuses")


class FakeOwner:
    def __init__(self, *, cancels: bool = False) -> None:
        self.cancels = cancels
        self.let_go_of: list[tuple[Job, Batch | None, JobState]] = []

    def let_go(self, job: Job) -> None:
        self.let_go_of.append((job, job.batch, job.state))

    def cancel(self, job_ids: list[str]) -> None:
        raise AssertionError("the table never cancels")

    def send_due(self) -> None:
        raise AssertionError("the table never sends")


def make_job(
    name: str,
    requester: FakeRequester,
    owner: FakeOwner,
    *,
    deadline: float = 300.0,
    watch: Watch | None = None,
) -> Job:
    job = Job(*(name, name, name, requester, "t", None, b"wire", deadline - 300.0, deadline, (), owner))
    job.watch = watch
    return job


class Bench:
    """One job in any state, with the owner that holds it; watched, its deadline is the same."""

    def __init__(self, state: JobState, *, cancels: bool = False, heartbeat: float | None = None) -> None:
        self.table = JobTable()
        self.requester = FakeRequester()
        self.owner = FakeOwner(cancels=cancels)
        watch = None if heartbeat is None else Watch("j", 0, 300.0, heartbeat)
        self.job = make_job("j", self.requester, self.owner, watch=watch)
        self.table.accept(self.job)
        if state is not QUEUED:
            self.job.claim(Batch(0.0))
        if state is ABANDONED:
            assert self.table.abandon(self.job, 300.0)
        if state is SETTLED:
            assert self.table.answer("j", self.owner) is self.job
        self.owner.let_go_of.clear()
        assert self.job.state is state

    def check_books(self) -> None:
        is_open = self.job.state in (QUEUED, IN_FLIGHT)
        assert self.table.open_jobs == is_open
        assert (self.requester.open_jobs == {"j": self.job}) is is_open
        assert len(self.table) == (self.job.state is not SETTLED)
        assert self.table.size_bytes == is_open * len(b"wire")
        assert len(self.table.watches) == (is_open and self.job.watch is not None)


def answer(bench: Bench) -> bool:
    return bench.table.answer("j", bench.owner) is bench.job


def lose_worker(bench: Bench) -> bool:
    return bench.table.requeue(bench.job, FakeOwner())


def pass_deadline(bench: Bench) -> bool:
    expired, owners = bench.table.expire(300.0, 600.0)
    assert set(owners) <= {bench.owner}
    return expired == [bench.job]


def lose_client(bench: Bench) -> bool:
    return bench.table.abandon(bench.job, 300.0)


def report(bench: Bench) -> bool:
    return bench.table.report("j", bench.owner, 5.0) is bench.job


def end(bench: Bench) -> bool:
    return bench.table.end(bench.job)


@pytest.mark.parametrize(
    ("before", "event", "after", "won"),
    [
        (QUEUED, answer, QUEUED, False),
        (QUEUED, lose_worker, QUEUED, True),
        (QUEUED, pass_deadline, SETTLED, True),
        (QUEUED, lose_client, SETTLED, True),
        (QUEUED, end, SETTLED, True),
        (IN_FLIGHT, answer, SETTLED, True),
        (IN_FLIGHT, lose_worker, QUEUED, True),
        (IN_FLIGHT, pass_deadline, SETTLED, True),
        (IN_FLIGHT, lose_client, ABANDONED, True),
        (IN_FLIGHT, end, SETTLED, True),
        (ABANDONED, answer, SETTLED, False),
        (ABANDONED, lose_worker, SETTLED, False),
        (ABANDONED, pass_deadline, SETTLED, False),
        (ABANDONED, lose_client, ABANDONED, False),
        (ABANDONED, end, ABANDONED, False),
        (SETTLED, answer, SETTLED, False),
        (SETTLED, lose_worker, SETTLED, False),
        (SETTLED, pass_deadline, SETTLED, False),
        (SETTLED, lose_client, SETTLED, False),
        (SETTLED, end, SETTLED, False),
        (QUEUED, report, QUEUED, False),
        (IN_FLIGHT, report, IN_FLIGHT, True),
        (ABANDONED, report, ABANDONED, False),
        (SETTLED, report, SETTLED, False),
    ],
)
@pytest.mark.parametrize("watched", [False, True])
def test_every_cell_of_the_table(
    before: JobState, event: Callable[[Bench], bool], after: JobState, won: bool, watched: bool
) -> None:
    bench = Bench(before, heartbeat=math.inf if watched else None)
    assert event(bench) is won
    if watched and before is IN_FLIGHT and event is pass_deadline:
        after = ABANDONED  # the deadline may have been a short one: the worker is at it still
    assert bench.job.state is after
    bench.check_books()
    # The owner is told exactly when a job leaves it through a settlement that is not the owner's own loss.
    settled_now = before is not SETTLED and after is SETTLED and event is not lose_worker
    assert [entry[0] for entry in bench.owner.let_go_of] == [bench.job] * settled_now


def test_claim_records_the_batch_and_counts_the_delivery() -> None:
    bench, batch = Bench(QUEUED), Batch(1.0)
    bench.job.claim(batch)
    assert (bench.job.state, bench.job.batch, batch.jobs, bench.job.deliveries) == (
        IN_FLIGHT,
        batch,
        [bench.job],
        1,
    )


def test_only_the_current_owner_may_answer() -> None:
    """P-23: late, duplicate, foreign and unknown ids are dropped."""
    bench = Bench(IN_FLIGHT)
    assert bench.table.answer("j", FakeOwner()) is None
    assert bench.table.answer("other", bench.owner) is None
    assert bench.table.answer("j", bench.owner) is bench.job
    assert bench.table.answer("j", bench.owner) is None


def test_a_lost_owner_may_not_answer_after_the_job_was_requeued() -> None:
    bench, heir = Bench(IN_FLIGHT), FakeOwner()
    assert bench.table.requeue(bench.job, heir)
    assert bench.table.answer("j", bench.owner) is None
    assert bench.table.answer("j", heir) is None, "not before it is sent again"
    bench.job.claim(Batch(2.0))
    assert bench.table.answer("j", heir) is bench.job
    assert bench.job.deliveries == 2


def test_the_owner_sees_whether_the_job_was_out_when_it_lets_go() -> None:
    queued, out = Bench(QUEUED), Bench(IN_FLIGHT)
    assert lose_client(queued)
    assert pass_deadline(out)
    assert queued.owner.let_go_of[0][1] is None
    assert out.owner.let_go_of[0][1] is out.job.batch is not None


def test_jobs_expire_oldest_first_and_only_when_due() -> None:
    table, requester, owner = JobTable(), FakeRequester(), FakeOwner()
    assert table.next_deadline == float("inf")
    jobs = [make_job(str(n), requester, owner, deadline=300.0 + n) for n in range(5)]
    for job in jobs:
        table.accept(job)
    assert table.next_deadline == 300.0
    assert table.expire(299.9, 600.0) == ([], [])
    assert table.expire(302.0, 600.0) == (jobs[:3], [owner])
    assert table.next_deadline == 303.0
    assert list(table) == jobs[3:]


def test_a_look_that_comes_to_nothing_finds_the_next_deadline() -> None:
    table, requester, owner = JobTable(), FakeRequester(), FakeOwner()
    jobs = [make_job(str(n), requester, owner, deadline=300.0 + n) for n in range(3)]
    for job in jobs:
        table.accept(job)
    jobs[0].claim(Batch(0.0))
    assert table.answer("0", owner) is jobs[0]
    assert table.next_deadline <= 301.0
    assert table.expire(300.5, 0.0) == ([], [])
    assert table.next_deadline == 301.0
    assert table.expire(302.0, 0.0) == (jobs[1:], [owner])
    assert table.next_deadline == math.inf
    table.accept(make_job("later", requester, owner, deadline=900.0))
    assert table.next_deadline == 900.0


def test_a_table_out_of_which_all_jobs_expire_shrinks_with_them() -> None:
    """Or each look at the oldest would step over all that were before it."""
    table, requester, owner = JobTable(), FakeRequester(), FakeOwner()
    jobs = [make_job(str(n), requester, owner, deadline=float(n)) for n in range(1000)]
    for job in jobs:
        table.accept(job)
    for n, job in enumerate(jobs[:-10]):
        assert table.expire(n + 0.5, 0.0) == ([job], [owner])
        assert table.next_deadline == n + 1
    assert list(table) == jobs[-10:]
    assert sys.getsizeof(table._jobs) < 10_000


def test_the_response_begins_with_what_the_client_called_its_job() -> None:
    requester, owner = FakeRequester(), FakeOwner()
    for client_job_id in ("mine", "é" * 300):
        job = make_job(client_job_id, requester, owner)
        assert job.response_head == codec.response_head(client_job_id)
    head = codec.response_head([1, 2])
    numbered = Job("1", [1, 2], head, requester, "t", None, b"", 0.0, 9.0, (), owner)
    assert numbered.response_head == head


def test_a_worker_that_can_be_told_owes_an_answer_beyond_the_deadline() -> None:
    """It is told to stop, and keeps its credit spent until it says that it has, or is not believed to."""
    bench = Bench(IN_FLIGHT, cancels=True)
    assert bench.table.expire(300.0, 600.0) == ([bench.job], [bench.owner])
    assert bench.job.state is ABANDONED
    bench.check_books()
    assert bench.owner.let_go_of == []
    assert bench.table.next_deadline == 600.0
    assert bench.table.expire(599.0, 900.0) == ([], [])
    assert bench.table.expire(600.0, 900.0) == ([], [bench.owner])
    assert bench.job.state is SETTLED
    assert len(bench.owner.let_go_of) == 1
    waiting = Bench(QUEUED, cancels=True)
    assert pass_deadline(waiting)
    assert waiting.job.state is SETTLED, "nobody has it"


def test_the_abandoned_have_their_own_order() -> None:
    table, requester, owner = JobTable(), FakeRequester(), FakeOwner()
    jobs = [make_job(str(n), requester, owner, deadline=300.0 + n) for n in range(3)]
    for job in jobs:
        table.accept(job)
        job.claim(Batch(0.0))
    for job, until in zip(reversed(jobs), (310.0, 320.0, 330.0), strict=True):
        table.abandon(job, until)
    assert list(table) == jobs, "of acceptance, to whoever asks"
    assert table.next_deadline == 310.0
    table.expire(315.0, 0.0)
    assert list(table) == jobs[:2]


def test_jobs_with_deadlines_of_their_own_disturb_nobody() -> None:
    table, requester, owner = JobTable(), FakeRequester(), FakeOwner()
    jobs = [
        make_job("1", requester, owner, deadline=900.0, watch=Watch("1", 1, 900.0)),
        make_job("2", requester, owner),
        make_job("3", requester, owner, deadline=5.0, watch=Watch("3", 3, 5.0)),
    ]
    for job in jobs:
        table.accept(job)
    assert list(table) == jobs
    assert table.next_deadline == 5.0
    assert table.expire(5.0, 0.0) == ([jobs[2]], [owner])
    assert table.expire(300.0, 0.0) == ([jobs[1]], [owner])
    assert table.next_deadline == 900.0
    assert table.expire(900.0, 0.0) == ([jobs[0]], [owner])
    assert table.next_deadline == float("inf")


def test_silence_is_measured_while_a_worker_has_the_job() -> None:
    bench = Bench(QUEUED, heartbeat=10.0)
    assert bench.table.expire(200.0, 0.0) == ([], []), "it waits, and nobody could speak of it"
    bench.job.claim(Batch(200.0))
    assert bench.table.next_deadline == 210.0
    assert bench.table.report("j", bench.owner, 205.0) is bench.job
    assert bench.table.expire(210.0, 0.0) == ([], [])
    assert bench.table.next_deadline == 215.0
    assert bench.table.requeue(bench.job, FakeOwner())
    assert bench.table.expire(299.0, 0.0) == ([], [])
    assert bench.table.expire(300.0, 0.0)[0] == [bench.job]


def test_only_the_current_owner_may_report() -> None:
    bench = Bench(IN_FLIGHT, heartbeat=10.0)
    assert bench.table.report("j", FakeOwner(), 5.0) is None
    assert bench.table.report("other", bench.owner, 5.0) is None
    assert bench.table.expire(10.0, 0.0)[0] == [bench.job]


class JobTableMachine(RuleBasedStateMachine):
    """Any order of events: a job is settled at most once, a living job has an owner, the books agree."""

    def __init__(self) -> None:
        super().__init__()
        self.table = JobTable()
        self.requesters = [FakeRequester(), FakeRequester()]
        self.owners = [FakeOwner(), FakeOwner(cancels=True)]
        self.now = 0.0
        self.jobs: list[Job] = []
        self.ends: dict[str, int] = {}

    jobs_bundle = Bundle("jobs_bundle")

    @rule(
        target=jobs_bundle,
        count=st.integers(1, 3),
        requester=st.integers(0, 1),
        owner=st.integers(0, 1),
        timeout=st.just(300.0) | st.floats(0.001, 1000),
        heartbeat=st.just(math.inf) | st.floats(0.001, 300),
    )
    def accept(self, count: int, requester: int, owner: int, timeout: float, heartbeat: float) -> Any:
        new = []
        for _ in range(count):
            number = len(self.jobs)
            name, deadline = f"job-{number}", self.now + timeout
            watch = None
            if timeout != 300.0 or heartbeat < math.inf:
                watch = Watch(name, number, deadline, heartbeat)
            whose, where = self.requesters[requester], self.owners[owner]
            new.append(make_job(name, whose, where, deadline=deadline, watch=watch))
            self.jobs.append(new[-1])
            self.table.accept(new[-1])
        return multiple(*new)

    @rule(job=jobs_bundle)
    def claim(self, job: Job) -> None:
        if job.state is QUEUED:
            job.claim(Batch(self.now))

    @rule(job=jobs_bundle, owner=st.integers(0, 1))
    def answer(self, job: Job, owner: int) -> None:
        if self.table.answer(job.job_id, self.owners[owner]) is not None:
            self.count_end(job)

    @rule(job=jobs_bundle, owner=st.integers(0, 1))
    def report(self, job: Job, owner: int) -> None:
        reported = self.table.report(job.job_id, self.owners[owner], self.now)
        assert (reported is job) is (job.state is IN_FLIGHT and job.owner is self.owners[owner])

    @rule(owner=st.integers(0, 1))
    def lose_worker(self, owner: int) -> None:
        lost = self.owners[owner]
        for job in self.table:
            if job.owner is lost:
                self.table.requeue(job, self.owners[1 - owner])

    @rule(seconds=st.floats(0, 400))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for job in self.table.expire(self.now, self.now + 300.0)[0]:
            self.count_end(job)
        assert all(job.deadline > self.now for job in self.table)
        watches = [job.watch for job in self.table if job.watch is not None and job.state is not ABANDONED]
        assert all(watch.due > self.now for watch in watches)
        assert self.table.watches.next_look <= min((watch.due for watch in watches), default=math.inf)

    @rule(job=consumes(jobs_bundle))
    def end(self, job: Job) -> None:
        if self.table.end(job):
            self.count_end(job)

    @rule(requester=st.integers(0, 1))
    def lose_client(self, requester: int) -> None:
        for job in list(self.requesters[requester].open_jobs.values()):
            assert self.table.abandon(job, self.now + 300.0)
            self.count_end(job)
        assert not self.requesters[requester].open_jobs

    def count_end(self, job: Job) -> None:
        self.ends[job.job_id] = self.ends.get(job.job_id, 0) + 1

    @invariant()
    def ends_at_most_once(self) -> None:
        assert all(count == 1 for count in self.ends.values())

    @invariant()
    def conservation(self) -> None:
        still_open = [job for job in self.jobs if job.state in (QUEUED, IN_FLIGHT)]
        assert len(self.jobs) == len(self.ends) + len(still_open)
        assert self.table.open_jobs == len(still_open)
        assert sum(len(requester.open_jobs) for requester in self.requesters) == len(still_open)

    @invariant()
    def the_table_holds_what_may_still_be_answered(self) -> None:
        assert {job.job_id for job in self.table} == {
            job.job_id for job in self.jobs if job.state is not SETTLED
        }


TestJobTable = JobTableMachine.TestCase

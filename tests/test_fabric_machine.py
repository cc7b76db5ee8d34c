"""Any sequence of events against the engine, in virtual time; then all heals, and every job must have its
answer.

The model knows no schedule: which worker gets what, and when, is the engine's business. It knows what was
promised: to each client its own answers, once (I1, I8) and in time (I9); each job in one pair of hands
    (I2); and
every job accounted for (I3).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orbtrio.protocol.messages import BatchJob, JobBatch, Resource
from orbtrio.testing import Fabric, FakeClient, FakeWorker, open_fabric
from orbtrio.testing.driver import Driver

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(600)

# Few, so that peers meet. Jobs of the second one are of sessions, which stay with a worker (P-12).
TYPES = ("plain", "keyed")

# P-21: past it a job has ended, whatever has become of it.
TIMEOUT = 300.0

INDEX = st.integers(0, 15)
TROUBLE = ("cut", "cut soon", "hang up", "close", "stall", "resume")

# Longer than a batch waits, and than it takes to find out a half-open connection (40 s).
HEALING = 61.0


@attrs.define(eq=False)
class Worker:
    """A worker as the test sees it.

    Attributes:
        held: What it was sent and has not answered, by the engine's id.
        answered: What it might answer once more.
    """

    name: str
    peer: FakeWorker = attrs.field(repr=False)
    max_batch_size: int
    stalled: bool = False
    held: dict[str, BatchJob] = attrs.field(factory=dict, repr=False)
    answered: list[BatchJob] = attrs.field(factory=list, repr=False)

    @property
    def stake(self) -> int:
        return len(self.held)

    @property
    def is_live(self) -> bool:
        return self.peer.lost is None and not self.stalled


@attrs.define(eq=False)
class Client:
    """A client as the test sees it.

    Attributes:
        jobs: What it has submitted: when, and which number, by its own id.
    """

    name: str
    peer: FakeClient = attrs.field(repr=False)
    engine_errors: bool
    stalled: bool = False
    jobs: dict[str, tuple[float, int]] = attrs.field(factory=dict, repr=False)

    @property
    def stake(self) -> int:
        return len(self.jobs) - len(self.peer.raw)

    @property
    def is_live(self) -> bool:
        return self.peer.lost is None and not self.stalled


def as_error(job: BatchJob) -> dict[str, str]:
    return {"error": str(job.input["n"])}


class FabricMachine(RuleBasedStateMachine):
    """Rules are events; each has had all its consequences when it returns.

    Peers are chosen by number, not from bundles: a sequence stays possible when parts of it are left out,
    and most events hit somebody who is still there.
    """

    fabric: Fabric

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver()
        self.workers: list[Worker] = []
        self.clients: list[Client] = []
        self.numbers = itertools.count()
        self.draining = False
        self.driver.start(self.run_fabric)

    async def run_fabric(self) -> None:
        async with open_fabric(
            max_queued_jobs=8, worker_types=TYPES, affinity={"keyed": "key"}
        ) as self.fabric:
            await trio.sleep_forever()

    def act(self, function: Callable[..., object], *args: Any) -> None:
        async def run() -> None:
            function(*args)

        self.driver.call(run)

    def worker(self, index: int) -> Worker | None:
        """Preferably one that has jobs in hand: it can answer, and there trouble does most harm."""
        here = [worker for worker in self.workers if worker.peer.lost is None]
        here.sort(key=lambda worker: worker.stake, reverse=True)
        return here[min(index // 6, len(here) - 1)] if here else None

    def client(self, index: int) -> Client | None:
        here = [client for client in self.clients if client.peer.lost is None]
        return here[index % len(here)] if here else None

    @property
    def peers(self) -> list[Worker | Client]:
        return [*self.workers, *self.clients]

    def peer(self, index: int) -> Worker | Client | None:
        """Preferably a worker."""
        return self.worker(index) if index % 4 else self.client(index // 4)

    # ------------------------------------------------------------------------------------------------- peers

    @initialize()
    def begin(self) -> None:
        self.connect_client(engine_errors=True)
        self.connect_worker("plain", max_batch_size=2, max_latency=5.0, credit=None, eager=False)
        self.connect_worker("plain", max_batch_size=2, max_latency=0.05, credit=1, eager=True)

    @precondition(lambda self: sum(worker.peer.lost is None for worker in self.workers) < 4)
    @rule(
        worker_type=st.sampled_from(["plain", "plain", "keyed"]),
        max_batch_size=st.sampled_from([1, 2, 5]),
        max_latency=st.sampled_from([0.05, 5.0]),
        credit=st.sampled_from([None, 1, 2]),
        eager=st.booleans(),
    )
    def connect_worker(
        self, worker_type: str, max_batch_size: int, max_latency: float, credit: int | None, eager: bool
    ) -> None:
        async def connect() -> FakeWorker:
            return await self.fabric.fake_worker(
                worker_type,
                max_batch_size=max_batch_size,
                max_latency=max_latency,
                max_unanswered_batches=credit,
                eager=eager,
            )

        worker = Worker(f"worker-{len(self.workers)}", self.driver.call(connect), max_batch_size)
        self.workers.append(worker)

    @precondition(lambda self: sum(client.peer.lost is None for client in self.clients) < 3)
    @rule(engine_errors=st.booleans())
    def connect_client(self, engine_errors: bool) -> None:
        async def connect() -> FakeClient:
            return await self.fabric.fake_client(engine_errors=engine_errors)

        client = Client(f"client-{len(self.clients)}", self.driver.call(connect), engine_errors)
        self.clients.append(client)

    @rule(index=INDEX, what=st.sampled_from(TROUBLE), size=st.integers(0, 200))
    def trouble(self, index: int, what: str, size: int) -> None:
        """On one link; a resumption on all."""
        peer = self.peer(index)
        if what == "resume":
            for stalled in self.peers:
                stalled.stalled = False
                self.act(stalled.peer.link.resume)
        elif peer is None:
            return
        elif what == "stall":
            peer.stalled = True
            self.act(peer.peer.link.stall)
        elif what == "cut":
            self.act(peer.peer.link.cut)
        elif what == "cut soon":  # in the middle of a message
            self.act(peer.peer.link.to_engine.cut_after, size)
        elif what == "hang up":
            self.act(peer.peer.link.hang_up)
        elif not peer.stalled:
            self.driver.call(peer.peer.close)

    # -------------------------------------------------------------------------------------------------- jobs

    @rule(
        index=INDEX,
        worker_type=st.sampled_from(["plain", "plain", "plain", "keyed", "unknown"]),
        count=st.integers(1, 6),
        key=st.integers(0, 2),
        with_file=st.booleans(),
        pause=st.sampled_from([0.0, 0.1, 6.0]),
    )
    def submit(
        self, index: int, worker_type: str, count: int, key: int, with_file: bool, pause: float
    ) -> None:
        client = self.client(index)
        if client is None:
            self.connect_client(engine_errors=True)
            client = self.clients[-1]
        if client.stalled or client.peer.lost is not None:
            return
        resources = [Resource("r", "document", b"text")] if with_file else []
        file = {"file": {"__type": "resource-ref", "id": "r"}} if with_file else {}
        numbers = list(itertools.islice(self.numbers, count))
        inputs = [{"n": number, "key": key} | file for number in numbers]

        async def send() -> list[str]:
            return client.peer.submit(worker_type, *inputs, resources=resources)

        now = self.driver.clock.current_time()
        for client_job_id, number in zip(self.driver.call(send), numbers, strict=True):
            client.jobs[client_job_id] = now, number
        self.driver.advance(pause)

    @rule(
        index=INDEX,
        picks=st.lists(st.integers(0, 9), min_size=1, max_size=6),
        what=st.sampled_from(["all", "results", "errors", "again", "foreign"]),
    )
    def answer(self, index: int, picks: list[int], what: str) -> None:
        """Some of what a worker holds; or once more, or for another, which is never delivered (P-23)."""
        worker = self.worker(index)
        if worker is None:
            return
        if what == "again":
            choice = worker.answered
        elif what == "foreign":
            choice = [job for other in self.workers for job in other.held.values() if other is not worker]
        else:
            choice = list(worker.held.values())
        jobs = choice
        if choice and what != "all":
            jobs = [choice[place] for place in dict.fromkeys(pick % len(choice) for pick in picks)]
        if what == "again":
            self.act(worker.peer.answer, jobs, {"again": True})
        elif what == "foreign":
            # From behind a stall it would arrive when the job may be the worker's own.
            jobs = [job for job in jobs if job.job_id not in worker.held and not worker.stalled]
            self.act(worker.peer.answer, jobs, {"foreign": True})
        else:
            for job in jobs:
                worker.answered.append(worker.held.pop(job.job_id))
            self.act(worker.peer.answer, jobs, as_error if what == "errors" else None)

    @rule(seconds=st.sampled_from([0.1, 6.0, 31.0, 45.0, 100.0, 299.0, 301.0]))
    def wait(self, seconds: float) -> None:
        self.driver.advance(seconds)

    @precondition(lambda self: not self.draining)
    @rule(unlikely=st.integers(0, 19))
    def drain(self, unlikely: int) -> None:
        """P-26."""
        if unlikely == 1:
            self.draining = True
            self.driver.start(self.fabric.engine.stop)

    # -------------------------------------------------------------------------------------------- invariants

    @invariant()
    def promises_are_kept(self) -> None:
        self.check_batches()
        self.check_answers()
        self.check_books()

    def check_batches(self) -> None:
        """Never empty, never too large, and no job in two pairs of hands (I2)."""
        for worker in self.workers:
            while worker.peer.has_message:
                batch = worker.peer.receive_nowait()
                assert isinstance(batch, JobBatch)
                assert 1 <= len(batch.jobs) <= worker.max_batch_size
                for job in batch.jobs:
                    assert job.job_id not in worker.held
                    worker.held[job.job_id] = job
        held = [job_id for worker in self.workers if worker.is_live for job_id in worker.held]
        assert len(held) == len(set(held))

    def check_answers(self) -> None:
        """To each client its own, once (I1, I8), and in time (I9)."""
        now = self.driver.clock.current_time()
        for client in self.clients:
            outputs = client.peer.outputs
            answered = {client_job_id for client_job_id, _ in outputs}
            assert len(answered) == len(outputs)
            for client_job_id, output in outputs:
                _, number = client.jobs[client_job_id]
                if "error_kind" in output:
                    assert client.engine_errors
                else:
                    assert output.get("error", str(number)) == str(number)
                    assert output.get("echo", {"n": number})["n"] == number
                    assert output.keys() <= {"id", "error", "echo"}
            if client.is_live and client.engine_errors:
                for client_job_id in client.jobs.keys() - answered:
                    assert now - client.jobs[client_job_id][0] < TIMEOUT

    def check_books(self) -> None:
        """Every job is accounted for (I3), and nobody works for a client that is gone (P-25)."""
        now = self.fabric.engine.statistics()
        assert now.accepted == now.answered + now.abandoned + sum(now.ended.values()) + now.open_jobs
        queued = sum(pool.queued for pool in now.worker_types)
        assert now.open_jobs <= queued + sum(worker.unanswered for worker in now.workers)
        # The end of a stalled client does not get through; pings find it out.
        waiting = [client for client in self.clients if client.peer.lost is None or client.stalled]
        assert now.open_jobs <= sum(client.stake for client in waiting)

    # --------------------------------------------------------------------------------------------------- end

    def teardown(self) -> None:
        try:
            self.heal()
        finally:
            self.driver.close()

    def heal(self) -> None:
        """No more faults, and a worker for each type: every open job is answered, nothing is left behind."""
        for peer in self.peers:
            peer.stalled = False
            self.act(peer.peer.link.heal)
        self.promises_are_kept()
        recent = self.driver.clock.current_time() - TIMEOUT + HEALING
        for worker_type in TYPES:
            self.connect_worker(worker_type, max_batch_size=5, max_latency=5.0, credit=None, eager=False)
        for worker in self.workers:
            if worker.peer.lost is None:
                self.act(worker.peer.answer, list(worker.held.values()))
                worker.held.clear()
                self.driver.start(worker.peer.answer_all)
        self.driver.advance(HEALING)
        statistics = self.fabric.engine.statistics()
        for kind in statistics.ended:
            event(f"ended: {kind}")
        for kind in statistics.refused:
            event(f"refused: {kind}")
        event(f"redelivered: {statistics.redelivered > 0}")
        event(f"dropped: {statistics.outputs_dropped > 0}")
        event(f"answered: {statistics.answered > 5}")
        assert statistics.open_jobs == 0
        assert statistics.files == 0
        self.check_answers()
        for client in self.clients:
            # 1001: the engine has drained.
            if client.engine_errors and (client.peer.lost is None or client.peer.lost.code == 1001):
                kinds = {job_id: output.get("error_kind") for job_id, output in client.peer.outputs}
                assert kinds.keys() == client.jobs.keys()
                late = [at for job_id, (at, _) in client.jobs.items() if kinds[job_id] == "timeout"]
                assert all(at <= recent for at in late)


# Seconds while one works on it, the better part of a minute in CI.
EXAMPLES = {"dev": 20, "ci": 60}.get(settings.get_current_profile_name(), 1000)

TestFabric = FabricMachine.TestCase
TestFabric.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

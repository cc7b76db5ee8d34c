"""Random histories of jobs, cancels, progress, drains and losses, with an oracle that knows the books.

After each step the engine's books are counted anew from its jobs, and what went over the wires is checked
against what each peer asked for.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import trio

from orbtrio.engine.jobs import JobState, acceptance
from orbtrio.engine.queues import living
from orbtrio.protocol.messages import (
    CancelJobs,
    JobBatch,
    JobRequest,
    ProgressReport,
    Resource,
    WorkerRequest,
    WorkerResponse,
    WorkerResponses,
)
from orbtrio.testing import open_fabric, wait_until_idle
from tests.engine.extended import extended_client, extended_worker

if TYPE_CHECKING:
    from orbtrio.engine.queues import WorkerQueue
    from orbtrio.protocol.messages import BatchJob
    from orbtrio.testing import Fabric, FakeClient, FakeWorker

__all__ = ["search"]

OPEN = (JobState.QUEUED, JobState.IN_FLIGHT)
SENT = (JobState.IN_FLIGHT, JobState.ABANDONED)


class _Worker:
    # What a worker knows: the jobs that it has not answered, batch by batch.
    def __init__(self, peer: FakeWorker, asked: frozenset[str], credit: int | None) -> None:
        self.peer = peer
        self.asked = asked
        self.credit = credit
        self.batches: list[dict[str, BatchJob]] = []
        self.seen: set[str] = set()
        self.draining = False
        self.slow = False  # it was silent for so long that it may have been sent more than it asked for

    @property
    def held(self) -> list[BatchJob]:
        return [job for batch in self.batches for job in batch.values()]

    def take_in(self) -> None:
        while self.peer.has_message:
            message = self.peer.receive_nowait()
            if isinstance(message, JobBatch):
                assert message.jobs, "no batch is empty"
                assert not message.resources or "inline_resources" in self.asked
                ids = {job.job_id for job in message.jobs}
                assert not ids & self.seen, "nothing is sent to a worker twice"
                self.seen |= ids
                self.batches.append({job.job_id: job for job in message.jobs})
            else:
                assert isinstance(message, CancelJobs), message
                assert "cancel" in self.asked
                assert set(message.job_ids) <= self.seen, "a word about a job comes after the job"
        if self.credit is not None and not self.slow:
            assert len(self.batches) <= self.credit

    def answer(self, jobs: list[BatchJob]) -> None:
        self.peer.answer(jobs)
        for job in jobs:
            for batch in self.batches:
                batch.pop(job.job_id, None)
        self.batches = [batch for batch in self.batches if batch]


class _Client:
    # What a client knows: its jobs, and what it heard of each.
    def __init__(self, peer: FakeClient, asked: frozenset[str]) -> None:
        self.peer = peer
        self.asked = asked
        self.open: set[int] = set()
        self.told: dict[int, tuple[int, int]] = {}

    def take_in(self) -> None:
        while self.peer.has_message:
            message = self.peer.receive_nowait()
            if isinstance(message, WorkerResponses):
                assert "batched_responses" in self.asked
                assert len(message.responses) > 1
                responses = message.responses
            elif isinstance(message, WorkerResponse):
                responses = [message]
            else:
                assert isinstance(message, ProgressReport), message
                assert "progress" in self.asked
                assert message.client_job_id in self.open, "no progress after the answer"
                place = (message.attempt, message.progress["n"])
                assert place > self.told.get(message.client_job_id, (0, 0)), "in order"
                self.told[message.client_job_id] = place
                continue
            for response in responses:
                assert response.client_job_id in self.open, "one answer for each job"
                self.open.remove(response.client_job_id)


class _History:
    def __init__(self, fabric: Fabric, random: Random) -> None:
        self.fabric = fabric
        self.random = random
        self.exchange: Any = fabric.engine._exchange
        self.workers: list[_Worker] = []
        self.clients: list[_Client] = []
        self.number = 0

    # --- steps

    async def connect_worker(self) -> None:
        names = ("cancel", "progress", "drain", "inline_resources")
        asked = {name for name in names if self.random.random() < 0.6}
        credit = self.random.choice([None, 1, 2])
        fields: dict[str, Any] = {"max_batch_size": self.random.choice([1, 2, 5]), "max_latency": 1.0}
        peer = await extended_worker(
            self.fabric, *asked, eager=self.random.random() < 0.5, max_unanswered_batches=credit, **fields
        )
        self.workers.append(_Worker(peer, frozenset(asked), credit))

    async def connect_client(self) -> None:
        names = ("cancel", "progress", "batched_responses")
        asked = {name for name in names if self.random.random() < 0.7}
        self.clients.append(_Client(await extended_client(self.fabric, *asked), frozenset(asked)))

    def submit(self) -> None:
        client = self.random.choice(self.clients)
        jobs, resources = [], []
        for _ in range(self.random.randint(1, 8)):
            self.number += 1
            extra: dict[str, Any] = {}
            if self.random.random() < 0.3:
                extra["timeout_ms"] = self.random.choice([100, 3000, 400_000])
            if self.random.random() < 0.3:
                extra["heartbeat_ms"] = self.random.choice([500, 2000])
            job = JobRequest(self.number, "t", {}, extra or None)
            if self.random.random() < 0.3:
                job.input = {"file": {"__type": "resource-ref", "id": str(self.number)}}
                resources.append(Resource(str(self.number), "document", b"%d" % self.number * 50))
            jobs.append(job)
        client.open |= {job.client_job_id for job in jobs}
        client.peer.send(WorkerRequest(jobs, [], tuple(resources)))

    def cancel(self) -> None:
        client = self.random.choice(self.clients)
        names = self.random.sample(sorted(client.open), min(len(client.open), self.random.randint(0, 6)))
        client.peer.cancel(*names, *names[:1], -1)

    def answer(self) -> None:
        worker = self.random.choice(self.workers)
        held = worker.held
        jobs = self.random.sample(held, self.random.randint(0, len(held)))
        worker.answer(jobs)
        if jobs and self.random.random() < 0.2:
            self.random.choice(self.workers).peer.answer(jobs)  # late, or another's

    def report(self) -> None:
        worker = self.random.choice(self.workers)
        jobs = worker.held
        if self.random.random() < 0.2:
            jobs = self.random.choice(self.workers).held
        if jobs:
            self.number += 1
            worker.peer.report(jobs, n=self.number)

    def drain(self) -> None:
        worker = self.random.choice(self.workers)
        if "drain" in worker.asked:
            worker.draining = True
        worker.peer.drain()

    def cut_worker(self) -> None:
        self.random.choice(self.workers).peer.link.cut()

    def cut_client(self) -> None:
        self.random.choice(self.clients).peer.link.cut()

    async def pass_time(self) -> None:
        await trio.sleep(self.random.choice([0.05, 0.6, 2.0, 20.0]))
        if self.random.random() < 0.03:
            for worker in self.workers:
                worker.slow = True
            await trio.sleep(310)

    async def run(self, steps: int) -> None:
        kinds = [self.submit] * 6 + [self.cancel] * 3 + [self.answer] * 6 + [self.report] * 3
        kinds += [self.drain, self.cut_worker, self.cut_client]
        for _ in range(steps):
            while len(self.clients) < 2:
                await self.connect_client()
            if not self.workers or (len(self.workers) < 3 and self.random.random() < 0.3):
                await self.connect_worker()
            for _ in range(self.random.randint(1, 4)):
                self.random.choice(kinds)()
                if self.random.random() < 0.3:
                    await trio.lowlevel.checkpoint()
                self.forget_lost()
                if not self.workers or not self.clients:
                    break
            if self.random.random() < 0.4:
                await self.pass_time()
            await wait_until_idle()
            self.check()
        await self.finish()

    async def finish(self) -> None:
        for _ in range(3):
            await trio.sleep(400)
            await wait_until_idle()
            for worker in self.workers:
                worker.slow = True
            self.check()
        for client in self.clients:
            assert not client.open, "each job was answered"
        assert not len(self.exchange._table)
        assert not len(self.exchange._table.watches)
        for worker in self.workers:
            worker.answer(worker.held)
        await wait_until_idle()
        self.check()
        for worker in self.workers:
            assert not worker.draining, "a drained worker is closed"
        await trio.sleep(2)
        assert self.fabric.engine.statistics().files == 0

    # --- what must hold

    def forget_lost(self) -> None:
        self.workers = [worker for worker in self.workers if worker.peer.lost is None]
        self.clients = [client for client in self.clients if client.peer.lost is None]

    def check(self) -> None:
        for worker in self.workers:
            worker.take_in()
        for client in self.clients:
            client.take_in()
        self.forget_lost()
        table = self.exchange._table
        jobs = list(table)
        still_open = [job for job in jobs if job.state in OPEN]
        assert table.open_jobs == len(still_open)
        assert table.open_jobs == sum(len(client.open) for client in self.clients)
        assert table.size_bytes == sum(len(job.wire) for job in still_open)
        for job in still_open:
            assert job.requester.open_jobs[job.client_key] is job
        pool = self.exchange.dispatcher.pools.get("t")
        if pool is None:
            return
        assert pool.jobs_queued == sum(job.state is JobState.QUEUED for job in jobs)
        assert pool._undealt == 0
        queues: list[WorkerQueue] = [*pool.workers, *pool.draining]
        assert len(queues) == len(self.workers)
        for queue in queues:
            mine = [job for job in jobs if job.owner is queue]
            waiting = [job for job in mine if job.state is JobState.QUEUED]
            assert living(queue._jobs) == sorted(waiting, key=acceptance)
            assert queue.jobs_waiting == len(waiting)
            assert queue._bytes == sum(queue.weigh(job) for job in waiting)
            assert queue.jobs_in_flight == sum(job.state in SENT for job in mine)
            assert sum(batch.owed for batch in queue._open_batches) == queue.jobs_in_flight
            assert len(queue._open_batches) <= queue._credit
            if queue in pool.workers:
                assert queue.load_level == queue.load
                assert queue in pool._levels[queue.load]
                assert (queue in pool._blocked) is bool(waiting and queue.blocked)
            else:
                assert not waiting
                assert queue.jobs_in_flight, "or it would be closed"
        for job in jobs:
            assert job.owner is pool or job.owner in queues
            if job.owner is pool:
                assert job.state is JobState.QUEUED


async def search(seed: int, steps: int) -> None:
    """Run one history."""
    async with open_fabric() as fabric:
        await _History(fabric, Random(seed)).run(steps)

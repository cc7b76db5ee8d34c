"""The figures of a snapshot, and the same ones as a monitoring system reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from orbtrio.engine.statistics import EngineStatistics, WorkerStatistics, WorkerTypeStatistics, render_metrics
from orbtrio.protocol.messages import JobRequest, RegisterWorker, Resource, WorkerRequest
from orbtrio.testing import open_fabric, wait_until_idle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio.testing import MockClock

SNAPSHOT = EngineStatistics(
    clients=1,
    open_jobs=2,
    accepted=3,
    answered=4,
    abandoned=5,
    ended={"timeout": 6, "worker_lost": 7},
    refused={"queue_full": 8},
    redelivered=9,
    outputs_dropped=10,
    progress=24,
    cancels_sent=25,
    registrations_refused=11,
    peer_errors=12,
    connections_lost=13,
    files=14,
    file_bytes=15,
    workers=(
        WorkerStatistics(
            name='odd"name\\-1',
            worker_type='odd"name\\',
            queued=16,
            unanswered=17,
            jobs=18,
            batches=19,
            batches_answered=20,
            batch_seconds=21.5,
        ),
    ),
    worker_types=(WorkerTypeStatistics(worker_type="t", workers=22, queued=23, draining=26),),
)


def samples(text: bytes) -> Mapping[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_metrics_are_read_back_as_they_were_counted() -> None:
    worker = (("type", 'odd"name\\'), ("worker", 'odd"name\\-1'))
    assert samples(render_metrics(lambda: SNAPSHOT)) == {
        ("orb_clients", ()): 1,
        ("orb_open_jobs", ()): 2,
        ("orb_jobs_accepted_total", ()): 3,
        ("orb_jobs_answered_total", ()): 4,
        ("orb_jobs_abandoned_total", ()): 5,
        ("orb_jobs_ended_total", (("kind", "timeout"),)): 6,
        ("orb_jobs_ended_total", (("kind", "worker_lost"),)): 7,
        ("orb_jobs_refused_total", (("kind", "queue_full"),)): 8,
        ("orb_jobs_redelivered_total", ()): 9,
        ("orb_outputs_dropped_total", ()): 10,
        ("orb_progress_total", ()): 24,
        ("orb_cancels_sent_total", ()): 25,
        ("orb_registrations_refused_total", ()): 11,
        ("orb_peer_errors_total", ()): 12,
        ("orb_connections_lost_total", ()): 13,
        ("orb_resource_files", ()): 14,
        ("orb_resource_bytes", ()): 15,
        ("orb_worker_queued", worker): 16,
        ("orb_worker_unanswered", worker): 17,
        ("orb_worker_jobs_total", worker): 18,
        ("orb_worker_batches_total", worker): 19,
        ("orb_worker_latency_seconds_count", worker): 20,
        ("orb_worker_latency_seconds_sum", worker): 21.5,
        ("orb_workers", (("type", "t"),)): 22,
        ("orb_queued_jobs", (("type", "t"),)): 23,
        ("orb_workers_draining", (("type", "t"),)): 26,
    }


async def test_engine_that_has_done_nothing_counts_nothing(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        counts = attrs.asdict(fabric.engine.statistics())
        assert {name for name, value in counts.items() if value} == set()


async def test_every_event_is_counted_where_it_belongs(autojump_clock: MockClock) -> None:
    async with open_fabric(worker_types=("t",)) as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=2)
        client, leaving = await fabric.fake_client(), await fabric.fake_client()
        (await fabric.fake_worker("t", worker_secret="wrong")).link.heal()
        (await fabric.fake_peer()).send(b"no CBOR")
        (await fabric.fake_peer()).link.cut()
        image = Resource("r", "image", b"\x89PNG")
        job_input = {"x": {"__type": "resource-ref", "id": "r"}}
        client.send(
            WorkerRequest([JobRequest(1, "t", job_input), JobRequest(2, "u", job_input)], [], (image,))
        )
        leaving.submit("t", {})
        jobs = await worker.receive_batch()
        leaving.link.hang_up()
        await trio.sleep(2)
        worker.answer(jobs[0])
        worker.answer(jobs)
        client.submit("t", {})
        await trio.sleep(1)
        now = fabric.engine.statistics()
        assert (now.clients, now.open_jobs) == (1, 1)
        assert (now.accepted, now.answered, now.abandoned) == (3, 1, 1)
        assert (now.ended, now.refused) == ({}, {"unknown_worker_type": 1})
        assert (now.redelivered, now.outputs_dropped) == (0, 2)
        assert (now.registrations_refused, now.peer_errors, now.connections_lost) == (1, 1, 2)
        assert (now.files, now.file_bytes) == (0, 0)
        (counts,) = now.workers
        assert (counts.name, counts.worker_type) == ("t-1", "t")
        assert (counts.queued, counts.unanswered, counts.jobs) == (1, 0, 1)
        assert (counts.batches, counts.batches_answered) == (1, 1)
        assert counts.batch_seconds == pytest.approx(2)
        assert now.worker_types == (WorkerTypeStatistics(worker_type="t", workers=1, queued=1),)
        worker.send(RegisterWorker(worker_type="t", worker_secret=""))
        await trio.sleep(300)
        now = fabric.engine.statistics()
        assert (now.ended, now.open_jobs, now.workers) == ({"timeout": 1}, 0, ())


async def test_workers_are_numbered_by_registration(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        first, *_ = [await fabric.fake_worker(worker_type) for worker_type in ("a", "b", "a")]
        first.link.cut()
        await wait_until_idle()
        await fabric.fake_worker("a")
        names = [worker.name for worker in fabric.engine.statistics().workers]
        assert sorted(names) == ["a-2", "a-3", "b-1"]

"""Workers and clients that the suite plays, where the stage's own tests do not reach."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import pytest

from orbtrio.conformance.peer import Message
from orbtrio.conformance.selftest import zoo_engine

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.engine_stage import EngineStage


@pytest.fixture
def stage(tmp_path: Path) -> EngineStage:
    return zoo_engine((), tmp_path).stage(collections.Counter())


def test_a_worker_may_answer_all_and_whatever_comes(stage: EngineStage) -> None:
    worker = stage.worker(size=2, latency_ms=10)
    client = stage.client()
    early = [client.submit() for _ in range(2)]
    stage.expect(lambda: bool(worker.batches), "a batch")
    worker.answer_all()
    late = [client.submit() for _ in range(3)]
    stage.expect(lambda: all(job.responses for job in early + late), "all are answered")
    assert [len(batch.deliveries) for batch in worker.batches] == [2, 2, 1]
    assert worker.max_batch_size == 2


def test_flat_jobs_are_recognised(stage: EngineStage) -> None:
    job = stage.client().submit()
    assert stage.job_of({"id": "x", **job.input}) is job
    assert stage.job_of({"id": "x", "input": job.input}) is job
    for nobodys in (None, {}, {"input": {"conformance": "plan:99"}}, {"input": {"conformance": "plan:x"}}):
        assert stage.job_of(nobodys) is None


def test_a_request_may_carry_resources(stage: EngineStage) -> None:
    worker = stage.worker(size=1)
    client = stage.client()
    job = client.job({"filepath": {"__type": "resource-ref", "id": "r"}})
    client.request([job], [{"id": "r", "type": "document", "data": "text"}])
    stage.expect(lambda: bool(worker.deliveries), "it is delivered")
    assert str(job) == "job 'j1'"
    with open(worker.deliveries[0].input["filepath"], encoding="utf-8") as file:
        assert file.read() == "text"


def test_messages_of_extensions_are_sorted_for_who_asked(stage: EngineStage) -> None:
    asked = ("progress", "cancel", "batched_responses", "engine_errors")
    worker = stage.worker(size=3, extensions=["progress", "cancel"])
    client = stage.client(extensions=asked)
    jobs = [client.job() for _ in range(3)]
    client.request(jobs)
    stage.expect(lambda: len(worker.deliveries) == 3, "a batch")
    worker.report(*worker.deliveries[:2], percent=50)
    client.cancel(jobs[2])
    worker.answer(*worker.deliveries)
    assert [[report.progress for report in job.reports] for job in jobs] == [[{"percent": 50}]] * 2 + [[]]
    assert jobs[0].reports[0].attempt == 1
    assert worker.recalled_ids() == [worker.deliveries[2].id]
    assert (jobs[2].errors, jobs[0].errors) == (["cancelled"], [])
    assert client.together == [2]
    assert [len(job.responses) for job in jobs] == [1, 1, 1]
    assert (client.stray, worker.stray) == ([], [])


def test_messages_of_extensions_are_strays_for_others(stage: EngineStage) -> None:
    worker, client = stage.worker(), stage.client()
    for peer, value in (
        (worker, {"type": "cancel_jobs", "ids": ["x"]}),
        (client, {"type": "worker_progress", "job_id": "j", "progress": {}}),
        (client, {"type": "worker_responses", "responses": []}),
    ):
        peer.received(Message(0.0, value, b""))
    assert (len(worker.stray), len(client.stray)) == (1, 2)
    assert (worker.recalled, client.together) == ([], [])


def test_ids_of_another_shape_are_kept_as_they_are(stage: EngineStage) -> None:
    worker = stage.worker(extensions=["cancel"])
    worker.received(Message(0.0, {"type": "cancel_jobs", "ids": "x"}, b""))
    assert worker.recalled_ids() == ["x"]

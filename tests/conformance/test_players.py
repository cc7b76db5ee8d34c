"""Workers and clients that the suite plays, where the stage's own tests do not reach."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import pytest

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

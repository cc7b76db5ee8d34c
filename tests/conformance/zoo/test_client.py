"""The model client, seen from its engine."""

from __future__ import annotations

import collections
import itertools
from typing import TYPE_CHECKING

from orbtrio.conformance.client_stage import ClientStage
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.zoo.client import ModelClient

if TYPE_CHECKING:
    from orbtrio.conformance.world import Pipe


def stage(client: ModelClient | None = None) -> ClientStage:
    return ClientStage(SimulatedWorld(client or ModelClient()), Conditions(), collections.Counter())


def test_it_introduces_itself_and_keeps_four_jobs_open() -> None:
    engine = stage(ModelClient("sesame")).client(4)
    assert engine.introductions[0].value == {
        "type": "i_am_server",
        "version": "1.0.1",
        "token": "sesame",
        "extensions": ["batched_responses", "cancel", "engine_errors", "progress", "typed_arrays"],
    }
    assert [job.job_id for job in engine.open_jobs] == ["job-0", "job-1", "job-2", "job-3"]
    engine.answer(engine.open_jobs[0])
    assert len(engine.jobs) == 4
    engine.answer(engine.open_jobs[0])
    assert [job.job_id for job in engine.jobs[4:]] == ["job-4", "job-5"]


def test_its_jobs_share_resources() -> None:
    engine = stage().client(4)
    assert engine.requests[0].resources == []
    assert [resource["id"] for resource in engine.requests[1].resources] == ["img-2", "doc-2"]
    for job in engine.requests[1].jobs:
        assert [reference["id"] for reference in job.fields["input"]["files"]] == ["img-2", "doc-2"]


def test_it_comes_back_and_repeats_what_was_not_answered() -> None:
    here = stage()
    first = here.client(4)
    first.answer(first.open_jobs[0])
    first.drop("RST")
    second = here.client(3)
    assert second is not first
    assert [job.job_id for job in second.jobs[:3]] == ["job-1", "job-2", "job-3"]


def test_it_takes_a_refusal_and_rubbish_for_a_lost_connection() -> None:
    here = stage()
    here.connection().drop("FIN")
    times: list[float] = []

    def refuse(pipe: Pipe) -> None:
        times.append(here.now())
        pipe.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n" if len(times) % 2 else b"rubbish\r\n\r\n")

    here.doorman = refuse
    here.sleep(3.0)
    assert [round(later - earlier, 2) for earlier, later in itertools.pairwise(times)] == [
        0.1,
        0.2,
        0.4,
        0.8,
    ]


def test_nobody_connects_to_a_client() -> None:
    world = SimulatedWorld(ModelClient())
    assert world.connect().ended == "RST"


def test_of_an_engine_that_can_cancel_it_waits_for_seconds_only() -> None:
    here = stage()
    here.announce("cancel", "engine_errors")
    engine = here.client(4)
    assert {job.fields["timeout_ms"] for job in engine.open_jobs} == {60_000}
    engine.answer(engine.open_jobs[0])
    here.sleep(1.5)
    assert engine.cancelled == []
    here.sleep(0.5)
    assert engine.cancelled == ["job-1", "job-2", "job-3"]
    here.announce()
    stock = here.client(4)
    here.sleep(5.0)
    assert (stock.cancelled, stock.stray) == ([], [])
    assert not any("timeout_ms" in job.fields for job in stock.jobs)


def test_answers_that_come_together_and_progress_are_known() -> None:
    here = stage()
    here.announce("batched_responses", "progress")
    engine = here.client(4)
    engine.send({"type": "worker_progress", "job_id": "job-0", "progress": {}})
    engine.answer_together(engine.open_jobs)
    engine.send({"type": "worker_responses", "responses": None})
    assert [job.job_id for job in engine.open_jobs] == ["job-4", "job-5", "job-6", "job-7"]

"""The engine's end of a client's connection: what comes is sorted, and answered."""

from __future__ import annotations

import collections

from orbtrio.conformance.client_players import SuiteEngine, result_for
from orbtrio.conformance.client_stage import ClientStage
from orbtrio.conformance.notation import encode
from orbtrio.conformance.peer import Message, WireLog
from orbtrio.conformance.shapes import check_output
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.zoo.client import ModelClient
from orbtrio.conformance.zoo.engine import DOCUMENTED_TYPES
from tests.conformance.pipes import MemoryPipe


def stage_around(client: ModelClient) -> ClientStage:
    return ClientStage(SimulatedWorld(client), Conditions(), collections.Counter())


def engine_that_got(*values: object, announces: frozenset[str] = frozenset()) -> SuiteEngine:
    engine = SuiteEngine(MemoryPipe(), WireLog(lambda: 1.0), "engine#1", announces=announces)
    for value in values:
        engine.received(Message(0.0, value, encode(value)))
    return engine


def test_results_are_as_the_spec_prints_them() -> None:
    job = stage_around(ModelClient()).client().open_jobs[0]
    for worker_type in DOCUMENTED_TYPES[:8]:
        job.fields.update(worker_type=worker_type, input={"cross_job_id": "camera 1"})
        result = result_for(job)
        assert check_output(worker_type, {"id": "1", **result}) == []
        assert result.get("cross_job_id", "camera 1") == "camera 1"
    job.fields.update(worker_type=["no type"])
    assert result_for(job) == {"result": "done"}


def test_what_is_given_up_is_sorted_where_that_was_announced() -> None:
    message = {"type": "cancel_request", "job_ids": ["a", "b"]}
    engine = engine_that_got(message, {**message, "job_ids": "c"}, announces=frozenset({"cancel"}))
    assert (engine.cancelled, engine.stray) == (["a", "b", "c"], [])
    stock = engine_that_got(message)
    assert (stock.cancelled, len(stock.stray)) == ([], 1)


def test_what_a_client_asks_for_is_in_its_introduction() -> None:
    assert engine_that_got().asked == frozenset()
    assert engine_that_got({"type": "i_am_server", "extensions": "cancel"}).asked == frozenset()
    assert engine_that_got({"type": "i_am_server", "extensions": ["cancel", 7]}).asked == {"cancel"}


def test_jobs_can_be_answered_together() -> None:
    stage = stage_around(ModelClient())
    engine = stage.client(4)
    jobs = list(engine.open_jobs)
    engine.answer_together(jobs[:2])
    assert engine.answered == jobs[:2]
    assert engine.open_jobs[:2] == jobs[2:4]
    assert stage.log.events()[-1].text.count("job-") >= 1

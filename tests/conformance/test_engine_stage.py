"""Workers, clients and barriers around an engine; here the zoo's model, in virtual time."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import attrs
import pytest

from orbtrio.conformance.model import Skipped, Violation
from orbtrio.conformance.peer import Message
from orbtrio.conformance.selftest import zoo_engine

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.targets import SimulatedEngine


@pytest.fixture
def target(tmp_path: Path) -> SimulatedEngine:
    return zoo_engine((), tmp_path)


@pytest.fixture
def stage(target: SimulatedEngine) -> EngineStage:
    return target.stage(collections.Counter())


def test_a_job_goes_to_its_worker_and_its_answer_back(stage: EngineStage) -> None:
    worker = stage.worker(size=1)
    client = stage.client()
    job = client.submit({"n": 7}, extra={"priority": 3})
    stage.expect(lambda: bool(job.deliveries), "the job is delivered")
    assert job.deliveries[0].worker is worker
    assert job.deliveries[0].input["n"] == 7
    assert job.deliveries[0].entry["priority"] == 3
    worker.answer(job.deliveries[0], result="done")
    stage.expect(lambda: bool(job.responses), "the job is answered")
    assert job.responses[0].output["result"] == "done"


def test_a_barrier_is_not_in_the_log(stage: EngineStage) -> None:
    assert stage.barrier() >= 0
    stage.quiet()
    assert stage.log.events() == ()


def test_the_canary_says_what_became_of_it(stage: EngineStage) -> None:
    # An engine that lets nobody in.
    stage.conditions = attrs.evolve(stage.conditions, secret="wrong")
    with pytest.raises(Violation, match=r"the canary.*closed with 1008"):
        stage.barrier()
    assert any("i_am_worker" in event.text for event in stage.log.events())


def test_who_is_not_accepted_is_no_worker(stage: EngineStage) -> None:
    with pytest.raises(Violation, match="worker#1 is accepted"):
        stage.worker("no_such_type_of_worker")


def test_a_handshake_that_is_refused_says_how(stage: EngineStage) -> None:
    with pytest.raises(Violation, match="HTTP 404"):
        stage.peer(path="/elsewhere")


def test_never_fails_when_it_happens_all_the_same(stage: EngineStage) -> None:
    worker = stage.worker(size=1)
    job = stage.client().submit()
    with pytest.raises(Violation, match="got it"):
        stage.never(lambda: bool(worker.batches), "no batch", lambda: f"{worker.name} got it")
    assert job.deliveries
    stage.never(lambda: False, "nothing", "something")


def test_expect_gives_up_after_its_time_and_the_slack(stage: EngineStage) -> None:
    with pytest.raises(Violation, match="seen: nothing"):
        stage.expect(lambda: False, "a miracle", within=2)
    assert stage.now() == pytest.approx(2 + stage.slack)


def test_other_types_are_neither_the_main_one_nor_the_canarys(stage: EngineStage) -> None:
    types = stage.conditions.types
    others = {stage.other_type(number) for number in range(1, 20)}
    assert others == set(types[1:-1])


def test_job_ids_are_told_apart_by_their_cbor_type(stage: EngineStage) -> None:
    stage.worker(size=1).auto = None
    worker = stage.worker(size=1)
    worker.answer_all()
    client = stage.client()
    jobs = [client.submit(job_id=job_id) for job_id in (1, 1.0, "1")]
    stage.peers[0].drop()
    stage.expect(lambda: all(job.responses for job in jobs), "all are answered")
    assert [len(job.responses) for job in jobs] == [1, 1, 1]


def test_what_is_left_is_answered_before_the_next_plan(target: SimulatedEngine) -> None:
    world = target._make_world()
    target._make_world = lambda: world
    first = target.stage(collections.Counter())
    first._nonce = "first"
    client = first.client()
    client.submit()
    held = first.worker(size=1)
    held.pipe.paused = True
    client.submit()
    first.strike()
    second = target.stage(collections.Counter())
    worker = second.worker(size=1)
    second.quiet()
    assert worker.batches == []


def test_leftovers_are_answered_and_forgotten(stage: EngineStage) -> None:
    client = stage.client()
    foreign = {"job_id": "old", "worker_type": stage.main_type, "input": {"conformance": "earlier:1"}}
    client.send({"type": "worker_request", "jobs": [foreign, {**foreign, "job_id": "older", "input": {}}]})
    worker = stage.worker(size=1)
    stage.quiet()
    assert worker.batches == []
    assert len(client.responses) == 2


def test_messages_that_are_neither_batches_nor_responses_are_kept_apart(stage: EngineStage) -> None:
    worker, client = stage.worker(size=1), stage.client()
    for peer in (worker, client):
        peer.received(Message(0.0, {"type": "surprise"}, b""))
    assert worker.stray[0].value == client.stray[0].value == {"type": "surprise"}


def test_a_case_about_what_is_not_announced_is_skipped(stage: EngineStage) -> None:
    stage.need_extensions("progress", "cancel")
    with pytest.raises(Skipped, match="does not announce teleport in the header Orb-Extensions"):
        stage.need_extensions("progress", "teleport")

"""The model engine is right, rule by rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cbor2
import pytest

from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.zoo.speaking import SECRET, Speaker, answer, client, ids, inputs, request, worker

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> SimulatedWorld:
    return SimulatedWorld(ModelEngine(tmp_path, secret=SECRET))


def test_a_job_goes_to_a_worker_and_its_answer_to_the_client(world: SimulatedWorld) -> None:
    one, asker = worker(world), client(world)
    asker.say(request("j1"))
    (job_id,) = ids(one)
    assert one.messages == [{"inputs": [{"id": job_id, "input": {"n": "j1"}}]}]
    answer(one, job_id, response="r")
    assert asker.messages == [
        {"type": "worker_response", "output": {"id": job_id, "response": "r"}, "job_id": "j1"}
    ]


def test_a_request_as_first_message_makes_a_client(world: SimulatedWorld) -> None:
    one, asker = worker(world), Speaker(world)
    asker.say(request("j1"))
    answer(one, *ids(one))
    assert [message["job_id"] for message in asker.messages] == ["j1"]


@pytest.mark.parametrize(
    "config",
    [
        {"worker_type": "unheard_of"},
        {"worker_type": ""},
        {"worker_type": 7},
        *({"max_batch_size": value} for value in (0, -1, 1.5, float("nan"), float("inf"), "many", True)),
        *({"max_latency_ms": value} for value in (0, -5, 300_001, "soon")),
    ],
    ids=str,
)
def test_an_invalid_configuration_closes_1008(world: SimulatedWorld, config: dict[str, Any]) -> None:
    closed = worker(world, **config).closed
    assert closed
    assert closed[0] == 1008


@pytest.mark.parametrize("secret", ["wrong", "", None, 7, "ä", "x" * 1000], ids=repr)
def test_a_wrong_secret_closes_1008_and_is_not_echoed(world: SimulatedWorld, secret: Any) -> None:
    assert worker(world, secret=secret).closed == (1008, "worker_secret is not right")


@pytest.mark.parametrize(
    "message",
    [
        {"type": "worker_output", "output": []},
        {"type": "hello"},
        {},
        {"type": "i_am_worker", "worker_secret": SECRET},
        {"type": "worker_request", "jobs": None},
    ],
    ids=str,
)
def test_a_first_message_that_is_no_registration_closes_1008(world: SimulatedWorld, message: Any) -> None:
    speaker = Speaker(world)
    speaker.say(message)
    assert speaker.closed
    assert speaker.closed[0] == 1008


def test_absent_values_are_defaults(world: SimulatedWorld) -> None:
    one = worker(world, max_batch_size=None, max_latency_ms=None)
    asker = client(world)
    asker.say(request(*range(33)))
    assert inputs(one) == [list(range(32))]
    world.wait(29.9)
    assert len(one.messages) == 1
    world.wait(0.2)
    assert inputs(one)[1] == [32]


def test_the_second_registration_closes(world: SimulatedWorld) -> None:
    one, asker = worker(world), client(world)
    for speaker in (one, asker):
        speaker.say({"type": "i_am_server"})
        assert speaker.closed == (1008, "registered twice")


def test_a_message_of_the_other_role_closes(world: SimulatedWorld) -> None:
    one, asker = worker(world), client(world)
    one.say(request("j"))
    asker.say({"type": "worker_output", "output": []})
    assert one.closed == asker.closed == (1008, "not a message of this role")


def test_unknown_messages_are_ignored(world: SimulatedWorld) -> None:
    one = worker(world)
    one.say({"type": "from_the_future"})
    one.say({"no": "type"})
    assert not one.gone


def test_extra_fields_pass_and_never_shadow(world: SimulatedWorld) -> None:
    one, asker = worker(world), client(world)
    job = {"job_id": 1, "worker_type": "llm", "input": {"id": 5}, "id": "mine", "extra": b"x"}
    asker.say({"type": "worker_request", "jobs": [job, {"job_id": 2, "worker_type": "llm"}]})
    first, second = (batch["inputs"][0] for batch in one.messages)
    assert first == {"id": first["id"], "input": {"id": 5}, "extra": b"x"}
    assert first["id"] != "mine"
    assert second["input"] == {}


def test_invalid_jobs_are_skipped_and_the_others_run(world: SimulatedWorld) -> None:
    one, asker, stock = worker(world), client(world, "engine_errors"), client(world)
    bad: list[Any] = [
        7,
        {"worker_type": "llm"},
        {"job_id": "no type"},
        {"job_id": "input", "worker_type": "llm", "input": 7},
        {"job_id": "good", "worker_type": "llm", "input": {"n": "again"}},
        {"job_id": "foreign", "worker_type": "unheard_of"},
    ]
    message = request("good") | {"jobs": request("good")["jobs"] + bad}
    for speaker in (asker, stock):
        speaker.say(message)
    assert inputs(one) == [["good"], ["good"]]
    assert stock.messages == []
    assert [(m["job_id"], m["output"]["error_kind"]) for m in asker.messages] == [
        ("no type", "invalid_job"),
        ("input", "invalid_job"),
        ("good", "invalid_job"),
        ("foreign", "unknown_worker_type"),
    ]


def test_a_new_worker_gets_what_waits_for_its_type(world: SimulatedWorld) -> None:
    asker = client(world)
    asker.say(request(1))
    asker.say(request(2, worker_type="vlm"))
    assert inputs(worker(world, "vlm")) == [[2]]


def test_thousands_of_jobs_in_one_request_do_not_fill_a_queue_that_is_emptied(world: SimulatedWorld) -> None:
    one, asker = worker(world, max_batch_size=100), client(world, "engine_errors")
    asker.say(request(*range(2500)))
    assert [len(batch) for batch in inputs(one)] == [100] * 25
    assert asker.messages == []


def test_undefined_is_absent(world: SimulatedWorld) -> None:
    one, asker = worker(world, max_batch_size=cbor2.undefined), client(world)
    asker.say(request("a", resources=cbor2.undefined))
    world.wait(1)
    assert inputs(one) == [["a"]]


def test_whole_floats_are_numbers_and_types_are_patterns(tmp_path: Path) -> None:
    world = SimulatedWorld(ModelEngine(tmp_path, secret=SECRET, worker_types=["my_*"]))
    one, asker = worker(world, "my_type", max_batch_size=2.0), client(world)
    asker.say(request("a", "b", worker_type="my_type"))
    assert inputs(one) == [["a", "b"]]
    assert worker(world, "llm").gone


def test_stop_fails_what_is_open_says_good_bye_and_leaves_no_file(tmp_path: Path) -> None:
    engine = ModelEngine(tmp_path, secret=SECRET)
    world = SimulatedWorld(engine)
    pipe, one, asker = world.connect(), worker(world), client(world, "engine_errors")
    resource = {"id": "r", "type": "document", "data": "x"}
    job = {"job_id": 1, "worker_type": "llm", "input": {"f": {"__type": "resource-ref", "id": "r"}}}
    asker.say({"type": "worker_request", "resources": [resource], "jobs": [job]})
    assert any(path.is_file() for path in tmp_path.rglob("*"))
    engine.stop()
    world.wait(0)
    assert asker.messages[0]["output"]["error_kind"] == "engine_stopped"
    assert one.closed == asker.closed == (1001, "engine stopped")
    assert pipe.ended == one.pipe.ended == "FIN"
    assert not any(path.is_file() for path in tmp_path.rglob("*"))

"""The model engine is right, rule by rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


# --- batches ---


def test_a_partial_batch_leaves_at_the_age_of_its_oldest_job(world: SimulatedWorld) -> None:
    one, asker = worker(world, max_batch_size=10, max_latency_ms=1000), client(world)
    for number in range(4):
        asker.say(request(number))
        world.wait(0.3)
    assert inputs(one) == [[0, 1, 2, 3]]
    assert world.now() == pytest.approx(1.2)
    world.wait(5)
    assert len(one.messages) == 1


def test_a_full_batch_leaves_at_once_and_leftovers_keep_their_timer(world: SimulatedWorld) -> None:
    one, asker = worker(world, max_batch_size=3, max_latency_ms=1000), client(world)
    asker.say(request(1, 2))
    world.wait(0.5)
    asker.say(request(3, 4))
    assert inputs(one) == [[1, 2, 3]]
    world.wait(0.9)
    assert len(one.messages) == 1
    world.wait(0.1)
    assert inputs(one)[1] == [4]


def test_extra_fields_pass_and_never_shadow(world: SimulatedWorld) -> None:
    one, asker = worker(world), client(world)
    job = {"job_id": 1, "worker_type": "llm", "input": {"id": 5}, "id": "mine", "extra": b"x"}
    asker.say({"type": "worker_request", "jobs": [job, {"job_id": 2, "worker_type": "llm"}]})
    first, second = (batch["inputs"][0] for batch in one.messages)
    assert first == {"id": first["id"], "input": {"id": 5}, "extra": b"x"}
    assert first["id"] != "mine"
    assert second["input"] == {}


def test_batches_are_cut_at_900_kib(world: SimulatedWorld) -> None:
    one, asker = worker(world, max_batch_size=3), client(world, "engine_errors")
    for name, size in (("a", 500_000), ("b", 500_000), ("c", 1_000_000), ("d", 1)):
        job = {"job_id": name, "worker_type": "llm", "input": {"n": name, "data": bytes(size)}}
        asker.say({"type": "worker_request", "jobs": [job]})
    world.wait(1)
    assert inputs(one) == [["a"], ["b"], ["d"]]
    assert [(m["job_id"], m["output"]["error_kind"]) for m in asker.messages] == [("c", "invalid_job")]


def test_the_1001st_job_is_refused_and_the_oldest_stays(world: SimulatedWorld) -> None:
    asker = client(world, "engine_errors")
    asker.say(request(*range(1001)))
    assert [(m["job_id"], m["output"]["error_kind"]) for m in asker.messages] == [(1000, "queue_full")]
    one = worker(world, max_batch_size=5000)
    assert inputs(one) == [list(range(1000))]


def test_unanswered_batches_are_limited_if_asked(world: SimulatedWorld) -> None:
    one, asker = worker(world, max_unanswered_batches=1), client(world)
    asker.say(request(1, 2))
    world.wait(1)
    assert inputs(one) == [[1]]
    answer(one, *ids(one))
    assert inputs(one) == [[1], [2]]


def test_eager_workers_do_not_wait(world: SimulatedWorld) -> None:
    one, asker = worker(world, max_batch_size=9, max_latency_ms=1000, eager=True), client(world)
    asker.say(request(1, 2))
    asker.say(request(3))
    assert inputs(one) == [[1, 2]]
    answer(one, *ids(one))
    assert inputs(one) == [[1, 2], [3]]


# --- which worker ---


def test_the_least_loaded_is_next_and_equals_take_turns(world: SimulatedWorld) -> None:
    workers, asker = [worker(world) for _ in range(3)], client(world)
    asker.say(request(1, 2, 3))
    assert [inputs(each) for each in workers] == [[[1]], [[2]], [[3]]]
    answer(workers[1], *ids(workers[1]))
    asker.say(request(4))
    assert inputs(workers[1]) == [[2], [4]]


def test_one_key_one_worker(world: SimulatedWorld) -> None:
    workers, asker = [worker(world, "motion_energy") for _ in range(2)], client(world)
    jobs = [
        {"job_id": n, "worker_type": "motion_energy", "input": {"media_id": f"m{n % 2}", "n": n}}
        for n in range(6)
    ]
    asker.say({"type": "worker_request", "jobs": jobs})
    assert [inputs(each) for each in workers] == [[[0], [2], [4]], [[1], [3], [5]]]
    workers[0].pipe.reset()
    assert inputs(workers[1])[3:] == [[0], [2], [4]]


def test_jobs_wait_for_a_worker_of_their_type(world: SimulatedWorld) -> None:
    asker, other = client(world), worker(world, "vlm")
    asker.say(request(1, 2))
    world.wait(100)
    assert inputs(worker(world)) == [[1], [2]]
    assert other.messages == []


# --- answers ---


def test_only_the_owners_first_answer_counts(world: SimulatedWorld) -> None:
    one, two, asker = worker(world), worker(world), client(world)
    asker.say(request("a"))
    (job_id,) = ids(one)
    answer(two, job_id, by="two")
    answer(two, "nonsense", by="two")
    one.say({"type": "worker_output", "output": [None, {}, {"id": 7}, {"id": job_id, "error": "e"}]})
    answer(one, job_id, by="late")
    assert [m["output"] for m in asker.messages] == [{"id": job_id, "error": "e"}]


def test_output_that_is_no_list_closes(world: SimulatedWorld) -> None:
    one = worker(world)
    one.say({"type": "worker_output", "output": {}})
    assert one.closed == (1008, "output is not valid")


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


@pytest.mark.parametrize("waits", [True, False])
def test_a_job_is_forgotten_after_300_s(world: SimulatedWorld, waits: bool) -> None:
    asker, stock = client(world, "engine_errors"), client(world)
    one = None if waits else worker(world, max_unanswered_batches=1)
    for speaker in (asker, stock):
        speaker.say(request("a"))
    world.wait(299.9)
    assert asker.messages == []
    world.wait(0.2)
    assert [m["output"]["error_kind"] for m in asker.messages] == ["timeout"]
    if one is not None:
        answer(one, *ids(one))
    world.wait(1)
    assert len(asker.messages) == 1
    assert stock.messages == []
    assert inputs(one or worker(world)) == ([] if waits else [["a"]])


# --- who goes ---


@pytest.mark.parametrize("how", ["FIN", "RST", "close"])
def test_queued_and_sent_jobs_move_to_the_front_of_another_worker(world: SimulatedWorld, how: str) -> None:
    one, asker = worker(world, max_batch_size=2, max_latency_ms=5000), client(world)
    asker.say(request(1, 2, 3))
    two = worker(world, max_batch_size=4, max_latency_ms=5000)
    asker.say(request(4))
    assert (inputs(one), inputs(two)) == ([[1, 2]], [])
    if how == "FIN":
        one.pipe.close()
    elif how == "RST":
        one.pipe.reset()
    else:
        one.say({"type": "i_am_server"})
    assert inputs(two) == [[1, 2, 3, 4]]
    answer(two, *ids(two))
    assert sorted(m["job_id"] for m in asker.messages) == [1, 2, 3, 4]


def test_three_deliveries_the_third_alone(world: SimulatedWorld) -> None:
    asker = client(world, "engine_errors")
    asker.say(request("a", "b"))
    seen = []
    for _ in range(3):
        one = worker(world, max_batch_size=5)
        world.wait(1)
        seen.append(inputs(one))
        one.pipe.reset()
    assert seen == [[["a", "b"]], [["a", "b"]], [["a"], ["b"]]]
    assert [(m["job_id"], m["output"]["error_kind"]) for m in asker.messages] == [
        ("a", "worker_lost"),
        ("b", "worker_lost"),
    ]


def test_a_lost_client_takes_its_queued_jobs_with_it(world: SimulatedWorld) -> None:
    one, asker = worker(world, max_unanswered_batches=1), client(world)
    asker.say(request(1, 2))
    asker.pipe.reset()
    answer(one, *ids(one))
    world.wait(1)
    assert inputs(one) == [[1]]
    one.pipe.reset()
    assert inputs(worker(world)) == []


def test_a_running_job_of_a_lost_client_is_not_sent_again(world: SimulatedWorld) -> None:
    one, asker = worker(world), client(world)
    asker.say(request(1))
    asker.pipe.reset()
    two = worker(world)
    one.pipe.reset()
    world.wait(1)
    assert inputs(two) == []

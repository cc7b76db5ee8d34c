"""Which job goes where, when, and what ends it: the model's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.zoo.speaking import SECRET, answer, client, ids, inputs, request, worker

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> SimulatedWorld:
    return SimulatedWorld(ModelEngine(tmp_path, secret=SECRET))


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

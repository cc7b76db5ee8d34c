"""The model engine keeps the rules of the extensions, for those who asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cbor2
import pytest
from wsproto.events import AcceptConnection

from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.extensions import EXTENSIONS
from tests.conformance.zoo.speaking import SECRET, Speaker, answer, client, ids, inputs, request, worker

if TYPE_CHECKING:
    from pathlib import Path

    from wsproto.events import Event


@pytest.fixture
def world(tmp_path: Path) -> SimulatedWorld:
    return SimulatedWorld(ModelEngine(tmp_path, secret=SECRET))


def asking(world: SimulatedWorld, *names: str, **config: Any) -> Speaker:
    return worker(world, extensions=list(names), **config)


def report(speaker: Speaker, *job_ids: Any, **fields: Any) -> None:
    entries = [{"id": job_id, **fields} for job_id in job_ids]
    speaker.say({"type": "worker_progress", "progress": entries})


def timed(job_id: Any, **times: Any) -> dict[str, Any]:
    return {
        "type": "worker_request",
        "jobs": [{"job_id": job_id, "worker_type": "llm", "input": {"n": job_id}, **times}],
    }


def kinds(speaker: Speaker) -> list[Any]:
    return [message["output"].get("error_kind") for message in speaker.messages]


def test_it_announces_all_of_them(world: SimulatedWorld) -> None:
    seen: list[Any] = []

    class Listener(Speaker):
        def on_event(self, event: Event) -> None:
            if isinstance(event, AcceptConnection):
                seen.extend(event.extra_headers)
            super().on_event(event)

    Listener(world)
    [(name, value)] = seen
    assert bytes(name) == b"orb-extensions"
    assert set(bytes(value).decode().split(", ")) == EXTENSIONS


def test_an_engine_may_announce_nothing(tmp_path: Path) -> None:
    class Stock(ModelEngine):
        def announced(self) -> list[str]:
            return []

    assert Stock(tmp_path).headers() == []


@pytest.mark.parametrize("names", [None, "cancel", 7, {"cancel": 1}], ids=repr)
def test_what_is_no_list_asks_for_nothing(names: Any, tmp_path: Path) -> None:
    assert ModelEngine(tmp_path).asked_in(names) == frozenset()
    assert ModelEngine(tmp_path).asked_in(["cancel", 7, "teleport"]) == {"cancel"}


def test_progress_is_passed_on_without_the_engines_id(world: SimulatedWorld) -> None:
    one, asker = asking(world, "progress"), client(world, "progress")
    asker.say(request("j"))
    report(one, *ids(one), "nobody's", 7, text="a")
    assert asker.messages == [{"type": "worker_progress", "job_id": "j", "progress": {"text": "a"}}]
    one.say({"type": "worker_progress", "progress": "none"})
    assert one.closed == (1008, "output is not valid")


def test_a_second_attempt_says_so(world: SimulatedWorld) -> None:
    one, asker = asking(world, "progress"), client(world, "progress")
    asker.say(request("j"))
    one.pipe.reset()
    two = asking(world, "progress")
    report(two, *ids(two))
    assert asker.messages == [{"type": "worker_progress", "job_id": "j", "progress": {}, "attempt": 2}]


def test_who_did_not_ask_neither_hears_nor_is_heard(world: SimulatedWorld) -> None:
    one, asker, stock = asking(world, "progress"), client(world, "progress"), client(world)
    stock.say(request("s"))
    report(one, *ids(one))
    assert stock.messages == []
    answer(one, *ids(one))
    other = worker(world, "vlm")
    asker.say(request("j", worker_type="vlm"))
    report(other, *ids(other))
    stock.say({"type": "cancel_request", "job_ids": ["s"]})
    other.say({"type": "worker_drain"})
    assert asker.messages == []
    assert not other.gone
    # Nor is who says what is another role's.
    one.say({"type": "cancel_request", "job_ids": ["j"]})
    asker.say({"type": "worker_drain"})
    assert not one.gone
    assert not asker.gone


def test_a_job_without_heartbeat_is_ended_and_its_worker_told(world: SimulatedWorld) -> None:
    one, asker = asking(world, "progress", "cancel"), client(world, "progress", "engine_errors")
    asker.say(timed("j", heartbeat_ms=1000))
    [job_id] = ids(one)
    world.wait(0.9)
    report(one, job_id)
    world.wait(0.9)
    assert len(asker.messages) == 1
    world.wait(0.2)
    assert asker.messages[1]["output"]["error_kind"] == "heartbeat_timeout"
    assert one.messages[1] == {"type": "cancel_jobs", "ids": [job_id]}


def test_a_job_has_its_own_deadline_up_to_the_longest(world: SimulatedWorld) -> None:
    asker = client(world, "engine_errors")
    for number, timeout_ms in enumerate((1000, 1e9)):
        asker.say(timed(number, timeout_ms=timeout_ms))
    world.wait(1.1)
    assert kinds(asker) == ["timeout"]
    world.wait(299)
    assert kinds(asker) == ["timeout", "timeout"]


@pytest.mark.parametrize("value", [0, -1, True, "1", [1], float("nan")], ids=repr)
def test_times_that_are_none_are_refused_to_who_asked(world: SimulatedWorld, value: Any) -> None:
    asker = client(world, "engine_errors", "progress")
    asker.say(timed(1, timeout_ms=value))
    asker.say(timed(2, heartbeat_ms=value))
    assert kinds(asker) == ["invalid_job", "invalid_job"]
    stock, one = client(world), worker(world)
    stock.say(timed(3, timeout_ms=value, heartbeat_ms=value))
    assert len(ids(one)) == 1


def test_cancelled_jobs_end_wherever_they_are(world: SimulatedWorld) -> None:
    asker = client(world, "cancel", "engine_errors")
    asker.say(request("queued", worker_type="vlm"))
    one = asking(world, "cancel")
    asker.say(request("held"))
    [held] = ids(one)
    asker.say({"type": "cancel_request", "job_ids": ["queued", "held", "unknown", None]})
    assert kinds(asker) == ["cancelled", "cancelled"]
    assert one.messages[1:] == [{"type": "cancel_jobs", "ids": [held]}]
    assert ids(worker(world, "vlm")) == []
    asker.say({"type": "cancel_request", "job_ids": "held"})
    assert asker.closed == (1008, "request is not valid")


def test_a_cancelled_job_keeps_its_place_until_it_is_answered(world: SimulatedWorld) -> None:
    one, asker = asking(world, "cancel", max_unanswered_batches=1), client(world, "cancel")
    asker.say(request(1, 2, 3))
    [first] = ids(one)
    asker.say({"type": "cancel_request", "job_ids": [1]})
    assert inputs_of(one) == [1]
    answer(one, first, error="cancelled")
    assert inputs_of(one) == [1, 2]
    asker.say({"type": "cancel_request", "job_ids": [2]})
    # Who never answers is given the time of a job.
    world.wait(299.0)
    assert inputs_of(one) == [1, 2]
    asker.say(request(4))
    world.wait(2.0)
    assert inputs_of(one)[:2] == [1, 2]
    assert 4 in inputs_of(one)


def inputs_of(speaker: Speaker) -> list[Any]:
    return [
        job["input"]["n"] for message in speaker.messages if "inputs" in message for job in message["inputs"]
    ]


def test_the_worker_of_a_lost_client_is_told(world: SimulatedWorld) -> None:
    one, asker = asking(world, "cancel"), client(world)
    asker.say(request(1))
    asker.pipe.reset()
    assert [message.get("type") for message in one.messages] == [None, "cancel_jobs"]


def test_a_drained_worker_gives_back_and_finishes(world: SimulatedWorld) -> None:
    one, asker = asking(world, "drain", max_unanswered_batches=1), client(world)
    asker.say(request(1, 2))
    two = asking(world)
    one.say({"type": "worker_drain"})
    assert inputs(two) == [[2]]
    assert not one.gone
    asker.say(request(3, 4))
    assert inputs(one) == [[1]]
    answer(one, *ids(one))
    assert one.closed == (1000, "drained")
    assert [message["job_id"] for message in asker.messages] == [1]


def test_an_idle_worker_is_drained_at_once(world: SimulatedWorld) -> None:
    one = asking(world, "drain")
    one.say({"type": "worker_drain"})
    assert one.closed == (1000, "drained")


def test_files_travel_with_the_batch_and_count(world: SimulatedWorld) -> None:
    one = asking(world, "inline_resources", max_batch_size=9, max_message_bytes=1000)
    asker = client(world, "engine_errors")
    jobs = [
        {"job_id": n, "worker_type": "llm", "input": {"n": n, "file": {"__type": "resource-ref", "id": name}}}
        for n, name in enumerate(("a", "a", "b", "big"))
    ]
    resources = [
        {"id": name, "type": "image", "data": name.encode() * size} for name, size in (("a", 300), ("b", 301))
    ]
    resources.append({"id": "big", "type": "image", "data": bytes(1000)})
    asker.say({"type": "worker_request", "jobs": jobs, "resources": resources})
    world.wait(1.0)
    assert inputs(one) == [[0, 1], [2]]
    brought = [[entry["data"] for entry in message["resources"]] for message in one.messages]
    assert brought == [[b"a" * 300], [b"b" * 301]]
    assert one.messages[0]["resources"][0]["path"] == one.messages[0]["inputs"][1]["input"]["file"]
    assert kinds(asker) == ["invalid_job"]


def test_answers_travel_together_to_who_asked(world: SimulatedWorld) -> None:
    one = asking(world, max_batch_size=4)
    asker, stock = client(world, "batched_responses"), client(world)
    asker.say(request(1, 2))
    stock.say(request(3, 4))
    answer(one, *ids(one))
    assert [message["type"] for message in asker.messages] == ["worker_responses"]
    assert [response["job_id"] for response in asker.messages[0]["responses"]] == [1, 2]
    assert [message["type"] for message in stock.messages] == ["worker_response"] * 2
    asker.say(request(5))
    world.wait(1.0)
    answer(one, ids(one)[-1])
    assert asker.messages[-1]["type"] == "worker_response"


# --- typed arrays -------------------------------------------------------------------------------------------


def test_typed_arrays_are_for_who_asked_and_broken_ones_for_nobody(world: SimulatedWorld) -> None:
    here = asking(world, "typed_arrays", max_batch_size=3)
    asker, stock = client(world, "typed_arrays"), client(world)
    vector = cbor2.CBORTag(81, b"?\x80\0\0")
    broken = cbor2.CBORTag(81, b"?")
    asker.say(request("a", "b"))
    stock.say(request("c"))
    one, two, three = ids(here)
    bad = {"id": two, "rows": [cbor2.CBORTag(1000, broken)]}
    entries = [{"id": job_id, "rows": [cbor2.CBORTag(1000, vector), {"x": 1}]} for job_id in (one, three)]
    here.say({"type": "worker_output", "output": [bad, *entries]})
    [typed], [lists] = asker.messages, stock.messages
    assert typed["output"]["rows"][0].value == vector
    assert list(lists["output"]["rows"][0].value) == [1.0]

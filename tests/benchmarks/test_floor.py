from __future__ import annotations

from typing import Any
from unittest.mock import patch

import attrs
import cbor2
import pytest

from benchmarks.cases import Case, job_name
from benchmarks.floor import Codec, Floor
from benchmarks.work import Echo, Image, Vector

CASES = [
    Case(name="plain", jobs=96, jobs_per_request=8, outstanding=8),
    Case(name="req1", jobs=100, clients=1, outstanding=10, max_batch_size=7),
    Case(name="floats", jobs=64, jobs_per_request=32, work=Vector()),
    Case(name="images", jobs=16, outstanding=2, work=Image(1000)),
    Case(name="held", jobs=192, jobs_per_request=8, outstanding=16, held=64),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_floor_encodes_the_right_answer_of_every_job(case: Case) -> None:
    responses: list[bytes] = []
    assert Codec(case, case.jobs).run(responses) == case.jobs
    for number, response in enumerate(map(cbor2.loads, responses)):
        output = response["output"]
        del output["id"]
        assert response == {
            "type": "worker_response",
            "job_id": job_name(number),
            "output": case.work.expected(number),
        }
    assert len(responses) == case.jobs


def test_answers_that_come_together_are_one_message() -> None:
    case = Case(name="any", jobs=64, jobs_per_request=32, batched=True)
    responses: list[bytes] = []
    assert Codec(case, 64).run(responses) == 64
    assert [len(cbor2.loads(raw)["responses"]) for raw in responses] == [32, 32]


def test_reports_are_messages_of_their_own() -> None:
    case = Case(name="any", jobs=32, jobs_per_request=32, progress=2)
    responses: list[bytes] = []
    assert Codec(case, 32).run(responses) == 32
    kinds = [cbor2.loads(raw)["type"] for raw in responses]
    assert kinds == ["worker_progress"] * 64 + ["worker_response"] * 32


def test_each_message_is_decoded_or_encoded_once_and_nothing_else() -> None:
    codec = Codec(Case(name="any", jobs=64, jobs_per_request=8), 64)
    with (
        patch("benchmarks.floor.cbor2.loads", wraps=cbor2.loads) as loads,
        patch("benchmarks.floor.cbor2.dumps", wraps=cbor2.dumps) as dumps,
    ):
        codec.run()
    assert loads.call_count == 8 + 2  # requests and outputs
    assert dumps.call_count == 2 + 64  # batches and responses


def test_what_is_decoded_lives_as_long_as_the_clients_of_the_case_wait() -> None:
    # 24 jobs may be open: three batches of eight leave before the first is answered.
    case = Case(name="any", jobs=64, jobs_per_request=8, clients=1, outstanding=24, max_batch_size=8)
    codec = Codec(case, 64)
    calls: list[str] = []
    loads = cbor2.loads

    def decode(raw: bytes) -> Any:
        message = loads(raw)
        calls.append(message["type"])
        return message

    def encode(message: dict[str, Any]) -> bytes:
        calls.append(message.get("type", "batch"))
        return b""

    with patch("benchmarks.floor.cbor2.loads", decode), patch("benchmarks.floor.cbor2.dumps", encode):
        codec.run()
    assert calls[:6] == ["worker_request", "batch"] * 3
    assert calls[6:17] == ["worker_output", *["worker_response"] * 8, "worker_request", "batch"]


@pytest.mark.processes
def test_the_floor_is_measured_in_a_process_of_its_own() -> None:
    figures = []
    for size in (100, 100_000):
        case = Case(name="any", jobs=64, work=Echo(size))
        floor = Floor(case, case.jobs)
        try:
            figures.append(floor.measure())
        finally:
            floor.close()
    assert 0 < figures[0] < figures[1] < 0.1


@pytest.mark.processes
def test_a_floor_that_leaves_something_out_is_found() -> None:
    case = Case(name="any", jobs=64, jobs_per_request=8)
    floor = Floor(attrs.evolve(case, jobs=32), 32)
    floor._jobs = 64
    with pytest.raises(AssertionError, match="answered 32 of 64"):
        floor.measure()
    floor.close()

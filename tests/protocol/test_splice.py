"""Messages made of bytes: they are what the CBOR library would have written."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest

from orbtrio.protocol import splice

SIZES = [0, 1, 23, 24, 255, 256, 65_535, 65_536]


@pytest.mark.parametrize("count", SIZES)
def test_batches_and_requests_of_any_length(count: int) -> None:
    jobs = [b"\xa0"] * count
    assert b"".join(splice.batch_parts(jobs)) == cbor2.dumps({"inputs": [{}] * count})
    wire = {"type": "worker_request", "resources": [{}] * count, "jobs": [{}] * count}
    assert b"".join(splice.request_parts(jobs, jobs)) == cbor2.dumps(wire)


@pytest.mark.parametrize("size", SIZES)
def test_files_of_any_size(size: int) -> None:
    path, data = "é" * (size // 2), bytes(size)
    parts = [*splice.resource_parts(path, data), *splice.resource_parts("/b", b"x")]
    raw = b"".join(splice.batch_parts([b"\xa0"], parts, 2))
    files = [{"path": path, "data": data}, {"path": "/b", "data": b"x"}]
    assert raw == cbor2.dumps({"inputs": [{}], "resources": files})


def test_files_are_not_copied() -> None:
    data = bytes(1000)
    assert splice.resource_parts("/a", data)[1] is data


@pytest.mark.parametrize(("kind", "field"), [("worker_output", "output"), ("worker_progress", "progress")])
def test_entries(kind: str, field: str) -> None:
    raw = b"".join(splice.entries_parts(kind, field, [b"\xa1\x62id\x61a"] * 30))
    assert raw == cbor2.dumps({"type": kind, field: [{"id": "a"}] * 30})


@pytest.mark.parametrize("client_job_id", ["a", "é" * 300, 5, None, {"a": [1]}])
def test_answers_to_any_id(client_job_id: Any) -> None:
    head = splice.response_head(cbor2.dumps(client_job_id))
    response = {"type": "worker_response", "job_id": client_job_id, "output": {"x": 1}}
    assert head + b"\xa1\x61x\x01" == cbor2.dumps(response)
    for attempt in (1, 2, 300):
        raw = b"".join(splice.progress_parts(head, attempt, b"\xa1\x61x\x01"))
        again = {"attempt": attempt} if attempt > 1 else {}
        progress = {"type": "worker_progress", "job_id": client_job_id, **again, "progress": {"x": 1}}
        assert raw == cbor2.dumps(progress)
    raw = splice.responses_head(2) + (splice.response_member(head) + b"\xa0") * 2
    members = [{"job_id": client_job_id, "output": {}}] * 2
    assert raw == cbor2.dumps({"type": "worker_responses", "responses": members})


@pytest.mark.parametrize("count", [0, 22, 23, 24, 254, 255, 65_534, 65_535])
def test_numbers_are_added_as_if_they_had_been_encoded_with_the_rest(count: int) -> None:
    job = {str(number): 0 for number in range(count)}
    numbers = {"timeout_ms": 60_000, "heartbeat_ms": 5, "small": 200, "large": 1 << 31, "larger": 1 << 32}
    assert splice.with_numbers(cbor2.dumps(job), numbers) == cbor2.dumps({**job, **numbers})


@pytest.mark.parametrize("length", [0, 1, 23, 24, 255])
def test_an_id_that_comes_first_is_cut_off(length: int) -> None:
    entry = {"id": "a" * length, "text": "x", "job_id": "data"}
    assert splice.without_leading_id(cbor2.dumps(entry)) == cbor2.dumps({"text": "x", "job_id": "data"})
    assert splice.without_leading_id(cbor2.dumps({"id": "a" * length})) == b"\xa0"


@pytest.mark.parametrize(
    "entry",
    [
        b"\xa2\x61x\x00\x62id\x61a",
        b"\xb9\x00\x01\x62id\x61a",
        b"\xa1\x62id\x79\x00\x01a",
        b"\xa2\x62id\xf7\x66job_id\x61a",
        b"\xa2\x62id\x01\x66job_id\x61a",
        b"\xa1\x66job_id\x61a",
    ],
    ids=bytes.hex,
)
def test_other_entries_are_left_to_the_decoder(entry: bytes) -> None:
    assert splice.without_leading_id(entry) is None


@pytest.mark.parametrize("size", SIZES)
def test_ids_of_any_length(size: int) -> None:
    name = "é" * (size // 2) + "x" * (size % 2)
    job = splice.batch_job(name.encode(), b"\xa1\x61x\x05")
    assert job == cbor2.dumps({"id": name, "input": {"x": 5}})
    response = splice.response_head_of_text(name.encode()) + b"\xa0"
    assert response == cbor2.dumps({"type": "worker_response", "job_id": name, "output": {}})

"""The messages' own rules, on decoded maps; what has to do with bytes is in test_codec."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given, settings

from orbtrio.errors import InvalidMessage, ResourceRejected
from orbtrio.protocol.messages import (
    DEFAULT_MESSAGE_BYTES,
    EXTENSIONS,
    MAX_BATCH_SIZE,
    MAX_JOBS,
    MISSING,
    BatchJob,
    InvalidJob,
    JobBatch,
    JobRequest,
    RegisterClient,
    RegisterWorker,
    Resource,
    WorkerRequest,
    WorkerResponse,
)
from tests.strategies import batch_wire, register_client_wire, register_worker_wire, worker_request_wire

# --- Registration -----------------------------------------------------------------------------------------


def worker(**config: Any) -> RegisterWorker:
    wire = {"worker_secret": "s", "worker_config": {"worker_type": "embedding", **config}}
    return RegisterWorker.from_wire(wire)


def test_absent_and_null_mean_the_default() -> None:
    """P-11, B-47, B-48."""
    names = (
        "max_batch_size",
        "max_latency_ms",
        "eager",
        "max_unanswered_batches",
        "max_message_bytes",
        "extensions",
    )
    for registration in (worker(), worker(**dict.fromkeys(names))):
        assert registration.max_batch_size == 32
        assert registration.max_latency == 30.0
        assert registration.eager is False
        assert registration.max_unanswered_batches is None
        assert registration.max_message_bytes == DEFAULT_MESSAGE_BYTES
        assert registration.extensions == frozenset()


def test_whole_floats_are_numbers() -> None:
    """P-11, B-39: JavaScript sends them."""
    registration = worker(
        max_batch_size=16.0, max_latency_ms=5000.0, max_unanswered_batches=2.0, max_message_bytes=1e6
    )
    assert registration == worker(
        max_batch_size=16, max_latency_ms=5000, max_unanswered_batches=2, max_message_bytes=1_000_000
    )
    assert type(registration.max_batch_size) is int
    assert registration.max_latency == 5.0


@pytest.mark.parametrize("size", [1001, 2**64, 1e300])
def test_batch_sizes_are_clamped(size: float) -> None:
    assert worker(max_batch_size=size).max_batch_size == MAX_BATCH_SIZE


def test_extensions_that_nobody_knows_are_ignored() -> None:
    assert worker(extensions=["progress", "telepathy", "progress"]).extensions == {"progress"}
    assert RegisterClient.from_wire({"extensions": sorted(EXTENSIONS)}).extensions == EXTENSIONS


@pytest.mark.parametrize("secret", [None, 5, b"s", True, ["s"], cbor2.CBORTag(1, "s")])
def test_a_secret_that_is_no_text_is_a_wrong_secret(secret: Any) -> None:
    """B-43: it must be refused in the same words as any other."""
    wire = {"worker_secret": secret, "worker_config": {"worker_type": "llm"}}
    assert RegisterWorker.from_wire(wire).worker_secret == ""
    del wire["worker_secret"]
    assert RegisterWorker.from_wire(wire).worker_secret == ""


def test_secrets_and_tokens_stay_out_of_logs() -> None:
    assert "hush" not in repr(RegisterWorker(worker_type="t", worker_secret="hush"))
    assert "hush" not in repr(RegisterClient(token="hush"))


@pytest.mark.parametrize(
    "fields",
    [
        {"worker_type": ""},
        {"worker_type": 5},
        {"worker_secret": None},
        {"max_batch_size": 0},
        {"max_batch_size": True},
        {"max_latency": 0.0},
        {"max_latency": float("nan")},
        {"max_latency": float("inf")},
        {"max_latency": True},
        {"eager": 1},
        {"max_unanswered_batches": 0},
        {"max_message_bytes": 0.5},
        {"extensions": "progress"},
        {"extensions": {"progress"}},
    ],
)
def test_nobody_can_build_an_invalid_registration(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage, match=next(iter(fields))):
        RegisterWorker(**{"worker_type": "t", "worker_secret": "s", **fields})


@pytest.mark.parametrize("version", ["1.0.1", "9", None, 1.0, [], cbor2.CBORTag(1, "x")])
def test_any_version_is_welcome(version: Any) -> None:
    client = RegisterClient.from_wire({"type": "i_am_server", "version": version})
    assert client.version == (version if type(version) is str else None)


@given(register_worker_wire())
@settings(max_examples=50)
def test_a_worker_registers_with_whatever_the_rules_allow(wire: dict[str, Any]) -> None:
    registration = RegisterWorker.from_wire(wire)
    assert registration.worker_secret == wire["worker_secret"]
    assert registration.worker_type == wire["worker_config"]["worker_type"]
    assert 1 <= registration.max_batch_size <= MAX_BATCH_SIZE


@given(register_client_wire())
@settings(max_examples=50)
def test_a_client_registers_with_whatever_the_rules_allow(wire: dict[str, Any]) -> None:
    assert RegisterClient.from_wire(wire).token == wire.get("token")


# --- Requests ---------------------------------------------------------------------------------------------


def request(*jobs: Any, **fields: Any) -> WorkerRequest:
    return WorkerRequest.from_wire({"type": "worker_request", "jobs": list(jobs), **fields})


def as_tuple(job: JobRequest) -> tuple[Any, ...]:
    return job.client_job_id, job.worker_type, job.input, job.extra, job.references


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        ({"job_id": "a", "worker_type": "t", "input": {"x": 1}}, ("a", "t", {"x": 1}, None, ())),
        ({"job_id": "a", "worker_type": "t"}, ("a", "t", {}, None, ())),
        ({"job_id": 5, "worker_type": "t", "input": {}}, (5, "t", {}, None, ())),
        ({"job_id": None, "worker_type": "t", "input": {}}, (None, "t", {}, None, ())),
        ({"job_id": [1], "worker_type": "t", "input": {}}, ([1], "t", {}, None, ())),
        (
            {"job_id": "a", "worker_type": "t", "input": {"id": 1, "input": 2}, "timeout_ms": 5},
            ("a", "t", {"id": 1, "input": 2}, {"timeout_ms": 5}, ()),
        ),
        # A client cannot choose the engine's id.
        ({"job_id": "a", "worker_type": "t", "input": {}, "id": "x"}, ("a", "t", {}, None, ())),
    ],
)
def test_valid_jobs(wire: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """B-53, B-55, P-03."""
    read = request(wire)
    assert [as_tuple(job) for job in read.jobs] == [expected]
    assert read.invalid == []


@pytest.mark.parametrize(
    ("wire", "client_job_id", "reason"),
    [
        (None, MISSING, "expected a map with a job_id"),
        (cbor2.CBORTag(1, {}), MISSING, "expected a map with a job_id"),
        ({"worker_type": "t", "input": {}}, MISSING, "expected a map with a job_id"),
        ({"job_id": "a", "input": {}}, "a", "worker_type: expected 1 to 128 characters"),
        ({"job_id": "a", "worker_type": 5, "input": {}}, "a", "worker_type: expected 1 to 128 characters"),
        ({"job_id": "a", "worker_type": "", "input": {}}, "a", "worker_type: expected 1 to 128 characters"),
        ({"job_id": 5, "worker_type": "x" * 129}, 5, "worker_type: expected 1 to 128 characters"),
        ({"job_id": "a", "worker_type": "t", "input": None}, "a", "input: expected a map"),
        ({"job_id": "a", "worker_type": "t", "input": [1]}, "a", "input: expected a map"),
    ],
)
def test_an_invalid_job_is_skipped_and_its_neighbours_run(wire: Any, client_job_id: Any, reason: str) -> None:
    """P-30, B-52, B-54, B-55."""
    good = {"job_id": "good", "worker_type": "t", "input": {}}
    read = request(good, wire, good)
    assert [job.client_job_id for job in read.jobs] == ["good", "good"]
    assert read.invalid == [InvalidJob(client_job_id, reason)]


def test_ten_thousand_jobs_and_no_more() -> None:
    """B-52."""
    assert len(request(*[None] * MAX_JOBS).invalid) == MAX_JOBS
    with pytest.raises(InvalidMessage, match="jobs: expected a list of at most 10000"):
        request(*[None] * (MAX_JOBS + 1))


IMAGE = {"id": "i", "type": "image", "data": b"x"}
WITH_REFERENCE = {"job_id": "a", "worker_type": "t", "input": {"x": {"__type": "resource-ref", "id": "i"}}}


def test_jobs_know_what_they_refer_to() -> None:
    read = request(WITH_REFERENCE, {"job_id": "b", "worker_type": "t", "input": {}}, resources=[IMAGE])
    assert [job.references for job in read.jobs] == [("i",), ()]
    assert read.resources == (Resource("i", "image", b"x"),)


@pytest.mark.parametrize("fields", [{}, {"resources": None}, {"resources": []}])
def test_a_missing_resource_costs_the_request(fields: dict[str, Any]) -> None:
    """P-41, B-58: with or without a list of resources."""
    with pytest.raises(ResourceRejected):
        request(WITH_REFERENCE, **fields)


def test_without_references_nobody_looks_for_them() -> None:
    wire = {"jobs": [WITH_REFERENCE]}
    assert WorkerRequest.from_wire(wire, may_refer=False).jobs[0].references == ()
    # Resources are reason enough to look.
    assert WorkerRequest.from_wire({**wire, "resources": [IMAGE]}, may_refer=False).jobs[0].references == (
        "i",
    )


@given(worker_request_wire())
@settings(max_examples=50)
def test_a_request_is_whatever_the_rules_allow(wire: dict[str, Any]) -> None:
    for resource in wire.get("resources", ()):
        if type(resource["data"]) is cbor2.CBORTag:
            resource["data"] = resource["data"].value
    read = WorkerRequest.from_wire(wire)
    assert read.invalid == []
    assert [job.client_job_id for job in read.jobs] == [job["job_id"] for job in wire["jobs"]]
    assert {name for job in read.jobs for name in job.references} == {
        one.resource_id for one in read.resources
    }


# --- Batches and responses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        ({"id": "a", "input": {"x": 1}}, ("a", {"x": 1}, None)),
        ({"job_id": "a", "input": {"x": 1}}, ("a", {"x": 1}, None)),
        ({"id": "a", "job_id": "b", "input": {"x": 1}}, ("a", {"x": 1}, None)),
        ({"id": "a", "input": {}, "priority": 3}, ("a", {}, {"priority": 3})),
        # The flat dialect of the public engine.
        ({"id": "a", "x": 1, "timestamp": 2.0}, ("a", {"x": 1, "timestamp": 2.0}, None)),
        ({"id": "a"}, ("a", {}, None)),
    ],
)
def test_reads_jobs_of_either_dialect(wire: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """P-02, P-04."""
    (job,) = JobBatch.from_wire({"inputs": [wire]}).jobs
    assert (job.job_id, job.input, job.extra) == expected


@pytest.mark.parametrize(
    "wire", [None, [], {}, {"id": 5}, {"id": None, "job_id": "a"}, {"id": "a", "input": [1]}]
)
def test_one_bad_job_does_not_spoil_the_batch(wire: Any) -> None:
    batch = JobBatch.from_wire({"inputs": [{"id": "a", "input": {}}, wire]})
    assert [job.job_id for job in batch.jobs] == ["a"]
    assert batch.malformed == 1


@given(batch_wire())
@settings(max_examples=50)
def test_a_batch_is_whatever_the_rules_allow(wire: dict[str, Any]) -> None:
    batch = JobBatch.from_wire(wire)
    assert [(job.job_id, job.input) for job in batch.jobs] == [
        (job["id"], job["input"]) for job in wire["inputs"]
    ]


def test_a_response_may_have_lost_its_id() -> None:
    """Ours never has; a client must not end its connection over another engine's."""
    assert WorkerResponse.from_wire({"output": {}}).client_job_id is MISSING


def test_a_batch_job_is_made_of_maps_only() -> None:
    assert BatchJob.from_wire([("id", "a")]) is None

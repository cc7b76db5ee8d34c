"""The messages' own rules, on decoded maps; what has to do with bytes is in test_codec."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given, settings

from orbtrio.errors import InvalidMessage, ResourceRejected
from orbtrio.protocol.messages import (
    EXTENSION_MESSAGES,
    EXTENSIONS,
    MAX_JOBS,
    MISSING,
    BatchJob,
    CancelJobs,
    CancelRequest,
    InvalidJob,
    JobBatch,
    JobRequest,
    Resource,
    WorkerDrain,
    WorkerRequest,
    WorkerResponse,
)
from tests.strategies import batch_wire, worker_request_wire

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


# --- Extensions -------------------------------------------------------------------------------------------


def test_a_batch_may_bring_its_files() -> None:
    """P-44."""
    wire = {"inputs": [], "resources": [{"path": "/a.png", "data": b"\x89PNG"}]}
    assert JobBatch.from_wire(wire).resources == [("/a.png", b"\x89PNG")]
    # Of an engine that was not asked for them, it is any field.
    assert JobBatch.from_wire({"inputs": [], "resources": 5}, inline_resources=False).resources == []


@pytest.mark.parametrize("resources", [None, 5, [5], [{}], [{"path": "/a"}], [{"path": 5, "data": b""}]])
def test_files_of_a_batch_are_paths_and_bytes(resources: Any) -> None:
    with pytest.raises(InvalidMessage, match="resources: expected"):
        JobBatch.from_wire({"inputs": [], "resources": resources})


def test_a_client_cancels_jobs_by_any_ids_it_gave() -> None:
    assert CancelRequest.from_wire({"job_ids": ["a", 5, None]}).client_job_ids == ["a", 5, None]
    for bad in ({}, {"job_ids": "a"}, {"job_ids": ["a"] * (MAX_JOBS + 1)}):
        with pytest.raises(InvalidMessage, match="job_ids: expected a list"):
            CancelRequest.from_wire(bad)


def test_a_worker_leaves_out_what_is_no_id() -> None:
    assert CancelJobs.from_wire({"ids": ["a", 5, None, "b"]}).job_ids == ["a", "b"]
    with pytest.raises(InvalidMessage, match="ids: expected a list"):
        CancelJobs.from_wire({"ids": None})


def test_to_drain_takes_no_words() -> None:
    assert WorkerDrain.from_wire({"type": "worker_drain", "why": "tired"}) == WorkerDrain()


def test_every_message_of_an_extension_can_be_asked_for() -> None:
    assert {extension for extension, _ in EXTENSION_MESSAGES.values()} <= EXTENSIONS

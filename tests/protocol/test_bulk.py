"""Jobs beyond what any worker takes are found by their text and data, before anything is encoded."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest

from orbtrio.protocol import codec
from orbtrio.protocol.bulk import MAX_JOB_BYTES
from orbtrio.protocol.messages import WorkerRequest

BULKY = bytes(MAX_JOB_BYTES - 100)


def decode(*inputs: dict[str, Any], **extra: Any) -> WorkerRequest:
    jobs = [{"job_id": n, "worker_type": "t", "input": value, **extra} for n, value in enumerate(inputs)]
    message = codec.decode(cbor2.dumps({"type": "worker_request", "jobs": jobs}))
    assert isinstance(message, WorkerRequest)
    return message


@pytest.mark.parametrize(
    "job_input",
    [
        {"a": BULKY, "b": "x" * 200},
        {"a": [[BULKY, {"b": bytes(200)}]]},
        {"a": cbor2.CBORTag(2, BULKY), "b": bytes(200)},
        {"a": BULKY, "b" * 200: 1},
    ],
)
def test_job_beyond_every_workers_limit_is_invalid_and_its_neighbours_run(job_input: dict[str, Any]) -> None:
    request = decode({"n": 1}, job_input, {"n": 2})
    assert [job.client_job_id for job in request.jobs] == [0, 2]
    (invalid,) = request.invalid
    assert invalid.client_job_id == 1
    assert "resources" in invalid.reason


def test_extra_fields_count() -> None:
    assert decode({"a": BULKY}, more=bytes(200)).jobs == []


def test_jobs_that_are_large_only_together_run() -> None:
    assert len(decode({"a": bytes(9 << 20)}, {"a": bytes(9 << 20)}).jobs) == 2

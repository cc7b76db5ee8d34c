"""What comes back, on decoded maps."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from orbtrio.errors import InvalidMessage
from orbtrio.protocol.answers import MISSING, ProgressReport, WorkerResponse, WorkerResponses, list_of


def test_a_list_is_a_list() -> None:
    assert list_of({"x": [1]}, "x") == [1]
    for wire in ({}, {"x": None}, {"x": "text"}):
        with pytest.raises(InvalidMessage, match="x: expected a list"):
            list_of(wire, "x")


@pytest.mark.parametrize("attempt", [1, 2, 70_000])
def test_progress_tells_the_attempt_from_the_second_on(attempt: int) -> None:
    report = ProgressReport("a", {"text": "x"}, attempt)
    wire = report.to_wire()
    assert ("attempt" in wire) == (attempt > 1)
    assert attrs.asdict(ProgressReport.from_wire(wire)) == attrs.asdict(report)


def test_progress_may_have_lost_its_id() -> None:
    assert ProgressReport.from_wire({"progress": {}}).client_job_id is MISSING


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"progress": None}, "progress"),
        ({"progress": [1]}, "progress"),
        ({"attempt": 0}, "attempt"),
        ({"attempt": True}, "attempt"),
        ({"attempt": 1.5}, "attempt"),
    ],
)
def test_progress_is_a_map_and_attempts_are_counted(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        ProgressReport.from_wire({"job_id": "a", "progress": {}, **fields})
    assert caught.value.path == path


def test_responses_come_together() -> None:
    wire = WorkerResponses([WorkerResponse("a", {"x": 1}), WorkerResponse(5, {"error": "no"})]).to_wire()
    assert wire["responses"] == [
        {"job_id": "a", "output": {"x": 1}},
        {"job_id": 5, "output": {"error": "no"}},
    ]
    read = WorkerResponses.from_wire(wire).responses
    assert [(one.client_job_id, one.output) for one in read] == [("a", {"x": 1}), (5, {"error": "no"})]


@pytest.mark.parametrize("responses", [None, {}, [5], [{"job_id": "a"}], [{"output": 5}]])
def test_responses_are_a_list_of_responses(responses: Any) -> None:
    with pytest.raises(InvalidMessage, match=r"responses|output"):
        WorkerResponses.from_wire({"responses": responses})

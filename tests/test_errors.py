"""The exceptions: what they say, what they keep, what they never repeat."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from orbtrio import errors
from orbtrio.errors import (
    ConnectionLost,
    InvalidMessage,
    JobError,
    JobFailed,
    JobRefused,
    JobTimedOut,
    OrbError,
    RemoteProtocolError,
    ResourceRejected,
)


def test_everything_raised_on_purpose_has_one_base() -> None:
    classes = [getattr(errors, name) for name in errors.__all__]
    assert all(issubclass(cls, OrbError) and inspect.getdoc(cls) for cls in classes)
    assert all(cls.__name__ in (errors.__doc__ or "") for cls in classes)


def test_invalid_message_says_where() -> None:
    assert str(InvalidMessage("expected text", path="jobs[2].input")) == "jobs[2].input: expected text"
    assert str(InvalidMessage("expected a map")) == "expected a map"


def test_each_class_has_its_close_code() -> None:
    assert InvalidMessage("").close_code == 1008
    assert ResourceRejected("").close_code == 1009
    assert RemoteProtocolError("text frame", close_code=1003).close_code == 1003


def test_connection_lost_tells_the_close_code() -> None:
    assert str(ConnectionLost("bye", code=1001)) == "bye (close code 1001)"
    assert str(ConnectionLost("", code=1000)) == "closed (close code 1000)"
    assert str(ConnectionLost("reset")) == "reset"


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ({"error": "bad image"}, JobFailed),
        ({"error": "bad image", "error_kind": None}, JobFailed),
        ({"error": {"code": 1}}, JobFailed),
        ({"error": "late", "error_kind": "timeout"}, JobTimedOut),
        ({"error": "full", "error_kind": "queue_full"}, JobRefused),
    ],
)
def test_output_with_an_error_stands_for_an_exception(output: dict[str, Any], kind: type[JobError]) -> None:
    assert type(JobError.of(output)) is kind


@pytest.mark.parametrize("output", [{}, {"embedding": [1.0]}, {"error": None, "response": "yes"}])
def test_output_without_an_error_is_a_result(output: dict[str, Any]) -> None:
    assert JobError.of(output) is None


def test_long_error_is_cut_in_the_text_and_whole_in_the_output() -> None:
    """B-68."""
    output = {"error": "x" * 100_000}
    failed = JobError.of(output)
    assert isinstance(failed, JobFailed)
    assert len(str(failed)) == 8192
    assert failed.output is output


def test_refusal_has_kind_and_text() -> None:
    refused = JobRefused("queue_full", "submit later")
    assert (refused.kind, refused.text, str(refused)) == (
        "queue_full",
        "submit later",
        "queue_full: submit later",
    )

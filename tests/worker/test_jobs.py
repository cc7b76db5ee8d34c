"""What a handler may do with a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orbtrio.errors import OrbError
from orbtrio.protocol.messages import BatchJob, JobBatch
from orbtrio.worker import Job, JobCancelled
from orbtrio.worker.jobs import Batch

if TYPE_CHECKING:
    from collections.abc import Mapping


class Reports:
    """What has been reported."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, job_id: str, fields: Mapping[str, Any]) -> None:
        self.seen.append((job_id, dict(fields)))


def test_a_test_of_a_handler_makes_a_job_in_a_line() -> None:
    job = Job({"text": "hello"})
    assert job.input == {"text": "hello"}
    assert dict(job.extra) == {}
    assert not job.cancelled
    job.report(percent=50)
    job.check_cancelled()


def test_extra_fields_of_a_job_without_any_are_nobodys_to_change() -> None:
    with pytest.raises(TypeError):
        Job({}).extra["priority"] = 1  # type: ignore[index]


def test_report_carries_any_name_of_a_field() -> None:
    reports = Reports()
    job = Job({}, job_id="a", report=reports)
    job.report(text="Once", self="upon", fields="a time")
    job.report()
    assert reports.seen == [("a", {"text": "Once", "self": "upon", "fields": "a time"}), ("a", {})]


@pytest.mark.parametrize("heard", [False, True])
def test_cancelled_job_raises_where_it_reports(heard: bool) -> None:
    reports = Reports()
    job = Job({}, report=reports if heard else None)
    job.cancelled = True
    with pytest.raises(JobCancelled):
        job.report(text="Once")
    with pytest.raises(JobCancelled):
        job.check_cancelled()
    assert reports.seen == []
    assert issubclass(JobCancelled, OrbError)


def test_job_that_starts_over_reports_only_if_it_has_not() -> None:
    reports = Reports()
    loud, quiet = Job({}, job_id="loud", report=reports), Job({}, job_id="quiet", report=reports)
    loud.report(n=1)
    for job in (loud, quiet):
        job.start_over()
        job.report(n=2)
    assert reports.seen == [("loud", {"n": 1}), ("quiet", {"n": 2})]


def test_repr_shows_no_input() -> None:
    job = Job({"text": "payload"}, job_id="a")
    assert repr(job) == "<Job 'a'>"
    job.cancelled = True
    assert repr(job) == "<Job 'a', cancelled>"


def test_batch_makes_a_job_of_each_id() -> None:
    """WRK-02: an engine that names an id twice gets one answer."""
    message = JobBatch(
        [BatchJob("a", {"n": 1}), BatchJob("b", {"n": 2}, {"priority": 1}), BatchJob("a", {"n": 3})]
    )
    reports = Reports()
    batch = Batch(message, size=100, report=reports)
    assert [(job.job_id, job.input, dict(job.extra)) for job in batch.jobs.values()] == [
        ("a", {"n": 3}, {}),
        ("b", {"n": 2}, {"priority": 1}),
    ]
    batch.jobs["b"].report(n=4)
    assert reports.seen == [("b", {"n": 4})]
    assert (batch.size, batch.resources, batch.files) == (100, [], [])

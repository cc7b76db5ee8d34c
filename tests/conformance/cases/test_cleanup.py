"""How long files live: right engines pass, each leak is told in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from orbtrio.conformance.model import Verdict
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.cases.judging import EngineCases, judge

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.zoo.dispatch import Job
    from orbtrio.conformance.zoo.files import Resource


class TestCleanup(EngineCases):
    CASES = ("ORB-RES-07", "ORB-RES-08", "ORB-RES-09", "ORB-RES-10")
    PINGS = False
    EXAMPLES = 5
    FAULT_EXAMPLES = 20
    FAULT_PROFILE = "spec"
    # In zoo/test_faulty_resources.py.
    LEFT_OUT = frozenset({("leak-on-error", "ORB-RES-08")})
    SAYS: ClassVar = {
        "first-job-deletes": "where no file is",
        "leak-on-answer": "is still there",
        "leak-on-timeout": "after the job's time, 300 s, is over",
        "leak-in-the-queue": "after the job's time, 300 s, is over",
        "leak-on-client-loss": "after its client is gone",
    }


class Tidy(ModelEngine):
    """Deletes after five seconds."""

    keepalive_seconds = 1e9

    def delete(self, resource: Resource) -> None:
        super_delete = super().delete
        self.host.call_at(self.host.now() + 5.0, lambda: super_delete(resource))


class Loyal(ModelEngine):
    """Keeps files for workers until their jobs are done, client or no client."""

    def abandon(self, job: Job) -> None:
        job.client = None


@pytest.mark.parametrize("case_id", ["ORB-RES-08", "ORB-RES-09"])
def test_a_cleanup_period_is_allowed_by_the_text_only(case_id: str, tmp_path: Path) -> None:
    result = judge(case_id, tmp_path / "1", profile="spec", engine=Tidy)
    assert (result.verdict, result.reading) == (Verdict.PASS, "later")
    assert judge(case_id, tmp_path / "2", profile="orbtrio", engine=Tidy).verdict is Verdict.FAIL


def test_the_period_grows_with_the_patience_of_the_run(tmp_path: Path) -> None:
    short = judge("ORB-RES-08", tmp_path, profile="spec", engine=Tidy, conditions=Conditions(patience=12.0))
    assert short.counterexample is not None
    assert "4 s, a third of --max-wait" in short.counterexample.expected


def test_files_may_stay_until_a_lost_clients_jobs_are_done(tmp_path: Path) -> None:
    result = judge("ORB-RES-10", tmp_path / "1", profile="spec", engine=Loyal)
    assert (result.verdict, result.reading) == (Verdict.PASS, "with its jobs")
    assert judge("ORB-RES-10", tmp_path / "2", profile="orbtrio", engine=Loyal).verdict is Verdict.FAIL

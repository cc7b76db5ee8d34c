"""Judges one case against a worker of the zoo, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from orbtrio.conformance.selftest import zoo_worker
from tests.conformance.cases.case_tests import CaseTests, judge_target

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.model import CaseResult


def judge(
    case_id: str,
    folder: Path,
    *faults: str,
    worker_type: str | None = None,
    profile: str = "hardened",
    examples: int = 6,
) -> CaseResult:
    target = zoo_worker(faults, folder, worker_type)
    return judge_target(target, case_id, profile, examples, shrink_seconds=0)


class WorkerCases(CaseTests):
    """Of workers.

    Attributes:
        EXAMPLES: How many plans are drawn for the model.
    """

    EXAMPLES: ClassVar[int] = 6

    def judge_model(self, case_id: str, profile: str, folder: Path) -> CaseResult:
        return judge(case_id, folder, profile=profile, examples=self.EXAMPLES)

    def judge_fault(self, name: str, case_id: str, folder: Path) -> CaseResult:
        return judge(case_id, folder, name)

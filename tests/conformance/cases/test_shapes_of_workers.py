"""Answers by worker type: the model's fit, and what does not is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from orbtrio.conformance.examples import TYPE_EXAMPLES
from orbtrio.conformance.model import Verdict
from tests.conformance.cases.worker_judging import WorkerCases, judge

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.model import CaseResult

TYPES = {f"ORB-WRK-{number}": worker_type for number, worker_type in enumerate(TYPE_EXAMPLES, 17)}


class TestShapesOfWorkers(WorkerCases):
    CASES = tuple(TYPES)
    PROFILES = ("hardened",)
    SAYS: ClassVar = {
        "embedding-of-wrong-shape": "shape must have 1 entries, not 2",
        "embedding-of-many-lengths": "all embeddings have equally many numbers",
        "embedding-without-texts": "gets a result",
        "llm-in-tokens": "response must be a text",
        "vlm-as-text": "response is missing",
        "caption-per-image": "response must be a text",
        "detection-in-percent": "score must be a number in [0, 1]",
        "segmentation-without-labels": "parallel lists must be equally long",
        "video-one-count": "grows by one, to",
        "video-never-resets": "begins anew, with 1, after reset_session",
        "motion-remembers-all": "a stream is forgotten after 100 others",
        "motion-forgets-used": "a stream used within the last 100 is remembered",
        "motion-in-levels": "motion_energy must be a number in [0, 1]",
    }

    def judge_model(self, case_id: str, profile: str, folder: Path) -> CaseResult:
        return judge(case_id, folder, worker_type=TYPES[case_id], profile=profile, examples=3)


@pytest.mark.parametrize("case_id", TYPES)
def test_a_worker_of_another_type_is_skipped(case_id: str, tmp_path: Path) -> None:
    result = judge(case_id, tmp_path, worker_type="echo")
    assert result.verdict is Verdict.SKIP
    assert TYPES[case_id] in result.reason

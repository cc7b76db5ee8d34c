"""Answers that travel together: the model passes, and each fault is noticed and named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orbtrio.conformance.model import Verdict
from tests.conformance.cases.judging import complaint, faults_for, judge

if TYPE_CHECKING:
    from pathlib import Path

CASES = ["ORB-EXT-21", "ORB-EXT-22"]

WORDS = {
    "together-without-the-last": "seen: []",
    "together-and-alone": "exactly once",
    "together-alone": "worker_responses with 1 answers",
    "never-together": "8 messages with one answer each",
    "together-in-company": "which did not ask for batched_responses",
    "together-for-everybody": "which did not ask for batched_responses",
}


@pytest.mark.parametrize("profile", ["orbtrio", "hardened"])
@pytest.mark.parametrize("case_id", CASES)
def test_the_model_passes(case_id: str, profile: str, tmp_path: Path) -> None:
    assert judge(case_id, tmp_path, profile=profile, examples=6).verdict is Verdict.PASS


@pytest.mark.parametrize(("name", "case_id"), faults_for(*CASES))
def test_a_fault_is_noticed_and_named(name: str, case_id: str, tmp_path: Path) -> None:
    assert WORDS[name] in complaint(name, case_id, tmp_path)

"""Judges one case against a worker of the zoo, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orbtrio.conformance import suite
from orbtrio.conformance.model import CaseResult, Role, Verdict
from orbtrio.conformance.profiles import load_profile
from orbtrio.conformance.runner import Runner
from orbtrio.conformance.search import Options
from orbtrio.conformance.selftest import zoo_worker
from orbtrio.conformance.zoo.mutants import mutants

if TYPE_CHECKING:
    from pathlib import Path


def judge(
    case_id: str,
    folder: Path,
    *faults: str,
    worker_type: str | None = None,
    profile: str = "hardened",
    examples: int = 6,
) -> CaseResult:
    target = zoo_worker(faults, folder, worker_type)
    options = Options(seed=7, examples=examples, seconds=60, shrink_seconds=0, repetitions=1)
    return Runner(target, load_profile(profile), options).judge(suite.all_cases()[case_id], 60)


def complaint(name: str, case_id: str, folder: Path, *, profile: str = "hardened") -> str:
    """What the case says of the fault."""
    result = judge(case_id, folder, name, profile=profile)
    assert result.verdict is Verdict.FAIL, f"{name}: {result.verdict}, {result.reading}"
    assert result.counterexample is not None
    return f"{result.counterexample.expected}; seen: {result.counterexample.seen}"


def faults_for(*case_ids: str) -> list[tuple[str, str]]:
    """The zoo's faults that these cases have to notice: name and case."""
    return [
        (name, case_id)
        for name, known in mutants(Role.WORKER).items()
        for case_id in known.kills
        if case_id in case_ids
    ]

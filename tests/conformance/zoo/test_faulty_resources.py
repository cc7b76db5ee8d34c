"""The faults about resources are listed, and each is noticed by the cases that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orbtrio.conformance.cases import cleanup, losses, references, resources, timeouts  # noqa: F401
from orbtrio.conformance.model import Role, Verdict
from orbtrio.conformance.zoo.mutants import mutants
from tests.conformance.cases.judging import judge

if TYPE_CHECKING:
    from pathlib import Path

FAULTS = [
    (name, case_id)
    for name, known in mutants(Role.ENGINE).items()
    if known.faulty.__module__ == "orbtrio.conformance.zoo.faulty_resources"
    for case_id in known.kills
]


def test_there_are_some() -> None:
    assert len(FAULTS) >= 5


@pytest.mark.parametrize(("name", "case_id"), FAULTS)
def test_the_fault_is_noticed(name: str, case_id: str, tmp_path: Path) -> None:
    # Without pings: these faults show after minutes of virtual time.
    engine = type("Quiet", (mutants()[name].faulty,), {"keepalive_seconds": 1e9})
    assert judge(case_id, tmp_path, profile="spec", engine=engine, examples=10).verdict is Verdict.FAIL

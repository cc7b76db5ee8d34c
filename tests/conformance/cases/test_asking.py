"""Who asks for what is not known; and engines that announce nothing are not judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orbtrio.conformance import suite
from orbtrio.conformance.model import Role, Verdict
from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.cases.judging import complaint, faults_for, judge

if TYPE_CHECKING:
    from pathlib import Path

CASES = ["ORB-EXT-01"]

WORDS = {
    "unknown-name-spoils-the-list": "no_such_extension",
    "unknown-extensions-refused": "closed with 1008",
}


@pytest.mark.parametrize("profile", ["orbtrio", "hardened"])
@pytest.mark.parametrize("case_id", CASES)
def test_the_model_passes(case_id: str, profile: str, tmp_path: Path) -> None:
    assert judge(case_id, tmp_path, profile=profile, examples=6).verdict is Verdict.PASS


@pytest.mark.parametrize(("name", "case_id"), faults_for(*CASES))
def test_a_fault_is_noticed_and_named(name: str, case_id: str, tmp_path: Path) -> None:
    assert WORDS[name] in complaint(name, case_id, tmp_path)


OF_ENGINES = [
    case_id for case_id, case in suite.all_cases().items() if case.area == "EXT" and case.role is Role.ENGINE
]


def test_there_are_cases_for_each_extension() -> None:
    assert len(OF_ENGINES) >= 26


@pytest.mark.parametrize("case_id", OF_ENGINES)
def test_an_engine_that_announces_nothing_is_not_judged(case_id: str, tmp_path: Path) -> None:
    class Stock(ModelEngine):
        def announced(self) -> list[str]:
            return []

    result = judge(case_id, tmp_path, engine=Stock)
    assert result.verdict is Verdict.SKIP
    assert "does not announce" in result.reason


def test_the_spec_does_not_know_them(tmp_path: Path) -> None:
    result = judge("ORB-EXT-01", tmp_path, profile="spec")
    assert result.verdict is Verdict.SKIP
    assert "no part of the spec" in result.reason

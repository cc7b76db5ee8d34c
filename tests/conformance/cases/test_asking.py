"""Who asks for what is not known; and engines that announce nothing are not judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from orbtrio.conformance import suite
from orbtrio.conformance.model import Role, Verdict
from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.cases.judging import ExtensionCases, judge

if TYPE_CHECKING:
    from pathlib import Path


class TestAsking(ExtensionCases):
    CASES = ("ORB-EXT-01",)
    SAYS: ClassVar = {
        "unknown-name-spoils-the-list": "no_such_extension",
        "unknown-extensions-refused": "closed with 1008",
    }


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

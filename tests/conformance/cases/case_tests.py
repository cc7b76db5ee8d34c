"""What holds for all cases: the zoo's model passes, and each of its faults is noticed and told in words.

These tests stand here once. A file of cases derives a class from that of its role (`EngineCases`,
`WorkerCases`, `ClientCases`) and says in class variables which cases they are, and what is to be said of each
fault. Which faults a case has to notice, the zoo says: none may be without words, no case without a fault.

Rejected: functions that read their module's tables; a misspelt name of a table would be a table less.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, ClassVar, Final

from orbtrio.conformance import suite
from orbtrio.conformance.model import CaseResult, Verdict
from orbtrio.conformance.profiles import load_profile
from orbtrio.conformance.runner import Runner
from orbtrio.conformance.search import Options
from orbtrio.conformance.zoo.mutants import mutants

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pytest

    from orbtrio.conformance.runner import Environment

# Defined by their modules, all of which this imports: `catalogue` is complete in every test.
CATALOGUE: Final = suite.all_cases()

# Of our rulings. The text of the spec knows nothing of extensions, so there is nothing to judge by it.
RULINGS: Final = ("orbtrio", "hardened")


def judge_target(
    target: Environment, case_id: str, profile: str, examples: int, shrink_seconds: float = 1
) -> CaseResult:
    """Judge one case with a fixed seed; what fails is not repeated."""
    options = Options(seed=7, examples=examples, seconds=60, shrink_seconds=shrink_seconds, repetitions=1)
    return Runner(target, load_profile(profile), options).judge(CATALOGUE[case_id], 60)


def complaint(result: CaseResult) -> str:
    """What a case that fails says of its target."""
    assert result.verdict is Verdict.FAIL, result
    assert result.counterexample is not None
    return f"{result.counterexample.expected}; seen: {result.counterexample.seen}"


class CaseTests(abc.ABC):
    """The tests of one file of cases.

    Attributes:
        CASES: Their identifiers.
        SAYS: By name of a fault, words that the report of it has to have.
        PROFILES: What the model is judged by.
        VERDICTS: The model's, by case and profile, where it is not to pass.
        LEFT_OUT: Faults and cases that the zoo names, too, and that are judged elsewhere.
    """

    CASES: ClassVar[Sequence[str]]
    SAYS: ClassVar[Mapping[str, str]]
    PROFILES: ClassVar[Sequence[str]] = ("spec", *RULINGS)
    VERDICTS: ClassVar[Mapping[tuple[str, str], Verdict]] = {}
    LEFT_OUT: ClassVar[frozenset[tuple[str, str]]] = frozenset()

    @abc.abstractmethod
    def judge_model(self, case_id: str, profile: str, folder: Path) -> CaseResult:
        """Judge the zoo's right program."""

    @abc.abstractmethod
    def judge_fault(self, name: str, case_id: str, folder: Path) -> CaseResult:
        """Judge a faulty one."""

    def faults(self) -> list[tuple[str, str]]:
        """The zoo's faults that these cases have to notice: name and case."""
        known = [(name, case_id) for name, known in mutants().items() for case_id in known.kills]
        return [pair for pair in known if pair[1] in self.CASES and pair not in self.LEFT_OUT]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parameters of the tests below; those that a class adds have their own."""
        match metafunc.function.__name__:
            case "test_the_model_passes":
                metafunc.parametrize("case_id", self.CASES)
                metafunc.parametrize("profile", self.PROFILES)
            case "test_a_fault_is_told_in_words":
                metafunc.parametrize(("name", "case_id"), self.faults())

    def test_the_model_passes(self, case_id: str, profile: str, tmp_path: Path) -> None:
        result = self.judge_model(case_id, profile, tmp_path)
        assert result.verdict is self.VERDICTS.get((case_id, profile), Verdict.PASS), result

    def test_a_fault_is_told_in_words(self, name: str, case_id: str, tmp_path: Path) -> None:
        assert self.SAYS[name] in complaint(self.judge_fault(name, case_id, tmp_path))

    def test_every_fault_has_its_words_and_every_case_a_fault(self) -> None:
        assert set(self.SAYS) == {name for name, _ in self.faults()}
        assert set(self.CASES) == {case_id for _, case_id in self.faults()}

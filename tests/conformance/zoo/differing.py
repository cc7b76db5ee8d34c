"""What holds for each fault of a module of the zoo; a file of tests derives its class and names the module.

Most faults are noticed by their cases where those are tested, in tests/conformance/cases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest

from orbtrio.conformance.model import Role, Verdict
from orbtrio.conformance.zoo.client import ModelClient
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import Mutant, mutants
from orbtrio.conformance.zoo.worker import ModelWorker
from tests.conformance.cases.case_tests import CATALOGUE
from tests.conformance.cases.judging import judge, quiet

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

MODELS: Final[dict[Role, type]] = {
    Role.ENGINE: ModelEngine,
    Role.WORKER: ModelWorker,
    Role.CLIENT: ModelClient,
}


def faults_of(module: ModuleType, role: Role) -> list[Any]:
    """The faults of a module, as parameters of a test."""
    return [
        pytest.param(known, id=name)
        for name, known in mutants(role).items()
        if known.faulty.__module__ == module.__name__
    ]


class FaultTests:
    """Each fault of a module differs from the model in something that its cases are about.

    Attributes:
        MODULE: It has the faults.
        ROLE: Theirs.
        LEAST: How many there are at least.
    """

    MODULE: ModuleType
    ROLE: ClassVar[Role]
    LEAST: ClassVar[int] = 5

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parameters of the tests below; those that a class adds have their own."""
        if metafunc.function.__name__ == "test_a_fault_changes_the_model_and_names_cases_that_there_are":
            metafunc.parametrize("known", faults_of(self.MODULE, self.ROLE))

    def test_there_are_some(self) -> None:
        assert len(faults_of(self.MODULE, self.ROLE)) >= self.LEAST

    def test_a_fault_changes_the_model_and_names_cases_that_there_are(self, known: Mutant) -> None:
        assert issubclass(known.faulty, MODELS[self.ROLE])
        assert set(vars(known.faulty)) - {"__module__", "__doc__"}
        assert all(CATALOGUE[case_id].role is self.ROLE for case_id in known.kills)


class NoticedTests:
    """Each fault of a module of engines is noticed by the cases that it names, by the text of the spec."""

    MODULE: ModuleType

    def faults(self) -> list[tuple[str, str]]:
        """Names of faults, and their cases."""
        return [
            (name, case_id)
            for name, known in mutants(Role.ENGINE).items()
            if known.faulty.__module__ == self.MODULE.__name__
            for case_id in known.kills
        ]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parameters of the test below."""
        if metafunc.function.__name__ == "test_the_fault_is_noticed":
            metafunc.parametrize(("name", "case_id"), self.faults())

    def test_there_are_some(self) -> None:
        assert len(self.faults()) >= 5

    def test_the_fault_is_noticed(self, name: str, case_id: str, tmp_path: Path) -> None:
        # Without pings: these faults show after minutes of virtual time.
        engine = quiet(mutants()[name].faulty)
        assert judge(case_id, tmp_path, profile="spec", engine=engine, examples=10).verdict is Verdict.FAIL

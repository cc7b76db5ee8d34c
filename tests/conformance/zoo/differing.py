"""What holds for each fault of a module of the zoo. That cases notice it is shown where they are tested."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from orbtrio.conformance import suite
from orbtrio.conformance.model import Role
from orbtrio.conformance.zoo.client import ModelClient
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutants
from orbtrio.conformance.zoo.worker import ModelWorker

if TYPE_CHECKING:
    from types import ModuleType

    from orbtrio.conformance.zoo.mutants import Mutant

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


def check_difference(known: Mutant, role: Role) -> None:
    """It changes the model, and names cases that there are."""
    assert issubclass(known.faulty, MODELS[role])
    assert set(vars(known.faulty)) - {"__module__", "__doc__"}
    assert all(suite.all_cases()[case_id].role is role for case_id in known.kills)

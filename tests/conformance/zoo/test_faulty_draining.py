"""Each fault of this module differs from the model in something that its cases are about."""

from __future__ import annotations

import pytest

from orbtrio.conformance import suite
from orbtrio.conformance.model import Role
from orbtrio.conformance.zoo import faulty_draining
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import Mutant, mutants

FAULTS = [
    pytest.param(known, id=name)
    for name, known in mutants(Role.ENGINE).items()
    if known.faulty.__module__ == faulty_draining.__name__
]


def test_there_are_some() -> None:
    assert len(FAULTS) >= 5


# That the case notices is shown where the cases are tested.
@pytest.mark.parametrize("known", FAULTS)
def test_a_fault_changes_the_model_and_names_cases_that_there_are(known: Mutant) -> None:
    assert issubclass(known.faulty, ModelEngine)
    assert set(vars(known.faulty)) - {"__module__", "__doc__"}
    assert all(suite.all_cases()[case_id].role is Role.ENGINE for case_id in known.kills)

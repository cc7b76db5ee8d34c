"""Each fault of this module differs from the model in something that its cases are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orbtrio.conformance.model import Role
from orbtrio.conformance.zoo import faulty_vectors
from tests.conformance.zoo.differing import check_difference, faults_of

if TYPE_CHECKING:
    from orbtrio.conformance.zoo.mutants import Mutant

FAULTS = faults_of(faulty_vectors, Role.ENGINE)


def test_there_are_some() -> None:
    assert len(FAULTS) >= 5


@pytest.mark.parametrize("known", FAULTS)
def test_a_fault_changes_the_model_and_names_cases_that_there_are(known: Mutant) -> None:
    check_difference(known, Role.ENGINE)

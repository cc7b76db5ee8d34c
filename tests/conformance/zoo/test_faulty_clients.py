"""Each faulty client is found; what is said of it stands in the tests of the cases."""

from __future__ import annotations

import pytest

from orbtrio.conformance.model import Role
from orbtrio.conformance.zoo.client import ModelClient
from orbtrio.conformance.zoo.mutants import Mutant, compose, mutants
from tests.conformance.cases.client_judging import complaint

CLIENTS = [
    known for known in mutants(Role.CLIENT).values() if known.faulty.__module__.endswith("faulty_clients")
]


def test_there_are_faults_of_every_kind() -> None:
    assert len(CLIENTS) >= 20
    assert all(issubclass(known.faulty, ModelClient) for known in CLIENTS)


@pytest.mark.parametrize("known", CLIENTS, ids=lambda known: known.name)
def test_the_fault_shows(known: Mutant) -> None:
    for case_id in known.kills:
        assert complaint(case_id, known.faulty)


def test_faults_about_different_things_can_be_put_together() -> None:
    client = compose(["empty-pongs", "steady-pause"], ModelClient)
    assert complaint("ORB-CLI-06", client)
    assert complaint("ORB-CLI-08", client)

"""Each fault of this module differs from the model in something that its cases are about."""

from __future__ import annotations

from orbtrio.conformance.model import Role
from orbtrio.conformance.zoo import faulty_workers_in_trouble
from tests.conformance.zoo.differing import FaultTests


class TestFaultyWorkersInTrouble(FaultTests):
    MODULE = faulty_workers_in_trouble
    ROLE = Role.WORKER
    LEAST = 10

"""Each fault of this module differs from the model in something that its cases are about."""

from __future__ import annotations

from orbtrio.conformance.model import Role
from orbtrio.conformance.zoo import faulty_workers
from tests.conformance.zoo.differing import FaultTests


class TestFaultyWorkers(FaultTests):
    MODULE = faulty_workers
    ROLE = Role.WORKER
    LEAST = 10

"""Each fault of this module differs from the model in something that its cases are about."""

from __future__ import annotations

from orbtrio.conformance.model import Role
from orbtrio.conformance.zoo import faulty_workers_shapes
from tests.conformance.zoo.differing import FaultTests


class TestFaultyWorkersShapes(FaultTests):
    MODULE = faulty_workers_shapes
    ROLE = Role.WORKER
    LEAST = 10

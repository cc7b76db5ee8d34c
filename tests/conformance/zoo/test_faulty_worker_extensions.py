"""Each fault of this module differs from the model in something that its cases are about."""

from __future__ import annotations

from orbtrio.conformance.model import Role
from orbtrio.conformance.zoo import faulty_worker_extensions
from tests.conformance.zoo.differing import FaultTests


class TestFaultyWorkerExtensions(FaultTests):
    MODULE = faulty_worker_extensions
    ROLE = Role.WORKER

"""The faults about resources are listed, and each is noticed by the cases that it names."""

from __future__ import annotations

from orbtrio.conformance.zoo import faulty_resources
from tests.conformance.zoo.differing import NoticedTests


class TestFaultyResources(NoticedTests):
    MODULE = faulty_resources

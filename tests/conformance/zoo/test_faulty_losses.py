"""The faults about losses are listed, and each is noticed by the cases that it names."""

from __future__ import annotations

from orbtrio.conformance.zoo import faulty_losses
from tests.conformance.zoo.differing import NoticedTests


class TestFaultyLosses(NoticedTests):
    MODULE = faulty_losses

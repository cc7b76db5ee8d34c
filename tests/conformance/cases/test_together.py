"""Answers that travel together: the model passes, and each fault is noticed and named."""

from __future__ import annotations

from typing import ClassVar

from tests.conformance.cases.judging import ExtensionCases


class TestTogether(ExtensionCases):
    CASES = ("ORB-EXT-21", "ORB-EXT-22")
    SAYS: ClassVar = {
        "together-without-the-last": "seen: []",
        "together-and-alone": "exactly once",
        "together-alone": "worker_responses with 1 answers",
        "never-together": "8 messages with one answer each",
        "together-in-company": "which did not ask for batched_responses",
        "together-for-everybody": "which did not ask for batched_responses",
    }

"""Files that travel with a batch: the model passes, and each fault is noticed and named."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.cases.judging import ExtensionCases, judge

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.zoo.dispatch import Job, Worker


class TestInlining(ExtensionCases):
    CASES = ("ORB-EXT-18", "ORB-EXT-19", "ORB-EXT-20")
    SAYS: ClassVar = {
        "inline-for-each-job": "once, and no other",
        "inline-of-the-first-job": "an entry for each of these paths",
        "inline-by-name": 'entries for ["r0-',
        "inline-cut": "(1024 bytes)",
        "inline-once-for-ever": "seen: entries for []",
        "inline-uncounted": "one with 3 jobs has 93",
        "inline-for-everybody": 'seen: ["inputs", "resources"]',
    }


def test_entries_of_another_shape_are_shown(tmp_path: Path) -> None:
    class ByPath(ModelEngine):
        def beside(self, worker: Worker, jobs: list[Job]) -> dict[str, object]:
            beside = super().beside(worker, jobs)
            return {name: {entry["path"]: entry["data"] for entry in value} for name, value in beside.items()}

    result = judge("ORB-EXT-18", tmp_path, engine=ByPath)
    assert result.counterexample is not None
    assert "a list of {path, data}" in result.counterexample.expected

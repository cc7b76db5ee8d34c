"""A job's own deadline: the model passes, and each fault is noticed and named."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from orbtrio.conformance.model import Verdict
from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.cases.judging import ExtensionCases, judge, quiet

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class TestDeadlines(ExtensionCases):
    CASES = ("ORB-EXT-23", "ORB-EXT-24", "ORB-EXT-25", "ORB-EXT-26")
    SAYS: ClassVar = {
        "no-own-timeout": "seen: no answer",
        "own-timeout-from-delivery": "seen: no answer",
        "own-timeout-eaten": "among the fields that its worker gets",
        "own-timeout-in-half": "after 0.075 s",
        "own-timeout-without-end": "10 times as long",
        "long-timeouts-are-invalid": "nothing is sent",
        "any-timeout-is-valid": "whose timeout_ms is 0",
        "truth-is-a-time": "whose timeout_ms is true",
        "invalid-timeout-spoils-all": "closed with 1008",
        "own-timeout-for-everybody": "after longer than its timeout_ms",
        "heartbeat-for-everybody": "a field that client#1 did not ask",
        "own-times-checked-for-everybody": "nothing is sent",
    }


def test_the_longest_time_is_not_waited_for_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orbtrio.conformance.simulation.SimulatedWorld.virtual", False)
    result = judge("ORB-EXT-24", tmp_path, engine=quiet(ModelEngine))
    assert result.verdict is Verdict.PASS
    assert "see --max-wait" in " ".join(map(str, result.events))

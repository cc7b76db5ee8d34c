"""Progress and heartbeats: the model passes, and each fault is noticed and named."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from orbtrio.conformance.cases import progress
from orbtrio.conformance.cases.resources import delivered
from orbtrio.conformance.model import Inconclusive
from orbtrio.conformance.zoo.engine import ModelEngine
from tests.conformance.cases.judging import ExtensionCases, stage_around

if TYPE_CHECKING:
    from pathlib import Path


class TestProgress(ExtensionCases):
    CASES = ("ORB-EXT-02", "ORB-EXT-03", "ORB-EXT-04", "ORB-EXT-05", "ORB-EXT-06", "ORB-EXT-07")
    SAYS: ClassVar = {
        "progress-backwards": 'seen: [{"n": 3}, {"n": 1}]',
        "first-progress-only": "seen: 1 times",
        "progress-with-the-answer": "while its worker still works; seen: 0 times",
        "progress-in-no-hurry": "after its answer",
        "progress-with-ids": 'seen: [{"id": ',
        "anybody-reports": "not mine",
        "strange-progress-closes": "worker#2 stays connected",
        "progress-of-the-done": "which has ended (answered)",
        "progress-for-everybody": "client#1, which did not ask for progress",
        "progress-from-everybody": "progress from who did not ask",
        "attempts-untold": "and has attempt 2",
        "no-heartbeat": "heartbeat_timeout",
        "heartbeat-in-the-queue": "waits for a worker for longer than its heartbeat_ms",
        "deaf-heartbeat": "of the progress of job 'j1', in time",
        "heartbeat-is-a-timeout": '"error_kind": "timeout"',
        "impatient-heartbeat": "and not before; seen: after 0.15",
    }


@pytest.mark.parametrize(("reports", "words"), [(2, "a report was"), (0, "the answer was")])
def test_who_reports_too_late_blames_nobody(
    reports: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_around(ModelEngine, tmp_path)
    on_time = stage.sleep
    monkeypatch.setattr(stage, "sleep", lambda seconds: on_time(3 * seconds))

    def late(*arguments: object) -> object:
        found = delivered(*arguments)  # type: ignore[arg-type]
        if not reports:
            on_time(0.25)
        return found

    monkeypatch.setattr(progress, "delivered", late)
    plan = {"heartbeat_ms": 300, "reports": reports, "queued": False, "answered": True}
    with pytest.raises(Inconclusive, match=words):
        progress.heartbeats(stage, plan)

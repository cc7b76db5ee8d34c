"""What workers make of extensions: the model passes, and each fault is noticed and named."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, ClassVar

import pytest

from orbtrio.conformance.cases import worker_extensions
from orbtrio.conformance.model import Skipped, Verdict
from orbtrio.conformance.selftest import zoo_worker
from orbtrio.conformance.zoo.worker import ModelWorker
from tests.conformance.cases.case_tests import RULINGS
from tests.conformance.cases.worker_judging import WorkerCases, judge

if TYPE_CHECKING:
    from pathlib import Path


class TestWorkerExtensions(WorkerCases):
    CASES = ("ORB-EXT-41", "ORB-EXT-42", "ORB-EXT-43", "ORB-EXT-44", "ORB-EXT-45", "ORB-EXT-46")
    PROFILES = RULINGS
    SAYS: ClassVar = {
        "worker-drains-unannounced": "worker_drain",
        "worker-reports-unannounced": "worker_progress",
        "worker-never-answers-cancelled": "no answer to job-2",
        "worker-answers-cancelled-twice": "2 times",
        "worker-cancels-the-batch": "not cancelled, is answered by its result",
        "worker-answers-unknown-cancels": "an id that it never had",
        "worker-reads-its-own-disk": "No such file",
        "worker-keeps-files": "an earlier batch only",
        "worker-writes-where-it-is-told": "one is there",
        "worker-leaves-without-draining": "says worker_drain, and waits",
        "worker-drains-and-goes": "waits for the engine to close it",
        "worker-drains-deaf": "no answer to job-3",
        "worker-drains-for-ever": "it still runs",
        "worker-reports-late": '"percent": 100',
        "worker-reports-by-number": '"id": "0"',
        "worker-reports-a-map": "is a list of maps",
        "worker-types-unannounced": "no typed array is sent",
        "worker-types-half-a-number": "has the numbers of the list",
        "worker-types-backwards": "has the numbers of the list",
    }


@pytest.mark.parametrize("case_id", TestWorkerExtensions.CASES[1:])
def test_who_asks_for_nothing_is_not_judged(
    case_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelWorker, "asks_for", lambda self: [])
    result = judge(case_id, tmp_path)
    assert result.verdict is Verdict.SKIP
    assert "does not ask for" in result.reason


def test_a_worker_without_paths_has_no_files_to_read(tmp_path: Path) -> None:
    assert judge("ORB-EXT-43", tmp_path, worker_type="llm").verdict is Verdict.SKIP


def test_a_process_that_cannot_be_ended_is_not_judged_by_its_end(tmp_path: Path) -> None:
    stage = zoo_worker((), tmp_path).stage(collections.Counter())
    stage.bench.terminate = None
    with pytest.raises(Skipped, match="SIGTERM"):
        worker_extensions.drains_when_asked_to_end(stage, {"sizes": [], "crossing": 0})
    worker_extensions.stock_engines_see_nothing(stage, {"sizes": [1], "terminate": True})


def test_a_silent_worker_reports_what_it_has_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelWorker, "report", lambda self, entries: None)
    result = judge("ORB-EXT-45", tmp_path)
    assert result.verdict is Verdict.PASS
    assert "the worker reports nothing, which it may" in " ".join(map(str, result.events))

"""A job's time: right engines pass, each fault is told in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from orbtrio.conformance.cases import timeouts
from orbtrio.conformance.model import Inconclusive, Verdict
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutants
from tests.conformance.cases.judging import EngineCases, judge, quiet, stage_around

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.zoo.dispatch import Client


class TestTimeouts(EngineCases):
    CASES = tuple(f"ORB-TMO-0{number}" for number in range(1, 5))
    PINGS = False
    EXAMPLES = 10
    FAULT_EXAMPLES = 10
    FAULT_PROFILE = "spec"
    BY_RULING = frozenset({"clock-restarts", "everybody-is-told", "timeouts-untold"})
    SAYS: ClassVar = {
        "half-the-time": "that a job may take",
        "clock-restarts": "begins anew when it is sent to a worker",
        "never-given-up": "it is sent to one after 316",
        "late-answers-delivered": "the client gets the late answer",
        "leak-on-timeout": "is still there",
        "leak-in-hand": "is still there",
        "everybody-is-told": "a client that never asked is sent a response",
        "timeouts-untold": "told of some jobs",
        "invalid-job-spoils-all": "client#1 closed with 1008",
    }


def test_who_is_told_unasked_is_not_strict_by_the_text(tmp_path: Path) -> None:
    engine = quiet(mutants()["everybody-is-told"].faulty)
    assert judge("ORB-TMO-04", tmp_path, profile="spec", engine=engine).verdict is Verdict.NON_STRICT


def test_silence_is_what_the_text_says(tmp_path: Path) -> None:
    class Silent(ModelEngine):
        keepalive_seconds = 1e9

        def tell(self, client: Client | None, client_id: object, kind: str, text: str) -> None:
            pass

    result = judge("ORB-TMO-04", tmp_path, profile="spec", engine=Silent)
    assert (result.verdict, result.reading) == (Verdict.PASS, "silent")


def test_a_connection_that_ends_with_an_invalid_job_is_told(tmp_path: Path) -> None:
    class Cross(ModelEngine):
        keepalive_seconds = 1e9

        def on_timeout(self, job: Any) -> None:
            client = job.client
            super().on_timeout(job)
            self.refuse(client.connection, "engine stopped")

    result = judge("ORB-TMO-04", tmp_path, profile="spec", engine=Cross)
    assert result.counterexample is not None
    assert result.counterexample.expected == "client#1 stays connected"


@pytest.mark.parametrize("case_id", TestTimeouts.CASES)
def test_real_targets_are_not_waited_for_unasked(
    case_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orbtrio.conformance.simulation.SimulatedWorld.virtual", False)
    result = judge(case_id, tmp_path, engine=quiet(ModelEngine))
    if case_id == "ORB-TMO-04":
        assert result.verdict is Verdict.PASS
        assert "see --max-wait" in " ".join(map(str, result.events))
    else:
        assert result.verdict is Verdict.SKIP
        assert "--max-wait" in result.reason


def test_who_answers_too_late_blames_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_around(quiet(ModelEngine), tmp_path)
    on_time = stage.sleep_until
    monkeypatch.setattr(stage, "sleep_until", lambda when: on_time(when + 200))
    with pytest.raises(Inconclusive, match="too late to tell"):
        timeouts.full_time_and_no_more(stage, {"answered": 90, "queued": 95, "jobs": 1})

"""A job's time: right engines pass, each fault is told in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orbtrio.conformance.cases import timeouts
from orbtrio.conformance.model import Inconclusive, Verdict
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutants
from tests.conformance.cases.judging import judge, quiet, stage_around

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.zoo.dispatch import Client

CASES = [f"ORB-TMO-0{number}" for number in range(1, 5)]
FAULTS = [
    ("half-the-time", "ORB-TMO-01", "spec", "that a job may take"),
    ("clock-restarts", "ORB-TMO-01", "orbtrio", "begins anew when it is sent to a worker"),
    ("never-given-up", "ORB-TMO-01", "spec", "it is sent to one after 316"),
    ("late-answers-delivered", "ORB-TMO-02", "spec", "the client gets the late answer"),
    ("leak-on-timeout", "ORB-TMO-03", "spec", "is still there"),
    ("leak-in-hand", "ORB-TMO-03", "spec", "is still there"),
    ("everybody-is-told", "ORB-TMO-04", "orbtrio", "a client that never asked is sent a response"),
    ("timeouts-untold", "ORB-TMO-04", "orbtrio", "told of some jobs"),
    ("invalid-job-spoils-all", "ORB-TMO-04", "spec", "client#1 closed with 1008"),
]


@pytest.mark.parametrize("profile", ["spec", "orbtrio", "hardened"])
@pytest.mark.parametrize("case_id", CASES)
def test_the_model_passes(case_id: str, profile: str, tmp_path: Path) -> None:
    result = judge(case_id, tmp_path, profile=profile, engine=quiet(ModelEngine), examples=10)
    assert result.verdict is Verdict.PASS


@pytest.mark.parametrize(("mutant", "case_id", "profile", "words"), FAULTS)
def test_a_fault_is_told(mutant: str, case_id: str, profile: str, words: str, tmp_path: Path) -> None:
    engine = quiet(mutants()[mutant].faulty)
    result = judge(case_id, tmp_path, profile=profile, engine=engine, examples=10)
    assert result.verdict is Verdict.FAIL
    assert result.counterexample is not None
    assert words in f"{result.counterexample.expected}; seen: {result.counterexample.seen}"


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


@pytest.mark.parametrize("case_id", CASES)
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

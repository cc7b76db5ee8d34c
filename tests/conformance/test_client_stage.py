"""The suite as the engine of a client; here the zoo's model, in virtual time."""

from __future__ import annotations

import collections
from typing import Any

import pytest

from orbtrio.conformance.client_players import SuiteEngine
from orbtrio.conformance.client_stage import ClientStage
from orbtrio.conformance.model import Skipped, Violation
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.zoo.client import ModelClient
from tests.conformance.cases.client_judging import Brief, Mute


class Relauncher:
    """Cannot start anything, but says that it can; or that all has ended."""

    def __init__(self, *, able: bool = True, how: str = "") -> None:
        self.able = able
        self.how = how
        self.restarts = 0

    def restart(self) -> bool:
        self.restarts += 1
        return self.able

    def ended(self) -> str:
        return self.how


def stage_around(client: ModelClient, launcher: Relauncher | None = None) -> ClientStage:
    return ClientStage(SimulatedWorld(client), Conditions(), collections.Counter(), launcher=launcher)


def test_jobs_are_sorted_into_open_and_answered() -> None:
    stage = stage_around(ModelClient())
    engine = stage.client(4)
    job = engine.open_jobs[0]
    engine.answer(job, response="done")
    assert engine.answered == [job]
    assert job not in engine.open_jobs
    assert engine.messages[1].value["jobs"][0] == job.wire
    assert stage.log.events()[-1].text.count("done") == 1


def test_the_same_job_is_recognised_in_another_request() -> None:
    stage = stage_around(ModelClient())
    first = stage.client(4)
    contents = [job.content for job in first.jobs]
    first.drop("FIN")
    # The model repeats each job in a request of its own.
    assert [job.content for job in stage.client(4).jobs[:4]] == contents
    assert len(set(contents)) == 4


def test_references_to_nothing_are_no_obstacle() -> None:
    class Dangling(ModelClient):
        def request(self, jobs: list[dict[str, Any]], resources: list[dict[str, Any]]) -> dict[str, Any]:
            return {**super().request(jobs, resources), "resources": "none"}

    assert all(job.content for job in stage_around(Dangling()).client(4).jobs)


def test_jobs_are_collected_by_answering() -> None:
    engine = stage_around(ModelClient()).collect(20)
    assert len(engine.jobs) >= 20
    assert len(stage_around(Brief()).collect(20).jobs) == 4


def test_whether_a_program_goes_on_is_found_out_once() -> None:
    stage = stage_around(ModelClient())
    assert stage.goes_on()
    answered = len(stage.engines[0].answered)
    assert stage.goes_on()
    assert len(stage.engines[0].answered) == answered
    brief = stage_around(Brief())
    assert not brief.goes_on()
    assert any("submits no more" in event.text for event in brief.log.events())


def test_who_submits_nothing_is_started_anew_before_it_is_given_up() -> None:
    launcher = Relauncher()
    stage = stage_around(Mute(), launcher)
    with pytest.raises(Skipped, match="at best over and over"):
        stage.client()
    assert launcher.restarts == 1
    assert any("submits nothing: started anew" in event.text for event in stage.log.events())


def test_who_has_left_is_started_anew_or_given_up() -> None:
    stage = stage_around(Brief())
    stage.client().answer_all()
    with pytest.raises(Skipped, match="use --launch"):
        stage.connection()
    launcher = Relauncher(how="exit status 0")
    stage = stage_around(Brief(), launcher)
    stage.client().answer_all()
    with pytest.raises(Violation, match=r"did not last: it closed with 1000.*ended: exit status 0"):
        stage.connection()
    assert launcher.restarts == 1


def test_nobody_is_there_at_all() -> None:
    class Absent(ModelClient):
        def connect(self) -> None:
            """Not."""

    with pytest.raises(Violation, match="nobody"):
        stage_around(Absent(), Relauncher(able=False)).connection()


def test_a_doorman_takes_who_comes() -> None:
    stage = stage_around(ModelClient())
    stage.connection().drop("RST")
    seen: list[object] = []
    stage.doorman = seen.append
    stage.sleep(1.0)
    assert len(seen) == 1
    assert len(stage.engines) == 1


def test_a_stage_is_struck_with_everything_answered_and_a_good_bye() -> None:
    client = ModelClient()
    stage = stage_around(client)
    engine = stage.client(4)
    stage.strike()
    assert [job.job_id for job in engine.answered] == ["job-0", "job-1", "job-2", "job-3"]
    assert engine.closed is not None
    assert any("close 1001 the plan is over" in event.text for event in stage.log.events())


def test_who_answers_no_pings_is_given_the_slack() -> None:
    class Deaf(ModelClient):
        def on_ping(self, ping: Any) -> None:
            """Nothing."""

    stage = stage_around(Deaf())
    engine = stage.client()
    start = stage.now()
    stage.settle(engine)
    assert stage.now() > start + stage.slack
    assert isinstance(engine, SuiteEngine)


def test_another_engine_is_another_connection() -> None:
    stage = stage_around(ModelClient())
    stock = stage.client()
    stage.announce("cancel", "batched_responses")
    engine = stage.client()
    assert stock.closed is not None
    assert not stock.announced
    assert engine.announced == {"batched_responses", "cancel"}
    stage.announce("cancel", "batched_responses")
    assert engine.closed is None

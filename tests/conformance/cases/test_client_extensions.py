"""What clients make of extensions: the model passes, and each fault is noticed and named."""

from __future__ import annotations

import collections
from typing import ClassVar

import pytest

from orbtrio.conformance import suite
from orbtrio.conformance.client_stage import ClientStage, Habits
from orbtrio.conformance.model import Verdict
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.zoo.client import ModelClient
from tests.conformance.cases.case_tests import RULINGS
from tests.conformance.cases.client_judging import ClientCases, judge


class TestClientExtensions(ClientCases):
    CASES = tuple(f"ORB-EXT-{number}" for number in range(61, 66))
    PROFILES = RULINGS
    SAYS: ClassVar = {
        "client-cancels-unannounced": "cancel_request",
        "client-times-unannounced": "carry no timeout_ms",
        "client-repeats-times": "carry no timeout_ms",
        "client-cancels-by-number": "jobs that were submitted on this connection; seen: [0, 1",
        "client-cancels-twice": "no job is given up twice",
        "client-dies-of-late-answers": "when jobs are answered that it has given up",
        "client-takes-the-first-of-many": "answered in one message; seen: no job after",
        "client-deaf-to-many": "answered in one message; seen: no job after",
        "client-dies-of-progress": "when it is told of progress",
        "client-drowns-in-progress": "and answers; seen: no job after",
        "client-dies-of-typed-arrays": "when it is answered with typed arrays",
        "client-waits-for-lists": "answered with typed arrays; seen: no job after",
    }


@pytest.mark.parametrize("case_id", TestClientExtensions.CASES[1:])
def test_who_asks_for_nothing_is_not_judged(case_id: str) -> None:
    class Stock(ModelClient):
        def asks_for(self) -> list[str]:
            return []

    result = judge(case_id, Stock)
    assert result.verdict is Verdict.SKIP
    assert "does not ask for" in result.reason


def test_who_waits_for_ever_gives_nothing_up() -> None:
    class Patient(ModelClient):
        def watch(self, job_ids: list[object]) -> None:
            """Not."""

    result = judge("ORB-EXT-62", Patient)
    assert result.verdict is Verdict.SKIP
    assert "gives no job up" in result.reason


@pytest.mark.parametrize("case_id", TestClientExtensions.CASES[2:])
def test_who_is_known_to_submit_no_more_is_not_asked_to(case_id: str) -> None:
    stage = ClientStage(
        SimulatedWorld(ModelClient()), Conditions(), collections.Counter(), habits=Habits(goes_on=False)
    )
    case = suite.all_cases()[case_id]
    case.play(stage, case.examples[0])
    assert not any(event.kind == "x" and "1000" in event.text for event in stage.log.events())

"""What clients live through: who does passes, who falls over is told how."""

from __future__ import annotations

from typing import Any, ClassVar

from wsproto.events import CloseConnection

from orbtrio.conformance.model import Verdict
from orbtrio.conformance.zoo.client import ModelClient
from tests.conformance.cases.client_judging import Brief, ClientCases, complaint, judge


class TestClientLives(ClientCases):
    CASES = tuple(f"ORB-CLI-{number:02}" for number in range(7, 11))
    VERDICTS: ClassVar = {("ORB-CLI-07", "spec"): Verdict.INFO, ("ORB-CLI-09", "spec"): Verdict.INFO}
    SAYS: ClassVar = {
        "unknown-type-ends-it": "closed with 1002",
        "unknown-job-crashes": "process ended",
        "strict-answers": "submits jobs after strange messages (",
        "hammers": "6 attempts within",
        "steady-pause": "pauses that do not grow",
        "only-the-newest-again": "some of what was not answered is submitted again, some is not",
        "answered-jobs-again": "jobs that were answered are submitted again",
        "error-crashes": "process ended",
        "stops-at-an-error": "jobs failed, as it did before; seen: none",
        "good-bye-at-an-error": "it says good-bye while it has open jobs",
    }


def test_a_program_that_ends_when_it_has_what_it_wants_is_no_failure() -> None:
    assert judge("ORB-CLI-08", Brief).reading == judge("ORB-CLI-09", Brief).reading == "ends"
    for case_id in ("ORB-CLI-07", "ORB-CLI-10"):
        # Once it was found out that it does not go on, it is gone, and nobody starts it again here.
        assert "use --launch" in judge(case_id, Brief).reason


def test_jobs_that_cannot_be_told_apart_are_nobodys_fault() -> None:
    class Alike(ModelClient):
        def input_for(self, number: int, resources: list[dict[str, Any]]) -> dict[str, Any]:
            return {"text": "hello"}

        def resources_for(self, number: int) -> list[dict[str, Any]]:
            return []

        def jobs_to_repeat(self) -> list[Any]:
            self.waiting.clear()
            return []

    assert judge("ORB-CLI-09", Alike).reading == "alike"


def test_a_client_that_forgets_its_jobs_is_read_so() -> None:
    class Forgets(ModelClient):
        def jobs_to_repeat(self) -> list[Any]:
            self.waiting.clear()
            return []

    assert judge("ORB-CLI-09", Forgets).reading == "never"


def test_who_leaves_with_its_last_answer_lives_through_everything() -> None:
    class TwoLives(Brief):
        def lose(self) -> None:
            if self.numbers == 1:
                self.numbers = 2
                self.host.call_at(self.host.now() + 0.1, self.again)

        def again(self) -> None:
            self.numbers = 0
            self.connect()

    for case_id in ("ORB-CLI-07", "ORB-CLI-10"):
        assert judge(case_id, TwoLives).verdict is Verdict.PASS


def test_who_closes_with_another_code_has_fallen_over() -> None:
    class FallsOver(ModelClient):
        def on_answer(self, job_id: Any, output: Any) -> None:
            if "error" in output:
                self.send_event(CloseConnection(1011))
                self.lose()

    assert "closed with 1011" in complaint("ORB-CLI-10", FallsOver)

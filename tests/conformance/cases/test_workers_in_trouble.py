"""Workers in trouble: the model gets through, and who does not is noticed and named."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, ClassVar

import pytest
from wsproto.events import CloseConnection, Event, TextMessage

from orbtrio.conformance import suite
from orbtrio.conformance.model import Level, Verdict
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.worker_bench import Bench
from orbtrio.conformance.worker_stage import WorkerStage
from orbtrio.conformance.zoo.worker import ModelWorker
from tests.conformance.cases.worker_judging import WorkerCases, judge

if TYPE_CHECKING:
    from pathlib import Path


class TestWorkersInTrouble(WorkerCases):
    CASES = tuple(f"ORB-WRK-{number:02}" for number in range(9, 16))
    EXAMPLES = 12
    SAYS: ClassVar = {
        "worker-dies-on-junk": "the target's process ended",
        "worker-deaf-after-junk": "no answer, and the link is open",
        "worker-hangs-up-on-junk": "it drops the link, and comes back",
        "worker-never-comes-back": "registers again within 60 s of RST in its link; seen: nothing",
        "worker-hot-loop": "it connects again at once, over and over",
        "worker-constant-wait": "it waits for the same time again and again",
        "worker-waits-for-minutes": "registers again within 60 s of",
        "worker-registers-anew": '"max_batch_size": 32',
        "worker-old-answers": "carries answers to its own jobs only",
        "worker-dies-on-missing-file": "the target's process ended",
        "worker-makes-up-missing-file": "answered by an error",
        "worker-deaf-to-pings": "a ping is answered within 5 s",
        "worker-deletes-files": "it is gone",
        "worker-writes-files": "has the bytes that it had",
    }


@pytest.mark.parametrize(
    ("fault", "reading", "verdict"),
    [
        ("worker-constant-wait", "constant", Verdict.PASS),
        ("worker-hot-loop", "at once", Verdict.NON_STRICT),
    ],
)
def test_the_spec_allows_its_own_worker_to_wait_as_it_does(
    fault: str, reading: str, verdict: Verdict, tmp_path: Path
) -> None:
    result = judge("ORB-WRK-10", tmp_path, fault, profile="spec")
    assert (result.verdict, result.reading) == (verdict, reading)


class RefusesText(ModelWorker):
    def on_event(self, event: Event) -> None:
        if isinstance(event, TextMessage):
            self.send_event(CloseConnection(1003, "binary messages only"))
            self.link.close()
            self.lose()
        else:
            super().on_event(event)


def test_text_may_be_refused(tmp_path: Path) -> None:
    world = SimulatedWorld(RefusesText("secret"))
    stage = WorkerStage(
        world,
        Conditions(secret="secret"),
        collections.Counter(),
        Bench(folder=tmp_path, worker_type="embedding", job_seconds=1.0),
        nonce="job",
    )
    case = suite.all_cases()["ORB-WRK-09"]
    assert case.play(stage, {"junk": ["a text frame"]}) == "refuses text"


def test_a_worker_that_answers_for_a_lost_link_weighs_should(tmp_path: Path) -> None:
    assert judge("ORB-WRK-12", tmp_path, "worker-old-answers").level is Level.SHOULD


@pytest.mark.parametrize("case_id", ["ORB-WRK-13", "ORB-WRK-15"])
def test_a_worker_that_reads_no_files_is_skipped(case_id: str, tmp_path: Path) -> None:
    result = judge(case_id, tmp_path, worker_type="llm")
    assert result.verdict is Verdict.SKIP
    assert "--inputs" in result.reason

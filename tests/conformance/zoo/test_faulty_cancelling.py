"""Each fault about cancelling differs from the model in something that its cases are about, and not more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orbtrio.conformance.model import Role
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.zoo import faulty_cancelling
from tests.conformance.zoo.differing import FaultTests, faults_of
from tests.conformance.zoo.speaking import SECRET, answer, client, request, worker

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.zoo.mutants import Mutant


class TestFaultyCancelling(FaultTests):
    MODULE = faulty_cancelling
    ROLE = Role.ENGINE


@pytest.mark.parametrize("known", faults_of(faulty_cancelling, Role.ENGINE))
def test_whatever_is_wrong_with_cancelling_other_jobs_are_done(known: Mutant, tmp_path: Path) -> None:
    world = SimulatedWorld(known.faulty(tmp_path, secret=SECRET))
    asker, other = client(world, "cancel", "engine_errors"), client(world)
    asker.say(request("queued", worker_type="vlm"))
    one, stock = worker(world, extensions=["cancel", "progress"]), worker(world, "caption")
    timed = request("timed", "held")
    timed["jobs"][0]["timeout_ms"] = 1000
    asker.say(timed)
    asker.say(request("at a stock worker", worker_type="caption"))
    one.say({"type": "worker_progress", "progress": [{"id": "nobody's"}]})
    world.wait(1.5)
    for name in ("held", "at a stock worker", "queued", "unheard of"):
        asker.say({"type": "cancel_request", "job_ids": [name]})
    other.say(request("ordinary", worker_type="caption"))
    answer(stock, *(job["id"] for message in stock.messages for job in message.get("inputs", ())))
    assert [message["job_id"] for message in other.messages] == ["ordinary"]

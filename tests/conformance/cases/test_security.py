"""The security cases pass where all is right, and say what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import cbor2
import pytest
from wsproto.events import BytesMessage

from orbtrio.conformance.cases import corpus
from orbtrio.conformance.model import Verdict, Violation, catalogue
from orbtrio.conformance.zoo import wire
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.wire import Refused
from tests.conformance.cases.judging import EngineCases, stage_around

if TYPE_CHECKING:
    from pathlib import Path

    from wsproto.events import Request

    from orbtrio.conformance.zoo.dispatch import Client, Job
    from orbtrio.conformance.zoo.files import Resource
    from orbtrio.conformance.zoo.wire import Connection


class TestSecurity(EngineCases):
    CASES = ("ORB-SEC-01", "ORB-SEC-02", "ORB-SEC-03", "ORB-SEC-04", "ORB-SEC-05")
    VERDICTS: ClassVar = {("ORB-SEC-04", "spec"): Verdict.INFO, ("ORB-SEC-05", "spec"): Verdict.INFO}
    SAYS: ClassVar = {
        "everybodys-answers": "hears nothing",
        "resources-for-everybody": "path of that file",
        "undecodable-crashes": "goes on running",
        "one-stuck-worker-stops-all": "does not read",
        "hundred-connections": "",
    }


@pytest.fixture(autouse=True)
def _small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    # The model counts a message's items in Python: with its own budget each huge message takes half a second.
    monkeypatch.setattr(wire, "MAX_ITEMS", 20_000)


class Lenient(ModelEngine):
    """Reads what it can of a message and ignores the rest."""

    def decode(self, data: bytes) -> dict[str, Any]:
        try:
            message = cbor2.loads(data)
        except Exception:
            message = {}
        return message if type(message) is dict else {}


class Touchy(ModelEngine):
    """Closes with 1002 whatever it closes, and closes for everything that it does not know."""

    def on_message(self, connection: Connection, message: dict[str, Any]) -> None:
        if message.get("type") not in ("i_am_worker", "i_am_server", "worker_request", "worker_output"):
            raise Refused("not a message of this role")
        super().on_message(connection, message)

    def close_code_for(self, problem: str) -> int:
        return 1002


@pytest.mark.parametrize(
    ("engine", "attack", "reading"),
    [
        (Lenient, ["B-24 a message and a byte", "stranger"], "kept"),
        (Lenient, ["B-23 nothing at all", "worker"], "kept"),
        (Touchy, ["B-71 an unknown message, client", "client"], "cut"),
        (Touchy, ["B-23 nothing at all", "stranger"], "other endings"),
        (ModelEngine, ["B-23 nothing at all", "stranger"], "as required"),
    ],
)
def test_how_attackers_end_is_a_reading(
    engine: type[ModelEngine], attack: list[str], reading: str, tmp_path: Path
) -> None:
    stage = stage_around(engine, tmp_path)
    assert catalogue()["ORB-SEC-03"].play(stage, {"attacks": [attack], "noise": []}) == reading


def test_the_fixed_examples_go_through_the_whole_corpus() -> None:
    played = [attack for plan in catalogue()["ORB-SEC-03"].examples for attack in plan["attacks"]]
    assert sorted(played) == sorted(corpus.attacks())


class Forwards(ModelEngine):
    """Sends a worker text where jobs should be, whenever an attacker registers."""

    def add_client(self, connection: Connection, message: dict[str, Any]) -> Client:
        for worker in self.workers:
            self.send_event(worker.connection, BytesMessage(data=b"\x1c"))
        return super().add_client(connection, message)


class DropsJobs(ModelEngine):
    """Forgets the jobs of everybody when a message cannot be decoded."""

    def decode(self, data: bytes) -> dict[str, Any]:
        try:
            return super().decode(data)
        except Refused:
            self.jobs.clear()
            raise


@pytest.mark.parametrize(
    ("engine", "seen"), [(Forwards, "was sent"), (DropsJobs, "1 were not")], ids=["forwards", "drops jobs"]
)
def test_bystanders_must_not_notice(engine: type[ModelEngine], seen: str, tmp_path: Path) -> None:
    stage = stage_around(engine, tmp_path)
    attack = ["B-23 nothing at all", "client"]
    with pytest.raises(Violation) as violation:
        catalogue()["ORB-SEC-03"].play(stage, {"attacks": [attack], "noise": [["client", 1]]})
    assert seen in violation.value.seen


class KeepsReferences(ModelEngine):
    """Hands on references that it does not know."""

    def check_references(self, resources: dict[str, Resource], referenced: set[str]) -> None:
        super().check_references(resources, referenced & resources.keys())


@pytest.mark.parametrize(
    ("plan", "engine", "reading"),
    [
        ({"id": "a", "shape": "nested", "resources": "own"}, ModelEngine, "1009"),
        ({"id": "a", "shape": "plain", "resources": "absent"}, KeepsReferences, "passed on"),
        ({"id": "a", "shape": "extra fields", "resources": "empty"}, ModelEngine, "no reference"),
    ],
)
def test_what_becomes_of_a_stolen_reference_is_a_reading(
    plan: dict[str, Any], engine: type[ModelEngine], reading: str, tmp_path: Path
) -> None:
    stage = stage_around(engine, tmp_path)
    assert catalogue()["ORB-SEC-02"].play(stage, plan) == reading


class MixesUp(ModelEngine):
    """Gives each answer to the client that asked last under that job_id."""

    def answer(self, client: Client, job: Job, entry: dict[str, Any]) -> None:
        key = cbor2.dumps(job.client_id)
        super().answer(
            [other for other in self.clients if key in other.open or other is client][-1], job, entry
        )


def test_answers_of_others_are_told_from_ones_own(tmp_path: Path) -> None:
    plan = {"clients": 2, "ids": ["same"], "size": 1, "order": 0}
    with pytest.raises(Violation):
        catalogue()["ORB-SEC-01"].play(stage_around(MixesUp, tmp_path), plan)


class FewConnections(ModelEngine):
    """Refuses idle connections, but never those that say what they are."""

    def on_request(self, connection: Connection, request: Request) -> None:
        strangers = sum(other.role is None for other in self.connections.values())
        if strangers > 30:
            self.drop(next(other for other in self.connections.values() if other.role is None))
        super().on_request(connection, request)


def test_idle_connections_may_be_refused(tmp_path: Path) -> None:
    stage = stage_around(FewConnections, tmp_path)
    assert catalogue()["ORB-SEC-05"].play(stage, {"silent": 40, "clients": 0}) == "some refused"

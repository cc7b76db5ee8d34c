"""Judges one case against a client of the zoo, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsproto.events import CloseConnection

from orbtrio.conformance.client_target import SimulatedClient
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.zoo.client import ModelClient
from orbtrio.conformance.zoo.mutants import mutants
from tests.conformance.cases import case_tests
from tests.conformance.cases.case_tests import CaseTests, judge_target

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.model import CaseResult


def judge(
    case_id: str,
    client: type[ModelClient] = ModelClient,
    *,
    profile: str = "hardened",
    token: str | None = None,
) -> CaseResult:
    target = SimulatedClient("zoo", Conditions(token=token), lambda: SimulatedWorld(client(token)))
    return judge_target(target, case_id, profile, examples=4)


def complaint(case_id: str, client: type[ModelClient], **options: Any) -> str:
    """What the case says of a client that is wrong."""
    return case_tests.complaint(judge(case_id, client, **options))


class ClientCases(CaseTests):
    """Of clients."""

    def judge_model(self, case_id: str, profile: str, folder: Path) -> CaseResult:
        return judge(case_id, profile=profile)

    def judge_fault(self, name: str, case_id: str, folder: Path) -> CaseResult:
        return judge(case_id, mutants()[name].faulty)


class Brief(ModelClient):
    """Submits two jobs, and leaves when they are answered; says nothing of itself."""

    def introduction(self) -> dict[str, Any] | None:
        return None

    def resources_for(self, number: int) -> list[dict[str, Any]]:
        return []

    def submit(self) -> None:
        if self.numbers == 0:
            super().submit()
            self.numbers = 1
        elif not self.waiting:
            self.send_event(CloseConnection(1000))

    def lose(self) -> None:
        """Gone for good."""


class Mute(ModelClient):
    """Connects, and has nothing to say."""

    def on_open(self) -> None:
        """Nothing."""

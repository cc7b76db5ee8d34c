"""Judges one case against a client of the zoo, in virtual time."""

from __future__ import annotations

from typing import Any

from wsproto.events import CloseConnection

import orbtrio.conformance.cases.client_lives
import orbtrio.conformance.cases.clients  # noqa: F401
from orbtrio.conformance.client_target import SimulatedClient
from orbtrio.conformance.model import CaseResult, Verdict, catalogue
from orbtrio.conformance.profiles import load_profile
from orbtrio.conformance.runner import Runner
from orbtrio.conformance.search import Options
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.zoo.client import ModelClient
from orbtrio.conformance.zoo.mutants import mutants


def judge(
    case_id: str,
    client: type[ModelClient] = ModelClient,
    *,
    profile: str = "hardened",
    token: str | None = None,
) -> CaseResult:
    target = SimulatedClient("zoo", Conditions(token=token), lambda: SimulatedWorld(client(token)))
    options = Options(seed=7, examples=4, seconds=60, shrink_seconds=1, repetitions=1)
    return Runner(target, load_profile(profile), options).judge(catalogue()[case_id], 60)


def complaint(case_id: str, client: type[ModelClient], **options: Any) -> str:
    """What the case says of a client that is wrong."""
    result = judge(case_id, client, **options)
    assert result.verdict is Verdict.FAIL, f"{client.__name__}: {result.verdict}, {result.reading}"
    assert result.counterexample is not None
    return f"{result.counterexample.expected}; seen: {result.counterexample.seen}"


def complaint_about(name: str, case_id: str) -> str:
    """What it says of a fault of the zoo."""
    return complaint(case_id, mutants()[name].faulty)


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

"""Judges one case against an engine of the zoo, in virtual time."""

from __future__ import annotations

import collections
import itertools
from typing import TYPE_CHECKING, ClassVar

from orbtrio.conformance.engine_stage import EngineStage
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.targets import SimulatedEngine
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutants
from tests.conformance.cases.case_tests import RULINGS, CaseTests, judge_target

if TYPE_CHECKING:
    from pathlib import Path

    from orbtrio.conformance.model import CaseResult


def judge(
    case_id: str,
    root: Path,
    *,
    profile: str = "hardened",
    engine: type[ModelEngine] = ModelEngine,
    examples: int = 3,
    conditions: Conditions | None = None,
) -> CaseResult:
    conditions = conditions or Conditions()
    numbers = itertools.count()

    def world() -> SimulatedWorld:
        store = root / str(next(numbers))
        store.mkdir(parents=True)
        return SimulatedWorld(engine(store, secret=conditions.secret))

    return judge_target(SimulatedEngine("zoo", conditions, world), case_id, profile, examples)


def quiet(engine: type[ModelEngine]) -> type[ModelEngine]:
    """One that sends no pings: minutes of virtual time have many, for cases that are not about them."""
    return type("Quiet", (engine,), {"keepalive_seconds": 1e9})


def stage_around(engine: type[ModelEngine], root: Path) -> EngineStage:
    """To play a single plan on."""
    conditions = Conditions()
    world = SimulatedWorld(engine(root, secret=conditions.secret))
    return EngineStage(world, conditions, collections.Counter(), nonce="plan")


class EngineCases(CaseTests):
    """Of engines.

    Attributes:
        EXAMPLES: How many plans are drawn for the model.
        FAULT_EXAMPLES: How many for a fault.
        FAULT_PROFILE: What a fault is judged by.
        BY_RULING: Faults that are none by the text of the spec: they are judged by "orbtrio".
        PINGS: Whether the engines send any, see `quiet`.
    """

    EXAMPLES: ClassVar[int] = 3
    FAULT_EXAMPLES: ClassVar[int] = 6
    FAULT_PROFILE: ClassVar[str] = "hardened"
    BY_RULING: ClassVar[frozenset[str]] = frozenset()
    PINGS: ClassVar[bool] = True

    def engine(self, engine: type[ModelEngine]) -> type[ModelEngine]:
        return engine if self.PINGS else quiet(engine)

    def judge_model(self, case_id: str, profile: str, folder: Path) -> CaseResult:
        engine = self.engine(ModelEngine)
        return judge(case_id, folder, profile=profile, engine=engine, examples=self.EXAMPLES)

    def judge_fault(self, name: str, case_id: str, folder: Path) -> CaseResult:
        profile = "orbtrio" if name in self.BY_RULING else self.FAULT_PROFILE
        engine = self.engine(mutants()[name].faulty)
        return judge(case_id, folder, profile=profile, engine=engine, examples=self.FAULT_EXAMPLES)


class ExtensionCases(EngineCases):
    """Of engines with extensions."""

    PROFILES = RULINGS
    EXAMPLES = 6

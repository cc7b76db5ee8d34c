"""Judges one case against an engine of the zoo, in virtual time."""

from __future__ import annotations

import collections
import itertools
from typing import TYPE_CHECKING

from orbtrio.conformance.engine_stage import EngineStage
from orbtrio.conformance.model import CaseResult, Verdict, catalogue
from orbtrio.conformance.profiles import load_profile
from orbtrio.conformance.runner import Runner
from orbtrio.conformance.search import Options
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.targets import SimulatedEngine
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutants

if TYPE_CHECKING:
    from pathlib import Path


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

    target = SimulatedEngine("zoo", conditions, world)
    options = Options(seed=7, examples=examples, seconds=60, shrink_seconds=1, repetitions=1)
    return Runner(target, load_profile(profile), options).judge(catalogue()[case_id], 60)


def quiet(engine: type[ModelEngine]) -> type[ModelEngine]:
    """One that sends no pings: minutes of virtual time have many, for cases that are not about them."""
    return type("Quiet", (engine,), {"keepalive_seconds": 1e9})


def stage_around(engine: type[ModelEngine], root: Path) -> EngineStage:
    """To play a single plan on."""
    conditions = Conditions()
    world = SimulatedWorld(engine(root, secret=conditions.secret))
    return EngineStage(world, conditions, collections.Counter(), nonce="plan")


def faults_for(*case_ids: str) -> list[tuple[str, str]]:
    """The zoo's faults that these cases have to notice: name and case."""
    return [
        (name, case_id) for case_id in case_ids for name, known in mutants().items() if case_id in known.kills
    ]


def complaint(name: str, case_id: str, root: Path) -> str:
    """What the case says of the fault."""
    result = judge(case_id, root, engine=mutants()[name].faulty, examples=6)
    assert result.verdict is Verdict.FAIL, f"{name}: {result.verdict}, {result.reading}"
    assert result.counterexample is not None
    return f"{result.counterexample.expected}; seen: {result.counterexample.seen}"

"""The suite against its zoo: each faulty program must be found, and the right one left alone.

Everything happens in virtual time, so the whole matrix, each faulty engine against each case, takes minutes.
Three things are demanded: the model passes every case under every profile; every mutant is killed, and by a
case that it names; every case that weighs MUST kills a mutant that no other case kills, or stands in `SHARED`
with the reason why it does not.
"""

from __future__ import annotations

import csv
import fnmatch
import functools
import itertools
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from orbtrio.conformance import suite
from orbtrio.conformance.client_target import SimulatedClient
from orbtrio.conformance.examples import TYPE_EXAMPLES
from orbtrio.conformance.model import Level, Role, Verdict
from orbtrio.conformance.profiles import load_profile
from orbtrio.conformance.runner import Runner
from orbtrio.conformance.search import Options
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.targets import SimulatedEngine
from orbtrio.conformance.worker_bench import Bench
from orbtrio.conformance.worker_target import SimulatedWorker
from orbtrio.conformance.zoo.client import ModelClient
from orbtrio.conformance.zoo.mutants import compose, mutants
from orbtrio.conformance.zoo.worker import ModelWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orbtrio.conformance.model import CaseResult
    from orbtrio.conformance.runner import Environment
    from orbtrio.conformance.world import World

__all__ = ["SHARED", "Kills", "Selftest", "zoo_client", "zoo_engine", "zoo_worker"]

# Plans for a case against one mutant: its fixed examples, and some.
_EXAMPLES: Final = 4
_PROFILE: Final = "hardened"

# Cases that weigh MUST and kill nothing alone, with the reason.
SHARED: Final[dict[str, str]] = {}


@attrs.frozen(kw_only=True)
class Kills:
    """Who noticed a mutant.

    Attributes:
        mutant: Its name; empty for the model.
        by: Cases that failed.
        doubtful: Cases that could not be judged.
    """

    mutant: str
    by: tuple[str, ...]
    doubtful: tuple[str, ...] = ()


def zoo_engine(names: tuple[str, ...], folder: Path) -> SimulatedEngine:
    """The model engine with these faults, as a target; its files go below a folder."""
    conditions = Conditions()
    model = compose(names)
    numbers = itertools.count()

    def make_world() -> World:
        root = folder / str(next(numbers))
        root.mkdir()
        return SimulatedWorld(model(root, secret=conditions.secret))

    return SimulatedEngine(" + ".join(names) or "the model engine", conditions, make_world)


def zoo_worker(names: tuple[str, ...], folder: Path, worker_type: str | None = None) -> SimulatedWorker:
    """The model worker with these faults, as a target, of the type that the faults are about."""
    conditions = Conditions()
    model = compose(names, ModelWorker)
    worker_type = worker_type or model.worker_type
    bench = Bench(folder=folder, worker_type=worker_type, job_seconds=model.job_seconds)

    def make_world() -> World:
        return SimulatedWorld(model(conditions.secret, worker_type=worker_type))

    return SimulatedWorker(" + ".join(names) or "the model worker", conditions, bench, make_world)


def zoo_client(names: tuple[str, ...], folder: Path) -> SimulatedClient:
    """The model client with these faults, as a target; it has no files."""
    model = compose(names, ModelClient)
    return SimulatedClient(
        " + ".join(names) or "the model client", Conditions(), lambda: SimulatedWorld(model())
    )


_ZOO: Final[Mapping[Role, Callable[[tuple[str, ...], Path], Environment]]] = {
    Role.ENGINE: zoo_engine,
    Role.WORKER: zoo_worker,
    Role.CLIENT: zoo_client,
}


class Selftest:
    """One run of the whole zoo.

    Args:
        patterns: Only these mutants; all if empty.
        matrix: Where to write who kills whom, as CSV.
    """

    def __init__(self, patterns: tuple[str, ...] = (), matrix: Path | None = None) -> None:
        self._patterns = patterns
        self._matrix = matrix

    def run(self, echo: Callable[[str], object]) -> int:
        """Run it, and say how it goes.

        Returns:
            0 if everything that is demanded holds, else 1.
        """
        wanted = [
            name
            for name in _of_roles()
            if not self._patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in self._patterns)
        ]
        complaints = []
        found: list[Kills] = []
        # Fresh interpreters: hypothesis and the catalogue are global to one.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as workers:
            right = workers.submit(_judge_model)
            for number, kills in enumerate(workers.map(_judge_mutant, wanted), 1):
                found.append(kills)
                named = mutants()[kills.mutant].kills
                mark = "killed" if set(kills.by) & set(named) else "WRONG" if kills.by else "ALIVE"
                echo(f"[{number}/{len(wanted)}] {mark:6} {kills.mutant} by {' '.join(kills.by) or 'nobody'}")
                if mark != "killed":
                    complaints.append(f"{kills.mutant} is not killed by {' or '.join(named)}")
            for profile, case_id, text in right.result():
                complaints.append(f"the model fails {case_id} under {profile}: {text}")
        if not self._patterns:
            complaints += _useless(found)
        if self._matrix is not None:
            _write_matrix(self._matrix, found)
        for complaint in complaints:
            echo(f"WRONG: {complaint}")
        killed = sum(bool(kills.by) for kills in found)
        echo(f"{killed} of {len(found)} mutants killed, {len(complaints)} complaints")
        return 1 if complaints else 0


def _of_roles() -> list[str]:
    return [name for role in Role for name in mutants(role)]


def _results(target: Environment, profile: str, examples: int) -> list[CaseResult]:
    options = Options(seed=0, examples=examples, seconds=3600, shrink_seconds=0, repetitions=0)
    runner = Runner(target, load_profile(profile), options)
    cases = [case for case in suite.all_cases().values() if case.role is target.role]
    return list(runner.run(cases).results)


def _judge_mutant(name: str) -> Kills:
    with tempfile.TemporaryDirectory(prefix="orb-zoo-") as folder:
        make: Callable[..., Environment]
        make = _ZOO[mutants()[name].role]
        results = _results(make((name,), Path(folder)), _PROFILE, _EXAMPLES)
    failed = [result for result in results if result.verdict is Verdict.FAIL and result.level is Level.MUST]
    doubtful = [result for result in results if result.verdict is Verdict.INCONCLUSIVE]
    return Kills(
        mutant=name,
        by=tuple(result.case.case_id for result in failed),
        doubtful=tuple(result.case.case_id for result in doubtful),
    )


def _judge_model() -> list[tuple[str, str, str]]:
    return [*_judge_right(zoo_engine), *_judge_right_workers(), *_judge_right(zoo_client)]


def _judge_right_workers() -> list[tuple[str, str, str]]:
    return [
        (profile, f"{case_id} as {worker_type}", text)
        for worker_type in TYPE_EXAMPLES
        for profile, case_id, text in _judge_right(functools.partial(zoo_worker, worker_type=worker_type))
    ]


def _judge_right(make: Callable[..., Environment]) -> list[tuple[str, str, str]]:
    complaints = []
    for profile in ("spec", "orbtrio", "hardened"):
        with tempfile.TemporaryDirectory(prefix="orb-zoo-") as folder:
            results = _results(make((), Path(folder)), profile, 3 * _EXAMPLES)
        for result in results:
            if result.verdict not in (Verdict.PASS, Verdict.INFO, Verdict.SKIP):
                found = result.counterexample
                text = f"expected {found.expected}; seen {found.seen}" if found else result.reason
                complaints.append((profile, result.case.case_id, f"{result.verdict.value}: {text}"))
    return complaints


def _useless(found: list[Kills]) -> list[str]:
    profile = load_profile(_PROFILE)
    must = [
        case.case_id
        for case in suite.all_cases().values()
        if profile.level(case) is Level.MUST and not profile.skip(case)
    ]
    alone = {kills.by[0] for kills in found if len(kills.by) == 1}
    complaints = [
        f"{case_id} kills no mutant that no other case kills: add one, or say in SHARED why not"
        for case_id in must
        if case_id not in alone and case_id not in SHARED
    ]
    complaints += [
        f"{case_id} stands in SHARED, but kills one alone" for case_id in SHARED if case_id in alone
    ]
    return complaints


def _write_matrix(path: Path, found: list[Kills]) -> None:
    case_ids = sorted({case_id for kills in found for case_id in kills.by})
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["mutant", *case_ids])
        for kills in found:
            table.writerow([kills.mutant, *("x" if case_id in kills.by else "" for case_id in case_ids)])

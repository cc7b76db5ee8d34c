"""The suite against its zoo: each faulty program must be found, and the right one left alone.

Everything happens in virtual time, so the whole matrix, each faulty engine against each case, takes minutes.
Three things are demanded: the model passes every case under every profile; every mutant is killed, and by a
case that it names; every case that weighs MUST kills a mutant that no other case kills, or stands in `SHARED`
with the reason why it does not.
"""

from __future__ import annotations

import csv
import fnmatch
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
    from collections.abc import Callable, Iterable, Mapping

    from orbtrio.conformance.model import Case, CaseResult, SuiteResult
    from orbtrio.conformance.runner import Environment
    from orbtrio.conformance.world import World

__all__ = ["SHARED", "Kills", "Selftest", "zoo_client", "zoo_engine", "zoo_worker"]

# Plans for a case against one mutant: its fixed examples, and some.
_EXAMPLES: Final = 4
_PROFILE: Final = "hardened"

# A thousand jobs, or hundreds of attacks, in each plan.
_EXPENSIVE: Final = frozenset({"ORB-BAT-10", "ORB-BAT-11", "ORB-SEC-03"})

# Cases that look at everything at once. That they notice a fault, too, says nothing against the case that
# names it; and of them nobody demands that they are the only one.
_NETS: Final = frozenset({"ORB-CNV-01", "ORB-CNV-02", "ORB-CNV-03", "ORB-CNV-04", "ORB-SEC-03", "ORB-WRK-25"})

# Who is wrong about what every peer meets has to be found by a peer that asks for nothing: most engines
# announce no extensions. So faults about extensions, and all others, are judged by cases of their own.
_EXTENSIONS: Final = "ORB-EXT-"

# Cases that weigh MUST and kill nothing alone, with the reason.
SHARED: Final[dict[str, str]] = {
    "ORB-REG-01": "whoever cannot register, or is sent what is no batch, spoils every case with a worker",
    "ORB-REG-05": "ORB-HSK-03 provokes each refusal to see its code, that of an unknown type among them",
    "ORB-BAT-02": "a batch of another size is also not the full one, or the rest, that others wait for",
    "ORB-BAT-03": "a full batch that waits is late for every case that measures a full one",
    "ORB-BAT-04": "jobs that stay behind are missed wherever more jobs are sent than a batch holds",
    "ORB-BAT-05": "an empty batch is a message that ORB-REG-01 does not allow while there are no jobs",
    "ORB-BAT-07": "two jobs of one id are told apart by nobody, neither here nor in ORB-SEC-01",
    "ORB-BAT-09": "order is also what sessions rely on (ORB-SES-02) and what leftovers keep (ORB-BAT-04)",
    "ORB-BAT-13": "without a second batch each case starves that leaves the first unanswered",
    "ORB-OUT-01": "an answer too many, or for everybody, disturbs each case that counts answers",
    "ORB-OUT-03": "answers in several messages (ORB-OUT-08) come out of order, too",
    "ORB-OUT-04": "a second answer is a late one: ORB-OUT-12 and the timeouts see it as well",
    "ORB-OUT-05": "the late answer of a former owner (ORB-OUT-12) is that of a stranger",
    "ORB-OUT-06": "ORB-OUT-10 has unknown ids among its bad entries",
    "ORB-OUT-08": "ORB-OUT-09 answers job by job",
    "ORB-OUT-09": "ORB-TMO-02 uses an identifier again",
    "ORB-OUT-12": "an answer is late because its job was done, or because its time was over: ORB-TMO-02",
    "ORB-RES-01": "without a path that can be read no case about files has anything to look at",
    "ORB-RES-14": "ORB-SEC-02 hides its references deeply",
    "ORB-TMO-02": "the other half of ORB-OUT-12",
    "ORB-REC-03": "jobs without a successor are also lost to ORB-REC-06, in which all workers go",
    "ORB-MUL-01": "who feeds one worker only stops when that is stuck: ORB-MUL-03",
    "ORB-MUL-02": "a job at the wrong worker is missed by each case in which it waits for the right one",
    "ORB-MUL-03": "see ORB-MUL-01",
    "ORB-SEC-01": "an answer for everybody disturbs each case that counts answers",
    "ORB-SEC-04": "who waits for one worker waits for that of ORB-BAT-10, which leaves a thousand jobs",
}


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

    def make_world() -> World:
        root = Path(tempfile.mkdtemp(dir=folder))
        return SimulatedWorld(model(root, secret=conditions.secret))

    return SimulatedEngine(" + ".join(names) or "the model engine", conditions, make_world)


def zoo_worker(names: tuple[str, ...], folder: Path, worker_type: str | None = None) -> SimulatedWorker:
    """The model worker with these faults, as a target, of the type that the faults are about."""
    conditions = Conditions()
    model = compose(names, ModelWorker)
    worker_type = worker_type or model.worker_type
    bench = Bench(folder=folder, worker_type=worker_type, job_seconds=model.job_seconds)

    def make_world() -> SimulatedWorld:
        return SimulatedWorld(model(conditions.secret, worker_type=worker_type))

    return SimulatedWorker(" + ".join(names) or "the model worker", conditions, bench, make_world)


def zoo_client(names: tuple[str, ...], folder: Path) -> SimulatedClient:
    """The model client with these faults, as a target; it has no files."""
    model = compose(names, ModelClient)
    return SimulatedClient(
        " + ".join(names) or "the model client", Conditions(), lambda: SimulatedWorld(model())
    )


_ZOO: Final[Mapping[Role, Callable[..., Environment]]] = {
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
            right = workers.map(_judge_right, _right_programs())
            for number, kills in enumerate(workers.map(_judge_mutant, wanted), 1):
                found.append(kills)
                named = mutants()[kills.mutant].kills
                mark = "killed" if set(kills.by) & set(named) else "WRONG" if kills.by else "ALIVE"
                echo(f"[{number}/{len(wanted)}] {mark:6} {kills.mutant} by {' '.join(kills.by) or 'nobody'}")
                if mark != "killed":
                    complaints.append(f"{kills.mutant} is not killed by {' or '.join(named)}")
            for wrong in right:
                complaints += wrong
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


def _run(target: Environment, profile: str, examples: int, cases: Iterable[Case]) -> SuiteResult:
    options = Options(seed=0, examples=examples, seconds=3600, shrink_seconds=0, repetitions=0)
    return Runner(target, load_profile(profile), options).run(cases)


# The expensive cases are played only where they can make a difference: where they are to find the mutant, and
# where they could be the second to find it.
def _judge_mutant(name: str) -> Kills:
    mutant = mutants()[name]
    cases = [
        case
        for case in _cases_for(mutant.role)
        if _is_extension(case.case_id) == _is_extension(*mutant.kills)
    ]
    cheap = [case for case in cases if case.case_id not in _EXPENSIVE or case.case_id in mutant.kills]
    with tempfile.TemporaryDirectory(prefix="orb-zoo-") as folder:
        target = _ZOO[mutant.role]((name,), Path(folder))
        results = list(_run(target, _PROFILE, _EXAMPLES, cheap).results)
        if sum(_is_kill(result) and result.case.case_id not in _NETS for result in results) <= 1:
            rest = [case for case in cases if case not in cheap and case.case_id not in _NETS]
            results += _run(target, _PROFILE, _EXAMPLES, rest).results
    return Kills(
        mutant=name,
        by=tuple(result.case.case_id for result in results if _is_kill(result)),
        doubtful=tuple(result.case.case_id for result in results if result.verdict is Verdict.INCONCLUSIVE),
    )


def _is_extension(*case_ids: str) -> bool:
    return any(case_id.startswith(_EXTENSIONS) for case_id in case_ids)


def _is_kill(result: CaseResult) -> bool:
    return result.verdict is Verdict.FAIL


def _cases_for(role: Role) -> list[Case]:
    return [case for case in suite.all_cases().values() if case.role is role]


# Workers are right as each of the documented types.
def _right_programs() -> list[tuple[Role, str | None, str]]:
    kinds: list[tuple[Role, str | None]] = [(Role.ENGINE, None), (Role.CLIENT, None)]
    kinds += [(Role.WORKER, worker_type) for worker_type in TYPE_EXAMPLES]
    return [(*kind, profile) for kind in kinds for profile in ("spec", "orbtrio", "hardened")]


def _judge_right(program: tuple[Role, str | None, str]) -> list[str]:
    role, worker_type, profile = program
    with tempfile.TemporaryDirectory(prefix="orb-zoo-") as folder:
        options = {} if worker_type is None else {"worker_type": worker_type}
        target = _ZOO[role]((), Path(folder), **options)
        run = _run(target, profile, 3 * _EXAMPLES, _cases_for(role))
    what = f"{target.description} under {profile}"
    complaints = []
    for result in run.results:
        if result.verdict not in (Verdict.PASS, Verdict.INFO, Verdict.SKIP):
            found = result.counterexample
            text = f"expected {found.expected}; seen {found.seen}" if found else result.reason
            complaints.append(f"{what}: {result.case.case_id} {result.verdict.value}: {text}")
    if role is Role.ENGINE:
        complaints += [
            f"{what}: no plan reached the state {counter!r}"
            for counter in suite.COUNTERS
            if not run.counters.get(counter)
        ]
    return complaints


def _useless(found: list[Kills]) -> list[str]:
    profile = load_profile(_PROFILE)
    must = [
        case.case_id
        for case in suite.all_cases().values()
        if profile.level(case) is Level.MUST and not profile.skip(case) and case.case_id not in _NETS
    ]
    alone = {by[0] for kills in found if len(by := [name for name in kills.by if name not in _NETS]) == 1}
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

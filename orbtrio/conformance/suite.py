"""From what a user asked for to a judged run: which cases, against what, told to whom.

What the command line and the pytest plugin have in common.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
import ipaddress
import pkgutil
import random
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs

from orbtrio.conformance import cases as cases_package
from orbtrio.conformance import spec
from orbtrio.conformance.model import catalogue
from orbtrio.conformance.profiles import load_profile, validate
from orbtrio.conformance.report import CounterexampleError, load_counterexample, write_report
from orbtrio.conformance.runner import Runner
from orbtrio.conformance.search import Options
from orbtrio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orbtrio.conformance.model import Case, Plan, Role, SuiteResult
    from orbtrio.conformance.runner import Environment, Reporter

__all__ = [
    "COUNTERS",
    "Wanted",
    "all_cases",
    "check_host",
    "draw_seed",
    "known_counterexamples",
    "make_runner",
    "parse_address",
    "run",
    "select",
]

# States that a run against an engine should reach: one that does not has not seen what matters.
COUNTERS: Final = (
    "redelivery",
    "late answer",
    "full queue",
    "partial batch by timer",
    "full batch",
    "client loss with files",
    "timeout while a worker holds the job",
    "two open batches",
)


@attrs.frozen(kw_only=True)
class Wanted:
    """What a user asked for.

    Attributes:
        profile: Name of a profile, or a file.
        cases: Patterns of identifiers; all if empty.
        exclude: Patterns of those to leave out.
        seed: Of the plans; drawn if None.
        examples: Most plans for a case.
        seconds: For the whole run, about.
        report: Folder for the report; known counterexamples in it are tried first.
    """

    profile: str = "spec"
    cases: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    seed: int | None = None
    examples: int = 200
    seconds: float = 60.0
    report: Path | None = None


def all_cases() -> Mapping[str, Case]:
    """The whole catalogue, in the order of areas and numbers."""
    for module in pkgutil.iter_modules(cases_package.__path__):
        importlib.import_module(f"{cases_package.__name__}.{module.name}")
    areas = list(dict.fromkeys(case.area for case in catalogue().values()))
    order = [area for area in _AREAS if area in areas] + [area for area in areas if area not in _AREAS]
    return {
        case.case_id: case
        for case in sorted(catalogue().values(), key=lambda case: (order.index(case.area), case.case_id))
    }


_AREAS: Final = (
    *("HSK", "REG", "BAT", "OUT", "RES", "TMO", "REC", "MUL", "SES", "SEC", "CNV", "WRK", "CLI", "EXT"),
)


def select(role: Role, wanted: Wanted) -> list[Case]:
    """The cases for a role that were asked for.

    Raises:
        ConfigError: a pattern fits none of them.
    """
    of_role = [case for case in all_cases().values() if case.role is role]
    for pattern in (*wanted.cases, *wanted.exclude):
        if not any(fnmatch.fnmatchcase(case.case_id, pattern) for case in of_role):
            raise ConfigError(
                f"none of the cases for {role.value}s under test fits {pattern!r}: "
                "`python -m orbtrio.conformance list` shows them all"
            )
    return [
        case
        for case in of_role
        if (not wanted.cases or any(fnmatch.fnmatchcase(case.case_id, pattern) for pattern in wanted.cases))
        and not any(fnmatch.fnmatchcase(case.case_id, pattern) for pattern in wanted.exclude)
    ]


def known_counterexamples(folder: Path | None, cases: Iterable[Case]) -> dict[str, list[Plan]]:
    """Plans that failed when the last report was written there, by case."""
    known: dict[str, list[Plan]] = {}
    for case in cases if folder is not None else ():
        # A file that somebody else wrote there is no reason not to run.
        with contextlib.suppress(CounterexampleError):
            known[case.case_id] = [load_counterexample(Path(folder or "") / f"{case.case_id}.json").plan]
    return known


def make_runner(
    environment: Environment, wanted: Wanted, reporter: Reporter | None = None, *, seed: int
) -> Runner:
    """A runner for what was asked for.

    Raises:
        ConfigError: there is no such profile, or it does not fit the catalogue.
    """
    profile = load_profile(wanted.profile)
    validate(profile, all_cases())
    options = Options(seed=seed, examples=wanted.examples, seconds=wanted.seconds)
    known = known_counterexamples(wanted.report, select(environment.role, wanted))
    return Runner(environment, profile, options, reporter, known)


def run(
    environment: Environment, wanted: Wanted, reporter: Reporter | None = None, *, seed: int | None = None
) -> SuiteResult:
    """Judge what was asked for and write the report.

    Raises:
        ConfigError: it cannot be run so.
    """
    if seed is None:
        seed = draw_seed() if wanted.seed is None else wanted.seed
    runner = make_runner(environment, wanted, reporter, seed=seed)
    cases = select(environment.role, wanted)
    whole = not wanted.cases and not wanted.exclude
    result = runner.run(cases)
    if whole and environment.role.value == "engine":
        counters = {name: result.counters.get(name, 0) for name in COUNTERS}
        result = attrs.evolve(result, counters={**result.counters, **counters})
    if wanted.report is not None:
        write_report(wanted.report, result, quote=spec.quote, section=spec.section)
    return result


def draw_seed() -> int:
    """A seed that is short enough to be typed."""
    return random.SystemRandom().randrange(10**8)


def parse_address(url: str) -> tuple[str, int, str]:
    """Host, port and path of a ``ws://`` address.

    Raises:
        ConfigError: it is none.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if parts.scheme != "ws" or not host:
        raise ConfigError(f"{url!r} is no address of an engine: it looks like ws://127.0.0.1:5000/ws")
    return host, port, parts.path or "/"


def check_host(host: str, *, own: bool) -> None:
    """Refuse to attack machines of others.

    Raises:
        ConfigError: it is not this machine, and nobody said that it is the user's own.
    """
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    if host != "localhost" and not own:
        raise ConfigError(
            f"{host} is another machine, and this suite sends it rubbish, floods and cut connections. "
            "If it is yours to break, add --i-own-this-host"
        )

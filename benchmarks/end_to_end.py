"""What a job costs from end to end: engine CPU, latency and memory, beside other engines and the floor.

    python -m benchmarks                        # everything, about ten minutes
    python -m benchmarks --quick                # the cases that matter most, a minute
    python -m benchmarks --cases '100B-*' --repeat 9
    python -m benchmarks --compare 'CMD'        # and another engine, in the same run
    python -m benchmarks --check                # for CI: is it slower than it was?

Exit status 1 if orbtrio or the baseline failed a case: an answer was wrong, missing or one too many, or the
engine ended; or if a check failed. An engine that is compared may fail.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import table
from benchmarks.cases import CASES, QUICK, Case
from benchmarks.check import NoVerdict, check, record
from benchmarks.measure import BASELINE, OURS, Bench
from benchmarks.report import as_dict, draw, machine, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ENGINES", "EXPECTED", "main"]

ENGINES: Final[Mapping[str, Sequence[str]]] = {
    OURS: (sys.executable, "-m", "orbtrio.engine"),
    BASELINE: (sys.executable, "-m", "benchmarks.baseline"),
}

# What CI holds the engine against.
EXPECTED: Final = Path(__file__).with_name("expected.toml")

_ROUNDS: Final = 5
_QUICK_ROUNDS: Final = 3
_QUICK_SHARE: Final = 0.5


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[Case]]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What a job costs.")
    parser.add_argument("--quick", action="store_true", help="fewer cases, rounds and jobs")
    parser.add_argument(
        "--cases",
        metavar="NAMES",
        help=f"only these, with commas and wildcards, out of: {', '.join(case.name for case in CASES)}",
    )
    parser.add_argument("--repeat", type=int, metavar="N", help=f"rounds per case; {_ROUNDS} unless quick")
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="CMD",
        help="another engine: a command that gets WORKER_SECRET, SERVER_HOST, SERVER_PORT and XDG_DATA_HOME",
    )
    parser.add_argument("--no-baseline", action="store_true", help="orbtrio alone, to profile it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures of all rounds")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="CPU per job; needs matplotlib")
    verdict = parser.add_mutually_exclusive_group()
    for name, help in (
        ("--check", "for CI: fail if an engine costs more than this file says; expected.toml unless given"),
        ("--record", "write what --check compares with"),
    ):
        verdict.add_argument(name, type=Path, nargs="?", const=EXPECTED, metavar="FILE", help=help)
    options = parser.parse_args(arguments)
    if options.cases is None:
        return options, [case for case in CASES if case.name in QUICK or not options.quick]
    patterns = options.cases.split(",")
    cases = [case for case in CASES if any(fnmatchcase(case.name, pattern) for pattern in patterns)]
    if not cases:
        parser.error(f"no case is called {options.cases}")
    return options, cases


def main(arguments: Sequence[str] | None = None, engines: Mapping[str, Sequence[str]] = ENGINES) -> int:
    """Measure, print, and return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options, cases = _parse(arguments)
    about = machine(arguments)
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    print(
        f"{about['date']}, Python {about['python']}, {versions}; "
        f"{about['processors']} x {about['processor']}, load before: {about['load_before']:.1f}",
        flush=True,
    )
    if options.check or options.record:
        try:
            return (check if options.check else record)(options.check or options.record, engines[OURS])
        except NoVerdict as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
    engines = {name: argv for name, argv in engines.items() if name != BASELINE or not options.no_baseline}
    others = {f"other{index or ''}": shlex.split(command) for index, command in enumerate(options.compare)}
    for name, argv in others.items():
        print(f"{name}: {' '.join(shlex.join(argv).split())}")
    rounds = options.repeat or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    share = _QUICK_SHARE if options.quick else 1
    print(f"{rounds} rounds\n\n{table.HEAD}", flush=True)
    failed, results = False, []
    for number, case in enumerate(cases, 1):
        with Bench(case, {**engines, **others}, share) as bench:
            for done in range(rounds):
                _progress(f"case {number} of {len(cases)}, {case.name}: round {done + 1} of {rounds}")
                if case.has_floor and done % 2 == 0:
                    bench.find_stalls()
                bench.round()
        _progress("")
        print(*table.lines(bench), sep="\n", flush=True)
        failed |= any(figures.failed for name, figures in bench.figures.items() if name not in others)
        results.append(as_dict(bench))
    print(table.LEGEND)
    _write(options, about, results)
    return int(failed)


def _write(options: argparse.Namespace, about: dict[str, Any], results: list[dict[str, Any]]) -> None:
    if options.json:
        write_json(options.json, about, results)
    if options.picture:
        draw(options.picture, about, results)


# What is going on, for people; a file only gets the table.
def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

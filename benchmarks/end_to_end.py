"""What a job costs from end to end: engine CPU and latency, beside a plain engine and the CBOR library alone.

    python -m benchmarks.end_to_end             # everything, some minutes
    python -m benchmarks.end_to_end --quick     # the cases that matter most, half a minute
    python -m benchmarks.end_to_end --cases '100B-*' --repeat 9

All engines run for the whole time and are measured in turn, so that a slow moment of the machine meets all
of them. _Figures are medians of the rounds, with the lowest and highest behind them. Exit status 1 if any
answer was wrong, missing or one too many.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import platform
import sys
import time
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from statistics import median
from typing import TYPE_CHECKING, Final

import attrs

from benchmarks.cases import CASES, QUICK, Case
from benchmarks.floor import Floor
from benchmarks.load import Load, WrongAnswer
from benchmarks.processes import EngineFailed, EngineProcess, run_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["ENGINES", "main", "measure"]

# What Python runs, by the name in the table. The first is what the others are compared with.
ENGINES: Final[Mapping[str, Sequence[str]]] = {
    "orbtrio": ("-m", "orbtrio.engine"),
    "baseline": ("-m", "benchmarks.baseline"),
}

_ROUNDS: Final = 5
_QUICK_ROUNDS: Final = 3
_QUICK_SHARE: Final = 0.5


@attrs.define
class _Figures:
    """What the rounds of one case on one engine have shown.

    Attributes:
        cpu: Engine CPU seconds per job, one of each round.
        rate: Jobs per second of wall time, one of each round.
        latencies: Seconds, of all rounds together.
        jobs_per_batch: How well it filled batches.
    """

    cpu: list[float] = attrs.Factory(list)
    rate: list[float] = attrs.Factory(list)
    latencies: list[float] = attrs.Factory(list)
    jobs_per_batch: float = 0.0


class _Subject:
    # One engine under the load of one case.

    def __init__(self, engine: EngineProcess, case: Case, jobs: int) -> None:
        # Whole requests, as many for every client.
        step = case.jobs_per_request * case.clients
        self._requests = case.requests(max(jobs // step, 1) * step)
        self._jobs = len(self._requests) * case.jobs_per_request
        self._engine = engine
        self._case = case
        self._load = Load(engine.port, engine.secret, case)
        self.figures = _Figures()

    def warm_up(self) -> None:
        """Run some of the jobs, unmeasured."""
        self._run(self._requests[: len(self._requests) // 8])

    def measure(self) -> None:
        """One round."""
        cpu, seconds, latencies = self._run(self._requests)
        self.figures.cpu.append(cpu / self._jobs)
        self.figures.rate.append(self._jobs / seconds)
        self.figures.latencies += latencies
        self.figures.jobs_per_batch = self._load.jobs_per_batch

    # CPU seconds, seconds, latencies.
    def _run(self, requests: Sequence[tuple[range, bytes]]) -> tuple[float, float, list[float]]:
        gc.collect()
        gc.disable()
        try:
            cpu, start = self._engine.cpu_time(), time.perf_counter()
            self._load.run(requests)
            cpu, seconds = self._engine.cpu_time() - cpu, time.perf_counter() - start
            return cpu, seconds, self._load.verify()
        except WrongAnswer as error:
            raise WrongAnswer(f"{self._engine}, {self._case.name}: {error}") from error
        finally:
            gc.enable()

    def close(self) -> None:
        self._load.close()
        self._engine.check()


def measure(
    case: Case, engines: Mapping[str, EngineProcess], rounds: int, share: float = 1
) -> tuple[dict[str, _Figures], list[float]]:
    """Run one case on all engines that can do it, in turn.

    Args:
        case: What to run.
        engines: By name; the one called baseline gets fewer jobs, or none.
        rounds: How often.
        share: Of the jobs that the case has per round.

    Returns:
        The figures by engine; and CPU seconds per job of the CBOR library, one of each round.

    Raises:
        WrongAnswer: an engine answered wrongly, twice or not at all.
        EngineFailed: an engine has ended.
    """
    floor = Floor(case)
    floors = []
    with ExitStack() as cleanup:
        subjects: dict[str, _Subject] = {}
        for name, engine in engines.items():
            jobs = int(share * case.jobs * (case.baseline if name == "baseline" else 1))
            if not jobs:
                continue
            subjects[name] = subject = _Subject(engine, case, jobs)
            cleanup.callback(subject.close)
            subject.warm_up()
        for _ in range(rounds):
            floors.append(floor.measure())
            for subject in subjects.values():
                subject.measure()
        return {name: subject.figures for name, subject in subjects.items()}, floors


def _cost_line(case: Case, figures: Mapping[str, _Figures], floors: Sequence[float]) -> str:
    """One line of the table of costs."""
    ours, others = figures["orbtrio"], figures.get("baseline")
    line = f"{case.name:<24}{_micro(ours.cpu):>9}{_spread(ours.cpu):>14}"
    if others is None:
        line += f"{'-':>10}{'-':>14}{'-':>7}"
    else:
        ratio = median(other / our for our, other in zip(ours.cpu, others.cpu, strict=True))
        line += f"{_micro(others.cpu):>10}{_spread(others.cpu):>14}{ratio:>6.1f}x"
    return f"{line}{_micro(floors):>8}{median(ours.rate):>9,.0f}{ours.jobs_per_batch:>7.1f}"


_COST_HEAD: Final = (
    "engine CPU, us per job\n"
    f"{'case':<24}{'orbtrio':>9}{'(low-high)':>14}{'baseline':>10}{'(low-high)':>14}{'ratio':>7}{'codec':>8}"
    f"{'jobs/s':>9}{'batch':>7}"
)

_LATENCY_HEAD: Final = (
    "latency, ms\n"
    f"{'case':<24}{'engine':<10}{'p50':>8}{'p90':>8}{'p99':>8}{'max':>8}{'samples':>9}{'CPU us/job':>12}"
)


def _latency_lines(case: Case, figures: Mapping[str, _Figures]) -> list[str]:
    """The lines of the table of latencies, one for each engine."""
    lines = []
    for name, figure in figures.items():
        values = sorted(figure.latencies)
        ranks = (0.5, 0.9, 0.99, 1.0)
        cells = "".join(f"{_rank(values, rank) * 1000:>8.2f}" for rank in ranks)
        lines.append(f"{case.name:<24}{name:<10}{cells}{len(values):>9}{_micro(figure.cpu):>12}")
    return lines


def _rank(values: Sequence[float], share: float) -> float:
    return values[max(math.ceil(share * len(values)) - 1, 0)] if values else math.nan


def _micro(values: Sequence[float]) -> str:
    return f"{median(values) * 1e6:.1f}"


def _spread(values: Sequence[float]) -> str:
    return f"({min(values) * 1e6:.1f}-{max(values) * 1e6:.1f})"


@contextmanager
def _running(commands: Mapping[str, Sequence[str]]) -> Iterator[dict[str, EngineProcess]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(run_engine(command)) for name, command in commands.items()}


def _parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[Case]]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description="What a job costs.")
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds, for CI")
    parser.add_argument(
        "--cases",
        metavar="NAMES",
        help=f"only these, with commas and wildcards, out of: {', '.join(case.name for case in CASES)}",
    )
    parser.add_argument("--repeat", type=int, metavar="N", help=f"rounds per case; {_ROUNDS} unless quick")
    parser.add_argument("--no-baseline", action="store_true", help="orbtrio alone, to profile it")
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
    options, cases = _parse(arguments)
    rounds = options.repeat or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    share = _QUICK_SHARE if options.quick else 1
    if options.no_baseline:
        engines = {name: command for name, command in engines.items() if name != "baseline"}
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    machine = f"Python {platform.python_version()}, {os.cpu_count()} processors, load before: {load}"
    print(f"{machine}; {rounds} rounds", flush=True)
    try:
        with _running(engines) as processes:
            for latency, head in ((False, _COST_HEAD), (True, _LATENCY_HEAD)):
                chosen = [case for case in cases if case.latency is latency]
                if chosen:
                    print(f"\n{head}", flush=True)
                for case in chosen:
                    figures, floors = measure(case, processes, rounds, share)
                    lines = _latency_lines(case, figures) if latency else [_cost_line(case, figures, floors)]
                    print(*lines, sep="\n", flush=True)
    except (WrongAnswer, EngineFailed) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

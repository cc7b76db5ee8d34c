"""What a job costs at its two ends: in our worker's runtime, in our client; and there and back, a lone one.

    python -m benchmarks.ends                  # a minute
    python -m benchmarks.ends --quick          # a third of it
    python -m benchmarks.ends --cases '768*' --repeat 9

An engine, a worker and a client, each a process of its own as people start them; what each has used, user and
system, is the kernel's word, over the measured part only. The model costs nothing: it sends the text back, or
returns one of a few vectors. Beside each figure stands its floor: what the CBOR library alone takes for the
messages of that end, in the same process a moment before. Rounds of all cases alternate, figures are medians.
Exit status 1 if an answer was wrong or missing.

- *lists*: vectors as lists of Python floats at both ends, as before there were typed arrays; the worker's
  figure includes making them of what the model returned.
- *arrays*: as they lie in memory, at both ends. *mixed*: the worker returns arrays, the client wants lists.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import platform
import sys
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import attrs

from benchmarks.ends_peers import Work, run_client, run_worker_process
from benchmarks.processes import EngineFailed, cpu_time, run_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.processes import EngineProcess

__all__ = ["CASES", "Case", "Figures", "main", "measure"]

ENGINE: Final = (sys.executable, "-m", "orbtrio.engine")

_ROUNDS: Final = 5
_QUICK_ROUNDS: Final = 2

# Seconds after which a peer that says nothing is given up.
_PATIENCE: Final = 60.0


@attrs.frozen
class Case:
    """One line of the table.

    Attributes:
        name: What ``--cases`` calls it.
        work: What the jobs are.
        how: How they are submitted: ``submit_many``, ``submit``, or ``alone``, one after the other.
        jobs: How many per round.
    """

    name: str
    work: Work
    how: str
    jobs: int


_LISTS: Final = Work(768)
_ARRAYS: Final = Work(768, worker_arrays=True, client_arrays=True)
_MIXED: Final = Work(768, worker_arrays=True)

CASES: Final = (
    Case("100B-submit_many", Work(), "submit_many", 12_800),
    Case("100B-submit", Work(), "submit", 12_800),
    Case("768floats-lists-submit_many", _LISTS, "submit_many", 3_200),
    Case("768floats-lists-submit", _LISTS, "submit", 3_200),
    Case("768floats-mixed-submit_many", _MIXED, "submit_many", 3_200),
    Case("768floats-arrays-submit_many", _ARRAYS, "submit_many", 3_200),
    Case("768floats-arrays-submit", _ARRAYS, "submit", 3_200),
    Case("100B-alone", Work(), "alone", 400),
    Case("768floats-arrays-alone", _ARRAYS, "alone", 400),
)


class WrongAnswer(Exception):
    """A job was answered wrongly or not at all."""


@attrs.define
class Figures:
    """What the rounds of a case have shown: seconds, one of each round; of latencies, one of each job."""

    worker: list[float] = attrs.Factory(list)
    worker_floor: list[float] = attrs.Factory(list)
    client: list[float] = attrs.Factory(list)
    client_floor: list[float] = attrs.Factory(list)
    engine: list[float] = attrs.Factory(list)
    latencies: list[float] = attrs.Factory(list)
    jobs_per_batch: float = math.nan


class _Peer:
    # A process of `ends_peers`, and the pipe by which it takes orders.

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        # Not a fork: of this process it needs nothing.
        context = multiprocessing.get_context("spawn")
        self._orders, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(*arguments, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.answer()

    def ask(self, order: object) -> Any:
        self._orders.send(order)
        return self.answer()

    def answer(self) -> Any:
        if not self._orders.poll(_PATIENCE):
            raise WrongAnswer(f"{self._process.name} has said nothing for {_PATIENCE:g} s")
        try:
            return self._orders.recv()
        except EOFError:
            raise WrongAnswer(f"{self._process.name} has ended") from None

    def cpu_time(self) -> float:
        assert self._process.pid is not None
        return cpu_time(self._process.pid)

    def close(self) -> None:
        self._orders.send("end")
        self._process.join(_PATIENCE)
        if self._process.exitcode is None:
            self._process.kill()


class _Stage:
    # An engine of its own for each case: its workers must not get others' jobs.

    def __init__(self, case: Case, engine: EngineProcess, cleanup: ExitStack) -> None:
        self.case = case
        self.figures = Figures()
        self._engine = engine
        self._worker = _Peer(run_worker_process, engine.port, engine.secret, case.work)
        cleanup.callback(self._worker.close)
        self._client = _Peer(run_client, engine.port, case.work)
        cleanup.callback(self._client.close)
        self._run(max(case.jobs // 4, 1))

    def measure(self) -> None:
        """One round."""
        figures, jobs = self.figures, self.case.jobs
        figures.worker_floor.append(self._worker.ask("floor"))
        figures.client_floor.append(self._client.ask("floor"))
        batches, batched = self._worker.ask("batches")
        (worker, client, engine), seconds = self._run(jobs)
        batches, batched = (
            now - before for now, before in zip(self._worker.ask("batches"), (batches, batched), strict=True)
        )
        figures.worker.append(worker / jobs)
        figures.client.append(client / jobs)
        figures.engine.append(engine / jobs)
        figures.latencies += seconds
        figures.jobs_per_batch = batched / batches

    # CPU seconds of worker, client and engine; seconds of each job, if they were submitted singly.
    def _run(self, jobs: int) -> tuple[list[float], list[float]]:
        measured: tuple[_Peer | EngineProcess, ...] = (self._worker, self._client, self._engine)
        before = [one.cpu_time() for one in measured]
        self._client.ask((self.case.how, jobs))
        spent = [one.cpu_time() - then for one, then in zip(measured, before, strict=True)]
        wrong, seconds = self._client.answer()
        if wrong:
            raise WrongAnswer(f"{self.case.name}: {wrong} of {jobs} answers were wrong")
        return spent, seconds


@contextmanager
def _stages(cases: Sequence[Case], command: Sequence[str]) -> Iterator[list[_Stage]]:
    with ExitStack() as cleanup:
        stages = []
        for case in cases:
            engine = cleanup.enter_context(run_engine(command))
            stages.append(_Stage(case, engine, cleanup))
        yield stages


def measure(cases: Sequence[Case], rounds: int, command: Sequence[str] = ENGINE) -> Mapping[str, Figures]:
    """Measure cases in turn; what they have shown, by name.

    Raises:
        WrongAnswer: a job was answered wrongly or not at all.
        EngineFailed: an engine has not started, or ended.
    """
    with _stages(cases, command) as stages:
        for _ in range(rounds):
            for stage in stages:
                stage.measure()
        return {stage.case.name: stage.figures for stage in stages}


_HEAD: Final = (
    f"{'CPU us per job':<30}{'worker':>8}{'floor':>7}{'ratio':>7}{'client':>9}{'floor':>7}{'ratio':>7}"
    f"{'engine':>9}{'batch':>7}{'p50 ms':>9}{'p99 ms':>8}"
)


def _line(name: str, figures: Figures) -> str:
    cells = f"{name:<30}"
    for values, floors, width in (
        (figures.worker, figures.worker_floor, 8),
        (figures.client, figures.client_floor, 9),
    ):
        ratio = median(value / floor for value, floor in zip(values, floors, strict=True))
        cells += f"{_micro(values):>{width}}{_micro(floors):>7}{ratio:>7.1f}"
    cells += f"{_micro(figures.engine):>9}{figures.jobs_per_batch:>7.1f}"
    if figures.latencies:
        ordered = sorted(figures.latencies)
        for share, width in ((0.5, 9), (0.99, 8)):
            cells += f"{ordered[math.ceil(share * len(ordered)) - 1] * 1000:>{width}.2f}"
    return cells


def _micro(values: Sequence[float]) -> str:
    return f"{median(values) * 1e6:.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ends", description="What a job costs at its ends."
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for CI")
    names = ", ".join(case.name for case in CASES)
    parser.add_argument(
        "--cases", metavar="NAMES", help=f"only these, with commas and wildcards, out of: {names}"
    )
    parser.add_argument("--repeat", type=int, metavar="N", help=f"rounds per case; {_ROUNDS} unless quick")
    options = parser.parse_args(arguments)
    patterns = (options.cases or "*").split(",")
    cases = [case for case in CASES if any(fnmatchcase(case.name, pattern) for pattern in patterns)]
    if not cases:
        parser.error(f"no case is called {options.cases}")
    rounds = options.repeat or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    machine = f"Python {platform.python_version()}, {os.cpu_count()} processors, load before: {load}"
    print(f"{machine}; {rounds} rounds\n\n{_HEAD}", flush=True)
    try:
        for name, figures in measure(cases, rounds).items():
            print(_line(name, figures), flush=True)
    except (WrongAnswer, EngineFailed) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

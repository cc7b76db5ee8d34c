"""One case on several engines, in turn.

Every engine runs as a fresh process for each case, so that memory is that of the case, and an engine that
fails one case can do the next. All of a case run for its whole time and are measured in turn, one round
each, the floor first: a slow moment of the machine meets all of them, and what is compared is rounds that
follow each other. Stalls are looked for in rounds of their own, because pings cost the engine something too.
"""

from __future__ import annotations

import gc
import math
import time
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Final

import attrs

from benchmarks.floor import Floor
from benchmarks.load import Load, WrongAnswer
from benchmarks.processes import EngineFailed, raise_file_limit, run_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from benchmarks.bars import Measure
    from benchmarks.cases import Case
    from benchmarks.pinger import Stalls

__all__ = ["BASELINE", "OURS", "Bench", "Figures", "rank"]

# The names of engines that are not like others: bars are for the first, and the second gets fewer jobs.
OURS: Final = "orbtrio"
BASELINE: Final = "baseline"

# Seconds in which an engine that hung up may turn out to have ended.
_DEATH: Final = 0.5


@attrs.define
class Figures:
    """What the rounds of one case on one engine have shown.

    Attributes:
        failed: Why there is nothing, or no more; empty if all went well.
        cpu: Engine CPU seconds per job, one of each round; per second, if the case is idle.
        rate: Jobs per second of wall time, one of each round.
        load_cpu: CPU seconds per job of the load, one of each round.
        load_share: The part of each round's time in which the load was busy.
        latencies: Seconds, of all rounds together.
        stalls: The longest that anybody waited while jobs were done; one of each round of pings.
        jobs_per_batch: How well the engine filled batches; NaN if nobody could see.
        peak_bytes: The most memory that it had resident.
        start_bytes: Likewise, before the first connection.
    """

    failed: str = ""
    cpu: list[float] = attrs.Factory(list)
    rate: list[float] = attrs.Factory(list)
    load_cpu: list[float] = attrs.Factory(list)
    load_share: list[float] = attrs.Factory(list)
    latencies: list[float] = attrs.Factory(list)
    stalls: list[Stalls] = attrs.Factory(list)
    jobs_per_batch: float = math.nan
    peak_bytes: int = 0
    start_bytes: int = 0


class _Subject:
    # One engine under the load of one case.

    def __init__(self, argv: Sequence[str], case: Case, jobs: int, figures: Figures) -> None:
        self.figures = figures
        self._case = case
        self._jobs = jobs
        self._requests = case.requests(jobs)
        with ExitStack() as stack:
            self._engine = stack.enter_context(run_engine(argv, dict(case.settings)))
            figures.start_bytes = self._engine.peak_bytes()
            self._load = Load(self._engine.port, self._engine.secret, case, self._engine.pids())
            stack.callback(self._load.close)
            self._stack = stack.pop_all()

    def warm_up(self) -> None:
        if not self._jobs:
            return
        step = self._case.clients
        few = self._requests[: max(len(self._requests) // 4 // step, 1) * step]
        self._clocked(lambda: self._load.run(few))
        self._load.verify()

    def find_stalls(self) -> None:
        stalls = self._load.find_stalls(self._requests)
        self._load.verify()
        self.figures.stalls.append(stalls)

    def measure(self) -> None:
        figures, idle = self.figures, self._case.idle_seconds
        run = (lambda: self._load.stay(idle)) if idle else (lambda: self._load.run(self._requests))
        cpu, seconds, load = self._clocked(run)
        units = idle or self._jobs
        figures.cpu.append(cpu / units)
        figures.rate.append(self._jobs / seconds)
        figures.load_cpu.append(load / units)
        figures.load_share.append(load / seconds)
        figures.latencies += self._load.verify()
        figures.jobs_per_batch = self._load.jobs_per_batch
        figures.peak_bytes = self._engine.peak_bytes()

    # Seconds of the engine's CPU, of time and of our CPU.
    def _clocked(self, run: Callable[[], None]) -> tuple[float, float, float]:
        gc.collect()
        gc.disable()
        try:
            cpu, load, start = self._engine.cpu_time(), time.process_time(), time.perf_counter()
            run()
            seconds, load = time.perf_counter() - start, time.process_time() - load
            return self._engine.cpu_time() - cpu, seconds, load
        finally:
            gc.enable()

    # Answer the engine's pings, while others are measured.
    def attend(self) -> None:
        self._load.stay(0)

    def last_words(self) -> None:
        self._engine.check(_DEATH)

    def close(self) -> None:
        self._stack.close()


class Bench:
    """A case with its engines, to be used as a context manager; then `round` as often as wanted.

    Args:
        case: What to run.
        engines: The command of each, by name.
        share: Of the jobs that the case has per round.
        floor: Whether to measure the floor, if the case has one.

    Attributes:
        case: Likewise.
        figures: By the engine's name, or that of the case's reference.
        floors: CPU seconds per job of the CBOR library, one of each round.
    """

    def __init__(
        self, case: Case, engines: Mapping[str, Sequence[str]], share: float = 1, *, floor: bool = True
    ) -> None:
        self.case = case
        self.figures: dict[str, Figures] = {}
        self.floors: list[float] = []
        self._engines = engines
        self._share = share
        self._with_floor = floor and case.has_floor
        self._floor: Floor | None = None
        self._subjects: dict[str, _Subject] = {}

    def __enter__(self) -> Bench:
        case = self.case
        raise_file_limit()
        with ExitStack() as stack:
            stack.callback(self._close)
            for name, argv in self._engines.items():
                share = case.baseline if name == BASELINE else 1
                if share:
                    self._add(name, argv, case, share * self._share)
                if name == OURS and case.reference is not None:
                    label, reference = case.reference
                    self._add(label, argv, reference, self._share)
            if self._with_floor:
                self._floor = Floor(case, case.whole(self._share))
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def find_stalls(self) -> None:
        """One round with pings, for the stalls."""
        self._in_turn(lambda subject: subject.find_stalls())

    def round(self) -> None:
        """One round of each that has not failed."""
        if self._floor is not None:
            self.floors.append(self._floor.measure())
        self._in_turn(lambda subject: subject.measure())

    def values(self, name: str) -> dict[Measure, float]:
        """The figures of an engine for which there can be bars; NaN for those that were not measured."""
        figures = self.figures[name]
        latencies = sorted(figures.latencies)
        label = self.case.reference[0] if self.case.reference else ""
        reference = self.figures.get(label, Figures())
        return {
            "cpu": _median(figures.cpu),
            "ratio": _ratio(figures.cpu, self.floors),
            "flat": _ratio(figures.cpu, reference.cpu),
            "stall": max((stalls.own for stalls in figures.stalls), default=math.nan),
            "p50": rank(latencies, 0.5),
            "p99": rank(latencies, 0.99),
            "rss": figures.peak_bytes or math.nan,
        }

    def _add(self, name: str, argv: Sequence[str], case: Case, share: float) -> None:
        figures = self.figures[name] = Figures()
        try:
            self._subjects[name] = _Subject(argv, case, case.whole(share), figures)
        except (WrongAnswer, EngineFailed, OSError) as error:
            figures.failed = str(error)
        else:
            self._in_turn(lambda subject: subject.warm_up(), (name,))

    # Do something with engines; with all of them unless they are named.
    def _in_turn(self, action: Callable[[_Subject], None], names: Sequence[str] = ()) -> None:
        for name in names or list(self._subjects):
            self._try(name, action)
            for other in list(self._subjects):
                self._try(other, lambda subject: subject.attend())

    # An engine that fails is out, and the others go on.
    def _try(self, name: str, action: Callable[[_Subject], None]) -> None:
        subject = self._subjects[name]
        try:
            action(subject)
        except (WrongAnswer, EngineFailed, OSError) as error:
            subject.figures.failed = str(error)
            try:
                subject.last_words()  # why an engine ended says more than that it hung up
            except EngineFailed as ended:
                subject.figures.failed = str(ended)
            self._subjects.pop(name).close()

    def _close(self) -> None:
        while self._subjects:
            _, subject = self._subjects.popitem()
            subject.close()
        if self._floor is not None:
            self._floor.close()
            self._floor = None


def rank(values: Sequence[float], share: float) -> float:
    """Of sorted values, the one that this share of them does not exceed; NaN if there is none."""
    return values[max(math.ceil(share * len(values)) - 1, 0)] if values else math.nan


def _median(values: Sequence[float]) -> float:
    return median(values) if values else math.nan


# Median of the ratios of rounds that followed each other.
def _ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    return _median([our / other for our, other in zip(ours, others, strict=False)])

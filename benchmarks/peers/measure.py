"""Gives orders to stages: which rounds, of how many jobs, in which order.

Each peer stands beside a reference of its own, started with it and measured in turn with it. A round is as
many jobs as the system does in some seconds, found out beforehand: 200 for one, 50,000 for another.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from benchmarks.peers.figures import Cost, Lone, Round, Row, best
from benchmarks.peers.system import Setting, versions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from benchmarks.peers.system import System

__all__ = ["SIZES", "Effort", "Pair", "Stage", "StageFailed", "pooled_row", "run_pair"]

# Of jobs, in bytes.
SIZES: Final = (100, 10_000)
IN_FLIGHT: Final = 256
# Of a round; the limits on the jobs of one.
_FEWEST: Final = 200
_MOST: Final = 50_000
_MOST_BYTES: Final = 100_000_000
# Seconds for a stage to be gone. Ray takes some.
_END_TIMEOUT: Final = 60.0
_ROOT: Final = Path(__file__).resolve().parent.parent.parent


class StageFailed(Exception):
    """A system does not do its work; the text tells why."""


@attrs.frozen(kw_only=True)
class Effort:
    """How much is measured: rounds of each kind, and about how many seconds each lasts."""

    rounds: int
    seconds: float


class Stage:
    """A system with a process of its own, to be used as a context manager; see `benchmarks.peers.stage`.

    To enter it does not wait for the system, so that several can start at a time. The first order does.
    """

    def __init__(self, system: System, setting: Setting = Setting.THROUGHPUT) -> None:
        self.system = system
        self.setting = setting

    def __enter__(self) -> Stage:
        # What is printed to stderr must never block it, so it goes to a file.
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.stage", self.system.name, self.setting],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._ready = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def measure(self, *, jobs: int, size: int, in_flight: int) -> tuple[Round, list[float]]:
        """Have jobs done.

        Returns:
            What they cost, and the seconds that each took.

        Raises:
            StageFailed: an answer was wrong, or something fell.
        """
        if not self._ready:
            self._answer()
            self._ready = True
        assert self._process.stdin is not None
        order = json.dumps({"jobs": jobs, "size": size, "in_flight": in_flight})
        try:
            print(order, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise StageFailed(self._last_words()) from None
        answer = self._answer()
        names = ("cpu", "load_cpu", "seconds", "jobs_per_batch")
        return Round(jobs=jobs, **{name: answer[name] for name in names}), answer["latencies"]

    def jobs_for(self, seconds: float, *, size: int, in_flight: int) -> int:
        """How many jobs take about so long, once the system is warm."""
        jobs = _FEWEST if in_flight > 1 else _FEWEST // 10
        most = min(_MOST, _MOST_BYTES // size)
        # The second time what the first has loaded and learned is there, and there is more of it.
        for share in (0.3, 1.0):
            round_, _ = self.measure(jobs=jobs, size=size, in_flight=in_flight)
            jobs = max(jobs, min(most, int(jobs / round_.seconds * seconds * share) // 100 * 100))
        return jobs

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise StageFailed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise StageFailed(answer["failed"])
        return answer

    def _last_words(self) -> str:
        # It has ended its output, and is about to say why.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_TIMEOUT)
        self._log.seek(0)
        return f"its stage ended: {self._log.read()[-2000:]}"

    def _end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            # It kills what is left of the system, and leaves.
            self._process.terminate()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()


@attrs.define
class _Rounds:
    costs: dict[int, list[Round]] = attrs.field(factory=lambda: {size: [] for size in SIZES})
    lone: dict[Setting, list[float]] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Pair:
    """What a peer and its reference did, in turn."""

    peer: System
    reference: System
    theirs: _Rounds = attrs.field(factory=_Rounds)
    ours: _Rounds = attrs.field(factory=_Rounds)

    def row(self) -> Row:
        """The peer's."""
        return _row(
            self.peer,
            reference=self.reference.name,
            costs={size: Cost.of(self.theirs.costs[size], self.ours.costs[size]) for size in SIZES},
            lone=_lone([self.theirs]),
            beside=best(_lone([self.ours])),
        )


def pooled_row(reference: System, pairs: list[Pair]) -> Row:
    """The reference's, of all its rounds beside whomever."""
    return _row(
        reference,
        reference=None,
        costs={size: Cost.of([each for pair in pairs for each in pair.ours.costs[size]]) for size in SIZES},
        lone=_lone([pair.ours for pair in pairs]),
    )


def _lone(several: Sequence[_Rounds]) -> dict[Setting, Lone]:
    pooled: dict[Setting, list[float]] = {}
    for rounds in several:
        for setting, latencies in rounds.lone.items():
            pooled.setdefault(setting, []).extend(latencies)
    return {setting: Lone.of(latencies) for setting, latencies in pooled.items()}


def run_pair(peer: System, reference: System, effort: Effort) -> Pair:
    """Measure a peer beside its reference.

    Raises:
        StageFailed: one of them does not do its work.
    """
    pair = Pair(peer=peer, reference=reference)
    for setting in dict.fromkeys([*peer.settings, *reference.settings]):
        ours_set, theirs_set = (_nearest(system, setting) for system in (reference, peer))
        with Stage(reference, ours_set) as ours, Stage(peer, theirs_set) as theirs:
            stages = ((ours, pair.ours), (theirs, pair.theirs))
            if setting is Setting.THROUGHPUT:
                for size in SIZES:
                    plans = [
                        (stage, rounds, stage.jobs_for(effort.seconds, size=size, in_flight=IN_FLIGHT))
                        for stage, rounds in stages
                    ]
                    for _ in range(effort.rounds):
                        for stage, rounds, jobs in plans:
                            round_, _ = stage.measure(jobs=jobs, size=size, in_flight=IN_FLIGHT)
                            rounds.costs[size].append(round_)
            lone = [
                (stage, rounds, stage.jobs_for(effort.seconds / 2, size=SIZES[0], in_flight=1))
                for stage, rounds in stages
            ]
            for _ in range(effort.rounds):
                for stage, rounds, jobs in lone:
                    _, latencies = stage.measure(jobs=jobs, size=SIZES[0], in_flight=1)
                    rounds.lone.setdefault(stage.setting, []).extend(latencies)
    return pair


# One that has no settings of its own for latency is measured with those it has, beside one that has.
def _nearest(system: System, setting: Setting) -> Setting:
    return setting if setting in system.settings else Setting.THROUGHPUT


def _row(system: System, **figures: Any) -> Row:
    return Row(
        name=system.name,
        asked=system.asked,
        native=system.native,
        settings=system.settings,
        versions=versions(system),
        **figures,
    )

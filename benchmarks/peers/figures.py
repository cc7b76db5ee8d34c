"""What is known in the end: pure data, from rounds to rows, and where orbtrio is behind.

Costs are scaled to 100,000 jobs, since systems that take a hundred times as long do fewer in the time there
is. A ratio is the median of the ratios of single rounds, each of which lies next to its counterpart in time:
on a machine whose speed drifts it holds where a ratio of medians does not.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.peers.system import Setting

__all__ = ["SCALE", "Cost", "Lone", "Report", "Round", "Row", "behind", "best"]

# Jobs that costs are told for.
SCALE: Final = 100_000


@attrs.frozen(kw_only=True)
class Round:
    """One measurement, as `stage.measure` gives it; times in seconds."""

    jobs: int
    cpu: float
    load_cpu: float
    seconds: float
    jobs_per_batch: float

    @property
    def scaled_cpu(self) -> float:
        """Seconds of CPU for 100,000 jobs."""
        return self.cpu / self.jobs * SCALE


@attrs.frozen(kw_only=True)
class Cost:
    """What jobs of one size cost a system.

    Attributes:
        cpu: Seconds of CPU of all server processes for 100,000 jobs, the median of the rounds.
        lowest: Of the rounds.
        highest: Of the rounds.
        load_cpu: As `cpu`, of the program that asked; it counts for nothing, but tells what it was busy with.
        ratio: `cpu` over that of the reference, the median over pairs of rounds; None for a reference.
        jobs_per_second: The median.
        jobs_per_batch: The mean of the rounds' means.
        jobs: In each round.
        rounds: How many.
    """

    cpu: float
    lowest: float
    highest: float
    load_cpu: float
    ratio: float | None
    jobs_per_second: float
    jobs_per_batch: float
    jobs: int
    rounds: int

    @classmethod
    def of(cls, rounds: Sequence[Round], beside: Sequence[Round] | None = None) -> Cost:
        """Sum up rounds.

        Args:
            rounds: Of the system.
            beside: Those of the reference, one for each of `rounds`, if it is not the reference itself.
        """
        scaled = [each.scaled_cpu for each in rounds]
        ratio = None
        if beside is not None:
            ratio = statistics.median(
                theirs.scaled_cpu / ours.scaled_cpu for theirs, ours in zip(rounds, beside, strict=True)
            )
        return cls(
            cpu=statistics.median(scaled),
            lowest=min(scaled),
            highest=max(scaled),
            load_cpu=statistics.median(each.load_cpu / each.jobs * SCALE for each in rounds),
            ratio=ratio,
            jobs_per_second=statistics.median(each.jobs / each.seconds for each in rounds),
            jobs_per_batch=statistics.fmean(each.jobs_per_batch for each in rounds),
            jobs=round(statistics.median(each.jobs for each in rounds)),
            rounds=len(rounds),
        )


@attrs.frozen(kw_only=True)
class Lone:
    """How long a job takes while it is the only one: percentiles in seconds, over so many jobs."""

    p50: float
    p99: float
    jobs: int

    @classmethod
    def of(cls, latencies: Sequence[float]) -> Lone:
        """Sum up the seconds that jobs took."""
        ordered = sorted(latencies)
        return cls(
            p50=statistics.median(ordered), p99=ordered[(len(ordered) * 99 - 1) // 100], jobs=len(ordered)
        )


@attrs.frozen(kw_only=True)
class Row:
    """All about one system.

    Attributes:
        name: Of the system.
        asked: By what.
        native: What of it is not Python.
        reference: The name of what it was measured beside; None for a reference.
        settings: In words, by setting.
        versions: Of its parts.
        costs: By size of the jobs, in bytes.
        lone: By setting; 100 B.
        beside: What lone jobs of the reference took in the same minutes, with the settings that suit it best;
            None for a reference.
    """

    name: str
    asked: str
    native: str
    reference: str | None
    settings: Mapping[Setting, str]
    versions: Mapping[str, str]
    costs: Mapping[int, Cost]
    lone: Mapping[Setting, Lone]
    beside: Lone | None = None

    @property
    def best_lone(self) -> Lone:
        """With the settings that suit a lone job best."""
        return best(self.lone)


def best(lone: Mapping[Setting, Lone]) -> Lone:
    """That with the settings that suit a lone job best."""
    return min(lone.values(), key=lambda each: each.p50)


@attrs.frozen(kw_only=True)
class Report:
    """Everything that was measured, and under what circumstances.

    Attributes:
        date: As YYYY-MM-DD.
        command: What was run.
        machine: Processors and Python; no names.
        rows: References first.
        skipped: Reasons, by name of the system.
        failed: Likewise, of systems that did not do their work.
    """

    date: str
    command: str
    machine: str
    rows: Sequence[Row]
    skipped: Mapping[str, str]
    failed: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return attrs.asdict(self) | {"behind": behind(self)}


def behind(report: Report) -> list[str]:
    """Where orbtrio is not ahead of a peer, one sentence for each."""
    found = []
    for row in report.rows:
        if row.reference is None:
            continue
        name = f"{row.name} ({row.native})" if row.native else row.name
        for size, cost in row.costs.items():
            if cost.ratio is not None and cost.ratio <= 1:
                found.append(
                    f"{row.reference} needs {1 / cost.ratio:.1f} times the CPU of {name} at {size:,} B"
                )
        if row.beside is not None and row.best_lone.p50 <= row.beside.p50:
            found.append(
                f"{row.reference} takes {row.beside.p50 * 1e3:.2f} ms for a lone job, {name}"
                f" {row.best_lone.p50 * 1e3:.2f} ms"
            )
    return found

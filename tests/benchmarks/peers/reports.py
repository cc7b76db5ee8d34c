"""Reports made up for tests: one of each kind of row."""

from __future__ import annotations

from typing import Final

from benchmarks.peers.figures import Cost, Lone, Report, Round, Row
from benchmarks.peers.system import Setting


def rounds(*cpu: float, jobs: int = 1000) -> list[Round]:
    """Rounds of a second that took so many seconds of CPU."""
    return [Round(jobs=jobs, cpu=each, load_cpu=0.01, seconds=1.0, jobs_per_batch=32.0) for each in cpu]


OURS: Final = Row(
    name="ours",
    asked="connections",
    native="",
    reference=None,
    settings={Setting.THROUGHPUT: "the defaults"},
    versions={"ours": "1.2"},
    costs={100: Cost.of(rounds(0.05, 0.06, 0.04)), 10_000: Cost.of(rounds(0.1, 0.1, 0.1))},
    lone={Setting.THROUGHPUT: Lone(p50=0.0005, p99=0.001, jobs=500)},
)
THEIRS: Final = Row(
    name="theirs",
    asked="connections",
    native="server in <C>",
    reference="ours",
    settings={Setting.THROUGHPUT: "waits 10 ms", Setting.LATENCY: "waits for nobody"},
    versions={"theirs": "3.4", "lib": "5.6"},
    costs={
        100: Cost.of(rounds(0.5, 0.6, 1.2), rounds(0.05, 0.06, 0.06)),
        10_000: Cost.of(rounds(0.05, 0.05, 0.05), rounds(0.1, 0.1, 0.1)),
    },
    lone={
        Setting.THROUGHPUT: Lone(p50=0.0105, p99=0.012, jobs=100),
        Setting.LATENCY: Lone(p50=0.0002, p99=0.0004, jobs=500),
    },
    beside=Lone(p50=0.0006, p99=0.001, jobs=400),
)
REPORT: Final = Report(
    date="2026-01-02",
    command="python -m benchmarks.peers",
    machine="2 processors",
    rows=[OURS, THEIRS],
    skipped={"absent": "absent not installed; pip install absent"},
    failed={"broken": "no job is answered"},
)

"""The engine's metrics, and what became of them between two readings.

Counters count from the engine's start, which tells nothing about now. So everything that is a speed here is
the difference of two readings, divided by the time between them. A counter that went back means that the
engine was started again in between: it counts from zero then, as Prometheus has it.

Latency is that of batches, from sending one to its last answer: the engine counts the batches and sums their
times, and the difference of the sums over that of the counts is the mean of the interval.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["NoMetrics", "Overview", "Reading", "WorkRow", "compare", "parse"]

# A sample's name with its labels, sorted.
_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]

_JOBS: Final = "orb_worker_jobs_total"
_BATCHES: Final = "orb_worker_batches_total"
_ANSWERED: Final = "orb_worker_latency_seconds_count"
_SECONDS: Final = "orb_worker_latency_seconds_sum"
_QUEUED: Final = "orb_worker_queued"
_IN_HAND: Final = "orb_worker_unanswered"


class NoMetrics(Exception):
    """What came is not the metrics of an engine; the text says what it is."""


@attrs.frozen(eq=False)
class Reading:
    """All samples of one moment.

    Attributes:
        at: The moment, in seconds of a monotonic clock.
        samples: The values, by name and labels.
    """

    at: float
    samples: dict[_Key, float]

    def get(self, name: str, **labels: str) -> float:
        """A sample; what the engine does not mention is 0."""
        return self.samples.get((name, tuple(sorted(labels.items()))), 0.0)

    def named(self, name: str) -> list[tuple[dict[str, str], float]]:
        """All samples of a name, with their labels."""
        return [(dict(labels), value) for (known, labels), value in self.samples.items() if known == name]


def parse(text: str, at: float) -> Reading:
    """Read Prometheus' text format.

    Raises:
        NoMetrics: it is something else, or of some other program.
    """
    try:
        samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    # The parser was written for programs that mean well: on a web page it stumbles over anything.
    except Exception as error:
        raise NoMetrics(f"what answers there shows no metrics ({type(error).__name__})") from None
    if not any(name.startswith("orb_") for name, _ in samples):
        raise NoMetrics("what answers there is no engine of orbtrio: none of its metrics begins with orb_")
    return Reading(at, samples)


@attrs.frozen(kw_only=True)
class WorkRow:
    """A worker, or all workers of a type.

    Attributes:
        name: The worker's name, or the type's.
        workers: How many they are.
        jobs: Answered since the engine has known them.
        queued, in_hand: Jobs that wait, and jobs that were sent and not answered.
        jobs_per_second, batches_per_second: Of the interval; None if there is only one reading.
        batch_size: Jobs answered per batch answered, in the interval; None if there was none.
        latency: From sending a batch to its last answer, in seconds, on average; None if there was none.
    """

    name: str
    workers: int
    jobs: float
    queued: float
    in_hand: float
    jobs_per_second: float | None
    batches_per_second: float | None
    batch_size: float | None
    latency: float | None


@attrs.frozen(kw_only=True)
class Overview:
    """What an engine is doing.

    Attributes:
        clients, open_jobs, files, file_bytes: As they are now.
        accepted, answered: Jobs per second; None if there is only one reading.
        totals: Jobs since the engine's start, by what became of them; those of interest, without zeros.
        types, workers: A row each.
    """

    clients: float
    open_jobs: float
    files: float
    file_bytes: float
    accepted: float | None
    answered: float | None
    totals: dict[str, float]
    types: list[WorkRow]
    workers: list[WorkRow]


def compare(before: Reading | None, now: Reading) -> Overview:
    """What the engine has done between two readings, or without speeds what it shows in one."""
    workers: dict[str, list[_Work]] = {}
    for labels, _ in now.named(_JOBS):
        work = _Work.of(before, now, labels)
        workers.setdefault(labels["type"], []).append(work)
    seconds = None if before is None else now.at - before.at
    return Overview(
        clients=now.get("orb_clients"),
        open_jobs=now.get("orb_open_jobs"),
        files=now.get("orb_resource_files"),
        file_bytes=now.get("orb_resource_bytes"),
        accepted=_speed(_grown(before, now, "orb_jobs_accepted_total"), seconds),
        answered=_speed(_grown(before, now, "orb_jobs_answered_total"), seconds),
        totals=_totals(now),
        types=[
            _row(_total(labels["type"], workers.get(labels["type"], []), now), int(count), seconds)
            for labels, count in sorted(now.named("orb_workers"), key=lambda item: item[0]["type"])
        ],
        workers=sorted(
            (_row(work, 1, seconds) for works in workers.values() for work in works),
            key=lambda row: _natural(row.name),
        ),
    )


# What one worker, or several together, did between two readings, and has now.
@attrs.frozen(kw_only=True)
class _Work:
    name: str
    total: float
    queued: float
    in_hand: float
    jobs: float
    batches: float
    answered: float
    seconds: float

    @classmethod
    def of(cls, before: Reading | None, now: Reading, labels: dict[str, str]) -> _Work:
        return cls(
            name=labels["worker"],
            total=now.get(_JOBS, **labels),
            queued=now.get(_QUEUED, **labels),
            in_hand=now.get(_IN_HAND, **labels),
            jobs=_grown(before, now, _JOBS, **labels),
            batches=_grown(before, now, _BATCHES, **labels),
            answered=_grown(before, now, _ANSWERED, **labels),
            seconds=_grown(before, now, _SECONDS, **labels),
        )


# A type's queue holds what waits for no worker in particular, too; the engine counts both in its own figure.
def _total(worker_type: str, works: list[_Work], now: Reading) -> _Work:
    sums: Counter[str] = Counter()
    for work in works:
        sums.update({key: value for key, value in attrs.asdict(work).items() if key != "name"})
    values = {field.name: float(sums[field.name]) for field in attrs.fields(_Work) if field.name != "name"}
    return _Work(name=worker_type, **{**values, "queued": now.get("orb_queued_jobs", type=worker_type)})


def _row(work: _Work, workers: int, seconds: float | None) -> WorkRow:
    return WorkRow(
        name=work.name,
        workers=workers,
        jobs=work.total,
        queued=work.queued,
        in_hand=work.in_hand,
        jobs_per_second=_speed(work.jobs, seconds),
        batches_per_second=_speed(work.batches, seconds),
        batch_size=work.jobs / work.answered if work.answered else None,
        latency=work.seconds / work.answered if work.answered else None,
    )


# Without an earlier reading, everything since the start: good enough for a mean, not for a speed.
def _grown(before: Reading | None, now: Reading, name: str, **labels: str) -> float:
    value = now.get(name, **labels)
    former = before.get(name, **labels) if before is not None else 0.0
    return value - former if value >= former else value


def _speed(count: float, seconds: float | None) -> float | None:
    return count / seconds if seconds else None


_TOTALS: Final = {
    "orb_jobs_answered_total": "answered",
    "orb_jobs_redelivered_total": "redelivered",
    "orb_jobs_abandoned_total": "abandoned",
    "orb_outputs_dropped_total": "outputs dropped",
    "orb_peer_errors_total": "peer errors",
    "orb_connections_lost_total": "connections lost",
    "orb_registrations_refused_total": "registrations refused",
}


def _totals(now: Reading) -> dict[str, float]:
    counts: Iterable[tuple[str, float]] = [
        *((words, now.get(name)) for name, words in _TOTALS.items()),
        *((f"ended: {labels['kind']}", value) for labels, value in now.named("orb_jobs_ended_total")),
        *((f"refused: {labels['kind']}", value) for labels, value in now.named("orb_jobs_refused_total")),
    ]
    return {words: value for words, value in counts if value or words == "answered"}


# embedding-10 after embedding-9.
def _natural(name: str) -> list[tuple[str, int]]:
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]

"""What the engine tells about itself: one frozen snapshot, and the same figures in Prometheus' format.

Nothing is counted twice: the hot path keeps plain integers where they arise, and both views are made from
them when somebody asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from orbtrio.engine.exchange import Exchange
    from orbtrio.engine.resources import ResourceStore
    from orbtrio.engine.sessions import Sessions

__all__ = ["EngineStatistics", "WorkerStatistics", "WorkerTypeStatistics", "render_metrics", "snapshot"]


@attrs.frozen(kw_only=True)
class WorkerStatistics:
    """One connected worker.

    Attributes:
        name: ``"<worker type>-<n>"``, numbered by registration.
        worker_type: The type it serves.
        queued: Jobs that wait for it.
        unanswered: Jobs it has been sent and has not answered.
        jobs, batches: Answered jobs, and batches sent to it.
        batches_answered: Batches of which it owes nothing any more.
        batch_seconds: Sum over those, from sending a batch to its last answer.
        draining: Whether it takes no more jobs.
    """

    name: str
    worker_type: str
    queued: int
    unanswered: int
    jobs: int
    batches: int
    batches_answered: int
    batch_seconds: float
    draining: bool = False


@attrs.frozen(kw_only=True)
class WorkerTypeStatistics:
    """One worker type: workers that take jobs, accepted jobs not yet sent to one, and workers that drain."""

    worker_type: str
    workers: int
    queued: int
    draining: int = 0


@attrs.frozen(kw_only=True)
class EngineStatistics:
    """A snapshot of an engine; totals count from its start.

    Attributes:
        clients: Registered client connections.
        open_jobs: Accepted jobs without an end yet.
        accepted, answered, abandoned: Totals; abandoned jobs lost their client.
        ended: Accepted jobs that the engine itself ended, by kind (P-31).
        refused: Jobs that were never accepted, by kind.
        redelivered: Jobs sent again because their worker was lost.
        outputs_dropped: Results that were late, duplicate, foreign, unknown or malformed (P-23).
        progress: Entries of progress that came from workers and were of use.
        cancels_sent: Jobs that workers were told to stop.
        registrations_refused, peer_errors, connections_lost: Connections that ended that way.
        files, file_bytes: Resources on disk.
        workers, worker_types: One entry each.
    """

    clients: int
    open_jobs: int
    accepted: int
    answered: int
    abandoned: int
    ended: Mapping[str, int]
    refused: Mapping[str, int]
    redelivered: int
    outputs_dropped: int
    progress: int
    cancels_sent: int
    registrations_refused: int
    peer_errors: int
    connections_lost: int
    files: int
    file_bytes: int
    workers: tuple[WorkerStatistics, ...]
    worker_types: tuple[WorkerTypeStatistics, ...]


def snapshot(exchange: Exchange, sessions: Sessions, store: ResourceStore) -> EngineStatistics:
    """Read all counts of an engine."""
    counters = exchange.counters
    files = store.statistics
    pools = list(exchange.dispatcher.pools.values())
    return EngineStatistics(
        clients=sessions.clients,
        open_jobs=exchange.open_jobs,
        accepted=counters.accepted,
        answered=counters.answered,
        abandoned=counters.abandoned,
        ended=dict(counters.ended),
        refused=dict(counters.refused),
        redelivered=counters.redelivered,
        outputs_dropped=counters.outputs_dropped,
        progress=counters.progress,
        cancels_sent=counters.cancels_sent,
        registrations_refused=sessions.refusals,
        peer_errors=sessions.peer_errors,
        connections_lost=sessions.lost,
        files=files.files,
        file_bytes=files.bytes,
        workers=tuple(
            WorkerStatistics(
                name=queue.name,
                worker_type=queue.worker_type,
                queued=queue.jobs_waiting,
                unanswered=queue.jobs_in_flight,
                jobs=queue.jobs_answered,
                batches=queue.batches_sent,
                batches_answered=queue.batches_answered,
                batch_seconds=queue.batch_seconds,
                draining=queue.draining,
            )
            for pool in pools
            for queue in (*pool.workers, *pool.draining)
        ),
        worker_types=tuple(
            WorkerTypeStatistics(
                worker_type=pool.worker_type,
                workers=len(pool.workers),
                queued=pool.jobs_queued,
                draining=len(pool.draining),
            )
            for pool in pools
        ),
    )


class _EngineCollector(Collector):
    def __init__(self, statistics: Callable[[], EngineStatistics]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterable[Metric]:
        now = self._statistics()
        yield _gauge("orb_clients", "Registered clients.", now.clients)
        yield _gauge("orb_open_jobs", "Accepted jobs without an end yet.", now.open_jobs)
        yield _gauge("orb_resource_files", "Resources on disk.", now.files)
        yield _gauge("orb_resource_bytes", "Bytes of the resources on disk.", now.file_bytes)
        yield _counter("orb_jobs_accepted", "Jobs accepted.", now.accepted)
        yield _counter("orb_jobs_answered", "Jobs answered by a worker.", now.answered)
        yield _counter("orb_jobs_abandoned", "Jobs whose client went away.", now.abandoned)
        yield _counter(
            "orb_jobs_redelivered", "Jobs sent again because their worker was lost.", now.redelivered
        )
        yield _counter(
            "orb_outputs_dropped",
            "Late, duplicate, foreign, unknown or malformed results.",
            now.outputs_dropped,
        )
        yield _counter("orb_progress", "Entries of progress from workers.", now.progress)
        yield _counter("orb_cancels_sent", "Jobs that workers were told to stop.", now.cancels_sent)
        yield _counter("orb_registrations_refused", "Registrations refused.", now.registrations_refused)
        yield _counter(
            "orb_peer_errors", "Connections ended by a protocol error of the peer.", now.peer_errors
        )
        yield _counter(
            "orb_connections_lost", "Connections that ended without a close.", now.connections_lost
        )
        yield _by_label("orb_jobs_ended", "Accepted jobs that the engine ended itself.", "kind", now.ended)
        yield _by_label("orb_jobs_refused", "Jobs that were not accepted.", "kind", now.refused)

        types = GaugeMetricFamily(
            "orb_queued_jobs", "Accepted jobs not yet sent to a worker.", labels=["type"]
        )
        counts = GaugeMetricFamily("orb_workers", "Connected workers that take jobs.", labels=["type"])
        draining = GaugeMetricFamily(
            "orb_workers_draining", "Workers that only finish what they have.", labels=["type"]
        )
        for kind in now.worker_types:
            types.add_metric([kind.worker_type], kind.queued)
            counts.add_metric([kind.worker_type], kind.workers)
            draining.add_metric([kind.worker_type], kind.draining)
        yield from (types, counts, draining)

        labels = ["worker", "type"]
        jobs = CounterMetricFamily("orb_worker_jobs", "Jobs answered.", labels=labels)
        batches = CounterMetricFamily("orb_worker_batches", "Batches sent.", labels=labels)
        queued = GaugeMetricFamily("orb_worker_queued", "Jobs that wait for the worker.", labels=labels)
        unanswered = GaugeMetricFamily("orb_worker_unanswered", "Jobs sent and not answered.", labels=labels)
        seconds = Metric("orb_worker_latency_seconds", "From sending a batch to its last answer.", "summary")
        for worker in now.workers:
            key = [worker.name, worker.worker_type]
            jobs.add_metric(key, worker.jobs)
            batches.add_metric(key, worker.batches)
            queued.add_metric(key, worker.queued)
            unanswered.add_metric(key, worker.unanswered)
            named = dict(zip(labels, key, strict=True))
            seconds.add_sample("orb_worker_latency_seconds_count", named, worker.batches_answered)
            seconds.add_sample("orb_worker_latency_seconds_sum", named, worker.batch_seconds)
        yield from (jobs, batches, queued, unanswered, seconds)


def render_metrics(statistics: Callable[[], EngineStatistics]) -> bytes:
    """The snapshot in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_EngineCollector(statistics))
    return generate_latest(registry)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _by_label(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family

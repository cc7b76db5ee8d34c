"""BAT: the queue in front of a worker, its order and its limit.

A stock worker is sent every batch that is due, so a queue is only long where there is no worker, or one that
takes more jobs at once than a queue may hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases.batching import (
    NO_LATENCY_MS,
    counts,
    entries_of,
    expect_delivered,
    submit,
)
from orbtrio.conformance.model import Plan, case

if TYPE_CHECKING:
    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.players import Job, SuiteWorker

__all__: list[str] = []

# Long enough to submit as many jobs as a queue holds, on a machine that is busy.
_FILLING_MS: Final = 1_500


@case(
    "ORB-BAT-09",
    "Jobs leave in the order in which their client submitted them",
    sentences=("S2.8", "P-17"),
    readings={
        "order": "jobs are in order, within a batch too",
        "batches": "jobs of a batch are mixed up, but older jobs are in older batches",
    },
    plans=st.fixed_dictionaries({"size": st.integers(1, 6), "requests": counts(1, 6, 4)}),
    examples=({"size": 2, "requests": [5]}, {"size": 6, "requests": [1, 1]}),
)
def jobs_leave_in_order(stage: EngineStage, plan: Plan) -> str:
    """One client submits jobs in one request or several, to the only worker of their type, in more than one
    batch. They wait in a queue: no job may be in a later batch than one that was submitted after it.
    Otherwise a job can be overtaken for five minutes and then be thrown away.
    """
    worker = stage.worker(size=plan["size"], latency_ms=40)
    worker.answer_all()
    jobs = submit(stage.client(), plan["requests"])
    expect_delivered(stage, jobs, f"all {len(jobs)} jobs are sent to {worker.name}")
    oldest_first = [delivery.job.number for delivery in worker.deliveries]
    batches = [[delivery.job.number for delivery in batch.deliveries] for batch in worker.batches]
    by_batch = [number for batch in batches for number in sorted(batch)]
    stage.demand(
        by_batch == sorted(by_batch),
        "jobs are sent in the order in which they were submitted",
        f"batches with the jobs number {batches}",
    )
    return "order" if oldest_first == sorted(oldest_first) else "batches"


# The jobs in requests of that many.
def _fill(stage: EngineStage, count: int, request: int) -> list[Job]:
    client = stage.client()
    jobs = submit(client, [request] * (count // request))
    return jobs + submit(client, [count % request] if count % request else [])


# Answered here, for a thousand jobs are much to clear up.
def _answer(stage: EngineStage, *workers: SuiteWorker) -> None:
    for worker in workers:
        worker.answer_all()
    delivered = [delivery.job for worker in workers for delivery in worker.deliveries]
    stage.wait(lambda: all(job.responses for job in delivered))


_SETUPS: Final = st.sampled_from(["worker", "no worker yet"])
_REQUESTS: Final = st.sampled_from([100, 250, 333, 1000])


@case(
    "ORB-BAT-10",
    "1,000 jobs can be queued",
    sentences=("S2.12", "P-14"),
    readings={
        "kept": "1,000 jobs are kept, whether there is a worker yet or not",
        "needs a worker": "1,000 jobs are kept for a worker, but not as long as there is none of their type",
    },
    plans=st.fixed_dictionaries({"setup": _SETUPS, "request": _REQUESTS}),
    examples=({"setup": "worker", "request": 250}, {"setup": "no worker yet", "request": 250}),
    seconds=2.0,
)
def a_thousand_jobs_are_queued(stage: EngineStage, plan: Plan) -> str:
    """1,000 jobs are submitted while a worker that takes 1,000 at a time waits for a full batch; or before
    there is a worker at all, and then one registers. Each of them must be sent: the spec gives the queue
    that much room, and clients rely on it when they submit a night's work at once. What becomes of jobs
    without a worker the spec does not say, so that is a reading of its own.
    """
    limit = stage.conditions.queue_limit
    if plan["setup"] == "worker":
        worker = stage.worker(size=limit, latency_ms=NO_LATENCY_MS)
        jobs = _fill(stage, limit, plan["request"])
    else:
        jobs = _fill(stage, limit, plan["request"])
        stage.barrier()
        worker = stage.worker(size=limit, latency_ms=50)
        if not stage.wait(lambda: all(job.deliveries for job in jobs)) and not worker.deliveries:
            return "needs a worker"
        stage.count("full queue")
    expect_delivered(
        stage, jobs, f"{limit} jobs are queued and sent to {worker.name}, which takes {limit} at a time"
    )
    _answer(stage, worker)
    return "kept"


@case(
    "ORB-BAT-11",
    "When 1,000 jobs are queued, none of them is dropped for another",
    sentences=("S2.12", "S9.10", "P-14", "P-31"),
    readings={
        "refused": "jobs beyond the 1,000 are skipped, and their client hears nothing",
        "answered": "jobs beyond the 1,000 are answered with an error",
        "room": "there is room for more, because a batch leaves in time: no queue is ever above 1,000",
        "kept": "jobs beyond the 1,000 are queued too: the queue has no limit, or a higher one",
        "needs a worker": "jobs are not kept as long as there is no worker of their type, full queue or not",
    },
    plans=st.fixed_dictionaries(
        {"setup": _SETUPS, "request": _REQUESTS, "more": st.integers(1, 5)},
    ),
    examples=(
        {"setup": "no worker yet", "request": 250, "more": 1},
        {"setup": "worker", "request": 250, "more": 1},
    ),
    seconds=3.0,
)
def the_oldest_is_not_dropped(stage: EngineStage, plan: Plan) -> str:
    """More than 1,000 jobs are submitted before there is a worker of their type, or to one whose batches
    are larger than that and do not leave for a second and a half. What has been queued must stay: of the
    jobs that are sent in the end none may be younger than one that is not. Whoever is turned away can try
    again; whose job is dropped for somebody else's waits for nothing. Whether the others are refused in
    silence, answered with an error or queued all the same is told as a reading.
    """
    limit = stage.conditions.queue_limit
    early = None
    if plan["setup"] == "worker":
        early = stage.worker(size=2 * limit, latency_ms=_FILLING_MS)
    jobs = _fill(stage, limit + plan["more"], plan["request"])
    start = stage.now()
    stage.barrier()
    worker = early or stage.worker(size=limit, latency_ms=50)
    if early:
        stage.sleep_until(start + _FILLING_MS / 1000)
    stage.wait(lambda: all(job.deliveries or job.responses for job in jobs), 0.3)
    stage.quiet()
    sent = [job for job in jobs if job.deliveries]
    if not sent:
        stage.demand(early is None, f"what is queued is sent to {worker.name}", "no job is sent")
        return "needs a worker"
    stage.count("full queue")
    dropped = [job for job in jobs if not job.deliveries and job.number < sent[-1].number]
    stage.demand(
        not dropped,
        f"with {limit} jobs queued, a job that comes is refused, and no older one is dropped for it",
        f"{sent[-1]}, submitted as number {sent[-1].number}, is sent, and "
        f"{', '.join(f'{job} (number {job.number})' for job in dropped[:3])} never is",
    )
    answered = any(job.responses for job in jobs if not job.deliveries)
    largest = max(len(entries) for entries in entries_of(worker))
    _answer(stage, worker)
    if len(sent) < len(jobs):
        return "answered" if answered else "refused"
    return "room" if early and largest <= limit else "kept"


@case(
    "ORB-BAT-13",
    "A batch that is due is sent although the worker has not answered the one before",
    sentences=("S6.25", "S7.5", "S2.10", "P-15"),
    plans=st.fixed_dictionaries(
        {
            "size": st.integers(1, 4),
            "batches": st.integers(2, 4),
            "due_by": st.sampled_from(["size", "latency"]),
        }
    ),
    examples=(
        {"size": 1, "batches": 2, "due_by": "size"},
        {"size": 2, "batches": 2, "due_by": "latency"},
    ),
)
def open_batches_do_not_hold_up_the_next(stage: EngineStage, plan: Plan) -> None:
    """A worker gets a batch and does not answer. Then jobs are submitted for another batch, which is full,
    or has waited max_latency_ms. It must be sent as well: size and latency are the only conditions that the
    spec names. Workers with a pipeline, that fetch pictures for one batch while the model computes another,
    depend on it.
    """
    by_size = plan["due_by"] == "size"
    size = plan["size"] if by_size else plan["size"] + 1
    worker = stage.worker(size=size, latency_ms=NO_LATENCY_MS if by_size else 30)
    client = stage.client()
    for number in range(1, plan["batches"] + 1):
        jobs = submit(client, [plan["size"]])
        expect_delivered(
            stage,
            jobs,
            f"batch number {number} is sent to {worker.name}, which has not answered {number - 1} others",
        )
        if number == 2:
            stage.count("two open batches")

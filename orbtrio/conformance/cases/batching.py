"""BAT: which jobs leave for a worker together, and when.

Workers answer at once, so that an engine that waits for answers is noticed by the one case that is about
it, ORB-BAT-13. Full batches are provoked by a latency that never ends, partial ones by a size that
is never reached. A delivery is never early by our own doing, for a job's time is taken before it is sent;
that it is late counts only beyond twice the slack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.model import Plan, case
from orbtrio.conformance.stage import PROMPTLY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.players import Job, SuiteClient, SuiteWorker

__all__ = ["NO_LATENCY_MS", "counts", "entries_of", "expect_delivered", "submit"]

# More than any case waits, less than any job may take.
NO_LATENCY_MS: Final = 30_000

# Timers of milliseconds may ring that much before their time, in seconds.
_TICK: Final = 0.005


def counts(least: int, most: int, longest: int) -> st.SearchStrategy[list[int]]:
    """Numbers of jobs, one for each request, or of milliseconds."""
    return st.lists(st.integers(least, most), min_size=1, max_size=longest)


def submit(client: SuiteClient, counts: Iterable[int], **options: Any) -> list[Job]:
    """So many jobs in each of so many requests."""
    jobs: list[Job] = []
    for count in counts:
        request = [client.job(**options) for _ in range(count)]
        client.request(request)
        jobs += request
    return jobs


def expect_delivered(stage: EngineStage, jobs: list[Job], expected: str, *, within: float = PROMPTLY) -> None:
    """Demand that each of them comes to a worker."""

    def seen() -> str:
        missing = [str(job) for job in jobs if not job.deliveries]
        return f"{len(missing)} of {len(jobs)} jobs have not been sent to a worker, the first is {missing[0]}"

    stage.expect(lambda: all(job.deliveries for job in jobs), expected, seen, within=within)


def entries_of(worker: SuiteWorker) -> Iterator[list[Any]]:
    """The jobs of each batch as they came, those of earlier plans included."""
    for message in worker.messages:
        if isinstance(message.value, dict) and isinstance(message.value.get("inputs"), list):
            yield message.value["inputs"]


def _apart(older: Job, younger: Job) -> float:
    return (younger.submitted or 0.0) - (older.submitted or 0.0)


def _waited(job: Job) -> float:
    return job.deliveries[0].at - (job.submitted or 0.0)


@case(
    "ORB-BAT-01",
    "The oldest job of a batch waits max_latency_ms and no longer, however many jobs follow it",
    sentences=("S1.6", "S2.11", "S6.8", "S6.10", "S6.24", "S6.25", "S6.26", "S2.9", "P-10"),
    readings={
        "waits": "a batch that is not full leaves when its oldest job has waited max_latency_ms",
        "early": "a batch that is not full leaves before its oldest job has waited max_latency_ms",
    },
    plans=st.fixed_dictionaries({"latency_ms": st.integers(40, 150), "gaps_ms": counts(2, 30, 4)}),
    examples=({"latency_ms": 60, "gaps_ms": [20]},),
)
def oldest_job_waits_at_most_the_latency(stage: EngineStage, plan: Plan) -> str:
    """A worker takes up to 1,000 jobs and lets them gather for max_latency_ms. One job is submitted, and
    then another every few milliseconds, without end. The batch with the first job must leave when that has
    waited max_latency_ms, though it is far from full. An engine that restarts its timer with each job (a
    debounce) sends nothing as long as jobs keep coming, which is just when somebody waits for them. Leaving
    before the time is told as a reading of its own: it costs throughput, not answers.
    """
    latency = plan["latency_ms"] / 1000
    worker = stage.worker(size=1000, latency_ms=plan["latency_ms"])
    worker.answer_all()
    client = stage.client()
    first = client.submit()
    end = stage.now() + latency + 2 * stage.slack
    arrivals = 1
    while not first.deliveries and stage.now() < end:
        gap = plan["gaps_ms"][arrivals % len(plan["gaps_ms"])] / 1000
        if not stage.world.wait(min(gap, latency / 2), lambda: bool(first.deliveries)):
            client.submit()
            arrivals += 1
    stage.demand(
        bool(first.deliveries),
        f"{first} is in a batch to {worker.name} {plan['latency_ms']} ms after it was submitted",
        f"nothing after {(stage.now() - (first.submitted or 0)) * 1000:.0f} ms, in which {arrivals - 1} more "
        "jobs were submitted",
    )
    stage.count("partial batch by timer")
    return "early" if _waited(first) < latency - _TICK else "waits"


@case(
    "ORB-BAT-02",
    "No batch has more jobs than the worker's max_batch_size",
    sentences=("S1.5", "S2.10"),
    plans=st.fixed_dictionaries({"size": st.integers(1, 8), "requests": counts(1, 12, 4)}),
    examples=({"size": 3, "requests": [7]}, {"size": 1, "requests": [2]}),
)
def batches_are_not_above_size(stage: EngineStage, plan: Plan) -> None:
    """A worker registers with a max_batch_size, and more jobs than that are submitted, in one request or in
    several. All of them must come, none of the batches may have more. The number is what fits into the
    worker's memory: one job above it and the whole batch fails.
    """
    worker = stage.worker(size=plan["size"], latency_ms=20)
    worker.answer_all()
    jobs = submit(stage.client(), plan["requests"])
    expect_delivered(stage, jobs, f"all {len(jobs)} jobs are sent to {worker.name}")
    largest = max(len(entries) for entries in entries_of(worker))
    stage.demand(
        largest <= plan["size"],
        f"batches of at most {plan['size']} jobs, the max_batch_size of {worker.name}",
        f"a batch of {largest}",
    )


@case(
    "ORB-BAT-03",
    "A full batch leaves at once",
    sentences=("S2.8", "S2.9", "S2.10", "S6.9", "P-10"),
    plans=st.fixed_dictionaries(
        {"size": st.integers(1, 8), "batches": st.integers(1, 3), "request": st.integers(1, 8)}
    ),
    examples=({"size": 3, "batches": 1, "request": 3}, {"size": 2, "batches": 2, "request": 1}),
)
def full_batches_leave_at_once(stage: EngineStage, plan: Plan) -> None:
    """The worker's max_latency_ms is half a minute, and as many jobs are submitted as fill one batch or
    several. They must be sent without waiting for that half minute. Under load this is the only thing that
    sends batches: an engine that looks at its clock alone makes every job wait for nothing.
    """
    worker = stage.worker(size=plan["size"], latency_ms=NO_LATENCY_MS)
    worker.answer_all()
    count = plan["size"] * plan["batches"]
    requests = [plan["request"]] * (count // plan["request"])
    jobs = submit(stage.client(), [*requests, count - sum(requests)] if count > sum(requests) else requests)
    expect_delivered(
        stage,
        jobs,
        f"{count} jobs fill {plan['batches']} batches of {plan['size']} and are sent to {worker.name} at "
        f"once, not after its {NO_LATENCY_MS} ms",
    )
    stage.count("full batch")


@case(
    "ORB-BAT-04",
    "What a full batch leaves behind has a timer of its own",
    sentences=("S6.27", "S2.11", "P-10"),
    readings={
        "own": "jobs left behind by a full batch leave when the oldest of them has waited max_latency_ms",
        "early": "they leave before that: the timer of the batch that has left goes on running",
    },
    plans=st.fixed_dictionaries(
        {
            "size": st.integers(2, 6),
            "left": st.integers(1, 5),
            "latency_ms": st.integers(80, 160),
            "delay_ms": st.integers(0, 50),
        }
    ),
    examples=(
        {"size": 2, "left": 1, "latency_ms": 80, "delay_ms": 0},
        {"size": 3, "left": 2, "latency_ms": 100, "delay_ms": 50},
    ),
)
def leftovers_keep_their_timer(stage: EngineStage, plan: Plan) -> str:
    """All jobs of a batch but one are there; then one request brings the last and some more. The full batch
    leaves, the rest stays and must leave when it has waited max_latency_ms itself, although nothing else
    comes. An engine that stops its timer when a batch leaves forgets them until the next batch is full,
    which on a quiet evening is never. If they leave too early, the old timer is still running.
    """
    size, latency = plan["size"], plan["latency_ms"] / 1000
    left = min(plan["left"], size - 1)
    worker = stage.worker(size=size, latency_ms=plan["latency_ms"])
    worker.answer_all()
    client = stage.client()
    submit(client, [size - 1])
    stage.sleep(plan["delay_ms"] / 1000)
    if worker.deliveries:
        stage.too_slow("the first jobs left before the batch could be filled")
    leftovers = submit(client, [1 + left])[1:]
    expect_delivered(
        stage,
        leftovers,
        f"the {left} jobs that a full batch of {size} left behind are sent to {worker.name} after "
        f"{plan['latency_ms']} ms",
        within=latency + stage.slack,
    )
    stage.count("partial batch by timer")
    first = next(batch for batch in worker.batches if batch.deliveries)
    if len(first.deliveries) < size and _apart(first.deliveries[0].job, leftovers[0]) >= latency:
        stage.too_slow("the first jobs were due before the batch could be filled")
    return "early" if min(map(_waited, leftovers)) < latency - _TICK else "own"


@case(
    "ORB-BAT-05",
    "A batch is never empty",
    sentences=("S2.8", "S6.8", "S2.9", "P-10"),
    plans=st.fixed_dictionaries(
        {
            "latency_ms": st.integers(10, 60),
            "size": st.integers(1, 4),
            "jobs": st.integers(0, 5),
            "client_goes": st.booleans(),
        }
    ),
    examples=(
        {"latency_ms": 10, "size": 2, "jobs": 0, "client_goes": False},
        {"latency_ms": 60, "size": 4, "jobs": 1, "client_goes": True},
    ),
)
def batches_are_never_empty(stage: EngineStage, plan: Plan) -> None:
    """A worker registers and its max_latency_ms passes, and passes again: without a job; after jobs that
    have left; or after jobs whose client has gone before they could leave. No batch without a job may come.
    Models are called with what a batch holds, and most of them fail on nothing.
    """
    worker = stage.worker(size=plan["size"], latency_ms=plan["latency_ms"])
    worker.answer_all()
    client = stage.client()
    if plan["jobs"]:
        submit(client, [plan["jobs"]])
    if plan["client_goes"]:
        client.drop("FIN")
    else:
        stage.barrier()
    stage.sleep(2 * plan["latency_ms"] / 1000)
    stage.never(
        lambda: any(not entries for entries in entries_of(worker)),
        f"{worker.name} is only sent batches with jobs",
        "a batch with none",
    )

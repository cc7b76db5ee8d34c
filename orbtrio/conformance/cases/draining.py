"""Extension `drain`: a worker that is to end hands back what it has not begun, and loses nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases.asking import (
    LONG_MS,
    all_delivered,
    asking_client,
    asking_worker,
    expect_done,
)
from orbtrio.conformance.cases.resources import LATENCY_MS, delivered
from orbtrio.conformance.model import case

if TYPE_CHECKING:
    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan
    from orbtrio.conformance.players import SuiteWorker

__all__: list[str] = []

_DRAIN: Final = {"type": "worker_drain"}

# A type whose jobs are bound to the worker that had the first of their key, and the key's field.
_KEYED: Final = ("motion_energy", "media_id")


@case(
    "ORB-EXT-15",
    "What is queued for a worker that drains goes to others at once",
    sentences=("X3.2", "X3.1"),
    plans=st.fixed_dictionaries(
        {
            "queued": st.integers(1, 6),
            "in_hand": st.booleans(),
            "keyed": st.booleans(),
            "there": st.booleans(),
        }
    ),
    examples=[
        {"queued": 2, "in_hand": True, "keyed": False, "there": True},
        {"queued": 2, "in_hand": True, "keyed": True, "there": True},
        {"queued": 1, "in_hand": False, "keyed": False, "there": False},
    ],
)
def queued_jobs_move(stage: EngineStage, plan: Plan) -> None:
    """Jobs wait for a worker that gathers batches for a minute, perhaps one that another job of their key has
    bound them to, and perhaps it has a batch in hand. It sends worker_drain. What it was not sent must go to
    another worker at once, one that is there or the next that comes: a fleet is updated worker by worker, and
    nobody may wait for that. What it has in hand it answers.
    """
    keyed = plan["keyed"] and _KEYED[0] in stage.conditions.types[:-1]
    worker_type, job_input = (_KEYED[0], {_KEYED[1]: "one key"}) if keyed else (stage.main_type, {})
    size = plan["queued"] + 1
    worker = asking_worker(stage, "drain", worker_type=worker_type, size=size, latency_ms=LONG_MS)
    client = asking_client(stage, "drain")

    def submit(count: int) -> Any:
        jobs = [client.job(job_input, worker_type=worker_type) for _ in range(count)]
        client.request(jobs)
        return jobs

    held = submit(size) if plan["in_hand"] else []
    all_delivered(stage, held)
    queued = submit(plan["queued"])
    stage.barrier()
    other: SuiteWorker | None = None
    if plan["there"]:
        other = asking_worker(stage, worker_type=worker_type)
    worker.send(_DRAIN)
    if other is None:
        stage.barrier()
        other = asking_worker(stage, worker_type=worker_type)
    other.answer_all()
    for job in queued:
        stage.expect(
            lambda job=job: bool(job.deliveries),  # type: ignore[misc]
            f"{job}, queued for {worker.name}, which drains, is sent to {other.name} at once",
            "nothing is sent",
        )
        stage.demand(
            job.deliveries[0].worker is other,
            f"{job} goes to {other.name}, not to {worker.name}, which drains",
            f"it is sent to {job.deliveries[0].worker.name}",
        )
    worker.answer(*[job.deliveries[-1] for job in held])
    expect_done(stage, [*held, *queued], f"submitted before {worker.name} drained")
    later = submit(2)
    expect_done(stage, later, f"submitted after {worker.name} drained")


@case(
    "ORB-EXT-16",
    "A worker that drains finishes what it has, gets nothing new, and is then closed with 1000",
    sentences=("X3.3", "X3.4", "X3.1"),
    plans=st.fixed_dictionaries(
        {
            "size": st.integers(1, 4),
            "batches": st.integers(0, 2),
            "crossing": st.booleans(),
            "one_by_one": st.booleans(),
            "new": st.integers(0, 2),
        }
    ),
    examples=[
        {"size": 2, "batches": 1, "crossing": False, "one_by_one": True, "new": 1},
        {"size": 1, "batches": 0, "crossing": True, "one_by_one": False, "new": 0},
        {"size": 1, "batches": 0, "crossing": False, "one_by_one": False, "new": 0},
    ],
)
def running_jobs_are_finished(stage: EngineStage, plan: Plan) -> None:
    """A worker with some batches in hand sends worker_drain, perhaps at the very moment at which a batch is
    on its way to it. It must stay connected as long as it has jobs to answer, and be sent no new ones; its
    answers must reach the client, those to the batch that crossed, too. Behind the last the engine must
    close the connection with 1000: then the worker knows that it may go. No job may be done twice for it.
    """
    size = plan["size"]
    worker = asking_worker(stage, "drain", size=size, latency_ms=LATENCY_MS)
    client = asking_client(stage, "drain")
    jobs = [client.job() for _ in range(size * plan["batches"])]
    client.request(jobs)
    all_delivered(stage, jobs)
    if plan["crossing"]:
        crossing = [client.job() for _ in range(size)]
        client.request(crossing)
        jobs += crossing
    worker.send(_DRAIN)
    worker.ping(b"drained?")
    stage.wait(lambda: bool(worker.pongs) or worker.closed is not None)
    stage.quiet()
    had = len(worker.deliveries)
    new = [client.job() for _ in range(plan["new"])]
    client.request(new)
    left = list(worker.deliveries)
    if left:
        stage.never(
            lambda: worker.closed is not None or len(worker.deliveries) > had,
            f"{worker.name}, which drains and has {len(left)} jobs in hand, stays connected and gets no more",
            lambda: f"{worker.name} {worker.closed}" if worker.closed else "it is sent another batch",
        )
    for delivery in left if plan["one_by_one"] else []:
        stage.demand(
            worker.closed is None,
            f"{worker.name} stays connected until it has answered {delivery.job}",
            f"{worker.name} {worker.closed}",
        )
        worker.answer(delivery)
        stage.expect(lambda job=delivery.job: bool(job.responses), f"{delivery.job} is answered")  # type: ignore[misc]
    if not plan["one_by_one"]:
        worker.answer(*left)
    expect_done(stage, [delivery.job for delivery in left], f"which {worker.name} had when it drained")
    closed = stage.expect_closed(
        worker, f"{worker.name}, which drains and has answered everything, is closed"
    )
    stage.demand(closed.code == 1000, f"{worker.name} is closed with 1000", str(closed))
    asking_worker(stage, size=size).answer_all()
    expect_done(stage, [*jobs, *new], f"after {worker.name} has gone")
    twice = [job for job in [*jobs, *new] if len(job.deliveries) > 1]
    stage.demand(not twice, "no job is sent twice for a worker that drains", f"{len(twice)} are")


@case(
    "ORB-EXT-17",
    "A worker that did not ask for draining goes on getting jobs, whatever it says",
    sentences=("X0.5",),
    plans=st.fixed_dictionaries({"times": st.integers(1, 2), "held": st.booleans()}),
    examples=[{"times": 1, "held": True}],
)
def stock_workers_do_not_drain(stage: EngineStage, plan: Plan) -> None:
    """A worker that did not ask for `drain` sends worker_drain, with a job in hand or without. That is a
    message of a type that is none: the connection stays, and the next job comes.
    """
    stage.need_extensions("drain")
    worker = stage.worker(size=1, latency_ms=LATENCY_MS)
    client = stage.client()
    jobs = []
    if plan["held"]:
        jobs.append(client.submit())
        all_delivered(stage, jobs)
    for _ in range(plan["times"]):
        worker.send(_DRAIN)
    stage.never(
        lambda: worker.closed is not None,
        f"{worker.name}, which did not ask for `drain`, stays connected when it sends worker_drain",
        lambda: str(worker.closed),
    )
    jobs.append(client.submit())
    delivered(stage, jobs[-1])
    worker.answer(*worker.deliveries)
    expect_done(stage, jobs, f"by {worker.name}, which sent a worker_drain that nobody heard")

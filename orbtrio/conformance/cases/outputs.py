"""OUT: who is answered, by whom, and how often.

Answers echo the input of their job, so an answer tells which job it was made for, whatever id it came under.
That nothing comes is claimed only when a canary, sent behind the answer, has been through the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases.batching import expect_delivered, submit
from orbtrio.conformance.model import Plan, case
from orbtrio.conformance.notation import diagnostic, encode
from orbtrio.conformance.players import answer_to

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.players import Delivery, Job, SuiteWorker

__all__ = ["DROPPED", "check_own_answer", "expect_answers", "hand_out", "harmless"]

# What may become of an answer that nobody waits for.
DROPPED: Final = {
    "dropped": "it is ignored, and the worker goes on",
    "disconnects": "it is ignored, but its worker is disconnected and what it had in hand starts again",
}


def hand_out(stage: EngineStage, jobs: list[Job]) -> list[Delivery]:
    """Have them delivered; the delivery of each, in their order."""
    expect_delivered(stage, jobs, f"{len(jobs)} jobs are sent to a worker")
    return [job.deliveries[0] for job in jobs]


def expect_answers(stage: EngineStage, jobs: Iterable[Job], expected: str) -> None:
    """Demand that each of them is answered."""
    jobs = list(jobs)

    def seen() -> str:
        missing = [job for job in jobs if not job.responses]
        return f"{missing[0]} of {missing[0].client.name} has no answer, like {len(missing) - 1} others"

    stage.expect(lambda: all(job.responses for job in jobs), expected, seen)


def check_own_answer(stage: EngineStage, job: Job) -> None:
    """Demand that its answer is the one that was given to it."""
    output = job.responses[0].output
    echo = output.get("echo") if isinstance(output, dict) else None
    stage.demand(
        echo == job.input,
        f"{job} of {job.client.name} gets the answer that its worker gave to it, "
        f"echo: {diagnostic(job.input)}",
        f"its answer is {diagnostic(output)}",
    )


def harmless(stage: EngineStage, worker: SuiteWorker) -> str:
    """Whether the worker is still served after what it has said: by the names of `DROPPED`."""
    if worker.closed is None:
        job = stage.client().submit(worker_type=worker.worker_type)
        if stage.wait(lambda: bool(job.deliveries) or worker.closed is not None) and job.deliveries:
            job.deliveries[0].worker.answer(job.deliveries[0])
            stage.wait(lambda: bool(job.responses))
    return "dropped" if worker.closed is None else "disconnects"


@case(
    "ORB-OUT-01",
    "Each job is answered once, to the client that submitted it",
    sentences=("S3.1", "S3.2", "S3.3", "S3.7", "S3.12", "S3.14", "S6.14", "S6.15", "S12.3"),
    plans=st.fixed_dictionaries(
        {
            "clients": st.integers(1, 3),
            "jobs": st.integers(1, 5),
            "size": st.integers(1, 8),
        }
    ),
    examples=({"clients": 1, "jobs": 1, "size": 1}, {"clients": 2, "jobs": 2, "size": 4}),
)
def each_job_is_answered_once(stage: EngineStage, plan: Plan) -> None:
    """Some clients submit jobs, a worker answers every batch with one worker_output, as the spec prints it.
    Each client must get one worker_response for each of its jobs, with the worker's output, and nothing for
    the jobs of others. This is what the whole protocol is for.
    """
    worker = stage.worker(size=plan["size"], latency_ms=10)
    worker.answer_all()
    clients = [stage.client() for _ in range(plan["clients"])]
    jobs = [job for client in clients for job in submit(client, [plan["jobs"]])]
    expect_answers(stage, jobs, f"each of {len(jobs)} jobs that {worker.name} has answered is answered")
    for job in jobs:
        check_own_answer(stage, job)
    stage.never(
        lambda: any(len(client.responses) > plan["jobs"] for client in clients),
        f"each client gets {plan['jobs']} answers, one for each job",
        lambda: " and ".join(f"{client.name} got {len(client.responses)}" for client in clients),
    )


# Anything but the empty text, which some take for none.
_TEXT_IDS: Final = st.text(min_size=1, max_size=12) | st.uuids().map(str)


def _unlike(ids: list[Any]) -> bool:
    return len({encode(job_id) for job_id in ids}) == len(ids)


@case(
    "ORB-OUT-02",
    "An answer carries the client's own job_id",
    sentences=("S4.14", "S3.12", "S3.14", "S6.15", "P-02"),
    readings={
        "any": "a job_id comes back as it was sent, texts, numbers and truth values alike",
        "texts": "a job_id comes back if it is a text, as the spec has it; others are changed or refused",
    },
    plans=st.fixed_dictionaries(
        {
            "ids": st.lists(_TEXT_IDS, min_size=1, max_size=4, unique=True),
            "other_kinds": st.lists(
                st.integers(0, 2**31) | st.booleans() | st.floats(-1e6, 1e6, width=32), max_size=3
            ).filter(_unlike),
        }
    ),
    examples=(
        {"ids": ["job-1", "Job-1", "größe 💡"], "other_kinds": []},
        {"ids": ["1"], "other_kinds": [1, True, 1.0]},
    ),
)
def job_ids_are_echoed(stage: EngineStage, plan: Plan) -> str:
    """Jobs are submitted with job_ids of the client's choice: any texts, case and accents included, and
    then numbers and truth values, which JavaScript clients use as well. Each answer must carry the job_id
    of its job, not the engine's id and not another's: it is all that a client has to tell its answers
    apart.
    """
    worker = stage.worker(size=10, latency_ms=10)
    worker.answer_all()
    client = stage.client()
    texts = [client.job(job_id=job_id) for job_id in plan["ids"]]
    client.request(texts)
    expect_answers(
        stage, texts, f"the jobs {', '.join(map(repr, plan['ids']))} are answered under these job_ids"
    )
    for job in texts:
        check_own_answer(stage, job)
    others = [client.job(job_id=job_id) for job_id in plan["other_kinds"]]
    if not others:
        return "any"
    client.request(others)
    if not stage.wait(lambda: all(job.responses for job in others) or client.closed is not None, 0.5):
        return "texts"
    if client.closed is not None:
        return "texts"
    for job in others:
        check_own_answer(stage, job)
    return "any"


@case(
    "ORB-OUT-03",
    "Answers may come in any order",
    sentences=("S3.10",),
    plans=st.integers(2, 8).flatmap(lambda count: st.permutations(range(count))),
    examples=([1, 0],),
)
def answers_in_any_order(stage: EngineStage, plan: Plan) -> None:
    """A worker gets some jobs in one batch and answers them in one worker_output, in another order than
    they came in. Each job must get the answer that stands under its own id. An engine that goes by position
    hands results to the wrong people, and nobody notices.
    """
    worker = stage.worker(size=len(plan), latency_ms=50)
    deliveries = hand_out(stage, submit(stage.client(), [len(plan)]))
    order = [deliveries[number] for number in plan]
    worker.output([answer_to(delivery) for delivery in order])
    jobs = [delivery.job for delivery in order]
    expect_answers(
        stage, jobs, f"all {len(jobs)} jobs are answered, though {worker.name} answers in this order: {plan}"
    )
    for job in jobs:
        check_own_answer(stage, job)


@case(
    "ORB-OUT-04",
    "A second answer to a job is dropped",
    sentences=("S3.15", "P-23", "B-67"),
    readings=DROPPED,
    plans=st.fixed_dictionaries(
        {
            "jobs": st.integers(1, 4),
            "again": st.lists(st.integers(0, 3), min_size=1, max_size=3),
            "in_one_message": st.booleans(),
        }
    ),
    examples=(
        {"jobs": 1, "again": [0], "in_one_message": False},
        {"jobs": 1, "again": [0], "in_one_message": True},
    ),
)
def second_answers_are_dropped(stage: EngineStage, plan: Plan) -> str:
    """A worker answers its jobs, and then some of them once more, with another result, in the same
    worker_output or in a later one. The client must get the first answer and nothing else: the job was
    deleted with it. Workers repeat themselves after every hiccup of a network.
    """
    worker = stage.worker(size=plan["jobs"], latency_ms=10)
    deliveries = hand_out(stage, submit(stage.client(), [plan["jobs"]]))
    first = [answer_to(delivery) for delivery in deliveries]
    second = [{"id": deliveries[number % len(deliveries)].id, "echo": "again"} for number in plan["again"]]
    if plan["in_one_message"]:
        worker.output(first + second)
    else:
        worker.output(first)
        worker.output(second)
    jobs = [delivery.job for delivery in deliveries]
    expect_answers(stage, jobs, f"all {len(jobs)} jobs are answered")
    stage.never(
        lambda: any(len(job.responses) > 1 for job in jobs),
        "a job that has been answered is not answered again",
        lambda: next(
            f"{job} has {len(job.responses)} answers, the last is {diagnostic(job.responses[-1].output)}"
            for job in jobs
            if len(job.responses) > 1
        ),
    )
    for job in jobs:
        check_own_answer(stage, job)
    return harmless(stage, worker)


@case(
    "ORB-OUT-05",
    "Only the worker that has a job may answer it",
    sentences=("S3.8", "S6.14", "S3.12", "P-23", "B-67"),
    readings={
        **DROPPED,
        "taken": "an answer counts whoever sends it: one worker can answer for all others",
    },
    plans=st.fixed_dictionaries({"same_type": st.booleans(), "jobs": st.integers(1, 3)}),
    examples=(
        {"same_type": True, "jobs": 1},
        {"same_type": False, "jobs": 1},
    ),
)
def foreign_answers_are_dropped(stage: EngineStage, plan: Plan) -> str:
    """A worker has some jobs. Another one, of the same type or of another, sends answers under their ids.
    They must not reach the client; the owner's answer, which comes later, must. The ids are secrets only as
    long as nobody logs them, and a worker that is wrong about one must not spoil the jobs of others.
    """
    owner = stage.worker(size=plan["jobs"], latency_ms=10)
    deliveries = hand_out(stage, submit(stage.client(), [plan["jobs"]]))
    jobs = [delivery.job for delivery in deliveries]
    other = stage.worker(
        owner.worker_type if plan["same_type"] else stage.other_type(), size=1, latency_ms=10
    )
    other.output([{"id": delivery.id, "echo": "not mine"} for delivery in deliveries])
    stage.quiet()
    if any(job.responses for job in jobs):
        return "taken"
    owner.answer(*deliveries)
    expect_answers(
        stage, jobs, f"all {len(jobs)} jobs are answered, as {owner.name}, which has them, answers"
    )
    for job in jobs:
        check_own_answer(stage, job)
    return "dropped" if other.closed is None else "disconnects"


@case(
    "ORB-OUT-06",
    "Answers to jobs that do not exist are dropped",
    sentences=("S3.4", "S3.8", "S3.12", "P-23", "B-67"),
    readings=DROPPED,
    plans=st.fixed_dictionaries(
        {
            "ids": st.lists(
                st.text(max_size=8) | st.uuids().map(str) | st.just("__proto__"), min_size=1, max_size=4
            ),
            "client_id_too": st.booleans(),
        }
    ),
    examples=({"ids": ["job-uuid-1"], "client_id_too": False}, {"ids": [""], "client_id_too": True}),
)
def unknown_ids_are_harmless(stage: EngineStage, plan: Plan) -> str:
    """While a worker has a job it sends answers under ids that were never given to anybody, perhaps also
    under the client's own job_id, which is none of its business. Nothing of that may reach the client, the
    engine must go on, and the job be answered when its worker answers it. After a restart of the engine,
    every answer that workers still had in hand is of this kind.
    """
    worker = stage.worker(size=1, latency_ms=10)
    client = stage.client()
    job = client.submit(job_id="mine")
    (delivery,) = hand_out(stage, [job])
    ids = [unknown for unknown in plan["ids"] if unknown != delivery.id]
    if plan["client_id_too"] and delivery.id != job.job_id:
        ids.append(job.job_id)
    worker.output([{"id": unknown, "echo": "for nobody"} for unknown in ids])
    stage.never(
        lambda: bool(client.responses or client.closed),
        f"answers under {', '.join(map(repr, ids))}, ids of no job, reach nobody",
        lambda: f"{client.name} {client.closed}" if client.closed else f"{client.name} got an answer",
    )
    if worker.closed is not None:
        return "disconnects"
    worker.answer(delivery)
    expect_answers(stage, [job], f"{job} is answered, for {worker.name} has answered it in the end")
    check_own_answer(stage, job)
    return "dropped"

"""Extension `batched_responses`: answers that are ready together travel together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from orbtrio.conformance.cases.asking import (
    LONG_MS,
    all_delivered,
    asking_client,
    asking_worker,
    expect_done,
)
from orbtrio.conformance.model import case
from orbtrio.conformance.notation import diagnostic

if TYPE_CHECKING:
    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan

__all__: list[str] = []


@case(
    "ORB-EXT-21",
    "Answers that are ready together come in one message, each exactly once",
    sentences=("X5.1", "X5.2"),
    plans=st.fixed_dictionaries(
        {
            # Jobs that are answered in one output, one output after the other.
            "outputs": st.lists(st.integers(1, 12), min_size=1, max_size=4),
            "pause": st.booleans(),
            "error": st.booleans(),
        }
    ),
    examples=[
        {"outputs": [8], "pause": False, "error": False},
        {"outputs": [1, 4, 1], "pause": True, "error": True},
    ],
)
def answers_come_together(stage: EngineStage, plan: Plan) -> None:
    """A worker answers a batch in outputs of several jobs each, one of them perhaps by an error. The client
    asked for batched_responses: it must get the answer to each job exactly once, in a worker_responses with
    others or, alone, in an ordinary worker_response; where several were answered in one output, at least two
    must have come together. A thousand frames for a thousand small answers are most of their cost.
    """
    size = sum(plan["outputs"])
    worker = asking_worker(stage, size=size, latency_ms=LONG_MS)
    client = asking_client(stage, "batched_responses")
    jobs = [client.job() for _ in range(size)]
    client.request(jobs)
    deliveries = all_delivered(stage, jobs)
    failed = deliveries.pop() if plan["error"] else None
    rest = list(deliveries)
    for count in plan["outputs"]:
        worker.answer(*rest[:count])
        del rest[:count]
        if plan["pause"]:
            stage.barrier()
    if failed is not None:
        worker.answer(failed, error="cannot be done")
        stage.expect(lambda: bool(failed.job.responses), f"{failed.job}, which failed, is answered")
        stage.demand(
            failed.job.responses[0].output == {"id": failed.id, "error": "cannot be done"},
            f"the worker's error for {failed.job} arrives as it was",
            diagnostic(failed.job.responses[0].output),
        )
    expect_done(stage, [delivery.job for delivery in deliveries], "with others in one output")
    stage.never(
        lambda: len(client.responses) > size or bool(client.stray),
        f"{client.name} gets one answer for each of its {size} jobs, and nothing else",
        lambda: f"{len(client.responses)} answers, {len(client.stray)} other messages",
    )
    stage.demand(
        min(client.together, default=2) > 1,
        "a lone answer is an ordinary worker_response",
        f"worker_responses with {min(client.together, default=0)} answers",
    )
    if max(plan["outputs"]) > 1 and len(deliveries) > 1:
        stage.demand(
            bool(client.together),
            f"of {max(plan['outputs'])} jobs that were answered in one output, some come in one message",
            f"{len(client.messages)} messages with one answer each",
        )


@case(
    "ORB-EXT-22",
    "A client that did not ask gets each answer in a message of its own",
    sentences=("X0.3", "X5.1"),
    plans=st.fixed_dictionaries(
        {"jobs": st.integers(1, 6), "asked": st.sampled_from([[], ["engine_errors", "progress", "cancel"]])}
    ),
    examples=[{"jobs": 3, "asked": []}],
)
def stock_clients_get_singles(stage: EngineStage, plan: Plan) -> None:
    """Two clients submit jobs to one worker, which answers all of them in one output. One of the clients
    asked for batched_responses, the other, stock or with other extensions, did not: it must get a
    worker_response for each of its jobs, and nothing else.
    """
    size = plan["jobs"]
    worker = asking_worker(stage, size=2 * size, latency_ms=LONG_MS)
    asking = asking_client(stage, "batched_responses")
    plain = stage.client(extensions=plan["asked"])
    jobs = [client.job() for client in (asking, plain) for _ in range(size)]
    asking.request(jobs[:size])
    plain.request(jobs[size:])
    worker.answer(*all_delivered(stage, jobs))
    stage.wait(lambda: len(plain.responses) >= size or bool(plain.stray))
    stage.never(
        lambda: bool(plain.stray) or len(plain.responses) > size,
        f"{plain.name}, which did not ask for batched_responses, gets {size} times a worker_response",
        lambda: diagnostic([message.value for message in plain.stray] or len(plain.responses)),
    )
    expect_done(stage, jobs, "in one output with another client's")

"""BAT: what stands in a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases.batching import entries_of, expect_delivered, submit
from orbtrio.conformance.model import Plan, case

if TYPE_CHECKING:
    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.players import Job

__all__: list[str] = []

# What stock WebSocket libraries take in one message.
_STOCK_MESSAGE_BYTES: Final = 1 << 20

_SMALL_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


@case(
    "ORB-BAT-06",
    "A batch is {inputs: [{id, input}]}",
    sentences=("S2.1", "S2.2", "S2.3", "S2.6", "S6.11", "S2.4"),
    readings={
        "exact": "a batch is a map with inputs alone",
        "more": "a batch has other keys beside inputs, which workers must ignore",
    },
    plans=st.fixed_dictionaries(
        {
            "inputs": st.lists(
                st.dictionaries(st.sampled_from(["text", "n", "messages"]), _SMALL_JSON, max_size=2),
                min_size=1,
                max_size=4,
            ),
            "size": st.integers(1, 4),
        }
    ),
    examples=({"inputs": [{"text": "hello world"}], "size": 1}, {"inputs": [{}], "size": 1}),
)
def batches_have_their_shape(stage: EngineStage, plan: Plan) -> str:
    """Jobs with inputs of all kinds are submitted, one of them with an empty input. Each batch must be a
    binary message, a map whose inputs are a list, and each job in it must have its id, a text, and its
    input, a map, below these two names. That is all that a worker written from the spec looks at; a job
    without "input" ends such a worker's loop.
    """
    worker = stage.worker(size=plan["size"], latency_ms=10)
    worker.answer_all()
    client = stage.client()
    jobs = [client.job(input) for input in plan["inputs"]]
    # Without the mark in its input a job is nobody's: what is on the wire tells.
    empty = client.job(extra={"input": {}})
    client.request([*jobs, empty])

    def unmarked() -> list[Any]:
        return [
            entry for entries in entries_of(worker) for entry in entries if "conformance" not in repr(entry)
        ]

    expect_delivered(
        stage, jobs, f"{len(jobs)} jobs come to {worker.name}, each with its input below 'input'"
    )
    stage.expect(
        lambda: bool(unmarked()), f"the job with an empty input comes to {worker.name}", "it does not come"
    )
    stage.demand(not worker.texts, "batches are binary messages", "a text message")
    for entry in [*(delivery.entry for delivery in worker.deliveries), *unmarked()]:
        stage.demand(
            isinstance(entry.get("id"), str) and bool(entry["id"]),
            "each job of a batch has an id, a text that is not empty",
            f"id is {entry.get('id')!r}",
        )
        stage.demand(
            isinstance(entry.get("input"), dict),
            "each job of a batch has its input below 'input', even an empty one",
            f"a job with the fields {sorted(map(str, entry))}",
        )
    exact = all(set(message.value) == {"inputs"} for message in worker.messages)
    return "exact" if exact else "more"


@case(
    "ORB-BAT-07",
    "No two jobs have the same id",
    sentences=("S2.4", "P-02"),
    plans=st.fixed_dictionaries(
        {
            "clients": st.integers(1, 3),
            "ids": st.lists(st.sampled_from(["1", "2", "job", "7f"]), min_size=1, max_size=3, unique=True),
            "rounds": st.integers(1, 3),
            "own_id": st.booleans(),
        }
    ),
    examples=(
        {"clients": 2, "ids": ["1"], "rounds": 1, "own_id": False},
        {"clients": 1, "ids": ["1"], "rounds": 2, "own_id": False},
        {"clients": 2, "ids": ["1"], "rounds": 1, "own_id": True},
    ),
)
def ids_are_unique(stage: EngineStage, plan: Plan) -> None:
    """Several clients use the same job_ids, as clients that count from 1 do, and use them again once they
    have been answered; some put a field "id" of their own beside. In the batches each job must have an id
    that no other job has ever had: answers are matched by it, and with two jobs of one id a client gets
    somebody else's answer.
    """
    worker = stage.worker(size=100, latency_ms=10)
    clients = [stage.client() for _ in range(plan["clients"])]
    extra = {"id": "mine"} if plan["own_id"] else None
    ids: dict[Any, Job] = {}
    for number in range(plan["rounds"]):
        job_ids = [f"{number}{job_id}" for job_id in plan["ids"]]
        jobs = [client.job(job_id=job_id, extra=extra) for client in clients for job_id in job_ids]
        for job in jobs:
            job.client.request([job])
        expect_delivered(stage, jobs, f"all {len(jobs)} jobs are sent to {worker.name}")
        for job in jobs:
            other = ids.setdefault(job.deliveries[0].id, job)
            stage.demand(
                other is job,
                "each job of each client has an id of its own",
                f"{job} of {job.client.name} and {other} of {other.client.name} both have the id "
                f"{job.deliveries[0].id!r}",
            )
        worker.answer(*(job.deliveries[0] for job in jobs))
        stage.wait(lambda jobs=jobs: all(job.responses for job in jobs))  # type: ignore[misc]


@case(
    "ORB-BAT-08",
    "Further fields of a job come to the worker beside its input",
    sentences=("S2.7", "P-03"),
    plans=st.fixed_dictionaries(
        {
            "extra": st.dictionaries(
                st.sampled_from(["priority", "trace", "camera", "tags", "größe", "a b"]),
                _SMALL_JSON,
                min_size=1,
                max_size=3,
            ),
            "jobs": st.integers(1, 3),
        }
    ),
    examples=({"extra": {"priority": 5, "trace": "4bf92f"}, "jobs": 1},),
)
def further_fields_pass(stage: EngineStage, plan: Plan) -> None:
    """Jobs are submitted with fields that the spec does not name. The worker must get them beside "id" and
    "input", with their values. Programs hand trace ids and priorities to their workers this way.
    """
    worker = stage.worker(size=plan["jobs"], latency_ms=10)
    worker.answer_all()
    jobs = submit(stage.client(), [plan["jobs"]], extra=plan["extra"])
    expect_delivered(stage, jobs, f"{len(jobs)} jobs are sent to {worker.name}")
    for job in jobs:
        entry = job.deliveries[0].entry
        for name, value in plan["extra"].items():
            stage.demand(
                name in entry and _json(entry[name]) == _json(value),
                f"{job} comes to {worker.name} with its field {name!r}: {value!r}",
                f"{name!r} is {entry[name]!r}" if name in entry else f"a job without {name!r}",
            )


# 1 and True are equal to Python, and not to anybody else.
def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return (isinstance(value, bool), value)


@case(
    "ORB-BAT-12",
    "A batch is not larger than the messages that stock workers take",
    sentences=("S6.11", "S2.10", "P-16"),
    readings={
        "fits": "each batch is at most 1 MiB, what WebSocket libraries take unless they are told otherwise",
        "above": "a batch is above 1 MiB: a worker with the usual limit closes the connection each time",
    },
    plans=st.fixed_dictionaries(
        {"kib": st.lists(st.integers(100, 450), min_size=3, max_size=5), "latency_ms": st.integers(20, 60)}
    ),
    examples=({"kib": [400, 400, 400], "latency_ms": 50},),
    seconds=1.5,
)
def batches_fit_into_a_message(stage: EngineStage, plan: Plan) -> str:
    """Some jobs with inputs of hundreds of kilobytes are submitted for a worker that takes many jobs at a
    time: together they are more than 1 MiB. All must be sent. The spec does not limit a batch's bytes, but
    most WebSocket libraries refuse messages above 1 MiB (1009), so a worker would be lost with each such
    batch, and its jobs go round in circles.
    """
    worker = stage.worker(size=100, latency_ms=plan["latency_ms"])
    worker.answer_all()
    client = stage.client()
    jobs = [client.submit({"text": "x" * (kib * 1024)}) for kib in plan["kib"]]
    expect_delivered(stage, jobs, f"jobs of {plan['kib']} KiB are sent to {worker.name}")
    return "fits" if all(len(message.raw) <= _STOCK_MESSAGE_BYTES for message in worker.messages) else "above"

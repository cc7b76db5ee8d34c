"""Registration: sizes and latencies that workers ask for, or do not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import cbor2
from hypothesis import strategies as st

from orbtrio.conformance.cases.registration import REFUSED, ending_of, expect_1008, unregistered_worker
from orbtrio.conformance.model import case

if TYPE_CHECKING:
    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan
    from orbtrio.conformance.players import Job

__all__: list[str] = []

# Of these a reader may say that they are greater than zero, or that they are no numbers at all.
_DOUBTFUL: Final[dict[str, Any]] = {
    "1.5": 1.5,
    "Infinity": math.inf,
    "true": True,
    '"many"': "many",
    '"8"': "8",
    "a list": [8],
    "a map": {},
}
_NOT_POSITIVE: Final[dict[str, Any]] = {
    "0": 0,
    "-1": -1,
    "-1000000": -1_000_000,
    "0.0": 0.0,
    "-0.0": -0.0,
    "-0.5": -0.5,
    "NaN": math.nan,
    "-Infinity": -math.inf,
    "-2^63": -(2**63),
}
_TAKEN: Final = {"taken": "the worker is accepted: the value is replaced or used as it is"}


def _play_number(stage: EngineStage, field: str, plan: Plan) -> str:
    name = plan["value"]
    value = {**_NOT_POSITIVE, **_DOUBTFUL, "above the job timeout": stage.conditions.job_timeout * 1000 + 1}[
        name
    ]
    other = {"max_batch_size": "max_latency_ms", "max_latency_ms": "max_batch_size"}[field]
    message = stage.registration(stage.main_type)
    message["worker_config"] |= {field: value, other: plan["other"]}
    stage.barrier()
    worker = unregistered_worker(stage)
    worker.send(message)
    if name in _NOT_POSITIVE:
        expect_1008(stage, worker, f"a worker with {field} {name}, not greater than zero,")
        return "refused"
    return ending_of(stage, worker) or "taken"


@case(
    "ORB-REG-06",
    "A worker whose max_batch_size is not greater than zero is closed with 1008",
    sentences=("S1.9", "P-11"),
    readings=REFUSED | _TAKEN,
    plans=st.fixed_dictionaries(
        {"value": st.sampled_from([*_NOT_POSITIVE, *_DOUBTFUL]), "other": st.integers(1, 1000)}
    ),
    examples=[{"value": name, "other": 100} for name in ("0", "-1", "NaN", "1.5", "true", '"many"')],
)
def invalid_size(stage: EngineStage, plan: Plan) -> str:
    """A worker registers with a max_batch_size of zero, less, NaN, a fraction, or no number. What is not
    greater than zero fails the validation that the spec lists, and the connection must close with 1008; what
    becomes of fractions, infinity and other types is a reading. Taken silently, zero means empty batches or
    none at all.
    """
    return _play_number(stage, "max_batch_size", plan)


@case(
    "ORB-REG-07",
    "A worker whose max_latency_ms is not greater than zero is closed with 1008",
    sentences=("S1.10", "P-11"),
    readings=REFUSED | _TAKEN,
    plans=st.fixed_dictionaries(
        {
            "value": st.sampled_from([*_NOT_POSITIVE, *_DOUBTFUL, "above the job timeout"]),
            "other": st.integers(1, 1000),
        }
    ),
    examples=[{"value": name, "other": 8} for name in ("0", "-1", "NaN", "1.5", "above the job timeout")],
)
def invalid_latency(stage: EngineStage, plan: Plan) -> str:
    """The same for max_latency_ms. A latency above the time after which jobs are given up is one more
    reading: each partial batch of such a worker would be given up before it is sent.
    """
    return _play_number(stage, "max_latency_ms", plan)


_DEFAULT_SIZE: Final = 32
_DEFAULT_LATENCY: Final = 30.0


@case(
    "ORB-REG-08",
    "Without max_batch_size it is 32, without max_latency_ms 30,000",
    sentences=("S1.5", "S1.6", "S1.9", "S1.10", "P-11"),
    readings=REFUSED | {"defaults": "the worker is accepted, and the defaults hold"},
    plans=st.fixed_dictionaries(
        {
            "absent": st.sampled_from(["missing", "null", "undefined"]),
            "jobs": st.integers(1, _DEFAULT_SIZE - 1),
            "wait": st.booleans(),
        }
    ),
    examples=[
        {"absent": "missing", "jobs": _DEFAULT_SIZE - 1, "wait": False},
        {"absent": "missing", "jobs": 1, "wait": True},
        {"absent": "null", "jobs": 1, "wait": False},
    ],
)
def defaults(stage: EngineStage, plan: Plan) -> str:
    """A worker registers without max_batch_size and max_latency_ms (or with null: a reading). Up to 31 jobs
    must not be sent at once; when there are 32 they must leave, as one batch. If the run has the patience
    (or a fast clock), the jobs are left to the latency instead, and must leave after 30 seconds. With
    another default a worker's memory is planned wrongly, or its clients' time.
    """
    message = stage.registration(stage.main_type)
    if plan["absent"] != "missing":
        value = None if plan["absent"] == "null" else cbor2.undefined
        message["worker_config"] |= {"max_batch_size": value, "max_latency_ms": value}
    worker = unregistered_worker(stage)
    worker.send(message)
    if ending := ending_of(stage, worker, 0.0 if plan["absent"] == "missing" else 0.3):
        stage.demand(
            plan["absent"] != "missing", f"{worker.name}, without size and latency, is accepted", ending
        )
        return ending
    client = stage.client()
    jobs = [client.job() for _ in range(plan["jobs"])]
    client.request(jobs)
    stage.never(
        lambda: bool(worker.deliveries),
        f"{len(jobs)} jobs, fewer than the default batch size of 32, wait for the default latency of 30 s",
        lambda: (
            f"{len(worker.deliveries)} of them were sent after {worker.deliveries[0].at - _since(jobs):.3f} s"
        ),
    )
    if plan["wait"] and (stage.world.virtual or stage.conditions.patience > _DEFAULT_LATENCY):
        stage.expect(
            lambda: bool(worker.deliveries),
            "a partial batch is sent after the default latency of 30 s",
            within=_DEFAULT_LATENCY + 1.0,
        )
        waited = worker.deliveries[0].at - _since(jobs)
        stage.demand(
            waited > _DEFAULT_LATENCY - 0.1,
            "a partial batch is sent after the default latency of 30 s, not before",
            f"after {waited:.3f} s",
        )
        stage.count("partial batch by timer")
        worker.answer_all()
        return "defaults"
    rest = [client.job() for _ in range(_DEFAULT_SIZE - len(jobs))]
    client.request(rest)
    stage.expect(
        lambda: len(worker.deliveries) >= _DEFAULT_SIZE,
        "the 32nd job makes the batch full, and it is sent at once",
        lambda: f"{len(worker.deliveries)} jobs",
    )
    sizes = [len(batch.deliveries) for batch in worker.batches]
    stage.demand(sizes == [_DEFAULT_SIZE], "32 jobs are sent as one batch", f"batches of {sizes}")
    stage.count("full batch")
    worker.answer_all()
    stage.wait(lambda: all(job.responses for job in [*jobs, *rest]))
    return "defaults"


def _since(jobs: list[Job]) -> float:
    return min(job.submitted or 0.0 for job in jobs)

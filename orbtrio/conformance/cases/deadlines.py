"""A job's own deadline, `timeout_ms`, for clients that asked for `engine_errors`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases.asking import (
    all_delivered,
    asking_client,
    expect_done,
    expect_ended,
    target_ms,
)
from orbtrio.conformance.cases.resources import LATENCY_MS, delivered
from orbtrio.conformance.model import case
from orbtrio.conformance.notation import diagnostic

if TYPE_CHECKING:
    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan

__all__: list[str] = []


@case(
    "ORB-EXT-23",
    "A job is given up when its own timeout_ms is over, wherever it is, and no other job is",
    sentences=("X6.1", "X6.4"),
    plans=st.fixed_dictionaries(
        {
            "timeout_ms": st.integers(150, 300),
            "taken": st.sampled_from(["never", "at once", "late"]),
            "beside": st.booleans(),
            "fraction": st.booleans(),
        }
    ),
    examples=[
        {"timeout_ms": 150, "taken": "at once", "beside": True, "fraction": False},
        {"timeout_ms": 200, "taken": "late", "beside": False, "fraction": True},
        {"timeout_ms": 150, "taken": "never", "beside": False, "fraction": False},
    ],
    seconds=2,
)
def own_deadline(stage: EngineStage, plan: Plan) -> None:
    """A job says how long it may take, a fraction of a second. A worker gets it at once, or when half of
    that is over, or never, and does not answer it in time. The client must be told, by the kind timeout,
    not before the time since it submitted the job is over, and at most a second later; the worker's late
    answer is dropped. A job beside it without a deadline of its own is done. Whoever waits for two seconds
    has no use for an answer after five minutes.
    """
    timeout = plan["timeout_ms"] / 1000
    client = asking_client(stage, "engine_errors")
    value: Any = target_ms(stage, plan["timeout_ms"])
    size = 2 if plan["beside"] else 1
    worker = stage.worker(size=size, latency_ms=LATENCY_MS) if plan["taken"] == "at once" else None
    job = client.job(extra={"timeout_ms": value + 0.5 if plan["fraction"] else value})
    other = [client.job() for _ in range(plan["beside"])]
    client.request([job, *other])
    submitted = stage.now()
    if plan["taken"] == "late":
        stage.sleep(timeout / 2)
        worker = stage.worker(size=size, latency_ms=1)
    if worker is not None and stage.wait(lambda: bool(job.deliveries or job.responses)) and job.deliveries:
        stage.demand(
            job.deliveries[0].entry.get("timeout_ms") == job.extra["timeout_ms"],
            f"{job}'s timeout_ms is among the fields that its worker gets",
            diagnostic(job.deliveries[0].entry.get("timeout_ms", "nothing")),
        )
    expect_ended(stage, [job], "timeout", f"whose timeout_ms is {value}", within=timeout + 1.0)
    if job.deliveries:
        stage.count("timeout while a worker holds the job")
    took = job.responses[0].at - submitted
    stage.demand(
        took > timeout - 0.005,
        f"{job} may take {timeout} s, and is not given up before",
        f"it is given up after {took:.3f} s",
    )
    worker = worker or stage.worker(size=size, latency_ms=LATENCY_MS)
    worker.answer(*all_delivered(stage, other), *job.deliveries)
    expect_done(stage, other, "which has no timeout_ms")
    stage.never(lambda: len(job.responses) > 1, f"{job} is answered once", "a late answer comes, too")


@case(
    "ORB-EXT-24",
    "A job may not ask for more time than the engine allows",
    sentences=("X6.2",),
    plans=st.fixed_dictionaries({"times": st.sampled_from([1.5, 10, 1e9]), "held": st.booleans()}),
    examples=[{"times": 10, "held": True}, {"times": 1e9, "held": False}],
)
def own_deadline_is_clamped(stage: EngineStage, plan: Plan) -> None:
    """A job asks for more time than the engine lets jobs have, which is five minutes unless its operator
    says otherwise. It is a job like others: one is done. The other must be given up when the longest
    allowed time is over, by the kind timeout. Where the run may not wait that long only the first is looked
    at.
    """
    longest = stage.conditions.max_job_timeout
    client = asking_client(stage, "engine_errors")
    worker = stage.worker(size=1, latency_ms=LATENCY_MS)
    extra = {"timeout_ms": target_ms(stage, longest * 1000 * plan["times"])}
    done = client.submit(extra=extra)
    worker.answer(delivered(stage, done))
    expect_done(stage, [done], f"which asked for {plan['times']} times the longest time")
    if not stage.world.virtual and longest > stage.conditions.patience:
        stage.note(f"the longest time of a job is not waited for: that takes {longest:.0f} s, see --max-wait")
        return
    job = client.submit(extra=extra, worker_type=None if plan["held"] else stage.other_type())
    stage.sleep(0.9 * longest)
    stage.demand(not job.responses, f"{job} may take {longest:.0f} s", "it is given up earlier")
    margin = 1.0 + longest / 20
    expect_ended(
        stage,
        [job],
        "timeout",
        f"which asked for {plan['times']} times as long",
        within=0.1 * longest + margin,
    )


_INVALID: Final[dict[str, Any]] = {
    "zero": 0,
    "negative": -5,
    "a negative fraction": -0.5,
    "no number": float("nan"),
    "a text": "soon",
    "a number as text": "200",
    "true": True,
    "a list": [200],
    "a map": {"ms": 200},
}


@case(
    "ORB-EXT-25",
    "A job whose timeout_ms is no positive number is invalid, and its neighbours are done",
    sentences=("X6.3",),
    plans=st.fixed_dictionaries(
        {
            "invalid": st.sampled_from(sorted(_INVALID)),
            "before": st.integers(0, 2),
            "behind": st.integers(0, 2),
        }
    ),
    examples=[{"invalid": name, "before": 0, "behind": 1} for name in _INVALID],
)
def invalid_deadlines_are_refused(stage: EngineStage, plan: Plan) -> None:
    """A request has a job whose timeout_ms is zero, negative or no number at all, among good ones. It must
    be answered by an error of the kind invalid_job and be sent to nobody; the others are done, and the
    connection stays. A deadline that is a misunderstanding had better be told than guessed.
    """
    client = asking_client(stage, "engine_errors")
    worker = stage.worker(size=1, latency_ms=LATENCY_MS)
    worker.answer_all()
    good = [client.job() for _ in range(plan["before"] + plan["behind"])]
    bad = client.job(extra={"timeout_ms": _INVALID[plan["invalid"]]})
    client.request([*good[: plan["before"]], bad, *good[plan["before"] :]])
    expect_ended(stage, [bad], "invalid_job", f"whose timeout_ms is {diagnostic(bad.extra['timeout_ms'])}")
    expect_done(stage, good, f"in one request with a job whose timeout_ms is {plan['invalid']}")
    stage.demand(not bad.deliveries, f"{bad} is sent to nobody", f"{worker.name} got it")
    stage.demand(client.closed is None, f"{client.name} stays connected", str(client.closed))


@case(
    "ORB-EXT-26",
    "timeout_ms and heartbeat_ms of a client that did not ask are fields like any other",
    sentences=("X6.5", "X0.3"),
    plans=st.fixed_dictionaries(
        {
            "name": st.sampled_from(["timeout_ms", "heartbeat_ms"]),
            "value": st.sampled_from([50, 50, 0.5, -1, "soon", True, [1]]),
            "asked": st.booleans(),
        }
    ),
    examples=[
        {"name": "timeout_ms", "value": 50, "asked": False},
        {"name": "heartbeat_ms", "value": 50, "asked": True},
        {"name": "timeout_ms", "value": "soon", "asked": True},
    ],
)
def stock_fields_pass(stage: EngineStage, plan: Plan) -> None:
    """A client that asked for nothing, or not for what the field belongs to, submits a job with a field
    timeout_ms or heartbeat_ms that means whatever it means to its worker. It must arrive there unchanged, and
    the job must be done though the worker takes longer than that: further fields pass through, says the spec.
    """
    stage.need_extensions("engine_errors", "progress")
    others = {"timeout_ms": ("progress", "cancel"), "heartbeat_ms": ("engine_errors", "cancel")}
    client = stage.client(extensions=others[plan["name"]] if plan["asked"] else ())
    worker = stage.worker(size=1, latency_ms=LATENCY_MS)
    job = client.submit(extra={plan["name"]: plan["value"]})
    delivery = delivered(stage, job)
    stage.demand(
        plan["name"] in delivery.entry and delivery.entry[plan["name"]] == plan["value"],
        f"the field {plan['name']} of {job} reaches its worker as it was: {diagnostic(plan['value'])}",
        diagnostic(delivery.entry.get(plan["name"], "nothing")),
    )
    stage.sleep(0.15)
    stage.never(
        lambda: bool(job.responses),
        f"{job} is not ended by a field that {client.name} did not ask to be understood",
        lambda: diagnostic(job.responses[0].output),
    )
    worker.answer(delivery)
    expect_done(stage, [job], f"after longer than its {plan['name']}")

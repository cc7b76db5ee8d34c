"""What a peer may be, and how often: second registrations, second roles, first words, and unknown fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases.registration import REFUSED, ending_of, expect_works, unregistered_worker
from orbtrio.conformance.model import case

if TYPE_CHECKING:
    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan
    from orbtrio.conformance.players import SuiteWorker

__all__: list[str] = []


def _who_works(stage: EngineStage, peer: SuiteWorker, worker_types: tuple[str, str]) -> list[bool]:
    client = stage.client()
    jobs = [client.submit(worker_type=worker_type) for worker_type in worker_types]
    stage.barrier()
    stage.wait(lambda: all(job.deliveries for job in jobs), 0.3)
    peer.answer_all()
    return [bool(job.deliveries) for job in jobs]


@case(
    "ORB-REG-09",
    "A worker that registers a second time is closed with 1008",
    sentences=("S7.4", "S1.11", "P-01", "B-49"),
    readings=REFUSED
    | {
        "first stands": "the second registration is ignored: the worker goes on as the first said",
        "second stands": "the second registration replaces the first",
        "both stand": "the connection is sent jobs of both registrations",
    },
    plans=st.fixed_dictionaries(
        {
            "same": st.booleans(),
            "size": st.integers(1, 4),
            "right_secret": st.booleans(),
            "jobs": st.integers(0, 3),
        }
    ),
    examples=[
        {"same": False, "size": 1, "right_secret": True, "jobs": 0},
        {"same": True, "size": 2, "right_secret": True, "jobs": 1},
    ],
)
def registers_twice(stage: EngineStage, plan: Plan) -> str:
    """A worker registers, is perhaps sent jobs, and registers again, as the same or another type. What that
    means the spec does not say; closing with 1008 is the ruling, for whatever else loses jobs sooner or
    later. In any case the engine must not keep a connection to which it sends no jobs at all any more.
    """
    first, second = stage.main_type, stage.main_type if plan["same"] else stage.other_type()
    worker = stage.worker(first, size=plan["size"], latency_ms=1)
    client = stage.client()
    jobs = [client.submit() for _ in range(plan["jobs"])]
    stage.expect(
        lambda: all(job.deliveries for job in jobs),
        f"{len(jobs)} jobs are delivered to {worker.name}",
        "not all",
    )
    message = stage.registration(second, size=1, latency_ms=1)
    if not plan["right_secret"]:
        message["worker_secret"] = "not the secret"
    worker.send(message)
    if ending := ending_of(stage, worker):
        return ending
    by_first, by_second = _who_works(stage, worker, (first, second))
    if worker.closed is not None:
        return "refused" if worker.closed.code == 1008 else "closed otherwise"
    stage.demand(
        by_first or by_second,
        f"{worker.name}, still connected, is sent jobs as {first} or as {second}",
        "neither kind of job",
    )
    if by_first and by_second and second != first:
        return "both stand"
    return "first stands" if by_first else "second stands"


_FIRST_MESSAGES: Final[dict[str, Any]] = {
    "a worker's output": {"type": "worker_output", "output": []},
    "an unknown type": {"type": "hello"},
    "no type": {"version": "1.0.1"},
    "an empty map": {},
    "a number as type": {"type": 1},
    "another case": {"type": "I_AM_WORKER"},
    "a batch": {"inputs": []},
    "a response": {"type": "worker_response", "job_id": "j", "output": {}},
}


@case(
    "ORB-REG-10",
    "Who says anything else before it registers is closed with 1008",
    sentences=("S7.2", "S1.11", "P-01", "B-42"),
    readings=REFUSED
    | {
        "ignored": "the message is ignored, and a registration after it is as good as any",
        "deaf": "the connection is kept, but a registration after the message is not accepted any more",
    },
    plans=st.fixed_dictionaries(
        {
            "first": st.sampled_from(sorted(_FIRST_MESSAGES)),
            "times": st.integers(1, 3),
            "size": st.integers(1, 4),
        }
    ),
    examples=[{"first": name, "times": 1, "size": 1} for name in ("an unknown type", "a worker's output")],
)
def speaks_before_it_registers(stage: EngineStage, plan: Plan) -> str:
    """A peer's first message is no registration. Closing with 1008 tells it at once that it is wrong here;
    ignoring the message leaves it to wonder. If the connection is kept, a proper registration follows, and
    whether it is accepted is the reading.
    """
    worker = unregistered_worker(stage)
    for _ in range(plan["times"]):
        worker.send(_FIRST_MESSAGES[plan["first"]])
    if ending := ending_of(stage, worker):
        return ending
    worker.send(stage.registration(stage.main_type, size=plan["size"], latency_ms=1))
    if ending := ending_of(stage, worker):
        return ending
    job = stage.client().submit()
    delivered = stage.wait(lambda: bool(job.deliveries), 0.3)
    worker.answer_all()
    return "ignored" if delivered else "deaf"


@case(
    "ORB-REG-11",
    "A worker that acts as a client, or a client that acts as a worker, is closed with 1008",
    sentences=("S7.2", "S1.11", "P-01", "B-49"),
    readings=REFUSED
    | {
        "ignored": "what a peer says in its second role is ignored",
        "two roles": "the peer is served in its second role",
    },
    plans=st.fixed_dictionaries(
        {
            "first": st.sampled_from(["worker", "client"]),
            "introduces": st.booleans(),
            "size": st.integers(1, 4),
        }
    ),
    examples=[
        {"first": first, "introduces": introduces, "size": 1}
        for first in ("worker", "client")
        for introduces in (True, False)
    ],
)
def two_roles(stage: EngineStage, plan: Plan) -> str:
    """A worker introduces itself as a client and sends a job, or a client registers as a worker; or they
    skip the introduction, and the worker sends a request or the client an output. Whether the engine serves
    a second role is left open by the spec; the ruling is 1008. The engine's other peers must be served as
    before.
    """
    bystander = stage.worker(stage.other_type(), size=1, latency_ms=1)
    if plan["first"] == "worker":
        peer = stage.worker(size=plan["size"], latency_ms=1)
        if plan["introduces"]:
            peer.send(stage.introduction())
        client = stage.client()
        job = client.job(worker_type=bystander.worker_type)
        peer.send({"type": "worker_request", "jobs": [job.wire()]})
    else:
        # One that registers as a client has to understand batches, should it get any.
        peer = unregistered_worker(stage)
        peer.send(stage.introduction())
        if plan["introduces"]:
            peer.send(stage.registration(stage.main_type, size=plan["size"], latency_ms=1))
        else:
            peer.output([{"id": "of nobody"}])
        client = stage.client()
        stage.barrier()
        job = client.submit()
    ending = ending_of(stage, peer)
    served = ending is None and stage.wait(lambda: bool(job.deliveries), 0.3)
    bystander.answer_all()
    peer.answer_all()
    expect_works(stage, bystander)
    return ending or ("two roles" if served else "ignored")


_EXTRA: Final = st.dictionaries(
    st.text("abcdefgh_", min_size=1, max_size=6).map("x_".__add__),
    st.none()
    | st.booleans()
    | st.integers(-5, 2**31)
    | st.text(max_size=5)
    | st.lists(st.integers(0, 9), max_size=2),
    max_size=3,
)


@case(
    "ORB-REG-12",
    "Registrations may have fields that the engine does not know",
    sentences=("S1.2", "S1.11", "P-0"),
    readings={
        "tolerated": "unknown fields of registrations are ignored",
        "refused": "a peer whose registration has a field that the engine does not know is disconnected",
    },
    plans=st.fixed_dictionaries(
        {
            "message": _EXTRA,
            "config": _EXTRA,
            "client": _EXTRA,
            "extensions": st.lists(st.text("abc", min_size=1, max_size=5).map("x_".__add__), max_size=2),
        }
    ),
    examples=[
        {"message": {"x_model": "m"}, "config": {}, "client": {}, "extensions": []},
        {"message": {}, "config": {"x_gpu": 1}, "client": {"x_name": "n"}, "extensions": ["x_new"]},
    ],
)
def unknown_fields(stage: EngineStage, plan: Plan) -> str:
    """A worker's registration, its configuration, and a client's introduction carry fields that no version
    of the protocol knows, and name extensions that do not exist. They should be ignored: where unknown
    fields are refused, a newer worker cannot talk to an older engine, and nothing can ever be added.
    Accepted, the two must do a job.
    """
    worker = unregistered_worker(stage)
    message = stage.registration(stage.main_type, size=1, latency_ms=1, **plan["config"])
    if plan["extensions"]:
        message["worker_config"]["extensions"] = plan["extensions"]
    worker.send({**message, **plan["message"]})
    client = stage.client(extensions=plan["extensions"], **plan["client"])
    stage.barrier()
    if worker.closed or client.closed:
        return "refused"
    job = client.submit()
    stage.expect(
        lambda: bool(job.deliveries or worker.closed or client.closed), f"{job} is delivered to {worker.name}"
    )
    if not job.deliveries:
        return "refused"
    worker.answer_all()
    stage.expect(lambda: bool(job.responses or client.closed), f"{job} is answered")
    return "tolerated" if job.responses else "refused"


# Parts of a secret that are shorter than this may occur by chance.
_TELLING: Final = 8


@case(
    "ORB-REG-13",
    "No secret is sent back, neither the right one nor what somebody took for it",
    sentences=("S1.3", "S1.7", "P-06"),
    readings={
        "silent": "nothing that the engine sends has a part of a secret in it",
        "echoed": "what was sent as a wrong secret comes back, in the reason of the close frame or a message",
    },
    plans=st.fixed_dictionaries(
        {
            "wrong": st.text("abcdefghijkmnpqrstuvwxyz23456789", min_size=12, max_size=40),
            "field": st.sampled_from(["worker_secret", "worker_type", "both"]),
            "right": st.booleans(),
        }
    ),
    examples=[{"wrong": "hunter2hunter2", "field": "worker_secret", "right": False}],
)
def secrets_are_not_echoed(stage: EngineStage, plan: Plan) -> str:
    """A worker registers with a wrong secret, or with the right one and a type that is none. Neither the
    close frame's reason nor any message may have a part of 8 characters of a secret in it. What is typed in
    the wrong field is often a password of something else, and reasons of closes end in logs. The engine's
    own secret, sent to a peer that has just shown that it does not know it, is a violation under every
    reading.
    """
    right, wrong = stage.conditions.secret, plan["wrong"]
    worker = unregistered_worker(stage)
    message = stage.registration(stage.main_type)
    if plan["field"] != "worker_secret":
        message["worker_config"]["worker_type"] = wrong
    if plan["field"] != "worker_type" or not plan["right"]:
        message["worker_secret"] = wrong
    worker.send(message)
    stage.barrier()
    stage.wait(lambda: worker.closed is not None, 0.3)
    heard = "\n".join(
        [
            worker.closed.reason if worker.closed else "",
            *worker.texts,
            *(repr(said.value) for said in worker.messages),
        ]
    )
    stage.demand(
        not _has_part(heard, right),
        "the engine keeps WORKER_SECRET to itself",
        f"it was sent to {worker.name}",
    )
    return "echoed" if message["worker_secret"] == wrong and _has_part(heard, wrong) else "silent"


def _has_part(text: str, secret: str) -> bool:
    parts = range(max(len(secret) - _TELLING + 1, 1))
    return any(secret[start : start + _TELLING] in text for start in parts)

"""What one peer, hostile or only strange, must not be able to do to another."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases import corpus
from orbtrio.conformance.cases.registration import expect_works, unregistered_worker
from orbtrio.conformance.model import case
from orbtrio.conformance.peer import Peer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan
    from orbtrio.conformance.players import Job, SuiteClient, SuiteWorker

__all__: list[str] = []


@case(
    "ORB-SEC-01",
    "An answer goes to the client that asked, even if another one uses the same job_id",
    sentences=("S3.14", "S3.12", "P-02", "P-06"),
    plans=st.fixed_dictionaries(
        {
            "clients": st.integers(2, 4),
            "ids": st.lists(
                st.text("ab1", min_size=1, max_size=3) | st.integers(0, 9),
                min_size=1,
                max_size=3,
                unique_by=repr,
            ),
            "size": st.integers(1, 6),
            "order": st.integers(0, 999),
        }
    ),
    examples=[{"clients": 2, "ids": ["same"], "size": 1, "order": 0}],
)
def answers_stay_private(stage: EngineStage, plan: Plan) -> None:
    """Several clients submit jobs with the same job_ids at the same time, and one more submits nothing. A
    worker answers each job with what that job's input says, in a drawn order. Each client must get the
    answers to its own jobs and nothing else, and the one that asked nothing must hear nothing. Otherwise
    people see the results of other people's pictures.
    """
    worker = stage.worker(size=plan["size"], latency_ms=5)
    listener = stage.client()
    clients = [stage.client() for _ in range(plan["clients"])]
    jobs = [
        client.submit({"owner": client.name}, job_id=job_id) for job_id in plan["ids"] for client in clients
    ]
    stage.expect(
        lambda: all(job.deliveries for job in jobs),
        f"{len(jobs)} jobs of {len(clients)} clients, some with the same job_id, are all delivered",
        lambda: f"{sum(bool(job.deliveries) for job in jobs)} of them",
    )
    order = sorted(range(len(jobs)), key=lambda number: (number * 7919 + plan["order"]) % 1009)
    for number in order:
        job = jobs[number]
        worker.answer(job.deliveries[0], secret_of=job.client.name, job=job.number)
    stage.expect(
        lambda: all(len(client.responses) >= len(plan["ids"]) for client in clients),
        f"each of {len(clients)} clients gets {len(plan['ids'])} answers",
        lambda: ", ".join(f"{client.name}: {len(client.responses)}" for client in clients),
    )
    stage.never(
        lambda: bool(listener.messages), f"{listener.name}, which asked nothing, hears nothing", "a message"
    )
    for client in clients:
        for response in client.responses:
            owner = response.output.get("secret_of") if isinstance(response.output, dict) else None
            stage.demand(
                owner == client.name,
                f"{client.name} gets the answers to its own jobs only",
                f"for job {response.job_id!r} it was sent an answer to a job of {owner}",
            )


_SECRET_BYTES: Final = b"\x89PNG\r\n\x1a\nfor its owner only"


def _shapes(name: str) -> dict[str, Any]:
    return {
        "plain": {"picture": {"__type": "resource-ref", "id": name}},
        "nested": {"pictures": [{"of": {"__type": "resource-ref", "id": name}}]},
        "extra fields": {"picture": {"__type": "resource-ref", "id": name, "tenant": "other"}},
    }


@case(
    "ORB-SEC-02",
    "A client cannot read another client's resource by its id",
    sentences=("S4.22", "S4.16", "P-06", "B-62"),
    readings={
        "1009": "another client's resource is a missing one: the connection is closed with 1009",
        "closed otherwise": "it ends the connection, but not with 1009",
        "passed on": "the job is delivered with the reference as it was sent, or with another path",
        "no reference": "a map with more fields than a reference is none, and travels as it is",
        "skipped": "the job is not delivered, and the connection stays",
    },
    plans=st.fixed_dictionaries(
        {
            "id": st.sampled_from(["img-001", "a", "../img", "0"]),
            "shape": st.sampled_from(sorted(_shapes(""))),
            "resources": st.sampled_from(["absent", "empty", "own"]),
            "same_worker": st.booleans(),
        }
    ),
    examples=[
        {"id": "img-001", "shape": "plain", "resources": kind, "same_worker": True}
        for kind in ("absent", "empty")
    ],
)
def resources_stay_private(stage: EngineStage, plan: Plan) -> str:
    """A client has a job in hand that has a picture. Another client, which knows or guesses the picture's
    id, refers to it in a request of its own. Its job must not reach a worker with a path to the first
    client's file, or to any copy of it: ids are as easy to guess as "img-001". What becomes of the request
    otherwise is a reading (the ruling: 1009, as for every missing resource). The first client's job must be
    answered as if nothing had been.
    """
    worker = stage.worker(size=1, latency_ms=1)
    owner, thief = stage.client(), stage.client()
    reference = {"__type": "resource-ref", "id": plan["id"]}
    mine = owner.job({"picture": reference})
    owner.request([mine], [{"id": plan["id"], "type": "image", "data": _SECRET_BYTES}])
    stage.expect(lambda: bool(mine.deliveries or owner.closed), f"{owner.name}'s job is delivered", "nothing")
    if not mine.deliveries:
        # Whether such an id is good for anything is judged by RES-13.
        return "skipped"
    paths = set(_texts(mine.deliveries[0].input)) - {mine.input["conformance"]}
    stolen = thief.job(_shapes(plan["id"])[plan["shape"]])
    resources: list[Any] | None = None
    if plan["resources"] == "empty":
        resources = []
    elif plan["resources"] == "own":
        stolen.input["own"] = {"__type": "resource-ref", "id": "own"}
        resources = [{"id": "own", "type": "image", "data": b"the thief's own"}]
    thief.request([stolen], resources)
    stage.quiet()
    for text in _texts([delivery.entry for delivery in stolen.deliveries]):
        stage.demand(
            text not in paths and not _holds(text, _SECRET_BYTES),
            f"{thief.name} cannot have {owner.name}'s resource {plan['id']!r} given to a worker",
            f"its job was delivered with the path of that file: {text}",
        )
    worker.answer_all()
    stage.expect(
        lambda: bool(mine.responses),
        f"{owner.name}'s job is answered, whatever {thief.name} tries",
        "no answer",
    )
    if thief.closed is not None:
        return "1009" if thief.closed.code == 1009 else "closed otherwise"
    if not stolen.deliveries:
        return "skipped"
    return "no reference" if plan["shape"] == "extra fields" else "passed on"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from itertools.chain.from_iterable(map(_texts, value.values()))
    elif isinstance(value, list):
        yield from itertools.chain.from_iterable(map(_texts, value))


def _holds(path: str, data: bytes) -> bool:
    try:
        return path.startswith("/") and Path(path).read_bytes() == data
    except (OSError, ValueError):
        return False


# --- Bad input ----------------------------------------------------------------------------------------------

_ATTACKS: Final = corpus.attacks()
_BUNDLE: Final = 24
_BUNDLES: Final = [_ATTACKS[start : start + _BUNDLE] for start in range(0, len(_ATTACKS), _BUNDLE)]


@case(
    "ORB-SEC-03",
    "Whatever bytes a peer sends, the engine lives and the others' jobs go on",
    sentences=("S0.3", "P-50", "P-53", "P-7", "B-41"),
    readings={
        "as required": "connections that sent bad input were ended with the code for that, others kept",
        "other endings": "connections that sent bad input were ended, not always with the code for that",
        "kept": "a connection was kept although what it sent can mean nothing",
        "cut": "a connection was ended although what it sent is unusual, but allowed",
    },
    plans=st.fixed_dictionaries(
        {
            "attacks": st.lists(st.sampled_from(_ATTACKS), max_size=6),
            "noise": st.lists(
                st.tuples(
                    st.sampled_from([corpus.STRANGER, corpus.CLIENT, corpus.WORKER]),
                    st.integers(0, 2**32 - 1),
                ).map(list),
                max_size=10,
            ),
        }
    ),
    examples=[{"attacks": bundle, "noise": []} for bundle in _BUNDLES],
    seconds=5,
)
def bad_input_harms_nobody(stage: EngineStage, plan: Plan) -> str:
    """Peers, registered or not, send bad input: broken frames, ill-formed and explosive CBOR, messages out
    of place, noise. Meanwhile another client and another worker exchange jobs, one of which is in hand all
    the time: all must be answered, and both must stay connected. The fixed examples go through the whole
    corpus. Which end an attacker's connection finds is a reading; the wire log says of which attack it was
    not the required one.
    """
    worker_type = stage.main_type
    worker, client = stage.worker(worker_type, size=1, latency_ms=1), stage.client()
    held = client.submit()
    stage.expect(lambda: bool(held.deliveries), f"{held} is delivered to {worker.name}")
    worker.auto = lambda deliveries: worker.answer(*deliveries)
    jobs: list[Job] = []
    attackers: list[tuple[Peer, str, tuple[str, ...]]] = []
    for name, role in plan["attacks"]:
        vector = corpus.CORPUS[name]
        attacker = _attacker(stage, role)
        attacker.send_raw(vector.make(worker_type), f"{vector.row}, {vector.what}")
        attackers.append((attacker, name, vector.required))
        jobs.append(client.submit())
    for role, seed in plan["noise"]:
        attacker = _attacker(stage, role)
        attacker.send(corpus.noise(seed, worker_type))
        jobs.append(client.submit())
    worker.answer(held.deliveries[0])
    stage.expect(
        lambda: bool(held.responses) and all(job.responses for job in jobs),
        f"{1 + len(jobs)} jobs of {client.name} are answered by {worker.name} while others send bad input",
        lambda: (
            f"{sum(not job.responses for job in [held, *jobs])} were not. {worker.name}: "
            f"{worker.closed or 'connected'}, {client.name}: {client.closed or 'connected'}"
        ),
    )
    stage.demand(
        not worker.undecodable and worker.closed is None and client.closed is None,
        f"{worker.name} and {client.name} do not notice what others send",
        f"{worker.name} was sent {worker.undecodable or worker.closed}, {client.name}: {client.closed}",
    )
    ending = [peer for peer, _, required in attackers if "open" not in required]
    stage.barrier()
    stage.wait(lambda: all(peer.closed is not None for peer in ending), 0.5)
    return _judge(stage, attackers)


def _attacker(stage: EngineStage, role: str) -> Peer:
    if role == corpus.CLIENT:
        return stage.client()
    if role == corpus.WORKER:
        return stage.worker(stage.other_type(), size=1, latency_ms=1, settle=False)
    return stage.peer("stranger")


def _judge(stage: EngineStage, attackers: list[tuple[Peer, str, tuple[str, ...]]]) -> str:
    readings = set()
    for peer, name, required in attackers:
        closed = peer.closed
        outcome = "open" if closed is None else "gone" if closed.code is None else str(closed.code)
        # A close frame without a code is 1005 to the library.
        if outcome in required or (outcome == "1005" and "gone" in required):
            continue
        reading = "kept" if closed is None else "cut" if "open" in required else "other endings"
        readings.add(reading)
        stage.note(
            f"{reading}: {peer.name} sent {name!r}, required {' or '.join(required)}: {closed or 'open'}"
        )
    return next(
        (reading for reading in ("kept", "cut", "other endings") if reading in readings), "as required"
    )


# --- Slow and idle peers ------------------------------------------------------------------------------------

# What a bystander's job may take beside them, in seconds. Slack comes on top.
_PROMPT: Final = 2.0


def _round_trips(
    stage: EngineStage, client: SuiteClient, worker: SuiteWorker, number: int, beside: str
) -> None:
    for _ in range(number):
        job = client.submit(worker_type=worker.worker_type)
        if not stage.wait(lambda job=job: bool(job.responses), _PROMPT):  # type: ignore[misc]
            stage.fail(
                f"{client.name}'s {job}, for {worker.name}, is answered within 2 s beside {beside}",
                "it was delivered, but not answered" if job.deliveries else "it was not even delivered",
            )


@case(
    "ORB-SEC-04",
    "A client or worker that does not read delays nobody else",
    sentences=("P-7", "F-19"),
    plans=st.fixed_dictionaries(
        {
            "slow": st.sampled_from(["client", "worker"]),
            "jobs": st.integers(41, 64),
            "kib": st.sampled_from([4, 32, 160]),
            "same_worker": st.booleans(),
        }
    ),
    examples=[
        {"slow": "client", "jobs": 48, "kib": 160, "same_worker": True},
        {"slow": "worker", "jobs": 48, "kib": 160, "same_worker": False},
    ],
    seconds=2,
)
def slow_readers_delay_nobody(stage: EngineStage, plan: Plan) -> None:
    """A client stops reading while a worker sends it large answers, or a worker stops reading while it is
    sent large jobs; what is sent to it backs up in the engine. Meanwhile another client's jobs must be done
    within a second, by another worker or by the very one whose answers nobody takes. An engine that waits
    for each peer in turn stands still for everybody because of one laptop that was closed.
    """
    filler = "x" * (plan["kib"] * 1024)
    busy = stage.worker(stage.other_type(), size=1, latency_ms=1)
    slow_client, bystander = stage.client(), stage.client()
    if plan["slow"] == "client":
        jobs = [slow_client.submit(worker_type=busy.worker_type) for _ in range(plan["jobs"])]
        stage.expect(
            lambda: all(job.deliveries for job in jobs), f"{len(jobs)} jobs are delivered to {busy.name}"
        )
        slow_client.pipe.paused = True
        stage.note(f"{slow_client.name} stops reading")
        for job in jobs:
            busy.answer(job.deliveries[0], filler=filler)
        helper = busy if plan["same_worker"] else stage.worker(size=1, latency_ms=1)
    else:
        helper = stage.worker(size=1, latency_ms=1)
        busy.pipe.paused = True
        stage.note(f"{busy.name} stops reading")
        for _ in range(plan["jobs"]):
            slow_client.submit({"filler": filler}, worker_type=busy.worker_type)
    helper.auto = lambda deliveries: helper.answer(*deliveries)
    what = f"a {plan['slow']} that does not read, with {plan['jobs']} messages of {plan['kib']} KiB for it"
    _round_trips(stage, bystander, helper, 3, what)


@case(
    "ORB-SEC-05",
    "Hundreds of connections that do nothing lock nobody out",
    sentences=("P-7", "B-13"),
    readings={
        "all held": "all of the idle connections were accepted",
        "some refused": "some of the idle connections were refused",
    },
    plans=st.fixed_dictionaries({"silent": st.integers(20, 60), "clients": st.integers(20, 60)}),
    examples=[{"silent": 250, "clients": 250}, {"silent": 120, "clients": 0}],
    seconds=2,
)
def idle_connections_lock_nobody_out(stage: EngineStage, plan: Plan) -> str:
    """Many connections are opened that do nothing: some have registered as clients, others say nothing after
    the handshake. An engine may refuse some of them. The jobs of a client and a worker that were there
    before must be done as promptly as ever, a new worker and a new client must get in, and when the idle
    ones go, all at once, that must not be felt either. Otherwise one forgotten script stops the service for
    everybody.
    """
    worker, client = stage.worker(size=1, latency_ms=1), stage.client()
    worker.answer_all()
    _round_trips(stage, client, worker, 1, "nobody")
    number = plan["silent"] + plan["clients"]
    idle = []
    for count in range(number):
        peer = Peer(stage.pipe(), stage.log, f"idle#{count + 1}")
        stage.peers.append(peer)
        peer.ask(stage.conditions.path)
        idle.append(peer)
        if count % 50 == 49:
            stage.wait(lambda: all(peer.open or peer.closed for peer in idle))
    stage.wait(lambda: all(peer.open or peer.closed for peer in idle))
    for peer in idle[: plan["clients"]]:
        if peer.open and peer.closed is None:
            peer.send(stage.introduction())
    _round_trips(stage, client, worker, 2, f"{number} idle connections")
    newcomer = unregistered_worker(stage, stage.other_type())
    newcomer.send(stage.registration(newcomer.worker_type, size=1, latency_ms=1))
    stage.barrier()
    expect_works(stage, newcomer)
    refused = sum(not peer.open or peer.closed is not None for peer in idle)
    for peer in idle:
        peer.drop("RST")
    _round_trips(stage, client, worker, 2, f"{number} idle connections that were just reset")
    return "some refused" if refused else "all held"

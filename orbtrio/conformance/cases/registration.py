"""Registration: who becomes a worker, who does not, and how each of them learns it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance import examples
from orbtrio.conformance.model import case
from orbtrio.conformance.players import SuiteWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan
    from orbtrio.conformance.peer import Peer

__all__ = ["REFUSED", "ending_of", "expect_1008", "expect_works", "unregistered_worker"]

# Readings of cases that ask how a connection is refused.
REFUSED: Final = {
    "refused": "the connection is closed with 1008",
    "closed otherwise": "the connection is ended, without a close frame or with another code than 1008",
}


def unregistered_worker(stage: EngineStage, worker_type: str | None = None) -> SuiteWorker:
    """A WebSocket that will be a worker once it has registered, in whatever way the case has in mind."""
    number = sum(isinstance(peer, SuiteWorker) for peer in stage.peers) + 1
    worker = SuiteWorker(stage, stage.pipe(), f"worker@{number}", worker_type or stage.main_type)
    stage.peers.append(worker)
    worker.ask(stage.conditions.path)
    stage.expect(
        lambda: worker.open, f"{worker.name}'s WebSocket handshake is accepted", lambda: str(worker.closed)
    )
    return worker


def expect_1008(stage: EngineStage, peer: Peer, what: str) -> None:
    """Demand that a connection is closed with 1008; `what` it is, for the report."""
    closed = stage.expect_closed(peer, f"{what} is closed with 1008")
    stage.demand(closed.code == 1008, f"{what} is closed with 1008", str(closed))


def ending_of(stage: EngineStage, peer: Peer, within: float = 0.3) -> str | None:
    """What became of a connection that may have been closed: a reading, or None if it is open."""
    # Engines may take their time to refuse, so that guessing secrets takes long.
    stage.barrier()
    if not stage.wait(lambda: peer.closed is not None, within):
        return None
    return "refused" if peer.closed is not None and peer.closed.code == 1008 else "closed otherwise"


def expect_works(stage: EngineStage, worker: SuiteWorker, number: int = 1) -> None:
    """Demand that a worker is sent jobs of its type, and that its answers count."""
    client = stage.client()
    jobs = [client.job(worker_type=worker.worker_type) for _ in range(number)]
    client.request(jobs)
    stage.expect(
        lambda: all(job.deliveries for job in jobs) or worker.closed is not None,
        f"{worker.name}, registered for {worker.worker_type}, is sent {number} jobs of that type",
        lambda: f"{sum(bool(job.deliveries) for job in jobs)} jobs",
    )
    stage.demand(worker.closed is None, f"{worker.name} stays connected", str(worker.closed))
    worker.answer(*(job.deliveries[0] for job in jobs))
    stage.expect(lambda: all(job.responses for job in jobs), "its answers reach the client")


@case(
    "ORB-REG-01",
    "A worker that registers properly stays connected, hears nothing but batches, and gets jobs",
    sentences=("S0.1", "S1.1", "S1.2", "S1.11", "S1.13", "S7.4", "S12.1", "S8.11"),
    plans=st.one_of(
        st.fixed_dictionaries({"printed": st.sampled_from(["registration", "test registration"])}),
        st.fixed_dictionaries(
            {
                "type": st.integers(0, 6),
                "size": st.integers(1, 4) | st.sampled_from([32, 1000, 1001, 10**6]),
                "latency_ms": st.integers(1, 60),
                "floats": st.booleans(),
            }
        ),
    ),
    examples=[
        {"printed": "registration"},
        {"printed": "test registration"},
        {"type": 0, "size": 1, "latency_ms": 1, "floats": False},
    ],
)
def accepted_in_silence(stage: EngineStage, plan: Plan) -> None:
    """A worker registers with the right secret and a valid configuration, drawn or as the spec prints it. It
    must stay connected and be sent jobs of its type. Before them it must be sent nothing: success is told by
    silence, and a worker that follows the spec takes every message for a batch. Sizes and latencies may come
    as floats, as JavaScript sends them, and sizes may be larger than any batch will be.
    """
    if "printed" in plan:
        message = examples.message(plan["printed"])
        message["worker_secret"] = stage.conditions.secret
        config = message["worker_config"]
        if config["worker_type"] not in stage.conditions.types[:-1]:
            config["worker_type"] = stage.main_type
        # As many as fill a batch, for the printed latencies are long.
        number = config["max_batch_size"]
    else:
        convert = float if plan["floats"] else int
        worker_type = stage.conditions.types[:-1][plan["type"] % (len(stage.conditions.types) - 1)]
        message = stage.registration(
            worker_type, size=convert(plan["size"]), latency_ms=convert(plan["latency_ms"])
        )
        config, number = message["worker_config"], 1
    worker = unregistered_worker(stage, config["worker_type"])
    worker.send(message)
    stage.never(
        lambda: bool(worker.closed or worker.messages or worker.texts),
        f"{worker.name} stays connected and is sent nothing while there are no jobs",
        lambda: str(worker.closed or (worker.messages and worker.messages[0].value) or "a text message"),
    )
    expect_works(stage, worker, number)
    stage.demand(
        not worker.stray, f"{worker.name} is sent batches only", f"{worker.stray and worker.stray[0].value}"
    )


_WRONG_SECRETS: Final[dict[str, Callable[[str, str], str]]] = {
    "another": lambda secret, text: text or "x",
    "longer": lambda secret, text: secret + (text or "x"),
    "shorter": lambda secret, text: secret[: -1 - len(text)],
    "other case": lambda secret, text: secret.swapcase(),
    "blank behind": lambda secret, text: secret + " ",
    "zero behind": lambda secret, text: secret + "\0",
    "twice": lambda secret, text: secret * 2,
    "long": lambda secret, text: (text or "x") * 1000,
}


@case(
    "ORB-REG-02",
    "A worker with a wrong secret is closed with 1008",
    sentences=("S1.7", "S7.3", "S8.11", "S1.11", "S7.8"),
    plans=st.fixed_dictionaries(
        {
            "kind": st.sampled_from(sorted(_WRONG_SECRETS)),
            "text": st.text(max_size=8),
            "right_too": st.booleans(),
        }
    ),
    examples=[
        {"kind": kind, "text": "", "right_too": kind == "another"}
        for kind in ("another", "shorter", "zero behind")
    ],
)
def wrong_secret(stage: EngineStage, plan: Plan) -> None:
    """A worker registers with a secret that is nearly right, or not at all. It must be closed with 1008:
    whoever gets in is sent other people's pictures. A worker with the right secret, beside it, must not
    notice.
    """
    secret = stage.conditions.secret
    wrong = _WRONG_SECRETS[plan["kind"]](secret, plan["text"])
    if wrong == secret:
        wrong = "x" + wrong
    neighbour = stage.worker(size=1, latency_ms=1) if plan["right_too"] else None
    stage.barrier()
    worker = unregistered_worker(stage)
    worker.send({**stage.registration(stage.main_type, size=1, latency_ms=1), "worker_secret": wrong})
    expect_1008(stage, worker, f"a worker whose secret is wrong ({plan['kind']})")
    if neighbour is not None:
        expect_works(stage, neighbour)


_NO_SECRETS: Final[dict[str, Any]] = {
    "missing": ...,
    "null": None,
    "empty": "",
    "true": True,
    "zero": 0,
    "map": {},
    "list": [],
    "empty bytes": b"",
}


@case(
    "ORB-REG-03",
    "A worker without a secret is closed with 1008",
    sentences=("S1.3", "S1.7", "S7.3", "S1.11"),
    plans=st.fixed_dictionaries({"secret": st.sampled_from(sorted(_NO_SECRETS)), "size": st.integers(1, 4)}),
    examples=[{"secret": kind, "size": 1} for kind in ("missing", "null", "empty", "true")],
)
def no_secret(stage: EngineStage, plan: Plan) -> None:
    """A worker registers without a secret, or with one that is no text or empty. It must be closed with
    1008, like one with a wrong secret: a check that is left out when there is nothing to check lets
    everybody in.
    """
    message = stage.registration(stage.main_type, size=plan["size"], latency_ms=1)
    message["worker_secret"] = _NO_SECRETS[plan["secret"]]
    if plan["secret"] == "missing":
        del message["worker_secret"]
    # Somebody is accepted first: an engine may take longer over each refusal in a row.
    stage.barrier()
    worker = unregistered_worker(stage)
    worker.send(message)
    expect_1008(stage, worker, f"a worker whose secret is {plan['secret']}")


_NO_TYPES: Final[dict[str, Any]] = {
    "no worker_config": ...,
    "worker_config null": None,
    "worker_config a text": "embedding",
    "worker_config a list": [],
    "worker_config empty": {},
    "worker_type null": {"worker_type": None},
    "worker_type empty": {"worker_type": ""},
    "worker_type a number": {"worker_type": 1},
    "worker_type a list": {"worker_type": ["embedding"]},
    "worker_type a map": {"worker_type": {}},
}


@case(
    "ORB-REG-04",
    "A worker that does not say its type is closed with 1008",
    sentences=("S1.4", "S1.8", "S1.11"),
    plans=st.fixed_dictionaries({"config": st.sampled_from(sorted(_NO_TYPES)), "size": st.integers(1, 4)}),
    examples=[
        {"config": kind, "size": 1}
        for kind in ("no worker_config", "worker_config empty", "worker_type null")
    ],
)
def no_type(stage: EngineStage, plan: Plan) -> None:
    """A worker registers with the right secret but without a type, or with one that is no text. A type must
    be recognised or the connection closes with 1008, and nobody can recognise that one. Kept open, or
    ignored, the worker waits for ever for jobs that cannot come, and whoever started it has no hint.
    """
    message = stage.registration(stage.main_type)
    config = _NO_TYPES[plan["config"]]
    if config is ...:
        del message["worker_config"]
    else:
        message["worker_config"] = (
            {"max_batch_size": plan["size"], **config} if isinstance(config, dict) else config
        )
    stage.barrier()
    worker = unregistered_worker(stage)
    worker.send(message)
    expect_1008(stage, worker, f"a worker with {plan['config']}")


@case(
    "ORB-REG-05",
    "A worker of a type that the engine does not recognise is closed with 1008",
    sentences=("S1.8", "S7.8", "P-05"),
    plans=st.fixed_dictionaries(
        {"behind": st.text("abc_-.0 ", max_size=6), "latency_ms": st.integers(1, 100)}
    ),
    examples=[{"behind": "", "latency_ms": 1}],
)
def unknown_type(stage: EngineStage, plan: Plan) -> None:
    """A worker registers with the right secret for a type that the engine does not recognise. It must be
    closed with 1008. Otherwise a mistyped worker type is found only by the jobs that never come.
    """
    unknown = stage.conditions.unknown_type
    if unknown is None:
        stage.skip("the target recognises every worker type")
    stage.barrier()
    worker = unregistered_worker(stage)
    worker.send(stage.registration(unknown + plan["behind"], latency_ms=plan["latency_ms"]))
    expect_1008(stage, worker, f"a worker of type {unknown + plan['behind']!r}")

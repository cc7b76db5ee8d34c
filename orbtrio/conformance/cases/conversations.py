"""Whole conversations: several workers and clients at once, every step drawn. See `conversation`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from orbtrio.conformance.conversation import Conversation, programs
from orbtrio.conformance.model import case

if TYPE_CHECKING:
    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan

__all__: list[str] = []

_READINGS: Final = {
    "all answered": "every job of a client that was still there was answered",
    "foreign answer": "a job was answered with what a worker said that it was not with",
    "worn out": "only jobs that three workers or more were lost with stayed open: they were given up",
    "in flight waits": "only jobs that a lost worker had in hand stayed open: they wait for their timeout",
}

# An engine may protect its workers from a job that seems to kill them.
_MOST_DELIVERIES: Final = 3

# A worker is lost with jobs queued for it and jobs in hand; another one is there.
_LOSS: Final[list[dict[str, Any]]] = [
    {"do": "client"},
    {"do": "worker", "type": 0, "size": 2, "latency_ms": 10},
    {"do": "worker", "type": 0, "size": 8, "latency_ms": 40},
    {"do": "submit", "client": 0, "jobs": [{"type": 0, "resource": None}] * 5},
    {"do": "wait", "ms": 20},
    {"do": "drop worker", "worker": 0, "how": "RST", "at": 0},
    {"do": "wait", "ms": 60},
]


def _play(stage: EngineStage, plan: Plan) -> str:
    conversation = Conversation(stage)
    conversation.play(plan)
    conversation.heal()
    if conversation.foreign_taken:
        return "foreign answer"
    still_open = conversation.open_jobs()
    if not still_open:
        return "all answered"
    if all(len(job.deliveries) >= _MOST_DELIVERIES for job in still_open):
        return "worn out"
    forgotten = [job for job in still_open if job.number not in conversation.moved]
    if not forgotten:
        return "in flight waits"
    job = forgotten[0]
    stage.fail(
        f"{job} is answered once all faults are over and fresh workers answer everything",
        f"no answer {stage.now() - (job.submitted or 0):.1f} s after it was submitted; it was delivered to "
        + (", ".join(delivery.worker.name for delivery in job.deliveries) or "nobody"),
    )


@case(
    "ORB-CNV-01",
    "Workers come, go, answer in any order, twice, and for others: each job is answered once, and rightly",
    sentences=("S7.6", "S3.8", "S6.14", "P-22", "P-23"),
    readings=_READINGS,
    plans=programs(
        "worker", "client", "submit", "submit", "answer", "answer", "again", "foreign", "drop worker", "wait"
    ),
    examples=[_LOSS],
    seconds=5,
)
def workers_come_and_go(stage: EngineStage, plan: Plan) -> str:
    """A conversation of several workers and clients, drawn step by step.

    Workers register, answer some of their jobs in any order and in several messages, repeat answers, answer
    jobs of others, and vanish in every way that a connection can end. After each step each job must have at
    most one answer, from the worker that owned it, and be with at most one live worker. At the end every
    worker answers everything and no job may be open. A failure shows the shortest way to it.
    """
    return _play(stage, plan)


@case(
    "ORB-CNV-02",
    "Clients that vanish and files that are shared: jobs of others are answered, and find their files",
    sentences=("S4.24", "S4.26", "P-25", "P-42"),
    readings=_READINGS,
    plans=programs(
        "worker", "submit", "submit", "answer", "drop client", "drop worker", "pause", "resume", "wait"
    ),
    seconds=4,
)
def clients_come_and_go(stage: EngineStage, plan: Plan) -> str:
    """A conversation with pictures that jobs share, and clients that vanish in the midst of it.

    Whatever happens to others, a job finds its file as long as it has not been answered, and jobs of the
    clients that stay are answered. Workers stop reading for a while, and go on.
    """
    return _play(stage, plan)


@case(
    "ORB-CNV-03",
    "Strangers and workers that send rubbish: nobody else's job is lost, doubled or misdelivered",
    sentences=("P-7", "P-53"),
    readings=_READINGS,
    plans=programs("worker", "submit", "submit", "answer", "junk", "junk", "foreign", "drop worker", "wait"),
    seconds=4,
)
def rubbish_in_between(stage: EngineStage, plan: Plan) -> str:
    """A conversation in which peers, registered or not, send messages that mean nothing.

    The engine may close their connections. Jobs that such a worker had go to others, and nothing that it sent
    counts for a job that is not its own.
    """
    return _play(stage, plan)

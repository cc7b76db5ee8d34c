"""Connections that end: what becomes of a worker's jobs, and of a client's.

They end by RST, by FIN, with a close frame, or in the middle of a frame, at a byte that is drawn.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases.resources import LATENCY_MS, delivered
from orbtrio.conformance.model import case
from orbtrio.conformance.stage import PROMPTLY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan
    from orbtrio.conformance.peer import Peer
    from orbtrio.conformance.players import Job, SuiteWorker

__all__: list[str] = []

_HOWS: Final = st.fixed_dictionaries(
    {"how": st.sampled_from(["RST", "FIN", "close", "cut"]), "at_byte": st.integers(1, 60)}
)
_RST: Final = {"how": "RST", "at_byte": 1}
_CUT: Final = {"how": "cut", "at_byte": 7}

# Times at which jobs in hand may move: of one reading each.
_MOVES: Final = {
    "at once": "jobs that a lost worker had in hand are sent to another one at once",
    "after the timeout": "they are sent to another worker when the time of a job is over",
    "not at once": "they are not sent to another worker within 4 s; whether they are when the time of a job "
    "is over would take longer than this run may wait, see --max-wait",
}


def _leave(worker: Peer, how: dict[str, Any], ids: Sequence[Any] = ()) -> None:
    if how["how"] == "cut":
        entries = [{"id": job_id, "echo": "cut off"} for job_id in (ids or ["unknown"])]
        worker.cut({"type": "worker_output", "output": entries}, how["at_byte"])
    else:
        worker.drop(how["how"])


# A latency that nothing of the case waits for.
def _long_ms(stage: EngineStage) -> int:
    return int(min(stage.conditions.job_timeout / 2, 20.0) * 1000)


def _undone(jobs: Sequence[Job]) -> str:
    missing = [str(job) for job in jobs if not job.responses]
    return f"{len(missing)} of {len(jobs)} are not: {', '.join(missing[:5])}"


def _expect_done(stage: EngineStage, jobs: Sequence[Job], by: SuiteWorker, after: str) -> None:
    by.answer_all()
    stage.expect(
        lambda: all(job.responses for job in jobs),
        f"all {len(jobs)} jobs are sent to {by.name} {after}, and answered to the client",
        lambda: _undone(jobs),
    )


def _workers(stage: EngineStage, count: int) -> list[SuiteWorker]:
    return [stage.worker(size=10, latency_ms=LATENCY_MS) for _ in range(count)]


@case(
    "ORB-REC-01",
    "Jobs queued for a worker that is lost go to another worker",
    sentences=("S7.6", "P-17", "P-22"),
    plans=st.fixed_dictionaries(
        {"jobs": st.integers(1, 6), "how": _HOWS, "others": st.integers(1, 2), "other_first": st.booleans()}
    ),
    examples=[
        {"jobs": 1, "how": _RST, "others": 1, "other_first": False},
        {"jobs": 3, "how": _CUT, "others": 1, "other_first": True},
    ],
)
def queued_jobs_move(stage: EngineStage, plan: Plan) -> None:
    """Jobs are queued for a worker that takes large batches rarely; there are other workers of its type. Its
    connection ends: by RST, FIN, a close frame or within a frame. All its queued jobs must go to the others
    and be answered. A worker that crashes, or is updated, must cost its users nothing but time.
    """
    others = _workers(stage, plan["others"] if plan["other_first"] else 0)
    lost = stage.worker(size=1000, latency_ms=_long_ms(stage))
    client = stage.client()
    jobs = [client.job() for _ in range(plan["jobs"])]
    client.request(jobs)
    stage.barrier()
    others = others or _workers(stage, plan["others"])
    for other in others:
        other.answer_all()
    stage.demand(not lost.deliveries, f"{lost.name}, whose batch is not full, gets no jobs yet", "it does")
    _leave(lost, plan["how"])
    stage.expect(
        lambda: all(job.responses for job in jobs),
        f"all {len(jobs)} jobs are done by other workers once {lost.name}, for which they were queued, is "
        "gone",
        lambda: _undone(jobs),
    )


@case(
    "ORB-REC-02",
    "Jobs that a lost worker had in hand go to another worker",
    sentences=("S9.6", "S7.6", "P-22"),
    plans=st.fixed_dictionaries(
        {
            "jobs": st.integers(1, 5),
            "answered": st.integers(0, 2),
            "how": _HOWS,
            "batches_of": st.integers(1, 3),
        }
    ),
    readings=_MOVES,
    examples=[
        {"jobs": 1, "answered": 0, "how": _RST, "batches_of": 1},
        {"jobs": 2, "answered": 0, "how": _CUT, "batches_of": 2},
    ],
)
def jobs_in_hand_move(stage: EngineStage, plan: Plan) -> str:
    """A worker gets jobs, answers some, and its connection ends: by RST, FIN, a close frame, or in the
    middle of the frame that has its answers. What it has not answered must be sent to another worker and be
    answered. "After timeout", says the text: at once, for a dead connection has timed out, or when the time
    of a job is over. A job that is lost with its worker makes its client wait for nothing.
    """
    lost = stage.worker(size=plan["batches_of"], latency_ms=LATENCY_MS)
    client = stage.client()
    jobs = [client.job() for _ in range(plan["jobs"])]
    client.request(jobs)
    deliveries = [delivered(stage, job) for job in jobs]
    done, left = deliveries[: plan["answered"]], jobs[plan["answered"] :]
    if done:
        lost.answer(*done)
    other = stage.worker(size=10, latency_ms=LATENCY_MS)
    other.answer_all()
    _leave(lost, plan["how"], [job.deliveries[0].id for job in left])
    if not left:
        return "at once"
    reading = "at once"
    if not stage.wait(lambda: all(job.responses for job in left)):
        timeout = stage.conditions.job_timeout
        if timeout > stage.conditions.patience and not stage.world.virtual:
            return "not at once"
        stage.wait(lambda: all(job.responses for job in left), timeout + PROMPTLY)
        reading = "after the timeout"
    stage.demand(
        all(job.responses for job in left),
        f"all {len(left)} jobs that {lost.name} was lost with are sent to {other.name}, at once "
        "or when the time of a job is over, and answered to the client",
        _undone(left),
    )
    stage.count("redelivery")
    return reading


@case(
    "ORB-REC-03",
    "Jobs queued for the only worker of a type wait for the next one when it is lost",
    sentences=("S7.6", "P-13"),
    plans=st.fixed_dictionaries(
        {
            "jobs": st.integers(1, 4),
            "meanwhile": st.integers(0, 3),
            "how": _HOWS,
            "pause_ms": st.integers(0, 100),
        }
    ),
    readings={
        "all wait": "jobs that come while there is no worker wait for the next one, too",
        "some wait": "only jobs that had been queued wait; what comes while there is no worker is not done",
    },
    examples=[{"jobs": 1, "meanwhile": 1, "how": _RST, "pause_ms": 0}],
)
def queued_jobs_wait(stage: EngineStage, plan: Plan) -> str:
    """Jobs are queued for the only worker of a type, and its connection ends. After a while another one
    registers: it must be sent all of them. What becomes of jobs that come in between is told. With one worker
    per type, as most have, every restart of it is such a moment.
    """
    lost = stage.worker(size=1000, latency_ms=_long_ms(stage))
    client = stage.client()
    jobs = [client.job() for _ in range(plan["jobs"])]
    client.request(jobs)
    stage.barrier()
    _leave(lost, plan["how"])
    stage.barrier()
    later = [client.submit() for _ in range(plan["meanwhile"])]
    stage.sleep(plan["pause_ms"] / 1000)
    next_one = stage.worker(size=10, latency_ms=LATENCY_MS)
    _expect_done(stage, jobs, next_one, f"when it registers after {lost.name} was lost")
    done = stage.wait(lambda: all(job.responses for job in later))
    return "all wait" if done else "some wait"


@case(
    "ORB-REC-04",
    "A job stays with its worker as long as that is connected, however slow it is",
    sentences=("S9.8", "S9.6", "P-22"),
    plans=st.fixed_dictionaries(
        {
            "pause_ms": st.integers(100, 600),
            "stuck": st.booleans(),
            "jobs": st.integers(1, 3),
            "others": st.integers(1, 2),
        }
    ),
    examples=[{"pause_ms": 2500, "stuck": False, "jobs": 1, "others": 1}],
    seconds=1.5,
)
def slow_is_not_dead(stage: EngineStage, plan: Plan) -> None:
    """A worker gets jobs and takes its time, answering pings, or reads nothing at all for a while; others of
    its type are idle. Nobody else may be sent its jobs while it is connected, and its answers must count.
    Where time is virtual, a slow worker takes a hundred times as long. An engine that takes a job for lost
    too early has it done twice, and slow models take minutes.
    """
    pause = plan["pause_ms"] / 1000
    if stage.world.virtual and not plan["stuck"]:
        pause *= 100
    pause = min(pause, stage.conditions.job_timeout * 0.85)
    stage.need_patience(pause, "a slow worker")
    slow = stage.worker(size=plan["jobs"], latency_ms=LATENCY_MS)
    client = stage.client()
    jobs = [client.job() for _ in range(plan["jobs"])]
    client.request(jobs)
    start = stage.now()
    deliveries = [delivered(stage, job) for job in jobs]
    others = [stage.worker(size=1, latency_ms=LATENCY_MS) for _ in range(plan["others"])]
    slow.pipe.paused = plan["stuck"]
    moved = stage.world.wait(pause, lambda: any(other.deliveries for other in others))
    stage.demand(
        not moved and slow.closed is None,
        f"{jobs[0]} and what else {slow.name} was sent stays with it, for it is connected",
        f"{slow.name} {slow.closed}"
        if slow.closed
        else f"after {stage.now() - start:.1f} s another worker has it",
    )
    slow.pipe.paused = False
    slow.answer(*deliveries)
    stage.expect(
        lambda: all(job.responses for job in jobs),
        f"the answers of {slow.name} reach the client, after {stage.now() - start:.1f} s",
        lambda: _undone(jobs),
    )
    stage.demand(
        not any(other.deliveries for other in others),
        f"{jobs[0]} is sent to {slow.name} only",
        "another worker has it, too",
    )


@case(
    "ORB-REC-05",
    "A client that comes back hears nothing of jobs from before, and workers notice nothing",
    sentences=("S3.12", "P-25"),
    plans=st.fixed_dictionaries(
        {
            "held": st.integers(1, 3),
            "queued": st.integers(0, 3),
            "how": st.sampled_from(["RST", "FIN", "close"]),
            "same_ids": st.booleans(),
        }
    ),
    readings={
        "cancelled": "jobs of a lost client that are still queued are sent to nobody",
        "done all the same": "jobs of a lost client that are still queued are sent to workers, for nobody",
    },
    examples=[{"held": 1, "queued": 1, "how": "RST", "same_ids": True}],
)
def lost_clients_jobs(stage: EngineStage, plan: Plan) -> str:
    """A client's connection ends while a worker holds some of its jobs and others are queued. It connects
    anew and submits a job, perhaps under a job_id that it used before. It must get the answer to that and
    nothing else, though the worker answers the old jobs now; the worker must stay connected. Answers of a
    former life would be taken for those to other questions.
    """
    worker = stage.worker(size=max(plan["held"], 1), latency_ms=LATENCY_MS)
    other = stage.other_type()
    client = stage.client()
    held = [client.job(job_id=f"h{number}") for number in range(plan["held"])]
    queued = [client.job(job_id=f"q{number}", worker_type=other) for number in range(plan["queued"])]
    client.request(held + queued)
    deliveries = [delivered(stage, job) for job in held]
    stage.barrier()
    client.drop(plan["how"])
    stage.barrier()
    back = stage.client()
    fresh = back.job(job_id=(held + queued)[0].job_id if plan["same_ids"] else None, worker_type=other)
    back.request([fresh])
    late = stage.worker(other, size=10, latency_ms=LATENCY_MS)
    stage.barrier()
    if deliveries:
        worker.answer(*deliveries)
    late.answer_all()
    stage.expect(
        lambda: any(response.output.get("echo") == fresh.input for response in back.responses),
        f"{fresh} of {back.name} is answered",
        lambda: f"{len(back.responses)} other responses" if back.responses else "nothing",
    )
    stage.never(
        lambda: len(back.responses) > 1 or bool(back.stray),
        f"{back.name} hears of its own job only, not of those that {client.name} left behind",
        lambda: f"{len(back.responses) + len(back.stray)} messages",
    )
    for peer in (worker, late):
        stage.demand(peer.closed is None, f"{peer.name} stays connected", f"{peer.name} {peer.closed}")
    return "done all the same" if any(job.deliveries for job in queued) else "cancelled"


def _has_some(worker: SuiteWorker) -> bool:
    return bool(worker.deliveries)


@case(
    "ORB-REC-06",
    "A worker that comes and goes does not wear jobs out, nor do jobs wear out workers",
    sentences=("S9.6", "S7.6", "P-22", "F-21"),
    plans=st.fixed_dictionaries(
        {"drops": st.integers(1, 5), "in_hand": st.booleans(), "how": _HOWS, "jobs": st.integers(1, 3)}
    ),
    readings={
        "done": "jobs are done by the good worker; none was sent more than three times",
        "given up after three": "jobs that three workers were lost with are not sent any more",
        "given up earlier": "jobs that fewer than three workers were lost with are not sent to another one "
        "within a second, or never",
        "without end": "jobs are sent more than three times, to one dying worker after the other",
    },
    examples=[
        {"drops": 2, "in_hand": True, "how": _RST, "jobs": 2},
        {"drops": 5, "in_hand": False, "how": _RST, "jobs": 1},
        {"drops": 3, "in_hand": True, "how": _RST, "jobs": 1},
    ],
    seconds=3.0,
)
def flapping_worker(stage: EngineStage, plan: Plan) -> str:
    """A worker registers and is lost, up to five times, with jobs queued for it or in its hands; then a good
    one registers. Jobs that were only queued must be done by it, however often. Jobs that workers were lost
    with are done, too, or given up after three: the job may be what kills them. What is seen is told. A
    worker that crashes at start must not take the queue with it.
    """
    client = stage.client()
    jobs = [client.job() for _ in range(plan["jobs"])]
    in_hand = plan["in_hand"]
    client.request(jobs)
    for _ in range(plan["drops"]):
        flapping = stage.worker(
            size=plan["jobs"] if in_hand else 1000, latency_ms=LATENCY_MS if in_hand else _long_ms(stage)
        )
        # Not all of them: a job that workers were lost with may be sent alone. None, if they are given up.
        if in_hand and not stage.wait(partial(_has_some, flapping), PROMPTLY / 4):
            break
        _leave(flapping, plan["how"], [delivery.id for delivery in flapping.deliveries])
        stage.barrier()
    good = stage.worker(size=10, latency_ms=LATENCY_MS)
    if not in_hand:
        _expect_done(
            stage, jobs, good, f"after {plan['drops']} workers were lost that had none of them in hand"
        )
        return "done"
    good.answer_all()
    stage.wait(lambda: all(job.responses for job in jobs), PROMPTLY / 4)
    sent = [len(job.deliveries) for job in jobs]
    stage.demand(
        all(sent), f"all jobs are sent to some worker of type {good.worker_type!r}", f"{sent.count(0)} not"
    )
    if max(sent) > 1:
        stage.count("redelivery")
    if max(sent) > 3:
        return "without end"
    given_up = [len(job.deliveries) for job in jobs if not job.responses]
    if not given_up:
        return "done"
    return "given up after three" if min(given_up) == 3 else "given up earlier"

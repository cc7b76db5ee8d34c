"""A job's time: when it is over, and what is then still heard of the job.

Cases wait for as long as the target gives a job, five minutes unless the run says otherwise. In virtual time
that costs nothing; real targets are asked only if the run may wait so long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases.cleanup import GONE, watch_files_go
from orbtrio.conformance.cases.resources import (
    LATENCY_MS,
    content,
    delivered,
    file_of,
    image,
    need_files,
    reference,
)
from orbtrio.conformance.model import case
from orbtrio.conformance.notation import diagnostic

if TYPE_CHECKING:
    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan
    from orbtrio.conformance.players import Job, Response, SuiteClient

__all__: list[str] = []


def _timeout(stage: EngineStage, times: float = 1.0) -> float:
    timeout = stage.conditions.job_timeout
    stage.need_patience(timeout * times, "to wait until a job's time is over")
    return timeout


# A job's time is certainly over so long after the longest that it may have: targets look once in a while.
def _margin(stage: EngineStage) -> float:
    return 1.0 + stage.conditions.job_timeout / 20 + stage.slack


# When the target has certainly accepted what was sent before.
def _accepted(stage: EngineStage) -> float:
    stage.barrier()
    return stage.now()


@case(
    "ORB-TMO-01",
    "A job may take its full time, and is given up when that is over",
    sentences=("S2.13", "S6.19", "S6.20", "S9.7", "P-21"),
    plans=st.fixed_dictionaries(
        {"answered": st.integers(10, 90), "queued": st.integers(30, 80), "jobs": st.integers(1, 3)}
    ),
    readings={
        "from acceptance": "a job's time begins when the engine has it, and covers waiting and work",
        "from delivery": "a job's time begins anew when it is sent to a worker",
    },
    examples=[{"answered": 90, "queued": 80, "jobs": 1}],
)
def full_time_and_no_more(stage: EngineStage, plan: Plan) -> str:
    """Jobs are answered by their worker after 10 to 90 percent of the time that a job has, 300 s: the client
    must get the answers. Others wait for a worker of a type that has none; one that comes when the time is
    over may not be sent them. From when the time counts for a job that has waited in a queue first, is told.
    Too early means lost work, never means that a client waits, and a worker computes, for nobody.
    """
    timeout = _timeout(stage, 1.1)
    types = stage.main_type, stage.other_type(1), stage.other_type(2)
    worker = stage.worker(types[0], size=plan["jobs"], latency_ms=LATENCY_MS)
    client = stage.client()
    prompt = [client.job(worker_type=types[0]) for _ in range(plan["jobs"])]
    nobodys = [client.job(worker_type=types[1]) for _ in range(plan["jobs"])]
    queued = client.job(worker_type=types[2])
    client.request([*prompt, *nobodys, queued])
    start = stage.now()
    accepted = _accepted(stage)
    taken = start + timeout * plan["queued"] / 100
    moments = sorted(
        [("answer", start + timeout * plan["answered"] / 100), ("take", taken)], key=lambda m: m[1]
    )
    late = None
    for what, when in moments:
        stage.sleep_until(when)
        if what == "take":
            late = stage.worker(types[2], size=1, latency_ms=LATENCY_MS)
            stage.expect(
                lambda: bool(queued.deliveries),
                f"{queued} is sent to a worker that comes after {stage.now() - start:.1f} s, of the "
                f"{timeout:.0f} s that a job may take",
                "nothing is sent",
            )
            continue
        worker.answer(*[delivered(stage, job) for job in prompt])
        sent = stage.now()
        answered = stage.wait(lambda: all(job.responses for job in prompt))
        if not answered and sent + stage.slack > start + timeout:
            stage.too_slow("the answer was sent too late to tell")
        stage.demand(
            answered,
            f"{prompt[0]} and all others that are answered after {sent - start:.1f} s, of the "
            f"{timeout:.0f} s that a job may take, are answered to the client",
            f"{sum(not job.responses for job in prompt)} are not",
        )
    stage.sleep_until(accepted + timeout + _margin(stage))
    assert late is not None
    late.answer(*late.deliveries)
    stage.worker(types[1], size=plan["jobs"], latency_ms=LATENCY_MS)
    stage.sleep(2 * LATENCY_MS / 1000)
    waited = stage.now() - start
    stage.never(
        lambda: any(job.deliveries for job in nobodys),
        f"{nobodys[0]} is given up after {timeout:.0f} s, and not sent to a worker that comes later",
        f"it is sent to one after {waited:.1f} s",
    )
    answers = [response.output for response in queued.responses]
    return (
        "from delivery"
        if {"id": queued.deliveries[0].id, "echo": queued.input} in answers
        else "from acceptance"
    )


@case(
    "ORB-TMO-02",
    "An answer that comes when a job's time is over reaches nobody, and harms nobody",
    sentences=("S3.13", "S6.22", "S6.18", "S6.20", "S6.21", "P-21"),
    plans=st.fixed_dictionaries(
        {
            "late": st.integers(1, 3),
            "in_time": st.integers(0, 2),
            "delay": st.integers(0, 50),
            "error": st.booleans(),
        }
    ),
    examples=[{"late": 1, "in_time": 0, "delay": 0, "error": False}],
)
def late_answers_reach_nobody(stage: EngineStage, plan: Plan) -> None:
    """A worker gets a batch, answers some of its jobs at once, and the others when their time has been over
    for a while. The client must not hear of these any more; a new job with the same job_id must be done as
    if nothing had been, by the same worker. Clients have told their users long ago that it failed.
    """
    timeout = _timeout(stage, 1.6)
    worker = stage.worker(size=plan["late"] + plan["in_time"], latency_ms=LATENCY_MS)
    client = stage.client()
    late = [client.job() for _ in range(plan["late"])]
    prompt = [client.job() for _ in range(plan["in_time"])]
    client.request(late + prompt)
    accepted = _accepted(stage)
    for job in late + prompt:
        delivered(stage, job)
    if prompt:
        worker.answer(*[job.deliveries[-1] for job in prompt])
    stage.count("timeout while a worker holds the job")
    stage.sleep_until(accepted + timeout * (1 + plan["delay"] / 100) + _margin(stage))
    # What the engine itself had to say, if it says anything, came before.
    heard = {job.number: len(job.responses) for job in late}
    worker.answer(
        *[job.deliveries[0] for job in late], **({"error": "took too long"} if plan["error"] else {})
    )
    stage.count("late answer")
    stage.never(
        lambda: any(len(job.responses) > heard[job.number] for job in late),
        f"{late[0]}, answered by its worker {stage.now() - accepted:.0f} s after acceptance, is not answered "
        f"to the client, for jobs are given up after {timeout:.0f} s",
        "the client gets the late answer",
    )
    again = client.submit(job_id=late[0].job_id)
    delivery = delivered(stage, again)
    stage.demand(
        delivery.worker is worker and worker.closed is None,
        f"{worker.name}, which answered too late, stays connected and gets the next job",
        f"{worker.name} {worker.closed}",
    )
    worker.answer(delivery)
    stage.expect(
        lambda: any(response.output.get("echo") == again.input for response in again.responses),
        f"a new job with the job_id of one that was given up, {again.job_id!r}, is answered",
    )


@case(
    "ORB-TMO-03",
    "The file of a job whose time is over is deleted, though a worker still holds the job",
    sentences=("S6.23", "P-21"),
    plans=st.fixed_dictionaries({"held": st.integers(1, 3), "answered": st.integers(0, 2)}),
    readings=GONE,
    examples=[{"held": 1, "answered": 0}, {"held": 2, "answered": 1}],
)
def file_goes_when_time_is_over(stage: EngineStage, plan: Plan) -> str:
    """A worker gets jobs that share a file, answers some, and never the others. When their time is over, the
    file must go: the job that was given up no longer counts among those that refer to it. ORB-RES-09 is the
    same for jobs that no worker got. A stuck worker would fill the disk.
    """
    need_files(stage)
    timeout = _timeout(stage)
    worker = stage.worker(size=plan["held"] + plan["answered"], latency_ms=LATENCY_MS)
    client = stage.client()
    held = [client.job({"file": reference("shared")}) for _ in range(plan["held"])]
    answered = [client.job({"file": reference("shared")}) for _ in range(plan["answered"])]
    client.request(held + answered, [image("shared", content(held[0]))])
    accepted = _accepted(stage)
    path = file_of(stage, delivered(stage, held[0]))
    if answered:
        worker.answer(*[delivered(stage, job) for job in answered])
    stage.count("timeout while a worker holds the job")
    stage.sleep_until(accepted + timeout)
    return watch_files_go(stage, [path], f"after the job's time, {timeout:.0f} s, is over")


_INVALID: Final[dict[str, dict[str, Any]]] = {
    "none": {},
    "null": {"worker_type": None},
    "empty": {"worker_type": ""},
    "number": {"worker_type": 7},
    "list": {"worker_type": ["embedding"]},
}


@case(
    "ORB-TMO-04",
    "A job that the engine itself ends is answered to nobody who has not asked, and its neighbours are done",
    sentences=("S6.21", "S9.10", "S9.5", "S9.7", "P-31"),
    plans=st.fixed_dictionaries(
        {
            "invalid": st.sampled_from(sorted(_INVALID)),
            "before": st.integers(0, 2),
            "behind": st.integers(0, 2),
            "held": st.booleans(),
        }
    ),
    readings={
        "silent": "no client hears anything of a job that the engine ended",
        "told if asked": "a client that asked for engine_errors is told why, and others hear nothing",
        "told": "a client that never asked is sent a response for a job that the engine ended",
        "mixed": "a client that asked for engine_errors is told of some jobs that the engine ended only",
    },
    examples=[{"invalid": "none", "before": 1, "behind": 1, "held": True}],
)
def answer_or_silence(stage: EngineStage, plan: Plan) -> str:
    """Two clients, one stock and one that asks for the extension engine_errors, send a request with a job
    that has no usable worker_type among good ones, and a job that is not done in time. The good jobs must be
    done; the connections must stay. "Callback never called", says the text, so a stock client should hear
    nothing of the other two; a client that asked may be told. Where the run may not wait for a job's time to
    be over, the invalid job alone is judged.
    """
    good_type, slow_type = stage.main_type, stage.other_type()
    stage.worker(good_type, size=1, latency_ms=LATENCY_MS).answer_all()
    if plan["held"]:
        stage.worker(slow_type, size=2, latency_ms=LATENCY_MS)
    stock, asking = stage.client(), stage.client(extensions=("engine_errors",))
    ended: dict[str, list[Job]] = {"stock": [], "asking": []}
    for name, client in (("stock", stock), ("asking", asking)):
        ended[name].append(_request_with_invalid(stage, client, plan))
    stage.quiet()
    timeout = stage.conditions.job_timeout
    if stage.world.virtual or timeout + _margin(stage) <= stage.conditions.patience:
        for name, client in (("stock", stock), ("asking", asking)):
            ended[name].append(client.submit(worker_type=slow_type))
        accepted = _accepted(stage)
        if plan["held"]:
            for job in (ended["stock"][-1], ended["asking"][-1]):
                delivered(stage, job)
            stage.count("timeout while a worker holds the job")
        stage.sleep_until(accepted + timeout + _margin(stage))
        stage.quiet()
    else:
        stage.note(f"no job's time is waited for: that takes {timeout:.0f} s, see --max-wait")
    for client in (stock, asking):
        stage.demand(
            client.closed is None, f"{client.name} stays connected", f"{client.name} {client.closed}"
        )
    for job in ended["stock"] + ended["asking"]:
        _check_response(stage, job)
    if any(_responses(job) for job in ended["stock"]):
        return "told"
    told = [bool(_responses(job)) for job in ended["asking"]]
    return "told if asked" if all(told) else "mixed" if any(told) else "silent"


def _request_with_invalid(stage: EngineStage, client: SuiteClient, plan: Plan) -> Job:
    bad = client.job()
    jobs = [client.job() for _ in range(plan["before"])]
    jobs += [bad, *(client.job() for _ in range(plan["behind"]))]
    good = [job for job in jobs if job is not bad]
    wires = [job.wire() for job in jobs]
    wire = wires[plan["before"]]
    del wire["worker_type"]
    wire.update(_INVALID[plan["invalid"]])
    # Not by `request`, which knows no job without a type.
    client.send({"type": "worker_request", "jobs": wires})
    stage.expect(
        lambda: all(_responses(job) for job in good),
        f"the {len(good)} good jobs of a request in which {bad} is invalid, its worker_type being "
        f"{diagnostic(wire.get('worker_type', 'left out'))}, are done and answered",
        lambda: (
            f"{client.name} {client.closed}"
            if client.closed
            else f"{sum(not _responses(job) for job in good)} are not"
        ),
    )
    stage.demand(not bad.deliveries, f"{bad}, which has no worker_type, is sent to nobody", "a worker got it")
    return bad


def _responses(job: Job) -> list[Response]:
    return [response for response in job.client.responses if response.job_id == job.job_id]


def _check_response(stage: EngineStage, job: Job) -> None:
    responses = _responses(job)
    for response in responses[:1]:
        stage.demand(
            isinstance(response.output, dict) and isinstance(response.output.get("error"), str),
            f"{job}, which nobody did, is either not answered, or with a text in output.error",
            diagnostic(response.message),
        )
    stage.demand(len(responses) <= 1, f"{job} is answered once at most", f"{len(responses)} responses")

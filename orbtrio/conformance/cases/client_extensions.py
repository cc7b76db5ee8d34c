"""What a client makes of the extensions that it asked for, and that it uses none that was not announced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases.vectors import FORMATS, typed
from orbtrio.conformance.model import Role, case
from orbtrio.conformance.notation import diagnostic, encode

if TYPE_CHECKING:
    from orbtrio.conformance.client_players import SuiteEngine
    from orbtrio.conformance.client_stage import ClientStage
    from orbtrio.conformance.model import Plan

__all__: list[str] = []

_ALL: Final = ("batched_responses", "cancel", "engine_errors", "progress", "typed_arrays")

# Seconds. Soon enough to be told from a program that gives jobs up and submits others.
_NEXT_JOB: Final = 1.0

# Seconds for which jobs are left unanswered, to see whether the program gives them up.
_LEFT: Final = 1.5


def _needing(stage: ClientStage, name: str, jobs: int) -> SuiteEngine:
    """A connection on which jobs are open, of an engine that announces everything; skipped unless the client
    asked for that."""
    stage.announce(*_ALL)
    engine = stage.client(jobs)
    if name not in engine.asked:
        stage.skip(f"the client does not ask for {name} when it introduces itself")
    return engine


def _demand_alive(stage: ClientStage, engine: SuiteEngine, why: str) -> None:
    stage.settle(engine)
    stage.demand(
        engine.closed is None, f"the client stays connected {why}", f"{engine.closed}{stage.obituary()}"
    )


def _demand_going_on(stage: ClientStage, engine: SuiteEngine, before: int, why: str) -> None:
    stage.demand(
        stage.more_jobs(engine, before, within=_NEXT_JOB),
        f"the client, which submits more when it has been answered, does so {why}",
        f"no job after these {before}{stage.obituary()}",
    )


@case(
    "ORB-EXT-61",
    "A client uses no extension with an engine that announced none",
    role=Role.CLIENT,
    sentences=("X0.4",),
    plans=st.fixed_dictionaries({"jobs": st.integers(1, 4), "after": st.booleans()}),
    examples=[{"jobs": 2, "after": False}, {"jobs": 2, "after": True}],
)
def stock_engines_see_nothing(stage: ClientStage, plan: Plan) -> None:
    """The engine announces no extension, perhaps after one that announced all of them and went, and leaves
    jobs unanswered for a while: programs with little patience give some up. The client may send requests
    and nothing else, no cancel_request, and its jobs carry no timeout_ms: an engine written from the spec
    may close the connection of who sends it what it does not know.
    """
    if plan["after"]:
        stage.announce(*_ALL)
        stage.client(plan["jobs"])
        stage.announce()
    engine = stage.client(plan["jobs"])
    stage.wait(lambda: bool(engine.stray) or engine.closed is not None, _LEFT)
    stage.demand(
        not engine.stray,
        f"{engine.name}, which announced no extensions, is sent requests and nothing else",
        diagnostic([message.value for message in engine.stray]),
    )
    timed = [job.job_id for job in engine.jobs if "timeout_ms" in job.fields]
    stage.demand(
        not timed,
        f"jobs for {engine.name}, which announced no extensions, carry no timeout_ms",
        f"{diagnostic(timed[:3])} do",
    )


@case(
    "ORB-EXT-62",
    "A client that gives jobs up says so, once, and lives through their late answers",
    role=Role.CLIENT,
    sentences=("X2.9", "X2.8"),
    plans=st.fixed_dictionaries(
        {"jobs": st.integers(1, 4), "late": st.sampled_from(["result", "cancelled", "nothing"])}
    ),
    examples=[{"jobs": 2, "late": "result"}, {"jobs": 2, "late": "cancelled"}],
    seconds=2,
)
def what_is_given_up_is_cancelled(stage: ClientStage, plan: Plan) -> None:
    """The engine announces `cancel`, and leaves jobs unanswered until the client gives some up. It must say
    so by a cancel_request with the job_ids of jobs that it has open on this connection, each once. Then
    they are answered, by a result that crossed it or by the kind cancelled, or not at all: the client must
    stay connected. Somebody's worker computes for nobody until it is told.
    """
    engine = _needing(stage, "cancel", plan["jobs"])
    stage.wait(lambda: bool(engine.cancelled) or engine.closed is not None)
    _demand_alive(stage, engine, "while its jobs are not answered")
    if not engine.cancelled:
        stage.skip("the program gives no job up within 4 s: launch one that does, or that waits for less")
    stage.settle(engine)
    submitted = [encode(job.job_id) for job in engine.jobs]
    names = [encode(name) for name in engine.cancelled]
    stage.demand(
        all(name in submitted for name in names),
        "a cancel_request names jobs that were submitted on this connection",
        diagnostic(engine.cancelled),
    )
    stage.demand(len(set(names)) == len(names), "no job is given up twice", diagnostic(engine.cancelled))
    for job in [job for job in engine.open_jobs if encode(job.job_id) in names]:
        engine.open_jobs.remove(job)
        if plan["late"] == "result":
            engine.respond(job.job_id, {"id": "orb-late", "result": "late"})
        elif plan["late"] == "cancelled":
            engine.respond(job.job_id, {"error": "cancelled by the client", "error_kind": "cancelled"})
    _demand_alive(stage, engine, "when jobs are answered that it has given up")
    answered = {encode(job.job_id) for job in engine.open_jobs}
    seen = len(engine.cancelled)
    engine.answer_all()
    stage.settle(engine)
    again = [name for name in engine.cancelled[seen:] if encode(name) in set(names) - answered]
    stage.demand(not again, "no job is given up twice", diagnostic(again))


@case(
    "ORB-EXT-63",
    "A client that asked for it takes answers that come together",
    role=Role.CLIENT,
    sentences=("X5.1",),
    plans=st.fixed_dictionaries({"jobs": st.integers(2, 6), "strange": st.booleans()}),
    examples=[{"jobs": 4, "strange": False}, {"jobs": 2, "strange": True}],
)
def answers_together_count(stage: ClientStage, plan: Plan) -> None:
    """All that the client waits for is answered in one worker_responses, perhaps after one with an answer
    that it does not wait for. It must stay connected, and a program that submits more when it has been
    answered must do so: each of these answers is one, and who asked for them in this shape has to read it.
    """
    stage.announce(*_ALL)
    goes_on = stage.goes_on()
    engine = _needing(stage, "batched_responses", plan["jobs"])
    if plan["strange"]:
        strange = {"job_id": "no-such-job", "output": {"id": "orb-x", "result": 1}}
        engine.send({"type": "worker_responses", "responses": [strange]})
    before = len(engine.jobs)
    engine.answer_together(list(engine.open_jobs))
    _demand_alive(stage, engine, "when all its jobs are answered in one message")
    if goes_on:
        _demand_going_on(stage, engine, before, "when all its jobs are answered in one message")


_PROGRESS: Final = ("open", "unknown", "answered", "attempt", "empty")


@case(
    "ORB-EXT-64",
    "A client that asked for progress lives through whatever comes of it",
    role=Role.CLIENT,
    sentences=("X1.1",),
    plans=st.fixed_dictionaries(
        {"kinds": st.lists(st.sampled_from(_PROGRESS), min_size=1, max_size=6), "jobs": st.integers(1, 4)}
    ),
    examples=[{"kinds": list(_PROGRESS), "jobs": 2}, {"kinds": ["open"] * 4, "jobs": 4}],
)
def progress_is_survived(stage: ClientStage, plan: Plan) -> None:
    """The client is told of the progress of jobs that it waits for, that it never submitted, that have been
    answered, and of another attempt; then it is answered. It must stay connected, and a program that submits
    more when it has been answered must do so: progress is no answer, and no end.
    """
    stage.announce(*_ALL)
    goes_on = stage.goes_on()
    engine = _needing(stage, "progress", plan["jobs"])
    for number, kind in enumerate(plan["kinds"]):
        job_id = engine.open_jobs[number % len(engine.open_jobs)].job_id
        if kind == "answered" and engine.answered:
            job_id = engine.answered[-1].job_id
        elif kind in ("unknown", "answered"):
            job_id = "no-such-job"
        progress = {} if kind == "empty" else {"text": "word", "percent": 12.5}
        attempt = {"attempt": 2} if kind == "attempt" else {}
        engine.send({"type": "worker_progress", "job_id": job_id, "progress": progress, **attempt})
    stage.settle(engine)
    what = ", ".join(dict.fromkeys(plan["kinds"]))
    _demand_alive(stage, engine, f"when it is told of progress ({what})")
    before = len(engine.jobs)
    engine.answer_all()
    if goes_on:
        _demand_going_on(stage, engine, before, f"after progress ({what}) and answers")


@case(
    "ORB-EXT-65",
    "A client that asked for typed arrays takes them for the lists that they stand for",
    role=Role.CLIENT,
    sentences=("X7.7",),
    plans=st.fixed_dictionaries(
        {
            "tag": st.sampled_from(sorted(FORMATS)),
            "numbers": st.lists(st.integers(-100, 100), max_size=40),
            "jobs": st.integers(1, 4),
            "report": st.booleans(),
        }
    ),
    examples=[
        {"tag": 85, "numbers": [1, 2], "jobs": 2, "report": False},
        {"tag": 86, "numbers": [], "jobs": 1, "report": True},
    ],
)
def typed_arrays_are_results(stage: ClientStage, plan: Plan) -> None:
    """All that the client waits for is answered with a vector that is a typed array, perhaps after progress
    with one. It must stay connected, and a program that submits more when it has been answered must do so:
    who asks for vectors in this shape has to read it.
    """
    stage.announce(*_ALL)
    goes_on = stage.goes_on()
    engine = _needing(stage, "typed_arrays", plan["jobs"])
    vector = typed(plan["tag"], plan["numbers"])
    before = len(engine.jobs)
    for job in list(engine.open_jobs):
        if plan["report"] and "progress" in engine.asked:
            engine.send({"type": "worker_progress", "job_id": job.job_id, "progress": {"part": [vector]}})
        engine.answer(job, embedding=vector, shape=[len(plan["numbers"])])
    _demand_alive(stage, engine, "when it is answered with typed arrays")
    if goes_on:
        _demand_going_on(stage, engine, before, "when it is answered with typed arrays")

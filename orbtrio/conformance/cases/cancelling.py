"""Extension `cancel`: jobs that nobody wants any more end at once, and nobody computes for nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases.asking import (
    LONG_MS,
    all_delivered,
    asking_client,
    asking_worker,
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
    from orbtrio.conformance.players import Delivery, SuiteWorker

__all__: list[str] = []

_CANCELLED: Final = {"error": "cancelled"}


@case(
    "ORB-EXT-08",
    "Jobs that their client cancels end at once, queued or in hand, and no others",
    sentences=("X2.1", "X2.2"),
    plans=st.fixed_dictionaries(
        {
            "size": st.integers(2, 4),
            "cancelled": st.lists(st.integers(0, 6), min_size=1, max_size=5, unique=True),
            "worker_asks": st.booleans(),
            "one_message": st.booleans(),
        }
    ),
    examples=[
        {"size": 2, "cancelled": [0], "worker_asks": True, "one_message": True},
        {"size": 2, "cancelled": [2], "worker_asks": True, "one_message": True},
        {"size": 3, "cancelled": [0, 1, 3], "worker_asks": False, "one_message": True},
    ],
)
def cancelled_jobs_end(stage: EngineStage, plan: Plan) -> None:
    """A worker has a full batch in hand, and one job less than that is queued for it. The client cancels some
    of both, and must be told so of each at once, by the kind cancelled. Then it submits as many jobs as make
    the batch full: it must leave with these and the queued ones that are still wanted. All others are done.
    """
    size = plan["size"]
    names = ("cancel",) if plan["worker_asks"] else ()
    worker = asking_worker(stage, *names, size=size, latency_ms=LONG_MS)
    client = asking_client(stage, "cancel", "engine_errors")
    held = [client.job() for _ in range(size)]
    client.request(held)
    all_delivered(stage, held)
    queued = [client.job() for _ in range(size - 1)]
    client.request(queued)
    stage.barrier()
    jobs = held + queued
    chosen = [jobs[place] for place in dict.fromkeys(place % len(jobs) for place in plan["cancelled"])]
    for group in [chosen] if plan["one_message"] else [[job] for job in chosen]:
        client.cancel(*group)
    for job in chosen:
        where = f"which {worker.name} holds" if job in held else "which is queued"
        expect_ended(stage, [job], "cancelled", f"{where} and its client has cancelled")
    wanted = [job for job in queued if job not in chosen]
    fresh = [client.job() for _ in range(size - len(wanted))]
    client.request(fresh)
    second = all_delivered(stage, [*wanted, *fresh])
    stage.demand(
        not any(job.deliveries for job in queued if job in chosen),
        "a queued job that was cancelled is sent to nobody",
        f"{worker.name} got it",
    )
    worker.answer(*[job.deliveries[-1] for job in held if job not in chosen], *second)
    expect_done(stage, [job for job in [*jobs, *fresh] if job not in chosen], "which nobody cancelled")
    for job in chosen:
        stage.demand(len(job.responses) == 1, f"{job} is answered once", f"{len(job.responses)} responses")


@case(
    "ORB-EXT-09",
    "The worker that holds a cancelled job is told, by the engine's id",
    sentences=("X2.4",),
    plans=st.fixed_dictionaries(
        {
            "size": st.integers(1, 5),
            "cancelled": st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True),
            "queued": st.booleans(),
        }
    ),
    examples=[
        {"size": 2, "cancelled": [0], "queued": True},
        {"size": 3, "cancelled": [0, 2], "queued": False},
    ],
)
def the_holder_is_told(stage: EngineStage, plan: Plan) -> None:
    """Two workers that asked for `cancel` hold jobs of a client, which cancels some of the first one's, and
    perhaps one that is queued. The first must be sent cancel_jobs with the ids of just those, each once; the
    other hears nothing. A worker that is told wrongly stops what somebody waits for.
    """
    size = plan["size"]
    worker = asking_worker(stage, "cancel", size=size, latency_ms=LONG_MS)
    other = asking_worker(stage, "cancel", worker_type=stage.other_type())
    client = asking_client(stage, "cancel", "engine_errors")
    held = [client.job() for _ in range(size)]
    others = client.job(worker_type=other.worker_type)
    client.request([*held, others])
    all_delivered(stage, [*held, others])
    chosen = [held[place] for place in dict.fromkeys(place % size for place in plan["cancelled"])]
    queued = []
    if plan["queued"] and size > 1:
        queued = [client.submit()]
        stage.barrier()
    client.cancel(*chosen, *queued)
    expect_ended(stage, [*chosen, *queued], "cancelled", "which its client has cancelled")
    _expect_recalled(stage, worker, [job.deliveries[-1] for job in chosen], "which its client has cancelled")
    stage.never(
        lambda: len(worker.recalled_ids()) > len(chosen) or bool(other.recalled),
        f"{worker.name} is told of each cancelled job once, and {other.name}, which has none of them, never",
        lambda: f"{diagnostic(worker.recalled)} and {diagnostic(other.recalled)}",
    )
    worker.answer(*[job.deliveries[-1] for job in held])
    other.answer(others.deliveries[-1])
    expect_done(stage, [job for job in [*held, others] if job not in chosen], "which nobody cancelled")


def _expect_recalled(stage: EngineStage, worker: SuiteWorker, deliveries: list[Delivery], why: str) -> None:
    ids = [delivery.id for delivery in deliveries]
    stage.expect(
        lambda: len(worker.recalled_ids()) >= len(ids),
        f"{worker.name}, which holds {deliveries[0].job}, {why}, is sent "
        f'{{type: "cancel_jobs", ids: {diagnostic(ids)}}}',
        lambda: diagnostic(worker.recalled) if worker.recalled else "nothing",
    )
    stage.demand(
        sorted(map(str, worker.recalled_ids())) == sorted(map(str, ids)),
        f"cancel_jobs name the ids of what ended, {why}: {diagnostic(ids)}",
        diagnostic(worker.recalled),
    )


@case(
    "ORB-EXT-10",
    "The worker is told, too, when a job's time is over or its client is gone",
    sentences=("X2.5",),
    plans=st.fixed_dictionaries(
        {
            "why": st.sampled_from(["deadline", "heartbeat", "client: RST", "client: FIN", "client: close"]),
            "jobs": st.integers(1, 3),
            "kept": st.booleans(),
        }
    ),
    examples=[
        {"why": "deadline", "jobs": 1, "kept": True},
        {"why": "heartbeat", "jobs": 1, "kept": False},
        {"why": "client: RST", "jobs": 2, "kept": True},
    ],
    seconds=2,
)
def nobody_computes_for_nobody(stage: EngineStage, plan: Plan) -> None:
    """A worker that asked for `cancel` holds jobs whose own deadline or heartbeat passes, or whose client's
    connection ends, and perhaps one of another client. It must be sent cancel_jobs with the ids of just those
    that nobody waits for any more: a language model would write to the end, for nobody.
    """
    size = plan["jobs"] + plan["kept"]
    worker = asking_worker(stage, "cancel", size=size, latency_ms=LONG_MS)
    client = asking_client(stage, "cancel", "engine_errors", "progress")
    why, _, how = plan["why"].partition(": ")
    field = {"deadline": "timeout_ms", "heartbeat": "heartbeat_ms"}.get(why)
    extra = {} if field is None else {field: target_ms(stage, 200)}
    kept = [stage.client().submit() for _ in range(plan["kept"])]
    jobs = [client.job(extra=extra) for _ in range(plan["jobs"])]
    client.request(jobs)
    deliveries = all_delivered(stage, jobs)
    all_delivered(stage, kept)
    if field is None:
        client.drop(how)
    else:
        kind = "timeout" if why == "deadline" else "heartbeat_timeout"
        expect_ended(stage, jobs, kind, f"whose {field} is over")
    told = "whose client is gone" if field is None else f"whose {field} is over"
    _expect_recalled(stage, worker, deliveries, told)
    worker.answer(*deliveries, **_CANCELLED)
    worker.answer(*[job.deliveries[-1] for job in kept])
    expect_done(stage, kept, f"in the same batch as jobs {told}")


@case(
    "ORB-EXT-11",
    "What a worker says of a cancelled job reaches nobody, and harms nobody",
    sentences=("X2.8", "X2.1"),
    plans=st.fixed_dictionaries(
        {"jobs": st.integers(1, 3), "says": st.sampled_from(["result", "cancelled", "both"])}
    ),
    examples=[{"jobs": 1, "says": "result"}, {"jobs": 1, "says": "cancelled"}],
)
def late_answers_are_dropped(stage: EngineStage, plan: Plan) -> None:
    """A client cancels jobs that a worker holds, and uses their identifiers again at once. The worker answers
    the old ones, by results, by the error "cancelled", or by both. The client must not be answered by that:
    it would take it for the answer to what it asked last. The new jobs are done by the same worker.
    """
    size = plan["jobs"]
    worker = asking_worker(stage, "cancel", size=size, latency_ms=LATENCY_MS)
    client = asking_client(stage, "cancel", "engine_errors")
    old = [client.job() for _ in range(size)]
    client.request(old)
    deliveries = all_delivered(stage, old)
    client.cancel(*old)
    expect_ended(stage, old, "cancelled", "which its client has cancelled")
    new = [client.job(job_id=job.job_id) for job in old]
    client.request(new)
    if plan["says"] != "cancelled":
        worker.answer(*deliveries)
        stage.count("late answer")
    if plan["says"] != "result":
        worker.answer(*deliveries, **_CANCELLED)
    all_delivered(stage, new)
    # The suite tells answers by their job_id, which old and new have in common.
    stage.never(
        lambda: any(job.responses for job in new),
        f"{new[0]}, a new one under an old name, is not answered by what {worker.name} says of the old one",
        lambda: diagnostic([response.output for job in new for response in job.responses]),
    )
    worker.answer(*[job.deliveries[-1] for job in new])
    expect_done(stage, new, "under a name that was cancelled before")
    stage.demand(worker.closed is None, f"{worker.name} stays connected", str(worker.closed))


_STRANGE: Final[dict[str, Any]] = {
    "unheard of": "no-such-job",
    "empty": "",
    "a number": 7,
    "a list": ["j1"],
    "a map": {"job_id": "j1"},
    "null": None,
    "bytes": b"j1",
}


@case(
    "ORB-EXT-12",
    "Cancelling what is not there, not open any more, or somebody else's, does nothing",
    sentences=("X2.3", "X2.1"),
    plans=st.fixed_dictionaries(
        {
            "strange": st.lists(st.sampled_from(sorted(_STRANGE)), max_size=3, unique=True),
            "done": st.booleans(),
            "anothers": st.booleans(),
            "twice": st.booleans(),
        }
    ),
    examples=[
        {"strange": ["unheard of"], "done": True, "anothers": False, "twice": False},
        {"strange": [], "done": False, "anothers": True, "twice": False},
        {"strange": sorted(_STRANGE), "done": False, "anothers": False, "twice": True},
    ],
)
def unknown_ids_are_ignored(stage: EngineStage, plan: Plan) -> None:
    """A client cancels identifiers that it never used, a job that has been answered, one that another client
    has open, and one twice. It must stay connected and hear nothing of it; its own job and the other's are
    done. Requests to cancel cross answers on the wire all the time, and nobody may end another's work.
    """
    worker = asking_worker(stage, "cancel")
    client = asking_client(stage, "cancel", "engine_errors")
    other = asking_client(stage, "cancel", "engine_errors")
    names = [_STRANGE[name] for name in plan["strange"]]
    done = client.submit()
    worker.answer(delivered(stage, done))
    expect_done(stage, [done], "before anything is cancelled")
    if plan["done"]:
        names.append(done.job_id)
    own = client.submit()
    anothers = other.submit(job_id="shared") if plan["anothers"] else other.submit()
    all_delivered(stage, [own, anothers])
    if plan["anothers"]:
        names.append("shared")
    for _ in range(2 if plan["twice"] else 1):
        client.send({"type": "cancel_request", "job_ids": names})
    stage.never(
        lambda: (
            bool(own.responses or anothers.responses) or len(done.responses) > 1 or client.closed is not None
        ),
        f"nothing comes of cancelling {diagnostic(names)}, which are no open jobs of {client.name}",
        lambda: f"{client.name} {client.closed}" if client.closed else "an answer",
    )
    stage.demand(
        not worker.recalled, f"{worker.name} is told to stop nothing", f"{diagnostic(worker.recalled)}"
    )
    worker.answer(own.deliveries[-1], anothers.deliveries[-1])
    expect_done(stage, [own, anothers], "though others were cancelled")


@case(
    "ORB-EXT-13",
    "A batch counts as unanswered until its cancelled jobs have been answered, too",
    sentences=("X2.7",),
    plans=st.fixed_dictionaries(
        {
            "size": st.integers(1, 3),
            "cancelled": st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
            "says": st.sampled_from(["result", "cancelled"]),
            "why": st.sampled_from(["request", "request", "client gone"]),
        }
    ),
    examples=[
        {"size": 1, "cancelled": [0], "says": "cancelled", "why": "request"},
        {"size": 2, "cancelled": [0, 1], "says": "result", "why": "client gone"},
    ],
)
def credit_is_kept(stage: EngineStage, plan: Plan) -> None:
    """A worker that takes one unanswered batch at a time holds one; jobs in it are cancelled, or their client
    leaves, and the rest is answered. As long as it has not answered the cancelled ones, by a result or by
    "cancelled", it must not be sent the next batch; then it must be. It said how much it has room for, and it
    knows alone when it has stopped.
    """
    size = plan["size"]
    worker = asking_worker(stage, "cancel", size=size, max_unanswered_batches=1)
    client = asking_client(stage, "cancel", "engine_errors")
    jobs = [client.job() for _ in range(size)]
    client.request(jobs)
    all_delivered(stage, jobs)
    waiting = asking_client(stage, "engine_errors")
    following = [waiting.job() for _ in range(size)]
    waiting.request(following)
    stage.barrier()
    if plan["why"] == "request":
        chosen = [jobs[place] for place in dict.fromkeys(place % size for place in plan["cancelled"])]
        client.cancel(*chosen)
        expect_ended(stage, chosen, "cancelled", "which its client has cancelled")
    else:
        chosen = jobs
        client.drop("RST")
    worker.answer(*[job.deliveries[-1] for job in jobs if job not in chosen])
    stage.quiet()
    stage.never(
        lambda: any(job.deliveries for job in following),
        f"{worker.name}, which takes one unanswered batch, is sent no other before it has answered "
        f"{chosen[0]}, which nobody wants any more",
        "the next batch is there",
    )
    worker.answer(
        *[job.deliveries[-1] for job in chosen], **(_CANCELLED if plan["says"] == "cancelled" else {})
    )
    worker.answer(*all_delivered(stage, following))
    expect_done(stage, following, "of the batch that waited for the answers to cancelled jobs")


@case(
    "ORB-EXT-14",
    "Who did not ask for cancelling is not told of it, and is not listened to",
    sentences=("X0.3", "X0.5", "X2.4"),
    plans=st.fixed_dictionaries(
        {"says": st.sampled_from(["result", "cancelled"]), "jobs": st.integers(1, 2)}
    ),
    examples=[{"says": "result", "jobs": 1}],
)
def stock_peers_see_no_cancelling(stage: EngineStage, plan: Plan) -> None:
    """Jobs of a client that asked for `cancel`, but not for the engine's errors, are cancelled while a stock
    worker holds them: neither may be sent anything. A client that did not ask for `cancel` sends a
    cancel_request: a message of a type that is none, so its job is done and its connection stays.
    """
    worker = stage.worker(size=plan["jobs"], latency_ms=LATENCY_MS)
    client = asking_client(stage, "cancel")
    jobs = [client.job() for _ in range(plan["jobs"])]
    client.request(jobs)
    all_delivered(stage, jobs)
    client.cancel(*jobs)
    stage.never(
        lambda: bool(worker.stray or client.responses or client.stray),
        f"{worker.name} and {client.name}, which did not ask to be told, are sent nothing when jobs are "
        "cancelled",
        lambda: diagnostic([m.value for m in worker.stray] + [r.message for r in client.responses]),
    )
    worker.answer(
        *[job.deliveries[-1] for job in jobs], **(_CANCELLED if plan["says"] == "cancelled" else {})
    )
    stage.never(
        lambda: bool(client.responses), f"{client.name} hears nothing of jobs that it cancelled", "an answer"
    )
    stock = stage.client(extensions=("engine_errors",))
    others = [stock.job() for _ in range(plan["jobs"])]
    stock.request(others)
    all_delivered(stage, others)
    stock.cancel(*others)
    stage.never(
        lambda: bool(stock.responses or stock.closed),
        f"nothing comes of a cancel_request of {stock.name}, which did not ask for `cancel`",
        lambda: str(stock.closed or diagnostic([response.message for response in stock.responses])),
    )
    worker.answer(*[job.deliveries[-1] for job in others])
    expect_done(stage, others, f"of {stock.name}, which cannot cancel")

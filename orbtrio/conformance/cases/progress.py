"""Extension `progress`: what workers report while they work, and the heartbeats that it keeps alive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases.asking import (
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
    from orbtrio.conformance.players import Job

__all__: list[str] = []

_FIELDS: Final = st.dictionaries(
    st.sampled_from(["text", "percent", "frame"]),
    st.integers(-9, 2**31) | st.text(max_size=5) | st.booleans() | st.lists(st.integers(0, 9), max_size=2),
    max_size=2,
)


@case(
    "ORB-EXT-02",
    "A job's progress reaches its client at once, in order, before the answer",
    sentences=("X1.1", "X1.2", "X1.4"),
    plans=st.fixed_dictionaries(
        {
            "jobs": st.integers(1, 4),
            # Each message's entries: which job, and what is said of it.
            "messages": st.lists(
                st.lists(st.tuples(st.integers(0, 3), _FIELDS).map(list), min_size=1, max_size=4),
                min_size=1,
                max_size=5,
            ),
            "wait": st.booleans(),
        }
    ),
    examples=[
        {"jobs": 1, "messages": [[[0, {"text": "a"}]], [[0, {"text": "b"}]]], "wait": True},
        {"jobs": 2, "messages": [[[0, {"n": 1}], [1, {"n": 2}], [0, {"n": 3}]], [[1, {}]]], "wait": False},
    ],
)
def progress_arrives_in_order(stage: EngineStage, plan: Plan) -> None:
    """A worker reports on the jobs of its batch, on several in one message and on one several times, and then
    answers them. The client must get every report, with the fields that the worker sent, in order, and those
    of a job before its answer; sometimes the worker answers only when they have arrived. Somebody watches the
    words of a language model appear: they may neither be reordered nor come all at the end.
    """
    worker = asking_worker(stage, "progress", size=plan["jobs"])
    client = asking_client(stage, "progress")
    jobs = [client.job() for _ in range(plan["jobs"])]
    client.request(jobs)
    deliveries = all_delivered(stage, jobs)
    said: dict[int, list[Any]] = {job.number: [] for job in jobs}
    for entries in plan["messages"]:
        wires = []
        for which, fields in entries:
            delivery = deliveries[which % len(deliveries)]
            wires.append({"id": delivery.id, **fields})
            said[delivery.job.number].append(fields)
        worker.send({"type": "worker_progress", "progress": wires})
    if plan["wait"]:
        for job in jobs:
            _expect_reports(stage, job, said[job.number], "while its worker still works")
    worker.answer(*deliveries)
    expect_done(stage, jobs, "which its worker has reported on")
    for job in jobs:
        _expect_reports(stage, job, said[job.number], "by the time of its answer")
        _demand_before_the_answer(stage, job)
        stage.demand(
            all(report.attempt == 1 for report in job.reports),
            f"the progress of {job}, which was sent once, carries no attempt above 1",
            diagnostic([report.attempt for report in job.reports]),
        )


def _expect_reports(stage: EngineStage, job: Job, said: list[Any], when: str) -> None:
    stage.expect(
        lambda: len(job.reports) >= len(said),
        f"the client is told {len(said)} times of the progress of {job}, {when}",
        lambda: f"{len(job.reports)} times",
    )
    seen = [report.progress for report in job.reports]
    stage.demand(
        seen == said, f"the progress of {job} as its worker sent it: {diagnostic(said)}", diagnostic(seen)
    )


def _demand_before_the_answer(stage: EngineStage, job: Job) -> None:
    answered = False
    for message in job.client.messages:
        if message.value.get("job_id") != job.job_id:
            continue
        if message.value.get("type") == "worker_response":
            answered = True
        else:
            stage.demand(not answered, f"no progress of {job} after its answer", "progress comes after it")


@case(
    "ORB-EXT-03",
    "Only who has a job may report on it",
    sentences=("X1.3",),
    plans=st.fixed_dictionaries(
        {"reports": st.integers(1, 3), "unknown": st.booleans(), "same_type": st.booleans()}
    ),
    examples=[{"reports": 1, "unknown": True, "same_type": True}],
)
def only_the_owner_reports(stage: EngineStage, plan: Plan) -> None:
    """A worker that does not have a job reports on it, and on ids that nobody knows. The client must hear
    nothing of that; both workers stay connected, and reports of the job's own worker arrive. Otherwise one
    worker's tokens run into another's answer.
    """
    owner = asking_worker(stage, "progress")
    client = asking_client(stage, "progress")
    job = client.submit()
    delivery = delivered(stage, job)
    stranger = asking_worker(
        stage, "progress", worker_type=stage.main_type if plan["same_type"] else stage.other_type()
    )
    for number in range(plan["reports"]):
        stranger.report(delivery, text=f"not mine {number}")
        if plan["unknown"]:
            stranger.send({"type": "worker_progress", "progress": [{"id": "nobody's", "text": "?"}]})
    stage.never(
        lambda: bool(job.reports),
        f"the client hears nothing of what {stranger.name} says about {job}, which {owner.name} has",
        lambda: diagnostic([report.progress for report in job.reports]),
    )
    owner.report(delivery, text="mine")
    _expect_reports(stage, job, [{"text": "mine"}], "once its own worker reports")
    owner.answer(delivery)
    expect_done(stage, [job], "which a stranger reported on")
    for worker in (owner, stranger):
        stage.demand(worker.closed is None, f"{worker.name} stays connected", str(worker.closed))


@case(
    "ORB-EXT-04",
    "Nothing is told of the progress of a job that has ended",
    sentences=("X1.2", "X1.3"),
    plans=st.fixed_dictionaries(
        {
            "ended": st.sampled_from(["answered", "error", "timeout"]),
            "before": st.integers(0, 2),
            "after": st.integers(1, 3),
        }
    ),
    examples=[{"ended": "answered", "before": 1, "after": 1}, {"ended": "timeout", "before": 0, "after": 1}],
)
def no_progress_after_the_end(stage: EngineStage, plan: Plan) -> None:
    """A worker answers a job, by a result or an error, or the job's own deadline passes; then the worker
    reports on it. The client must hear nothing any more: it has told its user, and perhaps used the
    identifier again.
    """
    worker = asking_worker(stage, "progress")
    client = asking_client(stage, "progress", "engine_errors")
    timed = plan["ended"] == "timeout"
    job = client.submit(extra={"timeout_ms": target_ms(stage, 150)} if timed else None)
    delivery = delivered(stage, job)
    for number in range(plan["before"]):
        worker.report(delivery, n=number)
    if timed:
        expect_ended(stage, [job], "timeout", "whose timeout_ms is over")
    else:
        worker.answer(delivery, **({"error": "cannot"} if plan["ended"] == "error" else {}))
        stage.expect(lambda: bool(job.responses), f"{job} is answered")
    told = len(job.reports)
    for number in range(plan["after"]):
        worker.report(delivery, late=number)
    stage.never(
        lambda: len(job.reports) > told,
        f"the client hears nothing of the progress of {job}, which has ended ({plan['ended']})",
        lambda: diagnostic(job.reports[-1].progress),
    )
    stage.demand(worker.closed is None, f"{worker.name} stays connected", str(worker.closed))


@case(
    "ORB-EXT-05",
    "Who did not ask for progress sees none, and is not listened to",
    sentences=("X0.3", "X0.5", "X1.1"),
    plans=st.fixed_dictionaries(
        {
            "asked": st.sampled_from([[], ["engine_errors"], ["cancel", "batched_responses"]]),
            "reports": st.integers(1, 3),
        }
    ),
    examples=[{"asked": [], "reports": 1}],
)
def stock_peers_see_no_progress(stage: EngineStage, plan: Plan) -> None:
    """A worker that asked for `progress` reports on the job of a client that did not: that must get its
    answer and no other message. And a worker that did not ask sends a `worker_progress`: a message of a type
    that is none, so its connection stays, and the client that asked hears nothing. Nobody is ever sent what
    they did not ask for.
    """
    worker = asking_worker(stage, "progress")
    plain = stage.client(extensions=plan["asked"])
    job = plain.submit()
    delivery = delivered(stage, job)
    for number in range(plan["reports"]):
        worker.report(delivery, n=number)
    worker.answer(delivery)
    expect_done(stage, [job], f"of {plain.name}, which did not ask for progress")
    silent = stage.worker(stage.other_type(), size=1, latency_ms=LATENCY_MS)
    listening = asking_client(stage, "progress")
    other = listening.submit(worker_type=silent.worker_type)
    delivery = delivered(stage, other)
    silent.report(delivery, n=1)
    stage.never(
        lambda: bool(plain.stray) or bool(other.reports),
        f"{plain.name}, which did not ask for progress, is sent none, and nothing comes of what "
        f"{silent.name} says, which did not ask either",
        lambda: diagnostic([message.value for message in plain.stray] or "progress from who did not ask"),
    )
    stage.demand(silent.closed is None, f"{silent.name} stays connected", str(silent.closed))
    silent.answer(delivery)
    expect_done(stage, [other], "whose worker said something unknown")


@case(
    "ORB-EXT-06",
    "A job whose worker reports nothing for heartbeat_ms is ended, and no other",
    sentences=("X1.5", "X1.6", "X6.4"),
    plans=st.fixed_dictionaries(
        {
            "heartbeat_ms": st.integers(300, 450),
            "reports": st.integers(0, 4),
            "queued": st.booleans(),
            "answered": st.booleans(),
        }
    ),
    examples=[
        {"heartbeat_ms": 300, "reports": 0, "queued": False, "answered": False},
        {"heartbeat_ms": 300, "reports": 4, "queued": True, "answered": False},
        {"heartbeat_ms": 300, "reports": 4, "queued": False, "answered": True},
    ],
    seconds=3,
)
def heartbeats(stage: EngineStage, plan: Plan) -> None:
    """A job says that its worker has to report on it every so many milliseconds. Waiting for a worker does
    not count; each report begins the time anew, and a job that is reported on stays. When the worker falls
    silent the client must be told, by the kind heartbeat_timeout, and not before the time is over; the late
    answer is dropped. That is how a stuck worker is told from one that needs an hour.
    """
    heartbeat = plan["heartbeat_ms"] / 1000
    client = asking_client(stage, "progress", "engine_errors")
    job = client.job(extra={"heartbeat_ms": target_ms(stage, plan["heartbeat_ms"])})
    if plan["queued"]:
        client.request([job])
        stage.sleep(1.2 * heartbeat)
        stage.demand(
            not job.responses,
            f"{job} waits for a worker for longer than its heartbeat_ms, and goes on waiting",
            diagnostic([response.output for response in job.responses]),
        )
    heard = stage.now()
    worker = asking_worker(stage, "progress")
    if not plan["queued"]:
        heard = stage.now()
        client.request([job])
    delivery = delivered(stage, job)
    stage.demand(
        "heartbeat_ms" in delivery.entry,
        f"{job}'s heartbeat_ms is among the fields that its worker gets",
        "it is not",
    )
    for number in range(plan["reports"]):
        stage.sleep(heartbeat / 3)
        if stage.now() - heard > 0.8 * heartbeat:
            stage.too_slow("a report was sent too late to tell")
        heard = stage.now()
        worker.report(delivery, n=number)
    if plan["reports"]:
        _expect_reports(stage, job, [{"n": number} for number in range(plan["reports"])], "in time")
    if plan["answered"]:
        if stage.now() - heard > 0.8 * heartbeat:
            stage.too_slow("the answer was sent too late to tell")
        worker.answer(delivery)
        expect_done(stage, [job], f"reported on every {heartbeat / 3:.2f} s")
        return
    expect_ended(
        stage, [job], "heartbeat_timeout", f"not reported on for {heartbeat} s", within=heartbeat + 1.0
    )
    silence = job.responses[0].at - heard
    stage.demand(
        silence > heartbeat - 0.005,
        f"{job} is given up when nothing was reported for {heartbeat} s, and not before",
        f"after {silence:.3f} s",
    )
    worker.answer(delivery)
    stage.never(
        lambda: len(job.responses) > 1, f"{job} is answered once", "its worker's late answer comes, too"
    )


@case(
    "ORB-EXT-07",
    "The progress of a job that was sent again says so",
    sentences=("X1.4", "X1.3"),
    plans=st.fixed_dictionaries(
        {"before": st.integers(0, 3), "after": st.integers(1, 3), "how": st.sampled_from(["RST", "close"])}
    ),
    examples=[{"before": 1, "after": 1, "how": "RST"}],
)
def attempts_are_told(stage: EngineStage, plan: Plan) -> None:
    """A worker reports on a job and is lost; the job goes to another one, which reports, too. Those reports
    must say that they belong to the second attempt: whoever put the first worker's tokens together has to
    begin anew, or shows a text with two beginnings.
    """
    first = asking_worker(stage, "progress")
    client = asking_client(stage, "progress")
    job = client.submit()
    delivery = delivered(stage, job)
    for number in range(plan["before"]):
        first.report(delivery, first=number)
    _expect_reports(stage, job, [{"first": n} for n in range(plan["before"])], "from its first worker")
    first.drop(plan["how"])
    second = asking_worker(stage, "progress")
    stage.expect(lambda: len(job.deliveries) > 1, f"{job}, whose worker was lost, is sent again")
    stage.count("redelivery")
    for number in range(plan["after"]):
        second.report(job.deliveries[-1], second=number)
    second.answer(job.deliveries[-1])
    expect_done(stage, [job], "sent a second time")
    attempts = [(report.progress, report.attempt) for report in job.reports[plan["before"] :]]
    wanted = [({"second": number}, 2) for number in range(plan["after"])]
    stage.demand(
        attempts == wanted,
        f"the progress of {job} from its second worker is {diagnostic([report for report, _ in wanted])}, "
        "and has attempt 2",
        diagnostic([list(attempt) for attempt in attempts]),
    )
    stage.demand(
        all(report.attempt == 1 for report in job.reports[: plan["before"]]),
        f"the progress of {job} from its first worker has no attempt above 1",
        diagnostic([report.attempt for report in job.reports]),
    )

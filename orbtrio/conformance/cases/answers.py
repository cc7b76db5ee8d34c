"""OUT: errors, answers in parts, answers with flaws, and answers that come too late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases.batching import submit
from orbtrio.conformance.cases.outputs import DROPPED, check_own_answer, expect_answers, hand_out, harmless
from orbtrio.conformance.model import Plan, case
from orbtrio.conformance.notation import diagnostic
from orbtrio.conformance.players import answer_to

if TYPE_CHECKING:
    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.players import Job, SuiteWorker

__all__: list[str] = []


@case(
    "ORB-OUT-07",
    "A worker's error is the answer to its job",
    sentences=("S3.11", "S3.16", "P-24"),
    plans=st.fixed_dictionaries(
        {
            "error": st.text(min_size=1, max_size=60),
            "bad": st.lists(st.booleans(), min_size=1, max_size=4).filter(any),
        }
    ),
    examples=(
        {"error": "Model failed to process input: invalid format", "bad": [True]},
        {"error": "Image too large", "bad": [False, True]},
    ),
)
def errors_pass_through(stage: EngineStage, plan: Plan) -> None:
    """A worker answers some jobs of a batch with an error in place of a result, as the spec prints it, and
    the others as usual. The clients of the former must get the error's text, at once and unchanged, and the
    job must not be tried again: what one worker cannot do, the next cannot either.
    """
    worker = stage.worker(size=len(plan["bad"]), latency_ms=50)
    deliveries = hand_out(stage, submit(stage.client(), [len(plan["bad"])]))
    worker.output(
        [
            {"id": delivery.id, "error": plan["error"]} if bad else answer_to(delivery)
            for bad, delivery in zip(plan["bad"], deliveries, strict=True)
        ]
    )
    jobs = [delivery.job for delivery in deliveries]
    expect_answers(stage, jobs, f"each job is answered, those with an error {plan['error']!r} too")
    for bad, job in zip(plan["bad"], jobs, strict=True):
        output = job.responses[0].output
        if not bad:
            check_own_answer(stage, job)
            continue
        stage.demand(
            isinstance(output, dict) and output.get("error") == plan["error"],
            f"{job} is answered with the worker's error: {plan['error']!r}",
            f"its answer is {diagnostic(output)}",
        )
        stage.demand(
            len(job.deliveries) == 1,
            f"{job}, which was answered with an error, is not tried again",
            f"it was sent {len(job.deliveries)} times",
        )


@case(
    "ORB-OUT-08",
    "A batch may be answered in several messages",
    sentences=("S3.7", "S3.10", "S6.13"),
    plans=st.fixed_dictionaries(
        {
            "order": st.integers(2, 6).flatmap(lambda count: st.permutations(range(count))),
            "parts": st.lists(st.integers(0, 3), min_size=1, max_size=3),
        }
    ),
    examples=({"order": [0, 1], "parts": [1]}, {"order": [2, 0, 1], "parts": [0, 2]}),
)
def batches_are_answered_in_parts(stage: EngineStage, plan: Plan) -> None:
    """A worker gets a batch and answers its jobs in several worker_outputs, in any order, some perhaps
    empty. With each message those jobs, and only those, must be answered, and in the end all: workers that
    stream results as they are ready need it, and a long job must not hold up the short ones of its batch.
    """
    worker = stage.worker(size=len(plan["order"]), latency_ms=50)
    deliveries = hand_out(stage, submit(stage.client(), [len(plan["order"])]))
    left = [deliveries[number] for number in plan["order"]]
    for part in [*plan["parts"], len(left)]:
        now, left = left[:part], left[part:]
        worker.answer(*now)
        expect_answers(
            stage,
            [delivery.job for delivery in now],
            f"{len(now)} jobs are answered, for {worker.name} has answered them; "
            f"{len(left)} of its batch it has not",
        )
        for delivery in now:
            check_own_answer(stage, delivery.job)
        early = [delivery.job for delivery in left if delivery.job.responses]
        stage.demand(
            not early,
            "no job is answered before its worker answers it",
            f"{early[0]} is answered: {diagnostic(early[0].responses[0].output)}" if early else "",
        )


@case(
    "ORB-OUT-09",
    "Nothing is left of a job that has been answered",
    sentences=("S3.15", "S6.18", "S3.13"),
    plans=st.fixed_dictionaries(
        {"rounds": st.integers(2, 4), "jobs": st.integers(1, 3), "worker_goes": st.booleans()}
    ),
    examples=(
        {"rounds": 2, "jobs": 1, "worker_goes": False},
        {"rounds": 2, "jobs": 1, "worker_goes": True},
    ),
)
def nothing_is_left(stage: EngineStage, plan: Plan) -> None:
    """A client submits jobs and gets their answers, and then submits others under the same job_ids: they
    must be done and answered as if there had never been any. When the worker goes away in the end, jobs
    that it has answered must not be sent to the next. In virtual time their five minutes pass as well, and
    nothing may come: the timeout was cleared.
    """
    worker = stage.worker(size=plan["jobs"], latency_ms=10)
    client = stage.client()
    jobs: list[Job] = []
    for number in range(1, plan["rounds"] + 1):
        request = [client.job(job_id=f"again-{index}") for index in range(plan["jobs"])]
        client.request(request)
        jobs += request
        for delivery in hand_out(stage, request):
            worker.answer(delivery)
        # Responses are matched by job_id: all rounds have the same.
        stage.expect(
            lambda number=number: len(client.responses) >= number * plan["jobs"],  # type: ignore[misc]
            f"round {number} of {plan['jobs']} jobs with the same job_ids is answered",
            lambda: f"{len(client.responses)} answers in all",
        )
        # In whatever order: nobody promises one.
        outputs = {response.job_id: response.output for response in client.responses[-plan["jobs"] :]}
        for job in request:
            output = outputs.get(job.job_id)
            stage.demand(
                isinstance(output, dict) and output.get("echo") == job.input,
                f"{job} of round {number} is answered with its own result",
                f"its answer is {diagnostic(output)}",
            )
    if plan["worker_goes"]:
        worker.drop("FIN")
        stage.worker(size=plan["jobs"], latency_ms=10)
    if stage.world.virtual:
        stage.sleep(stage.conditions.job_timeout + 1)
    stage.never(
        lambda: len(client.responses) > len(jobs) or any(len(job.deliveries) > 1 for job in jobs),
        f"{len(jobs)} jobs that were answered are neither sent nor answered again",
        lambda: (
            f"{sum(len(job.deliveries) for job in jobs)} jobs were sent to workers, "
            f"{len(client.responses)} answers came"
        ),
    )


_MALFORMED: Final[dict[str, Any]] = {
    "null": None,
    "number": 7,
    "text": "oops",
    "list": [],
    "no id": {"embedding": [0.5]},
    "id is null": {"id": None},
    "id is a number": {"id": 7, "embedding": [0.5]},
    "id is a list": {"id": [], "embedding": [0.5]},
}


@case(
    "ORB-OUT-10",
    "Good entries of an output count, whatever stands beside them",
    sentences=("S9.5", "S3.7", "S3.8", "P-23"),
    readings={
        "count": "good entries count, bad ones are skipped",
        "all or nothing": "a message with a malformed entry is ignored as a whole; its worker goes on",
        "disconnects": "a worker that sends a malformed entry is disconnected",
    },
    plans=st.lists(st.sampled_from(["good", "unknown id", *_MALFORMED]), min_size=2, max_size=6).filter(
        lambda kinds: "good" in kinds
    ),
    examples=(
        ["unknown id", "good"],
        ["null", "good"],
        ["no id", "good", "id is a number", "good"],
        ["good", "text", "list", "id is a list", "number"],
    ),
)
def good_entries_count(stage: EngineStage, plan: Plan) -> str:
    """A worker answers its jobs in one worker_output in which other entries stand too: under an id that is
    nobody's, or malformed (null, a number, no id, an id that is no text). The good ones must count if the
    others are merely of no use; if they are malformed, what becomes of the message is told as a reading.
    One broken entry in a batch of 32 should cost one job.
    """
    count = plan.count("good")
    worker = stage.worker(size=count, latency_ms=10)
    deliveries = hand_out(stage, submit(stage.client(), [count]))
    good = (answer_to(delivery) for delivery in deliveries)
    unknown = {"id": "00000000-0000-0000-0000-000000000000", "echo": "for nobody"}
    entries = [
        next(good) if kind == "good" else unknown if kind == "unknown id" else _MALFORMED[kind]
        for kind in plan
    ]
    worker.output(entries)
    jobs = [delivery.job for delivery in deliveries]
    malformed = any(kind in _MALFORMED for kind in plan)
    if not malformed:
        stage.wait(lambda: all(job.responses for job in jobs) or worker.closed is not None)
        if worker.closed is not None:
            return "disconnects"
        expect_answers(stage, jobs, f"{count} good entries count, beside others under an id of no job")
    else:
        stage.quiet()
        if worker.closed is not None:
            return "disconnects"
        if not stage.wait(lambda: all(job.responses for job in jobs), 0.0):
            worker.answer(*deliveries)
            expect_answers(
                stage, jobs, f"all {count} jobs are answered once {worker.name} has done it properly"
            )
            return "all or nothing"
    for job in jobs:
        check_own_answer(stage, job)
    return "count"


@case(
    "ORB-OUT-12",
    "An answer that comes too late is dropped",
    sentences=("S6.22", "S3.15", "S6.21", "P-21", "P-23"),
    readings={
        **DROPPED,
        "taken": "an answer under an old id counts while the job is with another worker",
    },
    plans=st.fixed_dictionaries(
        {
            "why": st.sampled_from(["lost", "timeout"]),
            "answered_meanwhile": st.booleans(),
            "how": st.sampled_from(["RST", "FIN", "close"]),
            "jobs": st.integers(1, 3),
        }
    ),
    examples=(
        {"why": "lost", "answered_meanwhile": True, "how": "RST", "jobs": 1},
        {"why": "lost", "answered_meanwhile": False, "how": "RST", "jobs": 1},
        {"why": "timeout", "answered_meanwhile": False, "how": "RST", "jobs": 1},
    ),
)
def late_answers_are_dropped(stage: EngineStage, plan: Plan) -> str:
    """A worker loses its connection with jobs in hand, and another one gets them. Then the first is back,
    on a new connection, and sends the results under the old ids, before or after the other has answered.
    Or, where five minutes may pass, the worker answers a job whose time is over. The client must not hear
    of a job again that has been answered or given up, and the worker must stay connected: it cannot know.
    """
    first = stage.worker(size=plan["jobs"], latency_ms=10)
    client = stage.client()
    deliveries = hand_out(stage, submit(client, [plan["jobs"]]))
    jobs = [delivery.job for delivery in deliveries]
    patient = stage.world.virtual or stage.conditions.job_timeout <= stage.conditions.patience
    if plan["why"] == "timeout" and patient:
        stage.sleep(stage.conditions.job_timeout + 1)
        before = len(client.responses)
        return _answer_late(stage, first, jobs, before, "whose time is over")
    first.drop(plan["how"])
    second = stage.worker(size=plan["jobs"], latency_ms=10)
    if stage.wait(lambda: all(len(job.deliveries) > 1 for job in jobs)):
        stage.count("redelivery")
        if plan["answered_meanwhile"]:
            second.answer(*second.deliveries)
            expect_answers(stage, jobs, f"{second.name}, which got the jobs of {first.name}, answers them")
    back = stage.worker(stage.other_type(), size=1, latency_ms=10)
    if not all(job.responses for job in jobs):
        _say_late(stage, back, jobs)
        stage.quiet()
        if any(job.responses for job in jobs):
            return "taken"
        second.answer(*second.deliveries)
        stage.wait(lambda: all(job.responses for job in jobs))
    return _answer_late(stage, back, jobs, len(client.responses), "that has been answered")


def _say_late(stage: EngineStage, worker: SuiteWorker, jobs: list[Job]) -> None:
    worker.output([{"id": delivery.id, "echo": "late"} for job in jobs for delivery in job.deliveries])
    stage.count("late answer")


def _answer_late(stage: EngineStage, worker: SuiteWorker, jobs: list[Job], before: int, what: str) -> str:
    client = jobs[0].client
    _say_late(stage, worker, jobs)
    stage.never(
        lambda: len(client.responses) > before,
        f"{client.name} hears nothing more of a job {what}",
        lambda: (
            f"{worker.name} answers {jobs[0]} late, and {client.name} gets "
            f"{diagnostic(client.responses[-1].output)}"
        ),
    )
    return harmless(stage, worker)

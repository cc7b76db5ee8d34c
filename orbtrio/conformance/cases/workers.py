"""WRK: what a worker does with batches: every job answered once, whatever stands beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.model import Plan, Role, case
from orbtrio.conformance.notation import diagnostic, encode
from orbtrio.conformance.shapes import check_output

if TYPE_CHECKING:
    from orbtrio.conformance.worker_bench import WorkerLink, WorkJob
    from orbtrio.conformance.worker_stage import WorkerStage

__all__: list[str] = []

# Within which a connected worker registers, and an engine hangs up on it otherwise: seconds.
_REGISTRATION: Final = 10.0

# Longest batch that a case waits for, in seconds.
_LONG_BATCH: Final = 20.0

_INPUTS: Final = st.integers(0, 3)

# Such as another model may have found.
_BOX: Final = {"label": "cat", "score": 0.5, "box": [3, 70_000, 0.25, 7], "id": 4711}

# Of a batch for a worker that says nothing else; stock libraries take 1 MiB.
_LARGEST_BATCH: Final = 900 * 1024
_FIELD: Final = 30  # bytes of the name, and of the head of the list


@case(
    "ORB-WRK-01",
    "A worker registers with what its environment says, first of all and at once",
    role=Role.WORKER,
    sentences=(
        "S7.1", "S7.2", "S8.1", "S8.2", "S8.3", "S8.4", "S8.5", "S8.6", "S8.7", "S8.8", "S10.1", "S11.1",
        "S1.1", "S1.4", "S10.5", "S11.3", "S1.2", "S1.3", "S1.5", "S1.6", "S1.9", "S1.10",
    ),
    plans=st.just({}),
    examples=[{}],
    readings={
        "environment": "it registers MAX_BATCH_SIZE and MAX_LATENCY_MS as they are set",
        "own": "it registers numbers of its own instead of MAX_BATCH_SIZE and MAX_LATENCY_MS",
    },
)  # fmt: skip
def registers_first(stage: WorkerStage, plan: Plan) -> str:
    """The program is started with SERVER_URL, WORKER_SECRET, MAX_BATCH_SIZE and MAX_LATENCY_MS, with
    WORKER_TYPE if one was given, and with nothing that belongs to a model. It must connect to that address,
    and the first thing that it says within 10 s must be its registration, with this secret and type. An
    engine hangs up on whoever is late, and gives other types' jobs to whoever names another type."""
    link = stage.link()
    assert link.first is not None
    late = link.first.at - link.connected_at
    stage.demand(
        late <= _REGISTRATION + stage.slack,
        f"{link.name} sends its registration within {_REGISTRATION:.0f} s of its connection",
        f"its first message came after {late:.1f} s",
    )
    message = link.first.value
    shown = diagnostic(message, secrets=(stage.conditions.secret,))
    stage.demand(
        isinstance(message, dict) and message.get("type") == "i_am_worker",
        'the first message of a worker is a registration, with type "i_am_worker"',
        shown,
    )
    stage.demand(
        message.get("worker_secret") == stage.conditions.secret,
        "worker_secret is what the environment variable WORKER_SECRET says",
        "another one" if "worker_secret" in message else "none",
    )
    config = message.get("worker_config")
    stage.demand(isinstance(config, dict), "worker_config is a map", shown)
    stage.demand(
        isinstance(config.get("worker_type"), str) and config["worker_type"] == stage.bench.worker_type,
        f"worker_type is {stage.bench.worker_type!r}",
        diagnostic(config.get("worker_type")),
    )
    target = link.upgrade.target if link.upgrade is not None else ""
    stage.demand(
        target == stage.conditions.path, f"it asks for {stage.conditions.path}, as SERVER_URL says", target
    )
    for name in ("max_batch_size", "max_latency_ms"):
        value = config.get(name, 1)
        stage.demand(
            type(value) in (int, float) and value > 0, f"{name} is a number above 0", diagnostic(value)
        )
    wanted = (stage.bench.max_batch_size, stage.bench.max_latency_ms)
    given = (config.get("max_batch_size"), config.get("max_latency_ms"))
    return "environment" if given == wanted else "own"


@case(
    "ORB-WRK-02",
    "Every job of a batch is answered once, by its id",
    role=Role.WORKER,
    sentences=(
        "S2.14", "S2.15", "S2.16", "S2.17", "S3.6", "S6.12", "S6.13", "S10.3", "S12.2", "S12.3", "S12.4",
        "S3.1", "S3.2", "S3.3", "S3.4", "S5.4", "S5.8", "S5.13", "S9.3", "S3.7", "S3.8",
    ),
    plans=st.fixed_dictionaries(
        {
            "batches": st.lists(st.lists(_INPUTS, min_size=1, max_size=8), min_size=1, max_size=3),
            "ids": st.sampled_from(["plain", "uuid", "long", "not ASCII"]),
            "stall_ms": st.sampled_from([0, 0, 30]),
        }
    ),
    examples=[
        {"batches": [[0, 1, 2, 3, 0, 1]], "ids": "plain", "stall_ms": 0},
        {"batches": [[0]], "ids": "uuid", "stall_ms": 30},
    ],
)  # fmt: skip
def every_job_once(stage: WorkerStage, plan: Plan) -> None:
    """Batches of one job and more are sent, smaller than max_batch_size; sometimes nothing is read for a
    while. Each job must be answered in a worker_output by an entry with its id, and no entry may come twice
    or with an id that was never sent: an engine matches answers to jobs by their ids alone. Who waits for a
    job without an answer waits for five minutes."""
    for number, inputs in enumerate(plan["batches"]):
        link = stage.link()
        inputs = inputs[: max(link.max_batch_size - 1, 1)]
        jobs = [stage.job(which) for which in inputs]
        for job in jobs:
            job.id = job.entry["id"] = _identifier(plan["ids"], job.id)
        if plan["stall_ms"]:
            link.pipe.paused = True
            stage.deliver(*jobs)
            stage.sleep(plan["stall_ms"] / 1000)
            link.pipe.paused = False
        else:
            stage.deliver(*jobs)
        stage.expect_answers(jobs, f"each of the {len(jobs)} jobs of batch {number + 1} is answered")
    stage.barrier()
    stage.sleep(stage.slack)
    known = {diagnostic(job.id) for job in stage.jobs}
    for entry_id, answers in stage.link().answers.items():
        stage.demand(
            entry_id in known, "each entry of an output has the id of a job", f"an entry with {entry_id}"
        )
        stage.demand(
            len(answers) == 1, f"the job with id {entry_id} is answered once", f"{len(answers)} answers"
        )
    _demand_nothing_else(stage, stage.link())


def _identifier(style: str, job_id: str) -> str:
    number = job_id.rpartition("-")[2]
    return {
        "plain": job_id,
        "uuid": f"3f2a77de-5b0c-4c1e-9d55-{abs(hash(job_id)) % 16**8:08x}{int(number):04d}",
        "long": job_id + "-" * 200,
        "not ASCII": f"Größe {job_id} 工作",
    }[style]


def _demand_nothing_else(stage: WorkerStage, link: WorkerLink) -> None:
    said = [diagnostic(message.value) for message in link.stray] + link.texts + link.undecodable
    stage.demand(not said, "after its registration a worker sends nothing but outputs", ", ".join(said[:3]))


@case(
    "ORB-WRK-03",
    "A job may have its id in `job_id` instead",
    role=Role.WORKER,
    sentences=("S2.5", "S2.19"),
    plans=st.fixed_dictionaries(
        {"forms": st.lists(st.sampled_from(["id", "job_id", "both"]), min_size=1, max_size=5)}
    ),
    examples=[{"forms": ["job_id"]}, {"forms": ["both", "id", "job_id"]}],
)
def id_or_job_id(stage: WorkerStage, plan: Plan) -> None:
    """Jobs come with an id, with only a job_id, or with both. The answer's id must be the id, or where there
    is none the job_id: the page names it as the alternate field, and its own worker reads it so."""
    jobs = []
    for form in plan["forms"][: stage.link().max_batch_size]:
        job = stage.job()
        if form == "job_id":
            job.entry["job_id"] = job.entry.pop("id")
        elif form == "both":
            job.entry["job_id"] = f"alternate of {job.id}"
        jobs.append(job)
    stage.deliver(*jobs)
    stage.expect_answers(jobs, "each job is answered by its id, or by its job_id where it has no id")


# Inputs that no worker of a documented type can do.
_BAD: Final[dict[str, Any]] = {
    "empty": {},
    "unknown field only": {"no_such_field": 1},
    "numbers for texts": 7,
    "lists for texts": [],
    "nulls": None,
}


def _spoiled(value: Any, by: Any) -> Any:
    return dict.fromkeys(value, by) if isinstance(value, dict) else by


def _bad_job(stage: WorkerStage, kind: str) -> WorkJob:
    job = stage.job()
    bad = _BAD[kind]
    job.entry["input"] = bad if isinstance(bad, dict) else _spoiled(job.entry["input"], bad)
    return job


@case(
    "ORB-WRK-04",
    "One bad job does not spoil its batch",
    role=Role.WORKER,
    sentences=("S9.1", "S9.3", "S10.2", "S10.4"),
    plans=st.fixed_dictionaries(
        {"bad": st.sampled_from(sorted(_BAD)), "place": st.integers(0, 3), "good": st.integers(1, 5)}
    ),
    examples=[
        {"bad": "empty", "place": 0, "good": 2},
        {"bad": "numbers for texts", "place": 1, "good": 1},
        {"bad": "nulls", "place": 3, "good": 3},
    ],
)
def bad_job_spoils_nothing(stage: WorkerStage, plan: Plan) -> None:
    """Among jobs that the worker has done before stands one whose input makes no sense for it. The good ones
    must be answered by results, as if they were alone, and the bad one by whatever the worker makes of it: an
    engine puts jobs of different clients into one batch, and one client's mistake is not another's."""
    room = max(stage.link().max_batch_size - 1, 1)
    jobs = [stage.job() for _ in range(min(plan["good"], room))]
    bad = _bad_job(stage, plan["bad"])
    batch = [*jobs[: plan["place"]], bad, *jobs[plan["place"] :]]
    stage.deliver(*batch[: room + 1])
    stage.expect_answers(batch[: room + 1], f"each job of a batch with one bad job ({bad.id}) is answered")
    for job in jobs:
        if job.answers and job.answers[0].failed:
            stage.fail(
                f"job {job.id}, which is good, gets a result although job {bad.id} beside it is bad",
                diagnostic(job.answers[0].entry),
            )


@case(
    "ORB-WRK-05",
    "An error is a text, in place of results",
    role=Role.WORKER,
    sentences=(
        "S9.2", "S10.4", "S3.11", "S3.16", "S5.7", "S5.12", "S5.17", "S5.21", "S5.31", "S5.39", "S5.54",
        "S5.63", "S9.1",
    ),
    plans=st.fixed_dictionaries({"bad": st.sampled_from(sorted(_BAD))}),
    examples=[{"bad": kind} for kind in ("empty", "lists for texts", "nulls")],
)  # fmt: skip
def error_is_a_text(stage: WorkerStage, plan: Plan) -> None:
    """A job whose input makes no sense is sent. If the worker answers it by an error, that must be a text
    under "error", with the job's id and without results beside it: clients show it to people, and tell by
    the field alone whether there is a result."""
    job = _bad_job(stage, plan["bad"])
    stage.deliver(job)
    stage.expect_answers([job], f"job {job.id}, which is bad, is answered")
    entry = job.answers[0].entry
    if not job.answers[0].failed:
        # An echo, say, has no bad inputs; whether results are right is for other cases.
        stage.note("the worker made a result of it")
        return
    complaints = check_output(stage.bench.worker_type or "", entry)
    stage.demand(not complaints, 'an error is {"id": text, "error": text}', "; ".join(complaints))


@case(
    "ORB-WRK-06",
    "Fields that a worker does not know harm nothing",
    role=Role.WORKER,
    sentences=("S2.7",),
    plans=st.fixed_dictionaries(
        {
            "where": st.sets(st.sampled_from(["message", "job", "input"]), min_size=1).map(sorted),
            "value": st.sampled_from([1, "text", None, True, 2.5, [1, [2]], {"a": {"b": []}}]),
        }
    ),
    examples=[
        {"where": ["job"], "value": 1},
        {"where": ["input", "job", "message"], "value": {"a": {"b": []}}},
    ],
)
def unknown_fields(stage: WorkerStage, plan: Plan) -> None:
    """A good job comes with a field more: in its input, beside its input, or beside `inputs`. It must be
    answered by a result as ever: the page lets further fields pass through, and a newer engine or client
    will send some."""
    job = stage.job()
    if "job" in plan["where"]:
        job.entry["conformance_extra"] = plan["value"]
    if "input" in plan["where"]:
        job.entry["input"]["conformance_extra"] = plan["value"]
    fields = {"conformance_extra": plan["value"]} if "message" in plan["where"] else {}
    stage.deliver(job, **fields)
    stage.expect_answers([job], f"job {job.id} is answered although there is a field more")
    stage.demand(
        not job.answers[0].failed,
        f"job {job.id} gets a result although there is a field more in {' and '.join(plan['where'])}",
        diagnostic(job.answers[0].entry),
    )


@case(
    "ORB-WRK-07",
    "A batch that comes while another is computed is done, too",
    role=Role.WORKER,
    sentences=("S2.18", "S7.5", "S10.5", "S2.16", "S2.17"),
    plans=st.fixed_dictionaries(
        {
            "sizes": st.lists(st.integers(1, 3), min_size=2, max_size=4),
            "gap_ms": st.sampled_from([0, 0, 5]),
        }
    ),
    examples=[{"sizes": [1, 1], "gap_ms": 0}, {"sizes": [3, 1, 2, 1], "gap_ms": 5}],
)
def batches_back_to_back(stage: WorkerStage, plan: Plan) -> None:
    """Several batches are sent without waiting for answers, as an engine does whose max_latency_ms runs out
    while the worker computes. All of their jobs must be answered, and in the time that they would take one
    after the other, without a model loaded anew for each."""
    jobs = []
    for size in plan["sizes"]:
        batch = [stage.job(which) for which in range(min(size, stage.link().max_batch_size))]
        stage.deliver(*batch)
        jobs += batch
        if plan["gap_ms"]:
            stage.sleep(plan["gap_ms"] / 1000)
    if not any(job.answers for job in jobs):
        stage.count("two open batches")
    stage.expect_answers(jobs, f"each job of {len(plan['sizes'])} batches sent back to back is answered")


@case(
    "ORB-WRK-08",
    "A batch without jobs is answered by nothing, or by an empty output",
    role=Role.WORKER,
    sentences=("S2.3", "S2.15", "S3.6", "P-10"),
    plans=st.fixed_dictionaries({"times": st.integers(1, 4)}),
    examples=[{"times": 1}],
)
def batch_without_jobs(stage: WorkerStage, plan: Plan) -> None:
    """A batch whose `inputs` is empty is sent, which a good engine does not do. Nothing in the page's types
    forbids it, so the worker must survive, answer at most by an empty output, and do the next job."""
    for _ in range(plan["times"]):
        stage.deliver()
    job = stage.barrier()
    entries = set(stage.link().answers) - {diagnostic(job.id)}
    stage.demand(not entries, "no entries for a batch without jobs", f"entries with the ids {entries}")
    for message in stage.link().outputs:
        stage.demand(
            isinstance(message.value.get("output"), list), "output is a list", diagnostic(message.value)
        )
    _demand_nothing_else(stage, stage.link())


@case(
    "ORB-WRK-16",
    "A batch of as many jobs as were registered is done",
    role=Role.WORKER,
    sentences=("S8.3", "S1.5", "P-03", "P-15", "P-16"),
    plans=st.fixed_dictionaries(
        {
            "missing": st.integers(0, 1),
            "batches": st.integers(1, 2),
            "boxes": st.sampled_from([False, False, True]),
        }
    ),
    examples=[
        {"missing": 0, "batches": 1, "boxes": False},
        {"missing": 0, "batches": 1, "boxes": True},
    ],
)
def full_batch(stage: WorkerStage, plan: Plan) -> None:
    """A batch has exactly as many jobs as the worker registered as its max_batch_size, or one less; it may be
    as large as an engine sends it, by boxes that stand beside the inputs. Each job must be answered by a
    result: whoever names a number to the engine will get batches of that size under load, and no time is
    worse for refusing them."""
    size = max(stage.link().max_batch_size - plan["missing"], 1)
    if size * stage.bench.job_seconds > _LONG_BATCH:
        stage.skip(f"a full batch takes longer than {_LONG_BATCH:.0f} s: start it with less MAX_BATCH_SIZE")
    for _ in range(plan["batches"]):
        jobs = [stage.job() for _ in range(size)]
        if plan["boxes"]:
            room = _LARGEST_BATCH - len(encode({"inputs": [job.entry for job in jobs]}))
            boxes = max(room // size - _FIELD, 0) // len(encode(_BOX))
            for job in jobs:
                job.entry["conformance_extra"] = [_BOX] * boxes
        stage.deliver(*jobs)
        stage.expect_answers(jobs, f"each job of a batch of {size}, as registered, is answered")
        failed = [job for job in jobs if job.answers[0].failed]
        stage.demand(
            not failed, f"each of these {size} jobs gets a result", f"{len(failed)} of them get an error"
        )

"""MUL and SES: several workers, and work that belongs to one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases.batching import expect_delivered, submit
from orbtrio.conformance.model import Plan, case

if TYPE_CHECKING:
    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.players import Job

__all__: list[str] = []

# Fields of a job's input that tell which session it belongs to.
_SESSION_FIELDS: Final = {"video_segmentation": "cross_job_id", "motion_energy": "media_id"}

_SESSIONS: Final = st.fixed_dictionaries(
    {
        "type": st.sampled_from(sorted(_SESSION_FIELDS)),
        "workers": st.integers(2, 3),
        "frames": st.lists(st.integers(0, 3), min_size=2, max_size=12),
        "size": st.integers(1, 6),
        "request": st.integers(1, 4),
    }
)


@case(
    "ORB-MUL-01",
    "All workers of a type get work",
    sentences=("S7.10", "S7.11", "S6.7", "P-12"),
    readings={
        "even": "jobs are shared out evenly, give or take a batch",
        "uneven": "every worker gets some, one more than another",
    },
    plans=st.fixed_dictionaries(
        {
            "workers": st.integers(2, 4),
            "size": st.integers(1, 4),
            "batches_each": st.integers(2, 4),
            "one_request": st.booleans(),
        }
    ),
    examples=(
        {"workers": 2, "size": 1, "batches_each": 3, "one_request": False},
        {"workers": 2, "size": 2, "batches_each": 2, "one_request": True},
    ),
)
def all_workers_get_work(stage: EngineStage, plan: Plan) -> str:
    """Some workers of one type are there, and jobs are submitted, enough for several batches for each of
    them. Nobody answers, so whoever has a batch is busy. Each worker must get some: round robin gives to
    all in turn, and the first that is available is another one when the first is busy. Otherwise whoever
    pays for four GPUs uses one.
    """
    workers = [stage.worker(size=plan["size"], latency_ms=30) for _ in range(plan["workers"])]
    # Registrations and jobs come on different connections: whose is read first is anybody's guess.
    stage.quiet()
    count = plan["workers"] * plan["size"] * plan["batches_each"]
    client = stage.client()
    jobs = submit(client, [count] if plan["one_request"] else [plan["size"]] * (count // plan["size"]))
    expect_delivered(stage, jobs, f"all {count} jobs are sent to the {len(workers)} workers of their type")
    shares = [len(worker.deliveries) for worker in workers]
    stage.demand(
        min(shares) > 0,
        f"each of {len(workers)} workers gets some of {count} jobs, as none has answered any",
        f"they got {', '.join(map(str, shares))}",
    )
    return "even" if max(shares) - min(shares) <= plan["size"] else "uneven"


@case(
    "ORB-MUL-02",
    "A worker only gets jobs of its own type",
    sentences=("S4.15", "S6.7", "S7.11"),
    plans=st.fixed_dictionaries(
        {
            "types": st.integers(2, 4),
            "without_worker": st.integers(0, 2),
            "jobs": st.lists(st.integers(0, 5), min_size=1, max_size=10),
        }
    ),
    examples=(
        {"types": 2, "without_worker": 1, "jobs": [2]},
        {"types": 2, "without_worker": 0, "jobs": [0, 1]},
    ),
)
def types_are_never_mixed(stage: EngineStage, plan: Plan) -> None:
    """There are workers of some types, one each, and jobs come for these types and for others that have no
    worker. Each worker must get the jobs of its type and no others; those without a worker go to nobody. A
    model that is handed another's input fails at best, and at worst answers.
    """
    types = [stage.other_type(number) for number in range(1, plan["types"] + 1)]
    lonely = [stage.main_type, stage.other_type(plan["types"] + 1)][: plan["without_worker"]]
    for worker_type in types:
        stage.worker(worker_type, size=2, latency_ms=20)
    client = stage.client()
    wanted = [*types, *lonely]
    jobs = [client.submit(worker_type=wanted[number % len(wanted)]) for number in plan["jobs"]]
    expect_delivered(
        stage,
        [job for job in jobs if job.worker_type in types],
        f"jobs for {', '.join(types)} are sent to workers of these types",
    )
    stage.sleep(0.02)

    def astray() -> list[str]:
        return [
            f"{job} for {job.worker_type} was sent to {delivery.worker.name}, a worker for "
            f"{delivery.worker.worker_type}"
            for job in jobs
            for delivery in job.deliveries
            if delivery.worker.worker_type != job.worker_type
        ]

    stage.never(lambda: bool(astray()), "workers get jobs of their own type", lambda: astray()[0])


@case(
    "ORB-MUL-03",
    "A worker that is stuck does not hold up the others",
    sentences=("S7.10", "S7.11", "S2.8", "P-7"),
    plans=st.fixed_dictionaries(
        {
            "held": st.integers(1, 3),
            "stops_reading": st.booleans(),
            "jobs": st.integers(2, 8),
        }
    ),
    examples=(
        {"held": 1, "stops_reading": False, "jobs": 4},
        {"held": 1, "stops_reading": True, "jobs": 4},
    ),
)
def stuck_workers_stop_nobody(stage: EngineStage, plan: Plan) -> None:
    """A worker gets some jobs and is never heard of again; perhaps it does not even read any more. Then a
    second one of its type registers, and jobs are submitted one by one. Which of the two gets which is the
    engine's choice, but the second must get some, and what it answers must reach the client. One hung
    process must not stop a whole service.
    """
    stuck = stage.worker(size=1, latency_ms=10)
    client = stage.client()
    expect_delivered(
        stage, submit(client, [1] * plan["held"]), f"{plan['held']} jobs are sent to {stuck.name}"
    )
    stuck.pipe.paused = plan["stops_reading"]
    second = stage.worker(size=1, latency_ms=10)
    second.answer_all()
    stage.quiet()
    jobs = submit(client, [1] * plan["jobs"])
    stage.expect(
        lambda: any(job.responses for job in jobs),
        f"some of {len(jobs)} jobs are sent to {second.name} and answered, while {stuck.name} is stuck with "
        f"{plan['held']} others",
        lambda: f"{len(second.deliveries)} were sent to {second.name}, none is answered",
    )
    stage.wait(lambda: all(job.deliveries for job in jobs), 0.0)
    mine = [delivery.job for delivery in second.deliveries if delivery.job in jobs]
    stage.expect(
        lambda: all(job.responses for job in mine),
        f"all {len(mine)} jobs that {second.name} got and answered are answered",
        lambda: f"{sum(not job.responses for job in mine)} are not",
    )


def _play(stage: EngineStage, plan: Plan, latency_ms: int) -> list[Job]:
    worker_type = plan["type"]
    if worker_type not in stage.conditions.types:
        stage.skip(f"the target has no worker type {worker_type}: name it among its types")
    for _ in range(plan["workers"]):
        stage.worker(worker_type, size=plan["size"], latency_ms=latency_ms)
    client = stage.client()
    field = _SESSION_FIELDS[worker_type]
    jobs = [
        client.job(
            {field: f"session-{session}", "current_frame": f"frame-{number}.png"}, worker_type=worker_type
        )
        for number, session in enumerate(plan["frames"], 1)
    ]
    for start in range(0, len(jobs), plan["request"]):
        client.request(jobs[start : start + plan["request"]])
    expect_delivered(stage, jobs, f"all {len(jobs)} frames are sent to the workers for {worker_type}")
    return jobs


def _session(job: Job) -> str:
    return str(job.input[_SESSION_FIELDS[job.worker_type]])


@case(
    "ORB-SES-01",
    "All frames of a session go to the same worker",
    sentences=("S5.55", "S5.56", "S5.57", "S5.40", "S5.60", "S5.64", "P-12"),
    readings={
        "same": "jobs with the same cross_job_id, or media_id, go to one worker",
        "scattered": "they are dealt out like any others: no worker sees the whole of a video",
    },
    plans=_SESSIONS,
    examples=(
        {"type": "video_segmentation", "workers": 2, "frames": [0, 0, 0, 0], "size": 1, "request": 1},
        {"type": "motion_energy", "workers": 2, "frames": [0, 1, 0, 1], "size": 1, "request": 1},
    ),
)
def sessions_stay_with_their_worker(stage: EngineStage, plan: Plan) -> str:
    """Frames of some videos are submitted to video_segmentation, which tracks objects from frame to frame
    by cross_job_id, or to motion_energy, which compares each frame with the one before it of the same
    media_id. Two or three workers are there. All jobs of a session must go to one of them: the state is in
    the worker, and frames that go elsewhere start a new video.
    """
    homes: dict[str, set[str]] = {}
    for job in _play(stage, plan, 20):
        homes.setdefault(_session(job), set()).update(delivery.worker.name for delivery in job.deliveries)
    return "same" if all(len(workers) == 1 for workers in homes.values()) else "scattered"


@case(
    "ORB-SES-02",
    "Frames of a session reach their worker in order",
    sentences=("S5.59", "S5.57", "S5.65", "P-12"),
    plans=_SESSIONS,
    examples=(
        {"type": "video_segmentation", "workers": 2, "frames": [0, 0, 0], "size": 6, "request": 3},
        {"type": "motion_energy", "workers": 2, "frames": [0, 1, 0, 1], "size": 2, "request": 1},
    ),
)
def sessions_are_in_order(stage: EngineStage, plan: Plan) -> None:
    """Frames of some videos are submitted, several of them at a time. Of each session each worker must get
    the frames in the order in which they were submitted, within a batch too: the frame count goes up by one
    per job, and motion is measured against the frame before.
    """
    _play(stage, plan, 40)
    for worker in {delivery.worker for job in stage.jobs for delivery in job.deliveries}:
        sessions: dict[str, list[int]] = {}
        for delivery in worker.deliveries:
            sessions.setdefault(_session(delivery.job), []).append(delivery.job.number)
        for session, numbers in sessions.items():
            stage.demand(
                numbers == sorted(numbers),
                f"{worker.name} gets the frames of {session} in the order in which they were submitted",
                f"it gets the jobs number {numbers}",
            )

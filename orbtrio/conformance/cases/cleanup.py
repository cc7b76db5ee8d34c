"""Resources: how long files live, and that they go, however their jobs end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases.resources import (
    LATENCY_MS,
    content,
    delivered,
    expect_content,
    file_of,
    image,
    need_files,
    reference,
)
from orbtrio.conformance.model import case

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan
    from orbtrio.conformance.players import Delivery, Job

__all__ = ["GONE", "gone_within", "watch_files_go"]

# Seconds.
AT_ONCE: Final = 1.0
# Of the run's patience, for the "cleanup period" that the spec grants and does not measure.
CLEANUP_SHARE: Final = 1 / 3

GONE: Final = {
    "at once": "files are deleted within a second",
    "later": "files are deleted, but later than a second: the text grants a cleanup period",
}


def gone_within(stage: EngineStage, paths: Iterable[Path], seconds: float) -> list[Path]:
    """Those of the files that are still there after that time, or as soon as none is."""
    end = stage.now() + seconds + stage.slack
    left = [path for path in paths if os.path.lexists(path)]
    while left and stage.now() < end:
        stage.sleep(0.01)
        left = [path for path in left if os.path.lexists(path)]
    return left


def watch_files_go(stage: EngineStage, paths: Iterable[Path], since: str) -> str:
    """Demand that files are deleted; which of the readings `GONE` it was."""
    left = gone_within(stage, paths, AT_ONCE)
    if not left:
        return "at once"
    allowed = stage.conditions.patience * CLEANUP_SHARE
    still = gone_within(stage, left, allowed - AT_ONCE)
    stage.demand(
        not still,
        f"the file is deleted {since}; {allowed:.0f} s, a third of --max-wait, are granted for cleaning up",
        f"{str(still[0]) if still else ''!r} is still there",
    )
    return "later"


_SHARES: Final = st.fixed_dictionaries(
    {
        # For each job, which of two files it refers to, and when it is answered: those of least come first.
        "jobs": st.lists(
            st.fixed_dictionaries(
                {
                    "files": st.lists(st.integers(0, 1), min_size=1, max_size=2, unique=True),
                    "turn": st.integers(0, 9),
                    "error": st.booleans(),
                }
            ),
            min_size=2,
            max_size=5,
        ),
        "two_types": st.booleans(),
    }
)


def _job(files: list[int], turn: int, error: bool = False) -> dict[str, object]:
    return {"files": files, "turn": turn, "error": error}


# One request with all the plan's jobs and files; deliveries in the order in which they are to be answered.
def _shared(stage: EngineStage, plan: Plan) -> list[tuple[Delivery, set[int]]]:
    types = [stage.main_type, stage.other_type()] if plan["two_types"] else [stage.main_type]
    for worker_type in types:
        stage.worker(worker_type, size=5, latency_ms=LATENCY_MS)
    client = stage.client()
    jobs = [
        client.job(
            {f"file{name}": reference(f"r{name}") for name in entry["files"]},
            worker_type=types[number % len(types)],
        )
        for number, entry in enumerate(plan["jobs"])
    ]
    used = sorted({name for entry in plan["jobs"] for name in entry["files"]})
    client.request(jobs, [image(f"r{name}", _content(jobs, name)) for name in used])
    entries = sorted(zip(jobs, plan["jobs"], strict=True), key=lambda pair: pair[1]["turn"])
    return [(delivered(stage, job), set(entry["files"])) for job, entry in entries]


def _content(jobs: list[Job], name: int) -> bytes:
    return content(jobs[name])


@case(
    "ORB-RES-07",
    "A file stays until the last job that refers to it is done",
    sentences=("S4.19", "S4.24", "S4.25", "S6.16", "S4.1", "S4.26"),
    plans=_SHARES,
    examples=[
        {"jobs": [_job([0], 0), _job([0], 1)], "two_types": False},
        {"jobs": [_job([0, 1], 2), _job([1], 0), _job([0], 1)], "two_types": True},
    ],
)
def file_lives_until_the_last_job(stage: EngineStage, plan: Plan) -> None:
    """Jobs of one request, of one worker type or two, share two files. They are answered one after the other,
    with results or errors, in any order; as long as one that refers to a file has not been, the file must be
    there with all its bytes. A file that goes with the first answer fails all the other jobs.
    """
    need_files(stage)
    left = _shared(stage, plan)
    first = left[0][0].job.client
    jobs = [job for job in stage.jobs if job.client is first]
    while len(left) > 1:
        delivery, _ = left.pop(0)
        error = plan["jobs"][jobs.index(delivery.job)]["error"]
        delivery.worker.answer(delivery, **({"error": "could not be done"} if error else {}))
        # Deleting may take its time: a moment before the last look, at least.
        stage.quiet() if len(left) == 1 else stage.barrier()
        for waiting, files in left:
            for name in files:
                path = file_of(stage, waiting, f"file{name}")
                expect_content(
                    stage, path, _content(jobs, name), f"{waiting.job}, which has not been answered"
                )
    left[0][0].worker.answer(left[0][0])


@case(
    "ORB-RES-08",
    "A file is deleted when the last job that refers to it is done",
    sentences=("S4.26", "S4.27", "S6.17", "S4.19", "S4.25", "P-42"),
    plans=_SHARES,
    readings=GONE,
    examples=[
        {"jobs": [_job([0], 0), _job([0], 0)], "two_types": False},
        {"jobs": [_job([0, 1], 0), _job([1], 1, error=True)], "two_types": False},
    ],
)
def file_is_deleted_after_the_last_job(stage: EngineStage, plan: Plan) -> str:
    """Jobs of one request share two files and are all answered, with results or errors. Then the files must
    go: at once, or after a cleanup period, whose length the text leaves open. If they stay, a camera that
    sends ten frames a second fills a disk within days.
    """
    need_files(stage)
    shared = _shared(stage, plan)
    paths = {file_of(stage, delivery, f"file{name}") for delivery, files in shared for name in files}
    jobs = list(stage.jobs)
    for delivery, _ in shared:
        error = plan["jobs"][jobs.index(delivery.job)]["error"]
        delivery.worker.answer(delivery, **({"error": "could not be done"} if error else {}))
    stage.barrier()
    return watch_files_go(stage, sorted(paths), "once all its jobs have been answered")


@case(
    "ORB-RES-09",
    "The file of a job that nobody took in time is deleted",
    sentences=("S4.27", "S6.23", "S4.19"),
    plans=st.fixed_dictionaries({"waiting": st.integers(1, 3)}),
    readings=GONE,
)
def file_goes_with_a_timeout(stage: EngineStage, plan: Plan) -> str:
    """Jobs share a file. One is done, the others wait for a worker of a type that has none, until their time
    is over. Then the file must go, though no job that needed it was ever done. ORB-TMO-03 is the same for
    jobs that a worker holds. Workers that are away for a night would leave a full disk.
    """
    need_files(stage)
    timeout = stage.conditions.job_timeout
    stage.need_patience(timeout, "to wait until a job's time is over")
    worker = stage.worker(stage.other_type(), size=1, latency_ms=LATENCY_MS)
    client = stage.client()
    done = client.job({"file": reference("shared")}, worker_type=worker.worker_type)
    waiting = [client.job({"file": reference("shared")}) for _ in range(plan["waiting"])]
    client.request([done, *waiting], [image("shared", content(done))])
    delivery = delivered(stage, done)
    path = file_of(stage, delivery)
    worker.answer(delivery)
    stage.sleep_until(delivery.at + timeout)
    return watch_files_go(stage, [path], f"after the job's time, {timeout:.0f} s, is over")


@case(
    "ORB-RES-10",
    "The files of a client that goes away are deleted",
    sentences=("S4.27", "S4.19", "P-25"),
    plans=st.fixed_dictionaries(
        {
            "how": st.sampled_from(["RST", "FIN", "close"]),
            "held": st.integers(1, 2),
            "waiting": st.integers(0, 2),
        }
    ),
    readings={
        "with the client": "files are deleted as soon as their client is gone",
        "with its jobs": "files are deleted once workers have answered the jobs that their client left",
    },
    examples=[{"how": "RST", "held": 1, "waiting": 0}, {"how": "close", "held": 1, "waiting": 1}],
    seconds=1.5,
)
def files_go_with_their_client(stage: EngineStage, plan: Plan) -> str:
    """A client's connection ends, without or with a close frame, while a worker holds some of its jobs and
    others wait for a worker. Their file must go: with the client, or once the jobs that it left behind have
    been answered by workers. Clients are restarted every day; what they leave would add up.
    """
    need_files(stage)
    worker = stage.worker(size=plan["held"], latency_ms=LATENCY_MS)
    client = stage.client()
    held = [client.job({"file": reference("shared")}) for _ in range(plan["held"])]
    other = stage.other_type()
    waiting = [client.job({"file": reference("shared")}, worker_type=other) for _ in range(plan["waiting"])]
    client.request([*held, *waiting], [image("shared", content(held[0]))])
    deliveries = [delivered(stage, job) for job in held]
    path = file_of(stage, deliveries[0])
    client.drop(plan["how"])
    stage.count("client loss with files")
    if not gone_within(stage, [path], AT_ONCE):
        return "with the client"
    worker.answer(*deliveries)
    stage.worker(other, size=10, latency_ms=LATENCY_MS).answer_all()
    watch_files_go(stage, [path], "after its client is gone and all its jobs have been answered")
    return "with its jobs"

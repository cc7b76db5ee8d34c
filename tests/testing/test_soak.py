"""The soak holds for the engine, repeats itself, and finds whatever is wrong with an engine."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from orbtrio.engine import exchange, intake, queues
from orbtrio.engine._disk import LockedDirectory
from orbtrio.engine.clients import RemoteClient
from orbtrio.engine.dispatch import Pool
from orbtrio.engine.exchange import Exchange
from orbtrio.engine.intake import Intake
from orbtrio.engine.jobs import Job, JobTable
from orbtrio.engine.queues import QueueSettings, WorkerQueue
from orbtrio.engine.sessions import Sessions
from orbtrio.testing import _soak_life, _soak_stage, soak
from orbtrio.testing.soak import Plan, SoakFailure, run_soak

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from orbtrio.engine.config import Config

SMALL = Plan(seed=3, jobs=2000, faults=200, hours=10)

pytestmark = pytest.mark.timeout(120)


def run_program(seed: int, hash_seed: str, log: Path) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "orbtrio.testing.soak",
        "--jobs",
        "500",
        "--faults",
        "100",
        "--hours",
        "2",
    ]
    command += ["--seed", str(seed), "--log", str(log)]
    done = subprocess.run(
        command, env={"PYTHONHASHSEED": hash_seed}, check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_small_soak_holds() -> None:
    report = run_soak(SMALL)
    assert report.jobs >= 2000
    assert report.faults >= 200
    assert report.hours >= 10
    for state in ("redelivery", "late answer", "engine drained", "client lost with files", "files checked"):
        assert report.counts[state]


def test_same_seed_makes_the_same_events_in_every_process(tmp_path: Path) -> None:
    first = run_program(5, "1", tmp_path / "first")
    second = run_program(5, "2", tmp_path / "second")
    other = run_program(6, "1", tmp_path / "other")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert first[0] == "seed 5"
    assert first[-1].startswith("digest ")
    assert first[-1] == second[-1] != other[-1]


# ------------------------------------------------------------------------------------------------- sabotage


def wrong(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, change: Callable[..., Any]) -> None:
    """Replace a method by one that gets the original first."""
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: change(original, *args, **kwargs))


def answer_twice(original: Any, client: RemoteClient, job: Job, output: bytes) -> None:
    original(client, job, output)
    original(client, job, output)


# A job's id ends in its number.
def is_one_in_fifty(job: Job) -> bool:
    return job.job_id.endswith(("00", "50"))


def alter_answers(original: Any, client: RemoteClient, job: Job, output: bytes) -> None:
    original(client, job, output[:-1] + bytes([output[-1] ^ 1]) if is_one_in_fifty(job) else output)


def answer_somebody_else(original: Any, client: RemoteClient, job: Job, output: bytes) -> None:
    seen.append(client)
    original(seen[len(seen) // 2] if is_one_in_fifty(job) else client, job, output)


seen: list[RemoteClient] = []


def forget_jobs_of_lost_workers(original: Any, pool: Pool, jobs: Sequence[Job]) -> None:
    original(pool, jobs[1:])
    pool.jobs_queued += len(jobs[:1])


def leak_files(original: Any, some_intake: Intake, files: Any) -> None:
    original(some_intake, list(files)[1:])


def believe_anybody(original: Any, table: JobTable, job_id: str, owner: Any) -> Job | None:
    job = table._jobs.get(job_id)
    result: Job | None = original(table, job_id, job.owner if job is not None else owner)
    return result


def soak_until_found() -> None:
    # A small soak meets most states, but not each with every seed.
    for seed in range(11, 21):
        run_soak(Plan(seed=seed, jobs=3000, faults=350, hours=4))


def let_jobs_live(original: Any, **settings: Any) -> Config:
    result: Config = original(**settings, job_timeout=400)
    return result


def debounce(original: Any, queue: WorkerQueue) -> float:
    due: float = original.__get__(queue)
    waited_for = queue._jobs[-1].accepted_at + queue.max_latency if queue._jobs else due
    return max(due, waited_for) if 0 < due < float("inf") else due


def ignore_credit(original: Any, **settings: Any) -> QueueSettings:
    result: QueueSettings = original(**settings | {"max_unanswered_batches": None})
    return result


def keep_jobs_of_lost_clients(original: Any, some_exchange: Exchange, requester: object) -> None:
    pass


def tell_everybody(
    original: Any, client: RemoteClient, transport: Any, extensions: frozenset[str], **limits: Any
) -> None:
    original(client, transport, extensions | {"engine_errors"}, **limits)


def say_nothing_of_timeouts(original: Any, client: RemoteClient, *reason: Any) -> None:
    if reason[1] != "timeout":
        original(client, *reason)


async def drop_now_and_then(original: Any, sessions: Sessions, *args: Any) -> None:
    with trio.move_on_after(37):
        await original(sessions, *args)


def log_an_error(original: Any, some_exchange: Exchange, *args: Any, **kwargs: Any) -> None:
    original(some_exchange, *args, **kwargs)
    raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("owner", "name", "change", "finding"),
    [
        (RemoteClient, "deliver", answer_twice, "answered before"),
        (RemoteClient, "deliver", alter_answers, "its answer is not what"),
        (RemoteClient, "deliver", answer_somebody_else, "somebody else's or nobody's|answered before"),
        (RemoteClient, "__init__", tell_everybody, "a stock client is told"),
        (RemoteClient, "refuse", say_nothing_of_timeouts, "the client has heard nothing"),
        (Pool, "requeue", forget_jobs_of_lost_workers, "jobs are open still|timed out although"),
        (Intake, "release", leak_files, "files are left"),
        (Exchange, "abandon_all", keep_jobs_of_lost_clients, "are left|are open still|after its end"),
        (Exchange, "remove_worker", log_an_error, "the engine has logged an error"),
        (JobTable, "answer", believe_anybody, "its answer is not what|no worker has had it"),
        (_soak_stage, "Config", let_jobs_live, "after the deadline|after its end|has heard nothing"),
        (exchange, "QueueSettings", ignore_credit, "more than its credit"),
        (Sessions, "_read_outputs", drop_now_and_then, "had done no wrong|lives and has had it"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_finds_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, change: Callable[..., Any], finding: str
) -> None:
    wrong(monkeypatch, owner, name, change)
    with pytest.raises(SoakFailure, match=finding):
        soak_until_found()


async def stop_on_a_stuck_disk(original: Any, life: _soak_life.Life, **manner: bool) -> None:
    life.stage.disk.stuck = True
    await original(life, **manner)


def test_files_that_a_disk_kept_are_swept_by_the_next_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong(monkeypatch, _soak_life.Life, "_stop_engine", stop_on_a_stuck_disk)
    run_soak(Plan(seed=11, jobs=3000, faults=350, hours=4))
    wrong(monkeypatch, LockedDirectory, "sweep", lambda original, *args: (0, 0))
    with pytest.raises(SoakFailure, match="has not swept"):
        soak_until_found()


def test_finds_a_debounced_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    original = WorkerQueue.due
    monkeypatch.setattr(WorkerQueue, "due", property(lambda queue: debounce(original, queue)))
    with pytest.raises(SoakFailure, match="its workers ask for"):
        soak_until_found()


@pytest.mark.parametrize(
    ("module", "name", "value", "finding"),
    [
        (intake, "_affinity", lambda value: None, "which belongs to"),
        (queues, "_SUSPECT_AFTER", 99, "has neighbours in its batch"),
        (_soak_life, "_PATIENCE", -1.0, "jobs are open still"),
    ],
    ids=["keys are ignored", "suspects are not alone", "the engine is too slow"],
)
def test_finds_wrong_constants(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: Any, finding: str
) -> None:
    monkeypatch.setattr(module, name, value)
    with pytest.raises(SoakFailure, match=finding):
        soak_until_found()


# ------------------------------------------------------------------------------------------------ the program


def test_program_ends_well_and_prints_what_was_reached(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--jobs", "60", "--faults", "20", "--hours", "1", "--seed", "4"]
    assert soak.main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("seed 4\n")
    assert "never reached: ended: queue_full\n" in printed
    monkeypatch.setattr(soak, "_FULL_SIZE", 50)
    assert soak.main(arguments) == 1


def test_program_prints_the_story_of_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong(monkeypatch, RemoteClient, "deliver", answer_twice)
    assert soak.main(["--jobs", "60", "--faults", "20", "--hours", "1"]) == 1
    printed = capsys.readouterr().out
    assert "again: python -m orbtrio.testing.soak --jobs 60 --faults 20 --hours 1 --seed " in printed
    assert "of virtual time: c" in printed
    assert " submits " in printed


def test_other_failures_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("orbtrio.testing._soak_faults.Faults.strike", fail)
    with pytest.raises(ExceptionGroup):
        run_soak(Plan(seed=1, jobs=60, faults=20, hours=1))

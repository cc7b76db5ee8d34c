"""What happens to jobs before they are computed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

from orbtrio.errors import ConfigError
from orbtrio.protocol.messages import BatchJob, JobBatch
from orbtrio.worker.jobs import Batch
from orbtrio.worker.preparing import Preparer

if TYPE_CHECKING:
    from orbtrio.worker.preparing import Prepare


def batch(**inputs: dict[str, Any]) -> Batch:
    return Batch(JobBatch([BatchJob(job_id, job_input) for job_id, job_input in inputs.items()]))


async def prepared(prepare: Prepare, jobs: Batch, *, concurrency: int = 1) -> dict[str, Any]:
    """Each job's input or failure."""
    await Preparer(prepare, concurrency=concurrency).run(jobs)
    return {job_id: job.failure or job.input for job_id, job in jobs.jobs.items()}


async def test_result_takes_the_inputs_place() -> None:
    assert await prepared(lambda job_input: job_input["n"] * 2, batch(a={"n": 1}, b={"n": 2})) == {
        "a": 2,
        "b": 4,
    }


async def test_what_it_raises_concerns_its_job_alone() -> None:
    errors = {"a": ValueError("no picture"), "c": IndexError("list index out of range")}

    def prepare(job_input: dict[str, Any]) -> int:
        if (error := errors.get(job_input["name"])) is not None:
            raise error
        return 1

    jobs = batch(a={"name": "a"}, b={"name": "b"}, c={"name": "c"}, d={"name": "d"})
    assert await prepared(prepare, jobs) == errors | {"b": 1, "d": 1}
    assert jobs.jobs["a"].input == {"name": "a"}


async def test_jobs_that_are_not_to_be_run_are_not_prepared() -> None:
    jobs = batch(a={}, b={}, c={})
    jobs.jobs["a"].cancelled = True
    jobs.jobs["b"].failure = failure = ValueError("no file")
    assert await prepared(lambda job_input: 1, jobs) == {"a": {}, "b": failure, "c": 1}


@pytest.mark.parametrize(("concurrency", "threads"), [(1, 2), (2, 2), (4, 4)])
async def test_runs_in_as_many_threads_as_calls_of_the_handler_and_two_at_least(
    concurrency: int, threads: int
) -> None:
    together = threading.Barrier(threads, timeout=50)
    idents: set[int] = set()

    def prepare(job_input: dict[str, Any]) -> int:
        idents.add(threading.get_ident())
        return together.wait() >= 0

    jobs = batch(**{str(n): {} for n in range(2 * threads)})
    assert set((await prepared(prepare, jobs, concurrency=concurrency)).values()) == {True}
    assert len(idents) == threads
    assert threading.get_ident() not in idents


async def test_no_jobs_no_threads() -> None:
    assert await prepared(lambda job_input: 1, batch()) == {}


async def test_cancelling_waits_for_the_running_calls_and_skips_the_rest() -> None:
    started, release = threading.Event(), threading.Event()
    calls: list[int] = []

    def prepare(job_input: dict[str, Any]) -> None:
        calls.append(job_input["n"])
        if len(calls) == 2:
            started.set()
        release.wait(50)

    async with trio.open_nursery() as nursery:
        jobs = batch(**{str(n): {"n": n} for n in range(10)})
        nursery.start_soon(Preparer(prepare, concurrency=1).run, jobs)
        await trio.to_thread.run_sync(started.wait)
        nursery.cancel_scope.cancel()
        release.set()
    assert sorted(calls) == [0, 1]


async def test_what_is_no_exception_ends_the_worker() -> None:
    """F-37."""

    def prepare(job_input: dict[str, Any]) -> None:
        raise SystemExit(3)

    with pytest.raises((SystemExit, BaseExceptionGroup)):
        await prepared(prepare, batch(a={}, b={}))


def test_async_function_is_refused_with_a_remedy() -> None:
    async def prepare(job_input: dict[str, Any]) -> None: ...

    with pytest.raises(ConfigError, match="make it a plain one"):
        Preparer(prepare, concurrency=1)

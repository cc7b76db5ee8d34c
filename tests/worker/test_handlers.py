"""One answer per job, whatever the handler does."""

from __future__ import annotations

import functools
import logging
import threading
from array import array
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
import trio
import trio.testing

from orbtrio.errors import ConfigError
from orbtrio.worker import handlers
from orbtrio.worker.handlers import HandlerRunner
from orbtrio.worker.jobs import Job, JobCancelled
from orbtrio.worker.outbox import MAX_ENTRY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trio.testing import MockClock

    from orbtrio.worker.outbox import Entry


class Answers:
    """What a runner answers: fields by id, and which ids came together."""

    def __init__(self) -> None:
        self.fields: dict[str, dict[str, Any]] = {}
        self.rounds: list[list[str]] = []

    async def __call__(self, entries: list[Entry]) -> None:
        self.rounds.append([job_id for job_id, _ in entries])
        for job_id, entry in entries:
            fields = cbor2.loads(entry)
            assert job_id not in self.fields
            assert fields.pop("id") == job_id
            self.fields[job_id] = fields
        await trio.lowlevel.checkpoint()


def jobs(**inputs: dict[str, Any]) -> list[Job]:
    return [Job(job_input, job_id=job_id) for job_id, job_input in inputs.items()]


async def answers_of(
    handler: Callable[[Any], Any],
    batch: Sequence[Job],
    *,
    batched: bool = False,
    with_jobs: bool = False,
    concurrency: int = 1,
    max_batch_size: int = 32,
) -> Answers:
    runner = HandlerRunner(
        handler,
        batched=batched,
        with_jobs=with_jobs,
        concurrency=concurrency,
        max_batch_size=max_batch_size,
    )
    answers = Answers()
    await runner.run(batch, answers)
    return answers


def double(job_input: dict[str, Any]) -> dict[str, Any]:
    return {"n": 2 * job_input["n"]}


async def double_async(job_input: dict[str, Any]) -> dict[str, Any]:
    await trio.lowlevel.checkpoint()
    return double(job_input)


def double_all(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [double(job_input) for job_input in inputs]


async def double_all_async(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    await trio.lowlevel.checkpoint()
    return double_all(inputs)


class Doubler:
    async def __call__(self, job_input: dict[str, Any]) -> dict[str, Any]:
        return await double_async(job_input)


FOUR_KINDS: list[tuple[Callable[[Any], Any], bool]] = [
    (double, False),
    (double_async, False),
    (double_all, True),
    (double_all_async, True),
]


# --- Calling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "batched"), [*FOUR_KINDS, (Doubler(), False), (functools.partial(double_async), False)]
)
async def test_every_kind_of_handler_answers_its_batch(handler: Callable[[Any], Any], batched: bool) -> None:
    answers = await answers_of(handler, jobs(a={"n": 1}, b={"n": 2}), batched=batched)
    assert answers.fields == {"a": {"n": 2}, "b": {"n": 4}}
    assert answers.rounds == [["a", "b"]]


@pytest.mark.parametrize(("handler", "batched"), FOUR_KINDS)
async def test_bad_job_does_not_spoil_the_batch(handler: Callable[[Any], Any], batched: bool) -> None:
    """WRK-04."""
    answers = await answers_of(handler, jobs(a={"n": 1}, bad={}, b={"n": 2}), batched=batched)
    assert answers.fields == {"a": {"n": 2}, "bad": {"error": "KeyError: 'n'"}, "b": {"n": 4}}


async def test_sync_handler_runs_in_one_other_thread_at_a_time() -> None:
    threads: set[int] = set()

    def handler(job_input: dict[str, Any]) -> dict[str, Any]:
        threads.add(threading.get_ident())
        return {}

    await answers_of(handler, jobs(a={}, b={}, c={}))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_concurrent_sync_calls_run_in_as_many_threads() -> None:
    together = threading.Barrier(3, timeout=50)

    def handler(job_input: dict[str, Any]) -> dict[str, Any]:
        together.wait()
        return {}

    answers = await answers_of(handler, jobs(a={}, b={}, c={}), concurrency=3)
    assert answers.fields == {"a": {}, "b": {}, "c": {}}


async def test_concurrent_async_calls_overlap(autojump_clock: MockClock) -> None:
    async def handler(job_input: dict[str, Any]) -> dict[str, Any]:
        await trio.sleep(job_input["delay"])
        return {}

    began = trio.current_time()
    answers = await answers_of(
        handler, jobs(a={"delay": 3}, b={"delay": 1}, c={"delay": 1}, d={"delay": 1}), concurrency=2
    )
    assert trio.current_time() - began == 3
    assert answers.rounds == [["b"], ["c"], ["a"], ["d"]] or answers.rounds == [["b"], ["c"], ["d"], ["a"]]


def test_no_concurrency_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="set it to 1 or more"):
        HandlerRunner(double, batched=False, concurrency=0, max_batch_size=1)


async def test_more_lanes_than_jobs_are_not_opened() -> None:
    assert (await answers_of(double_async, jobs(a={"n": 1}), concurrency=8)).rounds == [["a"]]


async def test_quick_jobs_are_answered_together_and_slow_ones_at_once(autojump_clock: MockClock) -> None:
    async def handler(job_input: dict[str, Any]) -> dict[str, Any]:
        await trio.sleep(job_input["delay"])
        return {}

    quick, slow = {"delay": 0.01}, {"delay": 5}
    answers = await answers_of(handler, jobs(a=quick, b=quick, c=slow, d=quick, e=slow, f=slow))
    assert answers.rounds == [["a", "b", "c"], ["d", "e"], ["f"]]


@pytest.mark.parametrize("size", [1, 2, 3, 32])
async def test_batched_handler_gets_at_most_max_batch_size(size: int) -> None:
    """WRK-16: an engine may send more than it was told."""
    sizes: list[int] = []

    async def handler(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        sizes.append(len(inputs))
        return await double_all_async(inputs)

    batch = [Job({"n": n}, job_id=str(n)) for n in range(7)]
    answers = await answers_of(handler, batch, batched=True, max_batch_size=size)
    assert answers.fields == {str(n): {"n": 2 * n} for n in range(7)}
    assert max(sizes) == min(size, 7)


@pytest.mark.parametrize("round_", [handlers._one_by_one, functools.partial(handlers._together, 8)])
def test_lane_that_finds_nothing_left_calls_nobody(round_: Callable[..., Iterator[Any]]) -> None:
    """Another thread may take the last job between a lane's look and its grip."""
    assert list(round_(deque(), lambda: 0.0)) == []


async def test_late_lane_answers_nothing() -> None:
    """As above, in threads: two lanes, both see the one job that is left."""
    for _ in range(20):
        answers = await answers_of(lambda job_input: {}, jobs(a={}, b={}), concurrency=2)
        assert sorted(job_id for round_ in answers.rounds for job_id in round_) == ["a", "b"]


async def test_no_jobs_no_calls() -> None:
    for concurrency in (1, 2):
        assert (await answers_of(double_async, [], concurrency=concurrency)).rounds == []


async def test_cancelling_skips_the_jobs_behind_the_running_one() -> None:
    started, release = trio.Event(), threading.Event()
    calls: list[int] = []

    def handler(job_input: dict[str, Any]) -> dict[str, Any]:
        calls.append(job_input["n"])
        trio.from_thread.run_sync(started.set)
        release.wait(50)
        return {}

    answers = Answers()
    runner = HandlerRunner(handler, batched=False, concurrency=1, max_batch_size=32)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run, jobs(a={"n": 1}, b={"n": 2}), answers)
        await started.wait()
        nursery.cancel_scope.cancel()
        release.set()
    assert calls == [1]
    assert answers.fields == {}


async def test_cancelling_ends_an_async_handler_at_once(autojump_clock: MockClock) -> None:
    async def handler(job_input: dict[str, Any]) -> dict[str, Any]:
        await trio.sleep_forever()
        raise AssertionError

    with trio.move_on_after(1):
        await answers_of(handler, jobs(a={}))
    assert trio.current_time() < 2


async def test_async_handler_without_an_await_lets_others_run() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async def handler(job_input: dict[str, Any]) -> dict[str, Any]:
        return {"turns": turns}

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        answers = await answers_of(handler, jobs(a={}, b={}, c={}, d={}))
        nursery.cancel_scope.cancel()
    assert answers.fields["d"]["turns"] > answers.fields["a"]["turns"]


# --- What goes wrong in the handler -----------------------------------------------------------------------


def raising(error: BaseException) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def handler(job_input: dict[str, Any]) -> dict[str, Any]:
        raise error

    return handler


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("the image is too large"), "the image is too large"),
        (ValueError(), "ValueError"),
        (UnicodeError("odd"), "UnicodeError: odd"),
        (KeyError("text"), "KeyError: 'text'"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError("one\n  two\r\nthree\t"), "RuntimeError: one two three"),
        (OSError(2, "No such file or directory"), "FileNotFoundError: [Errno 2] No such file or directory"),
        (RuntimeError("not UTF-8: \udcff"), "RuntimeError: not UTF-8: ?"),
        (Unspeakable(), "Unspeakable: its text cannot be shown"),
        (StopIteration("done"), "StopIteration: done"),
        (trio.TooSlowError(), "TooSlowError"),
        (ExceptionGroup("two", [ValueError("a"), ValueError("b")]), "ExceptionGroup: two (2 sub-exceptions)"),
    ],
)
@pytest.mark.parametrize("batched", [False, True])
async def test_exception_becomes_a_short_line(error: Exception, text: str, batched: bool) -> None:
    """WRK-05."""
    assert (await answers_of(raising(error), jobs(a={}), batched=batched)).fields == {"a": {"error": text}}


async def test_long_error_text_is_cut() -> None:
    (fields,) = (await answers_of(raising(ValueError("x" * 10_000)), jobs(a={}))).fields.values()
    assert fields["error"] == "x" * 499 + "…"


async def test_unforeseen_errors_are_logged_with_job_and_traceback(caplog: pytest.LogCaptureFixture) -> None:
    await answers_of(raising(KeyError("text")), jobs(a={"text": "payload"}))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "'a'" in record.getMessage()
    assert record.exc_info is not None
    assert "payload" not in caplog.text


async def test_errors_of_the_input_are_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await answers_of(raising(ValueError("no such\nfile")), [Job({}, job_id="a\nb")])
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage() == r"job 'a\nb': no such file"
    assert record.exc_info is None


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_what_is_no_exception_ends_the_worker(concurrency: int) -> None:
    """F-37."""
    with pytest.raises((SystemExit, BaseExceptionGroup)):
        await answers_of(raising(SystemExit(3)), jobs(a={}, b={}), concurrency=concurrency)


async def test_failed_batch_runs_job_by_job() -> None:
    calls: list[int] = []

    def handler(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        calls.append(len(inputs))
        return double_all(inputs)

    answers = await answers_of(handler, jobs(a={"n": 1}, bad={}, b={"n": 2}), batched=True)
    assert calls == [3, 1, 1, 1]
    assert answers.rounds == [["a", "bad", "b"]]


async def test_batch_of_one_is_not_tried_twice() -> None:
    calls: list[int] = []

    def handler(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        calls.append(len(inputs))
        raise RuntimeError("always")

    answers = await answers_of(handler, jobs(a={}), batched=True)
    assert calls == [1]
    assert answers.fields == {"a": {"error": "RuntimeError: always"}}


async def test_exception_in_place_of_a_result_is_that_jobs_error() -> None:
    calls: list[int] = []

    def handler(inputs: list[dict[str, Any]]) -> list[dict[str, Any] | Exception]:
        calls.append(len(inputs))
        return [{"ok": True}, ValueError("too long"), KeyError("text")]

    answers = await answers_of(handler, jobs(a={}, b={}, c={}), batched=True)
    assert calls == [3]
    assert answers.fields == {
        "a": {"ok": True},
        "b": {"error": "too long"},
        "c": {"error": "KeyError: 'text'"},
    }


# --- What goes wrong with the results ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "text"),
    [
        ([], "the handler returned 0 results for 2 jobs"),
        ([{}, {}, {}], "the handler returned 3 results for 2 jobs"),
        (None, "the handler returned NoneType, not a list of results"),
        ({"a": 1, "b": 2}, "the handler returned dict, not a list of results"),
        ("ab", "the handler returned str, not a list of results"),
        (iter([{}, {}]), "the handler returned list_iterator, not a list of results"),
    ],
)
async def test_wrong_number_of_results_is_an_error_of_each_job(results: Any, text: str) -> None:
    answers = await answers_of(lambda inputs: results, jobs(a={}, b={}), batched=True)
    assert answers.fields == {"a": {"error": text}, "b": {"error": text}}


async def test_tuple_of_results_is_as_good_as_a_list() -> None:
    answers = await answers_of(lambda inputs: ({"n": 1}, {"n": 2}), jobs(a={}, b={}), batched=True)
    assert answers.fields == {"a": {"n": 1}, "b": {"n": 2}}


class Treacherous(Mapping[str, Any]):
    def __getitem__(self, name: str) -> Any:
        raise RuntimeError("changed my mind")

    def __iter__(self) -> Iterator[str]:
        return iter(["field"])

    def __len__(self) -> int:
        return 1


def cyclic() -> dict[str, Any]:
    result: dict[str, Any] = {}
    result["self"] = result
    return result


def deep() -> dict[str, Any]:
    result: dict[str, Any] = {}
    for _ in range(100):
        result = {"deeper": result}
    return result


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (None, "the handler returned NoneType, not a dict"),
        ([1, 2], "the handler returned list, not a dict"),
        ("text", "the handler returned str, not a dict"),
        ({"model": object()}, "the result cannot be encoded"),
        ({"text": "\udcff"}, "the result cannot be encoded"),
        ({1: "one"}, "the result"),
        (cyclic(), "the result cannot be encoded"),
        (deep(), "the result"),
        (Treacherous(), "the result cannot be encoded: RuntimeError: changed my mind"),
    ],
)
async def test_unusable_result_is_that_jobs_error(result: Any, text: str) -> None:
    answers = await answers_of(lambda inputs: [{"n": 1}, result], jobs(a={}, b={}), batched=True)
    assert answers.fields["a"] == {"n": 1}
    assert answers.fields["b"].keys() == {"error"}
    assert answers.fields["b"]["error"].startswith(text)
    assert "\n" not in answers.fields["b"]["error"]


async def test_result_too_large_for_a_message_is_that_jobs_error() -> None:
    fits = b"x" * (MAX_ENTRY_BYTES - 100)
    answers = await answers_of(
        lambda job_input: {"data": fits * job_input["times"]}, jobs(a={"times": 1}, b={"times": 2})
    )
    assert answers.fields["a"] == {"data": fits}
    assert answers.fields["b"].keys() == {"error"}
    assert "more than" in answers.fields["b"]["error"]


async def test_result_cannot_take_the_place_of_the_id() -> None:
    answers = await answers_of(lambda job_input: {"id": "b", "n": 1}, jobs(a={}))
    assert answers.fields == {"a": {"n": 1}}


async def test_handler_may_return_an_error_field() -> None:
    answers = await answers_of(lambda job_input: {"error": "no", "cross_job_id": "s"}, jobs(a={}))
    assert answers.fields == {"a": {"error": "no", "cross_job_id": "s"}}


# --- Jobs that are not to be run, or not to the end -------------------------------------------------------


@pytest.mark.parametrize(("handler", "batched"), FOUR_KINDS)
async def test_job_that_is_not_to_be_run_is_answered_all_the_same(
    handler: Callable[[Any], Any], batched: bool
) -> None:
    batch = jobs(a={}, b={"n": 2}, c={}, d={})
    batch[0].cancelled = batch[3].cancelled = True
    batch[2].failure = ValueError("not a picture")
    answers = await answers_of(handler, batch, batched=batched)
    assert answers.fields == {
        "a": {"error": "cancelled"},
        "b": {"n": 4},
        "c": {"error": "not a picture"},
        "d": {"error": "cancelled"},
    }
    assert len(answers.rounds) == 1


@pytest.mark.parametrize("batched", [False, True])
async def test_batch_of_which_nothing_is_to_be_run_calls_nobody(batched: bool) -> None:
    batch = jobs(a={}, b={})
    for job in batch:
        job.cancelled = True
    answers = await answers_of(raising(SystemExit(3)), batch, batched=batched)
    assert answers.fields == {"a": {"error": "cancelled"}, "b": {"error": "cancelled"}}


async def test_handler_may_ask_for_jobs() -> None:
    def one(job: Job) -> dict[str, Any]:
        return {"n": job.input["n"], "extra": dict(job.extra)}

    def many(batch: list[Job]) -> list[dict[str, Any]]:
        return [one(job) for job in batch]

    expected = {"a": {"n": 1, "extra": {"priority": 7}}, "b": {"n": 2, "extra": {}}}
    for handler, batched in ((one, False), (many, True)):
        batch = [Job({"n": 1}, {"priority": 7}, "a"), Job({"n": 2}, None, "b")]
        assert (await answers_of(handler, batch, batched=batched, with_jobs=True)).fields == expected


async def test_handler_may_do_with_its_list_what_it_likes() -> None:
    def handler(batch: list[Job]) -> list[dict[str, Any]]:
        results = [{"n": job.input["n"]} for job in batch]
        batch.sort(key=lambda job: -job.input["n"])
        return results

    answers = await answers_of(handler, jobs(a={"n": 1}, b={"n": 2}), batched=True, with_jobs=True)
    assert answers.fields == {"a": {"n": 1}, "b": {"n": 2}}


@pytest.mark.parametrize("batched", [False, True])
async def test_cancelled_is_no_failure_to_be_logged(batched: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    answers = await answers_of(raising(JobCancelled("enough")), jobs(a={}), batched=batched)
    assert answers.fields == {"a": {"error": "cancelled"}}
    assert caplog.records == []


async def test_exception_in_a_results_place_may_say_cancelled() -> None:
    answers = await answers_of(lambda inputs: [{}, JobCancelled()], jobs(a={}, b={}), batched=True)
    assert answers.fields == {"a": {}, "b": {"error": "cancelled"}}


async def test_batch_stopped_for_one_cancelled_job_goes_on_together_without_it() -> None:
    calls: list[str] = []

    def handler(batch: list[Job]) -> list[dict[str, Any]]:
        calls.append("".join(job.job_id for job in batch))
        if len(batch) == 4:
            batch[1].cancelled = True
        for job in batch:
            job.check_cancelled()
        return [{} for _ in batch]

    answers = await answers_of(handler, jobs(a={}, b={}, c={}, d={}), batched=True, with_jobs=True)
    assert calls == ["abcd", "acd"]
    assert answers.fields == {"a": {}, "b": {"error": "cancelled"}, "c": {}, "d": {}}


async def test_batch_stopped_for_no_reason_runs_job_by_job() -> None:
    calls: list[int] = []

    def handler(batch: list[Job]) -> list[dict[str, Any]]:
        calls.append(len(batch))
        raise JobCancelled

    answers = await answers_of(handler, jobs(a={}, b={}), batched=True, with_jobs=True)
    assert calls == [2, 1, 1]
    assert answers.fields == {"a": {"error": "cancelled"}, "b": {"error": "cancelled"}}


async def test_second_run_does_not_repeat_what_was_reported() -> None:
    reports: list[tuple[str, Any]] = []

    def handler(batch: list[Job]) -> list[dict[str, Any]]:
        for job in batch:
            if job.job_id != "b" or len(batch) == 1:
                job.report(text="Once upon a time")
        if len(batch) > 1:
            raise RuntimeError("out of memory")
        return [{}]

    batch = [
        Job({}, None, job_id, lambda job_id, fields: reports.append((job_id, fields))) for job_id in "ab"
    ]
    assert (await answers_of(handler, batch, batched=True, with_jobs=True)).fields == {"a": {}, "b": {}}
    assert reports == [("a", {"text": "Once upon a time"}), ("b", {"text": "Once upon a time"})]


class Running:
    """A runner at work on jobs, and what it answers."""

    def __init__(self, handler: Callable[[Any], Any], batch: list[Job], *, batched: bool = False) -> None:
        self.jobs = {job.job_id: job for job in batch}
        self.answers = Answers()
        self._runner = HandlerRunner(
            handler, batched=batched, with_jobs=True, concurrency=1, max_batch_size=32
        )

    async def run(self) -> dict[str, dict[str, Any]]:
        await self._runner.run(self.jobs.values(), self.answers)
        return self.answers.fields

    async def cancel_soon(self, *job_ids: str) -> None:
        await trio.testing.wait_all_tasks_blocked()
        for job_id in job_ids:
            self.jobs[job_id].cancelled = True
        self._runner.cancel_unwanted()


async def test_async_call_of_a_cancelled_job_is_cancelled_and_the_next_is_not(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def handler(job: Job) -> dict[str, Any]:
        await trio.sleep(job.input["delay"])
        return {}

    running = Running(handler, jobs(a={"delay": 1}, b={"delay": 1000}, c={"delay": 1}, d={"delay": 1000}))
    nursery.start_soon(running.run)
    nursery.start_soon(running.cancel_soon, "b", "c")
    await trio.sleep(500)
    assert running.answers.fields == {"a": {}}  # It was running when the others were cancelled.
    await trio.sleep(1)
    nursery.start_soon(running.cancel_soon, "d")
    await trio.sleep(1000)
    assert running.answers.fields == {
        "a": {},
        "b": {"error": "cancelled"},
        "c": {"error": "cancelled"},
        "d": {"error": "cancelled"},
    }


async def test_async_call_ends_when_nobody_wants_any_of_its_jobs(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def handler(batch: list[Job]) -> list[dict[str, Any]]:
        await trio.sleep(100)
        return [{"cancelled": job.cancelled} for job in batch]

    running = Running(handler, jobs(a={}, b={}), batched=True)
    nursery.start_soon(running.cancel_soon, "a")
    assert await running.run() == {"a": {"cancelled": True}, "b": {"cancelled": False}}
    assert trio.current_time() == 100

    running = Running(handler, jobs(a={}, b={}), batched=True)
    nursery.start_soon(running.cancel_soon, "a", "b")
    assert await running.run() == {"a": {"error": "cancelled"}, "b": {"error": "cancelled"}}
    assert trio.current_time() == 100


async def test_async_handler_that_notices_nothing_ends_as_ever(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def handler(job: Job) -> dict[str, Any]:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        return {"cancelled": job.cancelled}

    running = Running(handler, jobs(a={}, b={}))
    nursery.start_soon(running.cancel_soon, "a")
    assert await running.run() == {"a": {"cancelled": True}, "b": {"cancelled": False}}


async def test_async_handler_may_fail_while_it_is_cancelled(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def handler(job: Job) -> dict[str, Any]:
        try:
            await trio.sleep(1)
        except trio.Cancelled:
            raise ValueError("interrupted") from None
        return {}

    running = Running(handler, jobs(a={}, b={}))
    nursery.start_soon(running.cancel_soon, "a")
    assert await running.run() == {"a": {"error": "interrupted"}, "b": {}}


@pytest.mark.parametrize("looks", [False, True])
async def test_sync_handler_stops_if_it_looks(looks: bool, nursery: trio.Nursery) -> None:
    begun, release = trio.Event(), threading.Event()

    def handler(job: Job) -> dict[str, Any]:
        if job.job_id == "a":
            trio.from_thread.run_sync(begun.set)
            release.wait(50)
        if looks:
            job.check_cancelled()
        return {"cancelled": job.cancelled}

    async def cancel_and_release() -> None:
        await begun.wait()  # On a busy machine a thread takes its time; what has not begun never will.
        await running.cancel_soon("a")
        release.set()

    running = Running(handler, jobs(a={}, b={}))
    nursery.start_soon(cancel_and_release)
    first = {"error": "cancelled"} if looks else {"cancelled": True}
    assert await running.run() == {"a": first, "b": {"cancelled": False}}


# --- Arrays -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("typed_arrays", "encoded"), [(False, [0.5, 1.0]), (True, b"\0\0\0?\0\0\x80?")])
@pytest.mark.parametrize("batched", [False, True])
async def test_vectors_are_answered_as_the_engine_takes_them(
    batched: bool, typed_arrays: bool, encoded: object
) -> None:
    """P-61."""
    result = {"embedding": array("f", [0.5, 1.0]), "n": 1}
    job = Job({}, job_id="a", typed_arrays=typed_arrays)
    handler = (lambda given: [result]) if batched else (lambda given: result)
    answers = await answers_of(handler, [job], batched=batched)
    embedding = answers.fields["a"].pop("embedding")
    assert getattr(embedding, "value", embedding) == encoded
    assert answers.fields["a"] == {"n": 1}


async def test_arrays_of_other_numbers_are_their_jobs_error() -> None:
    answers = await answers_of(lambda given: {"ids": array("l", [1])}, jobs(a={}))
    assert answers.fields["a"]["error"].startswith("the result cannot be encoded: array of format 'l'")

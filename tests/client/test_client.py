"""Submitting single jobs: what is sent, what comes back, and what becomes of those who stop waiting."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from orbtrio.client import ClientLimits, Job, connect
from orbtrio.errors import (
    ConfigError,
    ConnectionLost,
    InvalidMessage,
    JobFailed,
    JobRefused,
    JobTimedOut,
    ResourceRejected,
)
from orbtrio.inputs import Document, Image
from orbtrio.protocol.messages import EXTENSIONS
from orbtrio.protocol.references import collect
from tests.client.scripted import URL, ScriptedEngine, Submission, engine_and_client

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from trio.testing import MockClock

    from orbtrio.client import Client
    from tests.client.scripted import ScriptedLink


# --- Arrays ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrays", [False, True])
async def test_vectors_are_lists_or_arrays_as_the_program_likes(arrays: bool) -> None:
    """P-61. An engine that knows of typed arrays sends them to who asked; a stock one sends lists."""
    vector = [0.5 * number for number in range(20)]
    async with engine_and_client(arrays=arrays) as (_, link, client), trio.open_nursery() as nursery:
        submission = Submission(nursery, client, {})
        [job] = await link.jobs(1)
        assert link.registration is not None
        assert ("typed_arrays" in link.registration.extensions) is arrays
        link.answer(job, embedding=vector, rows=[vector], shape=[20])
        await submission.done.wait()
        expected: Any = array("d", vector) if arrays else vector
        assert submission.output == {"embedding": expected, "rows": [expected], "shape": [20]}


# --- The way there and back --------------------------------------------------------------------------------


async def test_a_job_goes_out_whole_and_its_output_comes_back_without_the_engines_id() -> None:
    async with engine_and_client(token="s3cret") as (_, link, client), trio.open_nursery() as nursery:
        submission = Submission(nursery, client, {"text": "hello", "raw": b"\0"}, extra={"priority": 1})
        [job] = await link.jobs(1)
        assert (job.worker_type, job.input, job.extra) == (
            "t",
            {"text": "hello", "raw": b"\0"},
            {"priority": 1},
        )
        link.answer(job, embedding=[0.5, 1.0], shape=[2])
        await submission.done.wait()
        assert submission.output == {"embedding": [0.5, 1.0], "shape": [2]}
        assert link.registration is not None
        assert link.registration.version == "1.0.1"
        assert link.registration.token == "s3cret"
        assert link.registration.extensions == {"engine_errors", "progress", "cancel", "batched_responses"}


async def test_jobs_of_one_turn_share_a_request_and_answers_find_their_way_in_any_order() -> None:
    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        submissions = [Submission(nursery, client, {"n": n}) for n in range(50)]
        jobs = (await link.request()).jobs
        assert len(jobs) == 50
        assert len({job.client_job_id for job in jobs}) == 50
        for job in reversed(jobs):
            link.answer(job)
        for n, submission in enumerate(submissions):
            await submission.done.wait()
            assert submission.output == {"echo": {"n": n}}


async def test_a_lone_job_waits_for_nothing(autojump_clock: MockClock) -> None:
    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        nursery.start_soon(link.echo)
        started = trio.current_time()
        assert await client.submit("t", {"n": 1}) == {"echo": {"n": 1}}
        assert trio.current_time() == started
        nursery.cancel_scope.cancel()


async def test_images_and_documents_travel_as_resources_shared_by_the_request() -> None:
    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        for job_input in ({"filepath": Image(b"pixels")}, {"deep": [Image(b"pixels"), Document("text")]}):
            Submission(nursery, client, job_input)
        request = await link.request()
        assert sorted((resource.kind, resource.data) for resource in request.resources) == [
            ("document", b"text"),
            ("image", b"pixels"),
        ]
        assert sorted(len(collect(job.input)) for job in request.jobs) == [1, 2]
        for job in request.jobs:
            link.answer(job)


async def test_what_cannot_be_sent_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    limits = ClientLimits(max_job_bytes=100_000)
    async with engine_and_client(limits=limits) as (_, link, client):
        with pytest.raises(InvalidMessage, match="cannot be encoded"):
            await client.submit("t", {"x": object()})
        with pytest.raises(ResourceRejected, match="scale it down"):
            await client.submit("t", {"filepath": Image(bytes(3 << 20))})
        with pytest.raises(ResourceRejected, match="put an Image or a Document in its place"):
            await client.submit("t", {"x": Image(b"known"), "y": {"__type": "resource-ref", "id": "unknown"}})
        with pytest.raises(FileNotFoundError):
            await client.submit("t", {"filepath": Image(tmp_path / "none.png")})
        with pytest.raises(InvalidMessage, match=r"with its resources .* max_job_bytes \(100000\)"):
            await client.submit("t", {"filepath": Image(bytes(100_000))})
        for timeout in (0, -1, math.nan):
            with pytest.raises(ValueError, match="positive number of seconds"):
                await client.submit("t", {}, timeout=timeout)
        await wait_all_tasks_blocked()
        assert link.unread() == 0
        assert client.statistics().in_flight == 0


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"error": "no such file"}, JobFailed),
        ({"error": "late", "error_kind": "timeout"}, JobTimedOut),
        ({"error": "no room", "error_kind": "queue_full"}, JobRefused),
    ],
)
async def test_errors_are_raised_bare(output: dict[str, Any], expected: type[Exception]) -> None:
    async def submit(client: Client) -> None:
        with pytest.raises(expected):
            await client.submit("t", {})

    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        nursery.start_soon(submit, client)
        [job] = await link.jobs(1)
        link.answer(job, **output)


async def test_counters_tell_what_happened() -> None:
    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        Submission(nursery, client, {"n": 0})
        waiting = Submission(nursery, client, {"n": 1})
        # Trio does not say which of two tasks runs first.
        jobs = sorted(await link.jobs(2), key=lambda job: job.input["n"])
        link.answer(jobs[0])
        link.answer(jobs[0])
        await wait_all_tasks_blocked()
        statistics = client.statistics()
        assert (statistics.in_flight, statistics.sent, statistics.answered) == (1, 2, 1)
        assert (statistics.dropped, statistics.reconnects) == (1, 0)
        assert repr(client) == f"<Client of {URL} open, 1 jobs in flight>"
        waiting.scope.cancel()


async def test_a_text_about_references_is_no_reference() -> None:
    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        nursery.start_soon(link.echo)
        job_input = {"text": "resource-ref", "like": {"__type": "resource-ref", "id": "x", "more": 1}}
        assert await client.submit("t", job_input) == {"echo": job_input}
        nursery.cancel_scope.cancel()


# --- Time --------------------------------------------------------------------------------------------------


async def test_each_job_has_its_own_deadline(autojump_clock: MockClock) -> None:
    """P-21, on our side: even an engine that never answers makes nobody wait for ever."""
    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        started = trio.current_time()
        ended = {}

        async def submit(seconds: float | None) -> None:
            with pytest.raises(JobTimedOut, match="no answer within"):
                await client.submit("t", {}, timeout=seconds)
            ended[seconds] = trio.current_time() - started

        for seconds in (None, 20.0, 7.5, 20.0):
            nursery.start_soon(submit, seconds)
        await trio.sleep(1)
        nursery.start_soon(submit, 2.0)
        await link.jobs(5)
    assert ended == pytest.approx({2.0: 3.0, 7.5: 7.5, 20.0: 20.0, None: 310.0})


async def test_an_answer_after_the_deadline_is_dropped(autojump_clock: MockClock) -> None:
    """F-43."""
    async with engine_and_client() as (_, link, client):
        with pytest.raises(JobTimedOut):
            await client.submit("t", {}, timeout=5)
        [job] = await link.jobs(1)
        link.answer(job)
        await wait_all_tasks_blocked()
        assert client.statistics().dropped == 1


# --- Leaving -----------------------------------------------------------------------------------------------


async def test_cancelling_forgets_the_job_and_its_late_answer() -> None:
    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        cancelled, kept = Submission(nursery, client, {"n": 1}), Submission(nursery, client, {"n": 2})
        jobs = await link.jobs(2)
        cancelled.scope.cancel()
        await wait_all_tasks_blocked()
        assert client.statistics().in_flight == 1
        for job in jobs:
            link.answer(job)
        await kept.done.wait()
        await wait_all_tasks_blocked()
        assert not cancelled.done.is_set()
        assert client.statistics().dropped == 1


async def test_a_job_cancelled_before_it_was_sent_is_not_sent() -> None:
    async with engine_and_client() as (engine, link, client), trio.open_nursery() as nursery:
        engine.down = True
        link.drop()
        await wait_all_tasks_blocked()
        cancelled = Submission(nursery, client, {"n": 1})
        await wait_all_tasks_blocked()
        cancelled.scope.cancel()
        engine.down = False
        kept = Submission(nursery, client, {"n": 2})
        link = await engine.link()
        [job] = await link.jobs(1)
        assert job.input == {"n": 2}
        link.answer(job)
        await kept.done.wait()


async def test_what_is_cancelled_in_one_turn_is_one_message_to_the_engine(autojump_clock: MockClock) -> None:
    async with engine_and_client(announce=EXTENSIONS) as (_, link, client), trio.open_nursery() as nursery:
        submissions = [Submission(nursery, client, {"n": n}, timeout=60) for n in range(1000)]
        jobs = {job.input["n"]: job for job in await link.jobs(1000)}
        for submission in submissions[100:]:
            submission.scope.cancel()
        await wait_all_tasks_blocked()
        [ids] = link.cancels
        assert sorted(ids) == sorted(jobs[n].client_job_id for n in range(100, 1000))
        for n in range(50):
            link.answer(jobs[n])
        await trio.sleep(61)
        # The engine knows of the deadline, and is told all the same: its clock may be late.
        assert {job.extra["timeout_ms"] for job in jobs.values() if job.extra} == {60_000}
        assert [len(ids) for ids in link.cancels] == [900, 50]
        assert client.statistics().cancelled == 950
        for n in range(100, 1000):
            link.respond(jobs[n].client_job_id, {"error": "cancelled", "error_kind": "cancelled"})
        await wait_all_tasks_blocked()
        assert client.statistics().dropped == 0


async def test_a_stock_engine_is_not_told_of_a_deadline_or_of_who_has_left(autojump_clock: MockClock) -> None:
    async with engine_and_client() as (_, link, client):
        with pytest.raises(JobTimedOut):
            await client.submit("t", {"n": 1}, timeout=5)
        with trio.move_on_after(1):
            await client.submit("t", {"n": 2}, timeout=5)
        assert [job.extra for job in await link.jobs(2)] == [None, None]
        assert len(link.raw) == 3
        assert link.cancels == []


async def test_without_a_timeout_the_engines_own_counts() -> None:
    async with engine_and_client(announce=EXTENSIONS) as (_, link, client), trio.open_nursery() as nursery:
        Submission(nursery, client, {"n": 1}, extra={"priority": 1})
        [job] = await link.jobs(1)
        assert job.extra == {"priority": 1}
        link.answer(job)


async def test_leaving_the_block_fails_who_still_waits_and_closes_normally() -> None:
    async with trio.open_nursery() as nursery:
        async with engine_and_client() as (_, link, client):
            submission = Submission(nursery, client, {})
            await link.jobs(1)
        await submission.done.wait()
        assert isinstance(submission.error, ConnectionLost)
        assert "block has been left" in str(submission.error)
        assert link.close_code == 1000
        with pytest.raises(ConnectionLost, match="block has been left"):
            await client.submit("t", {})
        assert "closed" in repr(client)


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    async with trio.open_nursery() as nursery:
        engine = ScriptedEngine(nursery)
        with pytest.raises(KeyError, match="mine"):
            async with connect(URL, open_stream=engine.open_stream):
                raise KeyError("mine")
        nursery.cancel_scope.cancel()


async def test_cancelling_the_block_ends_it(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        engine = ScriptedEngine(nursery)
        with trio.move_on_after(1) as patience:
            async with connect(URL, open_stream=engine.open_stream) as client:
                await client.submit("t", {})
        assert patience.cancelled_caught
        nursery.cancel_scope.cancel()


# --- The first connection ----------------------------------------------------------------------------------


async def test_the_first_connection_may_take_several_attempts(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        engine = ScriptedEngine(nursery)
        engine.down = True

        async def start() -> None:
            await trio.sleep(3)
            engine.down = False

        nursery.start_soon(start)
        async with connect(URL, open_stream=engine.open_stream) as client:
            assert trio.current_time() >= 3
            assert client.statistics().reconnects == 0
        nursery.cancel_scope.cancel()


async def test_without_an_engine_connect_says_what_to_check(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        engine = ScriptedEngine(nursery)
        engine.down = True
        with pytest.raises(
            ConnectionLost, match=f"no connection to {URL} within 10 s: .*nobody listens.*running"
        ):
            async with connect(URL, open_stream=engine.open_stream):
                raise AssertionError
    assert trio.current_time() == 10


async def test_a_silent_host_is_given_up_too(autojump_clock: MockClock) -> None:
    async def hang() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(ConnectionLost, match="no connection to"):
        async with connect(URL, open_stream=hang):
            raise AssertionError


async def test_a_url_that_is_none_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="ws://"):
        async with connect("http://localhost:5000"):
            raise AssertionError


# --- Cancellation everywhere -------------------------------------------------------------------------------


class CancelAt(trio.abc.Instrument):
    """Cancels its scope before the n-th step that any task takes."""

    def __init__(self, step: int) -> None:
        self.scope = trio.CancelScope()
        self._left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self.scope.cancel()


async def answer_in_pieces(link: ScriptedLink) -> None:
    while True:
        for job in (await link.request()).jobs:
            for n in range(3):
                link.report(job, n=n)
            link.answer(job)


async def one_stream(client: Client, path: Path) -> None:
    async with client.stream("t", {"n": 1, "picture": Image(path)}, timeout=60) as stream:
        assert [piece["n"] async for piece in stream] == [0, 1, 2]
    assert stream.output["echo"]["n"] == 1


async def a_stream_left_early(client: Client, path: Path) -> None:
    async for piece in client.stream("t", {"n": 1, "picture": Image(path)}):
        assert piece == {"n": 0}
        await trio.lowlevel.checkpoint()
        break


async def one_job(client: Client, path: Path) -> None:
    assert (await client.submit("t", {"n": 1, "picture": Image(path)}, timeout=60))["echo"]["n"] == 1


async def many_jobs(client: Client, path: Path) -> None:
    jobs = (Job("t", {"n": n, "picture": Image(path)}) for n in range(5))
    async with client.submit_many(jobs, max_in_flight=2) as results:
        async for result in results:
            assert result.output


@pytest.mark.parametrize("scenario", [one_job, many_jobs, one_stream, a_stream_left_early])
async def test_cancelled_at_any_step_nothing_stays_behind(
    scenario: Callable[[Client, Path], Coroutine[Any, Any, None]], tmp_path: Path
) -> None:
    """F-38."""
    path = tmp_path / "frame.png"
    path.write_bytes(b"pixels")
    cancelled_at = []
    for step in range(1, 1000):
        async with (
            engine_and_client(announce=EXTENSIONS) as (_, link, client),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(answer_in_pieces, link)
            instrument = CancelAt(step)
            trio.lowlevel.add_instrument(instrument)
            with instrument.scope:
                await scenario(client, path)
            trio.lowlevel.remove_instrument(instrument)
            await wait_all_tasks_blocked()
            # The client forgot everything, and serves the next as if nothing had been.
            assert client.statistics().in_flight == 0
            assert await client.submit("t", {"n": 2}) == {"echo": {"n": 2}}
            nursery.cancel_scope.cancel()
        if not instrument.scope.cancelled_caught:
            break
        cancelled_at.append(step)
    assert len(cancelled_at) > 5

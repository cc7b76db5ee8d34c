"""Connections that end: what is sent again, when, and what no reconnecting can heal."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import cbor2
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from orbtrio.client import ClientLimits, Job, connect
from orbtrio.errors import ConfigError, ConnectionLost, JobRefused, JobTimedOut, RegistrationRefused
from orbtrio.inputs import Image
from orbtrio.protocol.messages import EXTENSIONS, JobRequest
from orbtrio.transport import TransportLimits
from tests.client.scripted import URL, ScriptedEngine, Submission, engine_and_client

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.client.scripted import ScriptedLink


def number(job: object) -> int:
    return int(job.input["n"])  # type: ignore[attr-defined]


# --- Lost and healed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["drop", "1000", "1001", "1012"])
async def test_after_a_lost_connection_the_rest_is_sent_again_under_the_same_ids(
    autojump_clock: MockClock, how: str
) -> None:
    async with engine_and_client() as (engine, link, client), trio.open_nursery() as nursery:
        submissions = [Submission(nursery, client, {"n": n}) for n in range(4)]
        first = {number(job): job for job in await link.jobs(4)}
        link.answer(first[1])
        await submissions[1].done.wait()
        if how == "drop":
            link.drop()
        else:
            await link.close(int(how))

        link = await engine.link()
        second = {number(job): job for job in await link.jobs(3)}
        assert {n: job.client_job_id for n, job in second.items()} == {
            n: first[n].client_job_id for n in (0, 2, 3)
        }
        for job in second.values():
            link.answer(job)
            link.answer(job)
        await wait_all_tasks_blocked()
        assert [submission.output for submission in submissions] == [{"echo": {"n": n}} for n in range(4)]
        statistics = client.statistics()
        assert (statistics.reconnects, statistics.sent, statistics.answered) == (1, 7, 4)
        assert statistics.dropped == 3


async def test_jobs_submitted_while_there_is_no_connection_wait_for_it(autojump_clock: MockClock) -> None:
    async with engine_and_client() as (engine, link, client), trio.open_nursery() as nursery:
        engine.down = True
        link.drop()
        await trio.sleep(60)
        submission = Submission(nursery, client, {"n": 1}, timeout=100)
        await trio.sleep(30)
        engine.down = False
        link = await engine.link()
        [job] = await link.jobs(1)
        link.answer(job)
        await submission.done.wait()
        assert submission.output == {"echo": {"n": 1}}


async def test_the_deadline_counts_from_the_submit_whatever_the_connection_does(
    autojump_clock: MockClock,
) -> None:
    async with engine_and_client() as (engine, link, client), trio.open_nursery() as nursery:
        started = trio.current_time()
        submission = Submission(nursery, client, {"n": 1}, timeout=30)
        await link.jobs(1)
        await trio.sleep(20)
        link.drop()
        link = await engine.link()
        [job] = await link.jobs(1)
        await submission.done.wait()
        assert isinstance(submission.error, JobTimedOut)
        assert trio.current_time() - started == pytest.approx(30)
        link.answer(job)
        await wait_all_tasks_blocked()
        assert client.statistics().dropped == 1


async def test_attempts_get_rarer_and_are_spread(autojump_clock: MockClock) -> None:
    async with engine_and_client() as (engine, link, _):
        engine.down = True
        link.drop()
        await trio.sleep(60)
    pauses = [after - before for before, after in zip(engine.attempts[1:], engine.attempts[2:], strict=False)]
    assert all(0.025 <= pause <= 5.0 for pause in pauses)
    assert all(pause >= 2.5 for pause in pauses[8:])
    assert pauses[0] < 0.2
    assert len(set(pauses)) == len(pauses)


async def test_a_useful_connection_resets_the_pause(autojump_clock: MockClock) -> None:
    async with engine_and_client() as (engine, link, client), trio.open_nursery() as nursery:
        engine.down = True
        link.drop()
        await trio.sleep(60)
        engine.down = False
        link = await engine.link()
        Submission(nursery, client, {"n": 1})
        [job] = await link.jobs(1)
        link.answer(job)
        await wait_all_tasks_blocked()
        link.drop()
        lost = trio.current_time()
        link = await engine.link()
        assert trio.current_time() - lost <= 0.05
        # So does one that merely lasted.
        await trio.sleep(10)
        link.drop()
        lost = trio.current_time()
        await engine.link()
        assert trio.current_time() - lost <= 0.05


async def test_an_engine_that_accepts_and_drops_is_not_stormed(autojump_clock: MockClock) -> None:
    async with engine_and_client() as (engine, link, client), trio.open_nursery() as nursery:
        submission = Submission(nursery, client, {"n": 1}, timeout=60)
        with trio.move_on_after(60):
            while True:
                link.drop()
                link = await engine.link()
        await submission.done.wait()
        assert isinstance(submission.error, JobTimedOut)
    assert len(engine.attempts) < 40


async def test_a_dead_peer_is_found_and_left(autojump_clock: MockClock) -> None:
    """F-06, from the client's side: the engine is stopped, and no connection ends."""
    limits = ClientLimits(transport=TransportLimits(ping_interval=20, ping_timeout=20))
    async with trio.open_nursery() as nursery:
        engine = ScriptedEngine(nursery)
        engine.deaf = True
        async with connect(URL, open_stream=engine.open_stream, limits=limits) as client:
            await engine.link()
            engine.deaf = False
            submission = Submission(nursery, client, {"n": 1})
            [job] = await (link := await engine.link()).jobs(1)
            assert trio.current_time() == pytest.approx(40, abs=1)
            link.answer(job)
            await submission.done.wait()
            assert submission.output == {"echo": {"n": 1}}
        nursery.cancel_scope.cancel()


# --- Refused for good --------------------------------------------------------------------------------------


async def test_a_bad_token_is_told_to_everybody_who_waits(autojump_clock: MockClock) -> None:
    async with engine_and_client(token="wrong") as (engine, link, client), trio.open_nursery() as nursery:
        submissions = [Submission(nursery, client, {"n": n}) for n in range(3)]
        await link.jobs(3)
        await link.close(1008, "bad token")
        # The jobs could have been the reason, so the next introduction stands alone.
        link = await engine.link()
        await link.close(1008, "bad token")
        for submission in submissions:
            await submission.done.wait()
            assert isinstance(submission.error, RegistrationRefused)
            assert "bad token" in str(submission.error)
        assert submissions[0].error is not submissions[1].error
        with pytest.raises(RegistrationRefused, match="bad token"):
            await client.submit("t", {})
        with pytest.raises(RegistrationRefused, match="bad token"):
            await anext(client.submit_many([Job("t", {})]))
        await trio.sleep(100)
        assert len(engine.attempts) == 2


async def test_a_bad_token_without_a_job_is_known_at_once(autojump_clock: MockClock) -> None:
    async with engine_and_client(token="wrong") as (_, link, client):
        await link.close(1008)
        with pytest.raises(RegistrationRefused, match="refused this client"):
            await client.submit("t", {})


async def test_an_idle_link_closed_later_with_1008_is_no_refused_registration(
    autojump_clock: MockClock,
) -> None:
    async with engine_and_client() as (engine, link, client), trio.open_nursery() as nursery:
        await trio.sleep(60)
        await link.close(1008, "idle too long")
        nursery.start_soon((await engine.link()).echo)
        assert await client.submit("t", {"n": 1}) == {"echo": {"n": 1}}
        nursery.cancel_scope.cancel()


async def test_1003_ends_the_client(autojump_clock: MockClock) -> None:
    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        submission = Submission(nursery, client, {"n": 1})
        await link.jobs(1)
        await link.close(1003, "text only")
        await submission.done.wait()
        assert isinstance(submission.error, ConnectionLost)
        assert submission.error.code == 1003
        with pytest.raises(ConnectionLost, match="does not speak this protocol"):
            await client.submit("t", {})


# --- Poisonous jobs ----------------------------------------------------------------------------------------


async def serve_poisonably(engine: ScriptedEngine, link: ScriptedLink, *, code: int, answering: bool) -> None:
    """Be an engine that closes the connection for any request with a job that is ``bad``."""
    while True:
        try:
            while True:
                request = await link.request()
                if any(job.input.get("bad") for job in request.jobs):
                    await link.close(code, "cannot stand that")
                elif answering:
                    for job in request.jobs:
                        link.answer(job)
        except trio.EndOfChannel:
            link = await engine.link()


@pytest.mark.parametrize("code", [1008, 1009, 1011])
@pytest.mark.parametrize("answering", [True, False])
async def test_a_job_that_the_engine_will_not_take_fails_alone(
    autojump_clock: MockClock, code: int, answering: bool
) -> None:
    async with engine_and_client() as (engine, link, client), trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_poisonably(engine, link, code=code, answering=answering)

        nursery.start_soon(serve)
        bad = Submission(nursery, client, {"bad": True})
        good = [Submission(nursery, client, {"n": n}, timeout=100) for n in range(20)]
        await bad.done.wait()
        assert trio.current_time() < 30
        assert isinstance(bad.error, JobRefused)
        assert bad.error.kind == "invalid_job"
        assert f"{code} cannot stand that" in bad.error.text
        for submission in good:
            await submission.done.wait()
            assert type(submission.error) is (type(None) if answering else JobTimedOut)
        # Whoever comes later notices nothing.
        await trio.sleep(1)
        reconnects = client.statistics().reconnects
        if answering:
            assert await client.submit("t", {"n": 1}) == {"echo": {"n": 1}}
        assert client.statistics().reconnects == reconnects <= 9
        nursery.cancel_scope.cancel()


async def test_large_suspects_are_sent_no_faster_than_they_are_read(autojump_clock: MockClock) -> None:
    """A trial of many images must not be taken for a stuck engine."""
    limits = ClientLimits(
        max_request_bytes=500_000,
        max_job_bytes=500_000,
        transport=TransportLimits(max_buffered_bytes=1 << 20),
    )
    async with engine_and_client(limits=limits) as (engine, link, client), trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_poisonably(engine, link, code=1009, answering=True)

        nursery.start_soon(serve)
        good = [Submission(nursery, client, {"n": n, "x": Image(bytes([n]) * 300_000)}) for n in range(10)]
        bad = Submission(nursery, client, {"bad": True})
        await bad.done.wait()
        assert isinstance(bad.error, JobRefused)
        for submission in good:
            await submission.done.wait()
            assert submission.output
        nursery.cancel_scope.cancel()


# --- Garbage from the engine -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", 1008),
        (b"\xff\xff", 1008),
        (cbor2.dumps([1, 2]), 1008),
        (cbor2.dumps({"inputs": []}), 1008),
        (
            cbor2.dumps({"type": "i_am_worker", "worker_secret": "", "worker_config": {"worker_type": "t"}}),
            1008,
        ),
        (cbor2.dumps({"type": "worker_response", "job_id": "x", "output": None}), 1008),
        (bytes(40 << 10), 1009),
    ],
)
async def test_what_cannot_be_understood_ends_the_connection_and_no_job(
    autojump_clock: MockClock, raw: bytes, code: int
) -> None:
    limits = ClientLimits(transport=TransportLimits(max_message_bytes=32 << 10))
    async with engine_and_client(limits=limits) as (engine, link, client), trio.open_nursery() as nursery:
        submission = Submission(nursery, client, {"n": 1})
        await link.jobs(1)
        link.transport.send(raw)
        await link.ended.wait()
        assert link.close_code == code
        link = await engine.link()
        [job] = await link.jobs(1)
        link.answer(job)
        await submission.done.wait()
        assert submission.output == {"echo": {"n": 1}}


async def test_unknown_messages_and_foreign_ids_are_ignored(autojump_clock: MockClock) -> None:
    """P-53, F-44."""
    async with engine_and_client() as (_, link, client), trio.open_nursery() as nursery:
        submission = Submission(nursery, client, {"n": 1})
        [job] = await link.jobs(1)
        link.transport.send(cbor2.dumps({"type": "weather_report", "sunny": True}))
        link.transport.send(cbor2.dumps({"type": "worker_response", "output": {}}))
        for stranger in ("nobody", 7, None, ["a"], {"b": 1}, b"raw"):
            link.respond(stranger, {"embedding": [1.0]})
        link.respond(job.client_job_id, {})
        await submission.done.wait()
        assert submission.output == {}
        assert client.statistics().dropped == 7
        assert client.statistics().reconnects == 0


# --- Extensions --------------------------------------------------------------------------------------------


async def test_answers_that_come_together_find_their_jobs_and_strangers_are_dropped() -> None:
    async with engine_and_client(announce=EXTENSIONS) as (_, link, client), trio.open_nursery() as nursery:
        submissions = [Submission(nursery, client, {"n": n}) for n in range(64)]
        jobs = await link.jobs(64)
        stranger = JobRequest("nobody", "t", {})
        link.answer_together([stranger, *jobs[:40], stranger, jobs[0]])
        link.answer(jobs[40])
        link.answer_together(jobs[41:])
        for n, submission in enumerate(submissions):
            await submission.done.wait()
            assert submission.output == {"echo": {"n": n}}
        assert (client.statistics().answered, client.statistics().dropped) == (64, 3)


async def test_a_cancelled_job_is_cancelled_on_the_link_that_carried_it(autojump_clock: MockClock) -> None:
    """And on no other: an engine forgets what it had from a client that is gone."""
    async with (
        engine_and_client(announce=EXTENSIONS) as (engine, link, client),
        trio.open_nursery() as nursery,
    ):
        before, after = Submission(nursery, client, {"n": 1}), Submission(nursery, client, {"n": 2})
        await link.jobs(2)
        engine.down = True
        link.drop()
        await wait_all_tasks_blocked()
        before.scope.cancel()
        await trio.sleep(1)
        engine.down = False
        link = await engine.link()
        [job] = await link.jobs(1)
        assert number(job) == 2
        assert link.cancels == []
        after.scope.cancel()
        await wait_all_tasks_blocked()
        assert link.cancels == [[job.client_job_id]]


async def test_who_is_cancelled_during_a_trial_is_so_before_the_next_trial(autojump_clock: MockClock) -> None:
    limits = ClientLimits(probe_time=5)
    async with (
        engine_and_client(limits=limits, announce=EXTENSIONS) as (engine, link, client),
        trio.open_nursery() as nursery,
    ):
        submissions = {n: Submission(nursery, client, {"n": n}) for n in range(4)}
        await link.jobs(4)
        await link.close(1009, "one of these")
        link = await engine.link()
        tried = await link.jobs(1) + await link.jobs(1)
        submissions[number(tried[0])].scope.cancel()
        rest = await link.jobs(1) + await link.jobs(1)
        assert link.cancels == [[tried[0].client_job_id]]
        for job in [tried[1], *rest]:
            link.answer(job)
        for n, submission in submissions.items():
            if n != number(tried[0]):
                await submission.done.wait()
                assert submission.output == {"echo": {"n": n}}


async def test_cancels_to_an_engine_that_reads_nothing_pile_up_nowhere(autojump_clock: MockClock) -> None:
    """What is cancelled while the pipe is full waits as ids, and leaves when there is room."""
    limits = ClientLimits(
        max_request_bytes=200_000,
        max_job_bytes=200_000,
        transport=TransportLimits(max_buffered_bytes=1 << 20, write_timeout=60),
    )
    async with (
        engine_and_client(lockstep=True, limits=limits, announce=EXTENSIONS) as (_, link, client),
        trio.open_nursery() as nursery,
    ):
        submissions = [Submission(nursery, client, {"n": n, "x": bytes(100_000)}) for n in range(40)]
        await wait_all_tasks_blocked()
        for submission in submissions:
            submission.scope.cancel()
        await wait_all_tasks_blocked()
        # Exactly what it was sent is cancelled, and what it was not is not sent any more.
        sent = [job.client_job_id for _ in range(link.unread()) for job in (await link.request()).jobs]
        assert sorted(id for ids in link.cancels for id in ids) == sorted(sent)
        assert client.statistics().in_flight == 0


# --- Back-pressure -----------------------------------------------------------------------------------------


async def test_a_slow_engine_slows_the_client_and_not_its_memory(autojump_clock: MockClock) -> None:
    """Four megabytes through a buffer of one: were more queued than fits, the connection would be cut."""
    limits = ClientLimits(
        max_request_bytes=200_000,
        max_job_bytes=200_000,
        transport=TransportLimits(max_buffered_bytes=1 << 20),
    )
    total = 40
    async with (
        engine_and_client(lockstep=True, limits=limits) as (_, link, client),
        trio.open_nursery() as nursery,
    ):

        async def serve() -> None:
            while True:
                request = await link.request()
                await trio.sleep(1)
                for job in request.jobs:
                    link.answer(job, done=True)

        nursery.start_soon(serve)
        jobs = (Job("t", {"n": n, "x": bytes(100_000)}) for n in range(total))
        async with aclosing(client.submit_many(jobs, max_in_flight=total)) as results:
            assert [result.output async for result in results] == [{"done": True}] * total
        assert client.statistics().reconnects == 0
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("bounds", [{"max_unread_pieces": 0}, {"max_unread_bytes": 0}])
def test_streams_without_room_for_a_piece_are_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        ClientLimits(**bounds)  # type: ignore[arg-type]


def test_a_buffer_smaller_than_a_request_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_buffered_bytes must be at least"):
        ClientLimits(transport=TransportLimits(max_buffered_bytes=1 << 20))

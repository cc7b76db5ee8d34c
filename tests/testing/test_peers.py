"""Scripted peers do what they are told, and tell what happened to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from orbtrio.client import connect
from orbtrio.errors import ConnectionLost
from orbtrio.protocol.messages import RegisterWorker
from orbtrio.testing import open_fabric, open_fake_engine, wait_until_idle

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_worker_answers_what_the_script_says(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=4)
        client = await fabric.fake_client()
        ids = client.submit("t", {"n": 0}, {"n": 1}, {"n": 2}, {"n": 3})
        jobs = await worker.receive_batch()
        worker.answer(jobs[0])
        worker.answer(jobs[1:2], {"fixed": True})
        worker.answer(jobs[2:3], lambda job: {"double": 2 * job.input["n"]})
        worker.fail(jobs[3], "no")
        await wait_until_idle()
        assert client.outputs == list(
            zip(
                ids,
                [
                    {"id": jobs[0].job_id, "echo": {"n": 0}},
                    {"id": jobs[1].job_id, "fixed": True},
                    {"id": jobs[2].job_id, "double": 4},
                    {"id": jobs[3].job_id, "error": "no"},
                ],
                strict=True,
            )
        )
        response = await client.receive_response()
        assert (response.client_job_id, response.output["echo"]) == (ids[0], {"n": 0})


async def test_worker_that_answers_all_ends_with_its_connection(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric, trio.open_nursery() as nursery:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        nursery.start_soon(worker.answer_all)
        client = await fabric.fake_client()
        client.submit("t", {}, {})
        assert [(await client.receive_response()).client_job_id for _ in range(2)] == ["job-1", "job-2"]
        worker.link.cut()


async def test_script_that_expects_another_message_fails(autojump_clock: MockClock) -> None:
    async with open_fake_engine() as engine, connect(open_stream=engine.open_stream) as client:
        peer = await engine.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.submit, "t", {})
            with pytest.raises(AssertionError, match="expected WorkerOutput but received WorkerRequest"):
                await peer.receive_outputs()
            nursery.cancel_scope.cancel()


async def test_end_of_the_connection_is_told_with_its_code(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker()
        worker.send(RegisterWorker(worker_type="again", worker_secret=""))
        lost = await worker.wait_lost()
        assert lost.code == 1008
        assert "i_am_worker is not allowed here" in lost.reason
        with pytest.raises(ConnectionLost) as sending:
            worker.send(b"x")
        with pytest.raises(ConnectionLost) as receiving:
            await worker.receive()
        assert sending.value is receiving.value is lost
        assert "lost" in repr(worker)


async def test_what_came_before_the_end_can_still_be_received(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await fabric.fake_worker("t", max_batch_size=1)
        client = await fabric.fake_client()
        client.submit("t", {})
        await wait_until_idle()
        worker.link.cut()
        await worker.wait_lost()
        assert len(await worker.receive_batch()) == 1
        with pytest.raises(trio.WouldBlock):
            worker.receive_nowait()
        with pytest.raises(ConnectionLost):
            await worker.receive_batch()


async def test_closing_says_goodbye(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        client = await fabric.fake_client()
        assert "open" in repr(client)
        await client.close(1001)
        assert (await client.wait_lost()).code == 1001
        await wait_until_idle()
        statistics = fabric.engine.statistics()
        assert (statistics.clients, statistics.connections_lost) == (0, 0)


async def test_messages_may_be_any_bytes(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        peer = await fabric.fake_peer()
        peer.send(b"\xa1\x64type\x64spam")
        assert (await peer.wait_lost()).code == 1008
        assert fabric.engine.statistics().peer_errors == 1

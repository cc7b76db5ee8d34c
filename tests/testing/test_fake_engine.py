"""The scripted engine, held against the real client and the real worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from orbtrio.client import connect
from orbtrio.errors import ConnectionLost, JobFailed, JobRefused
from orbtrio.protocol import codec
from orbtrio.protocol.messages import (
    EXTENSIONS,
    JobRequest,
    RegisterClient,
    RegisterWorker,
    WorkerRequest,
)
from orbtrio.testing import open_fake_engine, wait_until_idle
from orbtrio.transport import open_client_transport
from orbtrio.worker import WorkerSettings, run_worker

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from trio.testing import MockClock

    from orbtrio.testing import FakeEngine
    from orbtrio.transport import Transport


def open_transport(engine: FakeEngine) -> AbstractAsyncContextManager[Transport]:
    return open_client_transport("ws://localhost/ws", open_stream=engine.open_stream)


async def measure(job: dict[str, Any]) -> dict[str, Any]:
    return {"length": len(job["text"])}


@pytest.mark.parametrize("options", [{}, {"announce": {"cancel"}}, {"announce": ()}])
async def test_it_announces_what_the_test_wants(autojump_clock: MockClock, options: dict[str, Any]) -> None:
    async with open_fake_engine(**options) as engine, open_transport(engine) as transport:
        assert transport.announced == frozenset(options.get("announce", EXTENSIONS))


async def test_worker_works_for_it(autojump_clock: MockClock) -> None:
    async with open_fake_engine() as engine, trio.open_nursery() as nursery:
        settings = WorkerSettings(worker_type="t", worker_secret="s", max_batch_size=7)
        nursery.start_soon(lambda: run_worker(measure, settings, open_stream=engine.open_stream))
        worker = await engine.accept()
        assert isinstance(worker.registration, RegisterWorker)
        assert worker.registration.max_batch_size == 7
        first, second = worker.send_batch({"text": "a"}, {"text": "bcd"})
        assert await worker.receive_outputs() == {first: {"length": 1}, second: {"length": 3}}
        (third,) = worker.send_batch({}, extra={"priority": 1})
        outputs = await worker.receive_outputs()
        assert outputs[third]["error"] == "KeyError: 'text'"
        worker.link.cut()
        assert isinstance((await engine.accept()).registration, RegisterWorker)
        assert len(engine.links) == 2
        nursery.cancel_scope.cancel()


async def test_client_gets_what_the_script_says(autojump_clock: MockClock) -> None:
    async with open_fake_engine() as engine, connect(open_stream=engine.open_stream) as client:
        peer = await engine.accept()
        assert isinstance(peer.registration, RegisterClient)

        async def script() -> None:
            for output in ({"length": 5}, {"error": "no"}):
                request = await peer.receive_request()
                peer.respond(request.jobs[0].client_job_id, output)
            request = await peer.receive_request()
            peer.refuse(request.jobs[0].client_job_id, "queue_full")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(script)
            assert await client.submit("t", {"text": "hello"}) == {"length": 5}
            with pytest.raises(JobFailed):
                await client.submit("t", {})
            with pytest.raises(JobRefused):
                await client.submit("t", {})


async def test_request_may_come_first(autojump_clock: MockClock) -> None:
    """P-01: a client need not introduce itself. Spec: "Resource Example"."""
    async with open_fake_engine() as engine, open_transport(engine) as client:
        client.send(codec.encode(WorkerRequest([JobRequest("a", "t", {})])))
        peer = await engine.accept()
        assert peer.registration is None
        assert len((await peer.receive_request()).jobs) == 1


async def test_peer_that_sends_no_message_is_closed(autojump_clock: MockClock) -> None:
    async with open_fake_engine() as engine, open_transport(engine) as client:
        client.send(b"\xff")
        with pytest.raises(ConnectionLost) as lost:
            await client.receive()
        assert lost.value.code == 1008
        with pytest.raises(ConnectionLost) as told:
            await engine.accept()
        assert told.value.code == 1008


async def test_what_is_no_websocket_is_refused(autojump_clock: MockClock) -> None:
    async with open_fake_engine() as engine:
        stream = await engine.open_stream()
        await stream.send_all(b"GET /elsewhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b"".join([bytes(data) async for data in stream])
        assert answer.startswith(b"HTTP/1.1 404 ")
        await stream.aclose()
        await wait_until_idle()


async def test_peer_that_leaves_without_a_word(autojump_clock: MockClock) -> None:
    async with open_fake_engine() as engine:
        async with open_transport(engine):
            pass
        with pytest.raises(ConnectionLost):
            await engine.accept()

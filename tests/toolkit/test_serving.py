from __future__ import annotations

import logging
import os
import socket
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio.abc
import pytest
import trio
import trio.testing
from anycorn.tcp_server import TCPServer

from orbtrio._nursery import open_service_nursery
from orbtrio.toolkit import serving
from orbtrio.toolkit.serving import base_url, serve
from tests.toolkit.wire import ask, read_answer, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

# Far longer than anything here takes: what is tested is that it ends at all.
LONG = 30.0


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


class Waiting:
    """Answers when it may."""

    def __init__(self) -> None:
        self.called = trio.Event()
        self.may_answer = trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.called.set()
        await self.may_answer.wait()
        await hello(scope, receive, send)


class Large:
    """Answers with more than the buffers of a connection hold."""

    def __init__(self) -> None:
        self.begun = trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.begun.set()
        await send({"type": "http.response.body", "body": bytes(64 << 20)})


class Served:
    """A server for a test."""

    def __init__(self) -> None:
        self.port = 0
        self.stop = trio.Event()
        self.ended = trio.Event()
        self.scope = trio.CancelScope()

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def run(self, app: Any, *, task_status: trio.TaskStatus[int], **options: Any) -> None:
        with self.scope:
            await serve(app, stop=self.stop, task_status=task_status, **options)
        self.ended.set()


@asynccontextmanager
async def serving_app(app: Any, **options: Any) -> AsyncIterator[Served]:
    """Serve an application, and wait for the server's end."""
    served = Served()
    with trio.fail_after(LONG):
        async with open_service_nursery() as nursery:
            served.port = await nursery.start(partial(served.run, app, **options))
            yield served
            served.stop.set()
            await served.ended.wait()


async def closed(stream: trio.SocketStream) -> bool:
    """The other side closes the connection without a word."""
    with suppress(trio.BrokenResourceError):
        return await stream.receive_some() == b""
    return True


async def test_requests_are_answered_on_one_connection_after_the_other() -> None:
    async with serving_app(hello) as served, await served.connect() as stream:
        for _ in range(3):
            await stream.send_all(request("GET", "/", headers={"connection": ""}))
            answer = await read_answer(stream)
            assert (answer.status, answer.body, answer.headers) == (200, b"hello", {"content-length": "5"})


async def test_the_end_closes_idle_connections_at_once() -> None:
    async with serving_app(hello) as served, await served.connect() as idle, await served.connect() as silent:
        await idle.send_all(request("GET", "/", headers={"connection": ""}))
        await read_answer(idle)
        served.stop.set()
        assert await closed(idle)
        assert await closed(silent)
        with pytest.raises(OSError, match="connect"):
            await served.connect()


async def test_a_request_in_hand_is_answered_before_the_end() -> None:
    app = Waiting()
    async with serving_app(app) as served, await served.connect() as stream:
        await stream.send_all(request("GET", "/"))
        await app.called.wait()
        served.stop.set()
        await trio.testing.wait_all_tasks_blocked()
        app.may_answer.set()
        assert (await read_answer(stream)).body == b"hello"


async def test_an_application_that_does_not_answer_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "GRACE", 0.05)
    app = Waiting()
    async with serving_app(app) as served, await served.connect() as stream:
        await stream.send_all(request("GET", "/"))
        await app.called.wait()
        served.stop.set()
        assert await closed(stream)


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
async def test_an_engine_that_does_not_read_does_not_hold_up_the_end(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "GRACE", 0.05)
    app = Large()
    async with serving_app(app) as served, await served.connect() as stream:
        await stream.send_all(request("GET", "/"))
        await app.begun.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        if how == "stopped":
            served.stop.set()
        else:
            served.scope.cancel()
        await served.ended.wait()


async def test_whoever_connects_and_says_nothing_makes_room() -> None:
    async with serving_app(hello, most_connections=3) as served:
        silent = [await served.connect() for _ in range(3)]
        for stream in silent:
            await stream.send_all(b"POST /heartbeat/x HTTP/1.1\r\nx-slow: ")
        await trio.testing.wait_all_tasks_blocked()
        for index in range(6):
            assert (await ask(served.port, "GET", f"/{index}")).status == 200
        assert await closed(silent[0])
        for stream in silent:
            await stream.aclose()


async def test_whoever_has_a_request_in_hand_keeps_the_place() -> None:
    app = Waiting()
    async with serving_app(app, most_connections=1) as served, await served.connect() as stream:
        await stream.send_all(request("GET", "/"))
        await app.called.wait()
        async with await served.connect() as other:
            assert await closed(other)
        app.may_answer.set()
        assert (await read_answer(stream)).status == 200


async def test_a_head_that_does_not_come_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_IDLE", 0.05)
    async with serving_app(hello) as served, await served.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nx-slow: ")
        assert await closed(stream)


async def test_a_head_without_end_is_refused() -> None:
    async with serving_app(hello) as served, await served.connect() as stream:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(b"GET / HTTP/1.1\r\n" + b"x-long: " + b"x" * 100_000)
        assert (await read_answer(stream)).status == 431


async def test_an_application_that_fails_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("oops")

    async with serving_app(fail) as served:
        assert (await ask(served.port, "GET", "/")).status == 500
        assert (await ask(served.port, "GET", "/")).status == 500
    assert {record.name for record in caplog.records} == {"orbtrio.toolkit.http"}


async def test_a_connection_that_fails_leaves_the_others_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = TCPServer.run

    async def fail_once(self: TCPServer) -> None:
        monkeypatch.setattr(TCPServer, "run", run)
        await self.stream.aclose()
        raise RuntimeError("oops")

    async with serving_app(hello) as served:
        monkeypatch.setattr(TCPServer, "run", fail_once)
        async with await served.connect() as stream:
            assert await closed(stream)
        assert (await ask(served.port, "GET", "/")).status == 200
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "a connection has failed"
    ]


async def test_a_connection_that_is_gone_at_once_leaves_no_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def gone(raw: socket.socket) -> anyio.abc.SocketStream:
        raise ValueError("the socket must be connected")

    async with serving_app(hello) as served:
        before = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patch:
            patch.setattr(anyio.abc.SocketStream, "from_socket", gone)
            async with await served.connect() as stream:
                assert await closed(stream)
        assert len(os.listdir("/proc/self/fd")) == before
        assert (await ask(served.port, "GET", "/")).status == 200


async def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="ddress already in use"):
            await serve(hello, port=taken.getsockname()[1], stop=trio.Event())


async def test_a_name_with_several_addresses_is_listened_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    open_listeners = trio.open_tcp_listeners

    async def two(port: int, *, host: str) -> list[trio.SocketListener]:
        return [*await open_listeners(port, host=host), *await open_listeners(port, host=host)]

    monkeypatch.setattr(trio, "open_tcp_listeners", two)
    async with serving_app(hello) as served:
        assert (await ask(served.port, "GET", "/")).status == 200


def test_addresses_of_the_newer_kind_stand_in_brackets() -> None:
    assert (base_url("::1", 1), base_url("127.0.0.1", 80)) == ("http://[::1]:1", "http://127.0.0.1:80")

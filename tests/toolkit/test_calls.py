from __future__ import annotations

import gzip
import os
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import trio

from orbtrio.toolkit.answers import Ack, Failure, Heartbeat, Nothing, Output, Result, Verdict
from orbtrio.toolkit.calls import CALLS, call_engine, open_engine_client, run_attempt, waits
from orbtrio.toolkit.items import Complete, Failed, Item
from orbtrio.toolkit.jobs import TaskInput

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

URL = "http://127.0.0.1:8888/process"


async def call(
    answer: Callable[[httpx2.Request], Any], chunk: Path | None = None, *, max_bytes: int = 1000
) -> Verdict:
    """The verdict on one call of an engine that answers so."""
    item = Item(TaskInput(), now=trio.current_time())
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        return await call_engine(client, URL, [("a", "1")], chunk, item=item, max_bytes=max_bytes)


def test_waits_double_up_to_a_second() -> None:
    assert CALLS == 3
    assert list(accumulate(waits(), initial=0.0)) == pytest.approx([0, 0.1, 0.3])
    # The old toolkit's went to 1.6 s.
    assert list(accumulate(waits(7), initial=0.0)) == pytest.approx([0, 0.1, 0.3, 0.7, 1.5, 2.5, 3.5])


async def test_et_68_the_head_is_the_old_toolkits() -> None:
    requests = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(204)

    assert await call(answer) == Nothing()
    (request,) = requests
    assert (request.method, str(request.url)) == ("POST", URL)
    headers = {name.decode(): value.decode() for name, value in request.headers.raw}
    assert headers.pop("Content-Type").startswith("multipart/form-data; boundary=")
    assert headers == {
        "Host": "127.0.0.1:8888",
        "User-Agent": "veritone-engine-toolkit",
        "Content-Length": str(len(request.content)),
        "Accept-Encoding": "gzip",
    }


async def test_a_response_is_read_and_judged() -> None:
    response = httpx2.Response(
        200,
        headers={"content-type": "text/plain", "content-encoding": "gzip"},
        content=gzip.compress(b'{"a":1}'),
    )
    assert await call(lambda _: response) == Output(({"output": {"a": 1}},), 7)


async def test_a_response_may_come_in_pieces() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"estimated', b"ProcessingTime", b'InSeconds": 5}'):
            yield piece

    assert await call(lambda _: httpx2.Response(200, content=pieces())) == Ack(5)


async def test_a_response_may_have_only_so_many_bytes() -> None:
    body = b'{"a":"%s"}' % (b"x" * 100)
    assert isinstance(await call(lambda _: httpx2.Response(200, content=body), max_bytes=len(body)), Output)
    verdict = await call(lambda _: httpx2.Response(200, content=body), max_bytes=len(body) - 1)
    assert verdict == Failure("invalid_data", "200: the answer is longer than 107 bytes", retry=False)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (httpx2.ConnectError("Connection refused"), "ConnectError: Connection refused"),
        (httpx2.ReadError(""), "ReadError"),
        (httpx2.RemoteProtocolError("Server disconnected"), "RemoteProtocolError: Server disconnected"),
        (httpx2.ConnectTimeout("late"), "ConnectTimeout: late"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_engine_that_does_not_answer_is_a_failure(error: Exception, message: str) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        raise error

    assert await call(answer) == Failure("internal_error", f"no answer from the engine: {message}")


async def test_broken_compression_is_a_failure() -> None:
    headers = {"content-encoding": "gzip"}
    verdict = await call(lambda _: httpx2.Response(200, headers=headers, stream=httpx2.ByteStream(b"none")))
    assert isinstance(verdict, Failure)
    assert verdict.retry


async def test_a_chunk_that_cannot_be_read_is_not_the_engines_failure(tmp_path: Path) -> None:
    verdict = await call(lambda _: httpx2.Response(204), tmp_path / "absent")
    assert isinstance(verdict, Failure)
    assert (verdict.reason, verdict.retry) == ("stream_read_error", False)
    assert "No such file" in verdict.message


async def test_the_chunk_is_in_the_form(tmp_path: Path) -> None:
    content = os.urandom(100_000)
    (tmp_path / "chunk").write_bytes(content)
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.content)
        return httpx2.Response(204)

    await call(answer, tmp_path / "chunk")
    assert content in seen[0]


async def test_connections_to_the_engine_are_kept_and_proxies_not_asked(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    heads = []

    async def serve(stream: trio.SocketStream) -> None:
        heads.append("connection")
        data = b""
        while piece := await stream.receive_some():
            data += piece
            if data.endswith(b"--\r\n"):
                heads.append("request")
                data = b""
                await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")

    listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    async with open_engine_client(1) as client:
        for _ in range(3):
            item = Item(TaskInput(), now=trio.current_time())
            url = f"http://127.0.0.1:{port}/process"
            assert await call_engine(client, url, [("a", "1")], None, item=item, max_bytes=10) == Nothing()
    assert heads == ["connection", "request", "request", "request"]
    nursery.cancel_scope.cancel()


async def test_cancelling_leaves_nothing_of_a_call_that_is_still_sending(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    with (tmp_path / "chunk").open("wb") as file:
        file.truncate(50_000_000)
    began = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        began.set()
        await trio.sleep_forever()

    async def send() -> None:
        item = Item(TaskInput(), now=trio.current_time())
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/process"
        async with open_engine_client(1) as client:
            with scope:
                await call_engine(client, url, [], tmp_path / "chunk", item=item, max_bytes=10)

    listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    before = len(os.listdir("/proc/self/fd"))
    async with trio.open_nursery() as calls:
        scope = trio.CancelScope()
        calls.start_soon(send)
        await began.wait()
        scope.cancel()
    assert scope.cancelled_caught
    # The engine's end of the connection is all that is left; a generator that is left would be a warning.
    assert len(os.listdir("/proc/self/fd")) == before + 1
    nursery.cancel_scope.cancel()


def attempt_of(
    engine_type: str, verdict: Verdict, delay: float = 0.0
) -> tuple[Item, Callable[[], Awaitable[Verdict]]]:
    task = TaskInput(engine_type=engine_type, max_ttl=100.0)  # type: ignore[arg-type]

    async def respond() -> Verdict:
        await trio.sleep(delay)
        return verdict

    return Item(task, now=trio.current_time()), respond


async def test_an_attempt_ends_with_its_response(autojump_clock: MockClock) -> None:
    item, respond = attempt_of("chunk", Output(({"output": 1},)), 5)
    start = trio.current_time()
    assert await run_attempt(item, respond) == Complete()
    assert trio.current_time() - start == pytest.approx(5)


async def test_et_85_a_call_is_cut_off_at_max_ttl(autojump_clock: MockClock) -> None:
    item, respond = attempt_of("chunk", Nothing(), 1e6)
    start = trio.current_time()
    outcome = await run_attempt(item, respond)
    assert outcome == Failed("internal_error", "no answer within 100 s", retry=False)
    assert trio.current_time() - start == pytest.approx(100)


async def test_et_97_deadlines_move_with_heartbeats(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    item, respond = attempt_of("stream", Ack(1000))
    start = trio.current_time()

    async def beat() -> None:
        for _ in range(10):
            await trio.sleep(20)
            item.heartbeat(Heartbeat(status="running"), trio.current_time())

    nursery.start_soon(beat)
    outcome = await run_attempt(item, respond)
    # Every 20 s, so lost after 600 of silence.
    assert outcome == Failed("heartbeat_timeout", "no heartbeat within 600 s", retry=False)
    assert trio.current_time() - start == pytest.approx(200 + 600)


async def test_an_attempt_ends_when_a_webhook_ends_it(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    item, respond = attempt_of("chunk", Ack())
    start = trio.current_time()

    async def deliver() -> None:
        await trio.sleep(7)
        item.result(Result(output="later"), trio.current_time())

    nursery.start_soon(deliver)
    assert await run_attempt(item, respond) == Complete()
    assert trio.current_time() - start == pytest.approx(7)


async def test_cancelling_ends_the_call_at_once(autojump_clock: MockClock) -> None:
    item, respond = attempt_of("chunk", Nothing(), 1e6)
    start = trio.current_time()
    with trio.move_on_after(3) as scope:
        await run_attempt(item, respond)
    assert scope.cancelled_caught
    assert trio.current_time() - start == pytest.approx(3)
    assert item.outcome is None

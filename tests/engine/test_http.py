from __future__ import annotations

import base64
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import h11
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from orbtrio.engine.http import Front
from orbtrio.errors import ConnectionLost
from orbtrio.transport import open_server_transport
from tests.transport.peers import KINDS, REQUEST, Kind, RawPeer, frame, stream_pair

if TYPE_CHECKING:
    from collections.abc import Callable

kinds = pytest.mark.parametrize("kind", KINDS)

CLIENT_HELLO = bytes.fromhex("16030100f8010000f40303") + os.urandom(64)


def failing_route() -> tuple[int, str, bytes]:
    raise ZeroDivisionError


ROUTES: dict[str, Callable[[], tuple[int, str, bytes]]] = {
    "/healthz": lambda: (200, "text/plain", b"ok"),
    "/readyz": lambda: (503, "text/plain", b"stopping"),
    "/broken": failing_route,
}


async def ask(
    request: bytes, front: Front | None = None, *, kind: Kind = "memory", end: bool = False
) -> tuple[bytes | None, bytes]:
    """What the front returns for a request, and what the peer is answered."""
    front = front or Front(routes=ROUTES)
    theirs, ours = await stream_pair(kind)
    answer = bytearray()
    result: bytes | None = None
    sent = trio.Event()

    async def send() -> None:
        await theirs.send_all(request)
        sent.set()
        if end:
            assert isinstance(theirs, trio.abc.HalfCloseableStream)
            await theirs.send_eof()

    async def receive() -> None:
        while data := await theirs.receive_some():
            answer.extend(data)
        await sent.wait()
        await theirs.aclose()

    with trio.fail_after(50):
        async with theirs, ours, trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(receive)
            result = await front.negotiate(ours)
            if result is not None:
                nursery.cancel_scope.cancel()
    return result, bytes(answer)


async def status(request: bytes, front: Front | None = None) -> int:
    result, answer = await ask(request, front)
    assert result is None
    return int(answer.split(b" ")[1])


def with_header(line: bytes, request: bytes = REQUEST) -> bytes:
    return request[:-2] + line + b"\r\n\r\n"


# ---- upgrades


@kinds
@pytest.mark.parametrize("behind", [b"", frame(b"pipelined") + frame(b"half")[:5]])
async def test_upgrade_is_returned_as_it_came(kind: Kind, behind: bytes) -> None:
    # B-12.
    assert await ask(REQUEST + behind, kind=kind) == (REQUEST + behind, b"")


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST.replace(b"localhost:5000", b"127.0.0.1"),
        REQUEST.replace(b"localhost:5000", b"[::1]:5000"),
        REQUEST.replace(b"localhost:5000", b"LocalHost."),
        REQUEST.replace(b"/ws", b"/ws?token=1"),
        REQUEST.replace(b"Upgrade: websocket", b"UPGRADE:   WebSocket  "),
        REQUEST.replace(b"Connection: Upgrade", b"Connection: keep-alive, upgrade"),
        with_header(b"Sec-WebSocket-Extensions: permessage-deflate"),
        with_header(b"Sec-WebSocket-Protocol: " + b", ".join(b"p%d" % number for number in range(100))),
    ],
)
async def test_upgrade_may_be_spelt_in_many_ways(request_: bytes) -> None:
    # B-11: what is offered beyond that is simply not taken up.
    result, _ = await ask(request_)
    assert result == request_


async def test_upgrade_may_come_one_byte_at_a_time() -> None:
    theirs, ours = trio.testing.memory_stream_pair()
    async with theirs, ours, trio.open_nursery() as nursery:

        async def send() -> None:
            for byte in REQUEST:
                await theirs.send_all(bytes((byte,)))
                await trio.testing.wait_all_tasks_blocked()

        nursery.start_soon(send)
        assert await Front().negotiate(ours) == REQUEST


@kinds
async def test_what_is_returned_opens_a_transport(kind: Kind) -> None:
    theirs, ours = await stream_pair(kind)
    await theirs.send_all(REQUEST + frame(b"pipelined"))
    head = await Front().negotiate(ours)
    assert head is not None
    async with open_server_transport(ours, head, peer="peer") as transport:
        assert await transport.receive() == [b"pipelined"]
        await RawPeer(theirs).reset()
        with pytest.raises(ConnectionLost):
            await transport.receive()


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (REQUEST.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b""), 400),
        (REQUEST.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"x"), 400),
        (REQUEST.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"!!hlIHNhbXBsZSBub25jZQ=="), 400),
        (REQUEST.replace(b"dGhlIHNhbXBsZSBub25jZQ==", base64.b64encode(bytes(15))), 400),
        (REQUEST.replace(b"dGhlIHNhbXBsZSBub25jZQ==", base64.b64encode(bytes(17))), 400),
        (REQUEST.replace(b"Sec-WebSocket-Key", b"X-Key"), 400),
        (with_header(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
        (REQUEST.replace(b"Version: 13", b"Version: 8"), 426),
        (REQUEST.replace(b"Sec-WebSocket-Version", b"X-Version"), 426),
        (REQUEST.replace(b"Upgrade: websocket", b"Upgrade: h2c"), 426),
        (REQUEST.replace(b"Upgrade: websocket\r\n", b""), 426),
        (REQUEST.replace(b"Connection: Upgrade", b"Connection: close"), 400),
        (REQUEST.replace(b"GET", b"POST"), 405),
        (REQUEST.replace(b"/ws", b"/"), 404),
        (REQUEST.replace(b"/ws", b"/WS"), 404),
        (REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
        (REQUEST.replace(b"Host: localhost:5000\r\n", b""), 400),
        (REQUEST.replace(b"HTTP/1.1\r\nHost: localhost:5000", b"HTTP/1.0"), 400),
        (REQUEST.replace(b"\r\n", b"\n"), 400),
        (with_header(b"Content-Length: 4") + b"body", 400),
        (with_header(b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
        (with_header(b"X-Name: \xfc"), 400),
        (REQUEST.replace(b"localhost:5000", b"\xff\xfe"), 400),
        (with_header(b"Host: localhost"), 400),
    ],
)
async def test_upgrade_against_the_rules_is_refused(request_: bytes, expected: int) -> None:
    # B-07, B-08.
    assert await status(request_) == expected


async def test_refused_version_is_told_the_right_one() -> None:
    # B-08; RFC 6455, section 4.4.
    _, answer = await ask(REQUEST.replace(b"Version: 13", b"Version: 8"))
    assert b"\r\nsec-websocket-version: 13\r\n" in answer
    assert answer.endswith(b"\r\n\r\nonly version 13 of WebSocket\n")


@pytest.mark.parametrize(
    ("allowed", "origin", "passes"),
    [
        ((), b"https://evil.example", False),
        ((), b"http://localhost:5000", False),
        ((), b"null", False),
        (("https://good.example",), b"https://good.example", True),
        (("https://Good.example/",), b"HTTPS://good.example", True),
        (("https://good.example",), b"https://good.example.evil.example", False),
        (("https://good.example",), b"http://good.example", False),
        (("*",), b"https://any.example", True),
        (("null",), b"null", True),
    ],
)
async def test_web_pages_connect_only_if_listed(
    allowed: tuple[str, ...], origin: bytes, passes: bool
) -> None:
    # B-09.
    result, answer = await ask(with_header(b"Origin: " + origin), Front(allowed_origins=allowed))
    assert (result is not None) == passes
    assert passes or answer.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    ("allowed", "host", "passes"),
    [
        ((), b"evil.example", False),
        ((), b"evil.example:5000", False),
        ((), b"localhost.evil.example", False),
        ((), b"127.0.0.1.evil.example", False),
        ((), b"", False),
        ((), b"[::1", True),
        ((), b"192.168.1.7:5000", True),
        ((), b"[fe80::1]:5000", True),
        (("Engine.internal",), b"engine.INTERNAL:5000", True),
        (("engine.internal",), b"other.internal", False),
        (("*",), b"any.example", True),
    ],
)
@pytest.mark.parametrize("request_", [REQUEST, b"GET /healthz HTTP/1.1\r\nHost: localhost:5000\r\n\r\n"])
async def test_foreign_names_are_not_answered(
    allowed: tuple[str, ...], host: bytes, passes: bool, request_: bytes
) -> None:
    # B-10: nor for plain requests, for a rebound page could read those.
    front = Front(allowed_hosts=allowed, routes=ROUTES)
    result, answer = await ask(request_.replace(b"localhost:5000", host), front)
    assert (result is not None or answer.startswith(b"HTTP/1.1 200 ")) == passes
    assert passes or answer.startswith(b"HTTP/1.1 403 ")


# ---- plain requests


async def test_route_is_answered() -> None:
    result, answer = await ask(b"GET /healthz?verbose HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert result is None
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/healthz", headers=[("host", "localhost")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(answer)
    response = connection.next_event()
    assert isinstance(response, h11.Response)
    assert response.status_code == 200
    assert dict(response.headers) == {
        b"content-type": b"text/plain",
        b"content-length": b"2",
        b"connection": b"close",
    }
    body = connection.next_event()
    assert isinstance(body, h11.Data)
    assert body.data == b"ok"


async def test_head_is_answered_without_a_body() -> None:
    _, answer = await ask(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: 2\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")
    _, answer = await ask(b"HEAD /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n", 503),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nOrigin: https://x.example\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n", 426),
        (b"HEAD /ws HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n12345", 405),
        (b"DELETE /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345", 404),
        (b"GET /broken HTTP/1.1\r\nHost: localhost\r\n\r\n", 500),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /%66oo\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"\r\n\r\n", 400),
        (CLIENT_HELLO, 400),
        (os.urandom(16) + b"\r\n\r\n", 400),
    ],
)
async def test_plain_requests_get_plain_answers(request_: bytes, expected: int) -> None:
    # B-03, B-04, B-07.
    assert await status(request_) == expected


@pytest.mark.parametrize(
    "lines",
    [b"X: " + bytes(ord("x") for _ in range(300_000)), b"\r\n".join(b"X%d: y" % n for n in range(10_000))],
)
@kinds
async def test_endless_head_is_refused(kind: Kind, lines: bytes) -> None:
    # B-06. The answer arrives although most of the head was never read into memory.
    result, answer = await ask(with_header(lines), kind=kind)
    assert result is None
    assert answer.startswith(b"HTTP/1.1 431 ")


# ---- peers that vanish, dawdle or talk nonsense


async def send_quietly(stream: trio.abc.Stream, data: bytes) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await stream.send_all(data)


@kinds
@pytest.mark.parametrize(
    "data", [b"", b"GET", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", CLIENT_HELLO]
)
async def test_peer_that_hangs_up_raises_nothing(kind: Kind, data: bytes) -> None:
    # B-02, B-03, B-04.
    result, _ = await ask(data, kind=kind, end=True)
    assert result is None


@kinds
@pytest.mark.parametrize(
    "data",
    [b"", b"GET", REQUEST[:-2], REQUEST, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", CLIENT_HELLO, bytes(300_000)],
)
async def test_peer_that_resets_raises_nothing(kind: Kind, data: bytes) -> None:
    # B-02, B-03, B-04: with the answer unread, before it and after it.
    for turns in range(6):
        theirs, ours = await stream_pair(kind)
        async with theirs, ours, trio.open_nursery() as nursery:
            nursery.start_soon(send_quietly, theirs, data)
            nursery.start_soon(Front(routes=ROUTES).negotiate, ours)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            await RawPeer(theirs).reset()


async def test_stream_that_is_closed_under_it_raises_nothing() -> None:
    theirs, ours = trio.testing.memory_stream_pair()
    async with theirs, trio.open_nursery() as nursery:
        nursery.start_soon(Front().negotiate, ours)
        await trio.testing.wait_all_tasks_blocked()
        await ours.aclose()


async def test_five_hundred_slow_heads_are_all_gone_at_the_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # B-01, B-05.
    front = Front()

    async def dawdle(stream: trio.abc.Stream) -> None:
        try:
            for byte in 100 * REQUEST:
                await stream.send_all(bytes((byte,)))
                await trio.sleep(0.7)
        except trio.BrokenResourceError:
            await stream.aclose()

    async with trio.open_nursery() as nursery:
        for number in range(500):
            theirs, ours = trio.testing.memory_stream_pair()
            if number:
                nursery.start_soon(dawdle, theirs)
            nursery.start_soon(front.negotiate, ours)
        await trio.sleep(5.0)
        await trio.testing.wait_all_tasks_blocked()
        # Only the peers are left, asleep between two bytes.
        assert len(nursery.child_tasks) <= 499
    assert trio.current_time() < 6.0


async def test_peer_that_reads_no_answer_is_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    theirs, ours = trio.testing.lockstep_stream_pair()
    async with theirs, trio.open_nursery() as nursery:
        nursery.start_soon(send_quietly, theirs, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await Front(handshake_timeout=2.0).negotiate(ours) is None
        assert trio.current_time() == pytest.approx(2.0)


async def test_peer_that_goes_on_talking_is_listened_to_for_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    theirs, ours = trio.testing.memory_stream_pair()
    async with theirs:
        await theirs.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await Front().negotiate(ours) is None
        assert trio.current_time() == pytest.approx(1.0)


async def test_cancelling_leaves_the_stream_to_the_caller() -> None:
    theirs, ours = trio.testing.memory_stream_pair()
    async with theirs, ours:
        with trio.move_on_after(0.01) as scope:
            await Front().negotiate(ours)
        assert scope.cancelled_caught
        await ours.send_all(b"still open")


@given(
    st.binary(max_size=200)
    | st.builds(lambda start, end: REQUEST[:start] + end, st.integers(0, 300), st.binary())
)
def test_any_bytes_are_answered_or_refused(data: bytes) -> None:
    async def run() -> None:
        await ask(data, end=True)

    trio.run(run)

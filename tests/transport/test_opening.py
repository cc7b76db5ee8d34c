from __future__ import annotations

import socket
import ssl
import struct
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import trustme
import websockets.exceptions
import websockets.sync.client
import websockets.sync.server
import websockets.typing

from orbtrio.errors import ConfigError, ConnectionLost, RemoteProtocolError
from orbtrio.transport import TransportLimits, open_client_transport, open_server_transport
from tests.transport.peers import (
    BINARY,
    CLOSE,
    KINDS,
    REQUEST,
    Kind,
    RawPeer,
    answer_upgrade,
    client_over,
    echo,
    frame,
    read_head,
    receive_all,
    server_and_peer,
    stream_pair,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

kinds = pytest.mark.parametrize("kind", KINDS)


# ---- a server's side


@kinds
@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01 no HTTP at all\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n",
        REQUEST.replace(b"localhost", b"\xff\xfe"),
        REQUEST.replace(b": 13", b": 12"),
        REQUEST.replace(b"GET", b"POST"),
    ],
)
async def test_head_that_is_no_upgrade_is_a_lost_connection(kind: Kind, head: bytes) -> None:
    # B-03, B-04, B-08: the front refuses these; whoever has none must not fall over either.
    theirs, ours = await stream_pair(kind)
    async with theirs:
        with trio.fail_after(50), pytest.raises(ConnectionLost):
            async with open_server_transport(ours, head, peer="peer"):
                pytest.fail("opened")


@kinds
async def test_peer_that_is_gone_before_the_answer_is_a_lost_connection(kind: Kind) -> None:
    # B-02.
    theirs, ours = await stream_pair(kind)
    await RawPeer(theirs).reset()
    with pytest.raises(ConnectionLost):
        async with open_server_transport(ours, REQUEST, peer="peer") as transport:
            await transport.receive()


async def test_handshake_has_a_deadline(autojump_clock: trio.testing.MockClock) -> None:
    theirs, ours = trio.testing.lockstep_stream_pair()
    async with theirs:
        with pytest.raises(ConnectionLost, match="in time"):
            async with open_server_transport(ours, REQUEST, peer="peer"):
                pytest.fail("opened")
        assert trio.current_time() == pytest.approx(5.0)


async def test_request_without_end_is_no_request(autojump_clock: trio.testing.MockClock) -> None:
    theirs, ours = trio.testing.memory_stream_pair()
    async with theirs:
        with pytest.raises(ConnectionLost, match="in time"):
            async with open_server_transport(ours, REQUEST[:-2], peer="peer"):
                pytest.fail("opened")


@kinds
async def test_cancelled_handshake_leaves_nothing_open(kind: Kind) -> None:
    theirs, ours = await stream_pair(kind)

    async def open_and_wait() -> None:
        async with client_over(ours):
            pytest.fail("opened")

    async with theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_and_wait)
            assert b"Upgrade: websocket" in await theirs.receive_some()
            nursery.cancel_scope.cancel()
        assert await theirs.receive_some() == b""


@pytest.mark.parametrize("names", [{"progress", "cancel"}, set()])
async def test_a_server_announces_its_extensions_to_the_client(names: set[str]) -> None:
    """P-60: in a header of the upgrade's answer, for messages would reach peers that know none of it."""
    theirs, ours = trio.testing.memory_stream_pair()

    async def serve() -> None:
        async with open_server_transport(ours, await read_head(ours), peer="p", announce=names) as server:
            assert server.announced == frozenset()
            with suppress(ConnectionLost):
                await server.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with client_over(theirs) as client:
            assert client.announced == names


async def test_extensions_and_subprotocols_are_not_negotiated() -> None:
    # B-11: no decompression, hence no decompression bombs.
    theirs, ours = trio.testing.memory_stream_pair()
    offers = b"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: " + b", ".join(
        b"p%d" % number for number in range(100)
    )
    head = REQUEST[:-2] + offers + b"\r\n\r\n"
    async with (
        theirs,
        open_server_transport(
            ours, head, peer="peer", limits=TransportLimits(close_timeout=0.01)
        ) as transport,
    ):
        answer = await theirs.receive_some()
        assert b"101" in answer
        assert b"extensions" not in answer.lower()
        assert b"protocol:" not in answer.lower()
        await theirs.send_all(frame(b"not compressed", reserved=4))
        with pytest.raises(RemoteProtocolError, match="reserved bits"):
            await transport.receive()


@kinds
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RemoteProtocolError("why", close_code=1009), 1009),
        (KeyError("mine"), 1011),
        (KeyboardInterrupt(), 1001),
        (None, 1000),
    ],
)
async def test_block_that_ends_closes_with_the_code_of_its_reason(
    kind: Kind, error: BaseException | None, code: int
) -> None:
    farewells: list[tuple[int, bytes]] = []

    async def listen(peer: RawPeer) -> None:
        farewells.append(await peer.frame())
        await peer.send(frame(b"", CLOSE))

    async with trio.open_nursery() as nursery:
        caught: BaseException | None = None
        try:
            async with server_and_peer(kind, stay=True) as (_, peer):
                nursery.start_soon(listen, peer)
                if error is not None:
                    raise error
        except BaseException as bare:
            caught = bare
    assert caught is error
    ((opcode, payload),) = farewells
    assert opcode == CLOSE
    assert int.from_bytes(payload[:2], "big") == code


# ---- a client's side


@kinds
async def test_frames_behind_the_answer_are_received(kind: Kind) -> None:
    theirs, ours = await stream_pair(kind)
    async with theirs, trio.open_nursery() as nursery:
        nursery.start_soon(answer_upgrade, theirs, frame(b"1", masked=False) + frame(b"2", masked=False)[:2])
        async with client_over(ours, close_timeout=0.01) as transport:
            assert transport.peer == "localhost:80"
            assert await transport.receive() == [b"1"]
            await theirs.send_all(frame(b"2", masked=False)[2:])
            assert await transport.receive() == [b"2"]
            transport.send(b"masked")
            peer = RawPeer(theirs)
            peer.unread = bytes(await theirs.receive_some())
            assert peer.unread[1] & 128
            assert await peer.frame() == (BINARY, b"masked")


async def test_headers_and_resource_are_sent() -> None:
    theirs, ours = trio.testing.memory_stream_pair()

    async def open_stream() -> trio.abc.Stream:
        return ours

    async def open_and_wait() -> None:
        async with open_client_transport(
            "ws://[::1]:5000?token=1", open_stream=open_stream, headers=[("X-Team", "blue")]
        ):
            pytest.fail("opened")

    async with theirs, trio.open_nursery() as nursery:
        nursery.start_soon(open_and_wait)
        request = await theirs.receive_some()
        nursery.cancel_scope.cancel()
    assert request.startswith(b"GET /?token=1 HTTP/1.1\r\n")
    assert b"Host: [::1]:5000\r\n" in request
    assert b"X-Team: blue\r\n" in request


@kinds
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nwrong",
            r"HTTP 404 Not Found \(wrong\); check the path",
        ),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "HTTP 403 Forbidden; check the host name"),
        (b"HTTP/1.1 307 Moved\r\nLocation: /x\r\n\r\n", "redirects are not followed"),
        (
            b"HTTP/1.1 500 Internal Server Error\r\n\r\n",
            "HTTP 500 Internal Server Error; is that an ORB engine",
        ),
        (b"SSH-2.0-OpenSSH\r\n", "not.*HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "not.*HTTP.*wss://"),
        (b"HTTP/1.1 200 OK\r\n" + 4000 * b"X-Padding: 0123456789\r\n", "not.*HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "not a WebSocket peer"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
            "not a WebSocket peer",
        ),
        (b"HTTP/1.1 101 \xff\r\nUpgrade: \xff\r\nConnection: \xff\r\n\r\n", "not a WebSocket peer"),
        (b"HTTP/1.1", "hung up"),
        (b"", "hung up .* client certificate"),  # F-45: what such a server does in place of an alert
    ],
)
async def test_refusal_tells_what_the_server_said_and_what_to_check(
    kind: Kind, answer: bytes, text: str
) -> None:
    theirs, ours = await stream_pair(kind)

    async def refuse() -> None:
        await theirs.receive_some()
        await theirs.send_all(answer)
        if b"\r\n\r\n" not in answer:
            assert isinstance(theirs, trio.abc.HalfCloseableStream)
            await theirs.send_eof()

    async with theirs, trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        with trio.fail_after(50), pytest.raises(ConnectionLost, match=text) as caught:
            async with client_over(ours):
                pytest.fail("opened")
        assert caught.value.code is None
        nursery.cancel_scope.cancel()


async def test_reset_in_the_middle_of_the_handshake_is_told() -> None:
    theirs, ours = await stream_pair("tcp")

    async def refuse() -> None:
        await theirs.receive_some()
        await RawPeer(theirs).reset()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        with pytest.raises(ConnectionLost, match="in the middle of the handshake"):
            async with client_over(ours):
                pytest.fail("opened")


async def test_server_that_never_answers_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    theirs, ours = trio.testing.memory_stream_pair()
    async with theirs:
        with pytest.raises(ConnectionLost, match="in time"):
            async with client_over(ours):
                pytest.fail("opened")
    assert trio.current_time() == pytest.approx(5.0)


async def test_nobody_listening_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(
        ConnectionLost, match=rf"cannot connect to 127\.0\.0\.1:{port}: .*is the engine running"
    ):
        async with open_client_transport(f"ws://127.0.0.1:{port}/ws"):
            pytest.fail("opened")


async def test_url_of_something_else_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="ws://localhost:5000/ws"):
        async with open_client_transport("http://localhost"):
            pytest.fail("opened")


# ---- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def serve_tls(stream: trio.abc.Stream, authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
    async with open_server_transport(secured, await read_head(secured), peer="peer") as transport:
        await echo(transport)


async def test_connection_that_was_reset_before_the_upgrade_left_is_given_up_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # Found by ORB-CLI-08: each such attempt cost the two seconds that a peer has for its last words.
    async def open_stream() -> trio.SocketStream:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        return trio.SocketStream(trio.socket.from_stdlib_socket(ours))

    start = trio.current_time()
    with pytest.raises(ConnectionLost, match="reset by peer"):
        async with open_client_transport("ws://localhost:1/ws", open_stream=open_stream):
            pytest.fail("connected to nobody")
    assert trio.current_time() == start


@kinds
async def test_tls_carries_everything(kind: Kind, authority: trustme.CA) -> None:
    theirs, ours = await stream_pair(kind)
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def open_stream() -> trio.abc.Stream:
        return ours

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_tls, theirs, authority)
        async with open_client_transport(
            "wss://localhost/ws", open_stream=open_stream, ssl_context=context
        ) as transport:
            assert transport.peer == "localhost:443"
            for message in (b"small", bytes(1 << 20)):
                transport.send(message)
                assert await receive_all(transport, 1) == [message]


@kinds
async def test_certificate_nobody_trusts_is_told(kind: Kind, authority: trustme.CA) -> None:
    # F-45.
    theirs, ours = await stream_pair(kind)

    async def open_stream() -> trio.abc.Stream:
        return ours

    async def serve() -> None:
        with suppress(trio.BrokenResourceError, EOFError):
            await serve_tls(theirs, authority)
        await trio.aclose_forcefully(theirs)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(ConnectionLost, match=r"no TLS with localhost:443.*certificate"):
            async with open_client_transport("wss://localhost/ws", open_stream=open_stream):
                pytest.fail("opened")


@kinds
async def test_tls_with_a_server_that_does_not_speak_it_is_told(kind: Kind) -> None:
    theirs, ours = await stream_pair(kind)

    async def open_stream() -> trio.abc.Stream:
        return ours

    async with theirs:
        await theirs.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(ConnectionLost, match="no TLS with localhost:443"):
            async with open_client_transport("wss://localhost/ws", open_stream=open_stream):
                pytest.fail("opened")


async def test_stalled_tls_handshake_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    # F-45.
    theirs, ours = trio.testing.memory_stream_pair()

    async def open_stream() -> trio.abc.Stream:
        return ours

    async with theirs:
        with pytest.raises(ConnectionLost, match="no answer from localhost:443 in time"):
            async with open_client_transport("wss://localhost/ws", open_stream=open_stream):
                pytest.fail("opened")
        assert trio.current_time() == pytest.approx(5.0)


# ---- interoperability: the other end is the library `websockets`, in a thread


SIZES = [0, 1, 125, 126, 65535, 65536, 1 << 20]


@contextmanager
def websockets_server() -> Iterator[int]:
    """An echo server; its port."""

    def echo(connection: websockets.sync.server.ServerConnection) -> None:
        for message in connection:
            if message == b"ping":
                assert connection.ping(b"from the server").wait(50)
            if message == b"close":
                connection.close(4000, "as you like")
                return
            # In two fragments, with a ping in between.
            connection.send([message[:3], message[3:]])

    with websockets.sync.server.serve(echo, "127.0.0.1", 0, compression=None, max_size=2 << 20) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()


async def test_our_client_and_a_server_of_websockets() -> None:
    with websockets_server() as port:
        async with open_client_transport(f"ws://127.0.0.1:{port}/ws") as transport:
            for size in SIZES:
                transport.queue(bytes(size))
            transport.send(b"ping")
            messages = await receive_all(transport, len(SIZES) + 1)
            assert [len(message) for message in messages] == [*SIZES, 4]
            transport.send(b"close")
            with pytest.raises(ConnectionLost) as caught:
                await transport.receive()
            assert (caught.value.code, caught.value.reason) == (4000, "as you like")
        async with open_client_transport(f"ws://127.0.0.1:{port}/ws") as transport:
            await transport.close(1000, "done")


def use_websockets_client(port: int) -> tuple[list[int], int, str]:
    """Sizes echoed, and how the server closed."""
    with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/ws", max_size=2 << 20) as client:
        sizes = []
        for size in SIZES:
            client.send(bytes(size))
            sizes.append(len(client.recv()))
        # Fragments.
        client.send(iter([b"one", b"", b"message"]))
        assert client.recv() == b"onemessage"
        assert client.ping(b"are you there?").wait(50)
        client.send("text")
        with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
            client.recv()
        assert caught.value.rcvd is not None
        return sizes, caught.value.rcvd.code, caught.value.rcvd.reason


async def test_our_server_and_a_client_of_websockets() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]

    async def serve() -> None:
        async with listener:
            stream = await listener.accept()
        with suppress(RemoteProtocolError):
            async with open_server_transport(stream, await read_head(stream), peer="peer") as transport:
                await echo(transport)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        sizes, code, reason = await trio.to_thread.run_sync(use_websockets_client, port)
    assert sizes == SIZES
    assert code == 1003
    assert "binary" in reason

from __future__ import annotations

import pytest
import trio
import trio.testing

from orbtrio.errors import ConfigError, ConnectionLost
from orbtrio.transport.dial import Target, read_answer
from orbtrio.transport.pipes import StreamPipe


@pytest.mark.parametrize(
    ("url", "target", "peer"),
    [
        ("ws://localhost:5000/ws", Target("localhost", 5000, False, "/ws"), "localhost:5000"),
        ("ws://LocalHost", Target("localhost", 80, False, "/"), "localhost:80"),
        (
            "wss://engine.example/ws?a=b&c",
            Target("engine.example", 443, True, "/ws?a=b&c"),
            "engine.example:443",
        ),
        ("wss://[::1]:1/ws", Target("::1", 1, True, "/ws"), "[::1]:1"),
    ],
)
def test_url_leads_somewhere(url: str, target: Target, peer: str) -> None:
    assert Target.parse(url) == target
    assert str(target) == peer


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:5000",
        "http://localhost",
        "ws://",
        "ws:///ws",
        "ws://host:port/",
        "ws://[::1/",
        "ws://h:70000/",
    ],
)
def test_url_that_leads_nowhere_is_told(url: str) -> None:
    with pytest.raises(ConfigError, match="ws://localhost:5000/ws"):
        Target.parse(url)


def test_secrets_in_a_url_stay_out_of_errors() -> None:
    for url in (
        "http://me:secret@host/?token=secret",
        "ws://me:secret@host/ws",
        "ws://me:secret@[::1/?secret",
    ):
        with pytest.raises(ConfigError) as caught:
            Target.parse(url)
        assert "secret" not in str(caught.value)


async def test_localhost_is_found_whichever_address_it_resolves_to_first() -> None:
    # F-46.
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        target = Target("localhost", listener.socket.getsockname()[1], False, "/")
        async with await target.connect(trio.current_time() + 5):
            pass


async def test_name_that_does_not_resolve_is_told() -> None:
    async def open_stream() -> trio.abc.Stream:
        raise OSError("Name or service not known")

    target = Target("no.such.host", 5000, False, "/")
    with pytest.raises(
        ConnectionLost, match=r"cannot connect to no\.such\.host:5000: Name or service not known"
    ):
        await target.connect(trio.current_time() + 5, open_stream=open_stream)


async def test_connecting_has_a_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async def open_stream() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(ConnectionLost, match="no answer from host:1 in time; is the engine running"):
        await Target("host", 1, False, "/").connect(trio.current_time() + 5, open_stream=open_stream)
    assert trio.current_time() == pytest.approx(5.0)


async def test_answer_may_come_in_pieces() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"

    async def answer() -> None:
        for byte in head + b"behind":
            await theirs.send_all(bytes((byte,)))
            await trio.testing.wait_all_tasks_blocked()

    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        assert await read_answer(StreamPipe(ours)) == (head, b"")

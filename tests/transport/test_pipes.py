from __future__ import annotations

import errno
import socket
import ssl

import pytest
import trio
import trio.testing

from orbtrio.transport.pipes import BROKEN, Interrupted, Pipe, SocketPipe, StreamPipe, describe, open_pipe
from orbtrio.transport.turns import Turns
from tests.transport.peers import KINDS, Kind, stream_pair

kinds = pytest.mark.parametrize("kind", KINDS)


async def pipe_and_stream(kind: Kind) -> tuple[Pipe, trio.abc.Stream]:
    theirs, ours = await stream_pair(kind)
    return open_pipe(ours, user_timeout=30), theirs


async def test_plain_sockets_are_driven_directly_and_everything_else_is_not() -> None:
    theirs, ours = await stream_pair("tcp")
    async with theirs:
        pipe = open_pipe(ours, user_timeout=30)
        assert isinstance(pipe, SocketPipe)
        # The stream has nothing left to close.
        await ours.aclose()
        await theirs.send_all(b"alive")
        assert await pipe.receive(10) == b"alive"
        await pipe.aclose()
    theirs, ours = await stream_pair("tcp")
    async with theirs:
        assert isinstance(ours, trio.SocketStream)
        secured = open_pipe(
            trio.SSLStream(ours, ssl.create_default_context(), server_hostname="x"), user_timeout=30
        )
        assert isinstance(secured, StreamPipe)
        await secured.aclose()


@kinds
async def test_bytes_go_both_ways_until_the_end(kind: Kind) -> None:
    pipe, stream = await pipe_and_stream(kind)
    data = memoryview(bytes(range(256)) * 4096)
    async with trio.open_nursery() as nursery:
        received = bytearray()

        async def read() -> None:
            while len(received) < len(data):
                received.extend(await stream.receive_some())

        nursery.start_soon(read)
        sent = pipe.send_now(bytes(data[:10]))
        while sent < len(data):
            sent += await pipe.send_some(data[sent:])
    assert received == data
    await stream.send_all(b"answer")
    assert await pipe.receive(3) == b"ans"
    assert await pipe.receive(3) == b"wer"
    await stream.send_all(b"more")
    buffer = bytearray(b".......")
    assert await pipe.receive_into(memoryview(buffer)[1:6]) == 4
    assert buffer == b".more.."
    await stream.aclose()
    assert await pipe.receive(3) == b""
    assert await pipe.receive_into(memoryview(buffer)) == 0
    await pipe.aclose()
    await pipe.aclose()


@kinds
async def test_interrupt_wakes_the_receiver_and_breaks_nothing(kind: Kind) -> None:
    pipe, stream = await pipe_and_stream(kind)
    pipe.interrupt()
    async with stream, trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(Interrupted):
                await pipe.receive(1)
            assert await pipe.receive(10) == b"later"

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        pipe.interrupt()
        await stream.send_all(b"later")
    await pipe.aclose()


async def test_interrupt_does_not_disturb_the_sender() -> None:
    pipe, stream = await pipe_and_stream("tcp")
    while pipe.send_now(bytes(1 << 20)):
        pass
    async with stream, trio.open_nursery() as nursery:
        sent = 0

        async def send() -> None:
            nonlocal sent
            sent = await pipe.send_some(memoryview(b"waits"))

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        pipe.interrupt()
        await trio.testing.wait_all_tasks_blocked()
        assert sent == 0
        while not sent:
            await stream.receive_some(1 << 20)
    await pipe.aclose()


@kinds
async def test_close_wakes_everybody(kind: Kind) -> None:
    if kind == "tcp":
        pipe, stream = await pipe_and_stream(kind)
        while pipe.send_now(bytes(1 << 20)):
            pass
    else:
        stream, ours = trio.testing.lockstep_stream_pair()
        pipe = open_pipe(ours, user_timeout=30)
    async with stream, trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await pipe.receive(1)

        async def send() -> None:
            with pytest.raises((trio.ClosedResourceError, trio.BrokenResourceError)):
                await pipe.send_some(memoryview(b"waits"))

        nursery.start_soon(receive)
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        pipe.close()
        pipe.close()
        await pipe.aclose()
    with pytest.raises(BROKEN):
        await pipe.receive(1)
    with pytest.raises(BROKEN):
        await pipe.send_some(memoryview(b"x"))
    pipe.interrupt()


def test_description_names_what_really_happened() -> None:
    reset = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    broken = trio.BrokenResourceError("socket connection broken")
    broken.__cause__ = reset
    assert "reset by peer" in describe(ExceptionGroup("", [ExceptionGroup("", [broken])]))
    assert describe(trio.BrokenResourceError("why")) == "why"
    assert describe(trio.ClosedResourceError()) == "ClosedResourceError"


@pytest.mark.parametrize("end", ["bytes", "interrupt", "close", "nothing yet"])
async def test_in_line_for_a_turn_a_socket_hears_what_happens(end: str) -> None:
    theirs, ours = socket.socketpair()
    time = 0.0
    turns = Turns(1, lambda: time)
    pipe = SocketPipe(ours, user_timeout=10)
    buffer = bytearray(10)
    outcome: list[object] = []

    async def receive() -> None:
        try:
            outcome.append(await pipe.receive_into(memoryview(buffer), turns))
        except (Interrupted, trio.ClosedResourceError) as error:
            outcome.append(type(error))

    async def hold_up() -> None:
        # Every turn is over as soon as somebody has got in.
        nonlocal time
        while True:
            await turns.enter()
            time += 100
            await trio.lowlevel.checkpoint()

    with theirs, turns.followed(), trio.fail_after(50):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(hold_up)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            if end == "bytes":
                theirs.send(b"12345")
                await trio.lowlevel.wait_readable(ours)
            nursery.start_soon(receive)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            if end == "interrupt":
                pipe.interrupt()
            elif end == "close":
                pipe.close()
            elif end == "nothing yet":
                for _ in range(30):
                    await trio.lowlevel.checkpoint()
                theirs.send(b"12345")
            while not outcome:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    expected = {"interrupt": Interrupted, "close": trio.ClosedResourceError}.get(end, 5)
    assert outcome == [expected]
    pipe.close()

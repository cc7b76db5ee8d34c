from __future__ import annotations

import os
import socket
import statistics
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from orbtrio.errors import ConnectionLost, RemoteProtocolError
from orbtrio.transport import Flusher, Transport, TransportLimits
from orbtrio.transport.websocket import ping
from tests.transport.peers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KINDS,
    PING,
    PONG,
    TEXT,
    Kind,
    RawPeer,
    StreamPair,
    answer_upgrade,
    both_ends,
    client_over,
    close_payload,
    frame,
    receive_all,
    server_and_peer,
    split_frames,
    stream_pair,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orbtrio.transport.websocket import WebSocket

kinds = pytest.mark.parametrize("kind", KINDS)

TEXT_REFUSED = "text frame; messages are binary, one CBOR map each"
BYE = frame(close_payload(1000, "bye"), CLOSE)


async def lost(transport: Transport) -> ConnectionLost:
    try:
        while True:
            await transport.receive()
    except ConnectionLost as error:
        return error


async def refused(transport: Transport) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        await transport.receive()
    return caught.value


# ---- messages


@kinds
async def test_messages_travel_both_ways_in_order(kind: Kind) -> None:
    messages = [os.urandom(size) for size in (0, 1, 125, 126, 65535, 65536, 1 << 20, 3)]
    async with both_ends(kind) as (client, server), trio.open_nursery() as nursery:
        for one, other in ((client, server), (server, client)):
            for message in messages:
                one.queue(message[:7], message[7:])
            one.flush()
            nursery.start_soon(one.wait_sent)
            assert await receive_all(other, len(messages)) == messages
    assert client.closed
    assert server.closed


@kinds
async def test_one_read_brings_all_its_messages(kind: Kind) -> None:
    # F-16: a thousand frames in one segment.
    messages = [b"%d" % number for number in range(1000)]
    async with server_and_peer(kind) as (transport, peer):
        await peer.send(*map(frame, messages))
        assert await transport.receive() == messages


@kinds
async def test_one_byte_at_a_time_is_a_message_all_the_same(kind: Kind) -> None:
    # F-15.
    async with server_and_peer(kind) as (transport, peer):
        for byte in (
            frame(b"ab", fin=False) + frame(b"", PING) + frame(b"c", CONTINUATION) + frame(bytes(126))
        ):
            await peer.send(bytes((byte,)))
            await trio.testing.wait_all_tasks_blocked()
        assert await receive_all(transport, 2) == [b"abc", bytes(126)]


@kinds
async def test_frames_behind_the_request_are_received(kind: Kind) -> None:
    # B-12.
    async with server_and_peer(kind, pipelined=frame(b"1") + frame(b"2")[:5]) as (transport, peer):
        assert await transport.receive() == [b"1"]
        await peer.send(frame(b"2")[5:])
        assert await transport.receive() == [b"2"]


@kinds
async def test_limit_may_be_raised_between_two_messages_of_one_read(kind: Kind) -> None:
    # P-52: 64 KiB before registration, more afterwards.
    limits = TransportLimits(max_message_bytes=10)
    async with server_and_peer(kind, limits) as (transport, peer):
        await peer.send(frame(b"register"), frame(b"larger than before"), frame(b"3"))
        assert await transport.receive(most=1) == [b"register"]
        transport.max_message_bytes = 1000
        assert transport.max_message_bytes == 1000
        assert await transport.receive() == [b"larger than before", b"3"]


@kinds
async def test_cancelling_receive_loses_nothing(kind: Kind) -> None:
    message = frame(b"one") + frame(b"two", fin=False) + frame(b"", PING) + frame(b"!", CONTINUATION)
    async with server_and_peer(kind) as (transport, peer):
        received: list[bytes] = []
        for byte in message:
            with trio.CancelScope() as scope:
                scope.cancel()
                received += await transport.receive()
            await peer.send(bytes((byte,)))
            if kind == "tcp":
                await trio.sleep(0.001)
            with trio.move_on_after(0.001):
                received += await transport.receive()
        with trio.fail_after(50):
            received += await receive_all(transport, 2 - len(received))
        assert received == [b"one", b"two!"]
        assert await peer.frame() == (PONG, b"")


async def test_buffered_bytes_and_state_can_be_seen() -> None:
    async with server_and_peer("memory") as (transport, _):
        transport.queue(b"12345")
        assert transport.buffered_bytes == 7
        assert repr(transport) == "<Transport peer, open, 7 bytes unsent>"
        transport.flush()
        await transport.wait_sent()
        assert transport.buffered_bytes == 0
        assert transport.last_received <= trio.current_time()
        transport.abort()
        assert transport.closed
        assert "ended" in repr(transport)


async def test_flusher_writes_each_connection_once() -> None:
    flusher = Flusher()
    async with (
        server_and_peer("tcp", flusher=flusher) as (first, peer_of_first),
        server_and_peer("tcp", flusher=flusher) as (second, peer_of_second),
    ):
        first.queue(b"1")
        second.queue(b"a")
        first.queue(b"2")
        assert first.buffered_bytes == 6
        flusher.flush()
        assert first.buffered_bytes == second.buffered_bytes == 0
        assert [await peer_of_first.frame() for _ in "12"] == [(BINARY, b"1"), (BINARY, b"2")]
        assert await peer_of_second.frame() == (BINARY, b"a")
        first.queue(b"3")
        flusher.flush()
        flusher.flush()
        assert await peer_of_first.frame() == (BINARY, b"3")


# ---- violations


@kinds
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(b"text", TEXT), 1003),
        (frame(b"clear", masked=False), 1002),
        (frame(b"", reserved=4), 1002),
        (frame(b"", 3), 1002),
        (frame(b"", CONTINUATION), 1002),
        (frame(bytes(126), PING), 1002),
        (frame(b"", PING, fin=False), 1002),
        (frame(bytes(1001)), 1009),
        (frame(bytes(500), fin=False) + frame(bytes(501), CONTINUATION), 1009),
        (frame(b"", fin=False) + 1024 * frame(b"", CONTINUATION, fin=False), 1008),
        (frame(b"\x03", CLOSE), 1002),
    ],
)
async def test_peer_that_breaks_the_rules_is_told_which(kind: Kind, data: bytes, code: int) -> None:
    # B-14 to B-17 and B-20, with messages before and behind.
    async with server_and_peer(kind, TransportLimits(max_message_bytes=1000, close_timeout=50)) as (
        transport,
        peer,
    ):
        await peer.send(frame(b"good"), data, frame(b"ignored"))
        assert await receive_all(transport, 1) == [b"good"]
        error = await refused(transport)
        assert error.close_code == code
        assert (await refused(transport)).reason == error.reason
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.close, error.close_code, error.reason)
            assert await peer.frame() == (CLOSE, close_payload(code, error.reason))
            await peer.send(BYE)
        assert (await lost(transport)).code == code
        assert await peer.frames() == []


@kinds
async def test_peer_hears_why_while_it_still_sends_the_message_too_large(kind: Kind) -> None:
    # B-16. The frame is never buffered, the close frame is not lost in a reset.
    size = 2 << 20
    limits = TransportLimits(max_message_bytes=1000, close_timeout=50)
    async with server_and_peer(kind, limits) as (transport, peer):

        async def send() -> None:
            data = memoryview(frame(b"", declared=size) + bytes(size) + BYE)
            while data:
                await peer.send(bytes(data[:10_000]))
                data = data[10_000:]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            error = await refused(transport)
            assert error.close_code == 1009
            nursery.start_soon(transport.close, error.close_code, error.reason)
            assert await peer.frames() == [(CLOSE, close_payload(1009, error.reason))]


@kinds
async def test_block_that_ends_with_a_violation_closes_with_its_code(kind: Kind) -> None:
    caught: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            async with server_and_peer(kind, stay=True) as (transport, peer):
                await peer.send(frame(b"text", TEXT), BYE)
                nursery.start_soon(expect, peer, (CLOSE, close_payload(1003, TEXT_REFUSED)))
                await transport.receive()
        except RemoteProtocolError as bare:
            caught = bare
    assert caught is not None


async def expect(peer: RawPeer, *expected: tuple[int, bytes]) -> None:
    assert await peer.frames() == list(expected)


@kinds
async def test_rules_hold_for_servers_too(kind: Kind) -> None:
    theirs, ours = await stream_pair(kind)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_upgrade, theirs, frame(b"masked"))
        async with client_over(ours, close_timeout=0.05) as transport:
            assert (await refused(transport)).close_code == 1002
        await trio.aclose_forcefully(theirs)


# ---- control frames


@kinds
async def test_ping_is_answered_among_messages(kind: Kind) -> None:
    async with server_and_peer(kind) as (transport, peer), trio.open_nursery() as nursery:
        await peer.send(frame(b"1"), frame(b"are you there?", PING), frame(b"2"))
        assert await receive_all(transport, 2) == [b"1", b"2"]
        nursery.start_soon(lost, transport)
        assert await peer.frame() == (PONG, b"are you there?")
        await peer.send(frame(b"unasked", PONG), BYE)


async def test_thousands_of_fragments_are_a_message_where_they_may() -> None:
    limits = TransportLimits(max_fragments=10_000)
    rest = 5000 * frame(b"x", CONTINUATION, fin=False) + frame(b"", CONTINUATION)
    async with server_and_peer("tcp", limits) as (transport, peer):
        await peer.send(frame(b"x", fin=False), rest)
        assert await transport.receive() == [b"x" * 5001]
        await peer.send(BYE)


@kinds
async def test_flood_of_pings_costs_others_nothing(kind: Kind) -> None:
    # B-18. The latest ping is always answered, and so are all that do not come at once.
    count = 20_000
    flood = b"".join(frame(b"%d" % number, PING) for number in range(count))
    async with server_and_peer(kind) as (flooded, flooder), server_and_peer(kind) as (transport, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lost, flooded)
            answers: list[tuple[int, bytes]] = []

            async def hear_answers() -> None:
                while (PONG, b"%d" % (count - 1)) not in answers[-1:]:
                    answers.append(await flooder.frame())
                await flooder.send(BYE)

            nursery.start_soon(flooder.send, flood)
            nursery.start_soon(hear_answers)
            delays = []
            while not flooded.closed:
                started = time.monotonic()
                await peer.send(frame(b"healthy"))
                await transport.receive()
                delays.append(time.monotonic() - started)
        numbers = [int(payload) for _, payload in answers]
        assert numbers == sorted(set(numbers))
        assert statistics.median(delays) < 0.5


async def test_peer_that_floods_pings_and_reads_no_pongs_is_cut(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # B-19.
    async with (
        server_and_peer("memory", streams=trio.testing.lockstep_stream_pair()) as (transport, peer),
        trio.open_nursery() as nursery,
    ):

        async def flood() -> None:
            with suppress(trio.BrokenResourceError):
                while True:
                    await peer.send(100 * frame(b"ping", PING))

        nursery.start_soon(flood)
        started = trio.current_time()
        error = await lost(transport)
        assert "took no byte for 10 s" in error.reason
        assert trio.current_time() - started == pytest.approx(10.0)


# ---- the peer ends it


@kinds
@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [(close_payload(1001, "going"), 1001, "going"), (b"", None, "closed by the peer")],
)
async def test_close_frame_of_the_peer_is_answered(
    kind: Kind, payload: bytes, code: int | None, reason: str
) -> None:
    async with server_and_peer(kind) as (transport, peer):
        await peer.send(frame(b"last"), frame(payload, CLOSE), frame(b"too late"), BYE, BYE)
        transport.send(b"from us")
        assert await receive_all(transport, 1) == [b"last"]
        error = await lost(transport)
        assert (error.code, error.reason) == (code, reason)
        assert transport.closed
        assert [opcode for opcode, _ in await peer.frames()] == [BINARY, CLOSE]


@kinds
async def test_both_ends_hear_of_a_close(kind: Kind) -> None:
    async with both_ends(kind) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.close, 3000, "enough")
        error = await lost(server)
        assert (error.code, error.reason) == (3000, "enough")
        assert (await lost(client)).code == 3000
    async with both_ends(kind) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.close, 1001, "stopping")
        error = await lost(client)
        assert (error.code, error.reason) == (1001, "stopping")


@kinds
async def test_both_ends_may_close_at_once(kind: Kind) -> None:
    async with both_ends(kind) as (client, server), trio.open_nursery() as nursery:
        with trio.fail_after(50):
            async with trio.open_nursery() as closing:
                closing.start_soon(client.close)
                closing.start_soon(server.close)
        nursery.cancel_scope.cancel()


@kinds
async def test_peer_that_hangs_up_is_lost_without_a_code(kind: Kind) -> None:
    # B-22: with data unread, on both sides.
    async with server_and_peer(kind) as (transport, peer):
        await peer.send(frame(b"last"), frame(b"half")[:3])
        transport.send(b"unread")
        await trio.testing.wait_all_tasks_blocked()
        await trio.aclose_forcefully(peer.stream)
        # On TCP the reset may overtake it.
        with suppress(ConnectionLost):
            assert await transport.receive() == [b"last"]
        assert (await lost(transport)).code is None
        transport.send(b"dropped")
        await transport.close()
        await transport.close()
        assert (await lost(transport)).code is None


async def test_reset_is_a_lost_connection() -> None:
    async with server_and_peer("tcp") as (transport, peer):
        await peer.reset()
        error = await lost(transport)
        assert error.code is None
        assert "reset" in error.reason.lower()


async def test_reset_is_noticed_by_a_write() -> None:
    async with server_and_peer("tcp") as (transport, peer):
        await peer.reset()
        while not transport.closed:
            transport.send(b"x")
            await trio.lowlevel.checkpoint()
        with pytest.raises(ConnectionLost):
            await transport.wait_sent()


@kinds
async def test_last_words_are_heard_after_a_write_has_failed(kind: Kind) -> None:
    # F-05. A peer that refuses us may close TCP before it has read everything: that must not hide why.
    async with server_and_peer(kind, TransportLimits(max_buffered_bytes=1 << 30, close_timeout=50)) as (
        transport,
        peer,
    ):
        transport.send(b"never read")
        await transport.wait_sent()
        await peer.send(frame(b"result"), frame(close_payload(1008, "why"), CLOSE))
        await peer.reset() if kind == "memory" else await trio.aclose_forcefully(peer.stream)
        with trio.fail_after(50):
            while not transport.closed:
                transport.send(bytes(100_000))
                await trio.lowlevel.checkpoint()
        with pytest.raises(ConnectionLost):
            await transport.wait_sent()
        assert await transport.receive() == [b"result"]
        error = await lost(transport)
        assert (error.code, error.reason) == (1008, "why")


@pytest.mark.parametrize("ends", [True, False])
async def test_reader_hears_what_broke_the_writer(ends: bool, autojump_clock: trio.testing.MockClock) -> None:
    theirs, ours = trio.testing.memory_stream_pair()
    assert isinstance(ours, trio.StapledStream)
    async with server_and_peer("memory", streams=(theirs, ours)) as (transport, _):
        ours.send_stream.send_all_hook = break_write
        transport.send(b"x")
        await trio.testing.wait_all_tasks_blocked()
        if ends:
            await trio.aclose_forcefully(theirs)
        assert (await lost(transport)).reason == "no route to host"
        assert trio.current_time() == pytest.approx(0.0 if ends else 2.0)


async def break_write() -> None:
    raise OSError("no route to host")


# ---- we end it


@kinds
async def test_close_lets_the_answer_to_the_peers_close_frame_leave_first(kind: Kind) -> None:
    size = 8 << 20
    async with server_and_peer(kind) as (transport, peer), trio.open_nursery() as nursery:
        transport.send(bytes(size))
        await peer.send(BYE)
        nursery.start_soon(lost, transport)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(transport.close, 1001, "\ud800")
        assert await peer.frames() == [(BINARY, bytes(size)), (CLOSE, close_payload(1000, "bye"))]


@kinds
async def test_close_sends_what_is_queued_first(kind: Kind) -> None:
    size = 5 << 20
    async with server_and_peer(kind) as (transport, peer), trio.open_nursery() as nursery:
        transport.queue(bytes(size))
        transport.queue(b"last")
        nursery.start_soon(transport.close, 1001, "stopping")
        assert await peer.frame() == (BINARY, bytes(size))
        assert await peer.frame() == (BINARY, b"last")
        assert await peer.frame() == (CLOSE, close_payload(1001, "stopping"))
        await peer.send(BYE)
        assert await peer.frames() == []
        transport.send(b"dropped")
        assert transport.buffered_bytes == 0


@kinds
async def test_close_wakes_the_task_that_receives(kind: Kind) -> None:
    async with server_and_peer(kind) as (transport, peer), trio.open_nursery() as nursery:

        async def receive() -> None:
            error = await lost(transport)
            assert (error.code, error.reason) == (1008, "out")

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(transport.close, 1008, "out")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(transport.close)
        assert await peer.frame() == (CLOSE, close_payload(1008, "out"))
        # What comes before the peer's answer is dropped, and pings now are no reason to fall over.
        await peer.send(frame(b"crossing"), frame(b"", PING), frame(bytes(100_000)), frame(b"", PONG), BYE)
        with trio.fail_after(50):
            await receive()
            assert await peer.frames() == []


@kinds
async def test_pings_read_before_closing_are_no_trouble(kind: Kind) -> None:
    async with server_and_peer(kind) as (transport, peer), trio.open_nursery() as nursery:
        await peer.send(frame(b"1"), *(100 * [frame(b"", PING)]))
        await receive_all(transport, 1)
        nursery.start_soon(transport.close)
        with trio.fail_after(50):
            frames = [await peer.frame()]
            while frames[-1][0] != CLOSE:
                frames.append(await peer.frame())
            await peer.send(BYE)
            assert await peer.frames() == []


@kinds
async def test_close_frame_that_was_read_but_not_answered_is_answered_by_close(kind: Kind) -> None:
    async with server_and_peer(kind) as (transport, peer):
        await peer.send(frame(b"last"), BYE)
        await receive_all(transport, 1)
        with trio.fail_after(50):
            await transport.close(1000)
        assert [opcode for opcode, _ in await peer.frames()] == [CLOSE]


async def test_close_is_bounded_when_the_peer_says_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with server_and_peer("memory") as (transport, _):
        started = trio.current_time()
        await transport.close(1000, "bye")
        assert trio.current_time() - started == pytest.approx(2.0)
        assert (await lost(transport)).code == 1000


async def test_close_is_bounded_when_the_peer_reads_nothing(autojump_clock: trio.testing.MockClock) -> None:
    streams = trio.testing.lockstep_stream_pair()
    async with server_and_peer("memory", streams=streams) as (transport, _):
        transport.send(bytes(100))
        started = trio.current_time()
        await transport.close()
        assert trio.current_time() - started == pytest.approx(2.0)


@kinds
async def test_cancelled_session_still_says_goodbye(kind: Kind) -> None:
    frames: list[tuple[int, bytes]] = []

    async def session(task_status: trio.TaskStatus[tuple[trio.CancelScope, RawPeer]]) -> None:
        with trio.CancelScope() as scope:
            async with server_and_peer(kind, stay=True) as (transport, peer):
                transport.queue(b"answer")
                nursery.start_soon(listen, peer)
                task_status.started((scope, peer))
                await transport.receive()

    async def listen(peer: RawPeer) -> None:
        frames.append(await peer.frame())
        frames.append(await peer.frame())
        await peer.send(BYE)

    async with trio.open_nursery() as nursery:
        scope, _ = await nursery.start(session)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
    assert frames == [(BINARY, b"answer"), (CLOSE, close_payload(1001, "going away"))]


@kinds
async def test_exception_of_the_block_comes_out_bare(kind: Kind) -> None:
    peer: RawPeer | None = None
    with pytest.raises(ValueError, match="mine"):
        async with server_and_peer(kind, TransportLimits(close_timeout=0.05)) as (_, peer):
            raise ValueError("mine")
    assert peer is not None


@kinds
async def test_abort_wakes_everybody_at_once(kind: Kind) -> None:
    async with server_and_peer(kind) as (transport, peer), trio.open_nursery() as nursery:

        async def receive() -> None:
            assert (await lost(transport)).reason == "because"

        async def wait() -> None:
            with pytest.raises(ConnectionLost, match="because"):
                await transport.wait_sent()

        transport.queue(bytes(1 << 20))
        nursery.start_soon(receive)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        transport.abort("because")
        transport.abort("again")
        assert transport.buffered_bytes == 0
        assert await peer.frames() == []


# ---- peers that do not read


async def test_peer_that_reads_nothing_is_cut_at_the_byte_limit() -> None:
    async with server_and_peer("tcp", TransportLimits(max_buffered_bytes=1 << 20)) as (transport, _):
        for _ in range(100):
            transport.send(bytes(1 << 16))
            if transport.closed:
                break
        assert "bytes unsent" in (await lost(transport)).reason


async def test_write_that_gets_nowhere_ends_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with server_and_peer("memory", streams=trio.testing.lockstep_stream_pair()) as (transport, _):
        transport.send(b"never read")
        started = trio.current_time()
        assert "took no byte for 10 s" in (await lost(transport)).reason
        assert trio.current_time() - started == pytest.approx(10.0)


async def test_slow_reader_is_not_cut_as_long_as_it_reads(autojump_clock: trio.testing.MockClock) -> None:
    size = 1 << 20
    streams = trio.testing.lockstep_stream_pair()
    async with (
        server_and_peer("memory", streams=streams) as (transport, peer),
        trio.open_nursery() as nursery,
    ):
        transport.send(bytes(size))

        async def read() -> None:
            for _ in range((size >> 16) + 2):
                await trio.sleep(4)
                await peer.stream.receive_some(1 << 16)

        nursery.start_soon(read)
        await transport.wait_sent(below=size // 2)
        assert 0 < transport.buffered_bytes <= size // 2
        await transport.wait_sent()
        assert transport.buffered_bytes == 0
        assert trio.current_time() > 60
        nursery.cancel_scope.cancel()


async def test_fifty_peers_that_read_nothing_hold_up_nobody() -> None:
    flusher = Flusher()
    async with trio.open_nursery() as nursery:
        stopped: list[Transport] = []

        async def stop(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            async with server_and_peer("tcp", flusher=flusher) as (transport, _):
                stopped.append(transport)
                task_status.started()
                await trio.sleep_forever()

        for _ in range(50):
            await nursery.start(stop)
        async with server_and_peer("tcp", flusher=flusher) as (healthy, peer):
            rounds = []
            for _ in range(10):
                started = time.monotonic()
                for transport in (*stopped, healthy):
                    transport.queue(bytes(1 << 16))
                flusher.flush()
                assert await peer.frame() == (BINARY, bytes(1 << 16))
                rounds.append(time.monotonic() - started)
            assert statistics.median(rounds) < 2.0
        for transport in stopped:
            transport.abort()
        nursery.cancel_scope.cancel()


# ---- silence


async def run_peer(peer: RawPeer, *, answer: bool = True) -> None:
    """Read, and answer pings, until the connection ends."""
    try:
        while True:
            opcode, payload = await peer.frame()
            if opcode == PING and answer:
                await peer.send(frame(payload, PONG))
    except (EOFError, trio.BrokenResourceError):
        pass


async def test_silent_peer_is_asked_and_then_given_up(autojump_clock: trio.testing.MockClock) -> None:
    # F-06, F-10.
    async with server_and_peer("memory") as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_peer, peer, answer=False))
        error = await lost(transport)
        assert error.code is None
        assert "no answer to ping within 20 s" in error.reason
        assert trio.current_time() == pytest.approx(40.0)


async def test_peer_that_answers_pings_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    async with server_and_peer("memory") as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(run_peer, peer)
        with trio.move_on_after(3600):
            await transport.receive()
        assert not transport.closed
        assert trio.current_time() - transport.last_received <= 20.0
        transport.abort()


async def test_process_that_was_held_up_blames_nobody(mock_clock: trio.testing.MockClock) -> None:
    # F-36. The answer came in time, we did not.
    limits = TransportLimits(ping_interval=1, ping_timeout=4)
    async with server_and_peer("memory", limits) as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(lost, transport)
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(1)
            opcode, payload = await peer.frame()
            assert opcode == PING
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(frame(payload, PONG))
            mock_clock.jump(8)
            await trio.testing.wait_all_tasks_blocked()
            assert not transport.closed
        transport.abort()


async def test_process_that_was_held_up_before_it_asked_asks_again(
    mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # F-34. By its clock the time to answer was over before the question left.
    held_up = [8]

    async def ask_late(websocket: WebSocket) -> bool:
        if held_up:
            mock_clock.jump(held_up.pop())
        return await ping(websocket)

    monkeypatch.setattr("orbtrio.transport.connection.ping", ask_late)
    limits = TransportLimits(ping_interval=1, ping_timeout=4)
    async with server_and_peer("memory", limits) as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(lost, transport)
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(1)
            opcode, payload = await peer.frame()
            assert opcode == PING
            await trio.testing.wait_all_tasks_blocked()  # a peer elsewhere takes some time
            assert not transport.closed
            await peer.send(frame(payload, PONG))
        transport.abort()


async def test_pings_follow_each_other_at_the_interval(autojump_clock: trio.testing.MockClock) -> None:
    limits = TransportLimits(ping_interval=1.0)
    async with server_and_peer("memory", limits) as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(lost, transport)
        for second in range(1, 6):
            opcode, payload = await peer.frame()
            assert opcode == PING
            assert trio.current_time() == pytest.approx(second)
            await peer.send(frame(payload, PONG))
        transport.abort()


async def test_any_byte_is_a_sign_of_life(autojump_clock: trio.testing.MockClock) -> None:
    async with server_and_peer("memory") as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_peer, peer, answer=False))

        async def trickle() -> None:
            for byte in 2 * frame(b"message"):
                await trio.sleep(25)
                await peer.send(bytes((byte,)))

        nursery.start_soon(trickle)
        assert await receive_all(transport, 2) == 2 * [b"message"]
        transport.abort()


async def test_session_that_does_not_receive_judges_nobody(autojump_clock: trio.testing.MockClock) -> None:
    # A paused session is not a dead peer: its bytes may be waiting (F-34, F-36).
    async with server_and_peer("memory") as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_peer, peer, answer=False))
        await peer.send(frame(b"1"), frame(b"2")[:3])
        assert await transport.receive() == [b"1"]
        await trio.sleep(300)
        assert not transport.closed
        await peer.send(frame(b"2")[3:])
        assert await transport.receive() == [b"2"]
        transport.abort()


async def test_pings_stop_with_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with server_and_peer("memory") as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(run_peer, peer)
        with trio.move_on_after(30):
            await transport.receive()
        await peer.send(BYE)
        await lost(transport)
        await trio.sleep(100)


async def test_no_ping_disturbs_the_closing_handshake(autojump_clock: trio.testing.MockClock) -> None:
    limits = TransportLimits(ping_interval=1.0, close_timeout=10.0)
    async with server_and_peer("memory", limits) as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(transport.close)
        assert await peer.frame() == (CLOSE, close_payload(1000))
        await trio.sleep(5)
        await peer.send(BYE)
        assert await peer.frames() == []
        assert trio.current_time() == pytest.approx(5.0)


async def test_half_a_message_and_then_silence_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    # B-21. Answered pings are life, but no progress.
    async with server_and_peer("memory") as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(run_peer, peer)
        await trio.sleep(7)
        await peer.send(frame(b"beginning", fin=False))
        error = await refused(transport)
        assert error.close_code == 1008
        assert trio.current_time() == pytest.approx(37.0)
        transport.abort()


async def test_message_that_goes_on_slowly_is_received(autojump_clock: trio.testing.MockClock) -> None:
    async with server_and_peer("memory") as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_peer, peer, answer=False))

        async def trickle() -> None:
            for byte in frame(b"1", fin=False) + frame(b"2", CONTINUATION):
                await trio.sleep(29)
                await peer.send(bytes((byte,)))

        nursery.start_soon(trickle)
        assert await transport.receive() == [b"12"]
        transport.abort()


async def test_equal_halves_of_many_messages_are_progress(autojump_clock: trio.testing.MockClock) -> None:
    # Each read ends inside a message with as many bytes of it as the read before.
    async with server_and_peer("memory") as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(run_peer, peer)

        async def send() -> None:
            await peer.send(frame(b"1")[:4])
            for _ in range(10):
                await trio.sleep(15)
                await peer.send(frame(b"1")[4:] + frame(b"1")[:4])

        nursery.start_soon(send)
        assert await receive_all(transport, 10) == 10 * [b"1"]
        transport.abort()


# ---- half a frame is never followed by another


class CancelAt(trio.abc.Instrument):
    """Cancels `scope` when some task is about to take its nth step."""

    def __init__(self, step: int) -> None:
        self.scope = trio.CancelScope()
        self.watching = False
        self._steps_left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.watching:
            self._steps_left -= 1
            if self._steps_left == 0:
                self.scope.cancel()


async def send_and_be_cancelled(
    streams: tuple[trio.abc.Stream, trio.abc.Stream], message: bytes, instrument: CancelAt
) -> bytes:
    """What a slow reader sees of a large message, pongs, another message and a close frame."""
    seen = bytearray()

    async def read(peer: RawPeer) -> None:
        seen.extend(peer.unread)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await peer.stream.receive_some(1 << 16):
                seen.extend(data)
                await trio.sleep(0.001)

    async def ping(peer: RawPeer) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await peer.send(3 * frame(b"ping", PING))

    limits = TransportLimits(close_timeout=0.1)
    async with trio.open_nursery() as nursery:
        with instrument.scope:
            async with server_and_peer("memory", limits, streams=streams, stay=True) as (transport, peer):
                nursery.start_soon(read, peer)
                nursery.start_soon(ping, peer)
                instrument.watching = True
                transport.send(message)
                with trio.move_on_after(0.003):
                    await transport.receive()
                transport.send(b"after")
                await transport.wait_sent()
                instrument.watching = False
    return bytes(seen)


async def check_all_cancellations(make_streams: Callable[[], Awaitable[StreamPair]], stride: int) -> None:
    message = os.urandom(600_000)
    step = 0
    cancelled = True
    while cancelled:
        step += stride
        instrument = CancelAt(step)
        trio.lowlevel.add_instrument(instrument)
        try:
            seen = await send_and_be_cancelled(await make_streams(), message, instrument)
        finally:
            trio.lowlevel.remove_instrument(instrument)
        cancelled = instrument.scope.cancelled_caught
        frames, rest = split_frames(seen)
        assert {payload for opcode, payload in frames if opcode != CLOSE} <= {message, b"after", b"ping"}
        # If it ends inside a frame, nothing came behind the half.
        assert frame(message, masked=False).startswith(rest)
    assert step > 5 * stride


async def test_cancelled_anywhere_half_a_frame_is_never_followed_by_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # F-38, at every single step.
    async def make_streams() -> StreamPair:
        return trio.testing.lockstep_stream_pair()

    await check_all_cancellations(make_streams, stride=1)


async def test_cancelled_on_tcp_half_a_frame_is_never_followed_by_another() -> None:
    async def make_streams() -> StreamPair:
        theirs, ours = await stream_pair("tcp")
        for stream in (theirs, ours):
            # Or the kernel takes the whole message at once.
            assert isinstance(stream, trio.SocketStream)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        return theirs, ours

    await check_all_cancellations(make_streams, stride=7)


# ---- pings, answered at once


@kinds
@pytest.mark.parametrize("message", [b"1", bytes(40_000)], ids=["small read", "large read"])
async def test_pong_says_that_all_before_the_ping_has_been_seen(kind: Kind, message: bytes) -> None:
    async with server_and_peer(kind) as (transport, peer), trio.open_nursery() as nursery:
        await peer.send(frame(message), frame(b"seen?", PING))
        assert await receive_all(transport, 1) == [message]
        transport.send(b"seen")
        nursery.start_soon(lost, transport)
        assert await peer.frame() == (BINARY, b"seen")
        assert await peer.frame() == (PONG, b"seen?")
        await peer.send(BYE)


@kinds
async def test_pings_in_front_of_a_close_frame_are_answered_and_those_behind_it_not(kind: Kind) -> None:
    async with server_and_peer(kind) as (transport, peer):
        await peer.send(frame(b"before", PING), BYE, frame(b"behind", PING))
        await lost(transport)
        assert [payload for opcode, payload in await peer.frames() if opcode == PONG] == [b"before"]


@kinds
async def test_ping_between_fragments_is_answered_before_the_message_is_whole(kind: Kind) -> None:
    async with server_and_peer(kind) as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(receive_all, transport, 1)
        await peer.send(frame(b"half", fin=False), frame(bytes(125), PING))
        assert await peer.frame() == (PONG, bytes(125))
        await peer.send(frame(b"whole", CONTINUATION))


async def test_a_pong_never_splits_a_message_that_the_network_takes_slowly(
    autojump_clock: trio.testing.MockClock,
) -> None:
    streams = trio.testing.lockstep_stream_pair()
    async with (
        server_and_peer("memory", streams=streams) as (transport, peer),
        trio.open_nursery() as nursery,
    ):
        transport.send(bytes(300_000))
        nursery.start_soon(lost, transport)
        await peer.send(frame(b"?", PING))
        assert await peer.frame() == (BINARY, bytes(300_000))
        assert await peer.frame() == (PONG, b"?")
        await peer.send(BYE)
        await peer.frames()

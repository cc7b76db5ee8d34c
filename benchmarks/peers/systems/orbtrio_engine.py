"""orbtrio: the engine, and one worker with the runtime for workers, as two processes.

It is asked in two ways, because the others are. By its client, jobs that are ready together travel together.
Over a connection for each job on its way, as HTTP servers are asked, by a stock client that knows no
extension: every job is a message, and so is every answer; nothing but batches on the way to the worker is
saved.

All settings are the defaults: the worker is eager, so a job waits only while the worker is busy. For latency
engine, worker and the client of ours look for more for a while before they sleep.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks.peers.sockets import ask_over_connections
from benchmarks.peers.system import Answers, Asked, Setting, System
from benchmarks.peers.work import WrongAnswer
from benchmarks.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import orbtrio
    from benchmarks.peers.cpu import Meter
    from benchmarks.peers.servers import Servers
    from benchmarks.peers.system import Ask

__all__ = ["BY_CLIENT", "BY_CONNECTIONS"]

_TYPE: Final = "echo"
# Microseconds, ORB_BUSY_POLL_US: twice what a lone job takes.
_POLLING: Final = {Setting.THROUGHPUT: 0, Setting.LATENCY: 500}
_BINARY: Final = 0x82  # the first byte of a frame with a whole binary message
# For all frames: nobody in between needs confusing here, and the receiver's work is the same.
_KEY: Final = os.urandom(4)


def _start(servers: Servers, setting: Setting) -> int:
    port = free_port()
    secret = os.urandom(16).hex()
    poll = str(_POLLING[setting])
    servers.start_python(
        "-m",
        "orbtrio.engine",
        environment={
            "SERVER_HOST": "127.0.0.1",
            "SERVER_PORT": str(port),
            "WORKER_SECRET": secret,
            "WORKER_TYPES": _TYPE,
            "XDG_DATA_HOME": str(servers.directory),
            "ORB_BUSY_POLL_US": poll,
        },
    )
    # It need not wait for the engine: it tries again until that listens.
    servers.start_python(
        "-m",
        "benchmarks.peers.programs.orbtrio_echo",
        environment={
            "WORKER_SECRET": secret,
            "SERVER_URL": f"ws://127.0.0.1:{port}/ws",
            "ORB_BUSY_POLL_US": poll,
        },
    )
    servers.wait_for_port(port)
    return port


@contextmanager
def _serve_client(servers: Servers, setting: Setting) -> Iterator[Ask]:
    import trio

    import orbtrio

    port = _start(servers, setting)

    def ask(texts: Sequence[str], in_flight: int, meter: Meter) -> Answers:
        clock = orbtrio.busy_polling(_POLLING[setting] / 1e6)
        return trio.run(_ask_by_client, f"ws://127.0.0.1:{port}/ws", texts, in_flight, meter, clock=clock)

    yield ask


async def _ask_by_client(url: str, texts: Sequence[str], in_flight: int, meter: Meter) -> Answers:
    import orbtrio

    async with orbtrio.connect(url) as client:
        with meter:
            if in_flight == 1:
                return await _ask_one_by_one(client, texts)
            return await _ask_many(client, texts, in_flight)


async def _ask_one_by_one(client: orbtrio.Client, texts: Sequence[str]) -> Answers:
    answers = []
    seconds = []
    for text in texts:
        began = time.perf_counter()
        answers.append((await client.submit(_TYPE, {"text": text}))["text"])
        seconds.append(time.perf_counter() - began)
    return Answers(answers, seconds)


async def _ask_many(client: orbtrio.Client, texts: Sequence[str], in_flight: int) -> Answers:
    import orbtrio

    began: dict[str, float] = {}  # their order is that of the jobs, for no text comes twice

    def jobs() -> Iterator[orbtrio.Job]:
        for text in texts:
            began[text] = time.perf_counter()
            yield orbtrio.Job(_TYPE, {"text": text})

    found: dict[str, tuple[str, float]] = {}
    async for result in client.submit_many(jobs(), max_in_flight=in_flight):
        if result.output is None:
            raise WrongAnswer(f"a job failed: {result.error}")
        text = result.job.input["text"]
        found[text] = result.output["text"], time.perf_counter() - began[text]
    return Answers([found[text][0] for text in texts], [found[text][1] for text in texts])


@contextmanager
def _serve_connections(servers: Servers, setting: Setting) -> Iterator[Ask]:
    yield partial(ask_over_connections, _WebSocket(_start(servers, setting)))


class _WebSocket:
    # A client as the protocol has it, without extensions: one job in each request.

    def __init__(self, port: int) -> None:
        import cbor2

        self._port = port
        self._dumps, self._loads = cbor2.dumps, cbor2.loads

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port), 5)
        connection.sendall(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n" % self._port
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # the engine says nothing more before it is spoken to
            data = connection.recv(4096)
            if not data:
                break
            head += data
        if not head.startswith(b"HTTP/1.1 101"):
            raise WrongAnswer(f"no upgrade to WebSocket: {head[:100]!r}")
        connection.sendall(_frame(self._dumps({"type": "i_am_server", "version": "1.0.1"})))
        return connection

    def request(self, text: str) -> bytes:
        job = {"job_id": text[:8], "worker_type": _TYPE, "input": {"text": text}}
        return _frame(self._dumps({"type": "worker_request", "jobs": [job]}))

    # One answer is all that can be on its way. An engine pings only after twenty seconds of silence.
    def take(self, data: bytes) -> bytes | None:
        if len(data) < 2:
            return None
        size, start = data[1], 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big") if len(data) >= start else len(data)
        if data[0] != _BINARY:
            raise WrongAnswer(f"the engine sent no message: {data[:100]!r}")
        if len(data) < start + size:
            return None
        if len(data) > start + size:
            raise WrongAnswer("the engine answered a job twice")
        return data[start:]

    def text(self, answer: bytes) -> str:
        response: dict[str, Any] = self._loads(answer)
        text = response.get("output", {}).get("text")
        if response.get("type") != "worker_response" or not isinstance(text, str):
            raise WrongAnswer(f"a job was answered {str(response)[:200]}")
        return text


def _frame(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes((_BINARY, 0x80 | size))
    elif size < 65536:
        head = bytes((_BINARY, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((_BINARY, 0x80 | 127)) + size.to_bytes(8, "big")
    key = (_KEY * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")
    return head + _KEY + masked.to_bytes(size, "little")


_PACKAGES: Final = ("orbtrio", "trio", "trio-websocket", "cbor2", "websockets")
_SETTINGS: Final = {
    Setting.THROUGHPUT: "the defaults: batches of 32, eager; async handler",
    Setting.LATENCY: f"ORB_BUSY_POLL_US={_POLLING[Setting.LATENCY]}",
}

BY_CLIENT: Final = System(
    name="orbtrio",
    serve=_serve_client,
    asked=Asked.CLIENT,
    settings=_SETTINGS | {Setting.LATENCY: f"{_SETTINGS[Setting.LATENCY]}, and the client polls likewise"},
    packages=_PACKAGES,
)
BY_CONNECTIONS: Final = System(
    name="orbtrio, 256 connections",
    serve=_serve_connections,
    asked=Asked.CONNECTIONS,
    settings=_SETTINGS,
    packages=_PACKAGES,
)

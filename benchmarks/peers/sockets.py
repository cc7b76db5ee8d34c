"""Asks over plain connections: each has one job on its way at a time, and sends the next with the answer.

The load program must not be what is measured. So requests are made before the clock starts, answers are only
cut out of what comes while it runs, and decoded after it has stopped; all connections are on one epoll loop.
What is spoken on them is a `Dialect`: HTTP with keep-alive, as any client with a pool of connections would,
or WebSocket.

Rejected: the HTTP clients of PyPI, which cost several times what the faster servers do.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from benchmarks.peers.system import Answers
from benchmarks.peers.work import WrongAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.peers.cpu import Meter

__all__ = ["Dialect", "Http", "ask_over_connections", "json_body", "json_text"]

_RECEIVE_BYTES: Final = 256 * 1024
# Seconds without any answer after which those that are missing count as lost.
_PATIENCE: Final = 30.0


class Dialect(Protocol):
    """What is spoken on a connection."""

    def connect(self) -> socket.socket:
        """A new connection over which jobs can be sent."""

    def request(self, text: str) -> bytes:
        """The bytes that ask for a job."""

    def take(self, data: bytes) -> bytes | None:
        """Cut out the one answer that was received; None if it has not come whole.

        Raises:
            WrongAnswer: it is no answer.
        """

    def text(self, answer: bytes) -> str:
        """The text in what `take` returned."""


class Http:
    """HTTP/1.1 with keep-alive, one POST for each job.

    Args:
        port: Where a server on this machine listens.
        path: What to post to.
        encode: Makes a text the body of a request.
        decode: Finds it in the body of a response.
        content_type: Of the requests.
    """

    def __init__(
        self,
        port: int,
        path: str,
        encode: Callable[[str], bytes],
        decode: Callable[[bytes], str],
        content_type: str = "application/json",
    ) -> None:
        self._port = port
        self._encode = encode
        self._decode = decode
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: "
        ).encode()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), 5)

    def request(self, text: str) -> bytes:
        body = self._encode(text)
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)

    def take(self, data: bytes) -> bytes | None:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = data[:end].lower()
        if not head.startswith((b"http/1.1 200", b"http/1.0 200")):
            raise WrongAnswer(f"a request was answered {data[:300]!r}")
        _, found, rest = head.partition(b"\r\ncontent-length:")
        body, left = _sized(data[end + 4 :], rest) if found else _chunked(data[end + 4 :], head)
        if left:
            raise WrongAnswer(f"an answer has {len(left)} bytes too many: {data[:300]!r}")
        return body

    def text(self, answer: bytes) -> str:
        return self._decode(answer)


# The body if it is whole, and what follows it.
def _sized(data: bytes, size: bytes) -> tuple[bytes | None, bytes]:
    end = int(size.partition(b"\r\n")[0])
    return (data[:end], data[end:]) if len(data) >= end else (None, b"")


def _chunked(data: bytes, head: bytes) -> tuple[bytes | None, bytes]:
    if b"transfer-encoding: chunked" not in head:
        raise WrongAnswer(f"an answer tells no length: {head!r}")
    chunks: list[bytes] = []
    while True:
        size, found, rest = data.partition(b"\r\n")
        end = int(size, 16) if found else 0
        if not found or len(rest) < end + 2:
            return None, b""
        data = rest[end + 2 :]
        if not end:
            return b"".join(chunks), data
        chunks.append(rest[:end])


def json_body(text: str) -> bytes:
    """A job as most servers take it."""
    return json.dumps({"text": text}).encode()


def json_text(body: bytes) -> str:
    """The text in an answer of the same form.

    Raises:
        WrongAnswer: it has another form.
    """
    try:
        return str(json.loads(body)["text"])
    except (ValueError, KeyError, TypeError):
        raise WrongAnswer(f"a job was answered {body[:200]!r}") from None


def ask_over_connections(dialect: Dialect, texts: Sequence[str], in_flight: int, meter: Meter) -> Answers:
    """Have jobs done over `in_flight` connections, one at a time on each.

    Raises:
        WrongAnswer: an answer is none, or does not come.
    """
    requests = [dialect.request(text) for text in texts]
    with select.epoll() as epoll:
        connections: dict[int, _Connection] = {}
        try:
            for _ in range(min(in_flight, len(requests))):
                connection = _Connection(dialect, epoll)
                connections[connection.socket.fileno()] = connection
            with meter:
                answers = _exchange(epoll, connections, requests)
        finally:
            for connection in connections.values():
                connection.socket.close()
    return Answers([dialect.text(data) for data, _ in answers], [seconds for _, seconds in answers])


class _Connection:
    def __init__(self, dialect: Dialect, epoll: select.epoll) -> None:
        self.socket = dialect.connect()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        epoll.register(self.socket, select.EPOLLIN)
        self._epoll = epoll
        self._take = dialect.take
        self._unread: list[bytes] = []
        self._unsent = b""
        self._waits = False  # for room in the socket's buffer
        self.job = 0
        self.sent_at = 0.0

    def send(self, job: int, request: bytes) -> None:
        self.job = job
        self.sent_at = time.perf_counter()
        self._unsent = request
        self.send_rest()

    def send_rest(self) -> None:
        try:
            sent = self.socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        waited = self._waits
        self._unsent = self._unsent[sent:]
        # Nearly never: a request fits into the socket's buffer.
        self._waits = bool(self._unsent)
        if self._waits is not waited:
            wanted = select.EPOLLIN | select.EPOLLOUT if self._waits else select.EPOLLIN
            self._epoll.modify(self.socket, wanted)

    # The answer, once it is whole.
    def receive(self) -> bytes | None:
        data = self.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise WrongAnswer("the server closed a connection without an answer")
        self._unread.append(data)
        answer = self._take(b"".join(self._unread))
        if answer is not None:
            self._unread.clear()
        return answer


# All answers, each with the seconds that it took, in the order of the requests.
def _exchange(
    epoll: select.epoll, connections: dict[int, _Connection], requests: Sequence[bytes]
) -> list[tuple[bytes, float]]:
    answers: list[tuple[bytes, float]] = [(b"", 0.0)] * len(requests)
    todo = deque(enumerate(requests))
    left = len(requests)
    for connection in connections.values():
        connection.send(*todo.popleft())
    while left:
        events = epoll.poll(_PATIENCE)
        if not events:
            raise WrongAnswer(f"no answer for {_PATIENCE:g} s, {left} of {len(requests)} missing")
        for fileno, event in events:
            connection = connections[fileno]
            if event & select.EPOLLOUT:
                connection.send_rest()
            if event & ~select.EPOLLOUT:
                answer = connection.receive()
                if answer is not None:
                    answers[connection.job] = answer, time.perf_counter() - connection.sent_at
                    left -= 1
                    if todo:
                        connection.send(*todo.popleft())
    return answers

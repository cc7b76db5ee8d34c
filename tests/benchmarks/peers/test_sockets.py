"""Asking over connections: every answer goes to its job, however it is framed; what is no answer is found."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from benchmarks.peers.cpu import Meter
from benchmarks.peers.sockets import Http, ask_over_connections, json_body, json_text
from benchmarks.peers.work import WrongAnswer, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def sized(body: bytes) -> list[bytes]:
    return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body]


def chunked(body: bytes) -> list[bytes]:
    half = len(body) // 2
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:])]
    return [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n", b"\r\n"]


def at_once(pieces: Callable[[bytes], list[bytes]]) -> Callable[[bytes], list[bytes]]:
    return lambda body: [b"".join(pieces(body))]


@contextlib.contextmanager
def serving(answer: Callable[[bytes], list[bytes]]) -> Iterator[Http]:
    """A server that answers each request's body in these pieces, until nobody is connected any more."""

    def converse(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as requests, contextlib.suppress(OSError):
            while head := requests.readline():
                assert head == b"POST /echo HTTP/1.1\r\n"
                size = 0
                while (line := requests.readline()) != b"\r\n":
                    name, _, value = line.partition(b": ")
                    size = int(value) if name == b"Content-Length" else size
                for piece in answer(requests.read(size)):
                    connection.sendall(piece)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=converse, args=(connection,)))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads = [threading.Thread(target=accept)]
        threads[0].start()
        try:
            yield Http(listener.getsockname()[1], "/echo", json_body, json_text)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


@pytest.mark.parametrize(
    "answer",
    [sized, at_once(sized), chunked, at_once(chunked)],
    ids=["sized", "sized at once", "chunked", "chunked at once"],
)
def test_answers_come_back_in_the_order_of_their_jobs(answer: Callable[[bytes], list[bytes]]) -> None:
    asked = texts(0, 20, 100)
    with serving(answer) as http:
        answers = ask_over_connections(http, asked, 3, Meter())
    assert answers.texts == asked
    assert len(answers.seconds) == 20
    assert min(answers.seconds) > 0


def test_requests_that_do_not_fit_into_a_buffer_go_out_in_the_end() -> None:
    asked = texts(0, 2, 20_000_000)
    with serving(sized) as http:
        assert ask_over_connections(http, asked, 2, Meter()).texts == asked


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda _: [b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"], "503 Busy"),
        (lambda body: [b"".join([*sized(body), b"more"])], "4 bytes too many"),
        (lambda body: [b"".join([*chunked(body), b"more"])], "4 bytes too many"),
        (lambda body: [b"HTTP/1.1 200 OK\r\n\r\n", body], "no length"),
        (lambda _: sized(b"[]"), "was answered"),
    ],
    ids=["refused", "too much", "too much after chunks", "no length", "no text"],
)
def test_what_is_no_answer_is_found(answer: Callable[[bytes], list[bytes]], problem: str) -> None:
    with serving(answer) as http, pytest.raises(WrongAnswer, match=problem):
        ask_over_connections(http, texts(0, 2, 100), 1, Meter())


def test_a_server_that_hangs_up_is_found() -> None:
    def hang_up(_: bytes) -> list[bytes]:
        raise OSError

    with serving(hang_up) as http, pytest.raises(WrongAnswer, match="closed a connection"):
        ask_over_connections(http, texts(0, 2, 100), 1, Meter())


def test_silence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.sockets._PATIENCE", 0.05)
    with serving(lambda _: []) as http, pytest.raises(WrongAnswer, match="2 of 2 missing"):
        ask_over_connections(http, texts(0, 2, 100), 2, Meter())

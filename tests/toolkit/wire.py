"""HTTP by hand: a client that shows what came over the wire, and a server that does as it is told."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import attrs
import h11
import trio

from orbtrio._nursery import open_service_nursery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

__all__ = ["Answer", "Server", "ask", "ok", "open_server", "read_answer", "request"]


@attrs.frozen
class Answer:
    """What a server has answered.

    Attributes:
        headers: Names in lower case.
        body: Without the framing.
        complete: The framing says that this was all of it.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool


@attrs.frozen
class Seen:
    """A request that has come."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Reply: TypeAlias = "Callable[[Seen, trio.abc.Stream], Awaitable[None]]"


def request(method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A request's bytes; with ``connection: close`` and a length unless the headers say otherwise."""
    fields = {"host": "localhost", "connection": "close", "content-length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body


async def ask(
    port: int, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Answer:
    """Send a request to a port of this machine and read the whole answer."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request(method, target, body, headers))
        return await read_answer(stream, method)


async def read_answer(stream: trio.abc.ReceiveStream, method: str = "GET") -> Answer:
    """Read an answer until it is complete or the connection ends."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "test")]))
    connection.send(h11.EndOfMessage())
    head: h11.Response | None = None
    body = bytearray()
    complete = False
    while not complete:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            break
        if event is h11.NEED_DATA:
            try:
                connection.receive_data(bytes(await stream.receive_some()))
            except trio.BrokenResourceError:
                break
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            complete = True
        elif isinstance(event, h11.ConnectionClosed):
            break
    assert head is not None, "no answer"
    headers = {name.decode(): value.decode() for name, value in head.headers}
    return Answer(head.status_code, headers, bytes(body), complete)


class Server:
    """Somebody else's server.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        seen: The requests so far.
    """

    def __init__(self, reply: Reply) -> None:
        self.port = 0
        self.seen: list[Seen] = []
        self._reply = reply

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Read one request, reply, and close the connection."""
        async with stream:
            connection = h11.Connection(h11.SERVER)
            head: h11.Request | None = None
            body = bytearray()
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some()))
                elif isinstance(event, h11.Request):
                    head = event
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    return
            assert head is not None
            headers = {name.decode(): value.decode() for name, value in head.headers}
            seen = Seen(head.method.decode(), head.target.decode(), headers, bytes(body))
            self.seen.append(seen)
            with suppress(trio.BrokenResourceError):
                await self._reply(seen, stream)


@asynccontextmanager
async def open_server(reply: Reply) -> AsyncIterator[Server]:
    """Open a server that replies as told: with raw bytes on the stream; afterwards the connection ends."""
    server = Server(reply)
    async with open_service_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), server.handle, 0)
        server.port = listeners[0].socket.getsockname()[1]
        yield server


def ok(body: bytes = b"", content_type: str = "text/plain") -> Reply:
    """Reply 200 with a body."""

    async def reply(seen: Seen, stream: trio.abc.Stream) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\ncontent-type: {content_type}\r\n\r\n"
        await stream.send_all(head.encode() + body)

    return reply

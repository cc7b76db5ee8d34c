from __future__ import annotations

import os
import ssl
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from orbtrio._nursery import open_service_nursery
from orbtrio.toolkit.fetching import open_fetcher
from orbtrio.toolkit.items import Item
from orbtrio.toolkit.jobs import TaskInput
from orbtrio.toolkit.open_items import OpenItems
from orbtrio.toolkit.serving import serve
from orbtrio.toolkit.webhooks import Webhooks
from tests.toolkit.wire import Answer, Seen, ask, ok, open_server, read_answer, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DATA = bytes(range(256)) * 1000


class Cache:
    """An attempt, and the toolkit that serves its input."""

    def __init__(self, item: Item, items: OpenItems, port: int) -> None:
        self.item = item
        self.items = items
        self.port = port
        self.path = f"/cache/{item.cache_token}"

    async def get(self, method: str = "GET", **headers: str) -> Answer:
        return await ask(self.port, method, self.path, headers={"content-length": "", **headers})

    async def connect(self) -> trio.SocketStream:
        """Begin a GET."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        await stream.send_all(request("GET", self.path, headers={"content-length": ""}))
        return stream


@asynccontextmanager
async def cache_of(**fields: Any) -> AsyncIterator[Cache]:
    items, item, stop = OpenItems(), Item(TaskInput(**fields), now=0), trio.Event()
    items.add(item)
    with trio.fail_after(50):
        async with open_fetcher(ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as fetcher:
            app = Webhooks(items, fetcher)
            async with open_service_nursery() as nursery:
                yield Cache(item, items, await nursery.start(partial(serve, app, stop=stop)))
                stop.set()


class Growing:
    """A stream that grows part by part, on each of its connections.

    Attributes:
        gone: Somebody has gone away before its end.
    """

    def __init__(self, parts: list[bytes], *, end: bool = True, chunked: bool = True) -> None:
        self._parts = parts
        self._end = end
        self._chunked = chunked
        self._next = trio.Semaphore(0)
        self.gone = trio.Event()

    def grow(self, parts: int = 1) -> None:
        for _ in range(parts):
            self._next.release()

    async def reply(self, seen: Seen, stream: trio.abc.Stream) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\n"
        await stream.send_all(head + (b"Transfer-Encoding: chunked\r\n\r\n" if self._chunked else b"\r\n"))
        for part in self._parts:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, stream, nursery.cancel_scope)
                await self._next.acquire()
                nursery.cancel_scope.cancel()
            if self.gone.is_set():
                return
            await stream.send_all(b"%x\r\n%s\r\n" % (len(part), part) if self._chunked else part)
        if self._end and self._chunked:
            await stream.send_all(b"0\r\n\r\n")

    async def _watch(self, stream: trio.abc.Stream, scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()
        self.gone.set()
        scope.cancel()


@pytest.fixture
def chunk(tmp_path: Path) -> Path:
    path = tmp_path / "chunk"
    path.write_bytes(DATA)
    return path


async def test_et_30_77_a_chunk_has_a_length_and_its_type(chunk: Path) -> None:
    async with cache_of(chunk=chunk, chunk_mime_type="image/jpeg") as cache:
        answer = await cache.get()
        assert (answer.status, answer.body, answer.complete) == (200, DATA, True)
        assert answer.headers["content-length"] == str(len(DATA))
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["accept-ranges"] == "bytes"
        head = await cache.get("HEAD")
        assert (head.status, head.headers["content-length"], head.body) == (200, str(len(DATA)), b"")


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-99", 10, 99),
        ("bytes=255000-", 255000, 255999),
        ("bytes=-10", 255990, 255999),
        ("bytes=100000-9999999", 100000, 255999),
    ],
)
async def test_et_77_parts_of_a_chunk_can_be_asked_for(
    chunk: Path, asked: str, first: int, last: int
) -> None:
    async with cache_of(chunk=chunk) as cache:
        answer = await cache.get(range=asked)
    assert (answer.status, answer.body) == (206, DATA[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(DATA)}"
    assert answer.headers["content-length"] == str(last - first + 1)


async def test_et_77_parts_that_are_not_there(chunk: Path) -> None:
    async with cache_of(chunk=chunk) as cache:
        answer = await cache.get(range="bytes=256000-")
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */256000")


@pytest.mark.parametrize("mime_type", ["", "jpeg", "a/b\r\nx-evil: 1", "a/b\0", "bild/ü"])
async def test_a_type_that_is_none_does_not_get_into_the_head(chunk: Path, mime_type: str) -> None:
    async with cache_of(chunk=chunk, chunk_mime_type=mime_type) as cache:
        answer = await cache.get()
    assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
    assert "x-evil" not in answer.headers


async def test_an_empty_chunk_is_a_chunk(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    async with cache_of(chunk=tmp_path / "empty") as cache:
        answer = await cache.get()
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")


async def test_many_may_read_the_same_chunk_at_once(chunk: Path) -> None:
    bodies = []

    async def read(cache: Cache) -> None:
        bodies.append((await cache.get()).body)

    async with cache_of(chunk=chunk) as cache, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(read, cache)
    assert bodies == [DATA] * 10


async def test_a_file_that_is_gone_or_none_is_said(chunk: Path, tmp_path: Path) -> None:
    os.unlink(chunk)
    for path in (chunk, tmp_path):
        async with cache_of(chunk=path) as cache:
            assert (await cache.get()).status == 410


async def test_et_69_without_input_there_is_none() -> None:
    async with cache_of() as cache:
        assert (await cache.get()).status == 404


@pytest.mark.parametrize("chunked", [True, False])
async def test_et_33_77_a_stream_is_passed_on_as_it_grows(chunked: bool) -> None:
    growing = Growing([b"one", b"two", b"three"], chunked=chunked)
    async with (
        open_server(growing.reply) as server,
        cache_of(cache_uri=f"{server.url}/live?x=1", engine_type="stream") as cache,
        await cache.connect() as stream,
    ):
        seen = b""
        for part in (b"one", b"two", b"three"):
            growing.grow()
            while part not in seen:
                seen += await stream.receive_some()
        while not seen.endswith(b"0\r\n\r\n"):
            seen += await stream.receive_some()
    head, _, body = seen.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    assert b"content-length" not in head.lower()
    assert b"content-type: video/mp2t" in head.lower()
    assert body == b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"
    assert server.seen[0].target == "/live?x=1"


async def test_et_77_a_stream_has_no_length_even_if_it_is_known() -> None:
    async with (
        open_server(ok(DATA)) as server,
        cache_of(cache_uri=server.url, engine_type="stream") as cache,
    ):
        answer = await cache.get(range="bytes=0-1")
        assert (answer.status, answer.body, answer.complete) == (200, DATA, True)
        assert "content-length" not in answer.headers


async def test_et_77_a_chunk_that_is_not_downloaded_has_the_length_it_has_there() -> None:
    async with open_server(ok(DATA)) as server, cache_of(cache_uri=server.url) as cache:
        answer = await cache.get()
        assert (answer.status, answer.body, answer.complete) == (200, DATA, True)
        assert answer.headers["content-length"] == str(len(DATA))


async def test_et_77_a_chunk_that_breaks_off_is_cut() -> None:
    async def half(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345")

    async with open_server(half) as server, cache_of(cache_uri=server.url) as cache:
        answer = await cache.get()
        assert (answer.status, answer.body, answer.complete) == (200, b"12345", False)


async def test_the_jobs_type_comes_before_the_other_sides() -> None:
    async with (
        open_server(ok(b"x", "text/plain")) as server,
        cache_of(cache_uri=server.url, chunk_mime_type="video/mp4") as cache,
    ):
        assert (await cache.get()).headers["content-type"] == "video/mp4"
        assert (await cache.get("HEAD")).headers["content-type"] == "video/mp4"
    assert len(server.seen) == 1


async def test_et_77_a_stream_that_breaks_off_is_cut_and_not_ended() -> None:
    growing = Growing([b"one"], end=False)
    growing.grow()
    async with open_server(growing.reply) as server, cache_of(cache_uri=server.url) as cache:
        answer = await cache.get()
    assert (answer.status, answer.body, answer.complete) == (200, b"one", False)


async def test_a_length_that_is_not_kept_is_a_broken_stream() -> None:
    async def half(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    async with open_server(half) as server, cache_of(cache_uri=server.url) as cache:
        answer = await cache.get()
    assert (answer.body, answer.complete) == (b"half", False)


async def test_several_gets_are_several_requests() -> None:
    growing = Growing([b"one", b"two"])
    async with open_server(growing.reply) as server, cache_of(cache_uri=server.url) as cache:
        growing.grow(6)
        for _ in range(3):
            assert (await cache.get()).body == b"onetwo"
        streams = [await cache.connect() for _ in range(3)]
        growing.grow(6)
        for stream in streams:
            async with stream:
                assert (await read_answer(stream)).body == b"onetwo"
    assert len(server.seen) == 6


async def test_a_stream_that_cannot_be_had_is_a_502_with_the_reason() -> None:
    async with cache_of(cache_uri="http://169.254.169.254/latest") as cache:
        answer = await cache.get()
        assert (answer.status, answer.complete) == (502, True)
        assert answer.body.startswith(b"url_not_allowed: ")


async def test_the_other_side_is_let_go_when_the_engine_goes() -> None:
    growing = Growing([b"one", b"two"])
    async with open_server(growing.reply) as server, cache_of(cache_uri=server.url) as cache:
        async with await cache.connect() as stream:
            growing.grow()
            await stream.receive_some()
        await growing.gone.wait()


async def test_et_77_the_end_of_the_attempt_cuts_its_streams() -> None:
    growing = Growing([b"one", b"two"])
    async with open_server(growing.reply) as server, cache_of(cache_uri=server.url) as cache:
        async with await cache.connect() as stream:
            growing.grow()
            seen = b""
            while b"one" not in seen:
                seen += await stream.receive_some()
            cache.items.discard(cache.item)
            assert b"0\r\n\r\n" not in await _rest(stream)
        await growing.gone.wait()
        assert (await cache.get()).status == 410


async def test_an_attempt_that_ends_before_its_stream_begins_is_410() -> None:
    asked = trio.Event()

    async def silent(seen: Seen, stream: trio.abc.Stream) -> None:
        asked.set()
        await trio.sleep_forever()

    async with (
        open_server(silent) as server,
        cache_of(cache_uri=server.url) as cache,
        await cache.connect() as stream,
    ):
        await asked.wait()
        cache.items.discard(cache.item)
        assert (await read_answer(stream)).status == 410


async def test_http_1_0_cannot_tell_half_a_stream_from_a_whole_one(chunk: Path) -> None:
    async def get(cache: Cache) -> bytes:
        async with await trio.open_tcp_stream("127.0.0.1", cache.port) as stream:
            await stream.send_all(f"GET {cache.path} HTTP/1.0\r\n\r\n".encode())
            return await _rest(stream)

    async with cache_of(cache_uri="http://127.0.0.1:1/") as cache:
        assert (await get(cache)).startswith(b"HTTP/1.1 505 ")
    async with cache_of(chunk=chunk) as cache:
        assert (await get(cache)).endswith(DATA)


async def _rest(stream: trio.SocketStream) -> bytes:
    return b"".join([bytes(part) async for part in stream])

from __future__ import annotations

import os
import ssl
import stat
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from orbtrio.toolkit import fetching
from orbtrio.toolkit.answers import FAILURE_REASONS
from orbtrio.toolkit.fetching import Fetcher, FetchFailed, open_fetcher
from tests.toolkit.wire import Seen, Server, ok, open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

LIMIT = 10_000_000


def raw(data: bytes) -> Any:
    """Reply with these bytes."""

    async def reply(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(data)

    return reply


def redirect(location: str, status: int = 302) -> Any:
    return raw(f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())


async def silence(seen: Seen, stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()


@asynccontextmanager
async def fetcher_of(allowed_hosts: Sequence[str] = (), **options: Any) -> AsyncIterator[Fetcher]:
    options.setdefault("ssl_context", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    with trio.fail_after(30):
        async with open_fetcher(allowed_hosts, **options) as fetcher:
            yield fetcher


async def failure(fetcher: Fetcher, url: str, to: Path, limit: int = LIMIT) -> FetchFailed:
    """How fetching fails; nothing is left of it."""
    with pytest.raises(FetchFailed) as caught:
        await fetcher.download(url, to / "file", limit)
    assert os.listdir(to) == []
    assert caught.value.failure_reason in FAILURE_REASONS
    assert str(caught.value) == f"{caught.value.failure_reason}: {caught.value.message}"
    return caught.value


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
async def test_a_chunk_is_fetched(tmp_path: Path, size: int) -> None:
    body = os.urandom(size)
    async with open_server(ok(body)) as server, fetcher_of() as fetcher:
        assert await fetcher.download(f"{server.url}/a%20b?c=d#e", tmp_path / "file", size) == size
    assert (tmp_path / "file").read_bytes() == body
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    [seen] = server.seen
    assert (seen.method, seen.target) == ("GET", "/a%20b?c=d")
    assert seen.headers["host"] == f"127.0.0.1:{server.port}"
    assert seen.headers["accept-encoding"] == "identity"
    assert "authorization" not in seen.headers


async def test_a_user_in_the_address_logs_in(tmp_path: Path) -> None:
    async with open_server(ok()) as server, fetcher_of() as fetcher:
        url = server.url.replace("http://", "http://Aladdin:open%20sesame@")
        await fetcher.download(url, tmp_path / "file", 1)
    assert server.seen[0].headers["authorization"] == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


@pytest.mark.parametrize("status", [201, 204, 304, 400, 401, 404, 500])
async def test_another_answer_than_200_is_not_allowed(tmp_path: Path, status: int) -> None:
    reply = raw(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())
    async with open_server(reply) as server, fetcher_of() as fetcher:
        failed = await failure(fetcher, f"{server.url}/secret?token=1", tmp_path)
    assert failed.failure_reason == "url_not_allowed"
    assert failed.message == f"{server.url} answered {status}"


async def test_who_is_not_there_is_not_found(tmp_path: Path) -> None:
    async with open_server(ok()) as server:
        pass
    async with fetcher_of() as fetcher:
        failed = await failure(fetcher, server.url, tmp_path)
    assert (failed.failure_reason, failed.message) == ("url_not_found", f"{server.url} cannot be reached")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "rtsp://127.0.0.1/x",
        "gopher://127.0.0.1/x",
        "//127.0.0.1/x",
        "/x",
        "",
        "http://",
        "http:///x",
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/",
        "http://0.0.0.0:1/",
        "http://[::ffff:169.254.169.254]/",
    ],
)
async def test_schemes_and_addresses_that_are_not_allowed(tmp_path: Path, url: str) -> None:
    async with fetcher_of() as fetcher:
        assert (await failure(fetcher, url, tmp_path)).failure_reason == "url_not_allowed"


@pytest.mark.parametrize("host", ["2852039166", "0xa9fea9fe", "169.16689662", "0251.0376.0251.0376"])
async def test_odd_spellings_of_an_address_are_not_another_address(tmp_path: Path, host: str) -> None:
    async with fetcher_of() as fetcher:
        failed = await failure(fetcher, f"http://{host}/", tmp_path)
    assert failed.failure_reason in ("url_not_allowed", "invalid_data")


async def test_a_name_that_leads_to_a_forbidden_address_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(host: Any, port: Any, *rest: Any, **options: Any) -> list[Any]:
        return [(0, 0, 0, "", ("169.254.169.254", port))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", resolve)
    async with fetcher_of(["*"]) as fetcher:
        failed = await failure(fetcher, "http://harmless.example/", tmp_path)
    assert failed.failure_reason == "url_not_allowed"
    assert "harmless.example leads to 169.254.169.254" in failed.message


@pytest.mark.parametrize("url", ["http://[", "http://x:99999/", "http://x:abc/", "http://exa\0mple/"])
async def test_what_is_no_url_is_invalid(tmp_path: Path, url: str) -> None:
    async with fetcher_of() as fetcher:
        reason = (await failure(fetcher, url, tmp_path)).failure_reason
    assert reason in ("invalid_data", "url_not_found")


async def test_only_listed_hosts_are_asked(tmp_path: Path) -> None:
    async with open_server(ok(b"x")) as server:
        async with fetcher_of(["*.example.com"]) as fetcher:
            failed = await failure(fetcher, server.url, tmp_path)
            assert failed.message == "127.0.0.1 is not one of the allowed hosts"
        assert server.seen == []
        async with fetcher_of(["127.0.0.*"]) as fetcher:
            assert await fetcher.download(server.url, tmp_path / "file", 1) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(tmp_path: Path, status: int) -> None:
    async with open_server(ok(b"there")) as target, fetcher_of() as fetcher:
        async with open_server(redirect(f"{target.url}/new", status)) as server:
            url = server.url.replace("http://", "http://user:password@")
            assert await fetcher.download(url, tmp_path / "file", LIMIT) == 5
        assert target.seen[0].target == "/new"
        assert "authorization" not in target.seen[0].headers


async def test_relative_redirects_stay_with_the_host(tmp_path: Path) -> None:
    async def reply(seen: Seen, stream: trio.abc.Stream) -> None:
        await (redirect("../there?x") if seen.target == "/a/b" else ok(b"x"))(seen, stream)

    async with open_server(reply) as server, fetcher_of() as fetcher:
        await fetcher.download(f"{server.url}/a/b", tmp_path / "file", LIMIT)
    assert [seen.target for seen in server.seen] == ["/a/b", "/there?x"]


@pytest.mark.parametrize("location", ["http://169.254.169.254/", "file:///etc/passwd", "//[fe80::1]/"])
async def test_redirects_lead_nowhere_else_than_requests_may(tmp_path: Path, location: str) -> None:
    async with open_server(redirect(location)) as server, fetcher_of() as fetcher:
        assert (await failure(fetcher, server.url, tmp_path)).failure_reason == "url_not_allowed"


async def test_redirects_to_hosts_that_are_not_listed_are_refused(tmp_path: Path) -> None:
    async with open_server(ok()) as target, fetcher_of(["127.0.0.1"]) as fetcher:
        location = target.url.replace("127.0.0.1", "localhost")
        async with open_server(redirect(location)) as server:
            assert (await failure(fetcher, server.url, tmp_path)).failure_reason == "url_not_allowed"
        assert target.seen == []


async def test_redirects_have_an_end(tmp_path: Path) -> None:
    async with open_server(redirect("/again")) as server, fetcher_of() as fetcher:
        failed = await failure(fetcher, server.url, tmp_path)
    assert failed.failure_reason == "url_not_allowed"
    assert failed.message.endswith("more than 5 redirects")
    assert len(server.seen) == 6


async def test_a_redirect_to_nowhere_is_an_answer_like_others(tmp_path: Path) -> None:
    reply = raw(b"HTTP/1.1 302 X\r\nContent-Length: 0\r\n\r\n")
    async with open_server(reply) as server, fetcher_of() as fetcher:
        assert (await failure(fetcher, server.url, tmp_path)).message.endswith("answered 302")


@pytest.mark.parametrize("announced", [True, False])
async def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path, announced: bool) -> None:
    cut_off = trio.Event()

    async def endless(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n")
        await stream.send_all(b"Content-Length: 99999999999\r\n\r\n" if announced else b"\r\n")
        try:
            while True:
                await stream.send_all(bytes(65536))
        finally:
            cut_off.set()

    async with open_server(endless) as server, fetcher_of() as fetcher:
        failed = await failure(fetcher, server.url, tmp_path, limit=1_500_000)
        assert failed.failure_reason == "invalid_data"
        assert failed.message == f"{server.url} sends more than 1500000 bytes"
        await cut_off.wait()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    ],
)
async def test_half_a_file_is_no_file(tmp_path: Path, answer: bytes) -> None:
    async with open_server(raw(answer)) as server, fetcher_of() as fetcher:
        failed = await failure(fetcher, server.url, tmp_path)
    assert (failed.failure_reason, failed.message) == ("stream_read_error", f"{server.url} broke off")


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200"])
async def test_what_is_no_answer_is_an_error(tmp_path: Path, answer: bytes) -> None:
    async with open_server(raw(answer)) as server, fetcher_of() as fetcher:
        assert (await failure(fetcher, server.url, tmp_path)).failure_reason == "url_error"


async def test_who_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_SILENCE", 0.05)
    async with open_server(silence) as server, fetcher_of() as fetcher:
        failed = await failure(fetcher, server.url, tmp_path)
    assert (failed.failure_reason, failed.message) == ("url_timeout", f"{server.url} does not answer")


async def test_who_goes_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_SILENCE", 0.2)

    async def half(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await trio.sleep_forever()

    async with open_server(half) as server, fetcher_of() as fetcher:
        failed = await failure(fetcher, server.url, tmp_path)
    assert (failed.failure_reason, failed.message) == ("url_timeout", f"{server.url} has gone silent")


async def test_a_file_is_not_written_over_another_or_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    async with open_server(ok(b"new")) as server, fetcher_of() as fetcher:
        for name in ("file", "link", "missing/file"):
            with pytest.raises(FetchFailed) as caught:
                await fetcher.download(server.url, tmp_path / name, LIMIT)
            assert caught.value.failure_reason == "file_write_error"
    assert (tmp_path / "file").read_bytes() == b"old"
    assert not (tmp_path / "new").exists()


async def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    async with open_server(ok(b"x")) as server, fetcher_of() as fetcher:
        failed = await failure(fetcher, server.url, tmp_path)
    assert failed.failure_reason == "file_write_error"
    assert "No space left" in failed.message


async def test_a_cancelled_fetch_leaves_nothing(tmp_path: Path) -> None:
    begun = trio.Event()

    async def half(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        begun.set()
        await trio.sleep_forever()

    async with open_server(half) as server, fetcher_of() as fetcher, trio.open_nursery() as nursery:
        nursery.start_soon(fetcher.download, server.url, tmp_path / "file", LIMIT)
        await begun.wait()
        while not (tmp_path / "file").exists():
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert os.listdir(tmp_path) == []


async def test_et_77_a_stream_comes_as_it_grows() -> None:
    more = trio.Event()

    async def growing(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\n\r\none")
        await more.wait()
        await stream.send_all(b"two")

    async with open_server(growing) as server, fetcher_of() as fetcher, fetcher.stream(server.url) as body:
        assert (body.content_type, body.length) == ("video/mp2t", None)
        assert await anext(body) == b"one"
        more.set()
        assert [part async for part in body] == [b"two"]


async def test_a_stream_that_nobody_reads_on_is_closed() -> None:
    closed = trio.Event()

    async def endless(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                await stream.send_all(bytes(1000))
        finally:
            closed.set()

    async with open_server(endless) as server, fetcher_of() as fetcher:
        async with fetcher.stream(server.url) as body:
            await anext(body)
        await closed.wait()


async def test_https_is_checked_against_authorities(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = Server(ok(b"secret"))

    async def handle(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await server.handle(trio.SSLStream(stream, context, server_side=True, https_compatible=True))

    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    distrusting = ssl.create_default_context()
    stranger.configure_trust(distrusting)
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        url = f"https://127.0.0.1:{listener.socket.getsockname()[1]}/"
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        async with fetcher_of(ssl_context=distrusting) as fetcher:
            assert (await failure(fetcher, url, tmp_path)).failure_reason == "url_not_found"
        async with fetcher_of(ssl_context=trusting) as fetcher:
            assert await fetcher.download(url, tmp_path / "file", LIMIT) == 6
        nursery.cancel_scope.cancel()


async def test_proxies_of_the_environment_are_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with open_server(ok(b"x")) as server, fetcher_of() as fetcher:
        assert await fetcher.download(server.url, tmp_path / "file", LIMIT) == 1


@pytest.mark.parametrize("status", [200, 204, 302, 500])
async def test_post_tells_the_status(status: int) -> None:
    reply = raw(f"HTTP/1.1 {status} X\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".encode())
    async with open_server(reply) as server, fetcher_of() as fetcher:
        assert await fetcher.post(f"{server.url}/x", b"body", {"x-aiware-a": "ü"}) == status
    [seen] = server.seen
    assert (seen.method, seen.target, seen.body) == ("POST", "/x", b"body")
    assert seen.headers["content-length"] == "4"
    assert seen.headers["x-aiware-a"] == "ü"


@pytest.mark.parametrize("answer", [b"Content-Length: 10\r\n\r\nhalf", b"\r\n" + bytes(200_000)])
async def test_what_is_posted_needs_no_whole_answer(answer: bytes) -> None:
    async with open_server(raw(b"HTTP/1.1 200 OK\r\n" + answer)) as server, fetcher_of() as fetcher:
        assert await fetcher.post(server.url, b"", {}) == 200


async def test_post_reaches_whom_get_may_reach() -> None:
    async with fetcher_of() as fetcher:
        with pytest.raises(FetchFailed, match="url_not_allowed"):
            await fetcher.post("http://169.254.169.254/", b"", {})


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\0"])
async def test_headers_that_are_none_are_not_sent(value: str) -> None:
    async with open_server(ok()) as server, fetcher_of() as fetcher:
        with pytest.raises(FetchFailed, match="url_error"):
            await fetcher.post(server.url, b"", {"x-aiware-a": value})
    assert server.seen == []

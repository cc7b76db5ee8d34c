from __future__ import annotations

import gc
import shutil
import socket
import ssl
import subprocess
import warnings
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import coredis
import pytest
import trio

from orbtrio._nursery import open_service_nursery
from orbtrio.conformance.sockets import free_port
from orbtrio.toolkit import keys as module
from orbtrio.toolkit.fetching import open_fetcher
from orbtrio.toolkit.items import Item
from orbtrio.toolkit.jobs import TaskInput
from orbtrio.toolkit.keys import DEFAULT_TTL, LONGEST_TTL, KeyStore, KeysUnavailable, Scoped, Value, open_keys
from orbtrio.toolkit.open_items import OpenItems
from orbtrio.toolkit.serving import serve
from orbtrio.toolkit.webhooks import Webhooks
from tests.toolkit.wire import ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.toolkit.wire import Answer

KEY = Scoped("j", "job", b"key")
ANY_TYPE = "application/octet-stream"


@contextmanager
def redis_server(directory: Path, port: int) -> Iterator[None]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server here: apt-get install redis-server")
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any("Ready to accept connections" in line for line in process.stdout)
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_port()
    with redis_server(tmp_path_factory.mktemp("redis"), port):
        yield port


@pytest.fixture
def leaks() -> Iterator[None]:
    """Coredis forgets to close what it made for a connection that then failed; it is only memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unclosed <MemoryObject", ResourceWarning)
        yield
        gc.collect()


class Keys:
    """The webhooks of a toolkit that works at one task."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def post(self, path: str, body: bytes = b"value", content_type: str = "") -> Answer:
        return await ask(self.port, "POST", path, body, {"content-type": content_type})

    async def get(self, path: str, method: str = "GET") -> Answer:
        return await ask(self.port, method, path)


@asynccontextmanager
async def serving_keys(store: KeyStore, *names: str, **options: Any) -> AsyncIterator[Keys]:
    """Serve keys while an attempt is open for each of the names, as a job's id and, with a "t-", a task's."""
    items, stop = OpenItems(), trio.Event()
    for name in names:
        items.add(Item(TaskInput(internal_job_id=name, internal_task_id=f"t-{name}"), now=0))
    async with open_fetcher(ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as fetcher:
        app = Webhooks(items, fetcher, keys=store, **options)
        with trio.fail_after(50):
            async with open_service_nursery() as nursery:
                yield Keys(await nursery.start(partial(serve, app, stop=stop)))
                stop.set()


async def test_et_141_142_145_146_what_is_posted_is_got(redis: int) -> None:
    async with open_keys("127.0.0.1", redis) as store, serving_keys(store, "one") as keys:
        posted = await keys.post("/keys/jone/key", b"of the job")
        assert (posted.status, posted.body, posted.headers["content-length"]) == (200, b"", "0")
        assert (await keys.post("/keys/tt-one/key", b"of the task")).status == 200
        assert (await keys.get("/keys/jone/key")).body == b"of the job"
        got = await keys.get("/keys/tt-one/key")
        assert (got.status, got.body, got.headers["content-type"]) == (200, b"of the task", ANY_TYPE)
        assert (await keys.post("/keys/jone/key", b"anew")).status == 200
        assert (await keys.get("/keys/jone/key")).body == b"anew"
        head = await keys.get("/keys/jone/key", "HEAD")
        assert (head.status, head.headers["content-length"], head.body) == (200, "4", b"")


async def test_et_145_values_are_binary_and_keep_their_type(redis: int) -> None:
    value = bytes(range(256)) * 4096
    async with open_keys("127.0.0.1", redis) as store, serving_keys(store, "two") as keys:
        assert (await keys.post("/keys/jtwo/big", value, 'image/x; name="a b"')).status == 200
        got = await keys.get("/keys/jtwo/big")
        assert got.body == value
        assert got.headers["content-type"] == 'image/x; name="a b"'
        for odd in ("text/ü", "x" * 300):
            await keys.post("/keys/jtwo/odd", b"x", odd)
            assert (await keys.get("/keys/jtwo/odd")).headers["content-type"] == ANY_TYPE


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/keys/jj1/a%2Fb%20c", b"et:j:j1:a/b c"),
        ("/keys/jj1/%00%0D%0A%C3%BC", b"et:j:j1:\0\r\n\xc3\xbc"),
        ("/keys/jj1/..", b"et:j:j1:.."),
        ("/keys/jj1/a:b", b"et:j:j1:a:b"),
        ("/keys/j%6A1/plain", b"et:j:j1:plain"),
        ("/keys/ja%3Ab%2Fc/k", b"et:j:a%3Ab%2Fc:k"),
        ("/keys/tt-j1/k", b"et:t:t-j1:k"),
    ],
)
async def test_et_141_142_a_key_is_one_decoded_segment(redis: int, path: str, name: bytes) -> None:
    async with open_keys("127.0.0.1", redis) as store, serving_keys(store, "j1", "a:b/c") as keys:
        assert (await keys.post(path, b"here")).status == 200
        assert (await keys.get(path)).body == b"here"
    async with coredis.Redis("127.0.0.1", redis) as client:
        assert await client.get(name) == b"\0here"
        await client.delete([name])


async def test_ids_that_look_like_parts_of_keys_are_kept_apart(redis: int) -> None:
    async with open_keys("127.0.0.1", redis) as store, serving_keys(store, "a", "a:b") as keys:
        assert (await keys.post("/keys/ja/b%3Ac", b"one")).status == 200
        assert (await keys.get("/keys/ja%3Ab/c")).status == 404


async def test_et_140_147_out_of_scope_looks_like_unknown(redis: int) -> None:
    async with open_keys("127.0.0.1", redis) as store, serving_keys(store, "mine") as keys:
        await store.set(Scoped("j", "theirs", b"key"), Value(b"secret", ""))
        unknown = await keys.get("/keys/jmine/unknown")
        assert (unknown.status, unknown.body) == (404, b"no such key\n")
        for path in (
            "/keys/jtheirs/key",
            "/keys/ttheirs/key",
            "/keys/tmine/key",
            "/keys/jt-mine/key",
            "/keys/xmine/key",
            "/keys/j/key",
            "/keys/jmine/",
        ):
            assert await keys.get(path) == unknown
            assert (await keys.post(path)).status == 404
        for path in ("/keys/jmine", "/keys/jmine/a/b", "/keys", "/keys/mine/key"):
            assert (await keys.get(path)).status == 404
        assert await store.get(Scoped("j", "theirs", b"key")) == Value(b"secret", "")
        assert (await keys.get("/keys/jmine/key", "DELETE")).status == 405


async def test_a_key_that_is_no_text_is_refused(redis: int) -> None:
    async with open_keys("127.0.0.1", redis) as store, serving_keys(store, "mine") as keys:
        for path in ("/keys/jmine/%ff", "/keys/j%ff/key", "/keys/jmine/%zz"):
            assert (await keys.get(path)).status == 400


async def test_et_140_scope_ends_with_the_attempt(redis: int) -> None:
    items, item, stop = OpenItems(), Item(TaskInput(internal_job_id="brief"), now=0), trio.Event()
    items.add(item)
    async with open_fetcher() as fetcher, open_keys("127.0.0.1", redis) as store:
        app = Webhooks(items, fetcher, keys=store)
        async with open_service_nursery() as nursery:
            keys = Keys(await nursery.start(partial(serve, app, stop=stop)))
            assert (await keys.post("/keys/jbrief/key")).status == 200
            items.discard(item)
            assert (await keys.get("/keys/jbrief/key")).status == 404
            assert (await keys.post("/keys/jbrief/key")).status == 404


@pytest.mark.parametrize(
    ("query", "ttl"),
    [
        ("", DEFAULT_TTL),
        ("?other=1", DEFAULT_TTL),
        ("?ttlInSeconds=3600", 3600),
        ("?ttlInSeconds=1", 1),
        (f"?ttlInSeconds={LONGEST_TTL}", LONGEST_TTL),
        ("?ttlInSeconds=1&ttlInSeconds=7", 7),
    ],
)
async def test_et_143_144_time_to_live(redis: int, query: str, ttl: int) -> None:
    assert DEFAULT_TTL == 24 * 60 * 60
    async with open_keys("127.0.0.1", redis) as store, serving_keys(store, "ttl") as keys:
        assert (await keys.post(f"/keys/jttl/key{query}")).status == 200
    async with coredis.Redis("127.0.0.1", redis) as client:
        assert ttl - 30 <= await client.ttl(b"et:j:ttl:key") <= ttl


@pytest.mark.parametrize(
    "text", ["0", "-1", "", "1.5", "1e3", "%2B5", " 5", "x", "²", str(LONGEST_TTL + 1), "9" * 5000]
)
async def test_et_144_148_redis_is_not_asked_for_impossible_times(redis: int, text: str) -> None:
    async with open_keys("127.0.0.1", redis) as store, serving_keys(store, "bad") as keys:
        quoted = text.replace(" ", "%20").replace("²", "%C2%B2")
        answer = await keys.post(f"/keys/jbad/key?ttlInSeconds={quoted}")
        assert (answer.status, b"ttlInSeconds" in answer.body) == (400, True)
        assert (await keys.get("/keys/jbad/key")).status == 404


async def test_et_147_a_key_is_forgotten_when_its_time_is_over(redis: int) -> None:
    async with open_keys("127.0.0.1", redis) as store, serving_keys(store, "brief") as keys:
        assert (await keys.post("/keys/jbrief/key?ttlInSeconds=1")).status == 200
        async with coredis.Redis("127.0.0.1", redis) as client:
            # A time that has passed, so that nobody waits for one that will.
            await client.pexpireat(b"et:j:brief:key", 1)
        assert (await keys.get("/keys/jbrief/key")).status == 404


async def test_et_148_a_body_is_required_and_bounded(redis: int) -> None:
    async with (
        open_keys("127.0.0.1", redis) as store,
        serving_keys(store, "body", max_body_bytes=1000) as keys,
    ):
        answer = await keys.post("/keys/jbody/key", b"")
        assert (answer.status, b"missing" in answer.body) == (400, True)
        assert (await keys.post("/keys/jbody/key", bytes(1001))).status == 413
        assert (await keys.get("/keys/jbody/key")).status == 404
        assert (await keys.post("/keys/jbody/key", bytes(1000))).status == 200


@pytest.mark.usefixtures("leaks")
async def test_et_137_149_without_redis_it_is_500_and_nothing_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    async with open_keys("127.0.0.1", port) as store, serving_keys(store, "dead") as keys:
        for answer in (await keys.get("/keys/jdead/key"), await keys.post("/keys/jdead/key")):
            assert (answer.status, answer.body) == (500, b"the store of keys is not available\n")
        assert (await keys.get("/keys/jother/key")).status == 404
    assert str(port) in caplog.text


@pytest.mark.usefixtures("leaks")
async def test_et_149_redis_may_go_and_come_back(tmp_path: Path) -> None:
    port = free_port()
    async with open_keys("127.0.0.1", port) as store:
        with redis_server(tmp_path, port):
            await store.set(KEY, Value(b"before", ""))
        with pytest.raises(KeysUnavailable):
            await store.get(KEY)
        with redis_server(tmp_path, port):
            assert await store.get(KEY) is None
            await store.set(KEY, Value(b"after", "text/plain"))
            assert await store.get(KEY) == Value(b"after", "text/plain")


@pytest.mark.usefixtures("leaks")
async def test_et_149_a_redis_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        async with open_keys("127.0.0.1", silent.getsockname()[1]) as store:
            with pytest.raises(KeysUnavailable, match="Redis: TooSlowError"):
                await store.get(KEY)
            with pytest.raises(KeysUnavailable):
                await store.set(KEY, Value(b"x", ""))


async def test_many_at_once(redis: int) -> None:
    async def use(number: int) -> None:
        key, value = Scoped("t", "many", str(number).encode()), Value(bytes([number]) * 1000, "")
        await store.set(key, value)
        assert await store.get(key) == value

    async with open_keys("127.0.0.1", redis) as store, trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(use, number)


def test_values_do_not_show_in_logs() -> None:
    assert "secret" not in repr(Value(b"secret", "text/plain"))

from __future__ import annotations

import ssl
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from orbtrio.toolkit.fetching import FetchFailed, open_fetcher
from orbtrio.toolkit.jobs import TaskInput
from orbtrio.toolkit.notices import LAST_WORDS, Notifier, notice_url, open_notifier
from tests.toolkit.wire import ok, open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

OUTPUT = {"index": 0, "output": {"series": [{"text": "grüß"}]}}


class Receiver:
    """Takes notices, in virtual time.

    Attributes:
        posts: So far: when, URL, body, headers.
    """

    def __init__(self, *answers: int | FetchFailed) -> None:
        self.posts: list[tuple[float, str, bytes, Mapping[str, str]]] = []
        self._answers = list(answers)
        self._began = trio.current_time()

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> int:
        """As `Fetcher.post`."""
        self.posts.append((round(trio.current_time() - self._began, 3), url, content, headers))
        answer = self._answers.pop(0) if self._answers else 200
        if isinstance(answer, FetchFailed):
            raise answer
        return answer


def make(*uris: str, **fields: Any) -> TaskInput:
    values = {"internal_job_id": "ij", "internal_task_id": "it", "job_id": "j", "task_id": "t"}
    return TaskInput(send_output_to=uris, **{**values, **fields})


@asynccontextmanager
async def notifier_of(receiver: Receiver) -> AsyncIterator[Notifier]:
    """Whatever is sent in the block has an end after it, of one kind or the other."""
    async with open_notifier(receiver) as notifier:  # type: ignore[arg-type]
        yield notifier
        await notifier.wait_idle()


SUFFIX = "internalJobID=ij&internalTaskID=it&jobID=j&taskID=t&chunkID=7&timestamp=1700000000"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://host/notify", f"http://host/notify/{SUFFIX}"),
        ("http://host/notify/", f"http://host/notify/{SUFFIX}"),
        ("http://host/notify//", f"http://host/notify//{SUFFIX}"),
        ("http://host", f"http://host/{SUFFIX}"),
        ("http://host/notify?key=1", f"http://host/notify?key=1&{SUFFIX}"),
        ("http://host/notify/?key=1/", f"http://host/notify/?key=1/&{SUFFIX}"),
        ("http://host/notify#part", f"http://host/notify/{SUFFIX}"),
    ],
)
def test_et_115_the_url_is_literally_the_pages(uri: str, expected: str) -> None:
    assert notice_url(uri, make(), chunk_id="7", timestamp=1_700_000_000) == expected


def test_et_115_values_are_percent_encoded() -> None:
    task = make(internal_job_id="a/b&c=d", internal_task_id="ü ?#", job_id="", task_id="100%")
    url = notice_url("http://host", task, chunk_id="1.2", timestamp=5)
    assert url == (
        "http://host/internalJobID=a%2Fb%26c%3Dd&internalTaskID=%C3%BC%20%3F%23&jobID=&taskID=100%25"
        "&chunkID=1.2&timestamp=5"
    )


async def test_et_114_each_address_gets_the_output_as_it_is_kept() -> None:
    receiver = Receiver()
    before = int(time.time())
    async with notifier_of(receiver) as notifier:
        notifier.send(make("http://one", "http://two", chunk_index=3), [OUTPUT])
    after = int(time.time())
    assert {url.partition("/internal")[0] for _, url, _, _ in receiver.posts} == {"http://one", "http://two"}
    for _, url, content, headers in receiver.posts:
        assert content == '{"series":[{"text":"grüß"}]}'.encode()
        assert headers == {"content-type": "application/json"}
        path, _, stamp = url.rpartition("&timestamp=")
        assert path.endswith("/internalJobID=ij&internalTaskID=it&jobID=j&taskID=t&chunkID=3")
        assert before <= int(stamp) <= after
    assert (notifier.delivered, notifier.failed) == (2, 0)


async def test_et_114_several_outputs_are_several_notices_in_their_order() -> None:
    receiver = Receiver()
    outputs: list[dict[str, Any]] = [
        {"index": 2, "output": 1},
        {"index": 0, "output": b"png", "mimeType": "image/png"},
        {"index": 1, "output": b"x", "mimeType": "a/b\r\nevil: 1"},
        {"index": 3, "output": b"y"},
    ]
    async with notifier_of(receiver) as notifier:
        notifier.send(make("http://one"), outputs)
    sent = [
        (url.partition("chunkID=")[2].partition("&")[0], content, headers["content-type"])
        for _, url, content, headers in receiver.posts
    ]
    assert sent == [
        ("0.2", b"1", "application/json"),
        ("0.0", b"png", "image/png"),
        ("0.1", b"x", "application/octet-stream"),
        ("0.3", b"y", "application/octet-stream"),
    ]


@pytest.mark.parametrize(("uris", "outputs"), [((), [OUTPUT]), (("http://one",), [])])
async def test_et_114_no_address_or_no_output_is_no_notice(
    uris: tuple[str, ...], outputs: list[dict[str, Any]]
) -> None:
    receiver = Receiver()
    async with notifier_of(receiver) as notifier:
        notifier.send(make(*uris), outputs)
    assert receiver.posts == []


async def test_et_116_122_metadata_becomes_headers_as_it_is() -> None:
    receiver = Receiver()
    metadata = {
        "x-aiware-chunk-timestamp": "1700000000.123",
        "X-Aiware-Mixed": 'Ünï c=d; "e" \\ %41',
        "x-aiware-empty": "",
        "content-type": "evil/evil",
        "x-other": "1",
        "not-x-aiware-this": "1",
    }
    async with notifier_of(receiver) as notifier:
        notifier.send(make("http://one", metadata=metadata), [OUTPUT])
    assert receiver.posts[0][3] == {
        "content-type": "application/json",
        "x-aiware-chunk-timestamp": "1700000000.123",
        "x-aiware-mixed": 'Ünï c=d; "e" \\ %41',
        "x-aiware-empty": "",
    }


async def test_et_116_control_bytes_and_odd_names_make_no_headers(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    metadata = {
        "x-aiware-a": "one\r\nHost: evil\0\t\x7f",
        "x-aiware-b\r\nevil": "1",
        "x-aiware-c d": "1",
        "x-aiware-ü": "1",
        "x-aiware-long": "x" * 5000,
    }
    async with notifier_of(receiver) as notifier:
        notifier.send(make("http://one", metadata=metadata), [OUTPUT])
    assert receiver.posts[0][3] == {"content-type": "application/json", "x-aiware-a": "oneHost: evil"}
    assert len(caplog.records) == 4


async def test_et_116_118_headers_over_the_wire() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    metadata = {"x-aiware-chunk-timestamp": "1700000000.123", "x-aiware-evil": "a\r\nb: c", "x-aiware-ü": ""}
    async with (
        open_server(ok()) as server,
        open_fetcher(ssl_context=context) as fetcher,
        open_notifier(fetcher) as notifier,
    ):
        notifier.send(make(f"{server.url}/notify?a=b", metadata=metadata), [OUTPUT])
    assert notifier.delivered == 1
    [seen] = server.seen
    assert (seen.method, seen.body) == ("POST", '{"series":[{"text":"grüß"}]}'.encode())
    assert seen.target.startswith(
        "/notify?a=b&internalJobID=ij&internalTaskID=it&jobID=j&taskID=t&chunkID=0&"
    )
    assert seen.headers["x-aiware-chunk-timestamp"] == "1700000000.123"
    assert seen.headers["x-aiware-evil"] == "ab: c"
    assert "b" not in seen.headers


UNREACHABLE = FetchFailed("url_not_found", "http://one cannot be reached")


@pytest.mark.parametrize("failure", [500, 404, 302, UNREACHABLE])
async def test_et_114_three_calls_then_it_is_given_up(
    failure: int | FetchFailed, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver(*[failure] * 3)
    async with notifier_of(receiver) as notifier:
        notifier.send(make("http://one/secret?token=1"), [OUTPUT])
    assert [when for when, *_ in receiver.posts] == [0, 0.1, 0.3]
    assert (notifier.delivered, notifier.failed) == (0, 1)
    assert "1 of 1 notices were not delivered" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_et_114_one_good_answer_is_enough(status: int, autojump_clock: trio.testing.MockClock) -> None:
    receiver = Receiver(500, UNREACHABLE, status)
    async with notifier_of(receiver) as notifier:
        notifier.send(make("http://one"), [OUTPUT])
    assert len(receiver.posts) == 3
    assert (notifier.delivered, notifier.failed) == (1, 0)


class Stuck(Receiver):
    """Never answers at one address."""

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> int:
        status = await super().post(url, content, headers)
        if "stuck/" in url.lower():
            await trio.sleep_forever()
        return status


async def test_one_address_does_not_hold_up_the_others_and_all_have_an_end(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Stuck()
    began = trio.current_time()
    async with notifier_of(receiver) as notifier:
        notifier.send(make("http://stuck", "http://one"), [OUTPUT, {"index": 1, "output": 2}])
        assert trio.current_time() == began
    assert trio.current_time() - began == pytest.approx(30)
    assert [when for when, *_ in receiver.posts] == [0, 0, 0]
    assert (notifier.delivered, notifier.failed) == (2, 2)
    assert "2 of 2 notices were not delivered: no time was left" in caplog.text


async def test_a_dead_host_has_few_connections_and_a_part_of_the_room(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Stuck()
    async with notifier_of(receiver) as notifier:
        for _ in range(300):
            notifier.send(make("http://user@STUCK"), [OUTPUT])
            notifier.send(make("http://stuck"), [OUTPUT])
        assert notifier.failed == 350
        assert "1 of 1 notices were not delivered: too many others wait" in caplog.text
        await trio.testing.wait_all_tasks_blocked()
        notifier.send(make("http://one"), [OUTPUT])
        await trio.testing.wait_all_tasks_blocked()
        urls = [url for _, url, _, _ in receiver.posts]
        assert sum("stuck/" in url.lower() for url in urls) == 4
        assert notifier.delivered == 1
    assert (notifier.delivered, notifier.failed) == (1, 600)
    # What it had is free again.
    async with notifier_of(Receiver()) as notifier:
        notifier.send(make(*["http://stuck"] * 250), [OUTPUT])
    assert (notifier.delivered, notifier.failed) == (250, 0)


async def test_all_hosts_together_have_an_end_too(autojump_clock: trio.testing.MockClock) -> None:
    async with notifier_of(Receiver()) as notifier:
        notifier.send(make(*(f"http://host-{number}" for number in range(1001))), [OUTPUT])
        assert notifier.failed == 1
    assert (notifier.delivered, notifier.failed) == (1000, 1)


async def test_bytes_that_wait_are_bounded_but_one_notice_always_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orbtrio.toolkit.notices._MOST_BYTES", 1000)
    large = {"index": 0, "output": b"x" * 1001}
    async with notifier_of(Receiver()) as notifier:
        notifier.send(make("http://one"), [large])
        notifier.send(make("http://two"), [OUTPUT])
    assert (notifier.delivered, notifier.failed) == (1, 1)


async def test_at_the_end_notices_have_some_seconds_and_no_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Slow(Stuck):
        async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> int:
            await trio.sleep(LAST_WORDS - 1)
            return await super().post(url, content, headers)

    began = trio.current_time()
    async with open_notifier(Slow()) as notifier:  # type: ignore[arg-type]
        notifier.send(make("http://one", "http://stuck"), [OUTPUT])
    assert trio.current_time() - began == pytest.approx(LAST_WORDS)
    assert (notifier.delivered, notifier.failed) == (1, 1)


async def test_what_nobody_foresaw_ends_one_notice_and_not_the_toolkit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Odd(Receiver):
        async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> int:
            if url.startswith("http://odd"):
                raise ZeroDivisionError
            return await super().post(url, content, headers)

    async with notifier_of(Odd()) as notifier:
        notifier.send(make("http://odd", "http://[one", "http://one"), [OUTPUT])
    assert (notifier.delivered, notifier.failed) == (2, 1)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("output", [float("nan"), {"nested": b"bytes"}, "\ud800"])
async def test_et_114_an_output_that_cannot_be_sent_does_not_fail_the_job(
    output: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with notifier_of(Receiver()) as notifier:
        notifier.send(make("http://one"), [{"index": 0, "output": output}])
    assert (notifier.delivered, notifier.failed) == (0, 1)


async def test_cancelling_is_not_swallowed() -> None:
    with trio.CancelScope() as scope:
        async with notifier_of(Stuck()) as notifier:
            notifier.send(make("http://stuck"), [OUTPUT])
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert notifier.failed == 1

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from orbtrio.toolkit.engine import EngineFailure, Task, TaskOver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BASE = "http://127.0.0.1:1234"
FIELDS = {
    "chunkContext": "context",
    "heartbeatWebhook": f"{BASE}/heartbeat/secret-token",
    "resultWebhook": f"{BASE}/result/secret-token",
    "internalJobId": "job/1",
    "internalTaskId": "task",
}


class Toolkit:
    """Answers what an engine asks, and keeps it."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.seen: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append(request)
        answer = self.answers.pop(0) if self.answers else httpx2.Response(204)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.seen]


@pytest.fixture
def make() -> Iterator[Callable[..., Task]]:
    clients = []

    def task(toolkit: Toolkit, chunk: bytes | None = None, /, **fields: str) -> Task:
        clients.append(httpx2.Client(transport=httpx2.MockTransport(toolkit)))
        return Task({**FIELDS, **fields}, None if chunk is None else io.BytesIO(chunk), clients[-1])

    yield task
    for client in clients:
        client.close()


def test_what_came_with_the_call_can_be_looked_up(make: Callable[..., Task], tmp_path: Path) -> None:
    task = make(
        Toolkit(),
        chunkMimeType="image/jpeg",
        startOffsetMS="1000",
        width="",
        payload='{"mode": "library-run"}',
        taskTmpDir=str(tmp_path),
        engineDir=str(tmp_path / "engine"),
        **{"chunk-metadata-x-aiware-chunk-timestamp": "1593"},
    )
    assert task.mime_type == "image/jpeg"
    assert [task.number(name) for name in ("startOffsetMS", "width", "height")] == [1000, 0, 0]
    assert task.payload == {"mode": "library-run"}
    assert task.metadata == {"x-aiware-chunk-timestamp": "1593"}
    assert (task.scratch_directory, task.engine_directory) == (tmp_path, tmp_path / "engine")
    task.close()


@pytest.mark.parametrize("payload", ["", "no JSON", "[1]", "[" * 100_000])
def test_a_payload_that_is_no_object_is_empty(make: Callable[..., Task], payload: str) -> None:
    assert make(Toolkit(), payload=payload).payload == {}


def test_a_number_that_is_none_is_the_callers_fault(make: Callable[..., Task]) -> None:
    with pytest.raises(EngineFailure, match="maxTTL is 'soon': expected a number") as raised:
        make(Toolkit(), maxTTL="soon").number("maxTTL")
    assert raised.value.reason == "invalid_data"


def test_the_chunk_can_be_read_again_and_in_parts(make: Callable[..., Task]) -> None:
    task = make(Toolkit(), b"x" * 100_000)
    assert task.read() == task.read() == b"x" * 100_000
    assert [len(part) for part in task.stream()] == [65_536, 34_464]
    task.close()


def test_et_43_input_without_a_chunk_comes_from_cache_uri(make: Callable[..., Task]) -> None:
    toolkit = Toolkit(httpx2.Response(200, content=b"from afar"))
    assert make(toolkit, cacheURI=f"{BASE}/cache/token").read() == b"from afar"
    assert [str(request.url) for request in toolkit.seen] == [f"{BASE}/cache/token"]
    assert make(Toolkit()).read() == b""


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx2.Response(502), "cacheURI answers 502"),
        (httpx2.Response(404), "cacheURI answers 404"),
        (httpx2.ReadError("http://secret"), "ReadError"),
    ],
)
def test_input_that_cannot_be_read_fails_the_task_and_names_no_token(
    make: Callable[..., Task], answer: httpx2.Response | Exception, message: str
) -> None:
    with pytest.raises(EngineFailure) as raised:
        make(Toolkit(answer), cacheURI=f"{BASE}/cache/secret-token").read()
    assert (raised.value.reason, raised.value.message) == ("stream_read_error", message)


def test_input_of_a_task_that_is_over_is_over(make: Callable[..., Task]) -> None:
    task = make(Toolkit(httpx2.Response(410)), cacheURI=f"{BASE}/cache/token")
    with pytest.raises(TaskOver):
        task.read()
    assert task.cancelled
    # What is cut off because nobody needs it is no failure either.
    cut = make(Toolkit(httpx2.ReadError("cut")), cacheURI=f"{BASE}/cache/token")
    cut.cancelled = True
    with pytest.raises(TaskOver):
        cut.read()


def test_an_address_that_the_engine_cannot_speak_to_is_said(make: Callable[..., Task]) -> None:
    with httpx2.Client() as client, pytest.raises(EngineFailure, match="UnsupportedProtocol"):
        Task({"cacheURI": "rtsp://camera/1"}, None, client).read()


def test_et_44_45_heartbeats_and_results_go_where_the_fields_say(make: Callable[..., Task]) -> None:
    toolkit = Toolkit()
    task = make(toolkit)
    task.counters["bytesRead"] = 7
    task.heartbeat()
    task.result({"object": []}, start_ms=0, end_ms=500)
    task.result("text")
    task.heartbeat("complete", infoMs="done")
    assert [request.url.path for request in toolkit.seen] == [
        "/heartbeat/secret-token",
        "/result/secret-token",
        "/result/secret-token",
        "/heartbeat/secret-token",
    ]
    counters = {"bytesRead": 7, "bytesWritten": 0}
    assert toolkit.bodies == [
        {"status": "running", **counters, "messagesWritten": 0},
        {"chunkContext": "context", "startOffsetMs": 0, "endOffsetMs": 500, "output": {"object": []}},
        {"chunkContext": "context", "output": "text"},
        {"status": "complete", **counters, "messagesWritten": 2, "infoMs": "done"},
    ]


@pytest.mark.parametrize("status", [404, 410])
def test_a_task_that_is_over_says_nothing_more(make: Callable[..., Task], status: int) -> None:
    toolkit = Toolkit(httpx2.Response(status))
    task = make(toolkit)
    for _ in range(2):
        with pytest.raises(TaskOver):
            task.heartbeat()
    assert task.cancelled
    assert len(toolkit.seen) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx2.Response(400, text="'output' is required\n"), "resultWebhook: 400: 'output' is required"),
        (httpx2.ConnectError("refused"), "resultWebhook cannot be reached: ConnectError"),
    ],
)
def test_a_result_that_is_not_taken_fails_the_task_and_names_no_token(
    make: Callable[..., Task], answer: httpx2.Response | Exception, message: str
) -> None:
    task = make(Toolkit(answer))
    with pytest.raises(EngineFailure) as raised:
        task.result(None)
    assert (raised.value.reason, raised.value.message) == ("api_error", message)
    assert task.counters["messagesWritten"] == 0


def test_a_toolkit_that_gives_no_webhooks_is_told_so() -> None:
    with httpx2.Client() as client:
        task = Task({}, None, client)
        with pytest.raises(EngineFailure, match="comes without heartbeatWebhook"):
            task.heartbeat()
        with pytest.raises(EngineFailure, match="comes without taskTmpDir"):
            _ = task.scratch_directory
        assert task.job_keys is None


def test_et_132_a_model_of_a_library_is_downloaded_into_its_directory(
    make: Callable[..., Task], tmp_path: Path
) -> None:
    task = make(Toolkit(), libraryModelDirectory=str(tmp_path))

    def download(attempt: Path) -> None:
        (attempt / "weights").write_text("w")

    kept = task.library(download)
    assert kept.parent == tmp_path == task.library_directory
    assert (kept / "weights").read_text() == "w"


def test_without_a_library_nothing_is_downloaded_into_the_working_directory(
    make: Callable[..., Task],
) -> None:
    def refuse(attempt: Path) -> None:
        raise AssertionError("downloaded")

    with pytest.raises(EngineFailure, match="its payload names no library"):
        make(Toolkit(), libraryModelDirectory="").library(refuse)


def test_et_139_142_keys_lie_below_the_url_of_the_toolkit(make: Callable[..., Task]) -> None:
    toolkit = Toolkit(httpx2.Response(200), httpx2.Response(200, content=b"\x00v"), httpx2.Response(404))
    task = make(toolkit, redisETUrl=BASE)
    assert task.job_keys is not None
    assert task.task_keys is not None
    task.job_keys.set("a/b?", b"\x00v", seconds=60)
    assert task.job_keys.get("a/b?") == b"\x00v"
    assert task.task_keys.get("..") is None
    assert [(request.method, request.url.raw_path) for request in toolkit.seen] == [
        ("POST", b"/keys/jjob%2F1/a%2Fb%3F?ttlInSeconds=60"),
        ("GET", b"/keys/jjob%2F1/a%2Fb%3F"),
        ("GET", b"/keys/ttask/%2E%2E"),
    ]
    assert toolkit.seen[0].content == b"\x00v"


def test_keys_that_are_not_available_fail_the_task(make: Callable[..., Task]) -> None:
    toolkit = Toolkit(httpx2.Response(500, text="not available"), httpx2.ConnectError("refused"))
    keys = make(toolkit, redisETUrl=BASE).job_keys
    assert keys is not None
    with pytest.raises(EngineFailure, match="the key 'k': 500: not available"):
        keys.set("k", b"v")
    with pytest.raises(EngineFailure, match="the key 'k' cannot be reached: ConnectError"):
        keys.get("k")

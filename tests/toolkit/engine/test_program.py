"""Engines made of functions, called over HTTP by a toolkit that a test plays."""

from __future__ import annotations

import json
import logging
import socket
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import trio

from orbtrio.errors import ConfigError
from orbtrio.toolkit.engine import Engine, EngineFailure, Task, TaskOver, engine, program
from tests.toolkit.wire import open_server, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.toolkit.wire import Seen

PROCESS = {"VERITONE_WEBHOOK_PROCESS": "http://127.0.0.1:0/process"}
PATIENCE = 50.0


@engine
def shout(task: Task) -> Any:
    """Says it louder."""
    text = task.read().decode()
    if text == "nothing":
        return None
    if text == "bad":
        raise EngineFailure("invalid_data", "no words")
    return {"object": [{"type": "text", "text": text.upper()}], "cannot": {1} if text == "set" else None}


class Toolkit:
    """Takes an engine's heartbeats and results.

    Attributes:
        posts: Paths and documents, in order of arrival.
        refuse: The status to answer to a path from now on, in place of 204.
        ended: A terminal heartbeat has come.
        refused: Something was answered with such a status.
    """

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.refuse: dict[str, int] = {}
        self._changed = trio.Event()
        self.ended = trio.Event()
        self.refused = trio.Event()

    async def reply(self, seen: Seen, stream: trio.abc.Stream) -> None:
        document = json.loads(seen.body)
        self.posts.append((seen.target, document))
        self._changed.set()
        self._changed = trio.Event()
        status = self.refuse.get(seen.target, 204)
        if status == 204 and document.get("status", "running") != "running":
            self.ended.set()
        if status != 204:
            self.refused.set()
        await stream.send_all(
            f"HTTP/1.1 {status} Whatever\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
        )

    async def wait_posts(self, count: int) -> None:
        while len(self.posts) < count:
            await self._changed.wait()

    def of(self, path: str) -> list[dict[str, Any]]:
        return [document for target, document in self.posts if target == path]


@asynccontextmanager
async def serving(made: Engine, **environ: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an engine that serves."""
    async with trio.open_nursery() as nursery:
        port = await nursery.start(made.serve, {**PROCESS, **environ})
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, trust_env=False
        ) as client:
            yield client
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_toolkit() -> AsyncIterator[tuple[Toolkit, dict[str, str]]]:
    """A toolkit, and the fields that lead to it."""
    toolkit = Toolkit()
    async with open_server(toolkit.reply) as server:
        yield (
            toolkit,
            {
                "chunkContext": "context",
                "maxTTL": "60",
                "heartbeatWebhook": f"{server.url}/heartbeat",
                "resultWebhook": f"{server.url}/result",
            },
        )


def post(client: httpx2.AsyncClient, fields: dict[str, str], text: str | None = None) -> Any:
    """What the toolkit does: a call that always has a form."""
    files = None if text is None else {"chunk": ("chunk.data", text.encode())}
    return client.post("/process", data=fields, files=files)


async def ready(client: httpx2.AsyncClient, path: str = "/readyz") -> None:
    with trio.fail_after(PATIENCE):
        while (await client.get(path)).status_code != 200:  # noqa: ASYNC110  (it can only be asked)
            await trio.sleep(0.01)


def test_an_engine_is_still_the_function_it_was() -> None:
    assert shout.__doc__ == "Says it louder."
    assert shout(Task({}, None, httpx2.Client()))["object"][0]["text"] == ""


async def test_et_31_42_the_function_answers_the_call() -> None:
    async with serving(shout) as client:
        await ready(client)
        answer = await post(client, {"startOffsetMS": "0"}, "hello")
        assert answer.status_code == 200
        assert answer.json()["object"] == [{"type": "text", "text": "HELLO"}]
        assert (await post(client, {}, "nothing")).status_code == 204


async def test_what_goes_wrong_is_said_in_the_pages_words(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(shout) as client:
        bad, no_json = await post(client, {}, "bad"), await post(client, {}, "set")
        no_text = await client.post("/process", files={"chunk": b"\xff"})
    assert [answer.status_code for answer in (bad, no_json, no_text)] == [500] * 3
    assert bad.json() == {"errorType": "invalid_data", "errorMsg": "no words"}
    assert no_json.json() == {
        "errorType": "internal_error",
        "errorMsg": "TypeError: Object of type set is not JSON serializable",
    }
    assert no_text.json()["errorMsg"].startswith("UnicodeDecodeError: ")
    # The author's mistakes are in the log, with where they happened; what was meant to be said is not.
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
    caplog.clear()


async def test_only_forms_at_the_right_paths_are_calls() -> None:
    async with serving(shout) as client:
        assert (await client.get("/process")).status_code == 404
        assert (await client.post("/elsewhere")).status_code == 404
        assert (
            await client.post("/process", json={})
        ).text == "expected a form: its type is 'application/json'"
        broken = await client.post(
            "/process", content=b"--x", headers={"content-type": "multipart/form-data"}
        )
        assert broken.status_code == 400
        assert broken.text.startswith("expected a form: ")


async def test_the_first_file_of_the_name_is_the_chunk() -> None:
    async with serving(shout) as client:
        answer = await client.post(
            "/process", files=[("other", b"no"), ("chunk", b"yes"), ("chunk", b"second")]
        )
        assert answer.json()["object"][0]["text"] == "YES"


async def test_a_large_chunk_arrives_whole() -> None:
    text = "long " * 1_000_000
    async with serving(shout) as client:
        answer = await post(client, {}, text)
        assert answer.json()["object"][0]["text"] == text.upper()


async def test_ready_is_said_when_the_model_is_loaded() -> None:
    loading, loaded = threading.Event(), threading.Event()

    def load() -> None:
        loading.set()
        loaded.wait(PATIENCE)

    made = engine(load=load)(lambda task: None)
    environ = {"VERITONE_WEBHOOK_READY": "http://127.0.0.1:0/ready"}
    async with serving(made, **environ) as client:
        await trio.to_thread.run_sync(loading.wait, PATIENCE)
        assert (await client.get("/ready")).status_code == 503
        loaded.set()
        await ready(client, "/ready")
        assert (await client.get("/readyz")).status_code == 404


async def test_a_model_that_cannot_be_loaded_ends_the_engine() -> None:
    def load() -> None:
        raise FileNotFoundError("no weights")

    made = engine(load=load)(lambda task: None)
    with pytest.raises(FileNotFoundError, match="no weights"):
        await made.serve(PROCESS)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"VERITONE_WEBHOOK_PROCESS": "https://127.0.0.1:1/p"},
            "VERITONE_WEBHOOK_PROCESS is 'https:.*such as",
        ),
        ({"VERITONE_WEBHOOK_PROCESS": "http://[1/p"}, "VERITONE_WEBHOOK_PROCESS is"),
        ({"VERITONE_WEBHOOK_READY": "http://127.0.0.1:1/r"}, "must name one host and port"),
        ({"VERITONE_CONCURRENT_TASKS": "many"}, "VERITONE_CONCURRENT_TASKS.*expected a whole number"),
    ],
)
async def test_a_place_where_it_cannot_serve_is_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await shout.serve(environ)


def test_a_program_that_cannot_serve_says_so_in_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SystemExit, match=r"error: .*in use"):
            shout.run({"VERITONE_WEBHOOK_PROCESS": url})


def test_an_interrupt_ends_the_program_quietly() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    engine(load=interrupt)(lambda task: None).run(PROCESS)


def test_async_functions_are_refused() -> None:
    async def listen(task: Task) -> None: ...

    with pytest.raises(TypeError, match="listen is async: write it with def"):
        engine(listen)


async def test_what_is_no_request_is_closed() -> None:
    async with serving(shout) as client:
        headers = {
            "connection": "upgrade",
            "upgrade": "websocket",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
            "sec-websocket-version": "13",
        }
        assert (await client.get("/process", headers=headers)).status_code == 403


async def test_no_more_tasks_at_once_than_the_environment_says() -> None:
    running, most, lock = 0, 0, threading.Lock()
    full, go_on = threading.Event(), threading.Event()

    @engine
    def count(task: Task) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 2:
                full.set()
        go_on.wait(PATIENCE)
        with lock:
            running -= 1

    async with serving(count, VERITONE_CONCURRENT_TASKS="2") as client, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(post, client, {}, "chunk")
        await trio.to_thread.run_sync(full.wait, PATIENCE)
        await ready(client)
        go_on.set()
    assert most == 2


async def test_et_95_asynchronous_engines_acknowledge_and_answer_later() -> None:
    @engine(asynchronous=True, estimate=7)
    def lines(task: Task) -> dict[str, Any]:
        task.counters["bytesRead"] = 4
        for line in task.read().split():
            task.result({"line": line.decode()}, start_ms=0)
        return {"line": "end"}

    async with open_toolkit() as (toolkit, fields), serving(lines) as client:
        answer = await post(client, fields, "a b")
        assert answer.json() == {"estimatedProcessingTimeInSeconds": 7}
        with trio.fail_after(PATIENCE):
            await toolkit.ended.wait()
    # One heartbeat before all else: see there.
    assert toolkit.posts[0][0] == "/heartbeat"
    assert [document["output"]["line"] for document in toolkit.of("/result")] == ["a", "b", "end"]
    last = toolkit.of("/heartbeat")[-1]
    assert (last["status"], last["bytesRead"], last["messagesWritten"]) == ("complete", 4, 3)


async def test_et_41_98_an_asynchronous_engine_sends_heartbeats_while_it_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orbtrio.toolkit.engine.program._HEARTBEAT", 0.01)
    enough = threading.Event()

    @engine(asynchronous=True)
    def think(task: Task) -> None:
        enough.wait(PATIENCE)

    async with open_toolkit() as (toolkit, fields), serving(think) as client:
        answer = await post(client, fields)
        assert answer.json() == {"estimatedProcessingTimeInSeconds": 60}
        with trio.fail_after(PATIENCE):
            await toolkit.wait_posts(5)
            enough.set()
            await toolkit.ended.wait()
    states = [document["status"] for document in toolkit.of("/heartbeat")]
    assert states[:5] == ["running"] * 5
    assert states[-1] == "complete"
    assert toolkit.of("/result") == []


@pytest.mark.parametrize(
    ("problem", "reason", "text"),
    [
        (EngineFailure("rate_limited", "later"), "rate_limited", "later"),
        (ValueError("odd"), "internal_error", "ValueError: odd"),
    ],
)
async def test_et_104_105_an_asynchronous_failure_is_a_heartbeat(
    problem: Exception, reason: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    @engine(asynchronous=True)
    def fail(task: Task) -> None:
        raise problem

    async with open_toolkit() as (toolkit, fields), serving(fail) as client:
        await post(client, fields)
        with trio.fail_after(PATIENCE):
            await toolkit.ended.wait()
    last = toolkit.of("/heartbeat")[-1]
    assert (last["status"], last["failureReason"], last["failureMsg"]) == ("failed", reason, text)
    caplog.clear()


async def test_et_129_130_trainings_are_asynchronous_whatever_the_engine_is() -> None:
    async with open_toolkit() as (toolkit, fields), serving(shout) as client:
        answer = await post(client, {**fields, "payload": '{"mode": "library-train"}'})
        assert answer.json() == {"estimatedProcessingTimeInSeconds": 60}
        with trio.fail_after(PATIENCE):
            await toolkit.ended.wait()
        assert toolkit.of("/heartbeat")[-1]["status"] == "complete"
        # Running with it is not.
        assert (await post(client, {**fields, "payload": '{"mode": "library-run"}'}, "hm")).json()["object"]


async def test_a_task_that_is_over_is_given_up_and_its_end_not_told() -> None:
    begun, over, raised = threading.Event(), threading.Event(), threading.Event()

    @engine(asynchronous=True)
    def report(task: Task) -> None:
        begun.set()
        over.wait(PATIENCE)
        try:
            task.result("too late")
        except TaskOver:
            raised.set()
            raise

    async with open_toolkit() as (toolkit, fields), serving(report) as client:
        await post(client, fields)
        await trio.to_thread.run_sync(begun.wait, PATIENCE)
        toolkit.refuse = {"/result": 410, "/heartbeat": 410}
        over.set()
        assert await trio.to_thread.run_sync(raised.wait, PATIENCE)
        await ready(client)
    assert all(document.get("status", "running") == "running" for _, document in toolkit.posts)


async def test_a_task_that_is_over_before_it_begins_is_not_begun() -> None:
    @engine(asynchronous=True)
    def never(task: Task) -> None:
        raise AssertionError("begun")

    async with open_toolkit() as (toolkit, fields), serving(never) as client:
        toolkit.refuse = {"/heartbeat": 410}
        await post(client, fields)
        with trio.fail_after(PATIENCE):
            await toolkit.refused.wait()
            await ready(client)


async def test_the_last_word_is_said_again_if_it_is_not_heard(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("orbtrio.toolkit.engine.program._LAST_WORDS_WAIT", 0.0)
    asked = threading.Event()

    @engine(asynchronous=True)
    def work(task: Task) -> None:
        asked.wait(PATIENCE)

    async with open_toolkit() as (toolkit, fields), serving(work) as client:
        toolkit.refuse = {"/heartbeat": 503}
        await post(client, fields)
        with trio.fail_after(PATIENCE):
            # The first heartbeat is refused, and the work begun nevertheless.
            await toolkit.refused.wait()
            asked.set()
            await toolkit.wait_posts(3)
            toolkit.refuse = {}
            await toolkit.ended.wait()
    assert toolkit.of("/heartbeat")[-1]["status"] == "complete"
    assert caplog.records[0].getMessage() == "a heartbeat: heartbeatWebhook: 503: "
    caplog.clear()


async def test_a_toolkit_that_never_hears_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("orbtrio.toolkit.engine.program._LAST_WORDS_WAIT", 0.0)

    @engine(asynchronous=True)
    def work(task: Task) -> None:
        task.counters["bytesRead"] = {1}  # type: ignore[assignment]  # what authors may do

    async with open_toolkit() as (toolkit, fields), serving(work) as client:
        with caplog.at_level(logging.WARNING, "orbtrio.toolkit.engine"):
            await post(client, fields)
            with trio.fail_after(PATIENCE):
                while len(caplog.records) < 3:  # noqa: ASYNC110  (a log tells nobody)
                    await trio.sleep(0.01)
        # It serves others yet.
        await ready(client)
    assert [document["status"] for _, document in toolkit.posts] == ["running"]
    assert {record.getMessage() for record in caplog.records} == {
        "a heartbeat: Object of type set is not JSON serializable"
    }
    caplog.clear()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "the call names no heartbeatWebhook to answer to later"),
        ({"heartbeatWebhook": "http://127.0.0.1:1/h", "maxTTL": "soon"}, "maxTTL is 'soon'"),
    ],
)
async def test_a_call_that_cannot_be_answered_later_is_refused(fields: dict[str, str], message: str) -> None:
    @engine(asynchronous=True)
    def never(task: Task) -> None:
        raise AssertionError("begun")

    async with serving(never) as client:
        answer = await post(client, fields, "chunk")
        assert answer.status_code == 500
        assert message in answer.json()["errorMsg"]


async def test_calls_that_are_given_up_are_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, arrived, noticed = program._watch, trio.Event(), trio.Event()
    begun, go_on, second = threading.Event(), threading.Event(), threading.Event()

    async def announce(request: Any, task: Task) -> None:
        if task.fields["name"] == "second":
            arrived.set()
            await watch(request, task)
            noticed.set()

    @engine
    def wait(task: Task) -> None:
        if task.fields["name"] == "second":
            second.set()
        begun.set()
        go_on.wait(PATIENCE)

    monkeypatch.setattr(program, "_watch", announce)
    async with serving(wait) as client:
        async with trio.open_nursery() as calling:
            calling.start_soon(post, client, {"name": "first"}, "chunk")
            await trio.to_thread.run_sync(begun.wait, PATIENCE)
            async with trio.open_nursery() as given_up:
                # It waits for its turn.
                given_up.start_soon(post, client, {"name": "second"}, "chunk")
                await arrived.wait()
                given_up.cancel_scope.cancel()
            await noticed.wait()
            go_on.set()
        await post(client, {"name": "third"}, "chunk")
    assert not second.is_set()


async def test_a_call_that_breaks_off_is_no_call() -> None:
    async with serving(shout) as client:
        part = request("POST", "/process", b"--x\r\n", {"content-type": "multipart/form-data; boundary=x"})
        async with await trio.open_tcp_stream("127.0.0.1", client.base_url.port or 0) as stream:
            await stream.send_all(part.replace(b"content-length: 5", b"content-length: 500"))
        await ready(client)


async def test_a_function_that_reports_hears_that_its_call_was_given_up() -> None:
    begun, raised = threading.Event(), threading.Event()

    @engine
    def report(task: Task) -> None:
        begun.set()
        while not task.cancelled:
            raised.wait(0.01)
        try:
            task.heartbeat()
        except TaskOver:
            raised.set()
            raise

    async with serving(report) as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as calling:
                calling.start_soon(post, client, {}, "chunk")
                await trio.to_thread.run_sync(begun.wait, PATIENCE)
                scope.cancel()
        assert await trio.to_thread.run_sync(raised.wait, PATIENCE)

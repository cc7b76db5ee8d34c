from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import trio

from orbtrio.toolkit.request import MultipartBody
from orbtrio.toolkit.runs import Run, encode, watch

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

BASE = "http://127.0.0.1:1234"
FIELDS = {
    "heartbeatWebhook": f"{BASE}/heartbeat/t1",
    "resultWebhook": f"{BASE}/result/t2",
    "externalCallbackWebhook": f"{BASE}/external/t3",
    "cacheURI": f"{BASE}/cache/t4",
    "internalJobId": "job",
    "internalTaskId": "task",
}


def told(run: Run) -> list[tuple[str, dict[str, Any]]]:
    events: list[tuple[str, dict[str, Any]]] = []
    while True:
        try:
            event, fields = run.events.receive_nowait()
        except trio.WouldBlock:
            return events
        except trio.EndOfChannel:
            return [*events, ("end", {})]
        events.append((event, {name: value for name, value in fields.items() if name != "at"}))


async def call(run: Run, **fields: str) -> None:
    """Call an engine that answers 200, as a job does."""
    body = MultipartBody(list({**FIELDS, **fields}.items()), None)
    async with run.open_client() as client:
        transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json={}))
        client._transport, client._mounts = transport, {}  # as a test of httpx2's own would
        await client.send(httpx2.Request("POST", f"{BASE}/process", stream=body))


async def test_a_call_is_shown_with_its_fields_and_its_answer(autojump_clock: object) -> None:
    run = Run()
    await trio.sleep(1.5)
    await call(run)
    _, at = run.events.receive_nowait()
    assert at["at"] == 1.5
    ((answer, fields),) = told(run)
    assert at["url"] == f"{BASE}/process"
    assert dict(at["fields"]) == FIELDS
    assert at["bytes"] > 500
    assert (answer, fields) == ("answer", {"status": 200, "type": "application/json", "seconds": 0.0})


async def test_the_result_is_the_last_event(autojump_clock: object) -> None:
    run = Run()
    run.report("job", {"kind": "heartbeat", "status": "running", "bytesRead": 7})
    await run.finish({"status": "complete", "outputs": [1]})
    assert told(run) == [
        (
            "report",
            {
                "kind": "heartbeat",
                "status": "running",
                "text": {"kind": "heartbeat", "status": "running", "bytesRead": 7},
            },
        ),
        ("done", {"status": "complete", "text": {"status": "complete", "outputs": [1]}}),
        ("end", {}),
    ]


async def test_what_a_page_does_not_take_is_left_out_and_counted() -> None:
    run = Run()
    for number in range(1003):
        run.tell("report", kind=str(number))
    with trio.move_on_after(0):
        await run.finish({})
    events = [run.events.receive_nowait() for _ in range(1000)]
    assert [fields["kind"] for _, fields in events] == [str(number) for number in range(1000)]
    run.tell("report", kind="next")
    run.tell("report", kind="after")
    assert told(run) == [("report", {"kind": "next", "omitted": 3}), ("report", {"kind": "after"})]


class App:
    """Answers every request in the same way."""

    def __init__(self, status: int, text: bytes = b"") -> None:
        self._status = status
        self._text = text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self._status})
        await send({"type": "http.response.body", "body": self._text, "more_body": True})
        await send({"type": "http.response.body"})


async def ask(app: App, runs: set[Run], path: str, method: str = "POST", kind: str = "http") -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    await watch(app, runs)({"type": kind, "path": path, "method": method}, receive, send)
    return sent


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/heartbeat/t1", "heartbeat"),
        ("/callback/t1", "callback"),
        ("/result/t2", "result"),
        ("/external/t3", "external"),
        ("/cache/t4", "cache"),
        ("/keys/jjob/a key", "keys"),
        ("/keys/ttask/k", "keys"),
        # Nobody's: whose job runs may have mistyped it.
        ("/heartbeats/t1", "/heartbeats/t1"),
        ("/", "/"),
    ],
)
async def test_the_engines_calls_are_shown_without_tokens(path: str, name: str) -> None:
    run = Run()
    await call(run)
    told(run)
    assert len(await ask(App(204), {run}, path)) == 3
    assert told(run) == [("webhook", {"method": "POST", "name": name, "status": 204})]


async def test_a_refusal_is_shown_with_its_words() -> None:
    run = Run()
    await call(run)
    told(run)
    await ask(App(400, b"'output' is required\n" + b" " * 5000), {run}, "/result/t2")
    ((_, fields),) = told(run)
    assert (fields["status"], fields["text"]) == (400, "'output' is required")


@pytest.mark.parametrize(
    "path", ["/heartbeat/other", "/result/t1", "/keys/jother/k", "/console", "/console/jobs"]
)
async def test_other_jobs_calls_are_not_shown(path: str) -> None:
    run = Run()
    await call(run)
    told(run)
    await ask(App(204), {run}, path)
    await ask(App(204), {run}, "/heartbeat/t1", kind="websocket")
    assert told(run) == []


def test_events_are_lines_and_their_json_is_for_people() -> None:
    event = encode("done", {"at": 1.0, "text": {"a": ["ä\n\u2028", b"\xff\xd8", float("nan")]}})
    name, data, *rest = event.decode().split("\n")
    assert (name, rest) == ("event: done", ["", ""])
    assert json.loads(data.removeprefix("data: ")) == {
        "at": 1.0,
        "text": '{\n  "a": [\n    "ä\\n\u2028",\n    "<2 bytes>",\n    NaN\n  ]\n}',
    }
    assert encode("call", {"text": "as it is"}) == b'event: call\ndata: {"text": "as it is"}\n\n'


def test_what_json_cannot_say_is_shown_nevertheless() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert b"nested too deeply" in encode("report", {"text": deep})
    assert rb"{1, 2}" in encode("report", {"text": {"set": {1, 2}}})
    assert rb"\ud800" in encode("report", {"text": "\ud800"})

from __future__ import annotations

import json
import ssl
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
import trio.testing

from orbtrio._nursery import open_service_nursery
from orbtrio.toolkit import webhooks
from orbtrio.toolkit.answers import Ack, Output
from orbtrio.toolkit.fetching import open_fetcher
from orbtrio.toolkit.items import Complete, Failed, Item
from orbtrio.toolkit.jobs import TaskInput
from orbtrio.toolkit.open_items import OpenItems
from orbtrio.toolkit.serving import serve
from orbtrio.toolkit.webhooks import Webhooks
from tests.toolkit.wire import Answer, ask, read_answer, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import Message, Receive, Scope, Send

HOOKS = ("heartbeat", "result", "callback", "external")
TOKENS = {
    "heartbeat": "heartbeat_token",
    "callback": "heartbeat_token",
    "result": "result_token",
    "external": "external_token",
    "cache": "cache_token",
}
RUNNING = b'{"status": "running"}'
COMPLETE = b'{"status": "complete"}'
RESULT = b'{"output": {"series": []}}'
# What each of them takes.
BODIES = {"heartbeat": RUNNING, "result": RESULT, "callback": RUNNING, "external": RESULT}


class Toolkit:
    """Webhooks with one attempt, called without a socket.

    Attributes:
        sent: What the application has answered, message by message.
    """

    def __init__(self, *, engine_type: str = "stream", **options: Any) -> None:
        self.open_items = OpenItems()
        self.item = Item(TaskInput(engine_type=cast("Any", engine_type)), now=trio.current_time())
        self.open_items.add(self.item)
        self.app = Webhooks(self.open_items, cast("Any", None), **options)

    def path(self, purpose: str) -> str:
        return f"/{purpose}/{getattr(self.item, TOKENS[purpose])}"

    async def post(self, path: str, *parts: bytes, **headers: str) -> Answer:
        messages: list[Message] = [
            {"type": "http.request", "body": part, "more_body": index < len(parts) - 1}
            for index, part in enumerate(parts)
        ]
        return await self.call("POST", path, messages, **headers)

    async def call(self, method: str, path: str, messages: list[Message], **headers: str) -> Answer:
        sent: list[Message] = []

        async def receive() -> Message:
            if not messages:
                await trio.sleep_forever()
            return messages.pop(0)

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(_scope(method, path, headers), receive, send)
        if not sent:
            return Answer(0, {}, b"", False)
        start, *bodies = sent
        names = {name.decode(): value.decode() for name, value in start.get("headers", ())}
        content = b"".join(part["body"] for part in bodies)
        return Answer(start["status"], names, content, not bodies[-1].get("more_body", False))


def _scope(method: str, path: str, headers: dict[str, str]) -> Scope:
    raw, _, query = path.encode().partition(b"?")
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "raw_path": raw,
        "query_string": query,
        "headers": fields,
    }


async def test_et_45_98_106_a_heartbeat_needs_no_content_type() -> None:
    toolkit = Toolkit()
    answer = await toolkit.post(toolkit.path("heartbeat"), b'{"status": "running", "bytesRead": 7}')
    assert answer == Answer(204, {}, b"", True)
    assert toolkit.item.counters == {"bytesRead": 7}


async def test_et_44_107_113_a_result_is_kept_before_it_is_acknowledged() -> None:
    toolkit = Toolkit()
    kept: list[dict[str, Any]] = []
    toolkit.item.on_report = kept.append
    answer = await toolkit.post(toolkit.path("result"), RESULT)
    assert answer == Answer(204, {}, b"", True)
    assert toolkit.item.outputs == [{"index": 0, "output": {"series": []}}]
    assert len(kept) == 1


@pytest.mark.parametrize("purpose", ["callback", "external"])
async def test_et_46_84_callbacks_take_heartbeats_and_results(purpose: str) -> None:
    toolkit = Toolkit()
    toolkit.item.answered(Ack(), 0)
    path = toolkit.path(purpose)
    assert (await toolkit.post(path, RUNNING)).status == 204
    assert (await toolkit.post(path, RESULT)).status == 204
    assert (await toolkit.post(path, COMPLETE)).status == 204
    assert toolkit.item.outcome == Complete()
    assert len(toolkit.item.outputs) == 1


async def test_et_84_the_callback_for_others_gives_away_nothing_else() -> None:
    toolkit = Toolkit()
    token = toolkit.item.external_token
    for purpose in ("heartbeat", "result", "callback", "cache"):
        assert (await toolkit.post(f"/{purpose}/{token}", RUNNING)).status == 404


@pytest.mark.parametrize("purpose", HOOKS)
@pytest.mark.parametrize(
    "path", ["/{}/unknown", "/{}/", "/{}", "/{}/{}/", "/{}/{}/more", "//{}/{}", "/x/{}/{}"]
)
async def test_et_106_unknown_tokens_and_paths_are_404(purpose: str, path: str) -> None:
    toolkit = Toolkit()
    token = toolkit.path(purpose).rpartition("/")[2]
    assert (await toolkit.post(path.format(purpose, token), BODIES[purpose])).status == 404


async def test_paths_are_literal_and_not_decoded() -> None:
    toolkit = Toolkit()
    path = toolkit.path("result")
    assert (await toolkit.post(path.replace("result", "%72esult"), RESULT)).status == 404
    assert (await toolkit.post(path.replace("result", "Result"), RESULT)).status == 404
    assert (await toolkit.post(f"{path}?whatever=1", RESULT)).status == 204


@pytest.mark.parametrize("purpose", HOOKS)
async def test_only_post_is_for_webhooks(purpose: str) -> None:
    toolkit = Toolkit()
    answer = await toolkit.call("GET", toolkit.path(purpose), [{"type": "http.request"}])
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("purpose", "body", "text"),
    [
        ("heartbeat", b"", "not JSON"),
        ("heartbeat", b"status=running", "not JSON"),
        ("heartbeat", b"[]", "not an object"),
        ("heartbeat", b'{"status": "sleeping"}', "running, complete or failed"),
        ("result", b'{"index": 1}', "'output' is required"),
        ("result", b'{"output": {}, "chunkContext": "other"}', "'chunkContext' is not the one"),
        ("callback", b"{}", "neither 'output'"),
    ],
)
async def test_et_99_108_111_what_cannot_be_understood_is_400_with_a_reason(
    purpose: str, body: bytes, text: str
) -> None:
    toolkit = Toolkit()
    answer = await toolkit.post(toolkit.path(purpose), body)
    assert answer.status == 400
    assert text in answer.body.decode()
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert toolkit.item.outputs == []
    assert toolkit.item.outcome is None


@pytest.mark.parametrize("remembered", [False, True], ids=["still open", "closed"])
async def test_et_106_after_the_end_a_repetition_is_204_and_all_else_410(remembered: bool) -> None:
    toolkit = Toolkit()
    toolkit.item.answered(Ack(), 0)
    heartbeat, result = toolkit.path("heartbeat"), toolkit.path("result")
    assert (await toolkit.post(heartbeat, COMPLETE)).status == 204
    if remembered:
        toolkit.open_items.discard(toolkit.item)
    assert (await toolkit.post(heartbeat, COMPLETE)).status == 204
    assert (await toolkit.post(heartbeat, RUNNING)).status == 410
    assert (await toolkit.post(heartbeat, b'{"status": "failed"}')).status == 410
    answer = await toolkit.post(result, RESULT)
    assert (answer.status, answer.body) == (410, b"the attempt is over\n")


async def test_et_99_a_failed_attempt_hears_its_failure_again() -> None:
    toolkit = Toolkit()
    toolkit.item.answered(Ack(), 0)
    body = b'{"status": "failed", "failureReason": "api_error"}'
    assert (await toolkit.post(toolkit.path("heartbeat"), body)).status == 204
    assert toolkit.item.outcome == Failed("api_error", "", retry=False)
    toolkit.open_items.discard(toolkit.item)
    assert (await toolkit.post(toolkit.path("heartbeat"), body)).status == 204
    assert (await toolkit.post(toolkit.path("heartbeat"), COMPLETE)).status == 410


async def test_a_body_comes_in_parts() -> None:
    toolkit = Toolkit()
    parts = [RESULT[index : index + 5] for index in range(0, len(RESULT), 5)]
    assert (await toolkit.post(toolkit.path("result"), *parts)).status == 204
    assert toolkit.item.outputs[0]["output"] == {"series": []}


async def test_a_large_result_is_parsed_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    toolkit = Toolkit()
    threads: list[Callable[..., Any]] = []
    run_sync = trio.to_thread.run_sync

    async def watched(function: Callable[..., Any], *args: Any) -> Any:
        threads.append(function)
        return await run_sync(function, *args)

    monkeypatch.setattr(trio.to_thread, "run_sync", watched)
    assert (await toolkit.post(toolkit.path("result"), RESULT)).status == 204
    assert threads == []
    large = json.dumps({"output": "x" * 300_000}).encode()
    assert (await toolkit.post(toolkit.path("result"), large)).status == 204
    assert len(threads) == 1
    assert (await toolkit.post(toolkit.path("result"), b"x" * 300_000)).status == 400


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize(("purpose", "limit"), [("heartbeat", 1 << 20), ("result", 5000), ("external", 5000)])
async def test_et_84_a_body_that_is_too_large_is_413(purpose: str, limit: int, announced: bool) -> None:
    toolkit = Toolkit(max_body_bytes=5000)
    head, tail = b'{"status": "running", "output": "', b'"}'
    body = head + b"x" * (limit - len(head) - len(tail)) + tail
    path = toolkit.path(purpose)

    async def post(body: bytes) -> int:
        headers = {"content_length": str(len(body))} if announced else {}
        return (await toolkit.post(path, body[:100], body[100:], **headers)).status

    assert await post(body) == 204
    assert await post(body + b" ") == 413


async def test_the_body_of_who_is_refused_is_thrown_away_first_and_in_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks, "_DISCARDED", 10)
    toolkit = Toolkit()
    messages: list[Message] = [
        {"type": "http.request", "body": b"12345", "more_body": True} for _ in range(5)
    ]
    answer = await toolkit.call("POST", "/result/unknown", messages)
    assert (answer.status, answer.complete, len(messages)) == (404, True, 3)


async def test_a_body_that_does_not_come_is_408_after_its_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    toolkit = Toolkit()
    began = trio.current_time()
    slow: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}]
    assert (await toolkit.call("POST", toolkit.path("result"), slow)).status == 408
    assert trio.current_time() - began == pytest.approx(32)
    assert toolkit.item.outputs == []


async def test_a_body_that_says_it_is_too_large_is_not_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    toolkit = Toolkit(max_body_bytes=5000)
    began = trio.current_time()
    answer = await toolkit.call("POST", toolkit.path("result"), [], content_length="5001")
    assert answer.status == 413
    assert trio.current_time() - began == pytest.approx(2)


@pytest.mark.parametrize("path", ["/result/{}", "/result/unknown"])
async def test_a_caller_that_goes_away_has_said_nothing(path: str) -> None:
    toolkit = Toolkit()
    messages: list[Message] = [
        {"type": "http.request", "body": RESULT, "more_body": True},
        {"type": "http.disconnect"},
    ]
    await toolkit.call("POST", path.format(toolkit.item.result_token), messages)
    assert toolkit.item.outputs == []


async def test_et_77_the_cache_of_an_attempt_that_is_over_is_410() -> None:
    toolkit = Toolkit()
    path = toolkit.path("cache")
    get: Message = {"type": "http.request"}
    assert (await toolkit.call("GET", path, [get])).status == 404
    assert (await toolkit.call("POST", path, [get])).status == 405
    assert (await toolkit.call("GET", "/cache/unknown", [get])).status == 404
    toolkit.item.answered(Ack(), 0)
    await toolkit.post(toolkit.path("heartbeat"), COMPLETE)
    assert (await toolkit.call("GET", path, [get])).status == 410
    toolkit.open_items.discard(toolkit.item)
    assert (await toolkit.call("GET", path, [get])).status == 410


async def test_other_paths_and_sockets_are_somebody_elses_if_there_is_somebody() -> None:
    asked: list[str] = []

    async def console(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["type"])
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"console"})

    toolkit = Toolkit(fallback=console)
    assert (await toolkit.call("GET", "/console", [])).body == b"console"
    await toolkit.app({"type": "websocket"}, cast("Any", None), cast("Any", None))
    assert asked == ["http", "websocket"]


STRANGERS = [
    "evil.example",
    "evil.example:80",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "[::1",
    "@",
]


@pytest.mark.parametrize("host", STRANGERS)
@pytest.mark.parametrize("purpose", ["heartbeat", "result", "callback", "cache"])
async def test_no_page_reaches_us_by_a_name_of_its_own(purpose: str, host: str) -> None:
    toolkit = Toolkit()
    assert (await toolkit.post(toolkit.path(purpose), BODIES.get(purpose, b""), host=host)).status == 403
    assert not toolkit.item.counters
    assert not toolkit.item.outputs


@pytest.mark.parametrize(
    "host", ["127.0.0.1:1234", "localhost", "LOCALHOST:80", "[::1]:80", "10.0.0.5", "Toolkit.example"]
)
async def test_engines_reach_us_by_any_name_of_ours(host: str) -> None:
    toolkit = Toolkit(host="toolkit.Example")
    assert (await toolkit.post(toolkit.path("heartbeat"), RUNNING, host=host)).status == 204


async def test_keys_are_for_no_page() -> None:
    keys = Keys()
    toolkit = Toolkit(keys=keys)
    path = f"/keys/j{toolkit.item.task.internal_job_id}/key"
    assert (await toolkit.post(path, b"value", host="evil.example")).status == 403
    assert (await toolkit.post(path, b"value", host="localhost", origin="http://localhost:99")).status == 403
    assert (await toolkit.post(path, b"value", origin="null")).status == 403
    assert keys.kept == []
    assert (await toolkit.post(path, b"value", host="localhost:99")).status == 200
    assert keys.kept == [b"value"]


class Keys:
    """A store that only takes.

    Attributes:
        kept: What it has taken.
    """

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    async def set(self, key: Any, value: Any, ttl: int) -> None:
        """As `KeyStore.set`."""
        self.kept.append(value.data)


@pytest.mark.parametrize("purpose", HOOKS)
async def test_webhooks_are_for_no_page(purpose: str) -> None:
    toolkit = Toolkit()
    answer = await toolkit.post(
        toolkit.path(purpose), BODIES[purpose], host="127.0.0.1", origin="http://127.0.0.1"
    )
    assert answer.status == 403


async def test_et_84_outside_parties_come_by_any_name() -> None:
    toolkit = Toolkit()
    answer = await toolkit.post(toolkit.path("external"), RESULT, host="callbacks.example.com")
    assert answer.status == 204


async def test_web_sockets_are_closed() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await Toolkit().app({"type": "websocket"}, cast("Any", None), send)
    assert sent == [{"type": "websocket.close"}]


@pytest.mark.parametrize("path", ["/keys/jjob/key", "/keys/ttask/key"])
async def test_et_137_without_a_store_there_are_no_keys(path: str) -> None:
    assert (await Toolkit().post(path, b"value")).status == 404


async def test_et_147_an_id_that_is_no_text_is_nobodys() -> None:
    assert (await Toolkit(keys=object()).post("/keys/j%ff/key", b"value")).status == 404


# What follows goes over real connections.


@asynccontextmanager
async def served(app: Webhooks) -> AsyncIterator[int]:
    stop = trio.Event()
    with trio.fail_after(30):
        async with open_service_nursery() as nursery:
            yield await nursery.start(partial(serve, app, stop=stop))
            stop.set()


@asynccontextmanager
async def toolkit_with(task: TaskInput) -> AsyncIterator[tuple[int, Item, OpenItems]]:
    items, item = OpenItems(), Item(task, now=trio.current_time())
    items.add(item)
    async with (
        open_fetcher(ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as fetcher,
        served(Webhooks(items, fetcher)) as port,
    ):
        yield port, item, items


async def test_et_45_106_over_the_wire() -> None:
    async with toolkit_with(TaskInput()) as (port, item, _):
        path = f"/heartbeat/{item.heartbeat_token}"
        assert (await ask(port, "POST", path, RUNNING)).status == 204
        assert (await ask(port, "POST", path, b"{}")).status == 400
        assert (await ask(port, "POST", "/heartbeat/unknown", RUNNING)).status == 404
        assert (await ask(port, "POST", "/nothing", RUNNING)).status == 404


async def test_whoever_sends_too_much_can_read_why() -> None:
    async with toolkit_with(TaskInput()) as (port, item, _):
        for path, status in ((f"/result/{item.result_token}", 413), ("/result/unknown", 404)):
            answer = await ask(port, "POST", path, bytes(50 << 20))
            assert (answer.status, answer.complete) == (status, True)


async def test_a_refused_request_leaves_the_connection_usable() -> None:
    async with (
        toolkit_with(TaskInput()) as (port, item, _),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        for path, status in (
            ("/result/unknown", 404),
            (f"/result/{item.result_token}", 204),
            ("/heartbeat/unknown", 404),
            (f"/heartbeat/{item.result_token}", 404),
            (f"/result/{item.result_token}", 204),
        ):
            whole = request("POST", path, RESULT, {"connection": ""})
            # Many a client sends head and body apart.
            await stream.send_all(whole[: -len(RESULT)])
            await trio.sleep(0.01)
            await stream.send_all(whole[-len(RESULT) :])
            assert (await read_answer(stream, "POST")).status == status


async def test_slow_callers_do_not_hold_up_the_others() -> None:
    async with toolkit_with(TaskInput()) as (port, item, _):
        slow = []
        for _ in range(50):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(request("POST", f"/result/{item.result_token}", RESULT)[:-1])
            slow.append(stream)
        for _ in range(3):
            answer = await ask(port, "POST", f"/result/{item.result_token}", RESULT)
            assert answer.status == 204
        assert len(item.outputs) == 3
        for stream in slow:
            await stream.aclose()


async def test_et_32_a_result_of_a_chunk_engine_ends_the_attempt() -> None:
    async with toolkit_with(TaskInput()) as (port, item, items):
        item.answered(Ack(), trio.current_time())
        path = f"/result/{item.result_token}"
        assert (await ask(port, "POST", path, RESULT)).status == 204
        assert item.outcome == Complete()
        assert (await ask(port, "POST", path, RESULT)).status == 410
        items.discard(item)
        assert (await ask(port, "POST", path, RESULT)).status == 410


async def test_et_99_complete_in_the_midst_of_a_call_does_not_end_it() -> None:
    async with toolkit_with(TaskInput()) as (port, item, _):
        assert (await ask(port, "POST", f"/heartbeat/{item.heartbeat_token}", COMPLETE)).status == 204
        assert item.outcome is None
        item.answered(Output(({"output": 1},)), trio.current_time())
        assert item.outcome == Complete()

"""Jobs through the handler to an engine, in virtual time."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest
import trio
import trio.testing

from orbtrio.errors import InvalidMessage
from orbtrio.toolkit.answers import BadRequest, Heartbeat, Result
from orbtrio.toolkit.fetching import FetchFailed
from orbtrio.toolkit.items import Item, Reception
from orbtrio.worker.jobs import Job
from tests.toolkit.fake_engine import Call, FakeEngine, response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from trio.testing import MockClock

    from orbtrio.toolkit.open_items import Ended
    from orbtrio.toolkit.settings import ToolkitSettings
    from tests.toolkit.fake_engine import Behaviour

    Start = Callable[..., FakeEngine]

VTN: Final = {"series": [{"startTimeMs": 0, "stopTimeMs": 300}]}
ACK: Final = {"estimatedProcessingTimeInSeconds": 60}
ACCEPTED, REPEATED, GONE = Reception.ACCEPTED, Reception.REPEATED, Reception.GONE


@pytest.fixture
def start(toolkit_settings: Callable[..., ToolkitSettings]) -> Start:
    """Make an engine that behaves so; its handler's settings may be changed."""

    def make(behave: Behaviour, options: Mapping[str, Any] | None = None, **changes: Any) -> FakeEngine:
        return FakeEngine(toolkit_settings(**changes), behave, **(options or {}))

    return make


async def succeed(call: Call) -> httpx2.Response:
    return response(200, {"words": ["this"]})


async def test_et_12_38_68_94_a_chunk_goes_through(
    autojump_clock: MockClock, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "chunk").write_bytes(b"jpeg")
    engine = start(succeed)
    result = await engine.handler(Job({"chunk": str(tmp_path / "chunk"), "chunkIndex": 3}))
    assert result == {"status": "complete", "outputs": [{"index": 0, "output": {"words": ["this"]}}]}
    (call,) = engine.calls
    assert (call.chunk, call.fields["chunkIndex"]) == (b"jpeg", "3")
    assert call.fields["cacheURI"].startswith("http://127.0.0.1:1234/cache/")
    assert len(engine.open_items) == 0


async def test_et_81_82_83_84_urls_are_the_attempts_own(autojump_clock: MockClock, start: Start) -> None:
    async def fail_twice(call: Call) -> httpx2.Response:
        return response(500 if call.number < 2 else 204)

    engine = start(fail_twice)
    await engine.handler(Job({}))
    names = ["chunkContext", "heartbeatWebhook", "resultWebhook", "externalCallbackWebhook"]
    tokens = {call.fields[name].rpartition("/")[2] for call in engine.calls for name in names}
    assert len(tokens) == 12
    assert all(len(token) >= 32 for token in tokens)
    assert engine.calls[0].fields["externalCallbackWebhook"].startswith("http://127.0.0.1:1234/external/")


async def test_et_88_89_90_133_directories_are_there_before_the_call(
    autojump_clock: MockClock, start: Start
) -> None:
    async def look(call: Call) -> httpx2.Response:
        names = ["taskTmpDir", "engineDir", "libraryModelDirectory"]
        return response(200, {name: (trio.Path(call.fields[name])).name for name in names})

    engine = start(look)
    result = await engine.handler(Job({"libraryId": "lib1", "libraryEngineModelId": "lem1"}))
    (output,) = result["outputs"]
    assert output["output"] == {
        "taskTmpDir": "tmp",
        "engineDir": "words",
        "libraryModelDirectory": "lem1",
    }
    for name in output["output"]:
        assert await trio.Path(engine.calls[0].fields[name]).is_dir()
    # What another task shares with this one, and what not.
    await engine.handler(Job({"payload": {"libraryId": "lib1", "libraryEngineModelId": "lem1"}}))
    same = {name for name in output["output"] if len({call.fields[name] for call in engine.calls}) == 1}
    assert same == {"engineDir", "libraryModelDirectory"}


@pytest.mark.parametrize(
    ("controller", "token", "passed_on"),
    [("http://controller", None, None), ("http://controller", "ct", "ct"), (None, "ct", None)],
)
async def test_et_93_the_controllers_token_is_passed_on_if_there_is_one(
    autojump_clock: MockClock, start: Start, controller: str | None, token: str | None, passed_on: str | None
) -> None:
    engine = start(succeed, controller=controller, controller_token=token)
    await engine.handler(Job({}))
    assert engine.calls[0].fields.get("controllerToken") == passed_on


@pytest.mark.parametrize(("has_keys", "url"), [(False, None), (True, "http://127.0.0.1:1234")])
async def test_et_92_138_the_url_of_keys_is_there_if_they_are(
    autojump_clock: MockClock, start: Start, has_keys: bool, url: str | None
) -> None:
    engine = start(succeed, {"has_keys": has_keys})
    await engine.handler(Job({}))
    assert engine.calls[0].fields.get("redisETUrl") == url


async def test_et_121_metadata_reaches_the_engine(autojump_clock: MockClock, start: Start) -> None:
    engine = start(succeed)
    await engine.handler(Job({"metadata": {"x-aiware-chunk-timestamp": 1593}}))
    assert engine.calls[0].fields["chunk-metadata-x-aiware-chunk-timestamp"] == "1593"


# Where the input comes from.


async def test_et_69_77_a_streams_input_is_not_sent_but_served(
    autojump_clock: MockClock, start: Start, tmp_path: Path
) -> None:
    async def acknowledge(call: Call) -> httpx2.Response:
        call.beat("complete")
        return response(200, ACK)

    (tmp_path / "chunk").write_bytes(b"a")
    engine = start(acknowledge)
    for source in ({"chunk": str(tmp_path / "chunk")}, {"cacheURI": "http://there/stream"}):
        await engine.handler(Job({"engineType": "stream", **source}))
        assert engine.calls[-1].chunk is None
        assert engine.calls[-1].fields["cacheURI"].startswith("http://127.0.0.1:1234/cache/")
    assert engine.fetched == []


async def test_et_69_chunks_are_not_sent_where_that_is_disabled(
    autojump_clock: MockClock, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "chunk").write_bytes(b"a")
    engine = start(succeed, disable_chunk_download=True)
    for source in ({"chunk": str(tmp_path / "chunk")}, {"cacheURI": "http://there/chunk"}):
        await engine.handler(Job(source))
        assert engine.calls[-1].chunk is None
        assert engine.calls[-1].fields["cacheURI"].startswith("http://127.0.0.1:1234/cache/")
    assert engine.fetched == []


async def test_et_69_a_job_without_input_has_neither_file_nor_address(
    autojump_clock: MockClock, start: Start
) -> None:
    engine = start(succeed)
    await engine.handler(Job({}))
    assert (engine.calls[0].chunk, engine.calls[0].fields["cacheURI"]) == (None, "")


async def test_et_06_30_a_chunk_that_lies_elsewhere_is_fetched_sent_and_deleted(
    autojump_clock: MockClock, start: Start
) -> None:
    served: list[Path | None] = []

    async def look(call: Call) -> httpx2.Response:
        item = engine.open_items.find("cache", call.fields["cacheURI"].rpartition("/")[2])
        served.append(item.task.chunk)  # type: ignore[union-attr]
        return response(500 if call.number == 0 else 200, VTN)

    engine = start(look)
    assert (await engine.handler(Job({"cacheURI": "https://there/chunk"})))["status"] == "complete"
    assert engine.fetched == ["https://there/chunk"]
    assert [call.chunk for call in engine.calls] == [b"fetched", b"fetched"]
    # The engine hears nothing of where it came from.
    assert not any("//there" in value for value in engine.calls[0].fields.values())
    assert served[0] is not None
    assert served[0] == served[1]
    assert not await trio.Path(served[0]).exists()


async def test_a_chunk_that_cannot_be_had_fails_the_job_with_its_reason(
    autojump_clock: MockClock, start: Start
) -> None:
    engine = start(succeed)
    engine.source = FetchFailed("url_not_found", "there: no such host")
    assert await engine.handler(Job({"cacheURI": "http://there/chunk"})) == {
        "error": "url_not_found: there: no such host",
        "failureReason": "url_not_found",
        "failureMsg": "there: no such host",
    }
    assert engine.calls == []


@pytest.mark.parametrize("engine_type", ["chunk", "stream", "batch"])
async def test_protocols_that_only_the_engine_speaks_are_left_to_it(
    autojump_clock: MockClock, start: Start, engine_type: str
) -> None:
    async def answer(call: Call) -> httpx2.Response:
        call.beat("complete")
        return response(200, ACK)

    engine = start(answer)
    await engine.handler(Job({"cacheURI": "rtsp://camera/1", "engineType": engine_type}))
    assert (engine.calls[0].chunk, engine.calls[0].fields["cacheURI"]) == (None, "rtsp://camera/1")
    assert engine.fetched == []


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "ftp://there/a", "no address", "http://[::1"])
async def test_other_protocols_are_refused(autojump_clock: MockClock, start: Start, uri: str) -> None:
    engine = start(succeed)
    result = await engine.handler(Job({"cacheURI": uri}))
    assert result["failureReason"] == "url_not_allowed"
    assert engine.calls == []


# What cannot work.


@pytest.mark.parametrize(
    ("job_input", "reason", "message"),
    [
        ("text", "invalid_data", "input is str"),
        ({"chunkIndex": "x"}, "invalid_data", "chunkIndex is str"),
        ({"internalJobId": "../up"}, "invalid_data", "internalJobId"),
        ({"libraryId": "a/b", "libraryEngineModelId": "m"}, "invalid_data", "libraryId"),
        ({"chunk": "/absent"}, "stream_read_error", "the chunk cannot be read"),
    ],
    ids=repr,
)
async def test_et_134_bad_input_is_told_and_not_tried_again(
    autojump_clock: MockClock, start: Start, job_input: object, reason: str, message: str
) -> None:
    engine = start(succeed)
    result = await engine.handler(Job(job_input))
    assert result["failureReason"] == reason
    assert message in result["failureMsg"]
    assert engine.calls == []


async def test_a_cache_that_cannot_be_written_fails_the_job(
    autojump_clock: MockClock, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    engine = start(succeed, cache_directory=tmp_path / "file" / "cache")
    result = await engine.handler(Job({}))
    assert result["error"].startswith("file_write_error: a directory for the task: ")


# The clock of retries.


def refuse(call: Call) -> httpx2.Response:
    raise httpx2.ConnectError("Connection refused")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda call: response(201, VTN), '201: {"series": [{"startTimeMs": 0, "stopTimeMs": 300}]}'),
        (lambda call: response(400, b"bad"), "400: bad"),
        (lambda call: response(500), "500: "),
        (refuse, "no answer from the engine: ConnectError: Connection refused"),
    ],
    ids=["201", "400", "500", "refused"],
)
async def test_failed_calls_are_made_three_times_at_0_100_and_300_ms(
    autojump_clock: MockClock, start: Start, answer: Callable[[Call], httpx2.Response], message: str
) -> None:
    async def fail(call: Call) -> httpx2.Response:
        return answer(call)

    engine = start(fail)
    begin = trio.current_time()
    assert await engine.handler(Job({})) == {
        "error": f"internal_error: {message}",
        "failureReason": "internal_error",
        "failureMsg": message,
    }
    assert [call.at - begin for call in engine.calls] == pytest.approx([0, 0.1, 0.3])
    assert engine.notices == []


@pytest.mark.parametrize("status", [204, 200])
async def test_an_ignored_chunk_is_called_once(autojump_clock: MockClock, start: Start, status: int) -> None:
    async def ignore(call: Call) -> httpx2.Response:
        return response(status)

    engine = start(ignore)
    result = await engine.handler(Job({"sendOutputToUris": ["http://there"]}))
    assert result == {"status": "ignored", "outputs": []}
    assert len(engine.calls) == 1
    # ET-114: not for these.
    assert engine.notices == []


async def test_the_second_call_may_succeed(autojump_clock: MockClock, start: Start) -> None:
    async def fail_once(call: Call) -> httpx2.Response:
        return response(503) if call.number == 0 else response(200, VTN)

    engine = start(fail_once)
    assert (await engine.handler(Job({})))["status"] == "complete"
    assert len(engine.calls) == 2


async def test_error_bodies_name_reason_and_message(autojump_clock: MockClock, start: Start) -> None:
    async def fail(call: Call) -> httpx2.Response:
        return response(500, {"errorType": "external_error", "errorMsg": "no voice"})

    engine = start(fail)
    assert (await engine.handler(Job({})))["error"] == "external_error: no voice"
    assert len(engine.calls) == 3


async def test_calls_of_an_attempt_that_was_given_up_are_too_late(
    autojump_clock: MockClock, start: Start
) -> None:
    async def fail_once(call: Call) -> httpx2.Response:
        if call.number == 0:
            return response(500)
        first = engine.calls[0]
        assert first.beat("complete") is GONE
        assert first.result("late") is GONE
        return response(200, VTN)

    engine = start(fail_once)
    assert len((await engine.handler(Job({})))["outputs"]) == 1


# Outputs.


async def test_et_94_raw_chunks_keep_their_type(autojump_clock: MockClock, start: Start) -> None:
    async def draw(call: Call) -> httpx2.Response:
        return response(200, b"\x89PNG", "image/png")

    result = await start(draw).handler(Job({}))
    assert result["outputs"] == [{"index": 0, "mimeType": "image/png", "output": b"\x89PNG"}]


async def test_multipart_responses_have_an_output_for_each_part(
    autojump_clock: MockClock, start: Start
) -> None:
    async def upper(call: Call) -> httpx2.Response:
        body = (
            b'--e\r\nContent-Disposition: form-data; name="assets"; filename="a.txt"\r\n\r\nUPPER\r\n'
            b'--e\r\nContent-Disposition: form-data; name="more"\r\n\r\n{"a":1}\r\n--e--\r\n'
        )
        return response(200, body, "multipart/form-data; boundary=e")

    result = await start(upper).handler(Job({}))
    assert result["outputs"] == [
        {"index": 0, "name": "assets", "filename": "a.txt", "mimeType": "text/plain", "output": b"UPPER"},
        {"index": 1, "name": "more", "output": {"a": 1}},
    ]


async def test_documents_of_the_standard_get_their_preamble(autojump_clock: MockClock, start: Start) -> None:
    async def answer(call: Call) -> httpx2.Response:
        return response(200, VTN)

    result = await start(answer).handler(Job({"taskId": "task1"}))
    assert result["outputs"][0]["output"] == {**VTN, "taskId": "task1", "sourceEngineId": "words"}


async def test_et_114_outputs_are_sent_on_after_success(autojump_clock: MockClock, start: Start) -> None:
    engine = start(succeed)
    result = await engine.handler(Job({"sendOutputToUris": ["http://there"], "taskId": "task1"}))
    ((task, outputs),) = engine.notices
    assert (task.task_id, task.send_output_to) == ("task1", ("http://there",))
    assert outputs == result["outputs"]


async def test_results_that_are_too_large_together_are_counted(
    autojump_clock: MockClock, start: Start
) -> None:
    async def stream(call: Call) -> httpx2.Response:
        for _ in range(3):
            call.result("x" * 700)
        call.beat("complete")
        return response(200, ACK)

    reports: list[Mapping[str, Any]] = []
    job = Job({"engineType": "stream"}, report=lambda job_id, fields: reports.append(fields))
    result = await start(stream, max_result_bytes=1024).handler(job)
    assert (len(result["outputs"]), result["omittedOutputs"]) == (1, 2)
    assert [report["kind"] for report in reports] == ["result"] * 3 + ["heartbeat"]


async def test_et_33_44_45_heartbeats_and_results_are_reported_as_they_come(
    autojump_clock: MockClock, start: Start
) -> None:
    async def work(call: Call) -> httpx2.Response:
        call.beat(bytesRead=5, infoMsg={"a": 1})
        call.result("a", startOffsetMs=7)
        call.beat("complete")
        return response(200, ACK)

    reports: list[Mapping[str, Any]] = []
    job = Job({"engineType": "stream"}, job_id="j", report=lambda job_id, fields: reports.append(fields))
    await start(work).handler(job)
    assert reports == [
        {"kind": "heartbeat", "status": "running", "bytesRead": 5, "info": '{"a":1}'},
        {"kind": "result", "index": 0, "startOffsetMs": 7, "output": "a"},
        {"kind": "heartbeat", "status": "complete", "bytesRead": 5},
    ]


def refuse_reports(job_id: str, fields: Mapping[str, Any]) -> None:
    raise InvalidMessage("too deep")


async def test_a_result_that_cannot_be_reported_is_refused_and_not_lost_in_silence(
    autojump_clock: MockClock, start: Start
) -> None:
    async def work(call: Call) -> httpx2.Response:
        with pytest.raises(BadRequest, match="'output' cannot be passed on: too deep; post it in parts"):
            call.result("a", index=3)
        job.cancelled = True
        assert call.result("b", index=3) is ACCEPTED
        call.beat("complete")
        return response(200, ACK)

    job = Job({"engineType": "stream"}, job_id="j7", report=refuse_reports)
    result = await start(work).handler(job)
    assert result["outputs"] == [{"index": 3, "output": "b"}]


async def test_a_heartbeat_that_cannot_be_reported_counts_all_the_same(
    autojump_clock: MockClock, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(call: Call) -> httpx2.Response:
        assert call.beat("complete") is ACCEPTED
        return response(200, ACK)

    job = Job({"engineType": "stream"}, job_id="j7", report=refuse_reports)
    assert (await start(work).handler(job))["status"] == "complete"
    assert "job j7: a heartbeat cannot be reported: too deep" in caplog.text


# Of a message's budget, each takes a little more than a third; JSON of 200 KB.
THIRD: Final[list[dict[str, Any]]] = [{}] * 24_000


async def test_a_result_that_costs_more_than_a_message_may_is_an_error_that_says_so(
    autojump_clock: MockClock, start: Start
) -> None:
    async def answer(call: Call) -> httpx2.Response:
        return response(200, {"object": THIRD * 3})

    result = await start(answer).handler(Job({}))
    assert result["failureReason"] == "invalid_data"
    assert "the result does not fit into one message (too complex: " in result["error"]
    assert "): send smaller chunks" in result["error"]


async def test_a_small_result_may_be_impossible_too(autojump_clock: MockClock, start: Start) -> None:
    async def answer(call: Call) -> httpx2.Response:
        return response(200, b'{"object": ' + b"[" * 99 + b"]" * 99 + b"}")

    result = await start(answer).handler(Job({}))
    assert result["failureReason"] == "invalid_data"
    assert "more than 64 levels" in result["failureMsg"]


async def test_floats_that_become_larger_are_an_error_too(
    autojump_clock: MockClock, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orbtrio.toolkit.handler.MAX_ENTRY_BYTES", 1000)

    async def answer(call: Call) -> httpx2.Response:
        return response(200, [1.5] * 150)  # 600 bytes here

    result = await start(answer).handler(Job({}))
    assert result["failureReason"] == "invalid_data"
    assert "does not fit into one message (13" in result["failureMsg"]


@pytest.mark.parametrize("count", [3, 5])
async def test_of_posted_results_the_first_that_fit_are_answered(
    autojump_clock: MockClock, start: Start, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    async def work(call: Call) -> httpx2.Response:
        for number in range(count):
            call.result({"number": number, "object": THIRD})
        call.beat("complete")
        return response(200, ACK)

    result = await start(work).handler(Job({"engineType": "stream"}))
    assert [output["output"]["number"] for output in result["outputs"]] == [0, 1]
    assert result["omittedOutputs"] == count - 2
    assert f"only 2 of {count} results fit into one answer (too complex: " in caplog.text


# The order in which response, heartbeats and results come.


async def test_et_99_complete_in_the_middle_of_a_synchronous_call(
    autojump_clock: MockClock, start: Start
) -> None:
    async def exif(call: Call) -> httpx2.Response:
        await trio.sleep(1)
        assert call.beat("complete", infoMsg={"processingDuration": "163.365µs"}) is ACCEPTED
        await trio.sleep(1)
        return response(200, {"words": ["this"]})

    engine = start(exif)
    begin = trio.current_time()
    result = await engine.handler(Job({}))
    assert trio.current_time() - begin == pytest.approx(2)
    assert result == {"status": "complete", "outputs": [{"index": 0, "output": {"words": ["this"]}}]}
    assert engine.calls[0].beat("complete") is REPEATED
    assert engine.calls[0].beat() is GONE


PAYLOAD: Final = {"mode": "library-train", "libraryId": "lib1", "libraryEngineModelId": "lem1"}
ORDERS: Final = ("ack first", "complete first", "result first")
ENDINGS: Final = ("complete", "failed", "silent", "late")


def expected(order: str, engine_type: str, ending: str) -> tuple[str, int]:
    """How a job ends, and its number of outputs, if the engine acknowledges and gives one result.

    The heartbeat that ends it is ``complete``, ``failed``, never sent, or sent when time was over.
    """
    if engine_type == "chunk" and order != "complete first":
        # It has sent no heartbeat by then, so its first result is the end, and all that follows too late.
        return "complete", 1
    if order == "complete first":
        # What ends it is there before the acknowledgement, which it ends with. Silence before it is none.
        match ending:
            case "complete":
                return "complete", 1
            case "failed":
                return "api_error", 0
        # A chunk with a heartbeat and a result is complete when it falls silent.
        return ("complete", 1) if engine_type == "chunk" else ("heartbeat_timeout", 0)
    match ending:
        case "complete":
            return "complete", 1
        case "failed":
            return "api_error", 0
    return "heartbeat_timeout", 0


@pytest.mark.parametrize(
    ("order", "engine_type", "ending"), list(product(ORDERS, ("chunk", "stream", "batch"), ENDINGS))
)
async def test_et_08_32_35_37_95_130_orders_of_acknowledgement_result_and_end(
    autojump_clock: MockClock, start: Start, nursery: trio.Nursery, order: str, engine_type: str, ending: str
) -> None:
    late: list[Reception] = []
    over = trio.Event()

    def end(call: Call) -> None:
        if ending in ("complete", "failed"):
            call.beat(ending, failureReason="api_error")

    async def be_late(call: Call) -> None:
        await over.wait()
        late.append(call.beat("complete"))
        late.append(call.beat("failed"))
        late.append(call.result("too late"))

    async def go_on(call: Call) -> None:
        await trio.sleep(1)
        if order == "ack first":
            call.result("this")
            await trio.sleep(1)
        end(call)

    async def process(call: Call) -> httpx2.Response:
        if ending == "late":
            nursery.start_soon(be_late, call)
        if order == "complete first":
            call.beat()
            call.result("this")
            end(call)
            await trio.sleep(1)
        else:
            if order == "result first":
                call.result("this")
            nursery.start_soon(go_on, call)
        return response(200, ACK)

    engine = start(process)
    begin = trio.current_time()
    result = await engine.handler(Job({"engineType": engine_type, "maxTTL": 100}))
    took = trio.current_time() - begin
    status, outputs = expected(order, engine_type, ending)
    assert result.get("status", result.get("failureReason")) == status
    assert len(result.get("outputs", ())) == outputs
    # After an acknowledgement nothing is retried.
    assert len(engine.calls) == 1
    assert len(engine.open_items) == 0
    over.set()
    await trio.testing.wait_all_tasks_blocked()
    if ending == "late":
        complete = status == "complete"
        assert late == [REPEATED if complete else GONE, GONE if complete else REPEATED, GONE]
        assert len(result.get("outputs", ())) == outputs
    if status == "heartbeat_timeout":
        # Thirty seconds after the last that was heard: the result, or the acknowledgement.
        assert took == pytest.approx(30 if order == "result first" else 31)


async def test_et_41_a_synchronous_call_needs_no_heartbeats(autojump_clock: MockClock, start: Start) -> None:
    async def think(call: Call) -> httpx2.Response:
        await trio.sleep(3000)
        return response(200, VTN)

    assert (await start(think).handler(Job({})))["status"] == "complete"


@pytest.mark.parametrize("engine_type", ["chunk", "stream"])
async def test_et_128_129_131_training_is_acknowledged_without_a_chunk(
    autojump_clock: MockClock, start: Start, engine_type: str
) -> None:
    async def train(call: Call) -> httpx2.Response:
        async def go_on() -> None:
            for _ in range(100):
                await trio.sleep(1)
                call.beat()
            call.beat("complete")

        background.start_soon(go_on)
        return response(200, b"training")

    async with trio.open_nursery() as background:
        engine = start(train)
        begin = trio.current_time()
        result = await engine.handler(Job({"engineType": engine_type, "payload": PAYLOAD}))
        assert result == {"status": "complete", "outputs": []}
        assert trio.current_time() - begin == pytest.approx(100)
        (call,) = engine.calls
        assert json.loads(call.fields["payload"]) == PAYLOAD
        assert (call.fields["libraryId"], call.fields["libraryEngineModelId"]) == ("lib1", "lem1")
        assert await trio.Path(call.fields["libraryModelDirectory"]).is_dir()


async def test_et_85_max_ttl_bounds_the_call(autojump_clock: MockClock, start: Start) -> None:
    async def hang(call: Call) -> httpx2.Response:
        await trio.sleep_forever()
        raise AssertionError

    engine = start(hang)
    begin = trio.current_time()
    result = await engine.handler(Job({"maxTTL": 7}))
    assert result["error"] == "internal_error: no answer within 7 s"
    assert trio.current_time() - begin == pytest.approx(7)
    assert len(engine.calls) == 1


async def test_et_85_fetching_a_chunk_has_max_ttl_too(
    autojump_clock: MockClock, toolkit_settings: Callable[..., ToolkitSettings]
) -> None:
    class Trickle(FakeEngine):
        async def download(self, url: str, to: Path, limit: int) -> int:
            await trio.sleep(60)
            return 0

    began = trio.current_time()
    engine = Trickle(toolkit_settings(), succeed)
    result = await engine.handler(Job({"cacheURI": "http://there/chunk", "maxTTL": 5}))
    assert trio.current_time() - began == pytest.approx(5)
    assert result["error"] == "url_timeout: the chunk did not arrive within 5 s"
    assert engine.calls == []


# Nobody waits any more.


@pytest.mark.parametrize("acknowledged", [False, True])
async def test_a_cancelled_job_ends_at_once_and_its_tokens_die(
    autojump_clock: MockClock, start: Start, acknowledged: bool
) -> None:
    ended: list[bool] = []

    async def hang(call: Call) -> httpx2.Response:
        if acknowledged:
            return response(200, ACK)
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)
        raise AssertionError

    engine = start(hang)
    begin = trio.current_time()
    with trio.move_on_after(5) as scope:
        await engine.handler(Job({"cacheURI": "http://there/chunk", "sendOutputToUris": ["http://there"]}))
    assert scope.cancelled_caught
    assert trio.current_time() - begin == pytest.approx(5)
    assert ended == ([] if acknowledged else [True])
    (call,) = engine.calls
    assert call.beat("complete") is GONE
    assert call.result("late") is GONE
    assert len(engine.open_items) == 0
    assert engine.notices == []
    # What was fetched is deleted.
    assert list(await trio.Path(call.fields["taskTmpDir"]).iterdir()) == []


async def test_what_was_being_posted_when_a_job_was_cancelled_is_gone_and_not_reported(
    autojump_clock: MockClock, start: Start
) -> None:
    async def hang(call: Call) -> httpx2.Response:
        found.append(call.open_items.find("result", call.fields["resultWebhook"].rpartition("/")[2]))
        return response(200, ACK)

    found: list[Item | Ended | None] = []
    reports: list[Mapping[str, Any]] = []
    with trio.move_on_after(5):
        await start(hang).handler(Job({}, report=lambda job_id, fields: reports.append(fields)))
    # A webhook finds the attempt before it reads the body.
    (item,) = found
    assert item is not None
    assert item.result(Result(output="late"), trio.current_time()) is GONE
    assert item.heartbeat(Heartbeat(status="running"), trio.current_time()) is GONE
    assert reports == []


async def test_a_cancelled_wait_between_calls_makes_no_more(autojump_clock: MockClock, start: Start) -> None:
    async def fail(call: Call) -> httpx2.Response:
        return response(500)

    engine = start(fail)
    with trio.move_on_after(0.2):
        await engine.handler(Job({}))
    await trio.sleep(10)
    assert len(engine.calls) == 2

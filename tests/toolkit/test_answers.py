from __future__ import annotations

import json
from typing import Any

import pytest

from orbtrio.toolkit.answers import (
    FAILURE_REASONS,
    Ack,
    BadRequest,
    Failure,
    Heartbeat,
    Nothing,
    Output,
    Result,
    judge,
    parse_callback,
    with_preamble,
)
from orbtrio.toolkit.jobs import TaskInput

CHUNK = TaskInput()
STREAM = TaskInput(engine_type="stream")
BATCH = TaskInput(engine_type="batch")
TRAINING = TaskInput(payload={"mode": "library-train"})
VTN = {"series": [{"startTimeMs": 0, "stopTimeMs": 300, "words": [{"word": "this"}]}]}


def body(value: object) -> bytes:
    return json.dumps(value).encode()


def test_et_94_a_json_body_is_the_result() -> None:
    assert judge(200, "application/json", body(VTN), CHUNK) == Output(({"output": VTN},), len(body(VTN)))


@pytest.mark.parametrize(
    "content_type",
    ["text/plain; charset=utf-8", "", "application/vnd.vtn+json", "image/png", "APPLICATION/JSON"],
)
def test_et_94_json_is_known_by_itself(content_type: str) -> None:
    verdict = judge(200, content_type, b"\n " + body(VTN), CHUNK)
    assert isinstance(verdict, Output)
    assert verdict.outputs == ({"output": VTN},)


@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        ("image/png", b"\x89PNG\r\n\x1a\n"),
        ("application/ttml+xml; charset=utf-8", b"<tt/>"),
        ("text/plain", b"some words"),
        # JSON by accident.
        ("text/plain", b"2024"),
    ],
)
def test_et_94_other_types_are_raw_chunks(content_type: str, data: bytes) -> None:
    mime_type = content_type.partition(";")[0]
    assert judge(200, content_type, data, CHUNK) == Output(
        ({"mimeType": mime_type, "output": data},), len(data)
    )


@pytest.mark.parametrize("content_type", ["application/json", "", "application/problem+json"])
def test_et_94_broken_json_is_a_failure(content_type: str) -> None:
    verdict = judge(200, content_type, b'{"series": [', CHUNK)
    assert verdict == Failure("invalid_data", '200: the body is not JSON: {"series": [')


def test_json_that_is_too_deep_is_a_failure() -> None:
    verdict = judge(200, "application/json", b"[" * 200_000, CHUNK)
    assert isinstance(verdict, Failure)
    assert len(verdict.message) < 5000


@pytest.mark.parametrize("task", [CHUNK, STREAM, BATCH, TRAINING])
@pytest.mark.parametrize(
    ("value", "estimate"),
    [(7200, 7200), (1.5, 1.5), ("60", 60), (0, 0), (-5, 0), (None, 0), ([], 0), ("soon", 0)],
)
def test_et_95_96_the_estimate_makes_an_acknowledgement(
    task: TaskInput, value: object, estimate: float
) -> None:
    answer = body({"estimatedProcessingTimeInSeconds": value, "series": []})
    assert judge(200, "application/json", answer, task) == Ack(estimate)


@pytest.mark.parametrize("number", [b"Infinity", b"NaN", b"1e999", b"1" + b"0" * 400])
def test_et_96_an_estimate_that_is_no_time_is_none(number: bytes) -> None:
    answer = b'{"estimatedProcessingTimeInSeconds": %s}' % number
    assert judge(200, "application/json", answer, CHUNK) == Ack(0)


@pytest.mark.parametrize("task", [STREAM, BATCH, TRAINING])
@pytest.mark.parametrize("answer", [b"", b"  \n", b"ok", b'{"message": "thanks"}', body(VTN)])
def test_et_34_129_any_200_of_an_asynchronous_engine_is_an_acknowledgement(
    task: TaskInput, answer: bytes
) -> None:
    assert judge(200, "text/html", answer, task) == Ack(0)


@pytest.mark.parametrize("answer", [b"", b" \r\n"])
def test_200_without_a_body_is_ignored(answer: bytes) -> None:
    assert judge(200, "application/json", answer, CHUNK) == Nothing()


@pytest.mark.parametrize("task", [CHUNK, STREAM, BATCH, TRAINING])
def test_204_is_ignored(task: TaskInput) -> None:
    assert judge(204, "", b"", task) == Nothing()


@pytest.mark.parametrize("status", [201, 202, 302, 400, 404, 500, 503])
@pytest.mark.parametrize("task", [CHUNK, STREAM])
def test_every_other_code_is_a_failure(status: int, task: TaskInput) -> None:
    verdict = judge(status, "application/json", body(VTN), task)
    assert verdict == Failure("internal_error", f"{status}: {body(VTN).decode()}")


def test_long_error_bodies_are_cut() -> None:
    verdict = judge(500, "text/html", b"\xff" + b"x" * 1_000_000, CHUNK)
    assert isinstance(verdict, Failure)
    assert verdict.message.startswith("500: \N{REPLACEMENT CHARACTER}xxx")
    assert len(verdict.message) == 4096


@pytest.mark.parametrize(
    ("answer", "reason", "message"),
    [
        ({"errorType": "external_error", "errorMsg": "no such voice"}, "external_error", "no such voice"),
        ({"errorType": "made_up", "errorMsg": "hm"}, "unknown", "hm"),
        ({"errorType": ["x"], "errorMsg": {"code": 5}}, "unknown", '{"code":5}'),
        ({"errorType": "rate_limited"}, "rate_limited", '400: {"errorType": "rate_limited"}'),
    ],
)
def test_error_bodies_of_the_branch_name_reason_and_message(
    answer: dict[str, Any], reason: str, message: str
) -> None:
    assert judge(400, "application/json", body(answer), CHUNK) == Failure(reason, message)


MULTIPART = (
    b"preamble\r\n"
    b"--edge\r\n"
    b'Content-Disposition: form-data; name="assets"; filename="a.bin"\r\n'
    b"Content-Type: application/x-thing\r\n\r\n"
    b"\x00\r\n\r\n\x0b\x85--edge\n\r\n"
    b"--edge\r\n"
    b'content-disposition: form-data; name="words"\r\n\r\n'
    b'{"series": []}\r\n'
    b"--edge\r\n\r\n"
    b"nameless\r\n"
    b"--edge--\r\n"
    b"--edge\r\n\r\nafter the end"
)


def test_each_part_of_a_multipart_response_is_an_output() -> None:
    verdict = judge(200, "multipart/form-data; boundary=edge", MULTIPART, CHUNK)
    assert isinstance(verdict, Output)
    assert verdict.outputs == (
        {
            "name": "assets",
            "filename": "a.bin",
            "mimeType": "application/x-thing",
            "output": b"\x00\r\n\r\n\x0b\x85--edge\n",
        },
        {"name": "words", "output": {"series": []}},
        {"mimeType": "text/plain", "output": b"nameless"},
    )
    assert verdict.size_bytes == len(MULTIPART)


def test_first_part_may_begin_the_body() -> None:
    verdict = judge(200, 'multipart/mixed; boundary="edge"', b"--edge\r\n\r\n5\r\n--edge--", CHUNK)
    assert isinstance(verdict, Output)
    assert verdict.outputs == ({"output": 5},)


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/mixed; boundary=other"])
def test_a_multipart_response_without_parts_is_a_failure(content_type: str) -> None:
    verdict = judge(200, content_type, MULTIPART, CHUNK)
    assert isinstance(verdict, Failure)
    assert verdict.reason == "invalid_data"


def test_et_98_a_heartbeat_is_read_whatever_its_type() -> None:
    beat = Heartbeat.parse(
        body(
            {
                "status": "running",
                "bytesRead": 5,
                "bytesWritten": 6.0,
                "messagesWritten": 0,
                "infoMs": "on it",
            }
        )
    )
    assert beat == Heartbeat(
        status="running", bytes_read=5, bytes_written=6, messages_written=0, info="on it"
    )
    assert not beat.terminal


@pytest.mark.parametrize("status", ["running", "complete", "failed"])
def test_et_99_three_states_are_known(status: str) -> None:
    beat = Heartbeat.parse(body({"status": status}))
    assert beat.status == status
    assert beat.terminal == (status != "running")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"status=complete", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"[]", "not an object"),
        (b"{}", "'status' is required"),
        (b'{"status": "done"}', "'status' is required"),
        (b'{"status": ["complete"]}', "'status' is required"),
    ],
)
def test_et_99_without_a_status_it_is_a_bad_request(data: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        Heartbeat.parse(data)


@pytest.mark.parametrize("value", [-1, 1.5, 2**63, "5", None, True, [], float("inf")])
@pytest.mark.parametrize("name", ["bytesRead", "bytesWritten", "messagesWritten"])
def test_et_100_101_102_what_is_no_count_is_as_good_as_left_out(name: str, value: object) -> None:
    assert Heartbeat.parse(body({"status": "running", name: value})) == Heartbeat(status="running")


@pytest.mark.parametrize("name", ["infoMs", "infoMsg"])
@pytest.mark.parametrize(
    ("value", "text"),
    [("on it", "on it"), ({"processingDuration": "163µs"}, '{"processingDuration":"163\\u00b5s"}'), (5, "5")],
)
def test_et_103_info_has_two_names_and_any_form(name: str, value: object, text: str) -> None:
    assert Heartbeat.parse(body({"status": "running", name: value})).info == text


def test_et_104_there_are_twenty_reasons() -> None:
    assert len(FAILURE_REASONS) == 20


@pytest.mark.parametrize("reason", [*sorted(FAILURE_REASONS), "made_up", None, 5, ["x"]])
def test_et_104_a_failure_is_never_refused_for_its_reason(reason: object) -> None:
    beat = Heartbeat.parse(body({"status": "failed", "failureReason": reason}))
    assert beat.failure_reason == (reason if reason in sorted(FAILURE_REASONS) else "unknown")


def test_et_104_only_a_failure_has_a_reason() -> None:
    beat = Heartbeat.parse(body({"status": "complete", "failureReason": "internal_error"}))
    assert beat.failure_reason == ""


def test_et_105_messages_are_cut() -> None:
    beat = Heartbeat.parse(body({"status": "failed", "failureMsg": "x" * 100_000, "infoMs": "y" * 100_000}))
    assert (len(beat.failure_msg), len(beat.info)) == (4096, 4096)


def test_et_112_the_texts_example_is_a_result() -> None:
    data = body({"index": 1, "startOffsetMs": 0, "endOffsetMs": 1200, "output": VTN})
    assert Result.parse(data) == Result(
        index=1, start_offset_ms=0, end_offset_ms=1200, output=VTN, size_bytes=len(data)
    )


def test_et_108_a_result_may_name_its_chunk() -> None:
    assert Result.parse(body({"chunkContext": "abc", "output": 1})).chunk_context == "abc"
    assert Result.parse(body({"chunkContext": "", "output": 1})).chunk_context is None
    with pytest.raises(BadRequest, match="chunkContext"):
        Result.parse(body({"chunkContext": 5, "output": 1}))


def test_et_109_110_capital_ms_is_understood() -> None:
    result = Result.parse(body({"startOffsetMS": 5, "endOffsetMS": 6.0, "output": 1}))
    assert (result.start_offset_ms, result.end_offset_ms) == (5, 6)


@pytest.mark.parametrize("data", [b"{}", b'{"output": null}', b'{"series": []}'])
def test_et_111_a_result_without_output_is_a_bad_request(data: bytes) -> None:
    with pytest.raises(BadRequest, match="'output' is required"):
        Result.parse(data)


@pytest.mark.parametrize("output", [False, 0, "", [], {}, {"no": "standard"}])
def test_et_111_any_output_is_kept(output: object) -> None:
    assert Result.parse(body({"output": output})).output == output


def test_et_84_a_callback_is_a_result_or_a_heartbeat() -> None:
    assert isinstance(parse_callback(body({"output": VTN, "status": "running"})), Result)
    assert isinstance(parse_callback(body({"output": None, "status": "running"})), Heartbeat)
    with pytest.raises(BadRequest, match="neither"):
        parse_callback(b"{}")


def test_preamble_is_added_where_it_is_missing() -> None:
    task = TaskInput(task_id="task1", engine_id="words")
    assert with_preamble(VTN, task) == {**VTN, "taskId": "task1", "sourceEngineId": "words"}
    own = {**VTN, "taskId": "mine", "sourceEngineId": "me"}
    assert with_preamble(own, task) is own
    assert with_preamble(VTN, TaskInput()) is VTN


@pytest.mark.parametrize("output", [5, "text", [VTN], {"words": 5}])
def test_preamble_belongs_to_documents_of_the_standard(output: object) -> None:
    assert with_preamble(output, TaskInput(task_id="task1", engine_id="words")) is output


def test_halves_of_characters_are_replaced_and_whole_ones_are_not() -> None:
    text = rb'{"output": {"a": "\ud83d", "b": "\uD83D\uDE00", "c": "\\ud83d", "\udc00": "\udE00\ud83d"}}'
    expected = {"a": "�", "b": "😀", "c": "\\ud83d", "�": "��"}
    assert Result.parse(text).output == expected
    assert judge(200, "", text, CHUNK) == Output(({"output": {"output": expected}},), len(text))
    assert Heartbeat.parse(rb'{"status": "running", "infoMs": "cut\ud83d"}').info == "cut�"

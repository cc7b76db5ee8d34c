from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from orbtrio.toolkit.answers import Ack, BadRequest, Failure, Heartbeat, Nothing, Output, Result
from orbtrio.toolkit.items import Complete, Failed, Ignored, Item, Reception
from orbtrio.toolkit.jobs import TaskInput

if TYPE_CHECKING:
    from orbtrio.toolkit.answers import Verdict
    from orbtrio.toolkit.jobs import EngineType

ACCEPTED, REPEATED, GONE = Reception.ACCEPTED, Reception.REPEATED, Reception.GONE
RUNNING = Heartbeat(status="running")
COMPLETE = Heartbeat(status="complete")
FAILED = Heartbeat(status="failed", failure_reason="api_error", failure_msg="no voice")
BODY = Output(({"output": "body"},))
BROKEN = Failure("internal_error", "500: oops")


def make(engine_type: EngineType = "chunk", *, max_ttl: float = 100.0, **fields: Any) -> Item:
    """An item that was made at 1000 s."""
    return Item(TaskInput(engine_type=engine_type, max_ttl=max_ttl, **fields), now=1000.0)


def outputs_of(item: Item) -> list[Any]:
    return [output["output"] for output in item.outputs]


asynchronous = pytest.mark.parametrize(
    "fields",
    [
        {"engine_type": "stream"},
        {"engine_type": "batch"},
        {"engine_type": "chunk", "payload": {"mode": "library-train"}},
    ],
    ids=["stream", "batch", "training"],
)


def test_tokens_are_the_attempts_own() -> None:
    one, other = make(), make()
    names = ["chunk_context", "heartbeat_token", "result_token", "external_token", "cache_token"]
    tokens = {getattr(item, name) for item in (one, other) for name in names}
    assert len(tokens) == 10
    assert all(len(token) >= 32 for token in tokens)
    assert not any(token in repr(one) for token in tokens)


def test_et_31_94_the_response_is_the_output() -> None:
    item = make(task_id="task1")
    item.answered(Output(({"output": {"series": []}}, {"mimeType": "image/png", "output": b"png"})), 1001)
    assert item.outcome == Complete()
    assert item.outputs == [
        {"index": 0, "output": {"series": [], "taskId": "task1"}},
        {"index": 1, "mimeType": "image/png", "output": b"png"},
    ]
    assert item.deadline() == math.inf


def test_nothing_is_ignored() -> None:
    item = make()
    item.answered(Nothing(), 1001)
    assert item.outcome == Ignored()


def test_a_failed_call_is_retried() -> None:
    item = make()
    item.answered(BROKEN, 1001)
    assert item.outcome == Failed("internal_error", "500: oops", retry=True)


def test_the_first_outcome_stays() -> None:
    item = make()
    item.answered(Nothing(), 1001)
    item.answered(BODY, 1002)
    item.expire(9999)
    assert item.outcome == Ignored()


def test_et_99_complete_in_the_middle_of_a_call_does_not_end_it() -> None:
    item = make()
    assert item.heartbeat(COMPLETE, 1001) is ACCEPTED
    assert not item.over
    item.answered(BODY, 1002)
    assert item.outcome == Complete()
    assert outputs_of(item) == ["body"]


def test_et_99_failed_in_the_middle_of_a_call_does_not_outweigh_the_result() -> None:
    item = make()
    item.heartbeat(FAILED, 1001)
    item.answered(BODY, 1002)
    assert item.outcome == Complete()


def test_et_99_complete_in_the_middle_of_an_ignored_chunk() -> None:
    item = make()
    item.heartbeat(COMPLETE, 1001)
    item.answered(Nothing(), 1002)
    assert item.outcome == Ignored()
    assert item.heartbeat(COMPLETE, 1003) is REPEATED


def test_the_response_outweighs_results_that_were_posted(caplog: pytest.LogCaptureFixture) -> None:
    item = make()
    item.result(Result(output="posted"), 1001)
    item.answered(BODY, 1002)
    assert item.outputs == [{"index": 0, "output": "body"}]
    assert "the 1 that it posted before are dropped" in caplog.text


def test_posted_results_are_not_ignored_with_a_204() -> None:
    item = make()
    item.result(Result(output="posted"), 1001)
    item.answered(Nothing(), 1002)
    assert item.outcome == Complete()
    assert outputs_of(item) == ["posted"]


@asynchronous
def test_204_after_webhooks_is_an_acknowledgement(fields: dict[str, Any]) -> None:
    item = make(**fields)
    item.heartbeat(RUNNING, 1001)
    item.answered(Nothing(), 1002)
    assert not item.over
    item.heartbeat(COMPLETE, 1003)
    assert item.outcome == Complete()


@asynchronous
def test_204_without_webhooks_is_ignored(fields: dict[str, Any]) -> None:
    item = make(**fields)
    item.answered(Nothing(), 1002)
    assert item.outcome == Ignored()


@pytest.mark.parametrize("engine_type", ["chunk", "stream", "batch"])
@pytest.mark.parametrize(
    ("beat", "outcome"),
    [(COMPLETE, Complete()), (FAILED, Failed("api_error", "no voice", retry=False))],
    ids=["complete", "failed"],
)
@pytest.mark.parametrize("first", ["ack", "heartbeat"])
def test_et_35_the_last_heartbeat_counts_before_and_after_the_acknowledgement(
    engine_type: EngineType, beat: Heartbeat, outcome: object, first: str
) -> None:
    item = make(engine_type)
    if first == "ack":
        item.answered(Ack(), 1001)
        assert not item.over
        assert item.heartbeat(beat, 1002) is ACCEPTED
    else:
        assert item.heartbeat(beat, 1001) is ACCEPTED
        assert not item.over
        item.answered(Ack(), 1002)
    assert item.outcome == outcome


@asynchronous
def test_complete_saves_an_asynchronous_engine_from_its_own_response(fields: dict[str, Any]) -> None:
    item = make(**fields)
    item.heartbeat(COMPLETE, 1001)
    item.answered(BROKEN, 1002)
    assert item.outcome == Complete()


def test_complete_does_not_save_a_chunk() -> None:
    item = make()
    item.heartbeat(COMPLETE, 1001)
    item.answered(BROKEN, 1002)
    assert item.outcome == Failed("internal_error", "500: oops", retry=True)


@pytest.mark.parametrize("engine_type", ["chunk", "stream"])
def test_a_failed_call_has_the_reason_that_the_engine_gave(engine_type: EngineType) -> None:
    item = make(engine_type)
    item.heartbeat(FAILED, 1001)
    item.answered(BROKEN, 1002)
    assert item.outcome == Failed("api_error", "no voice", retry=True)


def test_a_reason_without_a_message_has_the_calls() -> None:
    item = make()
    item.heartbeat(Heartbeat(status="failed", failure_reason="unknown"), 1001)
    item.answered(BROKEN, 1002)
    assert item.outcome == Failed("unknown", "500: oops", retry=True)


@pytest.mark.parametrize("first", ["ack", "result"])
def test_et_32_a_chunk_without_heartbeats_ends_with_its_first_result(first: str) -> None:
    item = make()
    if first == "ack":
        item.answered(Ack(), 1001)
        assert item.result(Result(output="later"), 1002) is ACCEPTED
    else:
        assert item.result(Result(output="later"), 1001) is ACCEPTED
        assert not item.over
        item.answered(Ack(), 1002)
    assert item.outcome == Complete()
    assert outputs_of(item) == ["later"]
    assert item.result(Result(output="again"), 1003) is GONE


@pytest.mark.parametrize("beat_at", [1000.5, 1001.5])
def test_a_chunk_with_heartbeats_ends_with_the_last_of_them(beat_at: float) -> None:
    item = make()
    if beat_at < 1001:
        item.heartbeat(RUNNING, beat_at)
        item.result(Result(output="a"), 1000.6)
    item.answered(Ack(), 1001)
    if beat_at > 1001:
        item.heartbeat(RUNNING, beat_at)
        item.result(Result(output="a"), 1002)
    item.result(Result(output="b"), 1003)
    assert not item.over
    item.heartbeat(COMPLETE, 1004)
    assert item.outcome == Complete()
    assert outputs_of(item) == ["a", "b"]


@asynchronous
def test_results_do_not_end_an_asynchronous_engine(fields: dict[str, Any]) -> None:
    item = make(**fields)
    item.result(Result(output="a"), 1001)
    item.answered(Ack(), 1002)
    item.result(Result(output="b"), 1003)
    assert not item.over
    item.heartbeat(COMPLETE, 1004)
    assert outputs_of(item) == ["a", "b"]


@pytest.mark.parametrize("end", [COMPLETE, FAILED], ids=["complete", "failed"])
@pytest.mark.parametrize("beat", [RUNNING, COMPLETE, FAILED], ids=["running", "complete", "failed"])
@pytest.mark.parametrize("acknowledged", [True, False])
def test_et_106_after_the_end_only_its_repetition_is_welcome(
    end: Heartbeat, beat: Heartbeat, acknowledged: bool
) -> None:
    item = make("batch")
    if acknowledged:
        item.answered(Ack(), 1001)
    item.heartbeat(end, 1002)
    assert item.heartbeat(beat, 1003) is (REPEATED if beat is end else GONE)
    assert item.result(Result(output="late"), 1004) is (GONE if acknowledged else ACCEPTED)


def test_an_abandoned_item_takes_nothing() -> None:
    item = make("batch")
    item.abandon()
    assert item.heartbeat(COMPLETE, 1001) is GONE
    assert item.result(Result(output="late"), 1001) is GONE
    item.answered(Ack(), 1001)
    item.expire(9999)
    assert (item.outcome, item.deadline()) == (None, math.inf)


def test_et_85_the_call_itself_has_max_ttl_and_no_second_try() -> None:
    item = make()
    assert item.deadline() == 1100
    item.heartbeat(RUNNING, 1050)  # moves nothing
    assert item.deadline() == 1100
    item.expire(1099.9)
    assert not item.over
    item.expire(1100)
    assert item.outcome == Failed("internal_error", "no answer within 100 s", retry=False)


@asynchronous
def test_a_call_that_never_returns_ends_as_its_heartbeat_said(fields: dict[str, Any]) -> None:
    item = make(**fields)
    item.heartbeat(COMPLETE, 1001)
    item.expire(1100)
    assert item.outcome == Complete()


@pytest.mark.parametrize(("estimate", "due"), [(0, 1110), (99, 1110), (500, 1510)])
def test_et_97_time_begins_with_the_acknowledgement_and_may_exceed_max_ttl(
    estimate: float, due: float
) -> None:
    item = make()
    item.answered(Ack(estimate), 1010)
    assert item.deadline() == due
    item.expire(due)
    assert item.outcome == Failed("internal_error", f"no result within {due - 1010:g} s", retry=False)


@asynchronous
def test_et_97_silence_after_the_acknowledgement_is_a_loss(fields: dict[str, Any]) -> None:
    item = make(**fields)
    item.answered(Ack(), 1010)
    assert item.deadline() == 1040
    item.result(Result(output="a"), 1020)
    assert item.deadline() == 1050
    item.expire(1050)
    assert item.outcome == Failed("heartbeat_timeout", "no heartbeat within 30 s", retry=False)


def test_et_97_a_chunk_engine_owes_no_heartbeats_until_it_begins() -> None:
    item = make()
    item.answered(Ack(), 1010)
    assert item.deadline() == 1110
    item.heartbeat(RUNNING, 1020)
    assert item.deadline() == 1050
    item.expire(1050)
    assert item.outcome == Failed("heartbeat_timeout", "no heartbeat within 30 s", retry=False)


@pytest.mark.parametrize(
    ("beats", "lost_after"),
    [
        ([1011.0], 30),
        # Never less than as if it came every second: a flood is no promise.
        ([1011.0, 1011.01], 30),
        ([1011.0, 1013.0], 60),
        # The shortest counts, not the last.
        ([1011.0, 1014.0, 1016.0, 1020.0], 60),
    ],
)
def test_et_97_the_engines_own_interval_tells_when_it_is_late(beats: list[float], lost_after: float) -> None:
    item = make("stream", max_ttl=10_000)
    item.answered(Ack(), 1010)
    for at in beats:
        item.heartbeat(RUNNING, at)
    assert item.deadline() == pytest.approx(beats[-1] + lost_after)


@pytest.mark.parametrize("beats", [False, True])
def test_a_chunk_that_has_results_is_complete_when_time_is_over(beats: bool) -> None:
    item = make(max_ttl=10)
    item.heartbeat(RUNNING, 1001)
    item.result(Result(output="a"), 1002)
    item.answered(Ack(20 if beats else 1000), 1003)
    assert item.deadline() == (1023 if beats else 1033)
    item.expire(item.deadline())
    assert item.outcome == Complete()


@asynchronous
def test_an_asynchronous_engine_that_falls_silent_has_failed_whatever_it_gave(fields: dict[str, Any]) -> None:
    item = make(max_ttl=10, **fields)
    item.answered(Ack(), 1001)
    item.result(Result(output="a"), 1002)
    item.expire(1011)
    assert item.outcome == Failed("internal_error", "no result within 10 s", retry=False)


def test_et_108_a_result_of_another_chunk_is_refused() -> None:
    item = make("stream")
    assert item.result(Result(chunk_context=item.chunk_context, output="a"), 1001) is ACCEPTED
    assert item.result(Result(output="b"), 1001) is ACCEPTED
    with pytest.raises(BadRequest, match="chunkContext"):
        item.result(Result(chunk_context="another", output="c"), 1001)
    assert outputs_of(item) == ["a", "b"]


def test_et_109_110_offsets_are_kept_where_known() -> None:
    item = make("stream")
    item.result(Result(output="a", start_offset_ms=0, end_offset_ms=1200), 1001)
    item.result(Result(output="b", start_offset_ms=5), 1001)
    assert item.outputs == [
        {"index": 0, "startOffsetMs": 0, "endOffsetMs": 1200, "output": "a"},
        {"index": 1, "startOffsetMs": 5, "output": "b"},
    ]


def test_et_112_an_index_is_used_once_and_otherwise_the_next_number() -> None:
    item = make("stream")
    for index in (1, None, None, 1, 7, 0, None):
        item.result(Result(output="x", index=index), 1001)
    assert [output["index"] for output in item.outputs] == [1, 0, 2, 3, 7, 4, 5]


def test_et_100_101_102_counters_survive_an_engine_that_starts_over() -> None:
    item = make("stream")
    for read, written in ((10, None), (25, 1), (None, 2), (5, 2), (7, 0)):
        item.heartbeat(Heartbeat(status="running", bytes_read=read, messages_written=written), 1001)
    assert item.counters == {"bytesRead": 25 + 5 + 2, "messagesWritten": 2}
    item.heartbeat(Heartbeat(status="running", bytes_written=3), 1001)
    assert item.counters["bytesWritten"] == 3


def test_heartbeats_and_results_are_reported() -> None:
    item, reports = make("stream", task_id="task1"), list[dict[str, Any]]()
    item.on_report = reports.append
    item.heartbeat(Heartbeat(status="running", bytes_read=5, info="on it"), 1001)
    item.result(Result(output={"series": []}, end_offset_ms=6), 1002)
    item.heartbeat(FAILED, 1003)
    item.heartbeat(FAILED, 1004)
    assert reports == [
        {"kind": "heartbeat", "status": "running", "bytesRead": 5, "info": "on it"},
        {"kind": "result", "index": 0, "endOffsetMs": 6, "output": {"series": [], "taskId": "task1"}},
        {
            "kind": "heartbeat",
            "status": "failed",
            "bytesRead": 5,
            "failureReason": "api_error",
            "failureMsg": "no voice",
        },
    ]


@pytest.mark.parametrize(
    "verdict", [Ack(), BODY, Nothing(), BROKEN], ids=lambda verdict: type(verdict).__name__
)
def test_changes_are_announced_after_they_have_happened(verdict: Verdict) -> None:
    item, seen = make(), []
    item.on_change = lambda: seen.append((item.outcome, item.deadline()))
    item.heartbeat(RUNNING, 1001)
    item.result(Result(output="a"), 1001)
    item.answered(verdict, 1002)
    assert len(seen) == 3
    assert seen[-1] == (item.outcome, item.deadline())
    if item.outcome is None:
        item.expire(item.deadline())
        assert seen[-1] == (item.outcome, math.inf)


def test_results_that_are_too_large_for_one_answer_are_only_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    item, reports = Item(TaskInput(engine_type="stream"), now=0, max_bytes=10), list[dict[str, Any]]()
    item.on_report = reports.append
    for size in (6, 5, 1):
        assert item.result(Result(output=size, size_bytes=size), 1) is ACCEPTED
    # Not the third, though it would fit: a gap is easier to fill at the end than in the middle.
    assert outputs_of(item) == [6]
    assert item.omitted == 2
    assert [report["output"] for report in reports] == [6, 5, 1]
    assert caplog.text.count("too large") == 1

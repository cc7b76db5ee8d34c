"""What a client hears, by what it asked for."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import cbor2
import pytest

from orbtrio.engine.clients import BatchedClient, ClientFlusher, RemoteClient
from orbtrio.engine.jobs import Job
from orbtrio.errors import InvalidMessage
from orbtrio.protocol import codec
from orbtrio.protocol.messages import (
    MISSING,
    ProgressReport,
    WorkerOutput,
    WorkerResponse,
    WorkerResponses,
)

if TYPE_CHECKING:
    from orbtrio.protocol.messages import Message


class FakeTransport:
    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.buffered_bytes = 0

    def flush(self) -> None: ...

    def queue(self, *parts: bytes) -> None:
        self.sent.append(codec.decode(b"".join(parts)))


def a_job(client: RemoteClient, *, deliveries: int = 1) -> Job:
    job: Any = Job("ours", "mine", "mine", client, "t", None, b"", 0.0, 9.0, (), None)  # type: ignore[arg-type]
    job.deliveries = deliveries
    return job  # type: ignore[no-any-return]


def a_client(*extensions: str) -> tuple[RemoteClient, list[Any]]:
    transport: Any = FakeTransport()
    return RemoteClient(transport, frozenset(extensions)), transport.sent


@pytest.mark.parametrize("extensions", [(), ("progress", "engine_errors")])
def test_everybody_hears_answers(extensions: tuple[str, ...]) -> None:
    client, sent = a_client(*extensions)
    client.deliver(a_job(client), codec.output_entry("ours", {"x": 1}))
    (response,) = sent
    assert type(response) is WorkerResponse
    assert (response.client_job_id, response.output) == ("mine", {"id": "ours", "x": 1})


def test_who_asked_hears_of_progress_and_never_of_our_ids() -> None:
    client, sent = a_client("progress")
    for deliveries in (1, 2):
        job = a_job(client, deliveries=deliveries)
        client.report(job, codec.progress_entry("ours", {"text": "x"}))
    assert [type(report) for report in sent] == [ProgressReport] * 2
    assert [(one.client_job_id, one.progress, one.attempt) for one in sent] == [
        ("mine", {"text": "x"}, 1),
        ("mine", {"text": "x"}, 2),
    ]


def test_progress_that_a_slow_client_has_no_room_for_is_refused() -> None:
    transport: Any = FakeTransport()
    client = RemoteClient(transport, frozenset({"progress"}), max_unsent=1600)
    flooding, other = a_job(client), a_job(client)
    entry = codec.progress_entry("ours", {"text": "x" * 120})
    assert client.report(flooding, entry), "not behind"
    transport.buffered_bytes = 500
    assert client.report(flooding, entry), "behind, but there is room"
    transport.buffered_bytes = 900
    assert not client.report(flooding, entry), "it is this one's doing"
    small = codec.progress_entry("ours", {"text": "x"})
    assert client.report(other, small), "not this one's"
    transport.buffered_bytes = 1200
    assert not client.report(other, small), "the rest is for answers"
    assert len(transport.sent) == 3
    deaf = RemoteClient(transport, frozenset(), max_unsent=1600)
    assert deaf.report(a_job(deaf), entry)


def test_who_asked_hears_why_the_engine_ended_a_job() -> None:
    client, sent = a_client("engine_errors")
    client.refuse("mine", "timeout", "too late")
    client.refuse(MISSING, "invalid_job", "nobody could tell which")
    (response,) = sent
    assert response.output == {"error": "too late", "error_kind": "timeout"}


def test_a_stock_client_hears_nothing_else() -> None:
    client, sent = a_client()
    client.report(a_job(client), codec.progress_entry("ours", {"text": "x"}))
    client.refuse("mine", "timeout", "too late")
    assert sent == []


# --- batched_responses ------------------------------------------------------------------------------------


def a_batched_client(
    *extensions: str,
) -> tuple[RemoteClient, ClientFlusher, list[Any]]:
    transport: Any = FakeTransport()
    flusher = ClientFlusher()
    asked = frozenset({"batched_responses", "engine_errors", *(extensions or ("progress",))})
    return BatchedClient(transport, asked, flusher), flusher, transport.sent


def test_the_answers_of_one_turn_travel_together() -> None:
    client, flusher, sent = a_batched_client()
    client.deliver(a_job(client), codec.output_entry("ours", {"x": 1}))
    client.refuse("other", "timeout", "too late")
    assert sent == []
    flusher.flush()
    (message,) = sent
    assert isinstance(message, WorkerResponses)
    assert [(one.client_job_id, one.output) for one in message.responses] == [
        ("mine", {"id": "ours", "x": 1}),
        ("other", {"error": "too late", "error_kind": "timeout"}),
    ]
    flusher.flush()
    assert len(sent) == 1


def test_a_lone_answer_is_an_ordinary_one() -> None:
    client, flusher, sent = a_batched_client()
    for _ in range(2):
        client.deliver(a_job(client), codec.output_entry("ours", {}))
        flusher.flush()
    assert [type(message) for message in sent] == [WorkerResponse] * 2


def test_many_answers_are_several_messages() -> None:
    client, flusher, sent = a_batched_client()
    for size in (20_000, 20_000, 20_000, 20_000, 2_000_000, 10, 10):
        client.deliver(a_job(client), codec.output_entry("ours", {"x": "x" * size}))
    flusher.flush()
    lengths = [len(message.responses) if isinstance(message, WorkerResponses) else 1 for message in sent]
    assert lengths == [3, 1, 1, 2]


def received(messages: list[bytes]) -> list[Any]:
    """As our client understands what an engine sends."""
    asked = frozenset({"batched_responses"})
    return [codec.decode(raw, unwrap_typed_arrays=True, extensions=asked) for raw in messages]


@pytest.mark.parametrize(
    "value",
    [b"\x9a\x00\x00\x9c\x40" + b"\xa0" * 40_000, b"\x81" * 60 + b"\x00"],
    ids=["as complex as possible", "as deep as possible"],
)
def test_a_client_can_read_together_what_workers_may_send_singly(value: bytes) -> None:
    def entries(member: bytes) -> list[tuple[str, bytes]]:
        output = codec.decode(b"\xa2\x64type\x6dworker_output\x66output\x81\xa2\x62id\x64ours\x61x" + member)
        assert isinstance(output, WorkerOutput)
        return output.entries

    client, flusher, _ = a_batched_client()
    sent: list[bytes] = []
    client._transport.queue = lambda *parts: sent.append(b"".join(parts))  # type: ignore[method-assign]
    for _ in range(2):
        ((_, entry),) = entries(value)
        client.deliver(a_job(client), entry)
    flusher.flush()
    assert sum(len(getattr(message, "responses", [message])) for message in received(sent)) == 2
    if value.startswith(b"\x81"):
        with pytest.raises(InvalidMessage, match="levels"):
            entries(b"\x81" + value)


def test_the_first_answer_may_be_the_largest() -> None:
    client, flusher, sent = a_batched_client()
    client.deliver(a_job(client), codec.output_entry("ours", {"x": "x" * 2_000_000}))
    flusher.flush()
    assert [type(message) for message in sent] == [WorkerResponse]


def test_progress_comes_before_the_answer() -> None:
    client, flusher, sent = a_batched_client()
    job = a_job(client)
    client.report(job, codec.progress_entry("ours", {"text": "x"}))
    client.deliver(job, codec.output_entry("ours", {}))
    flusher.flush()
    assert [type(message) for message in sent] == [ProgressReport, WorkerResponse]


# --- typed_arrays -----------------------------------------------------------------------------------------


def an_entry(vector: array[float]) -> bytes:
    raw = codec.encode_value(
        {"type": "worker_output", "output": [{"id": "ours", "v": vector}]}, typed_arrays=True
    )
    message = codec.decode(raw)
    assert isinstance(message, WorkerOutput)
    return message.entries[0][1]


VECTOR = array("f", [0.5, 2.0])
TYPED = cbor2.CBORTag(85, VECTOR.tobytes())


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(("asked", "expected"), [("typed_arrays", TYPED), ("progress", [0.5, 2.0])])
def test_typed_arrays_are_lists_for_who_did_not_ask(asked: str, expected: object, batched: bool) -> None:
    client, flusher, sent = a_batched_client(asked, "progress")
    if not batched:
        client, sent = a_client(asked, "progress")
    client.report(a_job(client), an_entry(VECTOR))
    client.deliver(a_job(client), an_entry(VECTOR))
    flusher.flush()
    report, response = sent
    assert report.progress == {"v": expected}
    assert response.output == {"id": "ours", "v": expected}


@pytest.mark.parametrize("asked", ["typed_arrays", "progress"])
def test_more_numbers_than_lists_may_have_are_for_who_asked(asked: str) -> None:
    client, sent = a_client(asked, "progress", "engine_errors")
    entry = an_entry(array("f", bytes(4_000_000)))
    assert client.report(a_job(client), entry)
    client.deliver(a_job(client), entry)
    if asked == "typed_arrays":
        assert [type(message) for message in sent] == [ProgressReport, WorkerResponse]
    else:
        (response,) = sent
        assert response.output["error_kind"] == "result_too_large"

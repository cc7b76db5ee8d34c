"""What a client hears, by what it asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orbtrio.engine.clients import RemoteClient
from orbtrio.engine.jobs import Job
from orbtrio.protocol import codec
from orbtrio.protocol.messages import MISSING, ProgressReport, WorkerResponse

if TYPE_CHECKING:
    from orbtrio.protocol.messages import Message


class FakeTransport:
    def __init__(self) -> None:
        self.sent: list[Message] = []

    def queue(self, *parts: bytes) -> None:
        self.sent.append(codec.decode(b"".join(parts)))


def a_job(client: RemoteClient, *, deliveries: int = 1) -> Job:
    head = codec.response_head("mine")
    job: Any = Job(1, "ours", "mine", "mine", client, head, "t", None, b"", 0.0, 9.0, (), None)  # type: ignore[arg-type]
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

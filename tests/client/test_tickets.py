"""One job of the client's books: its bytes for this engine or that, and how often it was begun."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbtrio.client.tickets import Carrier, Ticket, measure
from orbtrio.protocol.codec import request_job
from orbtrio.protocol.messages import EXTENSIONS, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

STOCK = frozenset[str]()
INPUT = {"text": "hello", "vector": [0.5], "raw": b"\0"}


class Owner:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def ended(self, ticket: Ticket) -> None:
        self.heard.append((ticket.output, ticket.error))

    def reported(self, ticket: Ticket, piece: dict[str, Any], size: int) -> None:
        self.heard.append((ticket.runs, piece, size))


def ticket_of(
    extra: Mapping[str, Any] | None = None,
    *,
    deadline: float = 60.0,
    owner: Owner | None = None,
    **options: Any,
) -> Ticket:
    wire = request_job("a", "t", INPUT, extra)
    return Ticket("a", wire, (), len(wire), 60.0, deadline, owner or Owner(), **options)


def test_a_job_holds_its_bytes_and_those_of_its_resources() -> None:
    picture = Resource("image-1", "image", bytes(1000))
    assert measure(b"wire", ()) == 4
    assert 2004 < measure(b"wire", (picture, picture)) < 2504


# --- For this engine or that --------------------------------------------------------------------------------


@pytest.mark.parametrize("announced", [STOCK, frozenset({"cancel", "batched_responses", "drain"})])
def test_engines_that_do_not_know_a_field_are_not_sent_it(announced: frozenset[str]) -> None:
    ticket = ticket_of({"priority": 1}, tells_timeout=True, heartbeat=5.0)
    assert ticket.carry(Carrier(1), announced, 0.0) == request_job("a", "t", INPUT, {"priority": 1})


def test_each_field_goes_to_engines_that_know_its_extension() -> None:
    ticket = ticket_of(tells_timeout=True, heartbeat=0.25)
    sent = {name: ticket.carry(Carrier(1), frozenset({name}), 0.0) for name in EXTENSIONS}
    plain = request_job("a", "t", INPUT)
    for name, wire in sent.items():
        fields = {"engine_errors": {"timeout_ms": 60_000}, "progress": {"heartbeat_ms": 250}}.get(name)
        assert wire == (request_job("a", "t", INPUT, fields) if fields else plain)


@given(count=st.integers(0, 300), seconds=st.floats(0.001, 2e6), heartbeat=st.none() | st.floats(0.001, 2e6))
def test_fields_are_added_as_if_they_had_been_encoded_with_the_rest(
    count: int, seconds: float, heartbeat: float | None
) -> None:
    """Whatever the number of fields, and of what is in them: the heads of CBOR come in four lengths."""
    extra = {f"field {number}": number for number in range(count)}
    ticket = ticket_of(extra, deadline=seconds, tells_timeout=True, heartbeat=heartbeat)
    expected = {**extra, "timeout_ms": round(seconds * 1000)}
    if heartbeat is not None:
        expected["heartbeat_ms"] = round(heartbeat * 1000)
    assert ticket.carry(Carrier(1), EXTENSIONS, 0.0) == request_job("a", "t", INPUT, expected)


@pytest.mark.parametrize(("count", "width"), [(19, 1), (20, 2), (251, 2), (252, 3), (65_531, 3), (65_532, 5)])
def test_heads_of_every_length_are_understood(count: int, width: int) -> None:
    extra = {str(number): 0 for number in range(count)}
    wire = ticket_of(extra, tells_timeout=True).carry(Carrier(1), EXTENSIONS, 0.0)
    assert wire == request_job("a", "t", INPUT, {**extra, "timeout_ms": 60_000})
    assert wire[width : width + 7] == b"\x66job_id"


@pytest.mark.parametrize(
    ("deadline", "now", "told"),
    [
        (60.0, 0.0, 60_000),
        (60.0, 45.5, 14_500),
        (60.0, 59.9999, 1),
        (60.0, 61.0, 1),
        (math.inf, 5.0, 2**31 - 1),
        (1e300, 5.0, 2**31 - 1),
    ],
)
def test_engine_is_told_how_much_time_is_left(deadline: float, now: float, told: int) -> None:
    """Not how much there was: the job may have waited for a connection, or been sent before."""
    wire = ticket_of(deadline=deadline, tells_timeout=True).carry(Carrier(1), EXTENSIONS, now)
    assert wire == request_job("a", "t", INPUT, {"timeout_ms": told})


# --- From one link to the next ------------------------------------------------------------------------------


def test_what_was_sent_and_not_heard_of_is_unproven() -> None:
    ticket = ticket_of()
    assert (ticket.unproven, ticket.alone) == (False, False)
    ticket.carry(Carrier(2), STOCK, 0.0)
    assert (ticket.unproven, ticket.alone) == (True, False)
    ticket.carry(Carrier(1, accepted=True), STOCK, 0.0)
    assert (ticket.unproven, ticket.alone) == (False, True)


def test_runs_count_connections_and_the_engines_attempts() -> None:
    owner = Owner()
    ticket = ticket_of(owner=owner)
    assert ticket.runs == 0
    for attempts in ((1, 1, 3), (), (1, 2)):
        ticket.carry(Carrier(1), EXTENSIONS, 0.0)
        for attempt in attempts:
            ticket.report(attempt, {"attempt": attempt}, 10)
    # The second link was lost before a word was said.
    assert [(runs, piece["attempt"]) for runs, piece, _ in owner.heard] == [
        (1, 1),
        (1, 1),
        (3, 3),
        (5, 1),
        (6, 2),
    ]


def test_an_outcome_goes_to_its_owner() -> None:
    owner = Owner()
    error = ValueError()
    ticket_of(owner=owner).end({"vector": [0.5]})
    ticket_of(owner=owner).end(None, error)
    assert owner.heard == [({"vector": [0.5]}, None), (None, error)]

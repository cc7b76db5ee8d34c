"""How peers introduce themselves, on decoded maps."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given, settings

from orbtrio.errors import InvalidMessage
from orbtrio.protocol.registration import (
    DEFAULT_MESSAGE_BYTES,
    EXTENSIONS,
    MAX_BATCH_SIZE,
    RegisterClient,
    RegisterWorker,
)
from tests.strategies import register_client_wire, register_worker_wire


def worker(**config: Any) -> RegisterWorker:
    wire = {"worker_secret": "s", "worker_config": {"worker_type": "embedding", **config}}
    return RegisterWorker.from_wire(wire)


def test_absent_and_null_mean_the_default() -> None:
    """P-11, B-47, B-48."""
    names = (
        "max_batch_size",
        "max_latency_ms",
        "eager",
        "max_unanswered_batches",
        "max_message_bytes",
        "extensions",
    )
    for registration in (worker(), worker(**dict.fromkeys(names))):
        assert registration.max_batch_size == 32
        assert registration.max_latency == 30.0
        assert registration.eager is False
        assert registration.max_unanswered_batches is None
        assert registration.max_message_bytes == DEFAULT_MESSAGE_BYTES
        assert registration.extensions == frozenset()


def test_whole_floats_are_numbers() -> None:
    """P-11, B-39: JavaScript sends them."""
    registration = worker(
        max_batch_size=16.0, max_latency_ms=5000.0, max_unanswered_batches=2.0, max_message_bytes=1e6
    )
    assert registration == worker(
        max_batch_size=16, max_latency_ms=5000, max_unanswered_batches=2, max_message_bytes=1_000_000
    )
    assert type(registration.max_batch_size) is int
    assert registration.max_latency == 5.0


@pytest.mark.parametrize("size", [1001, 2**64, 1e300])
def test_batch_sizes_are_clamped(size: float) -> None:
    assert worker(max_batch_size=size).max_batch_size == MAX_BATCH_SIZE


def test_extensions_that_nobody_knows_are_ignored() -> None:
    assert worker(extensions=["progress", "telepathy", "progress"]).extensions == {"progress"}
    assert RegisterClient.from_wire({"extensions": sorted(EXTENSIONS)}).extensions == EXTENSIONS


@pytest.mark.parametrize("secret", [None, 5, b"s", True, ["s"], cbor2.CBORTag(1, "s")])
def test_a_secret_that_is_no_text_is_a_wrong_secret(secret: Any) -> None:
    """B-43: it must be refused in the same words as any other."""
    wire = {"worker_secret": secret, "worker_config": {"worker_type": "llm"}}
    assert RegisterWorker.from_wire(wire).worker_secret == ""
    del wire["worker_secret"]
    assert RegisterWorker.from_wire(wire).worker_secret == ""


def test_secrets_and_tokens_stay_out_of_logs() -> None:
    assert "hush" not in repr(RegisterWorker(worker_type="t", worker_secret="hush"))
    assert "hush" not in repr(RegisterClient(token="hush"))


@pytest.mark.parametrize(
    "fields",
    [
        {"worker_type": ""},
        {"worker_type": 5},
        {"worker_secret": None},
        {"max_batch_size": 0},
        {"max_batch_size": True},
        {"max_latency": 0.0},
        {"max_latency": float("nan")},
        {"max_latency": float("inf")},
        {"max_latency": True},
        {"eager": 1},
        {"max_unanswered_batches": 0},
        {"max_message_bytes": 0.5},
        {"extensions": "progress"},
        {"extensions": {"progress"}},
    ],
)
def test_nobody_can_build_an_invalid_registration(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage, match=next(iter(fields))):
        RegisterWorker(**{"worker_type": "t", "worker_secret": "s", **fields})


@pytest.mark.parametrize("version", ["1.0.1", "9", None, 1.0, [], cbor2.CBORTag(1, "x")])
def test_any_version_is_welcome(version: Any) -> None:
    client = RegisterClient.from_wire({"type": "i_am_server", "version": version})
    assert client.version == (version if type(version) is str else None)


@given(register_worker_wire())
@settings(max_examples=50)
def test_a_worker_registers_with_whatever_the_rules_allow(wire: dict[str, Any]) -> None:
    registration = RegisterWorker.from_wire(wire)
    assert registration.worker_secret == wire["worker_secret"]
    assert registration.worker_type == wire["worker_config"]["worker_type"]
    assert 1 <= registration.max_batch_size <= MAX_BATCH_SIZE


@given(register_client_wire())
@settings(max_examples=50)
def test_a_client_registers_with_whatever_the_rules_allow(wire: dict[str, Any]) -> None:
    assert RegisterClient.from_wire(wire).token == wire.get("token")


@given(register_worker_wire())
@settings(max_examples=50)
def test_a_worker_says_what_it_was_told(wire: dict[str, Any]) -> None:
    registration = RegisterWorker.from_wire(wire)
    assert RegisterWorker.from_wire(registration.to_wire()) == registration


def test_what_is_usual_is_not_said() -> None:
    wire = RegisterWorker(worker_type="llm", worker_secret="s").to_wire()
    assert sorted(wire["worker_config"]) == ["max_batch_size", "max_latency_ms", "worker_type"]
    assert RegisterClient().to_wire() == {"type": "i_am_server"}

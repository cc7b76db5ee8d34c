"""Messages as people read them."""

from __future__ import annotations

import math
from typing import Any

import cbor2
import pytest

from orbtrio.conformance.notation import decode, diagnostic, encode


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (cbor2.undefined, "undefined"),
        (-7, "-7"),
        (1 << 70, "2^71..."),
        (-(1 << 70), "-2^71..."),
        (1.0, "1.0"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        ('a "quoted" line\n', '"a \\"quoted\\" line\\n"'),
        ("größe", '"größe"'),
        (b"\x01\xff", "h'01ff'"),
        ([1, [2]], "[1, [2]]"),
        ({"a": {1: None}}, '{"a": {1: null}}'),
        (cbor2.CBORTag(64, b"\x01"), "64(h'01')"),
        (cbor2.CBORSimpleValue(99), "simple(99)"),
        (object(), "object(...)"),
    ],
)
def test_diagnostic_notation(value: Any, text: str) -> None:
    assert diagnostic(value) == text


def test_long_things_are_cut_and_say_how_long_they_were() -> None:
    assert diagnostic("x" * 1000) == '"' + "x" * 200 + '"(1000 characters)'
    assert diagnostic(bytes(1000)) == "h'" + "00" * 40 + "'(1000 bytes)"
    assert diagnostic(list(range(1000))).endswith("39, ... (1000 items)]")
    assert diagnostic({str(key): key for key in range(1000)}).endswith("... (1000 pairs)}")


def test_what_is_nested_too_deeply_is_cut() -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    assert len(diagnostic(nested)) < 1000


def test_secrets_are_masked_by_field_and_by_value() -> None:
    message = {"worker_secret": "s3cret", "token": "t0ken", "echo": "he said s3cret", "worker_type": "t"}
    text = diagnostic(message, secrets=["s3cret", ""])
    assert "s3cret" not in text
    assert "t0ken" not in text
    assert '"worker_type": "t"' in text


@pytest.mark.parametrize(
    "value", [{"a": [1, 2.5, b"x", None, True]}, "text", cbor2.CBORTag(4, [1, 2]), cbor2.CBORTag(64, b"x")]
)
def test_decoding_keeps_what_was_sent(value: Any) -> None:
    assert decode(encode(value)) == value


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x01\x01", b"\x61", b"\x9f\x01", b"\x61\xff"])
def test_what_is_not_one_item_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"CBOR item"):
        decode(data)


def test_a_bomb_of_tags_is_not_computed() -> None:
    bignum = cbor2.CBORTag(4, [10**9, 1])
    assert decode(encode(bignum)) == bignum

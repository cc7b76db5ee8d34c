"""Arrays among what a program made. All the rest of it is tested where it is used, in `test_codec`."""

from __future__ import annotations

import collections
import enum
from array import array
from typing import Any

import cbor2
import numpy as np
import pytest

from orbtrio.errors import InvalidMessage
from orbtrio.protocol import scan
from orbtrio.protocol.values import encode_value

VECTOR = [0.5, -1.25, 3.0]


def holding(vector: Any) -> dict[str, Any]:
    return {"embedding": vector, "rows": [[vector, 1], (vector,)], "more": {"x": vector}, "n": 7}


@pytest.mark.parametrize(
    "vector",
    [array("f", VECTOR), array("d", VECTOR), np.array(VECTOR), memoryview(array("d", VECTOR))],
    ids=["single", "double", "numpy", "memoryview"],
)
def test_arrays_are_lists_or_typed_arrays_at_any_depth(vector: Any) -> None:
    lists = encode_value(holding(vector), typed_arrays=False)
    assert lists == b"".join(
        [
            b"\xa4",
            cbor2.dumps("embedding") + cbor2.dumps(VECTOR),
            cbor2.dumps("rows") + cbor2.dumps([[VECTOR, 1], [VECTOR]]),
            cbor2.dumps("more") + cbor2.dumps({"x": VECTOR}),
            cbor2.dumps("n") + b"\x07",
        ]
    )
    kind = memoryview(vector).format
    content = cbor2.CBORTag({"f": 85, "d": 86}[kind or ""], bytes(memoryview(vector)))
    assert encode_value(holding(vector), typed_arrays=True) == cbor2.dumps(holding(content))


def test_arrays_are_for_results_only() -> None:
    for vector in (array("d", VECTOR), np.array(VECTOR)):
        with pytest.raises(InvalidMessage, match=r"cannot be encoded: (array|ndarray)"):
            encode_value({"x": vector})


@pytest.mark.parametrize("typed_arrays", [False, True])
def test_arrays_of_other_numbers_are_refused(typed_arrays: bool) -> None:
    with pytest.raises(InvalidMessage, match="float32 or float64"):
        encode_value({"x": [np.zeros(3, np.int32)]}, typed_arrays=typed_arrays)
    with pytest.raises(InvalidMessage, match="cannot be encoded: set"):
        encode_value({"x": {1, 2}}, typed_arrays=typed_arrays)


def test_what_is_too_much_as_a_list_is_not_as_a_typed_array() -> None:
    vector = np.zeros(1_000_001, np.float32)
    with pytest.raises(InvalidMessage, match="too complex"):
        encode_value(vector, typed_arrays=False)
    assert len(encode_value(vector, typed_arrays=True)) == 4 * len(vector) + 7


class Number(enum.IntEnum):
    """Numbers of another kind."""

    ONE = 1
    HUGE = 1 << 70


class Fields(collections.UserDict[Any, Any]):
    """A map of another kind."""


def test_subclasses_of_what_can_be_sent_can_be_sent_in_the_same_bounds() -> None:
    value = {"n": Number.ONE, "m": Fields({"x": 1}), "t": (1, [2])}
    assert cbor2.loads(encode_value(value)) == {"n": 1, "m": {"x": 1}, "t": [1, [2]]}
    for bad, problem in (
        (Number.HUGE, "more than 64 bits"),
        (1 << 70, "more than 64 bits"),
        (Fields({1: 2}), "a key that is no text"),
        ({b"x": 2}, "a key that is no text"),
    ):
        with pytest.raises(InvalidMessage, match=f"cannot be encoded: .*{problem}"):
            encode_value({"x": [bad]})


@pytest.mark.parametrize("count", [61, 62, 63])
def test_what_is_not_walked_again_arrives(count: int) -> None:
    """By depth and by size, whatever is encoded is what a receiver takes."""
    value: Any = 0
    for _ in range(count):
        value = [value]
    for size in (1, 40_000):
        whole = {"x": value, "y": "y" * size}
        try:
            raw = encode_value(whole)
        except InvalidMessage:
            assert count > 61
        else:
            assert count == 61
            scan.check(raw, depth=2)

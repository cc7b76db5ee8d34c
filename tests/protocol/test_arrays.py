"""Typed arrays to lists and back, held against the CBOR library, which does it number by number."""

from __future__ import annotations

import math
import random
import struct
from array import array
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbtrio.errors import DecodeError, InvalidMessage
from orbtrio.protocol import arrays, scan
from orbtrio.protocol.arrays import LEAST_FLOATS, TYPED_ARRAYS, TypedEntry

PRIVATE = 1 << 63 | 12345

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
FLOATS_32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
COUNTS = [0, 1, 15, 16, 768, 1024, 1025, 3000]


def numbers(count: int, kind: str = "d") -> list[float]:
    chance = random.Random(count)
    return array(kind, [chance.gauss(0, 0.05) for _ in range(count)]).tolist()


def typed(tag: int, floats: list[float]) -> cbor2.CBORTag:
    kind, order = TYPED_ARRAYS[tag]
    form = f"{'>' if order == 'big' else '<'}{len(floats)}{kind}"
    return cbor2.CBORTag(tag, struct.pack(form, *floats))


def entries(*members: Any, typed_arrays: bool = True) -> tuple[list[tuple[str, bytes]], list[int], int]:
    raw = cbor2.dumps({"type": "worker_output", "output": list(members)})
    split = scan.split_entries(raw, "worker_output", "output", typed_arrays=typed_arrays)
    assert split is not None
    return split


def entry(fields: dict[str, Any]) -> TypedEntry:
    [(job_id, found)], _, malformed = entries({"id": "orb-1", **fields})
    assert (job_id, malformed) == ("orb-1", 0)
    assert isinstance(found, TypedEntry)
    assert found == cbor2.dumps({"id": "orb-1", **fields})
    return found


# --- To lists ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", TYPED_ARRAYS)
@pytest.mark.parametrize("count", COUNTS)
def test_a_typed_array_becomes_the_list_that_the_library_would_write(tag: int, count: int) -> None:
    floats = numbers(count, TYPED_ARRAYS[tag][0])
    assert arrays.list_of_floats(tag, typed(tag, floats).value) == cbor2.dumps(floats)


@given(st.lists(FLOATS), st.lists(FLOATS_32))
def test_every_number_keeps_its_value(doubles: list[float], singles: list[float]) -> None:
    for tag, floats in ((86, doubles), (82, doubles), (85, singles), (81, singles)):
        assert arrays.list_of_floats(tag, typed(tag, floats).value) == cbor2.dumps(floats)
        assert arrays.as_array(tag, typed(tag, floats).value).tolist() == floats


def test_what_is_no_number_stays_none() -> None:
    odd = [math.inf, -math.inf, math.nan, -0.0]
    for tag in TYPED_ARRAYS:
        found = cbor2.loads(arrays.list_of_floats(tag, typed(tag, odd).value))
        assert [str(number) for number in found] == ["inf", "-inf", "nan", "-0.0"]


def test_bytes_that_are_no_whole_numbers_are_no_array() -> None:
    assert arrays.is_whole(85, b"1234")
    assert arrays.is_whole(86, b"")
    for tag, content in ((85, b"12345"), (86, b"1234"), (85, [1.0]), (85, "1234"), (81, None)):
        assert not arrays.is_whole(tag, content)


# --- Entries ----------------------------------------------------------------------------------------------


def test_typed_arrays_become_lists_at_any_depth_and_all_else_stays() -> None:
    one, two, three = numbers(768, "f"), numbers(3), [0.5]
    given = {
        "embedding": typed(85, one),
        "rows": [typed(86, two), {"deep": [[typed(81, three)]]}],
        "date": cbor2.CBORTag(1, typed(82, two)),
        "data": b"\xd8\x55\x44four",
        "text": "\xd8U",
        "others": [cbor2.CBORTag(84, b"\0\0"), cbor2.CBORTag(64, b"raw")],
    }
    found = entry(given)
    plain = arrays.expanded(found)
    expected = {"id": "orb-1", **given, "embedding": one, "rows": [two, {"deep": [[three]]}]}
    assert plain == cbor2.dumps({**expected, "date": cbor2.CBORTag(1, two)})
    assert len(plain) <= arrays.expanded_size(found) <= len(plain) + 9 * len(found.arrays)


def test_heads_may_be_longer_than_needed() -> None:
    raw = b"\xa2\x62id\x61x\x61v\xda\0\0\0\x55\x59\0\x04" + struct.pack("<f", 0.5)
    message = b"\xa2\x64type\x6dworker_output\x66output\x81" + raw
    split = scan.split_entries(message, "worker_output", "output", typed_arrays=True)
    assert split is not None
    [(_, found)] = split[0]
    assert isinstance(found, TypedEntry)
    assert arrays.expanded(found) == cbor2.dumps({"id": "x", "v": [0.5]})


def test_typed_arrays_of_who_did_not_agree_on_them_are_tags_like_any_other() -> None:
    fields = {"id": "x", "good": typed(85, [1.0]), "bad": cbor2.CBORTag(85, "text")}
    [(_, found)], _, malformed = entries(fields, typed_arrays=False)
    assert type(found) is bytes
    assert (found, malformed) == (cbor2.dumps(fields), 0)


@pytest.mark.parametrize("content", ["text", 1, b"12345", [b"1234"], cbor2.CBORTag(85, b"1234"), None])
def test_an_entry_with_a_tag_on_anything_but_numbers_is_malformed_and_the_others_count(content: Any) -> None:
    bad = {"id": "bad", "error": "x", "v": [typed(86, [1.0]), cbor2.CBORTag(85, content)]}
    good = {"id": "good", "v": typed(86, [2.0]), "error": "partly"}
    found, failed, malformed = entries({"id": "first"}, bad, {"id": "small"}, good)
    assert [job_id for job_id, _ in found] == ["first", "small", "good"]
    assert (failed, malformed) == ([2], 1)
    assert [type(member) for _, member in found] == [bytes, bytes, TypedEntry]
    assert arrays.expanded(found[2][1]) == cbor2.dumps({**good, "v": [2.0]})  # type: ignore[arg-type]


def test_typed_arrays_beside_the_entries_are_in_none() -> None:
    odd = cbor2.CBORTag(85, "no number")
    message = {
        "type": "worker_output",
        "before": odd,
        "output": [odd, {"v": odd}, {"id": "x"}],
        "behind": odd,
    }
    split = scan.split_entries(cbor2.dumps(message), "worker_output", "output", typed_arrays=True)
    assert split == ([("x", cbor2.dumps({"id": "x"}))], [], 2)
    assert type(split[0][0][1]) is bytes


def test_messages_that_end_within_a_typed_array_are_refused() -> None:
    raw = cbor2.dumps({"type": "worker_output", "output": [{"id": "x", "v": typed(85, numbers(20, "f"))}]})
    for end in range(len(raw) - 90, len(raw)):
        with pytest.raises(DecodeError):
            scan.split_entries(raw[:end], "worker_output", "output", typed_arrays=True)


# --- What handlers return ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        (array("f", numbers(5, "f")), 85),
        (array("d", numbers(5)), 86),
        (np.array(numbers(5), np.float32), 85),
        (np.array(numbers(5)), 86),
        (np.array(numbers(10))[::2], 86),
        (np.zeros(0, np.float32), 85),
        (memoryview(array("d", numbers(4))), 86),
    ],
)
def test_arrays_are_encoded_as_they_lie_in_memory_or_as_lists(value: Any, tag: int) -> None:
    floats = list(map(float, value))
    assert arrays.is_array(value)
    assert arrays.array_item(value, typed=True) == cbor2.dumps(typed(tag, floats))
    assert arrays.array_item(value, typed=False) == cbor2.dumps(floats)


@pytest.mark.parametrize("shape", [(2, 3), (3, 0), (0, 3), (2, 1, 2)])
def test_arrays_of_several_dimensions_are_arrays_of_rows(shape: tuple[int, ...]) -> None:
    value = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    assert cbor2.loads(arrays.array_item(value, typed=False)) == value.tolist()
    rows = cbor2.loads(arrays.array_item(value, typed=True), semantic_decoders={85: lambda data, _: data})
    while rows and isinstance(rows[0], list):
        rows = [row for part in rows for row in part]
    assert b"".join(rows) == value.tobytes()


def test_transposed_arrays_are_what_they_look_like() -> None:
    value = np.arange(6.0).reshape(2, 3).T
    assert cbor2.loads(arrays.array_item(value, typed=False)) == value.tolist()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (np.zeros(3, np.int64), "ndarray of format 'l': make it float32 or float64"),
        (np.zeros(3, ">f4"), "ndarray of format '>f'"),
        (np.zeros(3, np.float16), "ndarray of format 'e'"),
        (memoryview(b"abc"), "memoryview of format 'B'"),
        (np.float32(1), "float32, a single number: make it a float"),
    ],
)
def test_other_arrays_are_refused_with_what_to_do(value: Any, problem: str) -> None:
    with pytest.raises(InvalidMessage, match=f"cannot be encoded: {problem}"):
        arrays.is_array(value)


def test_what_has_no_memory_to_lend_is_no_array() -> None:
    assert not arrays.is_array(object())
    assert not arrays.is_array({1, 2})


# --- Lists that arrive ------------------------------------------------------------------------------------


def through(value: Any) -> Any:
    raw = arrays.gathered(cbor2.dumps(value), PRIVATE)
    if raw is None:
        return None
    return cbor2.loads(raw, semantic_decoders={PRIVATE: lambda items, _: arrays.unpack(items)})


@pytest.mark.parametrize("count", [16, 768, 1024, 1025, 3000])
def test_long_lists_arrive_as_the_library_would_read_them(count: int) -> None:
    floats = numbers(count)
    value = {"id": "x", "v": floats, "n": [[floats, 1, "t", b"b", -5], floats[:15]], "s": [count], "e": {}}
    assert through(value) == value


def test_tags_and_other_widths_are_stepped_over() -> None:
    value = [cbor2.CBORTag(64, b"\xfb" * 200), 1e300, 300, 70_000, 1 << 40, True, None, numbers(16)]
    assert through(value) == value


@pytest.mark.parametrize(
    "value",
    [
        {"id": "x", "text": "hello"},
        {"data": b"\xfb" * 40},
        {"data": b"\x90" + (b"\xfb" + b"8 bytes!") * 16},
        numbers(15),
        [1.5, *[b"\xfb"] * 40],
        [b"\xfb12345678" * 20, *[0] * 3000, numbers(16)],
        [1, *numbers(15), "x"],
    ],
)
def test_messages_without_such_lists_or_with_too_many_items_are_for_the_library(value: Any) -> None:
    assert through(value) is None


def test_a_list_of_mixed_widths_is_for_the_library() -> None:
    mixed = [*numbers(17), 5, *numbers(16)]
    assert through(mixed) is None
    assert through([mixed, numbers(16)]) == [mixed, numbers(16)]


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_are_survived(noise: bytes, cut: int) -> None:
    raw = cbor2.dumps([numbers(16), "x"])
    for broken in (
        noise + raw,
        raw[:cut] + noise,
        raw[:cut] + noise + raw[cut:],
        raw[: len(raw) - cut % 140],
    ):
        arrays.gathered(broken, PRIVATE)


def test_lists_arrive_as_arrays_too() -> None:
    floats = numbers(768)
    assert arrays.doubles(cbor2.dumps(floats)[3:]) == array("d", floats)
    assert arrays.unpack(b"") == []


def test_long_lists_of_floats_become_arrays_at_any_depth() -> None:
    floats = [0.5] * LEAST_FLOATS
    value: dict[str, Any] = {
        "v": floats,
        "short": floats[1:],
        "mixed": [*floats, 1],
        "none": [],
        "rows": [floats, [[floats]]],
        "map": {"v": floats, "n": [{"v": floats}, *range(20)]},
    }
    arrays.pack_lists(value)
    packed = array("d", floats)
    assert value == {
        "v": packed,
        "short": floats[1:],
        "mixed": [*floats, 1],
        "none": [],
        "rows": [packed, [[packed]]],
        "map": {"v": packed, "n": [{"v": packed}, *range(20)]},
    }

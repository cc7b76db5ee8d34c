"""Vectors of floats without a Python object for each number. Extension ``typed_arrays`` (P-61).

A vector of 768 floats is 30 µs of CBOR library at every end that makes or reads a list of it, and 1 µs as a
typed array (RFC 8746): a tag, and the numbers' own bytes in one byte string. So workers and clients that
agreed on it with the engine exchange those, and nobody else ever sees one.

What is here turns one into the other, for peers that know lists only. It all rests on one trick: in a list
of float64 every ninth byte is the head ``fb``, and every ninth byte behind it is the same byte of all
numbers. So strided slices put a list together and take it apart, eight of them for any number of floats. Only
float32 has to become Python's floats on the way: lists have always had float64, and decoders may rely on it.

- `list_of_floats` writes what others expect, in the engine (`expanded`) and in the worker (`array_item`).
- `gathered` prepares a message for the decoder where it has long lists of float64: the library then makes one
  byte string of each, and `unpack` or `doubles` what the program wants to have.
- `pack_lists` finishes for programs that want arrays: lists that were of mixed widths, or in odd places.

Rejected: float32 items in lists (a quarter of the time, but the spec's vectors had nine bytes a number, and
there are decoders that insist on them); numpy (an engine does without it,
and shall).
"""

from __future__ import annotations

import sys
from array import array
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from orbtrio.errors import InvalidMessage
from orbtrio.protocol.heads import ARRAY, BYTES, MAP, TAG, argument, head_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "LEAST_FLOATS",
    "TYPED_ARRAYS",
    "Place",
    "TypedEntry",
    "array_item",
    "as_array",
    "doubles",
    "expanded",
    "expanded_size",
    "gathered",
    "is_array",
    "is_whole",
    "list_of_floats",
    "pack_lists",
    "typed_entry",
    "unpack",
]

# The tags: float32 and float64, big-endian and little-endian. The kind of number, and the order of its bytes.
TYPED_ARRAYS: Final = {81: ("f", "big"), 82: ("d", "big"), 85: ("f", "little"), 86: ("d", "little")}

# What this machine's numbers are, as they lie in memory.
_NATIVE: Final = {kind: tag for tag, (kind, order) in TYPED_ARRAYS.items() if order == sys.byteorder}
_FORMATS: Final = {
    sign + kind: kind
    for kind in _NATIVE
    for sign in ("", "@", "=", "<" if sys.byteorder == "little" else ">")
}

_SIZES: Final = {"f": 4, "d": 8}

# In a list: the head and eight bytes.
_FLOAT64: Final = b"\xfb"
_ITEM: Final = 9

# A shorter list is not worth the look for it. Also the shortest that becomes an array for who wants arrays.
LEAST_FLOATS: Final = 16

# Floats that are converted at a time, so that no format is longer.
_AT_ONCE: Final = 1024

# Where a typed array was seen: its tag, where that begins, and where the tag's content does.
Place: TypeAlias = tuple[int, int, int]


class TypedEntry(bytes):
    """A worker's entry with typed arrays in it.

    Attributes:
        arrays: Of each, in order: its tag, where that begins, where its numbers begin, and where they end.
    """

    arrays: list[tuple[int, int, int, int]]


def typed_entry(raw: bytes, start: int, end: int, places: list[Place]) -> bytes | None:
    """The entry from `start` to `end`; None if a tag in it is about anything but whole numbers.

    Args:
        raw: A message that is proved up to `end`.
        start, end: The entry.
        places: Of all typed arrays since the last call; emptied.
    """
    found = []
    for tag, begin, content in places:
        if begin < start:
            continue  # beside all entries, or in a member that is none
        size, numbers = argument(raw, content)
        if raw[content] & 0xE0 != BYTES or size % _SIZES[TYPED_ARRAYS[tag][0]]:
            return None
        found.append((tag, begin - start, numbers - start, numbers - start + size))
    places.clear()
    entry = raw[start:end]
    if found:
        entry = TypedEntry(entry)
        entry.arrays = found
    return entry


# --- As lists -----------------------------------------------------------------------------------------------


def expanded_size(entry: TypedEntry) -> int:
    """Bytes of the entry once its typed arrays are lists; some more at most."""
    size = len(entry)
    for tag, begin, numbers, end in entry.arrays:
        count = (end - numbers) // _SIZES[TYPED_ARRAYS[tag][0]]
        size += _ITEM * (count + 1) - (end - begin)
    return size


def expanded(entry: TypedEntry) -> bytes:
    """The entry, with lists of floats in place of its typed arrays."""
    pieces: list[bytes] = []
    at = 0
    for tag, begin, numbers, end in entry.arrays:
        pieces += (entry[at:begin], list_of_floats(tag, entry[numbers:end]))
        at = end
    return b"".join([*pieces, entry[at:]])


def list_of_floats(tag: int, data: bytes) -> bytes:
    """A CBOR array of float64, of the numbers of a typed array."""
    kind, order = TYPED_ARRAYS[tag]
    count = len(data) // _SIZES[kind]
    if kind == "f":
        items = _widened(tag, data, count)
    else:
        items = bytearray(_ITEM * count)
        for place in range(8):
            items[place + 1 :: _ITEM] = data[place if order == "big" else 7 - place :: 8]
    items[::_ITEM] = _FLOAT64 * count
    return head_of(ARRAY, count) + items


# The items of float32, each as float64; without their heads.
def _widened(tag: int, data: bytes, count: int) -> bytearray:
    floats = as_array(tag, data).tolist()
    items = bytearray()
    for first in range(0, count, _AT_ONCE):
        part = floats[first : first + _AT_ONCE]
        items += _items(len(part)).pack(*part)
    return items


# Big-endian float64, each behind a byte that belongs to its head.
@lru_cache(maxsize=32)
def _items(count: int) -> Struct:
    return Struct(">" + "xd" * count)


# --- As arrays ----------------------------------------------------------------------------------------------


def is_whole(tag: int, content: object) -> bool:
    """Whether what is in a typed array's tag is numbers."""
    return type(content) is bytes and not len(content) % _SIZES[TYPED_ARRAYS[tag][0]]


def as_array(tag: int, data: bytes) -> array[float]:
    """The numbers of a typed array, which `is_whole`, of type ``"f"`` or ``"d"``."""
    kind, order = TYPED_ARRAYS[tag]
    floats: array[float] = array(kind, data)
    if order != sys.byteorder:
        floats.byteswap()
    return floats


def is_array(value: object) -> bool:
    """Whether it is an array of floats: a numpy array, an `array.array`, or anything like it.

    Raises:
        InvalidMessage: it is an array, but not of float32 or float64 in the machine's order.
    """
    try:
        view = memoryview(value)  # type: ignore[arg-type]  # that is the question
    except TypeError:
        return False
    name = type(value).__name__
    if view.format not in _FORMATS:
        text = f"{name} of format {view.format!r}: make it float32 or float64, or a list"
        raise InvalidMessage(f"cannot be encoded: {text}")
    if not view.ndim:
        raise InvalidMessage(f"cannot be encoded: {name}, a single number: make it a float")
    return True


def array_item(value: Any, *, typed: bool) -> bytes:
    """Encode an array of floats (see `is_array`); of several dimensions, as arrays of its rows.

    Args:
        value: The array.
        typed: As typed arrays; else as lists of float64.
    """
    view = memoryview(value)
    tag = _NATIVE[_FORMATS[view.format]]
    return b"".join(_rows(tag, view.tobytes(), list(view.shape or ()), typed=typed))


def _rows(tag: int, data: bytes, shape: list[int], *, typed: bool) -> Iterator[bytes]:
    if len(shape) > 1:
        yield head_of(ARRAY, shape[0])
        step = len(data) // shape[0] if shape[0] else 0
        for row in range(shape[0]):
            yield from _rows(tag, data[row * step : (row + 1) * step], shape[1:], typed=typed)
    elif typed:
        yield head_of(TAG, tag) + head_of(BYTES, len(data))
        yield data
    else:
        yield list_of_floats(tag, data)


# --- Lists that arrive --------------------------------------------------------------------------------------


def gathered(raw: bytes, tag: int) -> bytes | None:
    """A message whose long lists of float64 are byte strings with a tag; None if it has none, or many items.

    Args:
        raw: One item; anything, for the decoder looks at the result all the same.
        tag: One that cannot be in the message. What it is on is for `unpack` or `doubles`.
    """
    if not _may_have_floats(raw):
        return None
    try:
        lists = _lists(raw, len(raw) // 64 + 64)
    except IndexError:
        return None
    if not lists:
        return None
    mark = head_of(TAG, tag)
    pieces: list[bytes] = []
    at = 0
    for begin, items, end in lists:
        pieces += (raw[at:begin], mark, head_of(BYTES, end - items), raw[items:end])
        at = end
    return b"".join([*pieces, raw[at:]])


# Most messages have no byte fb at all. In others it stands in a number now and then.
def _may_have_floats(raw: bytes) -> bool:
    at = -1
    for _ in range(16):
        at = raw.find(_FLOAT64, at + 1)
        if at < 0:
            return False
        if raw[at : at + _ITEM * LEAST_FLOATS : _ITEM] == _FLOAT64 * LEAST_FLOATS:
            return True
    return False


# Where lists of float64 begin, where their items do, and where they end; none if there are too many steps.
def _lists(raw: bytes, most: int) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    at, left = 0, 1
    for _ in range(most):
        if not left:
            return found
        left -= 1
        begin, major = at, raw[at] & 0xE0
        number, at = argument(raw, at)
        if major == ARRAY:
            end = at + _ITEM * number
            if (
                number >= LEAST_FLOATS
                and raw[at] == 0xFB
                and end <= len(raw)
                and raw[at:end:_ITEM] == _FLOAT64 * number
            ):
                found.append((begin, at, end))
                at = end
            else:
                left += number
        elif major == MAP:
            left += 2 * number
        elif major == TAG:
            left += 1
        elif major < ARRAY and major >= BYTES:
            at += number
    return []


def unpack(items: bytes) -> list[float]:
    """The numbers of a list of float64."""
    floats: list[float] = []
    step = _ITEM * _AT_ONCE
    for first in range(0, len(items), step):
        part = items[first : first + step]
        floats += _items(len(part) // _ITEM).unpack(part)
    return floats


def doubles(items: bytes) -> array[float]:
    """The numbers of a list of float64, of type ``"d"``."""
    data = bytearray(len(items) // _ITEM * 8)
    for place in range(8):
        data[place::8] = items[place + 1 :: _ITEM]
    return as_array(82, bytes(data))


def pack_lists(value: dict[str, Any] | list[Any]) -> None:
    """Put arrays in place of lists of `LEAST_FLOATS` floats or more, at any depth of maps and lists."""
    waiting: list[Any] = [value]
    while waiting:
        container = waiting.pop()
        for key, member in container.items() if type(container) is dict else enumerate(container):
            if type(member) is dict:
                waiting.append(member)
            elif type(member) is list:
                # At the speed of C: there may be a million of them.
                kinds = set(map(type, member))
                if kinds == {float} and len(member) >= LEAST_FLOATS:
                    container[key] = array("d", member)
                elif dict in kinds or list in kinds:
                    waiting.append(member)

"""What a program made, as CBOR: proved, so that mistakes show where they are made and not at the other end.

The library has tags for many of Python's types, but nobody would turn those into these types again: a set or
a date is refused, and so is whatever else would arrive as something else. Arrays of floats are not refused in
a worker's results: see `arrays`.

What is made of maps, lists, text, numbers and bytes alone, as nearly all is, has been proved when it has been
looked through: only what is large, deep, or of other kinds is walked once more when it is encoded, as by
whoever receives it.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, Final

import cbor2

from orbtrio.errors import InvalidMessage
from orbtrio.protocol import arrays, scan

__all__ = ["UNCOUNTED_BYTES", "encode_value"]

# Of so many, even the costliest (an empty map is one byte and 16 units) are half of what a message may cost.
# So much may be put into one without counting; the other half is for what stands around it.
UNCOUNTED_BYTES: Final = scan.MAX_WORK // 32


def encode_value(value: Any, *, depth: int = 2, typed_arrays: bool | None = None) -> bytes:
    """Encode what a program made, and prove that the other end will take it.

    Args:
        value: Anything.
        depth: How many containers it will stand in: of a job, the list and its message.
        typed_arrays: Whether arrays of floats in it are to be typed arrays, or lists; None to refuse them.

    Raises:
        InvalidMessage: the other end would refuse it, or get something else: a key that is no text, a set, a
            date, more than 64 levels with those around it.
    """
    plain, has_arrays = _look_through(value, with_arrays=typed_arrays is not None)
    try:
        if has_arrays:
            raw = cbor2.dumps(value, **(_AS_TYPED_ARRAYS if typed_arrays else _AS_LISTS))
        else:
            raw = cbor2.dumps(value)
    except (cbor2.CBORError, ValueError) as error:
        raise InvalidMessage(f"cannot be encoded: {error}") from error
    if not plain or len(raw) > UNCOUNTED_BYTES:
        scan.check(raw, depth=depth)
    return raw


# How arrays are written: the library has an opinion of the standard library's, and none of others.
def _writing(*, typed: bool) -> dict[str, Any]:
    def write(encoder: Any, member: object) -> None:
        encoder.write(arrays.array_item(member, typed=typed))

    return {"default": write, "encoders": {array: write, memoryview: write}}


_AS_TYPED_ARRAYS: Final = _writing(typed=True)
_AS_LISTS: Final = _writing(typed=False)

# So many levels are none too many.
_DEEP: Final = 48

# Most values are of the first kind. In the second are their subclasses, and what another peer may have sent.
_PLAIN: Final = frozenset({str, float, bytes, bool, type(None)})
_SENDABLE: Final = (
    str,
    int,
    float,
    bytes,
    bytearray,
    type(None),
    cbor2.CBORSimpleValue,
    cbor2.CBORTag,
    type(cbor2.undefined),
)


# Whether all in it is proved, and whether there are arrays in it. The library recurses: ten thousand levels
# would take it to the end of the stack, and the process with it.
def _look_through(value: object, *, with_arrays: bool) -> tuple[bool, bool]:
    plain, found = True, False
    level = [value]
    for depth in range(scan.MAX_DEPTH):
        below: list[object] = []
        for item in level:
            kind = type(item)
            if kind is dict or isinstance(item, Mapping):
                try:
                    "".join(item)  # type: ignore[arg-type]  # that is the question
                except TypeError:
                    raise InvalidMessage("cannot be encoded: a key that is no text") from None
                below += [member for member in item.values() if type(member) not in _PLAIN]  # type: ignore[attr-defined]
            elif kind is int:
                _refuse_large(item)  # type: ignore[arg-type]
            elif isinstance(item, (list, tuple)):
                below += [member for member in item if type(member) not in _PLAIN]
            elif isinstance(item, _SENDABLE):
                plain = False
                if isinstance(item, cbor2.CBORTag):
                    below.append(item.value)
                elif isinstance(item, int):
                    _refuse_large(item)
            elif with_arrays and arrays.is_array(item):
                found = True
            else:
                raise InvalidMessage(f"cannot be encoded: {kind.__name__}")
        if not below:
            return plain and depth < _DEEP, found
        level = below
    raise InvalidMessage(f"cannot be encoded: more than {scan.MAX_DEPTH} levels")


def _refuse_large(number: int) -> None:
    if not -(1 << 64) <= number < 1 << 64:
        raise InvalidMessage("cannot be encoded: a number of more than 64 bits")

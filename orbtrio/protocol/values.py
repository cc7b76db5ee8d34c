"""What a program made, as CBOR: proved, so that mistakes show where they are made and not at the other end.

The library has tags for many of Python's types, but nobody would turn those into these types again: a set or
a date is refused, and so is whatever else would arrive as something else. Arrays of floats are not refused in
a worker's results: see `arrays`.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, Final

import cbor2

from orbtrio.errors import InvalidMessage
from orbtrio.protocol import arrays, scan

__all__ = ["encode_value"]


def encode_value(value: Any, *, typed_arrays: bool | None = None) -> bytes:
    """Encode what a program made, and prove that the other end will take it.

    Args:
        value: Anything.
        typed_arrays: Whether arrays of floats in it are to be typed arrays, or lists; None to refuse them.

    Raises:
        InvalidMessage: the other end would refuse it, or get something else: a key that is no text, a set, a
            date, more than 62 levels.
    """
    has_arrays = _refuse_unsendable(value, with_arrays=typed_arrays is not None)
    try:
        if has_arrays:
            typed = bool(typed_arrays)

            def write(encoder: Any, member: object) -> None:
                encoder.write(arrays.array_item(member, typed=typed))

            # The library has an opinion of its own of the standard library's arrays, and none of others.
            raw = cbor2.dumps(value, default=write, encoders={array: write, memoryview: write})
        else:
            raw = cbor2.dumps(value)
    except (cbor2.CBORError, ValueError) as error:
        raise InvalidMessage(f"cannot be encoded: {error}") from error
    scan.check(raw, depth=2)  # it will stand in a list in a message
    return raw


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
    type(cbor2.undefined),
)


# Whether there are arrays in it. The library recurses: ten thousand levels would take it to the end of the
# stack, and the process with it.
def _refuse_unsendable(value: object, *, with_arrays: bool) -> bool:
    found = False
    level = [value]
    for _ in range(scan.MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, Mapping):
                below += [member for member in item.values() if type(member) not in _PLAIN]
            elif isinstance(item, (list, tuple)):
                below += [member for member in item if type(member) not in _PLAIN]
            elif isinstance(item, cbor2.CBORTag):
                below.append(item.value)
            elif isinstance(item, int) and not -(1 << 64) <= item < 1 << 64:
                raise InvalidMessage("cannot be encoded: a number of more than 64 bits")
            elif not isinstance(item, _SENDABLE):
                if not (with_arrays and arrays.is_array(item)):
                    raise InvalidMessage(f"cannot be encoded: {type(item).__name__}")
                found = True
        if not below:
            return found
        level = below
    raise InvalidMessage(f"cannot be encoded: more than {scan.MAX_DEPTH} levels")

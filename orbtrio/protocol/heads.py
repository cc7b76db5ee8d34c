"""How CBOR items begin, for those who read and write them without the library.

The first byte of an item has its major type in the upper three bits. The lower five are its argument if that
is below 24; else they say where it stands: 24 in the next byte, 25, 26, 27 in the next two, four, eight. The
argument is the number of an item's members, or of its bytes, or a tag.
"""

from __future__ import annotations

from struct import pack
from typing import Final

__all__ = ["ARRAY", "BYTES", "MAP", "TAG", "TEXT", "argument", "head_of"]

BYTES: Final = 0x40
TEXT: Final = 0x60
ARRAY: Final = 0x80
MAP: Final = 0xA0
TAG: Final = 0xC0


def head_of(major: int, number: int) -> bytes:
    """The shortest head of an item."""
    if number < 24:
        return bytes((major | number,))
    if number < 1 << 8:
        return bytes((major | 24, number))
    if number < 1 << 16:
        return pack(">BH", major | 25, number)
    return pack(">BI", major | 26, number) if number < 1 << 32 else pack(">BQ", major | 27, number)


def argument(raw: bytes, at: int) -> tuple[int, int]:
    """The argument of the head at `at`, and where that ends; -1 if it has none, as in no message of ours.

    Raises:
        IndexError: the bytes end before it.
    """
    info = raw[at] & 0x1F
    if info < 24:
        return info, at + 1
    if info < 28:
        end = at + 1 + (1 << info - 24)
        return int.from_bytes(raw[at + 1 : end], "big"), end
    return -1, at + 1

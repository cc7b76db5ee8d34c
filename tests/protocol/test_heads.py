"""Heads of CBOR items, as the library writes them and in longer forms."""

from __future__ import annotations

import cbor2
import pytest

from orbtrio.protocol import heads

NUMBERS = [0, 1, 23, 24, 255, 256, 65_535, 65_536, (1 << 32) - 1, 1 << 32, (1 << 64) - 1]


@pytest.mark.parametrize("number", NUMBERS)
def test_heads_are_the_shortest(number: int) -> None:
    assert heads.head_of(0, number) == cbor2.dumps(number)
    assert heads.head_of(heads.TAG, 85) == cbor2.dumps(cbor2.CBORTag(85, 0))[:-1]


@pytest.mark.parametrize("number", NUMBERS)
def test_arguments_are_read_with_the_place_behind_them(number: int) -> None:
    raw = b"before" + heads.head_of(heads.BYTES, number)
    assert heads.argument(raw + b"behind", 6) == (number, len(raw))


def test_arguments_may_be_longer_than_needed() -> None:
    assert heads.argument(b"\x58\x05", 0) == (5, 2)
    assert heads.argument(b"\x5b\0\0\0\0\0\0\0\x05", 0) == (5, 9)


@pytest.mark.parametrize("head", [0x5C, 0x5F, 0xFF])
def test_reserved_and_indefinite_heads_have_no_argument(head: int) -> None:
    assert heads.argument(bytes((head, 1, 2)), 0) == (-1, 1)


def test_heads_that_are_not_there_are_no_heads() -> None:
    with pytest.raises(IndexError):
        heads.argument(b"\x01", 1)

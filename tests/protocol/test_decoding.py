"""The decoder with every door shut: what it refuses, and what it makes of tags. More of it in test_codec."""

from __future__ import annotations

import cbor2
import pytest

from orbtrio.errors import DecodeError
from orbtrio.protocol.decoding import ENDPOINT_TAGS, ENGINE_TAGS, WALK_ABOVE, decode_item, is_absent, load

BYTE_ARRAY = b"\xd8\x40\x41a"


@pytest.mark.parametrize("size", [1, WALK_ABOVE + 1], ids=["small", "walked"])
def test_exactly_one_item(size: int) -> None:
    raw = cbor2.dumps({"x": "a" * size})
    assert load(raw, ENGINE_TAGS) == {"x": "a" * size}
    for wrong in (raw + b"\x00", raw[:-1], b"\x81" + raw + raw, raw.replace(b"\x61x", b"\x41x")):
        with pytest.raises(DecodeError):
            load(wrong, ENGINE_TAGS)


def test_byte_arrays_are_bytes_at_endpoints_only() -> None:
    assert decode_item(BYTE_ARRAY) == load(BYTE_ARRAY, ENDPOINT_TAGS) == b"a"
    assert load(BYTE_ARRAY, ENGINE_TAGS) == cbor2.CBORTag(64, b"a")


def test_tags_stay_what_they_are() -> None:
    assert load(b"\xc1\x00", ENGINE_TAGS) == cbor2.CBORTag(1, 0)
    with pytest.raises(DecodeError, match="tag 28"):
        load(b"\xd8\x1c\x80", ENGINE_TAGS)


def test_what_is_as_good_as_absent() -> None:
    assert is_absent(None)
    assert is_absent(cbor2.undefined)
    assert not is_absent(0)

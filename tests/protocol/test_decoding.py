"""The decoder with every door shut: what it refuses, and what it makes of tags. More of it in test_codec."""

from __future__ import annotations

import cbor2
import pytest

from orbtrio.errors import DecodeError
from orbtrio.protocol.decoding import (
    CUT_TAGS,
    ENDPOINT_TAGS,
    ENGINE_TAGS,
    WALK_ABOVE,
    decode_item,
    is_absent,
    load,
    load_parts,
)

BYTE_ARRAY = b"\xd8\x40\x41a"


@pytest.mark.parametrize("size", [1, WALK_ABOVE + 1], ids=["small", "walked"])
def test_exactly_one_item(size: int) -> None:
    raw = cbor2.dumps({"x": "a" * size})
    assert load(raw, ENGINE_TAGS) == {"x": "a" * size}
    for wrong in (raw + b"\x00", raw[:-1], b"\x81" + raw + raw, raw.replace(b"\x61x", b"\x41x")):
        with pytest.raises(DecodeError):
            load(wrong, ENGINE_TAGS)


def mark_item(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The mark that the library would be given now."""

    def loads(raw: bytes, **_: object) -> None:
        raise LookupError(raw[-9:])

    with monkeypatch.context() as patch:
        patch.setattr(cbor2, "loads", loads)
        with pytest.raises(LookupError) as caught:
            parts(b"\x00")
    return bytes(caught.value.args[0])


def parts(*given: bytes) -> list[object] | None:
    return load_parts(given, depth=1, tags=CUT_TAGS)


# A key that swallows the mark and stands beside another: whether the two are the same can be told by how long
# it takes to refuse them. So one mark could be learnt byte by byte.
@pytest.mark.parametrize(
    "swallowing",
    [b"\x49", b"\x42", b"\xa2\x41\x1b\x00\x41", b"\x00\x00", b"\xff"],
    ids=["all of it", "some of it", "a key", "nothing", "not at all"],
)
def test_what_may_have_seen_the_mark_never_meets_it_again(
    monkeypatch: pytest.MonkeyPatch, swallowing: bytes
) -> None:
    before = mark_item(monkeypatch)
    assert parts(b"\x00", b"\x01") == [0, 1]
    assert mark_item(monkeypatch) == before
    assert parts(swallowing, b"\x00") is None
    between = mark_item(monkeypatch)
    assert between != before
    with pytest.raises(DecodeError):
        load(swallowing, ENGINE_TAGS)
    assert mark_item(monkeypatch) not in (before, between)


def test_the_reason_does_not_depend_on_the_mark() -> None:
    for missing in range(1, 10):
        for _ in range(20):
            with pytest.raises(DecodeError, match="ends too early"):
                load(bytes((0x40 + missing,)), ENGINE_TAGS)


def test_a_mark_that_somebody_knew_would_hide_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why nobody may."""
    known = mark_item(monkeypatch)
    assert parts(b"\x00" + known + b"\x00", b"\x00") == [0, 0]


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


def test_parts_with_many_tags_are_not_for_here() -> None:
    few = [b"\xc1\x00"] * 100
    assert parts(*few) == [cbor2.CBORTag(1, 0)] * 100
    assert parts(*few, b"\xc1\x00") is None
    assert parts(b"\xc1\x00") == [cbor2.CBORTag(1, 0)]

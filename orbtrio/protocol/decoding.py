"""Bytes to values: the library's decoder, with every door shut.

Strict, for all of it comes from strangers, and the library's defaults are a denial of service: 64 KiB of
decimal fraction take seconds, 258 bytes of shared references expand to gigabytes. So: definite lengths, text
keys, each once, 64 levels, nothing behind the item. Tags are never interpreted. `Tags` hands each of them
back as an opaque `cbor2.CBORTag`, which travels on unchanged, and fails the check of any field that we read.
What is larger than 64 KiB is walked before it is decoded (`scan`).

Rejected: a decoder object for each message (twice the time), and faster libraries (they know no tags and sort
the keys, or nobody keeps them).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import cbor2

from orbtrio.errors import DecodeError
from orbtrio.protocol import arrays, scan
from orbtrio.protocol.heads import ARRAY, head_of
from orbtrio.protocol.references import TYPED_ARRAY

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ARRAY_TAGS",
    "CUT_TAGS",
    "ENDPOINT_TAGS",
    "ENGINE_TAGS",
    "NO_ARRAY_TAGS",
    "WALK_ABOVE",
    "CutTags",
    "Tags",
    "decode_item",
    "is_absent",
    "load",
    "load_parts",
    "load_proved",
]

# Up to here the worst message takes 50 ms unwalked, and a walk would double the time for every request.
WALK_ABOVE: Final = 64 * 1024

# A batch may have a thousand jobs, each of which had a budget when it came to the engine, and one that is
# refused is never answered. So endpoints have none in effect: what they get is bounded in bytes, and by their
# engine.
_ENDPOINT_BUDGETS: Final = 1000

_PAIR: Final = head_of(ARRAY, 2)


# The library does not mind bytes behind the item. It decodes [item, mark] instead: the second member is the
# mark only if the item ended where the message does, for nobody outside can know it. That costs nothing; to
# read from a stream and see how far the library got doubles the time.
def _new_mark() -> tuple[int, bytes]:
    mark = int.from_bytes(os.urandom(8), "big") | 1 << 63
    return mark, b"\x1b" + mark.to_bytes(8, "big")


# A message whose last item is too long swallows bytes of the mark: as a key, for example, that is or is not
# the same as the one before it. So whatever fails may show something of the mark, if only by the time that
# it takes, and a few thousand such messages all of it. Whoever knew it could hide items behind the end of a
# part, which would travel to others. So a mark with which anything has failed is never used again.
_mark = _new_mark()


def _forget_mark() -> None:
    global _mark
    _mark = _new_mark()


# How the library shall decode each tag: not at all. It looks here before it looks at what the tag is about,
# and would use a decoder of its own only for a tag that is missing. None is.
class Tags(dict[int, Callable[[Any, bool], object]]):
    def __missing__(self, tag: int) -> Callable[[Any, bool], object]:
        if tag in scan.STRUCTURAL_TAGS:
            raise ValueError(f"tag {tag} is not allowed")
        # Not kept: fifty thousand different tags would be fifty thousand functions for the garbage collector.
        return lambda value, immutable: cbor2.CBORTag(tag, value)


# Three for each job of a usual message.
_MOST_TAGS: Final = 100


# For parts that are cut on a guess. A call for each tag is most of what the worst messages cost, and these
# must not be decoded twice, or where a walk would do: parts with many tags are not for here.
class CutTags(Tags):
    left = 0  # of `_MOST_TAGS` in the parts at hand

    def __missing__(self, tag: int) -> Callable[[Any, bool], object]:
        self.left -= 1
        if self.left < 0:
            raise ValueError("many tags")
        return super().__missing__(tag)


# Likewise, where typed arrays are for others, too.
class _NoArrayTags(CutTags):
    def __missing__(self, tag: int) -> Callable[[Any, bool], object]:
        if tag in arrays.TYPED_ARRAYS:
            raise ValueError("a typed array")
        return super().__missing__(tag)


def _typed_array(value: Any, immutable: bool) -> object:
    return value if type(value) is bytes else cbor2.CBORTag(TYPED_ARRAY, value)


def _floats(tag: int) -> Callable[[Any, bool], object]:
    def decode(value: Any, immutable: bool) -> object:
        return arrays.as_array(tag, value) if arrays.is_whole(tag, value) else cbor2.CBORTag(tag, value)

    return decode


# What stands for a long list of floats while the library decodes the rest of a message. Nobody outside knows.
_GATHERED: Final = int.from_bytes(os.urandom(8), "big") | 1 << 63

# The engine passes all tags on. At the endpoints JavaScript's byte arrays are bytes.
ENGINE_TAGS: Final = Tags()
CUT_TAGS: Final = CutTags()
NO_ARRAY_TAGS: Final = _NoArrayTags()
ENDPOINT_TAGS: Final = Tags(
    {TYPED_ARRAY: _typed_array, _GATHERED: lambda items, immutable: arrays.unpack(items)}
)
ARRAY_TAGS: Final = Tags(
    {TYPED_ARRAY: _typed_array, _GATHERED: lambda items, immutable: arrays.doubles(items)}
    | {tag: _floats(tag) for tag in arrays.TYPED_ARRAYS}
)


# The library lets byte strings be keys. To join them refuses them at the speed of C.
def _text_keys(value: Mapping[Any, Any], immutable: bool) -> Mapping[Any, Any]:
    "".join(value)
    return value


def load(raw: bytes, tags: Tags) -> Any:
    """Decode exactly one item.

    Raises:
        DecodeError: outside profile or budget.
    """
    at_endpoint = tags is not ENGINE_TAGS
    walked = len(raw) > WALK_ABOVE
    if walked:
        scan.check(raw, budgets=_ENDPOINT_BUDGETS if at_endpoint else 1)
    given = raw
    mark, mark_item = _mark
    if at_endpoint:
        raw = arrays.gathered(raw, _GATHERED) or raw
    if walked:
        return load_proved(raw, tags)
    try:
        item, behind = cbor2.loads(
            _PAIR + raw + mark_item,
            max_depth=scan.MAX_DEPTH + 1,
            semantic_decoders=tags,
            object_hook=_text_keys,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
    except cbor2.CBORError as error:
        raise _refusal(given) from error
    if behind != mark:
        raise _refusal(given)
    return item


def load_proved(raw: bytes, tags: Tags) -> Any:
    """As `load`, for what has been walked, and had only what is as harmless put into it.

    Raises:
        DecodeError: a decoder of `tags` refused something.
    """
    try:
        return cbor2.loads(
            raw,
            max_depth=scan.MAX_DEPTH,
            semantic_decoders=tags,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
    except cbor2.CBORError as error:
        raise DecodeError("not decodable") from error


# The walk refuses what the library does, and says why in words that are fit for the peer, always the same
# ones. It is asked also where there are too few bytes: whether the library can make sense of what is left
# of the mark is chance.
def _refusal(raw: bytes) -> DecodeError:
    _forget_mark()
    scan.check(raw)
    return DecodeError("not decodable")


def load_parts(parts: Sequence[bytes | memoryview], *, depth: int, tags: CutTags) -> list[Any] | None:
    """Decode items that were cut apart on a guess; None if a guess was wrong, or if any is refused.

    All in one call, with a mark behind each: if every second item is a mark, every part is exactly one item.
    It costs 0.1 µs a part more than to decode the message that they come from.

    Args:
        parts: Of no more bytes or items than may be decoded unwalked.
        depth: How many containers each of them stands in.
        tags: How tags are decoded, if there are few.
    """
    mark, mark_item = _mark
    if tags.left != _MOST_TAGS:
        tags.left = _MOST_TAGS
    if len(parts) == 1:
        pieces = _PAIR, parts[0], mark_item
    else:
        pieces = head_of(ARRAY, 2 * len(parts)), mark_item.join(parts), mark_item
    try:
        loaded = cbor2.loads(
            b"".join(pieces),
            max_depth=scan.MAX_DEPTH + 1 - depth,
            semantic_decoders=tags,
            object_hook=_text_keys,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
    except cbor2.CBORError:
        _forget_mark()
        return None
    marks = loaded[1::2]
    if marks.count(mark) < len(marks):
        _forget_mark()
        return None
    items: list[Any] = loaded[::2]
    return items


def decode_item(raw: bytes, *, typed_arrays: bool = False) -> Any:
    """Decode one item at an endpoint: JavaScript's byte arrays become bytes, other tags stay opaque.

    Args:
        raw: One item.
        typed_arrays: Typed arrays and long lists of floats are to be arrays.

    Raises:
        DecodeError: outside profile or budget.
    """
    item = load(raw, ARRAY_TAGS if typed_arrays else ENDPOINT_TAGS)
    if typed_arrays and type(item) in (dict, list):
        arrays.pack_lists(item)
    return item


def is_absent(value: Any) -> bool:
    """Whether a field of this value might as well not be there: it is null, or JavaScript's `undefined`."""
    return value is None or value is cbor2.undefined

"""Large images are not copied: they stay where they came, and a request holds views of its own message.

The library copies every byte string. Of a request with an image of 1 MB that is all that decoding costs, and
the engine does nothing with an image but write it to a file. The walk over a large message steps over byte
strings anyway, so it notes where they stand; what the library then decodes is the message without them, with
a tag of a secret number in place of each, and the decoder of that tag gives the view.

**Where a view may be.** In ``data`` of the members of ``resources`` of a ``worker_request``, nowhere else:
these are the only places that the walk notes. All other byte strings of any size are `bytes`, so whoever
compares, hashes, encodes or shows a value never meets a view. `Resource` knows both.

**The number.** Nobody outside knows it, and nobody needs to: there are as many tags as images, and one more,
as in a message of somebody who had guessed it, is refused.

**What is kept.** A view keeps its whole message alive, for as long as its request waits for a slow disk. So a
message whose images are less than three quarters of it is decoded as any other. Then what waits is a third
more than its files at most, and these count against the quota of the store; and while a request is decoded,
it is in memory once, not twice.

Rejected: views of texts, too (a document is encoded anew: it would have to be told from bytes that are no
text); views wherever large byte strings stand, turned into bytes where they are unwelcome (every consumer
would have to know, and one that forgot would send nothing or a list of numbers).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from orbtrio.protocol.decoding import ENGINE_TAGS, Tags, load, load_proved
from orbtrio.protocol.heads import ARRAY, BYTES, MAP, TAG, TEXT, argument, head_of
from orbtrio.protocol.references import TYPED_ARRAY
from orbtrio.protocol.scan import Scanner, decode_error

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LARGE_IMAGE", "load_message"]

# To cut out an image takes as long as to copy one of 100 KB.
LARGE_IMAGE: Final = 128 * 1024

_REQUEST: Final = b"worker_request"
_BYTE_ARRAY: Final = head_of(TAG, TYPED_ARRAY)  # which JavaScript puts before its byte strings

_PLACE: Final = int.from_bytes(os.urandom(8), "big") | 1 << 63
_PLACE_ITEM: Final = head_of(TAG, _PLACE) + b"\xf6"


def load_message(raw: bytes) -> Any:
    """Decode one message as the engine does, large images as views of it.

    Args:
        raw: One whole message.

    Returns:
        As `decoding.load`, but for ``data`` of resources, where a byte string, also one of JavaScript's, may
        be a `memoryview` of `raw`.

    Raises:
        DecodeError: outside profile or budget.
    """
    if len(raw) <= LARGE_IMAGE:
        return load(raw, ENGINE_TAGS)
    found = list(_images(raw, _places(raw)))
    if 4 * sum(end - begin for _, begin, end in found) < 3 * len(raw):
        return load_proved(raw, ENGINE_TAGS)
    view = memoryview(raw)
    pieces: list[bytes | memoryview] = []
    images: list[memoryview] = []
    at = 0
    for start, begin, end in found:
        pieces += (view[at:start], _PLACE_ITEM)
        images.append(view[begin:end])
        at = end
    images.reverse()
    tags = Tags({_PLACE: lambda value, immutable: images.pop()})
    return load_proved(b"".join([*pieces, view[at:]]), tags)


# Prove a message, as `scan.check` does; where ``data`` of its resources begins and ends if that is large.
def _places(raw: bytes) -> list[tuple[int, int]]:
    scanner = Scanner(raw)
    places: list[tuple[int, int]] = []
    is_request = False
    keys: set[bytes] = set()
    try:
        if scanner.major() != MAP:
            scanner.skip(0)
        else:
            for _ in range(scanner.argument()):
                key, major = scanner.key(keys), scanner.major()
                if key == b"type" and major == TEXT:
                    is_request = scanner.text() == _REQUEST
                elif key == b"resources" and major == ARRAY:
                    for _ in range(scanner.argument()):
                        _step_over(scanner, places)
                else:
                    scanner.skip(1)
        scanner.finish()
    except (IndexError, UnicodeDecodeError) as error:
        raise decode_error(error) from None
    return places if is_request else []


# A key costs 12 units here, not 4 as in `check`: 15,600 resources of three small fields fit, not 25,000.
def _step_over(scanner: Scanner, places: list[tuple[int, int]]) -> None:
    scanner.open()  # also what is no map: each is a step of its own here, not one of a run
    if scanner.major() != MAP:
        scanner.skip(2)
        return
    keys: set[bytes] = set()
    for _ in range(scanner.argument()):
        key, start = scanner.key(keys), scanner.at
        scanner.skip(3)
        if key == b"data" and scanner.at - start > LARGE_IMAGE:
            places.append((start, scanner.at))


# Those that are byte strings: where the item starts, where its bytes begin, and where they end.
def _images(raw: bytes, places: list[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    for start, end in places:
        at = start + len(_BYTE_ARRAY) if raw.startswith(_BYTE_ARRAY, start) else start
        if raw[at] & 0xE0 == BYTES:
            yield start, argument(raw, at)[1], end

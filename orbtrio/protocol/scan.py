"""A walk over CBOR bytes that proves them harmless without building anything from them.

Two users, one walk. A large message is walked before it is decoded, because a few megabytes of empty maps decode to gigabytes: `check`.
A large ``worker_output`` is walked *instead* of being decoded, for the engine only passes the entries on: `split_output`
cuts the bytes at the entries' borders. 768 floats cost 4 µs this way against 70 µs through the decoder and back.

What the walk accepts, the codec's decoder accepts too (a property test holds the two together): definite lengths, text keys, each once
per map, valid UTF-8, at most 64 levels, no structural tags, one item and nothing behind it. It is pure Python and so slower than
the decoder on many small items. It wins where one step covers many bytes: a long string is one step, and so is a run of numbers
of one width, whose heads are compared through a strided slice.

**The budget.** Every message may cost `MAX_WORK` units to walk, decode and encode again. A unit stands for about 1/8 µs or 64 bytes of memory:

===================================  =======  =========================================================================
an item within a run of numbers      1        24 bytes and a pointer each; 0.1 µs to decode and encode
any other item                       4        the walk's own step, about 0.3 µs
a container or a tag                 16       a dict is 64 bytes empty, 184 with a key; a tag is a call into Python
64 bytes of strings                  1        as decoded: one character out of the ordinary makes a str four times as large
===================================  =======  =========================================================================

A million units admit a thousand vectors of 768 numbers, a thousand lists of ten detections, 32 MiB of images, and end after
some 120 ms. Rejected: a limit per kind of item (seven numbers to defend instead of one), and limits on message size alone (a byte can
cost 3 ns or 1 µs).
"""

from __future__ import annotations

from sys import getsizeof
from typing import Final

from orbtrio.errors import DecodeError

__all__ = ["MAX_DEPTH", "MAX_WORK", "check", "split_output"]

# Levels of maps, arrays and tags. The spec's own messages have 8; recursion elsewhere must be safe from the network.
MAX_DEPTH: Final = 64

MAX_WORK: Final = 1_000_000

# Shared references and string references turn a few bytes into gigabytes, or cycles, wherever the value is walked later.
STRUCTURAL_TAGS: Final = frozenset({25, 28, 29, 256})

_RUN_ITEM: Final = 1
_ITEM: Final = 4
_CONTAINER: Final = 12  # on top of _ITEM

# Initial bytes by major type: 0x00 unsigned, 0x20 negative, 0x40 bytes, 0x60 text, 0x80 array, 0xa0 map, 0xc0 tag, 0xe0 other.
# The low five bits are the argument itself below 24, or say in how many bytes it follows.


def _widths() -> tuple[int, ...]:
    widths = [0] * 256
    for major in (0x00, 0x20):
        widths[major : major + 28] = [1] * 24 + [2, 3, 5, 9]
    widths[0xE0:0xF8] = [1] * 24
    widths[0xF9:0xFC] = [3, 5, 9]
    return tuple(widths)


# Size of the whole item, for the items that are numbers or simple values and nothing else; 0 means look closer.
_WIDTH: Final = _widths()

# All initial bytes of one width: a run may mix integers and floats.
_ALIKE: Final = {
    width: bytes(head for head in range(256) if _WIDTH[head] == width) for width in (1, 2, 3, 5, 9)
}

# Below this a run is not worth its slice. Above the upper one the slice itself would cost more than a step may.
_SHORTEST_RUN: Final = 8
_LONGEST_RUN: Final = 1024


def check(raw: bytes) -> None:
    """Prove that `raw` is one CBOR item within profile and budget.

    Raises:
        DecodeError: it is not. Decoding it might have been expensive.
    """
    try:
        end, _ = _walk(raw, 0, 0, MAX_WORK)
    except IndexError:
        raise DecodeError("ends too early") from None
    except UnicodeDecodeError:
        raise DecodeError("text is not UTF-8") from None
    if end != len(raw):
        raise DecodeError("bytes behind the message")


def split_output(raw: bytes, *, longest_error: int) -> list[tuple[str, bytes]] | None:
    """Cut a ``worker_output`` into its entries, each with the job id that it names.

    Args:
        raw: A whole message.
        longest_error: An entry with an ``error`` may have this many bytes; beyond, the text may need cutting.

    Returns:
        None if the message is something else, unusual in any way, or so fine-grained that decoding is faster. Nothing is wrong
        with it then, or nothing that the decoder would not find.
    """
    try:
        return _split_output(raw, longest_error)
    except (_Unusual, DecodeError, IndexError, UnicodeDecodeError):
        return None


class _Unusual(Exception):
    """Leave this one to the decoder."""


def _split_output(raw: bytes, longest_error: int) -> list[tuple[str, bytes]]:
    work = MAX_WORK
    entries: list[tuple[str, bytes]] = []
    seen: set[str] = set()
    fields, at = _count(raw, 0, 0xA0)
    for _ in range(fields):
        name, at = _text(raw, at)
        if name in seen:
            raise _Unusual
        seen.add(name)
        if name == "type":
            message_type, at = _text(raw, at)
            if message_type != "worker_output":
                raise _Unusual
        elif name == "output":
            count, at = _count(raw, at, 0x80)
            for _ in range(count):
                start, before = at, work
                job_id, at, work = _entry(raw, at, work, longest_error)
                # Where a step covers fewer than 40 bytes the decoder's own speed wins.
                if before - work > _ITEM * (8 + (at - start) // 40):
                    raise _Unusual
                entries.append((job_id, raw[start:at]))
        elif "type" in seen:
            at, work = _walk(raw, at, 1, work)
        else:
            # Most likely some other message: do not walk it here only to walk it again in `check`.
            raise _Unusual
    if at != len(raw) or not seen.issuperset(("type", "output")):
        raise _Unusual
    return entries


# One entry of an output: its id, where it ends, the work left.
def _entry(raw: bytes, at: int, work: int, longest_error: int) -> tuple[str, int, int]:
    start = at
    job_id = None
    seen: set[str] = set()
    fields, at = _count(raw, at, 0xA0)
    for _ in range(fields):
        name, at = _text(raw, at)
        if name in seen:
            raise _Unusual
        seen.add(name)
        if name == "id":
            job_id, at = _text(raw, at)
        else:
            at, work = _walk(raw, at, 3, work)
    if job_id is None or (at - start > longest_error and "error" in seen):
        raise _Unusual
    return job_id, at, work


# The number of members of the array or map at `at`, and where the first one starts.
def _count(raw: bytes, at: int, major: int) -> tuple[int, int]:
    info = raw[at] - major
    if 0 <= info < 24:
        return info, at + 1
    if 24 <= info < 28:
        start = at + 1
        at = start + (1 << (info - 24))
        return int.from_bytes(raw[start:at], "big"), at
    raise _Unusual


# The text at `at`, and where it ends.
def _text(raw: bytes, at: int) -> tuple[str, int]:
    head = raw[at]
    if 0x60 <= head < 0x78:
        start = at + 1
        end = start + head - 0x60
    else:
        length, start = _count(raw, at, 0x60)
        end = start + length
    return raw[start:end].decode(), end


def _walk(raw: bytes, at: int, depth: int, work: int) -> tuple[int, int]:
    """Prove the item at `at`, which stands inside `depth` containers.

    Returns:
        Where it ends, and the work left.

    Raises:
        DecodeError: outside the profile or the budget.
        IndexError: the bytes end inside the item.
        UnicodeDecodeError: text that is not UTF-8.
    """
    end = len(raw)
    width_of = _WIDTH
    left = 1  # members still to come in the innermost open container
    keys: set[bytes] | None = None  # its keys so far; None if it is no map
    stack: list[tuple[int, set[bytes] | None]] = []
    while True:
        while not left:
            if not stack:
                if at > end:
                    raise IndexError
                return at, work
            left, keys = stack.pop()
        head = raw[at]
        if keys is not None:
            # Compared as bytes: equal text has equal UTF-8, whichever way its length is written.
            if 0x60 <= head < 0x78:
                start = at + 1
                at = start + head - 0x60
            elif 0x78 <= head < 0x7C:
                start = at + 1 + (1 << (head - 0x78))
                at = start + int.from_bytes(raw[at + 1 : start], "big")
            else:
                raise DecodeError("expected text as the key of a map")
            key = raw[start:at]
            if key in keys:
                raise DecodeError("the same key twice in a map")
            if not key.isascii():
                key.decode()
            keys.add(key)
            work -= _ITEM + (at - start) // 64
            head = raw[at]
        work -= _ITEM
        if work < 0:
            raise DecodeError("too complex")
        width = width_of[head]
        if width:
            if left < _SHORTEST_RUN or keys is not None:
                at += width
                left -= 1
            else:
                column = raw[at : at + width * min(left, _LONGEST_RUN) : width]
                run = len(column) - len(column.lstrip(_ALIKE[width]))
                at += width * run
                left -= run
                work -= _RUN_ITEM * run
            continue
        left -= 1
        info = head & 31
        if info < 24:
            argument = info
            at += 1
        elif info < 28:
            start = at + 1
            at = start + (1 << (info - 24))
            argument = int.from_bytes(raw[start:at], "big")
        else:
            raise DecodeError("indefinite length or reserved head")
        major = head >> 5
        if major == 3:
            start = at
            at += argument
            text = raw[start:at]
            # Decoded, text takes 1, 2 or 4 bytes for each character, as its rarest character needs.
            work -= (argument if text.isascii() else getsizeof(text.decode())) // 64
        elif major == 2:
            at += argument
            work -= argument // 64
        elif major == 7:
            # Only f8 comes here; its values below 32 have a shorter form, and no other is allowed.
            if argument < 32:
                raise DecodeError("reserved simple value")
        else:
            if major == 6:
                if argument in STRUCTURAL_TAGS:
                    raise DecodeError(f"tag {argument} is not allowed")
                count, inner = 1, None
            elif major == 5:
                count, inner = argument, set()
            else:
                count, inner = argument, None
            if count > end - at:
                raise IndexError
            stack.append((left, keys))
            if depth + len(stack) > MAX_DEPTH:
                raise DecodeError(f"more than {MAX_DEPTH} levels")
            left, keys = count, inner
            work -= _CONTAINER

"""Small results cut where they end: what the engine only passes on, it does not encode anew.

A worker's entry goes to a client as it came, unchanged to the last bit. Where each entry ends is *guessed*,
by one search for the bytes with which all of them begin in nearly all messages. A wrong guess is no danger,
for the decoder then proves it: it is given the parts, each with a mark behind it that nobody outside knows
(`decoding.load_parts`). If it refuses anything, or if the message is of no form that is known here, the
answer is None, and what follows is what is done for any other message: `scan` walks and cuts it. So no rule
stands here, and no reason for a refusal. `cut_requests` does likewise for inputs.

**Forms.** Encoders write the same message in a few ways: with short heads of maps (Python, Go, Rust) or long
ones (JavaScript's cbor-x), and with the type first or, sorted, last. An entry may name its id first or last.

**Which results.** Of an entry with an id and a text of 100 bytes the walk takes 2.1 µs, this 1.1; of ten
detections the walk takes 24 µs, this 11; but of a vector of 768 floats the decoder takes 30 µs and the walk
5. What is cheaper does not depend on the size, but on whether most of it is long lists of numbers, and one
look at the first entry now and then says so: the results of a worker are alike.

**Bad luck.** A guess that the decoder refuses has cost as much as the message itself. So whoever's messages
make guesses fail is spared them for a while, and longer each time: `Luck`.

Rejected: the walk made faster for maps of a few fields (1.8 µs, and every rule stood twice); a regular
expression for the guess (0.5 µs more); and one look at all keys of all parts, behind the decoder, in place of
its call for each map (0.1 µs less, if no part holds a container).
"""

from __future__ import annotations

from typing import Final, TypeAlias

from orbtrio.protocol.decoding import CUT_TAGS, NO_ARRAY_TAGS, WALK_ABOVE, load_parts
from orbtrio.protocol.heads import ARRAY, MAP, argument
from orbtrio.protocol.scan import ALIKE, ENTRY_DEPTH, WIDTH

__all__ = ["OUTPUTS", "PAIR", "PROGRESS", "Form", "Luck", "cut_entries", "members_of"]

# What stands before the array of a message's parts, and what behind it.
Form: TypeAlias = tuple[bytes, bytes]

# The head of a map of two fields, as nearly all write it, and as cbor-x does.
PAIR: Final = (b"\xa2", b"\xb9\x00\x02")


def _forms(kind: bytes, field: bytes) -> tuple[Form, ...]:
    return *[(pair + kind + field, b"") for pair in PAIR], *[(pair + field, kind) for pair in PAIR]


OUTPUTS: Final = _forms(b"\x64type\x6dworker_output", b"\x66output")
PROGRESS: Final = _forms(b"\x64type\x6fworker_progress", b"\x68progress")

# Larger entries, on average, are for the walk.
_LARGEST: Final = 4096

# In smaller entries there is nothing that the walk would be better at.
_MAY_BE_NUMBERS: Final = 200

# After numbers, so many messages are not looked at: of single vectors the look takes a third of the walk.
_MORE_NUMBERS: Final = 7

# All ids of one engine begin with the same 16 bytes, and have two and more behind them.
_ID: Final = b"\x62id"
_ALIKE: Final = len(_ID) + 1 + 16

_EMPTY: Final = bytes((ARRAY,))
_LONG: Final = bytes((ARRAY + 24,))


class Luck:
    """How guesses about the messages of one peer went.

    After one that failed, some are not made; after each further one twice as many, up to 63. So whoever makes
    all of them fail pays for one in 64.

    Attributes:
        left: How many more are not made; some also where it is plain that another way is better.
        pause: How many were not, after the last that failed; halved by each that was good.
    """

    __slots__ = ("left", "pause")

    def __init__(self) -> None:
        self.left = self.pause = 0

    def lost(self) -> None:
        """A guess failed after it had cost something."""
        self.left = self.pause = min(2 * self.pause + 1, 63)

    def won(self) -> None:
        """A guess was good; to be called if there is a pause."""
        self.pause >>= 1


def cut_entries(
    raw: bytes, forms: tuple[Form, ...], luck: Luck, *, typed_arrays: bool = False
) -> tuple[list[tuple[str, bytes]], list[int], int] | None:
    """The entries of a ``worker_output``, or a message like it, if this can find them, and all are good.

    Args:
        raw: One message.
        forms: Its forms.
        luck: Of the peer.
        typed_arrays: Entries with typed arrays are not for here.

    Returns:
        As `scan.split_entries`.
    """
    if len(raw) > WALK_ABOVE:
        return None
    for form in forms:
        if raw.startswith(form[0]):
            break
    else:
        return None
    before, behind = form
    if behind:
        if not raw.endswith(behind):
            return None
        raw = raw[: -len(behind)]
    if luck.left:
        luck.left -= 1
        return None
    members, start = members_of(raw, len(before))
    size = len(raw)
    if members < 1 or size > _LARGEST * members or start >= size:
        return None
    if size > _MAY_BE_NUMBERS * members and _is_numbers(raw[start : start + size // members]):
        luck.left = _MORE_NUMBERS
        return None
    if members == 1:
        parts = [raw[start:]]
    else:
        parts = _entries(raw, start, members)
        if not parts:
            luck.lost()
            return None
    values = load_parts(parts, depth=ENTRY_DEPTH, tags=NO_ARRAY_TAGS if typed_arrays else CUT_TAGS)
    if values is None:
        luck.lost()
        return None
    entries: list[tuple[str, bytes]] = []
    failed: list[int] = []
    for part, fields in zip(parts, values, strict=True):
        if type(fields) is not dict or type(job_id := fields.get("id")) is not str:
            luck.lost()
            return None
        if "error" in fields:
            failed.append(len(entries))
        entries.append((job_id, part))
    if luck.pause:
        luck.won()
    return entries, failed, 0


# The entries, if there are as many places that look like the beginning of the first; else none.
def _entries(raw: bytes, start: int, members: int) -> list[bytes]:
    key = start + 1 if raw[start] < MAP + 24 else start + 3
    is_id = raw.startswith(_ID, key)
    # A map's head and its first key are enough where that is a name.
    stop = key + _ALIKE if is_id else key + 1 + (raw[key : key + 1] or b"\x00")[0] % 32
    alike = raw[start:stop]
    before, *rests = raw.split(alike)
    if len(before) == start and len(rests) == members:
        return [alike + rest for rest in rests]
    # Some have more fields than others. So what is alike begins behind the map's head.
    alike = raw[key:stop]
    rests = raw.split(alike) if is_id else []
    if len(rests) != members + 1 or len(rests[0]) != key:
        return []
    head = start - key
    before, *rests = rests
    last = rests.pop()
    parts = []
    for rest in rests:
        parts.append(before[head:] + alike + rest[:head])
        before = rest
    parts.append(before[head:] + alike + last)
    return parts


# Whether an entry, or nearly all of one, is mostly long lists of numbers. A walk takes 0.8 µs for a list, and
# 0.1 µs more than the decoder for 12 bytes of anything else; the decoder takes 0.045 µs for a number.
def _is_numbers(entry: bytes) -> bool:
    at, numbers, others = 0, 0, len(entry)
    for _ in range(8):
        short, long = entry.find(b"\x98", at), entry.find(b"\x99", at)
        at = (long if short < 0 or 0 <= long < short else short) + 1
        if not at:
            break
        start = at + entry[at - 1] - 0x97
        number = int.from_bytes(entry[at:start], "big")
        width = WIDTH[entry[start]] if start < len(entry) else 0
        heads = entry[start : start + width * number : width] if width else b""
        if heads == heads[:1] * len(heads) or not heads.strip(ALIKE[width]):
            numbers += len(heads)
            others -= width * len(heads)
            at = start + width * len(heads)
            if 5 * numbers > others + 235:
                return True
    return False


def members_of(raw: bytes, at: int) -> tuple[int, int]:
    """The number of members of an array, and where they begin; -1 if it is no array."""
    head = raw[at : at + 1]
    if _EMPTY < head < _LONG:
        return head[0] - ARRAY, at + 1
    return argument(raw, at) if head and head[0] & 0xE0 == ARRAY else (-1, at)

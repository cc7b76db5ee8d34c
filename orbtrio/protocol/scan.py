"""A walk over CBOR bytes that proves them harmless without building anything from them.

One walk, for three purposes. A large message is walked before it is decoded, for a few megabytes of empty
maps decode to gigabytes: `check`. A ``worker_output`` of large entries, or of any odd form, is walked
*instead* of being decoded, for the engine only passes its entries on: `split_entries` cuts the bytes where
the entries end. A vector of 768 floats costs 5 µs this way, against 60 µs through the decoder and the
encoder, and arrives unchanged to the last bit. And what our own programs send is walked first.

The walk accepts what the codec's decoder accepts, no more and no less, and property tests hold the two
together: definite lengths, text keys, each once in its map, valid UTF-8, at most 64 levels, no structural
tags, one item and nothing behind it. That is what makes it safe to pass on what was never decoded: a peer
whose decoder is as strict as ours would close the connection over an entry that our walk let through.

It is plain Python. It wins where one step covers many bytes: a long string is one step, and so is a run of
numbers of one width, whose first bytes are compared as a strided slice. Small items cost twice what
the decoder takes for them, so small results are not for here: see `cut`.

**The budget.** A message may cost `MAX_WORK` units, so that no message of whatever size holds up the engine
for long. A unit stands for about 1/8 µs of walking, decoding and encoding, or for 64 bytes of memory:

===========================  =====  ========================================================================
number in a run of them      1      0.1 µs to decode and encode; 32 bytes
any other item, also a key   4      the walk's own step
container, tag, simple value +12    a small dict takes 184 bytes; each tag calls from the decoder into Python
64 bytes of string           +1     twice that for what is not ASCII, as decoded: one rare character makes a
                                    str four times as large as its UTF-8
===========================  =====  ========================================================================

Rejected: a limit for each kind of item (many numbers to defend instead of one), and limits on size alone (a
byte costs anything from a nanosecond to a microsecond).
"""

from __future__ import annotations

from sys import getsizeof
from typing import Final

from orbtrio.errors import DecodeError
from orbtrio.protocol.arrays import TYPED_ARRAYS, Place, typed_entry

__all__ = [
    "ALIKE",
    "ENTRY_DEPTH",
    "MAX_DEPTH",
    "MAX_WORK",
    "STRUCTURAL_TAGS",
    "WIDTH",
    "Scanner",
    "check",
    "decode_error",
    "split_entries",
]

# Levels of maps, arrays and tags around anything, as the decoder counts them. The spec's messages have eight;
# whoever walks values later may recurse.
MAX_DEPTH: Final = 64
ENTRY_DEPTH: Final = 3  # of a worker's entry: not 2, as in its message, but as in ``worker_responses``

# Admits a thousand vectors of 768 numbers, a thousand lists of ten detections, or 32 MiB of images.
MAX_WORK: Final = 1_000_000

# References to earlier values turn a few bytes into gigabytes, or into cycles, for whoever walks them later.
STRUCTURAL_TAGS: Final = frozenset({25, 28, 29, 256})

_TOO_COMPLEX: Final = "too complex: too many items for one message"
_RUN_ITEM: Final = 1
_ITEM: Final = 4
_CONTAINER: Final = 12
_BYTES_PER_UNIT: Final = 64

# The first byte of an item: its major type in the upper three bits; in the lower five its argument if below
# 24, else where the argument stands: 24 in the next byte, 25, 26, 27 in the next two, four, eight.
_BYTES: Final = 0x40
_TEXT: Final = 0x60
_ARRAY: Final = 0x80
_MAP: Final = 0xA0
_TAG: Final = 0xC0
_OTHER: Final = 0xE0  # floats; false, true, null, undefined; and simple values that have no meaning yet
_UNDEFINED: Final = 0xF7


def _widths() -> tuple[int, ...]:
    widths = [0] * 256
    for integers in (0x00, 0x20):
        widths[integers : integers + 28] = [1] * 24 + [2, 3, 5, 9]
    widths[0xF4 : _UNDEFINED + 1] = [1] * 4
    widths[0xF9:0xFC] = [3, 5, 9]  # floats
    return tuple(widths)


# By first byte: the size of the whole item if it is a number, false, true, null or undefined; 0: look closer.
WIDTH: Final = _widths()

# By width: the first bytes of all such items. A run may mix integers with floats.
ALIKE: Final = {
    width: bytes(head for head in range(256) if WIDTH[head] == width) for width in (1, 2, 3, 5, 9)
}

# A shorter run is not worth its slice. A longer one is taken in pieces: where a run breaks off the rest of
# the slice is wasted, and nobody may be able to make a step cost much more than it is charged for.
_SHORTEST_RUN: Final = 8
_LONGEST_RUN: Final = 256


def check(raw: bytes, *, depth: int = 0, budgets: int = 1) -> None:
    """Prove that `raw` is one CBOR item within profile and budget.

    Args:
        raw: One item.
        depth: The number of containers that it stands in, or will.
        budgets: How many it may use up; of a batch each job had one.

    Raises:
        DecodeError: it is not. Decoding it might have been expensive.
    """
    scanner = Scanner(raw, budgets)
    try:
        scanner.skip(depth)
        scanner.finish()
    except (IndexError, UnicodeDecodeError) as error:
        raise decode_error(error) from None


def split_entries(
    raw: bytes, message_type: str, field: str, *, typed_arrays: bool = False
) -> tuple[list[tuple[str, bytes]], list[int], int] | None:
    """Cut a ``worker_output``, or a message like it, into its entries. All of it is proved, as by `check`.

    Args:
        raw, message_type, field: One message, what it should be, and where its entries are.
        typed_arrays: Entries with typed arrays are `TypedEntry`; tags of theirs on anything but numbers make
            an entry malformed. Otherwise these are tags like any other.

    Returns:
        The good entries, each with the job id that it names; the indexes of those that have an ``error``;
        the number of malformed ones. None if it is of another type, or has no list of entries.

    Raises:
        DecodeError: outside profile or budget.
    """
    scanner = Scanner(raw)
    scanner.typed = [] if typed_arrays else None
    try:
        return _split_entries(scanner, message_type.encode(), field.encode())
    except (IndexError, UnicodeDecodeError) as error:
        raise decode_error(error) from None


def decode_error(error: IndexError | UnicodeDecodeError) -> DecodeError:
    """What Python itself reports where an item runs past the end, or where its text is broken."""
    return DecodeError("ends too early" if isinstance(error, IndexError) else "text that is not UTF-8")


def _split_entries(
    scanner: Scanner, message_type: bytes, field: bytes
) -> tuple[list[tuple[str, bytes]], list[int], int] | None:
    raw, typed = scanner.raw, scanner.typed
    entries: list[tuple[str, bytes]] = []
    failed: list[int] = []
    members: int | None = None
    is_of_type = False
    keys: set[bytes] = set()
    if scanner.major() != _MAP:
        return None
    for _ in range(scanner.argument()):
        key = scanner.key(keys)
        major = scanner.major()
        if key == b"type" and major == _TEXT:
            if scanner.text() != message_type:
                return None
            is_of_type = True
        elif key == field:
            if major != _ARRAY:
                return None
            members = scanner.argument()
            for _ in range(members):
                # Not only what the item costs, but also the look for its id.
                scanner.work -= _CONTAINER
                start = scanner.at
                scanner.skip(ENTRY_DEPTH)
                if scanner.keys is None:
                    continue
                job_id = _job_id(raw, start, scanner)
                if job_id is None:
                    continue
                entry = typed_entry(raw, start, scanner.at, typed) if typed else raw[start : scanner.at]
                if entry is None:
                    continue
                if b"error" in scanner.keys:
                    failed.append(len(entries))
                entries.append((job_id, entry))
        else:
            scanner.skip(depth=1)
    scanner.finish()
    if not is_of_type or members is None:
        return None
    return entries, failed, members - len(entries)


# The job id that a map names, which is proved, begins at `start`, and was skipped last.
def _job_id(raw: bytes, start: int, skipped: Scanner) -> str | None:
    # Nearly always `id` is short text.
    if skipped.id_at:
        at = skipped.id_at
        length = raw[at] - _TEXT
        if 0 <= length < 24:
            return raw[at + 1 : at + 1 + length].decode()
        if length == 24:  # the engine's own, from its ten-millionth job on
            return raw[at + 2 : at + 2 + raw[at + 1]].decode()
    scanner = Scanner(raw[start : skipped.at])
    ids: dict[bytes, str | None] = {}
    for _ in range(scanner.argument()):
        key = scanner.text()
        if key == b"id" or key == b"job_id":
            if scanner.major() == _TEXT:
                ids[key] = scanner.text().decode()
                continue
            if scanner.raw[scanner.at] != _UNDEFINED:
                ids[key] = None
        scanner.skip(depth=0)
    # The spec asks for `id`. But its own workers read ids from either field, so some will write the other.
    return ids.get(b"id", ids.get(b"job_id"))


class Scanner:
    """A position in a message, and what is left of its budget.

    The methods raise DecodeError for what profile or budget forbid, IndexError where an item runs past the
    end, and UnicodeDecodeError. One that steps past the end says nothing; the next one, or `finish`, does.
    """

    __slots__ = ("at", "id_at", "keys", "raw", "typed", "work")

    def __init__(self, raw: bytes, budgets: int = 1) -> None:
        self.raw = raw
        self.at = 0
        self.work = budgets * MAX_WORK
        self.keys: set[bytes] | None = None  # of the item skipped last, if it was a map
        self.id_at = 0  # where the value of its `id` stands, if it has one
        self.typed: list[Place] | None = None  # of the typed arrays so far, if they are of interest

    def finish(self) -> None:
        """Prove that the message ends here."""
        if self.work < 0:
            raise DecodeError(_TOO_COMPLEX)
        if self.at != len(self.raw):
            raise IndexError if self.at > len(self.raw) else DecodeError("bytes behind the message")

    def open(self) -> None:
        """Pay for what is looked at on its own: as for a container."""
        self.work -= _ITEM + _CONTAINER
        if self.work < 0:
            raise DecodeError(_TOO_COMPLEX)

    def major(self) -> int:
        """The major type of the next item."""
        return self.raw[self.at] & 0xE0

    def argument(self) -> int:
        """Step over the head of the next item; its argument."""
        info = self.raw[self.at] & 0x1F
        start = self.at + 1
        if info < 24:
            self.at = start
            return info
        if info < 28:
            self.at = start + (1 << info - 24)
            return int.from_bytes(self.raw[start : self.at], "big")
        raise DecodeError("indefinite length or reserved head")

    def text(self) -> bytes:
        """Step over a text; its UTF-8, proved."""
        length = self.argument()
        start = self.at
        self.at += length
        text = self.raw[start : self.at]
        self.work -= _weight(text)
        return text

    def key(self, keys: set[bytes]) -> bytes:
        """Step over a key that is not among `keys` yet, and add it."""
        if not _TEXT <= self.raw[self.at] < _TEXT + 28:
            raise DecodeError("a key that is no text")
        key = self.text()
        if key in keys:
            raise DecodeError("the same key twice in a map")
        keys.add(key)
        # All these small steps cost several of those in `skip`.
        self.work -= _CONTAINER
        return key

    def skip(self, depth: int) -> None:
        """Step over the next item, which stands inside `depth` containers, and prove all of it.

        One loop with a stack of its own, and all state in locals, for this is where the time goes.
        """
        raw, at, work = self.raw, self.at, self.work
        self.keys = None
        self.id_at = 0
        width_of = WIDTH
        left = 1  # what is still to come in the innermost open container: items, or pairs if it is a map
        keys: set[bytes] | None = None  # the keys of that map so far; None if it is no map
        inner: set[bytes] | None
        outer: list[tuple[int, set[bytes] | None]] = []
        while True:
            while not left:
                if not outer:
                    self.at, self.work = at, work
                    return
                left, keys = outer.pop()
            if keys is not None:
                # A key, and then its value like any other item.
                head = raw[at]
                if _TEXT <= head < _TEXT + 24:
                    start = at + 1
                    at = start + head - _TEXT
                elif _TEXT + 24 <= head < _TEXT + 28:
                    start = at + 1 + (1 << head - _TEXT - 24)
                    at = start + int.from_bytes(raw[at + 1 : start], "big")
                else:
                    raise DecodeError("a key that is no text")
                # Equal texts have equal UTF-8, in however many bytes their lengths are written.
                key = raw[start:at]
                if key in keys:
                    raise DecodeError("the same key twice in a map")
                keys.add(key)
                if key == b"id" and keys is self.keys:
                    self.id_at = at
                work -= _ITEM + ((at - start) // _BYTES_PER_UNIT if key.isascii() else _weight(key))
            work -= _ITEM
            if work < 0:
                raise DecodeError(_TOO_COMPLEX)
            head = raw[at]
            width = width_of[head]
            if width:
                if left < _SHORTEST_RUN or keys is not None:
                    at += width
                    left -= 1
                else:
                    heads = raw[at : at + width * min(left, _LONGEST_RUN) : width]
                    run = len(heads)
                    if heads != raw[at : at + 1] * run:
                        run -= len(heads.lstrip(ALIKE[width]))
                    at += width * run
                    left -= run
                    work -= _RUN_ITEM * run
                continue
            left -= 1
            info = head & 0x1F
            at += 1
            if info < 24:
                argument = info
            elif info == 24:
                argument = raw[at]
                at += 1
            elif info < 28:
                start = at
                at += 1 << info - 24
                argument = int.from_bytes(raw[start:at], "big")
            else:
                raise DecodeError("indefinite length or reserved head")
            major = head & 0xE0
            if major == _TEXT:
                start = at
                at += argument
                text = raw[start:at]
                work -= argument // _BYTES_PER_UNIT if text.isascii() else _weight(text)
            elif major == _BYTES:
                at += argument
                work -= argument // _BYTES_PER_UNIT
            elif major == _OTHER:
                # Simple values without a meaning. In a byte of their own (f8) they start at 32.
                if info == 24 and argument < 32:
                    raise DecodeError("reserved simple value")
                work -= _CONTAINER
            else:
                members, inner = argument, None
                if major == _MAP:
                    inner = set()
                elif major == _TAG:
                    if argument in STRUCTURAL_TAGS:
                        raise DecodeError(f"tag {argument} is not allowed")
                    if argument in TYPED_ARRAYS and self.typed is not None:
                        self.typed.append((argument, at - 1 - (1 << info - 24), at))
                    members = 1
                if not outer:
                    self.keys = inner
                work -= _CONTAINER
                if members:
                    outer.append((left, keys))
                    if depth + len(outer) > MAX_DEPTH:
                        raise DecodeError(f"more than {MAX_DEPTH} levels")
                    left, keys = members, inner


# What a text costs beyond being an item. Decoded, each of its characters takes 1, 2 or 4 bytes, as its rarest
# needs, and while it is being decoded there are two of it.
def _weight(text: bytes) -> int:
    return (len(text) if text.isascii() else 2 * getsizeof(text.decode())) // _BYTES_PER_UNIT

"""Inputs cut out of requests: what the engine only passes on, it does not encode anew.

A client's input goes to a worker as it came, unchanged to the last bit. As in `cut`, where each input ends is
guessed, the decoder proves it, and what is of no form that is known here, or refused, is decoded as any other
message: `codec`. The engine looks into inputs, so they are decoded in any case; to encode one more took 0.8
µs.

**Forms.** As there. Jobs have their three fields, in the order of the spec or sorted.

**Large inputs** are not searched, but stepped over, head by head, without proof, as long as they have few
items, whose number bounds what the decoder may cost. To walk, decode and encode six messages of a chat took
30 µs, this 13.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from typing import Any, Final

from orbtrio.protocol.cut import PAIR, Luck, members_of
from orbtrio.protocol.decoding import CUT_TAGS, WALK_ABOVE, load_parts
from orbtrio.protocol.heads import ARRAY, BYTES, MAP, TAG, TEXT, argument
from orbtrio.protocol.messages import MAX_JOBS, JobRequest
from orbtrio.protocol.references import MARKER
from orbtrio.protocol.scan import ALIKE, WIDTH

__all__ = ["REQUESTS", "cut_request"]

_REQUEST: Final = b"\x64type\x6eworker_request"
_RESOURCES: Final = b"\x69resources\x80"
_JOBS: Final = b"\x64jobs"
_JOB_ID: Final = b"\x66job_id"
_WORKER_TYPE: Final = b"\x6bworker_type"
_INPUT: Final = b"\x65input"

# The head of a map of three fields, as nearly all write it, and as cbor-x does.
_THREE: Final = (b"\xa3", b"\xb9\x00\x03")

# What stands before the array of jobs, what behind it, and how each job begins. Our own client, for one, says
# that there are no resources. Those of cbor-x are the third and fourth; keys that are sorted, the last.
REQUESTS: Final = (
    (PAIR[0] + _REQUEST + _JOBS, b"", _THREE[0] + _JOB_ID),
    (_THREE[0] + _REQUEST + _RESOURCES + _JOBS, b"", _THREE[0] + _JOB_ID),
    (PAIR[1] + _REQUEST + _JOBS, b"", _THREE[1] + _JOB_ID),
    (_THREE[1] + _REQUEST + _RESOURCES + _JOBS, b"", _THREE[1] + _JOB_ID),
    (PAIR[0] + _JOBS, _REQUEST, _THREE[0] + _INPUT),
)

# The first bytes already tell which of these it can be.
_TELLING: Final = 6
_FORMS: Final = {form[0][:_TELLING]: form for form in REQUESTS}

# In larger jobs, on average, the guess is made field by field.
_SMALL: Final = 1024

# Of these messages, and of their items but for those in long lists of numbers, of which there may be 16 times
# as many. Whatever stands in them, they have used up less than half of the budget.
_LARGEST: Final = 1 << 20
_MOST_ITEMS: Final = 16_384
_LONG_LIST: Final = 16

_MARKER: Final = MARKER.encode()
_REFERENCE: Final = TEXT + len(_MARKER)

_NOWHERE: Final = 0, 0, False

# The first bytes of numbers, by width: in a list of such numbers nothing else needs to be looked at. Integers
# of nine bytes might be shorter.
_ALIKE: Final = {**ALIKE, 9: b"\xfb"}


def _sizes() -> tuple[int, ...]:
    sizes = list(WIDTH)
    for strings in (BYTES, TEXT):
        sizes[strings : strings + 24] = range(1, 25)
    for head in (0x1B, 0x3B, _REFERENCE):
        sizes[head] = 0
    return tuple(sizes)


# By first byte: the size of the whole item; 0: look closer.
_SIZES: Final = _sizes()

# Items that have eight bytes for their argument, and what stands in them if four were enough.
_WIDE_HEADS: Final = frozenset(b"\x1b\x3b\x5b\x7b\x9b\xbb\xdb")
_WIDE: Final = b"\x00\x00\x00\x00"


def cut_request(raw: bytes, luck: Luck) -> list[JobRequest] | None:
    """The jobs of a ``worker_request`` without resources, if this can find them.

    Each has its three fields and no other, in the spec's order or sorted; the id and the type are short text.

    Args:
        raw: One message.
        luck: Of the peer.
    """
    form = _FORMS.get(raw[:_TELLING])
    if form is None:
        return None
    before, behind, job_head = form
    if not raw.startswith(before):
        return None
    if behind:
        if not raw.endswith(behind):
            return None
        raw = raw[: -len(behind)]
    if luck.left:
        luck.left -= 1
        return None
    inputs: list[bytes | memoryview] = []
    wide: list[JobRequest] = []
    large = False
    try:
        members, start = members_of(raw, len(before))
        size = len(raw)
        if not 0 < members <= MAX_JOBS or size > _LARGEST:
            return None
        large = size > _SMALL * members or size > WALK_ABOVE
        if large:
            jobs = _large_jobs(raw, start, members, job_head, inputs, wide)
        else:
            rests = raw.split(job_head)
            if len(rests[0]) != start or len(rests) - 1 != members or _MARKER in raw:
                return None
            jobs = _sorted_jobs(rests, inputs) if behind else _jobs(rests, inputs)
    except (IndexError, UnicodeDecodeError):
        jobs = None
    if jobs is None:
        if large:
            luck.lost()
        return None
    values = load_parts(inputs, depth=3, tags=CUT_TAGS)
    if values is None:
        luck.lost()
        return None
    for job, value in zip(jobs, values, strict=True):
        if type(value) is not dict:
            luck.lost()
            return None
        job.input = value
    if luck.pause:
        luck.won()
    # A client may write a length of 5 in eight bytes, and cbor-x in JavaScript cannot read that: it would
    # lose a whole batch, with the jobs of others. Small numbers like that are large ones to it. So these
    # inputs are encoded anew. Other heads that might be shorter are read by all, and travel as they came.
    if wide or (0 in raw and not large and _WIDE in raw):
        for job in wide or _wide_ones(jobs):
            job.encoded = None
    return jobs


# Of small jobs, those that have heads of nine bytes that might be shorter.
def _wide_ones(jobs: list[JobRequest]) -> list[JobRequest]:
    wide = []
    for job in jobs:
        encoded: Any = job.encoded
        at = encoded.find(_WIDE)
        # Floats like 1.0 have such bytes, too. If there are many, we do not look at all of them.
        for _ in range(8):
            if at < 0 or encoded[at - 1] in _WIDE_HEADS:
                break
            at = encoded.find(_WIDE, at + len(_WIDE))
        if at >= 0:
            wide.append(job)
    return wide


# The jobs, given what stands behind `_INPUT` in each but the first: they have the input first. It must not
# follow the names where these are read, for an id that is longer than its job would go on in the input.
def _sorted_jobs(rests: list[bytes], inputs: list[bytes | memoryview]) -> list[JobRequest] | None:
    names = rests[:1]
    own_inputs = []
    for rest in islice(rests, 1, None):
        job_input, _, name = rest.rpartition(_JOB_ID)
        names.append(name + _INPUT)
        own_inputs.append(job_input)
    jobs = _jobs(names, inputs)
    if jobs is None or any(inputs):  # something stands behind another `_INPUT`
        return None
    inputs[:] = own_inputs
    for job, job_input in zip(jobs, own_inputs, strict=True):
        job.encoded = job_input
    return jobs


# The jobs, given what stands behind `_JOB_ID` in each but the first, which is before them all.
def _jobs(rests: list[bytes], inputs: list[bytes | memoryview]) -> list[JobRequest] | None:
    jobs: list[JobRequest] = []
    worker_type, between = "", _INPUT  # what stands between an id and an input; mostly the same in all jobs
    for rest in islice(rests, 1, None):
        start, size = 1, rest[0] - TEXT
        if not 0 <= size < 24:
            if size != 24:
                return None
            start, size = 2, rest[1]
        stop = start + size
        if not rest.startswith(between, stop):
            between = rest[stop : rest.find(_INPUT, stop) + len(_INPUT)]
            worker_type = _worker_type(between)
        if not worker_type:
            return None
        encoded = rest[stop + len(between) :]
        inputs.append(encoded)
        jobs.append(JobRequest(rest[start:stop].decode(), worker_type, {}, None, (), encoded))
    return jobs


# The worker type, given all that stands between a job's id and its input; empty if that is not as usual.
# There are few types, and many messages of one job.
@lru_cache(256)
def _worker_type(between: bytes) -> str:
    start = len(_WORKER_TYPE) + 1
    stop = len(between) - len(_INPUT)
    if not (between.startswith(_WORKER_TYPE) and between.endswith(_INPUT)):
        return ""
    if not start < stop < start + 24 or between[start - 1] != TEXT + stop - start:
        return ""
    return between[start:stop].decode()


# The jobs, the first of which stands at `at`, if their inputs have few items. Those that have heads of nine
# bytes that might be shorter are in `wide` as well.
def _large_jobs(
    raw: bytes,
    at: int,
    members: int,
    job_head: bytes,
    inputs: list[bytes | memoryview],
    wide: list[JobRequest],
) -> list[JobRequest] | None:
    jobs: list[JobRequest] = []
    input_first = job_head.endswith(_INPUT)
    view = memoryview(raw)
    items = _MOST_ITEMS
    encoded, is_wide = view[:0], False
    for _ in range(members):
        if not raw.startswith(job_head, at):
            return None
        at += len(job_head)
        if input_first:
            begin = at
            at, items, is_wide = _behind(raw, begin, items)
            encoded = view[begin:at]
            if not raw.startswith(_JOB_ID, at):
                return None
            at += len(_JOB_ID)
        client_job_id, at = _short_text(raw, at)
        if not raw.startswith(_WORKER_TYPE, at):
            return None
        at += len(_WORKER_TYPE)
        if not TEXT < raw[at] < TEXT + 24:
            return None
        worker_type, at = _short_text(raw, at)
        if not input_first:
            if not raw.startswith(_INPUT, at):
                return None
            begin = at + len(_INPUT)
            at, items, is_wide = _behind(raw, begin, items)
            encoded = view[begin:at]
        inputs.append(encoded)
        jobs.append(JobRequest(client_job_id, worker_type, {}, None, (), encoded))
        if is_wide:
            wide.append(jobs[-1])
    return jobs if at == len(raw) else None


# A text of up to 255 bytes, and what stands behind it.
def _short_text(raw: bytes, at: int) -> tuple[str, int]:
    size, start = argument(raw, at)
    stop = start + size
    if not TEXT <= raw[at] <= TEXT + 24 or stop > len(raw):
        raise IndexError
    return raw[start:stop].decode(), stop


# Where an input ends, how many more items there may be, and whether it has heads of nine bytes that might be
# shorter. It ends nowhere if there are too many items, or if it may hold a reference. Nothing is proved here:
# this steps over heads.
def _behind(raw: bytes, at: int, items: int) -> tuple[int, int, bool]:
    left, wide = 1, False
    while left:
        left -= 1
        head = raw[at]
        size = _SIZES[head]
        if size:
            at += size
        # What many inputs have, and what is left to be looked at closer: twice as fast with these three.
        elif head == TEXT + 24 and raw[at + 1] >= 24:
            at += 2 + raw[at + 1]
        elif head == TEXT + 25 and raw[at + 1]:
            at += 3 + (raw[at + 1] << 8 | raw[at + 2])
        elif MAP <= head < MAP + 24:
            at += 1
            left += 2 * (head - MAP)
            items -= 2 * (head - MAP)
        elif head == _REFERENCE:
            if raw.startswith(_MARKER, at + 1):
                return _NOWHERE
            at += 1 + len(_MARKER)
        else:
            begin = at
            number, at = argument(raw, at)
            wide |= at - begin == 9 and number < 1 << 32
            major = head & 0xE0
            if major in {BYTES, TEXT}:
                # A marker, maybe, with a head as nobody writes it.
                if number == len(_MARKER):
                    return _NOWHERE
                at += number
            elif major == ARRAY:
                numbers = _numbers(raw, at, number) if _LONG_LIST <= number < len(raw) else 0
                items -= number // _LONG_LIST if numbers else number
                left += 0 if numbers else number
                at += numbers
            elif major in {MAP, TAG}:
                members = 2 * number if major == MAP else 1
                left += members
                items -= members
            if number < 0:
                return _NOWHERE
        if items < 0:
            return _NOWHERE
    return at, items, wide


# How many bytes a list of numbers takes; 0 if they are not all of the same width.
def _numbers(raw: bytes, at: int, number: int) -> int:
    width = WIDTH[raw[at]]
    end = at + width * number
    if not width or end > len(raw) or raw[at:end:width].strip(_ALIKE[width]):
        return 0
    return end - at

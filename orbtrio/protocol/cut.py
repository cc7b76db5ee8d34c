"""Small messages cut where their parts end: what the engine only passes on, it does not encode anew.

A worker's entry goes to a client as it came, and so does a client's input to a worker, unchanged to the last
bit. Where each of them ends is *guessed*, by one search for the bytes that stand between two of them in
nearly all messages. A wrong guess is no danger, for the decoder then proves it: it is given the parts, each
with a mark behind it that nobody outside knows (`decoding.load_parts`). If it refuses anything, or if the
message is not of the usual form, the answer is None, and what follows is what is done for any other message:
`scan` walks and cuts results, `codec` decodes requests. So no rule stands here, and no reason for a refusal.

It is for small parts, as most are. Of an entry with an id and a text of 100 bytes the walk takes 2.1 µs, this
1.3; of ten detections the walk takes 31 µs, this 17; but of a vector of 768 floats the decoder takes 30 µs
and the walk 5. An input is decoded in any case, but encoding it once more took 0.8 µs.

Rejected: the walk made faster for maps of a few fields (1.8 µs, and every rule stood twice); a regular
expression for the guess (0.5 µs more); and one look at all keys of all parts, behind the decoder, in place of
its call for each map (0.1 µs less, if no part holds a container).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from typing import Final

from orbtrio.protocol.decoding import CUT_TAGS, NO_ARRAY_TAGS, WALK_ABOVE, load_parts
from orbtrio.protocol.heads import ARRAY, BYTES, MAP, TEXT, argument
from orbtrio.protocol.messages import MAX_JOBS, JobRequest
from orbtrio.protocol.references import MARKER
from orbtrio.protocol.scan import WIDTH

__all__ = ["OUTPUT", "REQUESTS", "cut_output", "cut_request"]

# How the messages begin that are cut here. The second request is our own client's.
OUTPUT: Final = b"\xa2\x64type\x6dworker_output\x66output"
REQUESTS: Final = (
    b"\xa2\x64type\x6eworker_request\x64jobs",
    b"\xa3\x64type\x6eworker_request\x69resources\x80\x64jobs",
)

# Larger entries, on average, are for the walk; in larger jobs the guess is made field by field.
_SMALL: Final = 1024

# Of these messages. Whatever stands in them, they have used up less than a third of the budget.
_LARGEST: Final = 1 << 20

# An entry's map, its first key, and what all ids of one engine begin with: they have 18 bytes and more.
_ALIKE: Final = 1 + 3 + 1 + 16

_JOB: Final = b"\xa3\x66job_id"
_WORKER_TYPE: Final = b"\x6bworker_type"
_INPUT: Final = b"\x65input"
_LONGEST_BETWEEN: Final = len(_WORKER_TYPE) + 24 + len(_INPUT)
_EMPTY: Final = bytes((ARRAY,))
_LONG: Final = bytes((ARRAY + 24,))
_MARKER: Final = MARKER.encode()

# What stands behind the first byte of a head of nine bytes that might be shorter. See `_forget_wide`.
_WIDE: Final = b"\x00\x00\x00\x00"


def cut_output(
    raw: bytes, *, typed_arrays: bool = False
) -> tuple[list[tuple[str, bytes]], list[int], int] | None:
    """The entries of a ``worker_output``, if this can find them, and all are good.

    Args:
        raw: One message.
        typed_arrays: Entries with typed arrays are not for here.

    Returns:
        As `scan.split_entries`.
    """
    if len(raw) > WALK_ABOVE or not raw.startswith(OUTPUT):
        return None
    members, start = _members(raw, len(OUTPUT))
    if members < 1 or len(raw) > _SMALL * members or start >= len(raw):
        return None
    if members == 1:
        parts = [raw[start:]]
    else:
        alike = raw[start : start + _ALIKE]
        before, *rests = raw.split(alike)
        if len(before) != start or len(rests) != members:
            return None
        parts = [alike + rest for rest in rests]
    values = load_parts(parts, depth=2, tags=NO_ARRAY_TAGS if typed_arrays else CUT_TAGS)
    if values is None:
        return None
    entries: list[tuple[str, bytes]] = []
    failed: list[int] = []
    for part, fields in zip(parts, values, strict=True):
        if type(fields) is not dict or type(job_id := fields.get("id")) is not str:
            return None
        if "error" in fields:
            failed.append(len(entries))
        entries.append((job_id, part))
    return entries, failed, 0


def cut_request(raw: bytes) -> list[JobRequest] | None:
    """The jobs of a ``worker_request`` without resources, if this can find them.

    The usual form is that of the spec's example: three fields in this order, the id and the type short text.
    """
    for beginning in REQUESTS:
        if raw.startswith(beginning):
            break
    else:
        return None
    try:
        members, start = _members(raw, len(beginning))
        if len(raw) > _SMALL * members > 0:
            jobs = _large_jobs(raw, start, members) if len(raw) <= _LARGEST else None
        elif len(raw) > WALK_ABOVE or _MARKER in raw:
            return None
        else:
            rests = raw.split(_JOB)
            if len(rests[0]) != start or not 0 < members == len(rests) - 1 <= MAX_JOBS:
                return None
            jobs = _jobs(rests)
    except (IndexError, UnicodeDecodeError):
        return None
    if jobs is not None and 0 in raw:  # a number: of bytes, Python would ask first whether they are one
        _forget_wide(jobs)
    return jobs


# A client may write a length of 5 in eight bytes, and cbor-x in JavaScript cannot read that: it would lose a
# whole batch, with the jobs of others. Small numbers like that are large ones to it. So these inputs are
# encoded anew. Other heads that might be shorter are read by all, and travel as they came.
def _forget_wide(jobs: list[JobRequest]) -> None:
    for job in jobs:
        if _WIDE in bytes(job.encoded or b""):
            job.encoded = None


# The number of members of an array, and where they begin; no number if it is no array.
def _members(raw: bytes, at: int) -> tuple[int, int]:
    head = raw[at : at + 1]
    if _EMPTY < head < _LONG:
        return head[0] - ARRAY, at + 1
    return argument(raw, at) if head and head[0] & 0xE0 == ARRAY else (-1, at)


# The jobs, given what stands behind `_JOB` in each but the first.
def _jobs(rests: list[bytes]) -> list[JobRequest] | None:
    jobs: list[JobRequest] = []
    inputs: list[bytes] = []
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
    values = load_parts(inputs, depth=3, tags=CUT_TAGS)
    if values is None:
        return None
    for job, job_input in zip(jobs, values, strict=True):
        if type(job_input) is not dict:
            return None
        job.input = job_input
    return jobs


# The jobs, the first of which stands at `at`, if their inputs are maps of texts and numbers only.
def _large_jobs(raw: bytes, at: int, members: int) -> list[JobRequest] | None:
    jobs: list[JobRequest] = []
    inputs: list[memoryview] = []
    view = memoryview(raw)
    worker_type, between = "", _INPUT
    for _ in range(members):
        if not raw.startswith(_JOB, at):
            return None
        at += len(_JOB)
        start, size = at + 1, raw[at] - TEXT
        if not 0 <= size < 24:
            if size != 24:
                return None
            start, size = at + 2, raw[at + 1]
        stop = start + size
        if not raw.startswith(between, stop):
            between = raw[stop : raw.find(_INPUT, stop, stop + _LONGEST_BETWEEN) + len(_INPUT)]
            worker_type = _worker_type(between)
        if not worker_type:
            return None
        begin = stop + len(between)
        at = _end_of_fields(raw, begin)
        encoded = view[begin:at]
        inputs.append(encoded)
        jobs.append(JobRequest(raw[start:stop].decode(), worker_type, {}, None, (), encoded))
    values = load_parts(inputs, depth=3, tags=CUT_TAGS) if at == len(raw) else None
    if values is None:
        return None
    for job, job_input in zip(jobs, values, strict=True):
        # A reference in place of an input is refused elsewhere.
        if "__type" in job_input:
            return None
        job.input = job_input
    return jobs


# Where a map ends that stands at `at`; nowhere, if it has other members than texts, bytes and numbers.
def _end_of_fields(raw: bytes, at: int) -> int:
    pairs = raw[at] - MAP
    if not 0 <= pairs < 24:
        return 0
    at += 1
    for _ in range(2 * pairs):
        head = raw[at]
        if head & 0xC0 == BYTES:  # or text
            size, at = argument(raw, at)
            at += size
        elif WIDTH[head]:
            at += WIDTH[head]
        else:
            return 0
    return at


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

"""Messages made of bytes that are encoded already.

A job is encoded once, when it is accepted, and a worker's entry never again: both wait, and travel, as they
are. What stands around them is written here, by hand, for it is only heads: the first byte of an item has its
major type in the upper three bits and the number of its members, or bytes, in what follows.

Functions that end in `_parts` return pieces, which the transport joins.
"""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "batch_parts",
    "entries_parts",
    "progress_parts",
    "request_parts",
    "resource_parts",
    "response_head",
    "response_member",
    "responses_head",
    "with_numbers",
    "without_leading_id",
]

_BYTES: Final = 0x40
_TEXT: Final = 0x60
_ARRAY: Final = 0x80
_MAP: Final = 0xA0

_RESPONSE: Final = b"\xa3\x64type\x6fworker_response"
_PROGRESS: Final = b"\x64type\x6fworker_progress"
_OUTPUT: Final = b"\x66output"


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes((major | number,))
    if number < 1 << 8:
        return bytes((major | 24, number))
    if number < 1 << 16:
        return pack(">BH", major | 25, number)
    return pack(">BI", major | 26, number) if number < 1 << 32 else pack(">BQ", major | 27, number)


def batch_parts(jobs: Sequence[bytes], resources: Sequence[bytes] = (), files: int = 0) -> list[bytes]:
    """A batch of encoded jobs.

    Args:
        jobs: Each encoded.
        resources: `resource_parts` of all files, one after the other.
        files: How many files.
    """
    if not files:
        return [b"\xa1\x66inputs" + _head(_ARRAY, len(jobs)), *jobs]
    head = b"\xa2\x66inputs" + _head(_ARRAY, len(jobs))
    return [head, *jobs, b"\x69resources" + _head(_ARRAY, files), *resources]


def resource_parts(path: str, data: bytes) -> tuple[bytes, bytes]:
    """One file of a batch. Extension ``inline_resources``."""
    name = path.encode()
    return b"\xa2\x64path%b%b\x64data%b" % (_head(_TEXT, len(name)), name, _head(_BYTES, len(data))), data


def request_parts(resources: Sequence[bytes], jobs: Sequence[bytes]) -> list[bytes]:
    """A ``worker_request`` of encoded resources and jobs."""
    head = b"\xa3\x64type\x6eworker_request\x69resources" + _head(_ARRAY, len(resources))
    return [head, *resources, b"\x64jobs" + _head(_ARRAY, len(jobs)), *jobs]


def with_numbers(job: bytes, numbers: Mapping[str, int]) -> bytes:
    """An encoded job with fields behind its own.

    To decode and encode it anew would take as long as all the rest that is done for it.

    Args:
        job: One map, in its shortest form.
        numbers: By ASCII name, numbers from 0 up; names that the job does not have.
    """
    pairs, begin = job[0] & 0x1F, 1
    if pairs >= 24:
        begin += 1 << pairs - 24
        pairs = int.from_bytes(job[1:begin], "big")
    pieces: list[bytes | memoryview] = [_head(_MAP, pairs + len(numbers)), memoryview(job)[begin:]]
    for name, number in numbers.items():
        pieces += _head(_TEXT, len(name)), name.encode("ascii"), _head(0, number)
    return b"".join(pieces)


def entries_parts(message_type: str, field: str, entries: Sequence[bytes]) -> list[bytes]:
    """A ``worker_output`` or ``worker_progress`` of encoded entries."""
    kind, name = message_type.encode(), field.encode()
    head = b"\xa2\x64type%b%b%b%b" % (_head(_TEXT, len(kind)), kind, _head(_TEXT, len(name)), name)
    return [head + _head(_ARRAY, len(entries)), *entries]


# --- Answers ------------------------------------------------------------------------------------------------


def response_head(client_job_id: bytes) -> bytes:
    """The beginning of a ``worker_response`` to an encoded id; the encoded output is the rest."""
    return b"%b\x66job_id%b%b" % (_RESPONSE, client_job_id, _OUTPUT)


def responses_head(members: int) -> bytes:
    """The beginning of a ``worker_responses``; so many members are the rest."""
    return b"\xa2\x64type\x70worker_responses\x69responses" + _head(_ARRAY, members)


def response_member(head: bytes) -> bytes:
    """What to put in place of a `response_head` where the response is a member of ``worker_responses``."""
    return b"\xa2" + head[len(_RESPONSE) :]


def progress_parts(head: bytes, attempt: int, fields: bytes) -> tuple[bytes, bytes]:
    """A ``worker_progress`` to a client.

    Args:
        head: The job's `response_head`.
        attempt: How often the job was started.
        fields: A map, encoded; without the engine's id.
    """
    named = head[len(_RESPONSE) : -len(_OUTPUT)]
    if attempt == 1:
        return b"\xa3%b%b\x68progress" % (_PROGRESS, named), fields
    return b"\xa4%b%b\x67attempt%b\x68progress" % (_PROGRESS, named, _head(0, attempt)), fields


def without_leading_id(entry: bytes) -> bytes | None:
    """A worker's entry without its ``id``; None unless it begins with one, as nearly all do.

    Args:
        entry: One map, which is proved.
    """
    if not (_MAP < entry[0] < _MAP + 24 and entry.startswith(b"\x62id", 1)):
        return None
    length, start = entry[4] - _TEXT, 5
    if length == 24:
        length, start = entry[5], 6
    if not 0 <= length <= 0xFF or (start == 5 and length >= 24):
        return None
    return bytes((entry[0] - 1,)) + entry[start + length :]

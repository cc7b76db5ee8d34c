"""Messages made of bytes that are encoded already.

A job is encoded once, when it is accepted, and a worker's entry never again: both wait, and travel, as they
are. What stands around them is written here, by hand, for it is only `heads`.

Functions that end in `_parts` return pieces, which the transport joins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orbtrio.protocol.heads import ARRAY, BYTES, MAP, TEXT, head_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "batch_job",
    "batch_parts",
    "entries_parts",
    "progress_parts",
    "request_parts",
    "resource_parts",
    "response_head",
    "response_head_of_text",
    "response_member",
    "responses_head",
    "with_numbers",
    "without_leading_id",
]

_RESPONSE: Final = b"\xa3\x64type\x6fworker_response"
_PROGRESS: Final = b"\x64type\x6fworker_progress"
_OUTPUT: Final = b"\x66output"


# By the length of a short text, what stands in front of it: looked up in a tenth of the time that it takes to
# make.
_SHORT: Final = 256
_JOB_HEADS: Final = [b"\xa2\x62id" + head_of(TEXT, size) for size in range(_SHORT)]
_RESPONSE_HEADS: Final = [_RESPONSE + b"\x66job_id" + head_of(TEXT, size) for size in range(_SHORT)]


def batch_job(job_id: bytes, job_input: bytes | memoryview) -> bytes:
    """One job of a batch.

    Args:
        job_id: UTF-8.
        job_input: Encoded.
    """
    size = len(job_id)
    head = _JOB_HEADS[size] if size < _SHORT else b"\xa2\x62id" + head_of(TEXT, size)
    return b"".join((head, job_id, b"\x65input", job_input))


def batch_parts(jobs: Sequence[bytes], resources: Sequence[bytes] = (), files: int = 0) -> list[bytes]:
    """A batch of encoded jobs.

    Args:
        jobs: Each encoded.
        resources: `resource_parts` of all files, one after the other.
        files: How many files.
    """
    if not files:
        return [b"\xa1\x66inputs" + head_of(ARRAY, len(jobs)), *jobs]
    head = b"\xa2\x66inputs" + head_of(ARRAY, len(jobs))
    return [head, *jobs, b"\x69resources" + head_of(ARRAY, files), *resources]


def resource_parts(path: str, data: bytes) -> tuple[bytes, bytes]:
    """One file of a batch. Extension ``inline_resources``."""
    name = path.encode()
    return b"\xa2\x64path%b%b\x64data%b" % (head_of(TEXT, len(name)), name, head_of(BYTES, len(data))), data


def request_parts(resources: Sequence[bytes], jobs: Sequence[bytes]) -> list[bytes]:
    """A ``worker_request`` of encoded resources and jobs."""
    head = b"\xa3\x64type\x6eworker_request\x69resources" + head_of(ARRAY, len(resources))
    return [head, *resources, b"\x64jobs" + head_of(ARRAY, len(jobs)), *jobs]


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
    pieces: list[bytes | memoryview] = [head_of(MAP, pairs + len(numbers)), memoryview(job)[begin:]]
    for name, number in numbers.items():
        pieces += head_of(TEXT, len(name)), name.encode("ascii"), head_of(0, number)
    return b"".join(pieces)


def entries_parts(message_type: str, field: str, entries: Sequence[bytes]) -> list[bytes]:
    """A ``worker_output`` or ``worker_progress`` of encoded entries."""
    kind, name = message_type.encode(), field.encode()
    head = b"\xa2\x64type%b%b%b%b" % (head_of(TEXT, len(kind)), kind, head_of(TEXT, len(name)), name)
    return [head + head_of(ARRAY, len(entries)), *entries]


# --- Answers ------------------------------------------------------------------------------------------------


def response_head(client_job_id: bytes) -> bytes:
    """The beginning of a ``worker_response`` to an encoded id; the encoded output is the rest."""
    return b"%b\x66job_id%b%b" % (_RESPONSE, client_job_id, _OUTPUT)


def response_head_of_text(client_job_id: bytes) -> bytes:
    """The same for an id that is text, given as UTF-8."""
    size = len(client_job_id)
    if size < _SHORT:
        return _RESPONSE_HEADS[size] + client_job_id + _OUTPUT
    return response_head(head_of(TEXT, size) + client_job_id)


def responses_head(members: int) -> bytes:
    """The beginning of a ``worker_responses``; so many members are the rest."""
    return b"\xa2\x64type\x70worker_responses\x69responses" + head_of(ARRAY, members)


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
    return b"\xa4%b%b\x67attempt%b\x68progress" % (_PROGRESS, named, head_of(0, attempt)), fields


def without_leading_id(entry: bytes) -> bytes | None:
    """A worker's entry without its ``id``; None unless it begins with one, as nearly all do.

    Args:
        entry: One map, which is proved.
    """
    if not (MAP < entry[0] < MAP + 24 and entry.startswith(b"\x62id", 1)):
        return None
    length, start = entry[4] - TEXT, 5
    if length == 24:
        length, start = entry[5], 6
    if not 0 <= length <= 0xFF or (start == 5 and length >= 24):
        return None
    return bytes((entry[0] - 1,)) + entry[start + length :]

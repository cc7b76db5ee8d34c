"""Bytes to messages and messages to bytes.

**Decoding.** The library, with every door shut, is in `decoding`; what its values have to be, the messages
know. What the engine only passes on is cut out of a message and stays as it came: small results by `cut`,
other results by the walk in `scan`, the inputs of usual requests by `cut_requests`, and large images by
`images`.

**Encoding** happens in pieces. A job is encoded once at most, when it is accepted. Its bytes wait in the
queue, travel in one batch after another until some worker answers, and no batch or response is ever encoded
as a whole. Hence the small functions that return bytes, and those of `splice`, which put them together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import cbor2

from orbtrio.errors import DecodeError, InvalidMessage
from orbtrio.protocol import arrays, bulk, images, references, scan, splice
from orbtrio.protocol.cut import OUTPUTS, PROGRESS, Luck, cut_entries
from orbtrio.protocol.cut_requests import cut_request
from orbtrio.protocol.decoding import ENGINE_TAGS, WALK_ABOVE, decode_item, is_absent, load
from orbtrio.protocol.messages import (
    EXTENSION_MESSAGES,
    EXTENSIONS,
    JobBatch,
    Message,
    RegisterClient,
    RegisterWorker,
    Resource,
    UnknownMessage,
    WorkerOutput,
    WorkerProgress,
    WorkerRequest,
    WorkerResponse,
    drop_undefined,
)
from orbtrio.protocol.splice import batch_parts, progress_parts, request_parts
from orbtrio.protocol.values import encode_value

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "batch_parts",
    "decode",
    "decode_item",
    "encode",
    "encode_flat_job",
    "encode_job",
    "encode_value",
    "error_output",
    "is_absent",
    "output_entry",
    "progress_entry",
    "progress_fields",
    "progress_parts",
    "request_job",
    "request_parts",
    "resource_entry",
    "response_head",
]

# Longest `error` that passes. It ends up in logs and in exceptions, where ten megabytes of it help nobody.
_MAX_ERROR_BYTES: Final = 8 * 1024

_SORTED_OUTPUTS: Final = tuple(head for head, tail in OUTPUTS if tail)

_SELF_DESCRIBED: Final = b"\xd9\xd9\xf7"  # a tag that says "this is CBOR"; may stand before any message


def without_typed_arrays(entry: bytes) -> bytes | None:
    """An entry for who knows lists of floats only; None if it would be more than a message may cost."""
    if not isinstance(entry, arrays.TypedEntry):
        return entry
    if arrays.expanded_size(entry) > bulk.MAX_JOB_BYTES:
        return None
    plain = arrays.expanded(entry)
    try:
        if len(plain) > WALK_ABOVE:
            scan.check(plain)
    except DecodeError:
        return None
    return plain


# --- Bytes to messages ------------------------------------------------------------------------------------


def decode(
    raw: bytes,
    *,
    unwrap_typed_arrays: bool = False,
    typed_arrays: bool = False,
    extensions: frozenset[str] = EXTENSIONS,
    luck: Luck | None = None,
) -> Message:
    """The message in `raw`.

    Args:
        raw: One whole binary message.
        unwrap_typed_arrays: For endpoints: JavaScript's byte arrays become bytes. The engine passes them on.
        typed_arrays: Likewise: typed arrays and long lists of floats are to be arrays.
        extensions: What the two ends agreed on; messages of others are unknown.
        luck: Of the peer, who has sent messages before.

    Raises:
        DecodeError: not exactly one CBOR map within profile and budget (1008).
        InvalidMessage: a map, but no valid message (1008).
        ResourceRejected: a resource is too large, missing or unused (1009).
    """
    raw = raw.removeprefix(_SELF_DESCRIBED)
    if luck is None:
        luck = Luck()
    if not unwrap_typed_arrays:
        jobs = cut_request(raw, luck)
        if jobs is not None:
            return WorkerRequest(jobs, [])
    # Nearly every worker puts the type first, or hardly anything before it; or it sorts the keys.
    start = raw[:64]
    entries: WorkerOutput | WorkerProgress | None = None
    if b"worker_output" in start or raw.startswith(_SORTED_OUTPUTS):
        entries = _decode_output(raw, extensions, luck)
    elif b"worker_progress" in start and "progress" in extensions:
        entries = _decode_progress(raw, extensions, luck)
    if entries is not None:
        return entries
    wire = decode_item(raw, typed_arrays=typed_arrays) if unwrap_typed_arrays else images.load_message(raw)
    if type(wire) is not dict:
        raise DecodeError("expected a map")
    # JavaScript sends `undefined` for what is absent. It is the byte f7, so most messages need no search.
    if b"\xf7" in raw:
        drop_undefined(wire, cbor2.undefined)
    message_type = wire.get("type")
    if message_type == "worker_request":
        # While the message is small, a search through its bytes is faster than one through its values.
        may_refer = len(raw) > WALK_ABOVE or references.MARKER.encode() in raw
        request = WorkerRequest.from_wire(wire, may_refer=may_refer)
        if len(raw) > bulk.MAX_JOB_BYTES:
            bulk.refuse_bulky_jobs(request)
        return request
    if message_type == "worker_response":
        return WorkerResponse.from_wire(wire)
    if message_type == "i_am_worker":
        return RegisterWorker.from_wire(wire)
    if message_type == "i_am_server":
        return RegisterClient.from_wire(wire)
    if message_type is None and "inputs" in wire:
        return JobBatch.from_wire(wire, inline_resources="inline_resources" in extensions)
    if type(message_type) is not str:
        raise InvalidMessage("expected text", path="type")
    if message_type == "worker_output":  # its type came late
        entries = _decode_output(raw, extensions, luck)
        if entries is None:
            raise InvalidMessage("expected a list", path="output")
        return entries
    extension, from_wire = EXTENSION_MESSAGES.get(message_type, ("", None))
    if from_wire is None or extension not in extensions:
        return UnknownMessage(message_type[:64])
    # A worker's may have its type late, too. An engine's has no list.
    return (_decode_progress(raw, extensions, luck) if extension == "progress" else None) or from_wire(wire)


def _decode_progress(raw: bytes, extensions: frozenset[str], luck: Luck) -> WorkerProgress | None:
    typed_arrays = "typed_arrays" in extensions
    split = cut_entries(raw, PROGRESS, luck, typed_arrays=typed_arrays)
    if split is None:
        split = scan.split_entries(raw, "worker_progress", "progress", typed_arrays=typed_arrays)
    return None if split is None else WorkerProgress(split[0], split[2])


def _decode_output(raw: bytes, extensions: frozenset[str], luck: Luck) -> WorkerOutput | None:
    typed_arrays = "typed_arrays" in extensions
    split = cut_entries(raw, OUTPUTS, luck, typed_arrays=typed_arrays)
    if split is None:
        split = scan.split_entries(raw, "worker_output", "output", typed_arrays=typed_arrays)
    if split is None:
        return None  # some other message
    entries, failed, malformed = split
    for index in failed:
        job_id, entry = entries[index]
        if len(entry) > _MAX_ERROR_BYTES:
            entries[index] = job_id, _with_short_error(entry)
    return WorkerOutput(entries, malformed)


def _with_short_error(entry: bytes) -> bytes:
    fields = load(entry, ENGINE_TAGS)
    error = fields.get("error")
    if type(error) is not str or len(text := error.encode()) <= _MAX_ERROR_BYTES:
        return entry
    fields["error"] = text[:_MAX_ERROR_BYTES].decode(errors="ignore")
    shortened = cbor2.dumps(fields)
    if type(entry) is bytes:
        return shortened
    # Its typed arrays are elsewhere now.
    parts = splice.entries_parts("worker_output", "output", [shortened])
    split = scan.split_entries(b"".join(parts), "worker_output", "output", typed_arrays=True)
    assert split is not None
    return split[0][0][1]


# --- Messages to bytes, in pieces -------------------------------------------------------------------------


def encode_job(job_id: str, input: dict[str, Any], extra: Mapping[str, Any] | None = None) -> bytes:
    """One job of a batch: ``{id, input, ...extra}``. Nothing in `extra` shadows the other two.

    The caller vouches for the values: they came out of `decode`, or have been through `encode_value`.
    """
    if extra:
        own = {"id": job_id, "input": input}
        return cbor2.dumps(own | dict(extra) | own)
    return splice.batch_job(job_id.encode(), cbor2.dumps(input))


def encode_flat_job(
    job_id: str, input: dict[str, Any], extra: Mapping[str, Any] | None, timestamp_ms: float
) -> bytes:
    """One job as workers of the public engine read it: the fields of `input` stand beside ``id``.

    They win over those of `extra` and over ``timestamp``; nothing wins over ``id``.
    """
    own = {"id": job_id}
    return cbor2.dumps(own | {"timestamp": float(timestamp_ms)} | dict(extra or {}) | input | own)


def response_head(client_job_id: Any) -> bytes:
    """The beginning of a ``worker_response``; the encoded output is the rest."""
    if type(client_job_id) is str:
        return splice.response_head_of_text(client_job_id.encode())
    return splice.response_head(cbor2.dumps(client_job_id))


def error_output(text: str, kind: str) -> bytes:
    """The output of a job that the engine itself ended."""
    return cbor2.dumps({"error": text, "error_kind": kind})


def output_entry(job_id: str, fields: Mapping[str, Any], *, typed_arrays: bool = False) -> bytes:
    """One entry of a ``worker_output``.

    Args:
        job_id: The engine's id of the job.
        fields: The result. Arrays of floats may stand at any depth: see `arrays.is_array`.
        typed_arrays: They are typed arrays, as the engine has announced that it takes; else lists.

    Raises:
        InvalidMessage: a field holds what would not arrive as it is.
    """
    own = {"id": job_id}
    return encode_value(own | dict(fields) | own, depth=scan.ENTRY_DEPTH, typed_arrays=typed_arrays)


def progress_entry(job_id: str, fields: Mapping[str, Any], *, typed_arrays: bool = False) -> bytes:
    """One entry of a ``worker_progress``; as `output_entry`."""
    return output_entry(job_id, fields, typed_arrays=typed_arrays)


def progress_fields(entry: bytes) -> bytes:
    """A worker's entry, which is proved, without the engine's id."""
    fields = splice.without_leading_id(entry)
    if fields is None:
        loaded = load(entry, ENGINE_TAGS)
        if loaded.pop("id", cbor2.undefined) is cbor2.undefined:
            del loaded["job_id"]  # the id stood there instead
        fields = cbor2.dumps(loaded)
    return fields


def request_job(
    client_job_id: Any, worker_type: str, input: Mapping[str, Any], extra: Mapping[str, Any] | None = None
) -> bytes:
    """One job of a ``worker_request``.

    Raises:
        InvalidMessage: a field holds what would not arrive as it is.
    """
    own = {"job_id": client_job_id, "worker_type": worker_type, "input": input}
    return encode_value(own | dict(extra or {}) | own)


def resource_entry(resource: Resource) -> bytes:
    """One member of ``resources``."""
    data = bytes(resource.data)
    text_or_bytes = data.decode() if resource.kind == "document" else data
    return cbor2.dumps({"id": resource.resource_id, "type": resource.kind, "data": text_or_bytes})


def encode(message: Message) -> bytes:
    """The bytes of `message`.

    Raises:
        InvalidMessage: it holds what cannot be encoded.
    """
    match message:
        case WorkerRequest():
            resources = [resource_entry(resource) for resource in message.resources]
            jobs = [request_job(j.client_job_id, j.worker_type, j.input, j.extra) for j in message.jobs]
            return b"".join(request_parts(resources, jobs))
        case JobBatch():
            batch = [encode_job(job.job_id, job.input, job.extra) for job in message.jobs]
            files = [part for file in message.resources for part in splice.resource_parts(*file)]
            return b"".join(batch_parts(batch, files, len(message.resources)))
        case WorkerOutput():
            return b"".join(splice.entries_parts("worker_output", "output", [e for _, e in message.entries]))
        case WorkerProgress():
            entries = [entry for _, entry in message.entries]
            return b"".join(splice.entries_parts("worker_progress", "progress", entries))
        case UnknownMessage():
            raise InvalidMessage("cannot be encoded: nobody knows its fields", path="type")
    return cbor2.dumps(message.to_wire())

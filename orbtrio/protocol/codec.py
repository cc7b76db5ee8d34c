"""Bytes to messages and messages to bytes. The only module that knows the CBOR library.

**Decoding** is strict, since everything here comes from strangers. The library's defaults are a denial of service: 64 KiB of decimal fraction
take seconds, and 258 bytes of shared references expand to gigabytes. So: definite lengths, text keys, each once, 64 levels, nothing behind
the message, and tags are never interpreted. A tag that the library knows would be decoded into whatever it names; `_Tags`
hands every one of them back as an opaque `cbor2.CBORTag`, which may only stand where a value passes through unread. Messages beyond 64 KiB are
walked first (see `scan`), for then even the harmless can cost too much.

**Encoding** happens in pieces. A job is encoded once, when it is accepted, and its bytes are joined to others' in batch after batch, so no batch
and no response is ever encoded as a whole. Hence the many small functions that return bytes, and `*_parts`, which return
what the transport joins.

Rejected: a decoder object per message (twice the time), a hand-written decoder for requests (4.4 µs a job against 1.4), a library of higher
speed (those are dag-cbor, which sorts keys and knows no tags, or unkept).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import cbor2

from orbtrio.errors import DecodeError, InvalidMessage
from orbtrio.protocol import references, scan
from orbtrio.protocol.messages import (
    JobBatch,
    Message,
    RegisterClient,
    RegisterWorker,
    Resource,
    UnknownMessage,
    WorkerOutput,
    WorkerRequest,
    WorkerResponse,
)

__all__ = [
    "batch_parts",
    "decode",
    "decode_item",
    "encode",
    "encode_flat_job",
    "encode_job",
    "error_output",
    "output_entry",
    "request_job",
    "request_parts",
    "resource_entry",
    "response_head",
]

# Up to here the worst message costs 50 ms to decode unwalked (65,000 empty maps), and the walk would cost every request 4 µs a job.
_WALK_ABOVE: Final = 64 * 1024

# Below, decoding an output is faster than walking it.
_SPLIT_ABOVE: Final = 1500

# Longest `error` text of a worker that is passed on. It ends in logs and exceptions; 10 MB of traceback help nobody.
_MAX_ERROR_BYTES: Final = 8 * 1024

_TYPED_ARRAY: Final = 64  # JavaScript's Uint8Array
_SELF_DESCRIBED: Final = 55799  # "this is CBOR", allowed once around a message

# The library accepts bytes behind the item. Decoding [item, mark] tells at no cost whether the item ended where it should: the second
# member is then the mark, which nobody outside can guess. Reading from a stream instead, to see where it stopped, doubles the time.
_MARK: Final = int.from_bytes(os.urandom(8), "big") | 1 << 63
_MARK_ITEM: Final = b"\x1b" + _MARK.to_bytes(8, "big")


# --- The decoding profile ----------------------------------------------------------------------------------------------


class _Tags(Mapping[int, Callable[[Any, bool], object]]):
    """How to decode each tag: not at all.

    The library asks here before it decodes a tag's content; only a LookupError would make it fall back to its own decoders.

    Attributes:
        seen: Whether the message had any.
    """

    def __init__(self, unwrap_typed_arrays: bool) -> None:
        self.seen = False
        self._unwrap = unwrap_typed_arrays

    def __getitem__(self, tag: int) -> Callable[[Any, bool], object]:
        self.seen = True
        if tag in scan.STRUCTURAL_TAGS:
            raise ValueError(f"tag {tag} is not allowed")
        if tag == _TYPED_ARRAY and self._unwrap:
            return _typed_array
        return lambda value, immutable: cbor2.CBORTag(tag, value)

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _typed_array(value: Any, immutable: bool) -> object:
    return value if type(value) is bytes else cbor2.CBORTag(_TYPED_ARRAY, value)


# The library lets byte strings be keys. Joining refuses them at C speed.
def _text_keys(value: Mapping[Any, Any], immutable: bool) -> Mapping[Any, Any]:
    "".join(value)
    return value


def _load(raw: bytes, tags: _Tags) -> Any:
    """Decode exactly one CBOR item.

    Raises:
        DecodeError: outside the profile. The text says what the library found, and never a payload.
    """
    if len(raw) > _WALK_ABOVE:
        scan.check(raw)
    try:
        item, mark = cbor2.loads(
            b"\x82" + raw + _MARK_ITEM,
            max_depth=scan.MAX_DEPTH + 1,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
            semantic_decoders=tags,
            object_hook=_text_keys,
        )
    except (cbor2.CBORError, ValueError) as error:
        raise DecodeError("not CBOR as this protocol has it") from error
    if mark != _MARK:
        raise DecodeError("bytes behind the message")
    return item


def decode_item(raw: bytes) -> Any:
    """Decode one CBOR item at an endpoint: JavaScript's byte arrays become bytes, other tags stay opaque.

    Raises:
        DecodeError: outside the decoding profile.
    """
    return _load(raw, _Tags(True))


# --- Decoding messages -------------------------------------------------------------------------------------------------


def decode(raw: bytes, *, unwrap_typed_arrays: bool = False) -> Message:
    """The message in `raw`.

    Args:
        raw: One whole binary message.
        unwrap_typed_arrays: At an endpoint: turn JavaScript's byte arrays into bytes. Between endpoints they pass through unchanged.

    Raises:
        DecodeError: not exactly one CBOR map within the profile (1008).
        InvalidMessage: a map, but no valid message (1008).
        ResourceRejected: a resource is too large, missing or unused (1009).
    """
    if len(raw) > _SPLIT_ABOVE:
        entries = scan.split_output(raw, longest_error=_MAX_ERROR_BYTES)
        if entries is not None:
            return WorkerOutput(entries)
    tags = _Tags(unwrap_typed_arrays)
    wire = _load(raw, tags)
    if type(wire) is cbor2.CBORTag and wire.tag == _SELF_DESCRIBED:
        wire = wire.value
    if type(wire) is not dict:
        raise DecodeError("expected a map")
    if tags.seen:
        _settle_tags(wire)
    # ``undefined`` is the byte f7 and nothing else, so most messages need no search for it.
    if b"\xf7" in raw:
        _drop_undefined(wire)
    message_type = wire.get("type")
    if message_type == "worker_request":
        return WorkerRequest.from_wire(wire, may_refer=_may_refer(raw))
    if message_type == "worker_output":
        return _output_from_wire(wire)
    if message_type == "worker_response":
        return WorkerResponse.from_wire(wire)
    if message_type == "i_am_worker":
        return RegisterWorker.from_wire(wire)
    if message_type == "i_am_server":
        return RegisterClient.from_wire(wire)
    if message_type is None and "inputs" in wire:
        return JobBatch.from_wire(wire)
    if type(message_type) is not str:
        raise InvalidMessage("expected text", path="type")
    return UnknownMessage(message_type[:64])


# A search through the bytes beats a walk through the values while the message is small.
def _may_refer(raw: bytes) -> bool:
    return len(raw) > _WALK_ABOVE or references.MARKER.encode() in raw


# The fields whose value, or whose members' fields, pass through unread, with the fields that are read all the same.
_OPAQUE_FIELDS: Final = {
    "jobs": ("job_id", "worker_type"),
    "inputs": ("id", "job_id"),
    "output": ("id", "job_id"),
}


def _settle_tags(wire: dict[str, Any]) -> None:
    """Unwrap the tags that this protocol reads, and refuse all others outside of what passes through.

    Raises:
        InvalidMessage: a tag where none may be.
    """
    for name, value in wire.items():
        if name == "resources" and type(value) is list:
            for index, resource in enumerate(value):
                if type(resource) is dict and type(resource.get("data")) is cbor2.CBORTag:
                    resource["data"] = _unwrapped(resource["data"])
                _refuse_tags(resource, f"resources[{index}]")
        elif name in _OPAQUE_FIELDS:
            for index, member in enumerate(value if type(value) is list else [value]):
                if type(member) is cbor2.CBORTag:
                    raise InvalidMessage("a tag is not allowed here", path=f"{name}[{index}]")
                if type(member) is dict:
                    for field in _OPAQUE_FIELDS[name]:
                        _refuse_tags(member.get(field), f"{name}[{index}].{field}")
        else:
            _refuse_tags(value, name)


def _unwrapped(tagged: Any) -> object:
    return tagged.value if tagged.tag == _TYPED_ARRAY and type(tagged.value) is bytes else tagged


def _refuse_tags(value: object, path: str) -> None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is cbor2.CBORTag:
            raise InvalidMessage("a tag is not allowed here", path=path)
        if type(item) is dict:
            waiting.extend(item.values())
        elif type(item) is list:
            waiting.extend(item)


def _drop_undefined(wire: dict[str, Any]) -> None:
    """Remove ``undefined`` from the fields that we read: JavaScript sends it for what is absent."""
    for name in [name for name, value in wire.items() if value is cbor2.undefined]:
        del wire[name]
    maps = [wire.get("worker_config")]
    for members in (wire.get("resources"), wire.get("jobs"), wire.get("inputs")):
        if type(members) is list:
            maps += members
    for fields in maps:
        if type(fields) is dict:
            for name in _READ_FIELDS & fields.keys():
                if fields[name] is cbor2.undefined:
                    del fields[name]


# The fields, one level down, that we read. Others pass through with whatever they hold.
_READ_FIELDS: Final = frozenset(
    {
        *("worker_type", "max_batch_size", "max_latency_ms"),
        *("eager", "max_unanswered_batches", "max_message_bytes", "extensions"),
        *("id", "type", "data", "job_id", "input"),
    }
)


def _output_from_wire(wire: dict[str, Any]) -> WorkerOutput:
    members = wire.get("output")
    if type(members) is not list:
        raise InvalidMessage("expected a list", path="output")
    entries: list[tuple[str, bytes]] = []
    for member in members:
        if type(member) is not dict:
            continue
        job_id = member.get("id", cbor2.undefined)
        if job_id is cbor2.undefined:
            job_id = member.get("job_id")
        if type(job_id) is not str:
            continue
        entry = cbor2.dumps(member)
        if len(entry) > _MAX_ERROR_BYTES:
            entry = _with_short_error(member, entry)
        entries.append((job_id, entry))
    return WorkerOutput(entries, len(members) - len(entries))


def _with_short_error(member: dict[str, Any], entry: bytes) -> bytes:
    error = member.get("error")
    if type(error) is not str:
        return entry
    text = error.encode()
    if len(text) <= _MAX_ERROR_BYTES:
        return entry
    return cbor2.dumps({**member, "error": text[:_MAX_ERROR_BYTES].decode(errors="ignore")})


# --- Encoding ----------------------------------------------------------------------------------------------------------

_dumps = cbor2.dumps


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes((major | argument,))
    size = 1 if argument < 256 else 2 if argument < 65536 else 4
    return bytes((major | 24 + size.bit_length() - 1,)) + argument.to_bytes(size, "big")


def encode_job(job_id: str, input: dict[str, Any], extra: Mapping[str, Any] | None = None) -> bytes:
    """One member of a batch: ``{id, input, ...extra}``. `extra` never shadows the other two."""
    if extra:
        passed = {name: value for name, value in extra.items() if name not in ("id", "input")}
        return _dumps({"id": job_id, "input": input, **passed})
    return b"\xa2\x62id%b\x65input%b" % (_dumps(job_id), _dumps(input))


def encode_flat_job(
    job_id: str, input: dict[str, Any], extra: Mapping[str, Any] | None, timestamp_ms: float
) -> bytes:
    """One member of a batch as workers of the public engine read it: the input's fields stand beside ``id``.

    A field of the input wins over an extra one and over ``timestamp``, nothing wins over ``id``.
    """
    return _dumps({"timestamp": float(timestamp_ms), **(extra or {}), **input, "id": job_id})


def batch_parts(jobs: Sequence[bytes]) -> list[bytes]:
    """A batch of encoded jobs."""
    return [b"\xa1\x66inputs" + _head(0x80, len(jobs)), *jobs]


def response_head(client_job_id: Any) -> bytes:
    """The start of a ``worker_response``; the encoded output is the rest."""
    return b"\xa3\x64type\x6fworker_response\x66job_id%b\x66output" % _dumps(client_job_id)


def error_output(text: str, kind: str) -> bytes:
    """The output of a job that the engine itself ended."""
    return _dumps({"error": text, "error_kind": kind})


def output_entry(job_id: str, fields: Mapping[str, Any]) -> bytes:
    """One entry of a ``worker_output``.

    Raises:
        InvalidMessage: a field holds what the protocol cannot carry.
    """
    return _encode_own({**fields, "id": job_id}, "output")


def request_job(
    client_job_id: Any, worker_type: str, input: Mapping[str, Any], extra: Mapping[str, Any] | None = None
) -> bytes:
    """One job of a ``worker_request``.

    Raises:
        InvalidMessage: a field holds what the protocol cannot carry.
    """
    return _encode_own(
        {**(extra or {}), "job_id": client_job_id, "worker_type": worker_type, "input": input}, "job"
    )


def resource_entry(resource: Resource) -> bytes:
    """One member of ``resources``."""
    data = resource.data.decode() if resource.kind == "document" else resource.data
    return _dumps({"id": resource.resource_id, "type": resource.kind, "data": data})


def request_parts(resources: Sequence[bytes], jobs: Sequence[bytes]) -> list[bytes]:
    """A ``worker_request`` of encoded resources and jobs."""
    parts = [b"\xa3" if resources else b"\xa2", b"\x64type\x6eworker_request"]
    if resources:
        parts += [b"\x69resources" + _head(0x80, len(resources)), *resources]
    return [*parts, b"\x64jobs" + _head(0x80, len(jobs)), *jobs]


def _encode_own(value: dict[str, Any], path: str) -> bytes:
    # What a program hands us may hold anything; what the other end would refuse must fail here, where the mistake is.
    try:
        raw = _dumps(value)
    except (cbor2.CBORError, ValueError, TypeError) as error:
        raise InvalidMessage(f"cannot be encoded: {error}", path=path) from error
    try:
        scan.check(raw)
    except DecodeError as error:
        raise InvalidMessage(str(error), path=path) from error
    return raw


def encode(message: Message) -> bytes:
    """The bytes of `message`."""
    match message:
        case RegisterWorker():
            return _dumps({"type": "i_am_worker", **_worker_fields(message)})
        case RegisterClient():
            fields = {"version": message.version, "token": message.token}
            present: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
            if message.extensions:
                present["extensions"] = sorted(message.extensions)
            return _dumps({"type": "i_am_server", **present})
        case WorkerRequest():
            return b"".join(
                request_parts(
                    [resource_entry(resource) for resource in message.resources],
                    [
                        request_job(job.client_job_id, job.worker_type, job.input, job.extra)
                        for job in message.jobs
                    ],
                )
            )
        case JobBatch():
            return b"".join(
                batch_parts([encode_job(job.job_id, job.input, job.extra) for job in message.jobs])
            )
        case WorkerOutput():
            entries = [entry for _, entry in message.entries]
            return b"".join(
                [b"\xa2\x64type\x6dworker_output\x66output" + _head(0x80, len(entries)), *entries]
            )
        case WorkerResponse():
            return response_head(message.client_job_id) + _dumps(message.output)
        case UnknownMessage():
            raise InvalidMessage("cannot be encoded: its fields were not kept", path="type")


def _worker_fields(message: RegisterWorker) -> dict[str, Any]:
    config: dict[str, Any] = {
        "worker_type": message.worker_type,
        "max_batch_size": message.max_batch_size,
        "max_latency_ms": max(1, round(message.max_latency * 1000)),
        "max_message_bytes": message.max_message_bytes,
    }
    if message.eager:
        config["eager"] = True
    if message.max_unanswered_batches is not None:
        config["max_unanswered_batches"] = message.max_unanswered_batches
    if message.extensions:
        config["extensions"] = sorted(message.extensions)
    return {"worker_secret": message.worker_secret, "worker_config": config}

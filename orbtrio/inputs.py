"""Images and documents as values inside a job's input.

A program writes ``{"filepath": Image("frame.jpg")}``; the worker reads ``{"filepath": "/…/frame.jpg"}``. In
between, `attach` exchanges each value for a reference and hands back the resources that it stands for.

A resource's id is the digest of its bytes. Whoever packs several jobs into one request therefore needs no
table to send identical bytes once: equal id, equal bytes. Rejected: counters as ids, which tie a job's
encoded form to one request, so that it could not be packed anew after a lost connection.

Inputs without such values are never searched here. The encoder refuses a value that is not CBOR anyway, so
its refusal is what makes a caller come to `attach`, and plain inputs pay nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import attrs
import trio

from orbtrio.errors import InvalidMessage, ResourceRejected
from orbtrio.protocol.messages import MAX_RESOURCE_BYTES, Resource
from orbtrio.protocol.references import MARKER

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Document", "Image", "attach"]

# Below this a digest costs less than the way to a thread and back (about 100 us).
_INLINE_BYTES: Final = 64 * 1024

# What a decoder accepts at most (P-50). Deeper input has the mistake of holding itself, more often than not.
_MAX_DEPTH: Final = 64


def _image_source(source: object) -> bytes | Path:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, (str, Path)):
        return Path(source)
    raise TypeError(
        f"Image takes the bytes of an encoded image (PNG, JPEG) or a file's path, not {type(source).__name__}"
    )


def _document_source(source: object) -> str | Path:
    if isinstance(source, (str, Path)):
        return source
    raise TypeError(f"Document takes text, or a file's path as pathlib.Path, not {type(source).__name__}")


@attrs.frozen(repr=False)
class Image:
    """An image in a job's input, at any depth; the worker finds a file's path in its place.

    Attributes:
        source: The encoded image (PNG, JPEG, …), at most 2 MiB, or the path of a file that holds it. A file
            is read when the job is submitted.

    Spec: "Resource Reference Model".
    """

    source: bytes | Path = attrs.field(converter=_image_source)

    def __repr__(self) -> str:
        return f"Image({_describe(self.source)})"

    async def load(self) -> Resource:
        """The resource that this image is sent as. Files are read, and large data digested, in a thread.

        Raises:
            ResourceRejected: larger than 2 MiB: scale the image down or compress it more.
            OSError: the file cannot be read.
        """
        return await _load("image", self.source)


@attrs.frozen(repr=False)
class Document:
    """A text in a job's input, at any depth; the worker finds a file's path in its place.

    Attributes:
        source: The text itself (`str`), or a `pathlib.Path` of a UTF-8 file, read when the job is submitted.
            At most 2 MiB of UTF-8.

    Spec: "Resource Reference Model".
    """

    source: str | Path = attrs.field(converter=_document_source)

    def __repr__(self) -> str:
        return f"Document({_describe(self.source)})"

    async def load(self) -> Resource:
        """The resource that this document is sent as. Files are read, and large data digested, in a thread.

        Raises:
            ResourceRejected: larger than 2 MiB: split it.
            InvalidMessage: no valid Unicode, or a file that is not UTF-8.
            OSError: the file cannot be read.
        """
        return await _load("document", self.source)


_Kind: TypeAlias = Literal["image", "document"]
_Source: TypeAlias = bytes | str | Path

_ADVICE: Final = {
    "image": "scale it down, or compress it more, before submitting it",
    "document": "split it before submitting it",
}


def _describe(source: _Source) -> str:
    if isinstance(source, Path):
        return repr(str(source))
    return f"{len(source)} {'bytes' if isinstance(source, bytes) else 'characters'}"


async def _load(kind: _Kind, source: _Source) -> Resource:
    if isinstance(source, Path) or len(source) > _INLINE_BYTES:
        # A hung network disk must not hold up a cancelled submit: the thread only reads, so nobody needs its
        # end.
        return await trio.to_thread.run_sync(_make_resource, kind, source, abandon_on_cancel=True)
    return _make_resource(kind, source)


def _make_resource(kind: _Kind, source: _Source) -> Resource:
    try:
        data, size = _read(source)
        if size > MAX_RESOURCE_BYTES:
            raise ResourceRejected(
                f"{size} bytes are more than the {MAX_RESOURCE_BYTES} (2 MiB) of a resource: {_ADVICE[kind]}",
                path=kind,
            )
        if kind == "document" and isinstance(source, Path):
            data.decode()
    except UnicodeError:
        where = str(source) if isinstance(source, Path) else "this text"
        raise InvalidMessage(f"{where} is not valid UTF-8, as documents must be", path=kind) from None
    return Resource(f"{kind}-{hashlib.blake2b(data, digest_size=16).hexdigest()}", kind, data)


# The content, cut just above the limit, and its whole size: a wrong path may name a disk image of a terabyte.
def _read(source: _Source) -> tuple[bytes, int]:
    if isinstance(source, str):
        source = source.encode()
    if isinstance(source, bytes):
        return source, len(source)
    with source.open("rb") as file:
        data = file.read(MAX_RESOURCE_BYTES + 1)
        return data, max(len(data), source.stat().st_size)


async def attach(job_input: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Resource, ...]]:
    """Exchange the images and documents in an input for references.

    Args:
        job_input: May hold `Image` and `Document` values at any depth of maps and lists. It is not changed.

    Returns:
        A copy with references in their places, and the resources that they refer to, identical bytes once.

    Raises:
        ResourceRejected: a value is larger than 2 MiB; the text says what to change.
        InvalidMessage: a document is no UTF-8, or the input holds itself or is nested more than 64 deep.
        OSError: a file cannot be read.

    Cancelling is safe. Spec: "Resource Reference Model".
    """
    result = dict(job_input)
    resources: dict[str, Resource] = {}
    # One value in several places is read once.
    ids: dict[int, str] = {}
    for container, key, value in _places(result):
        resource_id = ids.get(id(value))
        if resource_id is None:
            resource = await value.load()
            resource_id = ids[id(value)] = resource.resource_id
            resources[resource_id] = resource
        container[key] = {"__type": MARKER, "id": resource_id}
    return result, tuple(resources.values())


# Every place below `result` that holds a value. Containers on the way are replaced by copies, so that the
# places are ours to fill.
def _places(result: dict[str, Any]) -> list[tuple[Any, Any, Image | Document]]:
    found: list[tuple[Any, Any, Image | Document]] = []
    waiting: list[tuple[Any, int]] = [(result, 1)]
    while waiting:
        container, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise InvalidMessage(f"nested more than {_MAX_DEPTH} deep, or inside itself", path="input")
        members = list(container.items()) if type(container) is dict else list(enumerate(container))
        for key, item in members:
            if isinstance(item, (Image, Document)):
                found.append((container, key, item))
            elif isinstance(item, (dict, list, tuple)):
                container[key] = copy = dict(item) if isinstance(item, dict) else list(item)
                waiting.append((copy, depth + 1))
    return found

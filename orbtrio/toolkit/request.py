"""The body of a POST to ``/process``: fields in the order of the old toolkit, then the file.

Engines that have run under the old toolkit for years must not see a difference: the same fields in the same
order, integers as decimal text, empty texts where nothing is known, the chunk last and always under the same
file name and type, and a Content-Length, for some of them read exactly so much. Fields that the old toolkit
had not stand between its own and the file.

The file is read while it is sent, in pieces, so a chunk may be as large as the disk. Small ones, which are
most, leave together with the fields in one write. Rejected: httpx2's own multipart, which sets other headers
on the file, reads it in the event loop however large it is, and writes once per field; and `sendfile`, which
it has no way to.

Values may come from anybody and are safe by the boundary, which nobody can guess. Names of metadata stand in
headers, so what could end the name or the header there is escaped as browsers do it.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import stat
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs
import httpx2
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from orbtrio.toolkit.items import Item

__all__ = ["MultipartBody", "Surroundings", "open_body", "process_fields"]

# As many as the old toolkit's.
_BOUNDARY_BYTES: Final = 30

# A file up to this size is read in the event loop: it comes from the page cache in less than a thread's start
# takes (100 us). Larger ones are read in threads, in pieces of the second size.
_SMALL_FILE: Final = 64 * 1024
_PIECE: Final = 1024 * 1024

_CHUNK_HEAD: Final = (
    b'Content-Disposition: form-data; name="chunk"; filename="chunk.data"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
)

# What would end a quoted name, or its header, or begin an escape in it.
_UNSAFE: Final = re.compile(r'[\x00-\x1f\x7f"\\]')


@attrs.frozen(kw_only=True)
class Surroundings:
    """What an engine is given around its task: addresses that it may call and directories that are there.

    Attributes:
        cache_uri: Where to read the input; empty if there is none.
        heartbeat_webhook: Where to post heartbeats.
        result_webhook: Where to post results.
        external_webhook: The same for an outside party.
        task_directory: For what the task writes while it runs.
        engine_directory: Shared by all instances of the engine.
        library_directory: For the models of the task's library; None if it has none.
        redis_url: Where keys are kept; None if they are not.
        controller_token: What the engine must show the Controller; None if there is none.
    """

    cache_uri: str = attrs.field(repr=False)
    heartbeat_webhook: str = attrs.field(repr=False)
    result_webhook: str = attrs.field(repr=False)
    external_webhook: str = attrs.field(repr=False)
    task_directory: Path
    engine_directory: Path
    library_directory: Path | None = None
    redis_url: str | None = None
    controller_token: str | None = attrs.field(default=None, repr=False)


def process_fields(item: Item, around: Surroundings) -> list[tuple[str, str]]:
    """The fields of the form in their order, without the file."""
    task = item.task
    fields = [
        ("chunkMimeType", task.chunk_mime_type),
        ("chunkIndex", str(task.chunk_index)),
        ("startOffsetMS", str(task.start_offset_ms)),
        ("endOffsetMS", str(task.end_offset_ms)),
        ("width", str(task.width)),
        ("height", str(task.height)),
        ("libraryId", task.library_id),
        ("libraryEngineModelId", task.library_engine_model_id),
        ("cacheURI", around.cache_uri),
        ("veritoneApiBaseUrl", task.veritone_api_base_url),
        ("token", task.token),
        ("payload", task.payload_text),
        # So far the old toolkit.
        ("chunkContext", item.chunk_context),
        ("heartbeatWebhook", around.heartbeat_webhook),
        ("resultWebhook", around.result_webhook),
        ("externalCallbackWebhook", around.external_webhook),
        # A whole number, and never less than what the toolkit waits.
        ("maxTTL", str(-int(-task.max_ttl // 1))),
        ("internalJobId", task.internal_job_id),
        ("internalTaskId", task.internal_task_id),
        ("taskTmpDir", str(around.task_directory)),
        ("engineDir", str(around.engine_directory)),
        ("libraryModelDirectory", "" if around.library_directory is None else str(around.library_directory)),
    ]
    fields += [(f"chunk-metadata-{name}", value) for name, value in task.metadata.items()]
    if task.input_folder_id:
        fields.append(("inputFolderID", task.input_folder_id))
    if around.redis_url is not None:
        fields.append(("redisETUrl", around.redis_url))
    if around.controller_token is not None:
        fields.append(("controllerToken", around.controller_token))
    return fields


class MultipartBody(httpx2.AsyncByteStream):
    """A form, encoded; a file in it is read when the body is iterated, once.

    Args:
        fields: Names and values.
        file: Descriptor of the chunk, at its beginning; None for a form without.

    Attributes:
        fields: As they were given.
        content_type: Names the boundary.
        content_length: In bytes. What a file grows by meanwhile is not sent.
    """

    def __init__(self, fields: Sequence[tuple[str, str]], file: int | None) -> None:
        boundary = secrets.token_hex(_BOUNDARY_BYTES)
        self.fields = fields
        self.content_type = f"multipart/form-data; boundary={boundary}"
        line = b"--" + boundary.encode() + b"\r\n"
        parts: list[bytes] = []
        for name, value in fields:
            parts += (line, _head(name), value.encode(errors="replace"), b"\r\n")
        if file is not None:
            parts += (line, _CHUNK_HEAD)
        self._before = b"".join(parts)
        self._file = -1 if file is None else file
        self._left = 0 if file is None else os.fstat(file).st_size
        self._after = (b"" if file is None else b"\r\n") + line[:-2] + b"--\r\n"
        self.content_length = len(self._before) + self._left + len(self._after)

    # No generator: a call that is cancelled leaves it unfinished, and Trio complains of such.
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next piece.

        Raises:
            OSError: the file cannot be read, or has become shorter.
        """
        piece, self._before = self._before, b""
        if self._left <= _SMALL_FILE:
            piece += self._checked(os.read(self._file, self._left), self._left) if self._left else b""
            self._left = 0
            piece, self._after = piece + self._after, b""
        elif not piece:
            wanted = min(self._left, _PIECE)
            piece = self._checked(await trio.to_thread.run_sync(os.read, self._file, wanted), wanted)
            self._left -= wanted
        if not piece:
            raise StopAsyncIteration
        return piece

    # The length is promised by then, so there is no way to send less.
    def _checked(self, data: bytes, wanted: int) -> bytes:
        if len(data) < wanted:
            raise OSError("its file has become shorter while it was sent")
        return data


@asynccontextmanager
async def open_body(fields: Sequence[tuple[str, str]], chunk: Path | None) -> AsyncIterator[MultipartBody]:
    """Open the chunk's file, if there is one, for a body of `fields` and the file.

    Raises:
        OSError: it cannot be opened, or is no file.
    """
    if chunk is None:
        yield MultipartBody(fields, None)
        return
    # In the event loop, for a thread costs more than to open what is there; a pipe must not block it.
    file = os.open(chunk, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(f"{chunk} is not a file")
        yield MultipartBody(fields, file)
    finally:
        os.close(file)


@functools.lru_cache(maxsize=256)
def _head(name: str) -> bytes:
    escaped = _UNSAFE.sub(lambda unsafe: f"%{ord(unsafe[0]):02X}", name)
    return f'Content-Disposition: form-data; name="{escaped}"\r\n\r\n'.encode(errors="replace")

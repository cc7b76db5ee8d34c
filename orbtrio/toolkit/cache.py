"""What a GET of a ``cacheURI`` answers: the chunk's file, or a stream as it grows.

A chunk is a file on this disk. It has a length, and parts of it can be asked for, as readers of media do.

A stream is relayed from where the job says it lies. It may be growing while it is read, so it has no length:
the transfer is chunked, passes on each part as it comes, and ends when the other side ends it. If that breaks
off, or the attempt is over, the engine's connection is cut without the last, empty chunk, so that the engine
cannot take half a stream for a whole. HTTP/1.0 has no chunks and no such difference, so it gets no streams. A
chunk that we were told not to download is relayed too, with the length that the other side gives.

Several GETs are several requests to the other side. Rejected: one that feeds them all, which would have to
keep what the slowest has not read yet, or to make the others wait for it.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from typing import TYPE_CHECKING, Final

import trio
from starlette.responses import FileResponse, PlainTextResponse

from orbtrio.toolkit.fetching import FetchFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from orbtrio.toolkit.fetching import Body, Fetcher
    from orbtrio.toolkit.items import Item
    from orbtrio.toolkit.open_items import OpenItems

__all__ = ["send_input"]

logger = logging.getLogger("orbtrio.toolkit")

_ANY_TYPE: Final = "application/octet-stream"
# Both come from strangers: what is no media type would break the answer's head.
_TYPE: Final = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(?:\s*;[\x20-\x7e]*)?", re.ASCII)


async def send_input(
    item: Item, open_items: OpenItems, fetcher: Fetcher, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer a GET or HEAD with an attempt's input.

    Args:
        item: The attempt.
        open_items: Says when it is over.
        fetcher: Reads streams.
        scope: Of the request, as are the other two.
        receive: Says when the engine has gone.
        send: Takes the answer.
    """
    task = item.task
    if task.chunk is not None:
        await _file(task.chunk, task.chunk_mime_type)(scope, receive, send)
    elif task.cache_uri is None:
        await PlainTextResponse("this task has no input\n", 404)(scope, receive, send)
    elif scope["http_version"] == "1.0":
        await PlainTextResponse("a stream needs HTTP/1.1\n", 505)(scope, receive, send)
    elif scope["method"] == "HEAD":
        await send(_head(task.chunk_mime_type))
        await send({"type": "http.response.body", "body": b""})
    else:
        relay = _Relay(task.chunk_mime_type, send, with_length=task.engine_type == "chunk")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, receive, nursery.cancel_scope)
            with open_items.while_open(item):
                await relay.run(fetcher, task.cache_uri)
            nursery.cancel_scope.cancel()
        if not relay.begun:
            status, text = relay.failure or (410, "the attempt is over")
            await PlainTextResponse(f"{text}\n", status)(scope, receive, send)


class _Relay:
    """One GET of a stream."""

    def __init__(self, mime_type: str, send: Send, *, with_length: bool) -> None:
        self._mime_type = mime_type
        self._with_length = with_length
        self._send = send
        self.begun = False
        self.failure: tuple[int, str] | None = None

    async def run(self, fetcher: Fetcher, url: str) -> None:
        try:
            async with fetcher.stream(url) as body:
                await self._pass_on(body)
        except FetchFailed as failed:
            self.failure = 502, str(failed)
            logger.warning("a stream for the engine: %s", failed)

    async def _pass_on(self, body: Body) -> None:
        self.begun = True
        length = body.length if self._with_length else None
        await self._send(_head(self._mime_type or body.content_type, length))
        async for part in body:
            await self._send({"type": "http.response.body", "body": part, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})


def _file(path: Path, mime_type: str) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    try:
        status = os.stat(path)
    except OSError as error:
        return PlainTextResponse(f"the chunk's file: {error.strerror}\n", 410)
    if not stat.S_ISREG(status.st_mode):
        return PlainTextResponse("the chunk is not a file\n", 410)
    return FileResponse(path, media_type=_media_type(mime_type), stat_result=status)


def _head(mime_type: str, length: int | None = None) -> dict[str, object]:
    headers = [(b"content-type", _media_type(mime_type).encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _media_type(text: str) -> str:
    return text if _TYPE.fullmatch(text) else _ANY_TYPE


# The server says nothing when the engine goes, but here: what is sent afterwards vanishes.
async def _watch(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()

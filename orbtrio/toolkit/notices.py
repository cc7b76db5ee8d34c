"""Notices: what an engine has made of a chunk, posted to whoever the job names in ``sendOutputToUris``.

One POST per output and address, in the order of the outputs. The body is the output as the job's result has
it, JSON, or the bytes of a part that was no JSON. The URL is the page's, which has a slash where one expects
a question mark (ET-115): it is there twice, and receivers were written against it.

Metadata whose name begins with ``x-aiware-`` becomes headers. It may come from whoever pushed the chunk, so
control bytes are dropped, since a line break would begin another header, and what is no header's name is
left out.

A notice is three calls, then it is given up and counted: the chunk is done, whoever hears of it. Nobody waits
for notices, neither a job's answer nor its slot, or one dead server would hold up the engine for half a
minute per chunk. So they are sent by tasks of their own, of which there is a limit: what comes beyond it is
given up at once. The limit of one host is a quarter of it, and so few of its notices are under way at a time,
that the others still hear. When the toolkit ends, what is under way has `LAST_WORDS` seconds; a toolkit that
is killed loses it. Rejected: to keep notices on the disk, for who misses one has the job's answer.

What we log names no addresses, for those carry secrets.
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import attrs
import trio

from orbtrio._nursery import open_service_nursery
from orbtrio.toolkit.fetching import FetchFailed
from orbtrio.toolkit.jobs import json_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from orbtrio.toolkit.fetching import Fetcher
    from orbtrio.toolkit.jobs import TaskInput

__all__ = ["LAST_WORDS", "Notifier", "notice_url", "open_notifier"]

logger = logging.getLogger("orbtrio.toolkit")

# Seconds that are left for notices when the toolkit ends.
LAST_WORDS: Final = 5.0

# Seconds before the second and the third call.
_WAITS: Final = (0.1, 0.2)
# For the notices of a job to one address, from the job's end on; in seconds.
_PATIENCE: Final = 30.0

# Jobs' notices to one address, and their bytes, that may wait or be under way; and for one host.
_MOST: Final = 1000
_MOST_BYTES: Final = 64 << 20
_MOST_OF_A_HOST: Final = _MOST // 4
# Under way at a time to one host. Each is a connection.
_AT_ONCE: Final = 4

_PREFIX: Final = "x-aiware-"
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,200}", re.ASCII)
_TYPE: Final = re.compile(r"[!-~]+/[ -~]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
# Servers take 8 KiB and more for a whole head.
_LONGEST_VALUE: Final = 4096


@attrs.frozen
class _Notice:
    chunk_id: str
    content: bytes
    content_type: str


@attrs.define(eq=False)
class _Host:
    waiting: int = 0
    limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(_AT_ONCE))


class Notifier:
    """Posts outputs to the addresses that jobs name. Made by `open_notifier`.

    Attributes:
        delivered: Notices that were answered with 2xx.
        failed: Notices that were given up.
    """

    def __init__(self, fetcher: Fetcher, nursery: trio.Nursery) -> None:
        self.delivered = 0
        self.failed = 0
        self._fetcher = fetcher
        self._nursery = nursery
        self._hosts: dict[str, _Host] = {}
        self._waiting = 0
        self._bytes = 0
        self._idle = trio.lowlevel.ParkingLot()

    def send(self, task: TaskInput, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Begin to post the outputs of a task that has succeeded. Whatever becomes of it, nothing is raised.

        Args:
            task: Names the addresses.
            outputs: Maps with ``index`` and ``output``, and ``mimeType`` where that is bytes.
        """
        if not task.send_output_to or not outputs:
            return
        produced = int(time.time())
        try:
            notices = [_notice(task, output, len(outputs)) for output in outputs]
        # The engine's work is done and must not be lost over a notice, whatever odd output it is about.
        except Exception:
            logger.exception("notices of task %s", task.internal_task_id)
            self.failed += len(outputs) * len(task.send_output_to)
            return
        metadata = _headers(task.metadata)
        size = sum(len(notice.content) for notice in notices)
        for uri in task.send_output_to:
            name = _host(uri)
            host = self._hosts.get(name) or _Host()
            if (
                host.waiting >= _MOST_OF_A_HOST
                or self._waiting >= _MOST
                or (self._waiting and self._bytes + size > _MOST_BYTES)
            ):
                self._give_up(task, len(notices), len(notices), "too many others wait")
                continue
            self._hosts[name] = host
            host.waiting += 1
            self._waiting += 1
            self._bytes += size
            self._nursery.start_soon(self._serve, uri, task, notices, metadata, produced)

    async def wait_idle(self) -> None:
        """Wait until no notice is under way."""
        while self._waiting:
            await self._idle.park()

    async def _serve(
        self,
        uri: str,
        task: TaskInput,
        notices: Sequence[_Notice],
        metadata: Mapping[str, str],
        produced: int,
    ) -> None:
        name = _host(uri)
        host = self._hosts[name]
        delivered, problem = 0, "no time was left"
        try:
            with trio.move_on_after(_PATIENCE):
                async with host.limiter:
                    for notice in notices:
                        url = notice_url(uri, task, chunk_id=notice.chunk_id, timestamp=produced)
                        headers = {"content-type": notice.content_type, **metadata}
                        failure = await self._deliver(url, notice.content, headers)
                        if failure is None:
                            delivered += 1
                        else:
                            problem = failure
        # Nobody waits for this, so nobody else would hear; and it must not end the others.
        except Exception:
            logger.exception("notices of task %s", task.internal_task_id)
        finally:
            self.delivered += delivered
            if delivered < len(notices):
                self._give_up(task, len(notices) - delivered, len(notices), problem)
            self._bytes -= sum(len(notice.content) for notice in notices)
            self._waiting -= 1
            host.waiting -= 1
            if not host.waiting:
                del self._hosts[name]
            if not self._waiting:
                self._idle.unpark_all()

    # None, or why not.
    async def _deliver(self, url: str, content: bytes, headers: Mapping[str, str]) -> str | None:
        failure = ""
        for wait in (0, *_WAITS):
            await trio.sleep(wait)
            try:
                status = await self._fetcher.post(url, content, headers)
            except FetchFailed as failed:
                failure = failed.message
            else:
                if 200 <= status < 300:
                    return None
                failure = f"answered with {status}"
        return failure

    def _give_up(self, task: TaskInput, lost: int, count: int, problem: str) -> None:
        self.failed += lost
        logger.warning(
            "task %s: %d of %d notices were not delivered: %s", task.internal_task_id, lost, count, problem
        )


@asynccontextmanager
async def open_notifier(fetcher: Fetcher) -> AsyncIterator[Notifier]:
    """Open a notifier. What is under way at the end of the block has `LAST_WORDS` seconds.

    Args:
        fetcher: Sends the requests, to whom it may.
    """
    async with open_service_nursery() as nursery:
        notifier = Notifier(fetcher, nursery)
        try:
            yield notifier
        finally:
            with trio.move_on_after(LAST_WORDS):
                await notifier.wait_idle()


def notice_url(uri: str, task: TaskInput, *, chunk_id: str, timestamp: int) -> str:
    """Where a notice goes, ET-115.

    Args:
        uri: The address that the job names.
        task: Whose ids it holds.
        chunk_id: Of the output.
        timestamp: When it was produced, in seconds since 1970.
    """
    values = {
        "internalJobID": task.internal_job_id,
        "internalTaskID": task.internal_task_id,
        "jobID": task.job_id,
        "taskID": task.task_id,
        "chunkID": chunk_id,
        "timestamp": str(timestamp),
    }
    address = uri.partition("#")[0]
    joint = "&" if "?" in address else "/"
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in values.items())
    return f"{address.removesuffix('/') if joint == '/' else address}{joint}{query}"


# Whoever answers there; as good as any name where it is no URL, for that fails by itself.
def _host(uri: str) -> str:
    try:
        return urlsplit(uri).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""


def _notice(task: TaskInput, output: Mapping[str, Any], count: int) -> _Notice:
    return _Notice(_chunk_id(task, output, count), *_content(output))


# The chunk's number; with more than one output, the output's behind it.
def _chunk_id(task: TaskInput, output: Mapping[str, Any], count: int) -> str:
    return str(task.chunk_index) if count == 1 else f"{task.chunk_index}.{output['index']}"


def _content(output: Mapping[str, Any]) -> tuple[bytes, str]:
    value = output["output"]
    if not isinstance(value, bytes):
        return json_text(value).encode(), "application/json"
    mime_type = output.get("mimeType", "")
    return value, mime_type if _TYPE.fullmatch(mime_type) else "application/octet-stream"


def _headers(metadata: Mapping[str, str]) -> dict[str, str]:
    headers = {}
    for key, text in metadata.items():
        name, value = key.lower(), _CONTROL.sub("", text).strip()
        if name.startswith(_PREFIX):
            if _NAME.fullmatch(name) and len(value) <= _LONGEST_VALUE:
                headers[name] = value
            else:
                logger.warning("metadata of %d characters cannot be a header and is left out", len(text))
    return headers

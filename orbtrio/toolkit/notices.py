"""Notices: what an engine has made of a chunk, posted to whoever the job names in ``sendOutputToUris``.

One POST per output and address, in the order of the outputs. The body is the output as the job's result has
it, JSON, or the bytes of a part that was no JSON. The URL is the page's, which has a slash where one expects
a question mark (ET-115): it is there twice, and receivers were written against it.

Metadata whose name begins with ``x-aiware-`` becomes headers. It may come from whoever pushed the chunk, so
control bytes are dropped, since a line break would begin another header, and what is no header's name is
left out.

A notice is three calls, then it is given up and counted: the chunk is done, whoever hears of it. Addresses
are served side by side and the whole of it has an end in time, since the job waits: see `handler`. What we
log names hosts only, for addresses carry secrets.
"""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import trio

from orbtrio.toolkit.fetching import FetchFailed
from orbtrio.toolkit.jobs import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orbtrio.toolkit.fetching import Fetcher
    from orbtrio.toolkit.jobs import TaskInput

__all__ = ["Notifier", "notice_url"]

logger = logging.getLogger("orbtrio.toolkit")

# Seconds before the second and the third call.
_WAITS: Final = (0.1, 0.2)
# For all notices of a job, in seconds.
_PATIENCE: Final = 30.0

_PREFIX: Final = "x-aiware-"
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,200}", re.ASCII)
_TYPE: Final = re.compile(r"[!-~]+/[ -~]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
# Servers take 8 KiB and more for a whole head.
_LONGEST_VALUE: Final = 4096


class Notifier:
    """Posts outputs to the addresses that jobs name.

    Args:
        fetcher: Sends the requests, to whom it may.

    Attributes:
        delivered: Notices that were answered with 2xx.
        failed: Notices that were given up.
    """

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self.delivered = 0
        self.failed = 0

    async def send(self, task: TaskInput, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Post the outputs of a task that has succeeded. Whatever becomes of that, nothing is raised.

        Args:
            task: Names the addresses.
            outputs: Maps with ``index`` and ``output``, and ``mimeType`` where that is bytes.
        """
        if not task.send_output_to or not outputs:
            return
        produced = int(time.time())
        metadata = _headers(task.metadata)
        try:
            with trio.move_on_after(_PATIENCE):
                async with trio.open_nursery() as nursery:
                    for uri in task.send_output_to:
                        nursery.start_soon(self._serve, uri, task, outputs, metadata, produced)
        # The engine's work is done and must not be lost over a notice, whatever odd output it is about.
        except Exception:
            logger.exception("notices of task %s", task.internal_task_id)

    async def _serve(
        self,
        uri: str,
        task: TaskInput,
        outputs: Sequence[Mapping[str, Any]],
        metadata: Mapping[str, str],
        produced: int,
    ) -> None:
        delivered, problem = 0, "no time was left"
        try:
            for output in outputs:
                chunk_id = _chunk_id(task, output, len(outputs))
                url = notice_url(uri, task, chunk_id=chunk_id, timestamp=produced)
                content, content_type = _content(output)
                failure = await self._deliver(url, content, {"content-type": content_type, **metadata})
                if failure is None:
                    delivered += 1
                else:
                    problem = failure
        finally:
            self.delivered += delivered
            if lost := len(outputs) - delivered:
                self.failed += lost
                logger.warning(
                    "task %s: %d of %d notices were not delivered: %s",
                    *(task.internal_task_id, lost, len(outputs), problem),
                )

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

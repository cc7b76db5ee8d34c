"""One call of an engine: what came with it, and how to answer beside the response.

Everything blocks, since engines compute in threads. A toolkit that has given the task up answers 404 or 410;
the next word of the engine's then raises `TaskOver`, so that a loop which reports stops by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import quote

from orbtrio.toolkit.engine.libraries import keep_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx2

__all__ = ["EngineFailure", "Keys", "Task", "TaskOver"]

_METADATA: Final = "chunk-metadata-"
_BLOCK: Final = 64 * 1024
_OVER: Final = (404, 410)


class EngineFailure(Exception):
    """Raise it to say why a task has failed.

    Args:
        reason: One of the page's values, such as ``invalid_data`` or ``external_error``.
        message: For people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class TaskOver(Exception):
    """The toolkit waits for this task no more; let it pass."""


class Keys:
    """Values that the chunks of a job, or of a task, share."""

    def __init__(self, client: httpx2.Client, base: str) -> None:
        self._client = client
        self._base = base

    def get(self, key: str) -> bytes | None:
        """A value; None if there is none, or none any more."""
        answer = self._client.get(self._url(key))
        return None if answer.status_code == 404 else answer.raise_for_status().content

    def set(self, key: str, value: bytes, *, seconds: int | None = None) -> None:
        """Keep a value, for a day if nothing else is said. It cannot be empty."""
        query = "" if seconds is None else f"?ttlInSeconds={seconds}"
        self._client.post(self._url(key) + query, content=value).raise_for_status()

    def _url(self, key: str) -> str:
        return f"{self._base}/{quote(key, safe='')}"


class Task:
    """One call of ``/process``.

    Args:
        fields: The form's fields.
        chunk: The form's file, if there is one; closed by `close`.
        client: To call the toolkit with.

    Attributes:
        fields: As they came.
        payload: The task's payload.
        metadata: Of the chunk, the prefix taken off.
        cancelled: The toolkit waits for it no more.
        counters: ``bytesRead``, ``bytesWritten``, ``messagesWritten``: go along with each heartbeat.
    """

    def __init__(self, fields: Mapping[str, str], chunk: IO[bytes] | None, client: httpx2.Client) -> None:
        self.fields = MappingProxyType(dict(fields))
        self.payload: Mapping[str, Any] = _mapping(fields.get("payload", ""))
        self.metadata = {
            name.removeprefix(_METADATA): value
            for name, value in fields.items()
            if name.startswith(_METADATA)
        }
        self.cancelled = False
        self.counters = {"bytesRead": 0, "bytesWritten": 0, "messagesWritten": 0}
        self._chunk = chunk
        self._client = client

    # --- Input ------------------------------------------------------------------------------------------

    def read(self) -> bytes:
        """The whole input: the chunk that came along, or what lies at cacheURI."""
        return b"".join(self.stream())

    def stream(self) -> Iterator[bytes]:
        """The input in parts, as it comes: that of a stream ends when its source does."""
        if self._chunk is not None:
            self._chunk.seek(0)
            while data := self._chunk.read(_BLOCK):
                yield data
        elif uri := self.fields.get("cacheURI"):
            with self._client.stream("GET", uri) as answer:
                answer.raise_for_status()
                yield from answer.iter_bytes()

    @property
    def mime_type(self) -> str:
        """Of the chunk."""
        return self.fields.get("chunkMimeType", "")

    def number(self, field: str) -> int:
        """A field that is a number, such as ``startOffsetMS``; 0 if it is missing."""
        return int(self.fields.get(field) or 0)

    # --- Directories and keys ---------------------------------------------------------------------------

    @property
    def scratch_directory(self) -> Path:
        """For this task alone; deleted some days later."""
        return Path(self.fields["taskTmpDir"])

    @property
    def engine_directory(self) -> Path:
        """Shared by all instances of the engine."""
        return Path(self.fields["engineDir"])

    def library(self, download: Callable[[Path], None]) -> Path:
        """The library's model, downloaded if no instance has done so yet; see `keep_library`."""
        return keep_library(Path(self.fields["libraryModelDirectory"]), download)

    @property
    def job_keys(self) -> Keys | None:
        """What the chunks of the job share; None where there is no Redis."""
        return self._keys("j", "internalJobId")

    @property
    def task_keys(self) -> Keys | None:
        """What the chunks of the task share; None where there is no Redis."""
        return self._keys("t", "internalTaskId")

    def _keys(self, kind: str, field: str) -> Keys | None:
        base = self.fields.get("redisETUrl")
        return Keys(self._client, f"{base}/keys/{kind}{self.fields[field]}") if base else None

    # --- Answers beside the response --------------------------------------------------------------------

    def heartbeat(self, status: str = "running", **fields: Any) -> None:
        """Say how it goes; ``infoMs="…"`` in words. An asynchronous engine's are sent by themselves.

        Raises:
            TaskOver: nobody waits for the task.
        """
        self._post("heartbeatWebhook", {"status": status, **self.counters, **fields})

    def result(self, output: Any, *, start_ms: int | None = None, end_ms: int | None = None) -> None:
        """Hand in a piece of work, in the vtn-standard.

        Args:
            output: What was found.
            start_ms: Where in the input it begins, in milliseconds.
            end_ms: Where it ends.

        Raises:
            TaskOver: nobody waits for the task.
        """
        offsets = {"startOffsetMs": start_ms, "endOffsetMs": end_ms}
        known = {name: value for name, value in offsets.items() if value is not None}
        context = {"chunkContext": self.fields["chunkContext"]}
        self._post("resultWebhook", {**context, **known, "output": output})
        self.counters["messagesWritten"] += 1

    def _post(self, webhook: str, document: dict[str, Any]) -> None:
        if self.cancelled:
            raise TaskOver
        answer = self._client.post(self.fields[webhook], json=document)
        if answer.status_code in _OVER:
            self.cancelled = True
            raise TaskOver
        answer.raise_for_status()

    def close(self) -> None:
        """Let the chunk go."""
        if self._chunk is not None:
            self._chunk.close()


def _mapping(text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text or "{}")
    except ValueError:
        return {}
    return document if isinstance(document, Mapping) else {}

"""One call of an engine: what came with it, and how to answer beside the response.

Everything blocks, since engines compute in threads. A toolkit that has given the task up hangs up, or
answers 404 or 410; the next word of the engine's then raises `TaskOver`, so that a loop which reports stops
by itself.

What the toolkit does not send, or refuses, is an `EngineFailure` that says so, and goes back to it as any
other. The URLs that it gives hold tokens and get into no text: a client's own exceptions would quote them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx2

from orbtrio.toolkit.engine.libraries import keep_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["EngineFailure", "Keys", "Task", "TaskOver"]

_METADATA: Final = "chunk-metadata-"
_BLOCK: Final = 64 * 1024
_OVER: Final = (404, 410)
# Seconds for a toolkit on this machine to take a webhook's body and answer.
_WEBHOOK_TIMEOUT: Final = 60.0


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
        """A value; None if there is none, or none any more.

        Raises:
            EngineFailure: the store is not available.
        """
        answer = self._call("GET", key)
        return None if answer.status_code == 404 else _checked(answer, f"the key {key!r}").content

    def set(self, key: str, value: bytes, *, seconds: int | None = None) -> None:
        """Keep a value, for a day if nothing else is said. It cannot be empty.

        Raises:
            EngineFailure: the store is not available, or does not take it.
        """
        query = "" if seconds is None else f"?ttlInSeconds={seconds}"
        _checked(self._call("POST", key, query, value), f"the key {key!r}")

    def _call(self, method: str, key: str, query: str = "", value: bytes | None = None) -> httpx2.Response:
        # A dot is no step in a path when it is quoted.
        url = f"{self._base}/{quote(key, safe='').replace('.', '%2E')}{query}"
        try:
            return self._client.request(method, url, content=value, timeout=_WEBHOOK_TIMEOUT)
        except httpx2.HTTPError as error:
            raise _unreachable(f"the key {key!r}", error) from error


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
        """The whole input: the chunk that came along, or what lies at cacheURI; empty if there is neither.

        Raises:
            EngineFailure: it cannot be read, or breaks off.
            TaskOver: nobody waits for the task.
        """
        return b"".join(self.stream())

    def stream(self) -> Iterator[bytes]:
        """The input in parts, as it comes: that of a stream ends when its source does. Raises as `read`."""
        if self._chunk is not None:
            self._chunk.seek(0)
            while data := self._chunk.read(_BLOCK):
                yield data
        elif uri := self.fields.get("cacheURI"):
            try:
                with self._client.stream("GET", uri) as answer:
                    if answer.status_code == 410:
                        raise self._over()
                    if answer.status_code != 200:
                        raise EngineFailure("stream_read_error", f"cacheURI answers {answer.status_code}")
                    yield from answer.iter_bytes()
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                if self.cancelled:  # The toolkit cuts off what nobody needs.
                    raise TaskOver from None
                raise EngineFailure("stream_read_error", _describe(error)) from error

    @property
    def mime_type(self) -> str:
        """Of the chunk."""
        return self.fields.get("chunkMimeType", "")

    def number(self, field: str) -> int:
        """A field that is a whole number, such as ``startOffsetMS``; 0 if it is missing.

        Raises:
            EngineFailure: it is something else.
        """
        text = self.fields.get(field) or "0"
        try:
            return int(text)
        except ValueError:
            raise EngineFailure("invalid_data", f"{field} is {text!r:.80}: expected a number") from None

    # --- Directories and keys ---------------------------------------------------------------------------

    @property
    def scratch_directory(self) -> Path:
        """For this task alone; deleted some days later. Raises EngineFailure: the toolkit gives none."""
        return Path(self._given("taskTmpDir"))

    @property
    def engine_directory(self) -> Path:
        """Shared by all instances of the engine. Raises EngineFailure: the toolkit gives none."""
        return Path(self._given("engineDir"))

    @property
    def library_directory(self) -> Path:
        """Shared by all tasks and instances that use the library. Raises EngineFailure: it names none."""
        return Path(self._given("libraryModelDirectory"))

    def library(self, download: Callable[[Path], None]) -> Path:
        """The library's model, downloaded if no instance has done so yet; raises as `keep_library` does."""
        return keep_library(self.library_directory, download)

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
        owner = quote(self.fields.get(field, ""), safe="")
        return Keys(self._client, f"{base}/keys/{kind}{owner}") if base else None

    def _given(self, field: str) -> str:
        value = self.fields.get(field)
        if not value:
            # An empty path would be the directory that the engine was started in.
            library = "; its payload names no library" if field == "libraryModelDirectory" else ""
            raise EngineFailure("invalid_data", f"the call comes without {field}{library}")
        return value

    # --- Answers beside the response --------------------------------------------------------------------

    def heartbeat(self, status: str = "running", **fields: Any) -> None:
        """Say how it goes; ``infoMs="…"`` in words. An asynchronous engine's are sent by themselves.

        Raises:
            TaskOver: nobody waits for the task.
            EngineFailure: the toolkit cannot be reached, or does not take it.
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
            EngineFailure: the toolkit cannot be reached, or does not take it.
            TypeError: the output cannot be written as JSON, as with ValueError.
        """
        offsets = {"startOffsetMs": start_ms, "endOffsetMs": end_ms}
        known = {name: value for name, value in offsets.items() if value is not None}
        context = {"chunkContext": self.fields.get("chunkContext", "")}
        self._post("resultWebhook", {**context, **known, "output": output})
        self.counters["messagesWritten"] += 1

    def _post(self, webhook: str, document: dict[str, Any]) -> None:
        if self.cancelled:
            raise TaskOver
        url = self._given(webhook)
        try:
            answer = self._client.post(url, json=document, timeout=_WEBHOOK_TIMEOUT)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise _unreachable(webhook, error) from error
        if answer.status_code in _OVER:
            raise self._over()
        _checked(answer, webhook)

    def _over(self) -> TaskOver:
        self.cancelled = True
        return TaskOver()

    def close(self) -> None:
        """Let the chunk go."""
        if self._chunk is not None:
            self._chunk.close()


def _checked(answer: httpx2.Response, what: str) -> httpx2.Response:
    if answer.is_success:
        return answer
    raise EngineFailure("api_error", f"{what}: {answer.status_code}: {answer.text.strip():.500}")


def _unreachable(what: str, error: Exception) -> EngineFailure:
    return EngineFailure("api_error", f"{what} cannot be reached: {_describe(error)}")


# Not its text, which may quote the URL.
def _describe(error: Exception) -> str:
    return type(error).__name__


def _mapping(text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, Mapping) else {}

"""From an ORB job to its result: read it, give it a place, call the engine until an attempt counts.

`JobHandler` is what a worker calls with each job, and the test console too. It knows no link: reports go
where the job says, and cancellation is Trio's. What belongs to a job is undone when its call ends, however it
ends: the attempt is closed, so its URLs lead nowhere, the call is cut off, and a chunk that was fetched is
deleted.

Where the input comes from depends on who reads it. A chunk is a file on this disk: it came with the job, or
is fetched before the call, since old engines read nothing but the form. A stream may never end, so it is not
fetched: the engine reads it through our ``/cache``. Either way ``cacheURI`` is a URL of ours, except for
protocols that only the engine speaks (``rtsp``).

The outputs go to ``sendOutputToUris`` while the job is answered, see `notices`. Rejected: to answer after
that, for the engine's slot would wait for servers that it does not know.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import attrs
import trio

from orbtrio.errors import InvalidMessage
from orbtrio.protocol import codec
from orbtrio.toolkit.calls import call_engine, run_attempt, waits
from orbtrio.toolkit.fetching import FetchFailed
from orbtrio.toolkit.items import Complete, Failed, Item
from orbtrio.toolkit.jobs import TaskInput
from orbtrio.toolkit.request import Surroundings, process_fields
from orbtrio.worker.jobs import Job, JobCancelled
from orbtrio.worker.outbox import MAX_ENTRY_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    import httpx2

    from orbtrio.toolkit.answers import Verdict
    from orbtrio.toolkit.directories import Directories
    from orbtrio.toolkit.fetching import Fetcher
    from orbtrio.toolkit.items import Outcome
    from orbtrio.toolkit.notices import Notifier
    from orbtrio.toolkit.open_items import OpenItems, Urls
    from orbtrio.toolkit.settings import ToolkitSettings

__all__ = ["JobHandler"]

logger = logging.getLogger("orbtrio.toolkit")

# What we read ourselves, and what is the engine's to read. Nothing else: a file:// would be one of ours.
_OUR_SCHEMES: Final = ("http", "https")
_ENGINES_SCHEMES: Final = ("rtsp", "rtsps")

# Largest chunk to fetch. Chunks are minutes of media; more is a stream, or somebody's mistake.
_MAX_CHUNK_BYTES: Final = 1 << 30

# A result from so many bytes of JSON is checked in a thread: in the worst case each costs 0.5 us.
_CHECKED_AT_ONCE: Final = 64 * 1024


# A directory, or none.
_Place = TypeVar("_Place")


class _Refused(Exception):
    """The job cannot be done; what `FetchFailed` is for fetching."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class JobHandler:
    """Does jobs by an HTTP engine: a handler for ``run_worker(…, with_jobs=True)``.

    Args:
        settings: Of the toolkit.
        open_items: Where webhooks find the attempts.
        urls: Where the engine reaches us.
        directories: Where tasks, engine and libraries have their place.
        fetcher: For chunks that lie elsewhere.
        client: To call the engine with, see `orbtrio.toolkit.calls.open_engine_client`.
        notifier: For ``sendOutputToUris``.
        has_keys: There is a store behind ``/keys``.
    """

    def __init__(
        self,
        settings: ToolkitSettings,
        *,
        open_items: OpenItems,
        urls: Urls,
        directories: Directories,
        fetcher: Fetcher,
        client: httpx2.AsyncClient,
        notifier: Notifier,
        has_keys: bool = False,
    ) -> None:
        self._settings = settings
        self._open_items = open_items
        self._urls = urls
        self._directories = directories
        self._fetcher = fetcher
        self._client = client
        self._notifier = notifier
        self._has_keys = has_keys

    async def __call__(self, job: Job) -> dict[str, Any]:
        """Do a job.

        Returns:
            ``status`` (``complete`` or ``ignored``) and ``outputs``, in order of arrival; also
            ``omittedOutputs``, how many were only reported, if all were too large for one message. Or
            ``error``, ``failureReason`` and ``failureMsg``.
        """
        try:
            task = self._read(job)
            async with self._fetched(task) as task:
                outcome, item = await self._attempts(task, job)
                if isinstance(outcome, Failed):
                    return _failed(outcome.reason, outcome.message)
                if not isinstance(outcome, Complete):
                    return {"status": "ignored", "outputs": []}
                result = await _result(item, job.job_id)
                self._notifier.send(task, item.outputs)
                return result
        except _Refused as refused:
            return _failed(refused.reason, refused.message)

    def _read(self, job: Job) -> TaskInput:
        try:
            task = TaskInput.parse(job.input, settings=self._settings)
        except ValueError as error:
            raise _Refused("invalid_data", str(error)) from None
        if task.cache_uri is not None and _scheme(task.cache_uri) not in _OUR_SCHEMES + _ENGINES_SCHEMES:
            raise _Refused("url_not_allowed", "cacheURI must be an http, https or rtsp address")
        return task

    # The task, with the file that it needs; a fetched one is deleted afterwards.
    @asynccontextmanager
    async def _fetched(self, task: TaskInput) -> AsyncIterator[TaskInput]:
        uri = task.cache_uri
        if (
            uri is None
            or task.chunk is not None
            or task.engine_type != "chunk"
            or self._settings.disable_chunk_download
            or _scheme(uri) not in _OUR_SCHEMES
        ):
            yield task
            return
        path = _place(self._directories.task, task) / f".chunk-{secrets.token_hex(8)}"
        try:
            try:
                # As long as the engine may take: somebody who sends a byte a minute must not keep its slot.
                with trio.fail_after(task.max_ttl):
                    await self._fetcher.download(uri, path, _MAX_CHUNK_BYTES)
            except FetchFailed as failed:
                raise _Refused(failed.failure_reason, failed.message) from None
            except trio.TooSlowError:
                raise _Refused("url_timeout", f"the chunk did not arrive within {task.max_ttl:g} s") from None
            yield attrs.evolve(task, chunk=path)
        finally:
            path.unlink(missing_ok=True)

    async def _attempts(self, task: TaskInput, job: Job) -> tuple[Outcome, Item]:
        # Made before the first call, ET-88 and ET-131, and the same for each.
        task_directory = _place(self._directories.task, task)
        engine_directory = _place(lambda _: self._directories.engine, task)
        library_directory = _place(self._directories.library, task)
        without_file = task.engine_type == "stream" or self._settings.disable_chunk_download
        chunk = None if without_file else task.chunk
        pauses = waits()
        while True:
            item = Item(task, now=trio.current_time(), max_bytes=self._settings.max_result_bytes)
            item.on_report = partial(_report, job)
            around = Surroundings(
                cache_uri=self._cache_uri(item),
                heartbeat_webhook=self._urls.heartbeat(item),
                result_webhook=self._urls.result(item),
                external_webhook=self._urls.external(item),
                task_directory=task_directory,
                engine_directory=engine_directory,
                library_directory=library_directory,
                redis_url=self._urls.keys if self._has_keys else None,
                # It is for the Controller, and nothing without one (ET-93).
                controller_token=self._settings.controller_token if self._settings.controller else None,
            )
            outcome = await self._attempt(item, around, chunk)
            pause = next(pauses, None)
            if not isinstance(outcome, Failed) or not outcome.retry or pause is None:
                return outcome, item
            logger.info(
                "task %s: %s; called again in %g s", task.internal_task_id, outcome.message[:200], pause
            )
            await trio.sleep(pause)

    async def _attempt(self, item: Item, around: Surroundings, chunk: Path | None) -> Outcome:
        call: Callable[[], Awaitable[Verdict]] = partial(
            call_engine,
            self._client,
            self._settings.process_url,
            process_fields(item, around),
            chunk,
            item=item,
            max_bytes=self._settings.max_result_bytes,
        )
        self._open_items.add(item)
        try:
            return await run_attempt(item, call)
        finally:
            item.abandon()
            self._open_items.discard(item)

    def _cache_uri(self, item: Item) -> str:
        task = item.task
        if task.chunk is None and (task.cache_uri is None or _scheme(task.cache_uri) in _ENGINES_SCHEMES):
            return task.cache_uri or ""
        return self._urls.cache(item)


# Ids in a job may be no names of directories, and a disk may be full.
def _place(make: Callable[[TaskInput], _Place], task: TaskInput) -> _Place:
    try:
        return make(task)
    except ValueError as error:
        raise _Refused("invalid_data", str(error)) from None
    except OSError as error:
        raise _Refused("file_write_error", f"a directory for the task: {error.strerror}") from None


def _failed(reason: str, message: str) -> dict[str, Any]:
    return {"error": f"{reason}: {message}", "failureReason": reason, "failureMsg": message}


# JSON of a megabyte can cost more to decode than a message may. Of results that were posted, and so reported,
# the first are sent then; a response that was the result has no other way.
async def _result(item: Item, job_id: str) -> dict[str, Any]:
    if item.size_bytes <= _CHECKED_AT_ONCE:
        return _sendable(item, job_id)
    return await trio.to_thread.run_sync(_sendable, item, job_id)


def _sendable(item: Item, job_id: str) -> dict[str, Any]:
    fitting, count = 0, len(item.outputs)
    result, problem = _complete(item, count, job_id)
    if problem is None:
        return result
    if item.answered_at_once:
        raise _Refused(
            "invalid_data",
            f"the result does not fit into one message ({problem}): send smaller chunks, or post it in parts",
        )
    while count - fitting > 1:
        middle = (fitting + count) // 2
        if _complete(item, middle, job_id)[1] is None:
            fitting = middle
        else:
            count = middle
    logger.warning(
        "task %s: only %d of %d results fit into one answer (%s); the others were only reported",
        *(item.task.internal_task_id, fitting, len(item.outputs), problem),
    )
    return _complete(item, fitting, job_id)[0]


# A result with the first so many outputs, and why it cannot be sent.
def _complete(item: Item, count: int, job_id: str) -> tuple[dict[str, Any], str | None]:
    result: dict[str, Any] = {"status": "complete", "outputs": item.outputs[:count]}
    if omitted := item.omitted + len(item.outputs) - count:
        result["omittedOutputs"] = omitted
    try:
        size = len(codec.output_entry(job_id, result))
    except InvalidMessage as error:
        return result, str(error)
    return result, f"{size} bytes" if size > MAX_ENTRY_BYTES else None


# Called by webhooks. Who posts a result hears that it cannot be reported; of a heartbeat, the rest counts.
def _report(job: Job, fields: dict[str, Any]) -> None:
    try:
        job.report(**fields)
    except JobCancelled:
        pass  # The call is cancelled too, as soon as Trio gets to it.
    except InvalidMessage as error:
        if fields["kind"] == "result":
            raise
        logger.warning("job %s: a %s cannot be reported: %s", job.job_id, fields["kind"], error)


def _scheme(uri: str) -> str:
    try:
        return urlsplit(uri).scheme
    except ValueError:  # A bracket that is never closed.
        return ""

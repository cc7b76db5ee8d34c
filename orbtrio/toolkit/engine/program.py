"""An engine's web server: one function behind two webhooks.

The server answers while the function computes, for readiness is asked all the time and heartbeats must not
wait for a model. Functions run in threads, as many at once as ``VERITONE_CONCURRENT_TASKS`` says.

| | in a call | asynchronous |
|---|---|---|
| the function returns | 200 with its JSON; 204 for None | a result, if not None; ``complete`` |
| it raises `EngineFailure` | 500 with the reason, as JSON | ``failed`` with the reason |
| it raises anything else | the same, ``internal_error`` | the same, ``internal_error`` |

A first heartbeat leaves before the function begins: from a chunk engine that has never sent one, the toolkit
would take the first of several results for the last.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
from contextlib import suppress
from functools import partial, update_wrapper
from typing import IO, TYPE_CHECKING, Any, Final, TypeAlias, overload
from urllib.parse import SplitResult, urlsplit

import httpx2
import trio
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from orbtrio._nursery import open_service_nursery
from orbtrio._settings import Setting, whole
from orbtrio.errors import ConfigError
from orbtrio.toolkit.engine.tasks import EngineFailure, Task, TaskOver
from orbtrio.toolkit.serving import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.types import Receive, Scope, Send

    Function: TypeAlias = "Callable[[Task], Any]"

__all__ = ["Engine", "engine"]

logger = logging.getLogger("orbtrio.toolkit.engine")

_PROCESS: Final = "VERITONE_WEBHOOK_PROCESS"
_READY: Final = "VERITONE_WEBHOOK_READY"
_CONCURRENCY: Final = Setting("concurrency", "VERITONE_CONCURRENT_TASKS", "", whole(1, 1000), 1)
_DEFAULT: Final = "http://127.0.0.1:8888"
# The page's own pace, in seconds.
_HEARTBEAT: Final = 1.0
# A payload may hold a lot; the chunk is a file and has no limit here.
_LONGEST_FIELD: Final = 64 << 20
# How often, and after how many seconds, the last word about a task is said again if it is not heard.
_LAST_WORDS: Final = 3
_LAST_WORDS_WAIT: Final = 1.0

_FORMS: Final = ("multipart/form-data", "application/x-www-form-urlencoded")


class Engine:
    """A function as an engine. Made by `engine`; still callable as the function it was.

    Args:
        function: Takes a `Task`, returns its output.
        asynchronous: Acknowledge calls, and answer by webhooks.
        estimate: Seconds that a task takes, for the acknowledgement; default: the task's maxTTL.
        load: Called once before the engine is ready, to load a model; what it raises ends the engine.

    Raises:
        TypeError: the function is a coroutine function; it must block.
    """

    def __init__(
        self,
        function: Function,
        *,
        asynchronous: bool = False,
        estimate: int | None = None,
        load: Callable[[], None] | None = None,
    ) -> None:
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{function.__qualname__} is async: write it with def, for it runs in a thread")
        update_wrapper(self, function)
        self._function = function
        self._asynchronous = asynchronous
        self._estimate = estimate
        self._load = load

    def __call__(self, task: Task) -> Any:
        """Do a task, as the function does."""
        return self._function(task)

    def run(self, environ: Mapping[str, str] = os.environ) -> None:
        """Serve until the process ends: what an engine's program calls.

        Raises:
            SystemExit: with a sentence, if it cannot serve where it should.
        """
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        # A line for each heartbeat, with its token, is nobody's wish.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        try:
            trio.run(self.serve, environ)
        except (ConfigError, OSError) as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            pass

    async def serve(
        self,
        environ: Mapping[str, str] = os.environ,
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled.

        Args:
            environ: Says where.
            task_status: Started with the port when calls can come.

        Raises:
            ConfigError: the environment names no place where it could serve.
            OSError: that place is taken.
            Exception: what `load` raised.
        """
        process, ready = _webhook(environ, _PROCESS, "/process"), _webhook(environ, _READY, "/readyz")
        if environ.get(_READY) and (ready.hostname, ready.port) != (process.hostname, process.port):
            raise ConfigError(f"{_READY} and {_PROCESS} must name one host and port: both are served there")
        limit = trio.CapacityLimiter(_CONCURRENCY.parse(environ.get(_CONCURRENCY.env) or "1"))
        # Streams may come as slowly as they like, and as many of them as there are tasks.
        limits = httpx2.Limits(max_connections=None)
        with httpx2.Client(trust_env=False, timeout=None, limits=limits) as client:
            async with open_service_nursery() as nursery:
                calls = _Calls(self, client, limit, nursery, {"process": process.path, "ready": ready.path})
                port = 80 if process.port is None else process.port
                task_status.started(await nursery.start(_serve, calls, process.hostname or "", port))
                if self._load is not None:
                    await trio.to_thread.run_sync(self._load, abandon_on_cancel=True)
                calls.loaded = True
                await trio.sleep_forever()

    def is_asynchronous(self, task: Task) -> bool:
        """Whether a task is answered by webhooks: trainings take long, whatever the engine is (ET-129)."""
        return self._asynchronous or task.payload.get("mode") == "library-train"

    def acknowledgement(self, task: Task) -> dict[str, int]:
        """What to answer a call at once."""
        estimate = task.number("maxTTL") if self._estimate is None else self._estimate
        return {"estimatedProcessingTimeInSeconds": max(estimate, 1)}


# A webhook's URL, with a path.
def _webhook(environ: Mapping[str, str], name: str, path: str) -> SplitResult:
    url = environ.get(name) or _DEFAULT + path
    try:
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname and (parts.port is None or parts.port >= 0):
            return parts._replace(path=parts.path or "/")
    except ValueError:  # A port that is no number, or a bracket that is never closed.
        pass
    raise ConfigError(f"{name} is {url!r}: expected a URL such as {_DEFAULT}{path}")


@overload
def engine(function: Function) -> Engine: ...


@overload
def engine(
    *, asynchronous: bool = ..., estimate: int | None = ..., load: Callable[[], None] | None = ...
) -> Callable[[Function], Engine]: ...


def engine(function: Function | None = None, **options: Any) -> Engine | Callable[[Function], Engine]:
    """Make a function an engine, as ``@engine`` or ``@engine(asynchronous=True)``; see `Engine`."""
    if function is None:
        return lambda function: Engine(function, **options)
    return Engine(function, **options)


# It ends by being told to; see there.
async def _serve(calls: _Calls, host: str, port: int, *, task_status: trio.TaskStatus[int]) -> None:
    stop = trio.Event()
    async with open_service_nursery() as nursery:
        nursery.start_soon(_set_when_cancelled, stop)
        with trio.CancelScope(shield=True):
            await serve(calls, host, port, stop=stop, task_status=task_status)


async def _set_when_cancelled(stop: trio.Event) -> None:
    try:
        await trio.sleep_forever()
    finally:
        stop.set()


class _Calls:
    """The webhooks, as an ASGI application."""

    def __init__(
        self,
        engine: Engine,
        client: httpx2.Client,
        limit: trio.CapacityLimiter,
        nursery: trio.Nursery,
        paths: Mapping[str, str],
    ) -> None:
        self.loaded = False
        self._engine = engine
        self._client = client
        self._limit = limit
        self._nursery = nursery
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD") and request.url.path == self._paths["ready"]:
            return Response(status_code=200 if self.loaded else 503)
        if request.method != "POST" or request.url.path != self._paths["process"]:
            return PlainTextResponse(f"POST {self._paths['process']}, or GET {self._paths['ready']}", 404)
        try:
            task = await self._read(request)
        except MultiPartException as error:
            return PlainTextResponse(f"expected a form: {error.message}", 400)
        try:
            if self._engine.is_asynchronous(task):
                return self._acknowledge(task)
            return await self._compute_for(request, task)
        except EngineFailure as failure:
            return JSONResponse({"errorType": failure.reason, "errorMsg": failure.message}, 500)
        except TaskOver:
            return PlainTextResponse("the task is over", 500)

    def _acknowledge(self, task: Task) -> Response:
        try:
            if not task.fields.get("heartbeatWebhook"):
                raise EngineFailure("invalid_data", "the call names no heartbeatWebhook to answer to later")
            response = JSONResponse(self._engine.acknowledgement(task))
        except EngineFailure:
            task.close()
            raise
        self._nursery.start_soon(self._run_aside, task)
        return response

    # A toolkit that hangs up has given the call up; the function hears it when it says something.
    async def _compute_for(self, request: Request, task: Task) -> Response:
        async with open_service_nursery() as nursery:
            nursery.start_soon(_watch, request, task)
            response: Response = await self._compute(task, self._respond)
            return response

    def _respond(self, task: Task) -> Response:
        output = self._engine(task)
        return Response(status_code=204) if output is None else JSONResponse(output)

    def _post(self, task: Task) -> None:
        output = self._engine(task)
        if output is not None:
            task.result(output)

    async def _read(self, request: Request) -> Task:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _FORMS:
            raise MultiPartException(f"its type is {kind!r}")
        chunk: IO[bytes] | None = None
        fields = {}
        # Not as a context, which would close the chunk: an asynchronous task outlives the request.
        form = await request.form(max_part_size=_LONGEST_FIELD)
        for name, value in form.multi_items():
            if isinstance(value, str):
                fields[name] = value
            elif name == "chunk" and chunk is None:
                chunk = value.file
            else:
                value.file.close()
        return Task(fields, chunk, self._client)

    # Whatever goes wrong with it, in the page's words. An output that is no JSON goes wrong, too.
    async def _compute(self, task: Task, work: Callable[[Task], Any]) -> Any:
        try:
            return await trio.to_thread.run_sync(_unless_cancelled, work, task, limiter=self._limit)
        except (EngineFailure, TaskOver):
            raise
        except Exception as error:  # The author's code may raise anything, and serves others yet.
            logger.exception("a task has failed")
            raise EngineFailure("internal_error", f"{type(error).__name__}: {error}") from error
        finally:
            task.close()

    async def _run_aside(self, task: Task) -> None:
        last = {"status": "complete"}
        try:
            await self._beat(task)
            async with open_service_nursery() as nursery:
                nursery.start_soon(self._keep_beating, task)
                await self._compute(task, self._post)
        except EngineFailure as failure:
            last = {"status": "failed", "failureReason": failure.reason, "failureMsg": failure.message}
        except TaskOver:
            return
        finally:
            task.close()
        with suppress(TaskOver):
            for _ in range(_LAST_WORDS):
                if await self._beat(task, **last):
                    return
                await trio.sleep(_LAST_WORDS_WAIT)

    async def _keep_beating(self, task: Task) -> None:
        with suppress(TaskOver):  # The function hears it, too, as soon as it says something.
            while True:
                await trio.sleep(_HEARTBEAT)
                await self._beat(task)

    # Whether it was heard. A toolkit that cannot be reached for a moment is told with the next one.
    async def _beat(self, task: Task, **fields: Any) -> bool:
        try:
            await trio.to_thread.run_sync(partial(task.heartbeat, **fields))
        # Or what the author has put into the counters is no JSON.
        except (EngineFailure, TypeError, ValueError) as error:
            logger.warning("a heartbeat: %s", error)
            return False
        return True


# It may have waited long for its turn.
def _unless_cancelled(work: Callable[[Task], Any], task: Task) -> Any:
    if task.cancelled:
        raise TaskOver
    return work(task)


async def _watch(request: Request, task: Task) -> None:
    await request.receive()  # The body has been read, so nothing else can come.
    task.cancelled = True

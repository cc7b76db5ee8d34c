"""An engine's web server: one function behind two webhooks.

The server answers while the function computes, for readiness is asked all the time and heartbeats must not
wait for a model. Functions run in threads, as many at once as ``VERITONE_CONCURRENT_TASKS`` says.

| | in a call | asynchronous |
|---|---|---|
| the function returns | 200 with its JSON; 204 for None | a result, if not None; ``complete`` |
| it raises `EngineFailure` | 500 with the reason, as JSON | ``failed`` with the reason |
| it raises anything else | the same, ``internal_error`` | the same, ``internal_error`` |
"""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Final, TypeAlias, overload
from urllib.parse import urlsplit

import httpx2
import trio
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from orbtrio._nursery import open_service_nursery
from orbtrio.toolkit.engine.tasks import EngineFailure, Task, TaskOver
from orbtrio.toolkit.serving import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.types import Receive, Scope, Send

    Function: TypeAlias = "Callable[[Task], Any]"

__all__ = ["Engine", "engine"]

logger = logging.getLogger("orbtrio.toolkit.engine")

_PROCESS: Final = "http://127.0.0.1:8888/process"
_READY_PATH: Final = "/readyz"
# The page's own pace, in seconds.
_HEARTBEAT: Final = 1.0
# A payload may hold a lot; the chunk is a file and has no limit here.
_LONGEST_FIELD: Final = 64 << 20
_SPOOLED: Final = 1 << 20


class Engine:
    """A function as an engine. Made by `engine`; still callable as the function it was.

    Args:
        function: Takes a `Task`, returns its output.
        asynchronous: Acknowledge calls, and answer by webhooks.
        estimate: Seconds that a task takes, for the acknowledgement; default: the task's maxTTL.
        load: Called once before the engine is ready, to load a model; what it raises ends the engine.
    """

    def __init__(
        self,
        function: Function,
        *,
        asynchronous: bool = False,
        estimate: int | None = None,
        load: Callable[[], None] | None = None,
    ) -> None:
        self._function = function
        self._asynchronous = asynchronous
        self._estimate = estimate
        self._load = load

    def __call__(self, task: Task) -> Any:
        """Do a task, as the function does."""
        return self._function(task)

    def run(self, environ: Mapping[str, str] = os.environ) -> None:
        """Serve until the process ends: what an engine's program calls."""
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        with suppress(KeyboardInterrupt):
            trio.run(self.serve, environ)

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
        """
        process = urlsplit(environ.get("VERITONE_WEBHOOK_PROCESS") or _PROCESS)
        ready = urlsplit(environ.get("VERITONE_WEBHOOK_READY") or _READY_PATH)
        limit = trio.CapacityLimiter(int(environ.get("VERITONE_CONCURRENT_TASKS") or 1))
        port = 80 if process.port is None else process.port
        with httpx2.Client(trust_env=False, timeout=None) as client:
            async with trio.open_nursery() as nursery:
                calls = _Calls(self, client, limit, nursery, {"process": process.path, "ready": ready.path})
                task_status.started(await nursery.start(_serve, calls, process.hostname or "127.0.0.1", port))
                if self._load is not None:
                    await trio.to_thread.run_sync(self._load, abandon_on_cancel=True)
                calls.loaded = True

    def is_asynchronous(self, task: Task) -> bool:
        """Whether a task is answered by webhooks: trainings take long, whatever the engine is (ET-129)."""
        return self._asynchronous or task.payload.get("mode") == "library-train"

    def acknowledgement(self, task: Task) -> dict[str, int]:
        """What to answer a call at once."""
        estimate = task.number("maxTTL") if self._estimate is None else self._estimate
        return {"estimatedProcessingTimeInSeconds": max(estimate, 1)}


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
    async with trio.open_nursery() as nursery:
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
        except (HTTPException, MultiPartException) as error:
            return PlainTextResponse(f"expected a form: {error}", 400)
        if self._engine.is_asynchronous(task):
            self._nursery.start_soon(self._run_aside, task)
            return JSONResponse(self._engine.acknowledgement(task))
        try:
            response: Response = await self._compute(task, self._respond)
        except EngineFailure as failure:
            return JSONResponse({"errorType": failure.reason, "errorMsg": failure.message}, 500)
        except TaskOver:
            return PlainTextResponse("the task is over", 500)
        return response

    def _respond(self, task: Task) -> Response:
        output = self._engine(task)
        return Response(status_code=204) if output is None else JSONResponse(output)

    def _post(self, task: Task) -> None:
        output = self._engine(task)
        if output is not None:
            task.result(output)

    async def _read(self, request: Request) -> Task:
        chunk: IO[bytes] | None = None
        # Starlette closes its files with the form, which an asynchronous task outlives.
        async with request.form(max_part_size=_LONGEST_FIELD) as form:
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
            uploaded = form.get("chunk")
            if isinstance(uploaded, UploadFile):
                chunk = tempfile.SpooledTemporaryFile(_SPOOLED)  # noqa: SIM115  (the task closes it)
                while data := await uploaded.read(_SPOOLED):
                    chunk.write(data)
        return Task(fields, chunk, self._client)

    # Whatever goes wrong with it, in the page's words. An output that is no JSON goes wrong, too.
    async def _compute(self, task: Task, work: Callable[[Task], Any]) -> Any:
        try:
            return await trio.to_thread.run_sync(work, task, limiter=self._limit)
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
            async with open_service_nursery() as nursery:
                nursery.start_soon(self._beat, task)
                await self._compute(task, self._post)
        except EngineFailure as failure:
            last = {"status": "failed", "failureReason": failure.reason, "failureMsg": failure.message}
        except TaskOver:
            return
        with suppress(TaskOver):
            await self._tell(partial(task.heartbeat, **last))

    async def _beat(self, task: Task) -> None:
        while True:
            try:
                await self._tell(task.heartbeat)
            except TaskOver:
                return  # The function hears it, too, as soon as it says something.
            await trio.sleep(_HEARTBEAT)

    # A toolkit that cannot be reached for a moment is asked again with the next heartbeat.
    async def _tell(self, call: Callable[..., None], *args: Any) -> None:
        try:
            await trio.to_thread.run_sync(call, *args)
        except httpx2.HTTPError as error:
            logger.warning("the toolkit cannot be told: %s", error)

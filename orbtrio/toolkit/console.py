"""The test console: a page that sends a file to the engine and shows all that comes back.

    GET  /console        the page
    POST /console/jobs   a line of JSON, the job's input; then the chunk's bytes. Answers with events.

A job of the console is an ORB job in everything but its link: the same `JobHandler` does it, and what a
client would get as progress and answer goes to the page, as server-sent events in the response to the one
request. So there is no state between requests, and whoever closes the page has cancelled the job. What a
client never sees is shown beside that, see `runs`. Rejected: EventSource, which cannot post a file, and which
connects again by itself; and a second server, at another port to look for.

**Who may use it.** It is off unless asked for, and then open to whoever can reach the toolkit's port: this
machine alone by default. What must not get in is other web sites, by the browser of somebody who can:

- ``Host`` must be an address, ``localhost`` or the name that we listen at, so that no site can let a name of
  its own point here (DNS rebinding);
- a POST needs a header that browsers send to another origin only after asking us, and we never agree; its
  ``Origin``, if there is one, must be ours;
- the page runs nothing but its own script, talks to nobody but us, and stands in no frame.

An input cannot name a file of this machine, which whoever reaches the port need not be allowed to read. What
else a job may name, such as ``cacheURI``, it may name here too.
"""

from __future__ import annotations

import base64
import hashlib
import html
import ipaddress
import json
import logging
import re
import sys
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from orbtrio._nursery import open_service_nursery
from orbtrio.toolkit.runs import Run, encode, watch
from orbtrio.toolkit.serving import base_url
from orbtrio.toolkit.webhooks import is_named
from orbtrio.worker.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import TypeAlias

    import httpx2
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from orbtrio.toolkit.settings import ToolkitSettings

    Handler: TypeAlias = Callable[[Job], Awaitable[dict[str, Any]]]

__all__ = ["Console"]

logger = logging.getLogger("orbtrio.toolkit")

_PATH: Final = "/console"
_JOBS: Final = "/console/jobs"
# Its value does not matter: that it is there says who has sent it.
_HEADER: Final = "x-orb-console"

_LONGEST_INPUT: Final = 1 << 20
# As much as a job may have fetched.
_LARGEST_CHUNK: Final = 1 << 30
# Jobs at a time, those that wait for the engine included. Each may have a file.
_MOST_RUNS: Final = 8
# What is read of a request that is refused, in bytes and seconds: browsers read no answer before they have
# sent all.
_DISCARDED: Final = 64 << 20
_DISCARDING: Final = 5.0

_HEADERS: Final = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class _Refused(Exception):
    """What to answer in place of events."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class _Body:
    """A request's body, so far as it has been read."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read_all = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._read_all = not message.get("more_body", False)
        return message

    async def discard(self) -> None:
        size = 0
        with trio.move_on_after(_DISCARDING):
            while not self._read_all and size < _DISCARDED:
                size += len((await self.receive()).get("body", b""))


class Console:
    """The console's ASGI application.

    Args:
        settings: Of the toolkit.
        make_handler: Makes what does a job, calling the engine by the client that it is given.

    Attributes:
        ready: Set while the engine is ready. Whoever runs the engine puts a new one here for each of its
            lives.
    """

    def __init__(
        self, settings: ToolkitSettings, make_handler: Callable[[httpx2.AsyncClient], Handler]
    ) -> None:
        self.ready = trio.Event()
        self._host = settings.host
        self._make_handler = make_handler
        self._runs: set[Run] = set()
        self._page = _page(settings)
        self._headers = {**_HEADERS, "content-security-policy": _policy(self._page)}

    def announce(self, port: int) -> None:
        """Say where a browser finds it, whatever the log's level, and if it is open to other machines."""
        host = "localhost" if self._host in ("0.0.0.0", "::") else self._host
        print(f"test console: {base_url(host, port)}{_PATH}", file=sys.stderr, flush=True)
        if not _is_local(self._host):
            logger.warning("whoever can reach port %d at %s can use the test console", port, self._host)

    def watching(self, app: ASGIApp) -> ASGIApp:
        """An application that does as this one, and shows the engine's calls of it on the page."""
        return watch(app, self._runs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        body = _Body(receive)
        request = Request(scope, body.receive)
        try:
            self._check(request)
            if request.method != "POST":
                page = Response(self._page, headers=self._headers, media_type="text/html; charset=utf-8")
                await page(scope, receive, send)
                return
            await self._serve_job(request, send)
        except _Refused as refused:
            await body.discard()
            answer = PlainTextResponse(f"{refused.text}\n", refused.status, self._headers)
            await answer(scope, receive, send)
        except ClientDisconnect:
            pass

    def _check(self, request: Request) -> None:
        host = request.headers.get("host", "")
        if not is_named(host, self._host):
            raise _Refused(403, f"the console is not at {host!r}: use the address, or localhost")
        path = request.url.path.rstrip("/")
        if path not in (_PATH, _JOBS):
            raise _Refused(404, "nothing here")
        if request.method not in (("POST",) if path == _JOBS else ("GET", "HEAD")):
            raise _Refused(405, f"GET {_PATH}, or POST {_JOBS}")
        if path == _JOBS:
            origin = request.headers.get("origin")
            if _HEADER not in request.headers or origin not in (None, f"http://{host}", f"https://{host}"):
                raise _Refused(403, "only the console's own page may send jobs")

    async def _serve_job(self, request: Request, send: Send) -> None:
        if not self.ready.is_set():
            raise _Refused(503, "the engine is not ready: it is starting, or has crashed and starts again")
        if len(self._runs) >= _MOST_RUNS:
            raise _Refused(503, f"{_MOST_RUNS} jobs of the console are in hand: wait for one, or cancel one")
        run = Run()
        self._runs.add(run)
        try:
            # Deleted when the job is over, whatever becomes of it.
            with tempfile.TemporaryDirectory(prefix="orbtrio-console-") as directory:
                job = Job(await _read(request, Path(directory) / "chunk"), report=run.report)
                async with open_service_nursery() as nursery:
                    nursery.start_soon(_watch, request, nursery.cancel_scope)
                    nursery.start_soon(self._do, run, job)
                    await _send_events(run, self._headers, send)
        finally:
            self._runs.discard(run)

    async def _do(self, run: Run, job: Job) -> None:
        try:
            async with run.open_client() as client:
                result = await self._make_handler(client)(job)
        except Exception as error:  # A fault of ours must not look like an engine that is silent.
            logger.exception("a job of the console has failed")
            result = {"error": f"the toolkit: {type(error).__name__}: {error}"}
        await run.finish(result)


# The body has been read, so nothing else can come: the page is closed, or does not want to know any more.
async def _watch(request: Request, scope: trio.CancelScope) -> None:
    await request.receive()
    scope.cancel()


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _send_events(run: Run, headers: Mapping[str, str], send: Send) -> None:
    head = {**headers, "content-type": "text/event-stream"}
    pairs = [(name.encode(), value.encode()) for name, value in head.items()]
    await send({"type": "http.response.start", "status": 200, "headers": pairs})
    async for event, fields in run.events:
        # In a thread, for an output may have megabytes.
        body = await trio.to_thread.run_sync(encode, event, fields)
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


# The job's input; what follows its line goes into the file.
async def _read(request: Request, file: Path) -> dict[str, Any]:
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > _LONGEST_INPUT + _LARGEST_CHUNK:
        raise _Refused(
            413, f"a file of more than {_LARGEST_CHUNK >> 20} MiB: serve it, and give its cacheURI"
        )
    line, size = b"", 0
    async with aclosing(request.stream()) as parts, await trio.open_file(file, "wb") as chunk:
        async for part in parts:
            if b"\n" not in line:
                line += part
                if len(line.partition(b"\n")[0]) > _LONGEST_INPUT:
                    raise _Refused(413, f"an input of more than {_LONGEST_INPUT >> 10} KiB")
                if b"\n" not in line:
                    continue
                part = line.partition(b"\n")[2]
            size += len(part)
            if size > _LARGEST_CHUNK:
                raise _Refused(413, f"a file of more than {_LARGEST_CHUNK >> 20} MiB")
            await chunk.write(part)
    return _input(line.partition(b"\n")[0], file)


def _input(line: bytes, file: Path) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f"the first line is not JSON: {error}") from None
    fields = message.get("input") if isinstance(message, dict) else None
    if not isinstance(fields, dict):
        raise _Refused(400, 'the first line must be {"input": {…}, "hasChunk": true or false}')
    if any(name.lower() == "chunk" for name in fields):
        raise _Refused(400, "'chunk' would be a path on the toolkit's machine: choose a file")
    return {**fields, "chunk": str(file)} if message.get("hasChunk") is True else fields


def _page(settings: ToolkitSettings) -> str:
    page = Path(__file__).with_name("console.html").read_text("utf-8")
    for name, value in (("engine", settings.engine_id), ("process", settings.process_url)):
        page = page.replace(f"{{{{{name}}}}}", html.escape(value))
    return page


# By what the page holds, so that nothing that got into it otherwise would run.
def _policy(page: str) -> str:
    def hashed(tag: str) -> str:
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    own = f"script-src {hashed('script')}; style-src {hashed('style')}; connect-src 'self'; img-src data:"
    return f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

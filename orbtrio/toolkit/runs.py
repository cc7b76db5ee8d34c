"""What the test console shows of one job: events, out of all that happens to it.

| event | when | fields beside ``at``, the seconds since the beginning |
|---|---|---|
| ``call`` | the engine is called | ``url``, ``fields`` (pairs), ``bytes`` of the form |
| ``answer`` | its response begins | ``status``, ``type``, ``seconds`` since the call |
| ``webhook`` | it has called us | ``method``, ``name``, ``status``, ``text`` if refused |
| ``report`` | the job has reported | ``kind``, ``status``, ``text``: all of it as JSON |
| ``done`` | it is over, the last event | ``status``, ``error``, ``text``: the result as JSON |

Reports and results go as text that is ready to be shown. They may be megabytes, which a browser need not
parse to write out again, and hold what JSON does not know: an image, or a number that is none.

An engine may be faster than any page. What does not fit is left out, and the next event says how many were.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import trio

from orbtrio.toolkit.calls import open_engine_client
from orbtrio.toolkit.request import MultipartBody

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import httpx2
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Run", "encode", "watch"]

# Events that a page has not taken yet.
_MOST_WAITING: Final = 1000
_LONGEST_REFUSAL: Final = 1000

# Fields whose values are URLs of ours, and what the page calls them.
_WEBHOOKS: Final = {
    "heartbeatWebhook": "heartbeat",
    "resultWebhook": "result",
    "externalCallbackWebhook": "external",
    "cacheURI": "cache",
}
_KNOWN: Final = frozenset({*_WEBHOOKS.values(), "callback", "keys", "console"})


class Run:
    """One job, as it is shown.

    Attributes:
        events: Names and fields, to be iterated; ends after ``done``.
    """

    def __init__(self) -> None:
        self._told, self.events = trio.open_memory_channel[tuple[str, dict[str, Any]]](_MOST_WAITING)
        self._began = trio.current_time()
        self._omitted = 0
        # Paths of our URLs that belong to it, and what the page calls them.
        self._paths: dict[str, str] = {}

    def tell(self, event: str, **fields: Any) -> None:
        """Show something, unless too much waits to be shown."""
        note = self._note(fields)
        try:
            self._told.send_nowait((event, note))
            self._omitted = 0
        except trio.WouldBlock:
            self._omitted += 1

    def report(self, job_id: str, fields: Mapping[str, Any]) -> None:
        """What a job reports to."""
        self.tell("report", kind=fields.get("kind"), status=fields.get("status"), text=dict(fields))

    async def finish(self, result: Mapping[str, Any]) -> None:
        """Show the result, as the last event."""
        known = {name: result[name] for name in ("status", "error") if name in result}
        await self._told.send(("done", self._note({**known, "text": result})))
        self._told.close()

    @asynccontextmanager
    async def open_client(self) -> AsyncIterator[httpx2.AsyncClient]:
        """A client to call the engine with, whose calls are shown."""
        async with open_engine_client(1) as client:
            client.event_hooks = {"request": [self._called], "response": [self._answered]}
            yield client

    def is_concerned(self, scope: Scope) -> bool:
        """Whether a request may come from this job's engine."""
        path = scope["path"]
        # What leads nowhere may be meant for us: authors mistype paths.
        return self._name(path) is not None or path.split("/")[1] not in _KNOWN

    def answered(self, scope: Scope, status: int, text: bytes) -> None:
        """Show a request of the engine's and how it was answered, without its token."""
        path = scope["path"]
        refusal = {"text": text.decode(errors="replace").strip()} if text else {}
        self.tell("webhook", method=scope["method"], name=self._name(path) or path, status=status, **refusal)

    def _note(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        note = {"at": self._seconds(self._began), **fields}
        return {**note, "omitted": self._omitted} if self._omitted else note

    def _seconds(self, since: float) -> float:
        return round(trio.current_time() - since, 3)

    def _name(self, path: str) -> str | None:
        return self._paths.get(path) or self._paths.get(path.rpartition("/")[0])

    async def _called(self, request: httpx2.Request) -> None:
        body = request.stream
        assert isinstance(body, MultipartBody)
        fields = dict(body.fields)
        for field, name in _WEBHOOKS.items():
            path = urlsplit(fields[field]).path
            self._paths[path] = name
            if name == "heartbeat":
                self._paths[path.replace("/heartbeat/", "/callback/")] = "callback"
        for kind, field in (("j", "internalJobId"), ("t", "internalTaskId")):
            self._paths[f"/keys/{kind}{fields[field]}"] = "keys"
        request.extensions["orbtrio.began"] = trio.current_time()
        self.tell("call", url=str(request.url), fields=list(body.fields), bytes=body.content_length)

    async def _answered(self, response: httpx2.Response) -> None:
        seconds = self._seconds(response.request.extensions["orbtrio.began"])
        content_type = response.headers.get("content-type", "")
        self.tell("answer", status=response.status_code, type=content_type, seconds=seconds)


def encode(event: str, fields: Mapping[str, Any]) -> bytes:
    """An event as it is sent: one line of JSON, whose ``text`` is JSON for people. May take long."""
    if event in ("report", "done"):
        fields = {**fields, "text": _pretty(fields["text"])}
    return f"event: {event}\ndata: {json.dumps(fields)}\n\n".encode()


def watch(app: ASGIApp, runs: set[Run]) -> ASGIApp:
    """An application that does as this one, and shows requests to the runs that have caused them.

    Args:
        app: What the engine calls.
        runs: Those in hand; changes.
    """

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        concerned = [run for run in runs if run.is_concerned(scope)] if scope["type"] == "http" else []
        if not concerned:
            await app(scope, receive, send)
            return
        status, text = 0, b""

        async def note(message: Message) -> None:
            nonlocal status, text
            if message["type"] == "http.response.start":
                status = message["status"]
            elif status >= 400 and len(text) < _LONGEST_REFUSAL:
                text += message.get("body", b"")[:_LONGEST_REFUSAL]
            await send(message)

        await app(scope, receive, note)
        for run in concerned:
            run.answered(scope, status, text)

    return watched


def _pretty(value: object) -> str:
    try:
        return json.dumps(value, indent=2, ensure_ascii=False, default=_describe)
    except RecursionError:
        return "nested too deeply to be shown"


def _describe(value: object) -> str:
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else repr(value)

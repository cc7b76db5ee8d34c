"""An HTTP engine without a socket, and what stands around a `JobHandler` in tests.

The engine is a function from a call to a response, in virtual time. It reads what it was sent from the bytes
of the form, and its webhooks reach the items by the tokens in the URLs that it was given, as if a server were
in between.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import attrs
import httpx2
import trio

from orbtrio.toolkit.answers import Heartbeat, Result
from orbtrio.toolkit.directories import Directories
from orbtrio.toolkit.handler import JobHandler
from orbtrio.toolkit.open_items import OpenItems, Urls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from orbtrio.toolkit.items import Item, Reception
    from orbtrio.toolkit.jobs import TaskInput
    from orbtrio.toolkit.open_items import Ended
    from orbtrio.toolkit.settings import ToolkitSettings

    Behaviour: TypeAlias = Callable[["Call"], Awaitable[httpx2.Response]]


def response(status: int = 200, content: bytes | object = b"", content_type: str = "") -> httpx2.Response:
    """A response; what is not bytes is sent as JSON."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return httpx2.Response(
        status, headers={"content-type": content_type} if content_type else {}, content=data
    )


@attrs.frozen
class Call:
    """A call of ``/process``, as the engine sees it.

    Attributes:
        at: When it came, in seconds since the trio run began.
        fields: The form, without the file.
        chunk: The file, if there is one.
        number: Which call it is, from 0.
    """

    at: float
    fields: dict[str, str]
    chunk: bytes | None
    number: int
    open_items: OpenItems

    def beat(self, status: str = "running", **fields: Any) -> Reception:
        """Post a heartbeat."""
        data = json.dumps({"status": status, **fields}).encode()
        return self._target("heartbeat").heartbeat(Heartbeat.parse(data), trio.current_time())

    def result(self, output: Any, **fields: Any) -> Reception:
        """Post a result."""
        data = json.dumps({"output": output, **fields}).encode()
        return self._target("result").result(Result.parse(data), trio.current_time())

    def _target(self, purpose: Any) -> Item | Ended:
        path = f"http://127.0.0.1:1234/{purpose}/"
        url = self.fields[f"{purpose}Webhook"]
        assert url.startswith(path)
        target = self.open_items.find(purpose, url.removeprefix(path))
        assert target is not None
        return target


class FakeEngine:
    """Answers calls as `behave` does, and keeps them.

    Attributes:
        calls: So far.
        notices: What was to be sent to ``sendOutputToUris``: task and outputs.
        fetched: The URLs of chunks that were fetched.
        source: What is found there: bytes, or what fetching raises.
        handler: Calls this engine.
    """

    def __init__(self, settings: ToolkitSettings, behave: Behaviour, **options: Any) -> None:
        self.calls: list[Call] = []
        self.notices: list[tuple[TaskInput, list[dict[str, Any]]]] = []
        self.fetched: list[str] = []
        self.source: bytes | Exception = b"fetched"
        self.open_items = OpenItems()
        self.urls = Urls("http://127.0.0.1:1234")
        self._behave = behave
        self.handler = JobHandler(
            settings,
            open_items=self.open_items,
            urls=self.urls,
            directories=Directories(settings),
            fetcher=cast("Any", self),
            client=httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer)),
            notifier=cast("Any", self),
            **options,
        )

    async def download(self, url: str, to: Path, limit: int) -> int:
        """As `Fetcher.download`."""
        self.fetched.append(url)
        if isinstance(self.source, Exception):
            raise self.source
        return await trio.Path(to).write_bytes(self.source)

    def send(self, task: TaskInput, outputs: list[dict[str, Any]]) -> None:
        """As `Notifier.send`."""
        self.notices.append((task, outputs))

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        fields, chunk = _form(request.content)
        call = Call(trio.current_time(), fields, chunk, len(self.calls), self.open_items)
        self.calls.append(call)
        return await self._behave(call)


def _form(data: bytes) -> tuple[dict[str, str], bytes | None]:
    line, _, _ = data.partition(b"\r\n")
    fields, chunk = {}, None
    for part in data.split(line)[1:-1]:
        head, _, content = part.removesuffix(b"\r\n").partition(b"\r\n\r\n")
        name = re.search(b'name="([^"]*)"', head)
        assert name is not None
        if name[1] == b"chunk":
            chunk = content
        else:
            fields[name[1].decode()] = content.decode()
    return fields, chunk

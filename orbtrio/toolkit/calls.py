"""One attempt at a job: POST ``/process``, judge the response, wait for what was promised.

An attempt runs in the task that asked for it, without a nursery: while the call is in flight only its
response, or the time, can end the item, and afterwards only webhooks and the time. So each phase is one await
in a cancel scope that follows the item: `Item.on_change` moves its deadline, or cancels it when there is an
outcome. Rejected: a task for the call beside one for the clock, which says the same in twice the words.

The clock of retries is the old toolkit's as it was meant, `waits`; measured, that one overshoots its maximum.
"""

from __future__ import annotations

import functools
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Final

import httpx2
import trio

from orbtrio.toolkit.answers import Failure, judge
from orbtrio.toolkit.request import open_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from orbtrio.toolkit.answers import Verdict
    from orbtrio.toolkit.items import Item, Outcome

__all__ = ["CALLS", "USER_AGENT", "call_engine", "open_engine_client", "run_attempt", "waits"]

USER_AGENT: Final = "veritone-engine-toolkit"

# Calls in all, the first included.
CALLS: Final = 3
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 1.0

# An engine on this machine that does not accept within so many seconds does not accept.
_CONNECT_TIMEOUT: Final = 10.0

# Kept connections are closed before servers do so, Node's after five seconds: a call that meets a closing
# connection is a failed call.
_KEEP_ALIVE: Final = 4.0


def waits(calls: int = CALLS) -> Iterator[float]:
    """Seconds to wait between so many calls."""
    for number in range(calls - 1):
        yield min(_FIRST_WAIT * 2**number, _LONGEST_WAIT)


def open_engine_client(concurrency: int) -> httpx2.AsyncClient:
    """A client for one engine, to be entered: connections are kept, proxies are not asked.

    Args:
        concurrency: Calls at once.
    """
    # Whoever waits for a result waits by the job's maxTTL, not by the client's clock.
    timeout = httpx2.Timeout(None, connect=_CONNECT_TIMEOUT)
    limits = httpx2.Limits(
        max_connections=None, max_keepalive_connections=concurrency, keepalive_expiry=_KEEP_ALIVE
    )
    return httpx2.AsyncClient(timeout=timeout, limits=limits, trust_env=False)


async def run_attempt(item: Item, call: Callable[[], Awaitable[Verdict]]) -> Outcome:
    """Call the engine and wait until the item has an outcome.

    Cancelling ends the call at once; whether the item is then abandoned is up to its owner.

    Args:
        item: A new one. Its `on_change` is taken.
        call: What to call.
    """
    with trio.CancelScope(deadline=item.deadline()) as scope:
        item.on_change = partial(_follow, item, scope)
        item.answered(await call(), trio.current_time())
    item.expire(trio.current_time())
    while item.outcome is None:
        with trio.CancelScope(deadline=item.deadline()) as scope:
            item.on_change = partial(_follow, item, scope)
            await trio.sleep_forever()
        item.expire(trio.current_time())
    return item.outcome


async def call_engine(
    client: httpx2.AsyncClient,
    url: str,
    fields: Sequence[tuple[str, str]],
    chunk: Path | None,
    *,
    item: Item,
    max_bytes: int,
) -> Verdict:
    """POST a form to the engine, read its response, and say what it means.

    Args:
        client: As `open_engine_client` makes it.
        url: The engine's ``/process``, whatever its path.
        fields: Of the form.
        chunk: The file to send with it.
        item: Whose call it is.
        max_bytes: Longest response to read.
    """
    try:
        async with open_body(fields, chunk) as body:
            # Not by the client's own means, which would add headers that the old toolkit does not send.
            target = _parsed(url)
            request = httpx2.Request(
                "POST",
                target,
                headers=[
                    ("Host", target.netloc.decode()),
                    ("User-Agent", USER_AGENT),
                    ("Content-Length", str(body.content_length)),
                    ("Content-Type", body.content_type),
                    ("Accept-Encoding", "gzip"),
                ],
                stream=body,
                extensions={"timeout": client.timeout.as_dict()},
            )
            response = await client.send(request, stream=True)
            try:
                content = await _read(response, max_bytes)
            finally:
                await response.aclose()
    except httpx2.HTTPError as error:
        return Failure("internal_error", f"no answer from the engine: {_describe(error)}")
    except OSError as error:
        # The engine has no part in it, and the file will not come back.
        return Failure("stream_read_error", f"the chunk cannot be read: {error}", retry=False)
    if content is None:
        message = f"{response.status_code}: the answer is longer than {max_bytes} bytes"
        return Failure("invalid_data", message, retry=False)
    return judge(response.status_code, response.headers.get("content-type", ""), content, item.task)


async def _read(response: httpx2.Response, max_bytes: int) -> bytes | None:
    parts, size = [], 0
    async with aclosing(response.aiter_bytes()) as pieces:
        async for piece in pieces:
            size += len(piece)
            if size > max_bytes:
                return None
            parts.append(piece)
    return b"".join(parts)


# The same for each call, and a twentieth of its cost.
@functools.lru_cache(maxsize=16)
def _parsed(url: str) -> httpx2.URL:
    return httpx2.URL(url)


def _follow(item: Item, scope: trio.CancelScope) -> None:
    if item.over:
        scope.cancel()
    else:
        scope.deadline = item.deadline()


# Many of them have no text of their own.
def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

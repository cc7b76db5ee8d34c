"""HTTP requests that somebody else's job makes us send: fetch a chunk, relay a stream, post a notice.

Whom they may reach is said in `reach`; here it is applied to every URL, those that redirects name included.
Proxies of the environment are not used, as they would connect to what nobody has checked. Hence httpcore2
with a connection pool of our own in place of a client of httpx2, which only reads URLs here.

What goes wrong is a `FetchFailed` with a reason out of the page's twenty: not reachable is ``url_not_found``,
an answer other than 200 ``url_not_allowed`` (both as the old toolkit has them), and so is what we refuse.
"""

from __future__ import annotations

import base64
import os
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

import attrs
import httpcore2
import httpx2
import trio

from orbtrio.errors import OrbError
from orbtrio.toolkit.reach import CONNECT, CheckedNetwork, NotAllowed, Reach

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Body", "FetchFailed", "Fetcher", "open_fetcher"]

_SCHEMES: Final = ("http", "https")
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_MOST_REDIRECTS: Final = 5

# In seconds. A file that comes may pause; a notice is small.
_SILENCE: Final = 60.0
_NOTICE: Final = 5.0

# Closed before most servers do so: see `orbtrio.toolkit.calls`.
_KEEP_ALIVE: Final = 4.0
_KEPT: Final = 8

# A write goes to a thread, which costs 0.1 ms.
_WRITE_BYTES: Final = 1 << 20
# Longest answer to a notice that is read so that the connection can be kept.
_DRAIN_BYTES: Final = 64 * 1024

_BROKEN: Final = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException)


class FetchFailed(OrbError):
    """A request for a job failed, or was not allowed.

    Attributes:
        failure_reason: One of `orbtrio.toolkit.answers.FAILURE_REASONS`.
        message: For the job's author. Names the host, never what follows it, where secrets may be.
    """

    def __init__(self, failure_reason: str, message: str) -> None:
        super().__init__(f"{failure_reason}: {message}")
        self.failure_reason = failure_reason
        self.message = message


@asynccontextmanager
async def open_fetcher(
    allowed_hosts: Sequence[str] = (), *, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[Fetcher]:
    """Open a `Fetcher`, whose connections are closed in the end.

    Args:
        allowed_hosts: As `Reach` has them; if empty, its default rule.
        ssl_context: For https; default: the system's authorities.
    """
    reach = Reach(allowed_hosts)
    async with httpcore2.AsyncConnectionPool(
        # Made once: to read the authorities takes 20 ms.
        ssl_context=ssl_context or httpcore2.default_ssl_context(),
        max_connections=None,
        max_keepalive_connections=_KEPT,
        keepalive_expiry=_KEEP_ALIVE,
        network_backend=CheckedNetwork(reach),
    ) as pool:
        yield Fetcher(reach, pool)


class Fetcher:
    """Sends requests on behalf of jobs. Made by `open_fetcher`."""

    def __init__(self, reach: Reach, pool: httpcore2.AsyncConnectionPool) -> None:
        self._reach = reach
        self._pool = pool

    def close_off(self, host: str, port: int) -> None:
        """As `Reach.close_off`."""
        self._reach.close_off(host, port)

    async def download(self, url: str, to: Path, limit: int) -> int:
        """Fetch a file. If it fails, or is cancelled, nothing is left of it.

        Args:
            url: Where it is.
            to: Where to write it; must not exist. Only our user may read it.
            limit: Most bytes.

        Returns:
            How many bytes it has.

        Raises:
            FetchFailed: it cannot be had; ``invalid_data`` if it is larger than the limit.
        """
        async with self.stream(url, silence=_SILENCE) as body:
            if (body.length or 0) > limit:
                raise _too_large(body, limit)
            try:
                return await _write(body, to, limit)
            except OSError as error:
                raise FetchFailed("file_write_error", f"what was fetched: {error.strerror}") from None

    @asynccontextmanager
    async def stream(self, url: str, *, silence: float | None = None) -> AsyncIterator[Body]:
        """Fetch something that may still grow: ends when the other side ends it.

        Args:
            url: Where it is.
            silence: Longest wait for the next part, in seconds; None: for ever.

        Raises:
            FetchFailed: it cannot be had; also out of the iteration, when it breaks off.
        """
        response, origin = await self._get(url, silence)
        try:
            headers = _headers(response)
            async with aclosing(response.aiter_stream()) as parts:
                yield Body(
                    content_type=headers.get(b"content-type", b"").decode("latin-1"),
                    length=_length(headers),
                    origin=origin,
                    parts=parts,
                )
        finally:
            with trio.CancelScope(shield=True):
                await response.aclose()

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> int:
        """Post something; a redirect is an answer like any other.

        Returns:
            The status.

        Raises:
            FetchFailed: it did not arrive, or there was no answer.
        """
        target = self._check(url)
        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        response = await self._send("POST", target, _NOTICE, _NOTICE, sent, content)
        try:
            size = 0
            async with aclosing(response.aiter_stream()) as parts:
                async for part in parts:
                    size += len(part)
                    if size > _DRAIN_BYTES:
                        break
        except _BROKEN:
            pass  # The status is all that was asked for.
        finally:
            with trio.CancelScope(shield=True):
                await response.aclose()
        return response.status

    # The response with status 200, after redirects, and whose it is.
    async def _get(self, url: str, silence: float | None) -> tuple[httpcore2.Response, str]:
        target = self._check(url)
        for _ in range(_MOST_REDIRECTS + 1):
            response = await self._send("GET", target, _SILENCE, silence, [], None)
            if response.status == 200:
                return response, _origin(target)
            with trio.CancelScope(shield=True):
                await response.aclose()
            location = _headers(response).get(b"location")
            if response.status not in _REDIRECTS or not location:
                raise FetchFailed("url_not_allowed", f"{_origin(target)} answered {response.status}")
            target = self._check(location.decode("latin-1"), base=target)
        raise FetchFailed("url_not_allowed", f"{_origin(target)}: more than {_MOST_REDIRECTS} redirects")

    def _check(self, url: str, *, base: httpx2.URL | None = None) -> httpx2.URL:
        try:
            target = httpx2.URL(url) if base is None else base.join(url)
        except (httpx2.InvalidURL, ValueError):
            raise FetchFailed("invalid_data", "an address is not a well-formed URL") from None
        if target.scheme not in _SCHEMES or not target.host:
            raise FetchFailed("url_not_allowed", "an address is not one of http or https")
        if not 0 < (target.port or 80) < 65_536:
            raise FetchFailed("invalid_data", f"{_origin(target)} has no such port")
        try:
            self._reach.check_host(target.raw_host.decode("ascii"))
        except NotAllowed as refused:
            raise FetchFailed("url_not_allowed", str(refused)) from None
        return target

    # Raises FetchFailed unless there is a response.
    async def _send(
        self,
        method: str,
        target: httpx2.URL,
        patience: float,
        silence: float | None,
        headers: list[tuple[bytes, bytes]],
        content: bytes | None,
    ) -> httpcore2.Response:
        fixed = [
            (b"Host", target.netloc),
            (b"User-Agent", b"orbtrio-toolkit"),
            (b"Accept", b"*/*"),
            # What is fetched is stored and passed on as it comes.
            (b"Accept-Encoding", b"identity"),
        ]
        if target.userinfo:
            name, _, password = (unquote_to_bytes(part) for part in target.userinfo.partition(b":"))
            fixed.append((b"Authorization", b"Basic " + base64.b64encode(name + b":" + password)))
        if content is not None:
            fixed.append((b"Content-Length", str(len(content)).encode()))
        request = httpcore2.Request(
            method,
            httpcore2.URL(
                scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path
            ),
            headers=[*fixed, *headers],
            content=content,
            extensions={"timeout": {"connect": CONNECT, "write": patience, "read": silence}},
        )
        try:
            with trio.fail_after(patience):  # For the head; `silence` is for the body.
                return await self._pool.handle_async_request(request)
        except NotAllowed as refused:
            raise FetchFailed("url_not_allowed", str(refused)) from None
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
            raise FetchFailed("url_not_found", f"{_origin(target)} cannot be reached") from None
        except (httpcore2.TimeoutException, trio.TooSlowError):
            raise FetchFailed("url_timeout", f"{_origin(target)} does not answer") from None
        except (*_BROKEN, httpcore2.UnsupportedProtocol) as error:
            raise FetchFailed("url_error", f"{_origin(target)}: {error}") from None


@attrs.define(eq=False)
class Body:
    """What comes, part by part: ``async for part in body``.

    Attributes:
        content_type: As the other side has it; may be empty.
        length: In bytes; None if it did not say.
        origin: Whose it is, for messages.
    """

    content_type: str
    length: int | None
    origin: str
    _parts: AsyncGenerator[bytes, None] = attrs.field(alias="parts")

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._parts)
        except httpcore2.TimeoutException:
            raise FetchFailed("url_timeout", f"{self.origin} has gone silent") from None
        except _BROKEN:
            raise FetchFailed("stream_read_error", f"{self.origin} broke off") from None


async def _write(body: Body, to: Path, limit: int) -> int:
    # Ours alone, and never through a link that lies where the engine may write.
    descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    size, waiting = 0, bytearray()
    try:
        async for part in body:
            size += len(part)
            if size > limit:
                raise _too_large(body, limit)
            waiting += part
            if len(waiting) >= _WRITE_BYTES:
                await trio.to_thread.run_sync(_write_all, descriptor, bytes(waiting))
                waiting.clear()
        await trio.to_thread.run_sync(_write_all, descriptor, bytes(waiting))
    except BaseException:
        os.unlink(to)
        raise
    finally:
        os.close(descriptor)
    return size


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _too_large(body: Body, limit: int) -> FetchFailed:
    return FetchFailed("invalid_data", f"{body.origin} sends more than {limit} bytes")


def _origin(url: httpx2.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}"


def _headers(response: httpcore2.Response) -> dict[bytes, bytes]:
    return {name.lower(): value for name, value in response.headers}


def _length(headers: Mapping[bytes, bytes]) -> int | None:
    value = headers.get(b"content-length", b"")
    return int(value) if value.isdigit() else None

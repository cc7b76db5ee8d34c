"""State that engines share: a few bytes under a key, in Redis, for as long as somebody said.

An engine gets no Redis but two operations on keys of its own jobs and tasks; who may use which is decided by
`webhooks`, where the URL is. A name in Redis is ``et:j:<id>:<key>`` or ``et:t:<id>:<key>``. The id is
percent-encoded there, so that the id ``a:b`` with the key ``c`` and the id ``a`` with the key ``b:c`` are not
the same; the key comes last and needs none of that.

A value is one string in Redis, its content type in front of it, so that both are set, replaced and forgotten
together by one command. Rejected: a hash with two fields, whose time to live takes a second command, which
can get lost.

Redis may come and go: each operation connects anew if need be, and what fails is `KeysUnavailable`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import quote

import attrs
import coredis
import trio
from coredis.exceptions import RedisError

from orbtrio.errors import OrbError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["DEFAULT_TTL", "LONGEST_TTL", "KeyStore", "KeysUnavailable", "Scoped", "Value", "open_keys"]

# In seconds, ET-143. Redis counts milliseconds since 1970 in 63 bits and refuses what does not fit.
DEFAULT_TTL: Final = 86_400
LONGEST_TTL: Final = 9_200_000_000_000_000

# A Redis that is there answers in milliseconds. All attempts together, and each; seconds.
_PATIENCE: Final = 5.0
_ATTEMPT: Final = 2.0

# The length of the content type is one byte.
_LONGEST_TYPE: Final = 255


class KeysUnavailable(OrbError):
    """Redis does not answer, or refuses; the text says how."""


@attrs.frozen
class Scoped:
    """A key, and whose it is.

    Attributes:
        kind: ``j`` for a job's, ``t`` for a task's.
        owner: The internal id of that job or task.
        key: Any bytes.
    """

    kind: Literal["j", "t"]
    owner: str
    key: bytes

    @property
    def name(self) -> bytes:
        """As Redis has it."""
        return f"et:{self.kind}:{quote(self.owner, safe='')}:".encode() + self.key


@attrs.frozen
class Value:
    """What an engine has put under a key.

    Attributes:
        data: As it was posted.
        content_type: Printable ASCII; may be empty.
    """

    data: bytes = attrs.field(repr=False)
    content_type: str


_Client: TypeAlias = "coredis.Redis[bytes]"


class KeyStore:
    """Values under keys. Made by `open_keys`."""

    def __init__(self, client: _Client) -> None:
        self._client = client

    async def get(self, key: Scoped) -> Value | None:
        """Look a key up; None if there is no such key, or none any more.

        Raises:
            KeysUnavailable: Redis does not answer.
        """
        try:
            with trio.fail_after(_PATIENCE):
                stored = await self._client.get(key.name)
        except _FAILURES as error:
            raise KeysUnavailable(_describe(error)) from None
        if not stored:
            return None
        end = 1 + stored[0]
        return Value(stored[end:], stored[1:end].decode("ascii", "replace"))

    async def set(self, key: Scoped, value: Value, ttl: int = DEFAULT_TTL) -> None:
        """Put a value under a key, whatever was there.

        Args:
            key: The key.
            value: A content type of more than 255 characters is dropped.
            ttl: Seconds until it is forgotten, 1 to `LONGEST_TTL`.

        Raises:
            KeysUnavailable: Redis does not answer, or has no room.
        """
        content_type = value.content_type.encode("ascii", "replace")
        if len(content_type) > _LONGEST_TYPE:
            content_type = b""
        stored = bytes([len(content_type)]) + content_type + value.data
        try:
            with trio.fail_after(_PATIENCE):
                await self._client.set(key.name, stored, ex=ttl)
        except _FAILURES as error:
            raise KeysUnavailable(_describe(error)) from None


@asynccontextmanager
async def open_keys(host: str, port: int) -> AsyncIterator[KeyStore]:
    """Open a store. It need not be there yet, and may be away for a while."""
    async with coredis.Redis(
        host, port, connect_timeout=_ATTEMPT, stream_timeout=_ATTEMPT, decode_responses=False
    ) as client:
        yield KeyStore(client)


# TimeoutError is an OSError; coredis raises it as it is. TooSlowError is ours.
_FAILURES: Final = (RedisError, OSError, trio.TooSlowError)


def _describe(error: Exception) -> str:
    return f"Redis: {error}" if str(error) else f"Redis: {type(error).__name__}"

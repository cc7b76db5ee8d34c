"""Where a worker's messages leave: its connection, or, in front of it, what adds the files.

A worker that has not the engine's disk gets the files of a batch with the batch (extension
``inline_resources``, P-44). `FileOutlet` reads them when the batch's turn has come, in a thread, and not
before all that went ahead has nearly left: so no more than one batch of files is in memory for a worker, and
everything still leaves in order, for a word about a job must not come before the job.

The files of a batch that waits are claimed. A job may end meanwhile; its batch is sent all the same, because
the worker's answers to it are counted already.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from orbtrio.errors import ConnectionLost
from orbtrio.protocol import codec, splice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orbtrio.engine.resources import HeldFile, ResourceStore

__all__ = ["FileOutlet", "Outlet", "weight"]

_log = logging.getLogger("orbtrio.engine")

# What may be unsent when the next files are read.
_NEARLY_SENT: Final = 1 << 20

# What stands around a file and its path in a batch: the names of the two fields, and four heads.
_OVERHEAD: Final = 32

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Outlet(Protocol):
    """Where batches leave; `transport.Transport` is the usual one."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes that the worker's side has not taken."""

    def queue(self, *parts: bytes) -> None:
        """Add one message, given in parts; it is written at the end of the turn."""

    async def wait_sent(self, below: int = 0) -> None:
        """Wait until at most so many bytes are unsent; raises ConnectionLost."""


def weight(file: HeldFile) -> int:
    """What a file adds to a batch, in bytes; hardly too much, never too little."""
    return file.size_bytes + 4 * len(file.path) + _OVERHEAD


@attrs.define(eq=False, slots=True)
class _Message:
    parts: Sequence[bytes]  # if there are files, its encoded jobs
    files: Sequence[HeldFile]
    size_bytes: int


class FileOutlet:
    """An outlet that sends files along.

    Args:
        outlet: The connection.
        store: Where the files are claimed.
        readers: How many threads may read at once, for all workers.
        flush: Called when something was queued later than its turn.
    """

    def __init__(
        self, outlet: Outlet, store: ResourceStore, readers: trio.CapacityLimiter, flush: Callable[[], None]
    ) -> None:
        self._outlet = outlet
        self._store = store
        self._readers = readers
        self._flush = flush
        self._waiting: deque[_Message] = deque()
        self._waiting_bytes = 0
        self._closed = False
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def buffered_bytes(self) -> int:
        """See `Outlet`. Files that are to be read count."""
        return self._outlet.buffered_bytes + self._waiting_bytes

    def queue(self, *parts: bytes) -> None:
        """See `Outlet`."""
        if self._waiting:
            self._put(_Message(parts, (), sum(map(len, parts))))
        else:
            self._outlet.queue(*parts)

    def queue_batch(self, jobs: Sequence[bytes], files: Sequence[HeldFile]) -> None:
        """Add a batch of encoded jobs, and the files that they name, each once."""
        if not files:
            self.queue(*codec.batch_parts(jobs))
        elif not self._closed:
            for file in files:
                self._store.retain(file)
            self._put(_Message(jobs, files, sum(map(len, jobs)) + sum(map(weight, files))))

    def _put(self, message: _Message) -> None:
        self._waiting.append(message)
        self._waiting_bytes += message.size_bytes
        self._changed.unpark_all()

    async def wait_sent(self, below: int = 0) -> None:
        """See `Outlet`."""
        while self._waiting_bytes > below:
            await self._changed.park()
        await self._outlet.wait_sent(below)

    async def run(self) -> None:
        """Send what waits, until the connection ends or this is cancelled."""
        try:
            while True:
                while not self._waiting:
                    await self._changed.park()
                await self._send(self._waiting[0])
                self._waiting_bytes -= self._waiting.popleft().size_bytes
                self._changed.unpark_all()
                self._flush()
        except ConnectionLost:
            pass
        finally:
            self._closed = True
            for message in self._waiting:
                self._release(message)
            self._waiting.clear()
            self._waiting_bytes = 0
            self._changed.unpark_all()

    async def _send(self, message: _Message) -> None:
        if not message.files:
            self._outlet.queue(*message.parts)
            return
        await self._outlet.wait_sent(_NEARLY_SENT)
        paths = [file.path for file in message.files]
        found = await trio.to_thread.run_sync(_read, paths, abandon_on_cancel=True, limiter=self._readers)
        self._release(message)
        resources = [part for path, data in found for part in splice.resource_parts(path, data)]
        self._outlet.queue(*codec.batch_parts(message.parts, resources, len(found)))

    def _release(self, message: _Message) -> None:
        for file in message.files:
            self._store.release(file)
        message.files = ()


# As a worker on this machine would read them. What cannot be read is left out: the worker misses it, and
# that is the error of the jobs that name it.
def _read(paths: Sequence[str]) -> list[tuple[str, bytes]]:
    found = []
    for path in paths:
        try:
            with open(path, "rb", opener=_open) as file:
                found.append((path, file.read()))
        except OSError as error:
            _log.error("cannot read %s: %s", path, error.strerror)
    return found


def _open(path: str, flags: int) -> int:
    return os.open(path, _READ)

"""What a worker sends over one link: reports and answers, in order, and no more than the engine takes.

Answers come from the event loop, reports from anywhere: from the thread of a sync handler, from its task if
it is async, from threads that the model's library has started. So a report is put down under a lock, and the
event loop is asked to look. It takes all that lies there by then, which joins the tokens of thirty-two texts
in one message; and before it sends an answer it looks first, so that a job's reports never come after it.

Whoever produces faster than the engine takes has to wait, or a handler's endless loop would fill the memory.
Answers are awaited. A report waits in its thread. In the event loop nobody can be made to wait in a function
that is not async; there the transport is the bound, which gives up an engine that reads nothing.

Rejected: a hop to the event loop and back for each report (60 us against 8, and a message for each).
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from orbtrio.errors import ConnectionLost, InvalidMessage
from orbtrio.protocol import codec
from orbtrio.protocol.messages import WorkerOutput, WorkerProgress
from orbtrio.protocol.values import UNCOUNTED_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orbtrio.transport import Transport

__all__ = ["MAX_ENTRY_BYTES", "Entry", "Outbox"]

# A job's id and its encoded member of a ``worker_output`` or a ``worker_progress``.
Entry: TypeAlias = tuple[str, bytes]

# Spec, "Worker Output", sets no limit; the engine takes messages of 16 MiB. Room for the envelope is left.
MAX_ENTRY_BYTES: Final = 16 * 1024 * 1024 - 1024

# Unsent bytes beyond which computing waits for an engine that does not read.
_MOST_UNSENT: Final = 4 * 1024 * 1024

# What a report takes up beside its bytes while it lies here.
_REPORT_OVERHEAD: Final = 128


class Outbox:
    """The way out of one link; to be made in the event loop.

    A lost link is for its reader to find and to tell; until it does, what is sent here goes nowhere.

    Args:
        transport: The link.
        typed_arrays: Whether its engine takes arrays in reports as they are.
    """

    def __init__(self, transport: Transport, *, typed_arrays: bool = False) -> None:
        self._transport = transport
        self._typed_arrays = typed_arrays
        self._event_loop = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._reports: list[Entry] = []
        self._size = 0

    def report(self, job_id: str, fields: Mapping[str, Any]) -> None:
        """Send a job's progress; from any thread, which may have to wait for the engine to read.

        Raises:
            InvalidMessage: it cannot be encoded, or is larger than a message may be.
        """
        entry = codec.progress_entry(job_id, fields, typed_arrays=self._typed_arrays)
        if len(entry) > MAX_ENTRY_BYTES:
            raise InvalidMessage(
                f"the report has {len(entry)} bytes, more than the {MAX_ENTRY_BYTES} that fit"
            )
        with self._lock:
            asked = bool(self._reports)
            self._reports.append((job_id, entry))
            self._size += len(entry) + _REPORT_OVERHEAD
        # The run is over: a thread that nobody waited for. It reports to nobody.
        with suppress(trio.RunFinishedError):
            if not asked:
                self._event_loop.run_sync_soon(self._send_reports)
            if threading.get_ident() != self._thread:
                if self._size + self._transport.buffered_bytes > _MOST_UNSENT:
                    trio.from_thread.run(self._wait_room, trio_token=self._event_loop)
            elif self._size > UNCOUNTED_BYTES:
                # From a task that may not let go of the event loop for long.
                self._send_reports()

    async def answer(self, entries: list[Entry]) -> None:
        """Send results, after all that has been reported; wait while the engine does not read."""
        self._send_reports()
        for part in _portions(entries):
            self._transport.send(codec.encode(WorkerOutput(part)))
            await self._wait_room()

    def _send_reports(self) -> None:
        if not self._reports:
            return
        with self._lock:
            reports, self._reports = self._reports, []
            size = self._size
        for part in _portions(reports):
            self._transport.queue(codec.encode(WorkerProgress(part)))
        self._transport.flush()
        # Only now: a thread that looks meanwhile should find them here or there, and wait.
        with self._lock:
            self._size -= size

    async def _wait_room(self) -> None:
        self._send_reports()
        with suppress(ConnectionLost):
            await self._transport.wait_sent(_MOST_UNSENT)


# An engine hangs up on a worker whose message costs too much to decode, so entries travel in messages below
# that, larger ones alone; the limit of stock libraries, 1 MiB, is far away. At least one message, for whoever
# counts batches wants an answer to one without jobs, too.
def _portions(entries: list[Entry]) -> Iterator[list[Entry]]:
    part: list[Entry] = []
    size = 0
    for entry in entries:
        if part and size + len(entry[1]) > UNCOUNTED_BYTES:
            yield part
            part, size = [], 0
        part.append(entry)
        size += len(entry[1])
    yield part

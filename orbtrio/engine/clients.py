"""A client at the other end of a connection: how it hears of its jobs. See `jobs.Requester`.

What a client is told leaves when the engine flushes, at the end of the turn. Whoever asked for
``batched_responses`` gets the answers of one turn in one message: they gather here, and `ClientFlusher` has
them packed before it writes.

Answers are as many as the client has jobs. Progress has no such bound, and a connection on which too much
gathers is cut, with all its jobs. So the job that floods it is given up instead, while there is room for the
answers of the others. Rejected: to drop pieces, for their reader would not know; and not to read from the
worker, which has jobs of other clients.

Typed arrays go to whoever asked for them as they came. For all others they become lists here, once for each
answer: no other client has the same job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from orbtrio.protocol import codec, splice
from orbtrio.protocol.decoding import WALK_ABOVE
from orbtrio.protocol.messages import MISSING
from orbtrio.transport import Flusher

if TYPE_CHECKING:
    from collections.abc import Hashable

    from orbtrio.engine.jobs import Job
    from orbtrio.transport import Transport

__all__ = ["TOO_LARGE", "BatchedClient", "ClientFlusher", "RemoteClient"]

# What a result comes to that would be too much as lists.
TOO_LARGE: Final = ("result_too_large", "more numbers than lists may have: ask for typed arrays")

# Beyond this, the answers of one turn are several messages. Each may be all that a message may cost (see
# `scan`): together they would be too complex for a client with a budget like the engine's, and so its
# connection lost, were they large enough to be asked. Sizes are counted as of single answers, whose heads are
# longer.
_MAX_TOGETHER: Final = WALK_ABOVE

# A client is behind once this part of what may be unsent is.
_BEHIND: Final = 16


class RemoteClient:
    """A client that hears what it asked for when it registered.

    Args:
        transport: The connection.
        extensions: What it asked for.
        max_unsent: Beyond so many bytes unsent the connection would be cut.
    """

    def __init__(
        self, transport: Transport, extensions: frozenset[str] = frozenset(), *, max_unsent: int = 64 << 20
    ) -> None:
        self.open_jobs: dict[Hashable, Job] = {}
        self.extensions = extensions
        self._transport = transport
        self._engine_errors = "engine_errors" in extensions
        self._progress = "progress" in extensions
        self._typed_arrays = "typed_arrays" in extensions
        self._max_unsent = max_unsent

    def deliver(self, job: Job, output: bytes) -> None:
        # A subclass of bytes is an entry with typed arrays. There are none unless its worker makes them.
        if type(output) is not bytes and not self._typed_arrays:
            self._deliver_lists(job, output)
        else:
            self._transport.queue(job.response_head, output)

    def _deliver_lists(self, job: Job, output: bytes) -> None:
        lists = codec.without_typed_arrays(output)
        if lists is not None:
            self._respond(job.response_head, lists)
        else:
            self.refuse(job.client_job_id, *TOO_LARGE)

    def report(self, job: Job, entry: bytes) -> bool:
        if self._progress:
            if type(entry) is not bytes and not self._typed_arrays:
                lists = codec.without_typed_arrays(entry)
                if lists is None:
                    return True  # for nobody, as any report that is too large
                entry = lists
            size = len(job.response_head) + len(entry)
            if self._transport.buffered_bytes + size > self._max_unsent // _BEHIND and self._floods(
                job, size
            ):
                return False
            fields = codec.progress_fields(entry)
            self._transport.queue(*codec.progress_parts(job.response_head, job.deliveries, fields))
        return True

    # The client is behind. Whose progress made it so must stop first, and that of all others before there is
    # no room for answers.
    def _floods(self, job: Job, size: int) -> bool:
        self._transport.flush()
        unsent = self._transport.buffered_bytes + size
        job.told_late += size
        most = self._max_unsent
        return unsent > most // 2 and (job.told_late > most // _BEHIND or unsent > 3 * most // 4)

    def refuse(self, client_job_id: Any, kind: str, text: str) -> None:
        # A stock client hears nothing, as the spec says ("Callback never invoked"); nor could it tell which
        # job without an id.
        if self._engine_errors and client_job_id is not MISSING:
            self._respond(codec.response_head(client_job_id), codec.error_output(text, kind))

    def _respond(self, head: bytes, output: bytes) -> None:
        self._transport.queue(head, output)


class BatchedClient(RemoteClient):
    """A client that takes several answers in a message. Extension ``batched_responses``.

    Args:
        transport, extensions, max_unsent: As above.
        flusher: Calls `pack` before it writes.
    """

    def __init__(
        self,
        transport: Transport,
        extensions: frozenset[str],
        flusher: ClientFlusher,
        *,
        max_unsent: int = 64 << 20,
    ) -> None:
        super().__init__(transport, extensions, max_unsent=max_unsent)
        self._flusher = flusher
        self._gathered: list[tuple[bytes, bytes]] = []

    def deliver(self, job: Job, output: bytes) -> None:
        if type(output) is not bytes and not self._typed_arrays:
            self._deliver_lists(job, output)
        else:
            self._respond(job.response_head, output)

    def _respond(self, head: bytes, output: bytes) -> None:
        if not self._gathered:
            self._flusher.gather(self)
        self._gathered.append((head, output))

    def pack(self) -> None:
        """Queue what has gathered."""
        gathered, self._gathered = self._gathered, []
        together: list[tuple[bytes, bytes]] = []
        size = 0
        for head, output in gathered:
            size += len(head) + len(output)
            if size > _MAX_TOGETHER:
                self._queue(together)
                together, size = [], len(head) + len(output)
            together.append((head, output))
        self._queue(together)

    def _queue(self, responses: list[tuple[bytes, bytes]]) -> None:
        if len(responses) == 1:
            self._transport.queue(*responses[0])
        elif responses:
            parts = [splice.responses_head(len(responses))]
            for head, output in responses:
                parts += (splice.response_member(head), output)
            self._transport.queue(*parts)


class ClientFlusher(Flusher):
    """A flusher that knows whose answers gather."""

    def __init__(self) -> None:
        super().__init__()
        self._gathering: list[BatchedClient] = []

    def gather(self, client: BatchedClient) -> None:
        """Have a client's answers packed at the next flush."""
        self._gathering.append(client)

    def flush(self) -> None:
        """Pack what has gathered, and write; never blocks, never raises."""
        if self._gathering:
            clients, self._gathering = self._gathering, []
            for client in clients:
                client.pack()
        super().flush()

"""One job of a client: who waits for it, how far it has come, and its bytes for the engine of the moment.

A job is encoded once, although it may be sent several times, and to different engines: behind an address
there may be a stock one tomorrow. So `Ticket.wire` is what every engine understands, and the fields that only
an engine with extensions understands are put behind it each time that it is sent. The deadline's field could
not be encoded once anyway, for it says how much time is left. Rejected: two encodings (twice the memory, for
inputs of megabytes), and to encode when it is sent (the caller is to hear what is wrong with its input).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from orbtrio.protocol.splice import with_numbers

if TYPE_CHECKING:
    from orbtrio.protocol.messages import Resource

__all__ = ["RESOURCE_OVERHEAD", "Carrier", "Owner", "Ticket", "measure"]

# Around a resource's data: its id, its type, the names of the fields.
RESOURCE_OVERHEAD: Final = 128

# Longest time that is sent, 24 days: no engine has a use for more, and "for ever" is no number.
_LONGEST_MS: Final = 2**31 - 1


class Owner(Protocol):
    """Whoever waits for tickets."""

    def ended(self, ticket: Ticket) -> None:
        """Take back a ticket that has its outcome. Called once, never blocks."""

    def reported(self, ticket: Ticket, piece: dict[str, Any], size: int) -> None:
        """Hear what the worker has to tell before it is done, in `size` bytes. Never blocks."""


def measure(wire: bytes, resources: tuple[Resource, ...]) -> int:
    """The size of a job that is encoded as `wire` and refers to `resources`, in bytes."""
    return len(wire) + sum(len(resource.data) + RESOURCE_OVERHEAD for resource in resources)


@attrs.define(eq=False)
class Carrier:
    """One request of the link of the moment.

    Attributes:
        jobs: How many it carries.
        accepted: Whether the engine has said a word about any of them.
    """

    jobs: int
    accepted: bool = False


@attrs.define(eq=False)
class Ticket:
    """One job, from `Outbox.add` until its owner has it back.

    Attributes:
        client_job_id: Unique within the client, and the same however often it is sent.
        wire: The job, encoded for any engine.
        resources: What its input refers to.
        size: Bytes that it holds, in its request and in memory; see `measure`.
        timeout: Seconds that its owner grants it.
        deadline: When they are over.
        owner: Who waits for it.
        tag: The owner's own.
        tells_timeout: Extension: the engine shall know the deadline, too.
        heartbeat: Extension: seconds without a word from the worker after which the engine shall end it.
        output: Its result, if it has one.
        error: Why it has none.
        strikes: Links that it took down with no other job to blame.
        runs: How often it was begun, as far as anybody has told.
        carrier: The request that it is in; None while it waits.
    """

    client_job_id: str
    wire: bytes
    resources: tuple[Resource, ...]
    size: int
    timeout: float
    deadline: float
    owner: Owner
    tag: Any = None
    tells_timeout: bool = False
    heartbeat: float | None = None
    output: dict[str, Any] | None = None
    error: Exception | None = None
    strikes: int = 0
    runs: int = 0
    carrier: Carrier | None = None
    _attempt: int = 1

    @property
    def unproven(self) -> bool:
        """Whether the engine was sent it and may refuse it yet."""
        return self.carrier is not None and not self.carrier.accepted

    @property
    def alone(self) -> bool:
        """Whether it has a request of its own."""
        return self.carrier is not None and self.carrier.jobs == 1

    def carry(self, carrier: Carrier, announced: frozenset[str], now: float) -> bytes:
        """Send it: in this request, over a link whose engine knows these extensions.

        Returns:
            The job as that engine is to get it.
        """
        self.carrier = carrier
        self.runs += 1
        self._attempt = 1
        if not self.tells_timeout and self.heartbeat is None:
            return self.wire
        terms: dict[str, int] = {}
        if self.tells_timeout and "engine_errors" in announced:
            terms["timeout_ms"] = _milliseconds(self.deadline - now)
        if self.heartbeat is not None and "progress" in announced:
            terms["heartbeat_ms"] = _milliseconds(self.heartbeat)
        return with_numbers(self.wire, terms) if terms else self.wire

    def report(self, attempt: int, piece: dict[str, Any], size: int) -> None:
        """Pass on what a worker has to tell.

        Args:
            attempt: Which worker that is for the engine, which counts from one on every link.
            piece: The worker's fields.
            size: Bytes that they took on the wire.
        """
        self.runs += max(attempt - self._attempt, 0)
        self._attempt = max(attempt, self._attempt)
        self.owner.reported(self, piece, size)

    def end(self, output: dict[str, Any] | None, error: Exception | None = None) -> None:
        """Give it back to its owner, with one of the two."""
        self.output = output
        self.error = error
        self.owner.ended(self)


def _milliseconds(seconds: float) -> int:
    return round(min(max(1, seconds * 1000), _LONGEST_MS))

"""One job in pieces: how what the outbox has for a job gets to the reader of its stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orbtrio.client.tickets import Ticket
    from orbtrio.streams import Pieces

__all__ = ["StreamOwner"]


class StreamOwner:
    """The owner of a stream's ticket; see `tickets.Owner`."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    def ended(self, ticket: Ticket) -> None:
        """The job has its outcome."""
        self._pieces.end(ticket.output, ticket.error, run=ticket.runs)

    def reported(self, ticket: Ticket, piece: dict[str, Any], size: int) -> None:
        """The worker has told something."""
        self._pieces.report(piece, size, run=ticket.runs)

"""A client's jobs from `submit` to their end: what waits, what the engine has, and what it will not take.

No tasks, no clock, no sockets: others act, this module keeps the books.

| a ticket is | sent | answered | expired, forgotten | link lost |
|---|---|---|---|---|
| waiting | carried | ended | ended | - |
| carried by a request of this link | - | ended | ended, and to be cancelled | waiting, or suspected |
| suspected | carried, alone in its request | ended | ended | suspected |

An ended ticket is in no table any more. Its id may still surface in a queue, which then skips it. To be
cancelled is an id, until the engine has been told; with the link goes the engine's interest in its jobs, so
there is nothing to tell on the next.

**Poisonous jobs.** An engine that will not take a request closes the whole connection (1008, 1009), and with
it go the requests of everybody else. To send all of it again would be to do that for ever, and the protocol
acknowledges nothing, so the culprit is found by trial. Suspected are the jobs of every request of which no
job has been answered yet, because a request is accepted whole or not at all. On the next link a group of them
is sent, each in a request of its own, while everything else waits. If the link survives for `probe_time`,
they are acquitted; if not, each half of the group is a group. A job that took down two links on which no
other job could have been the reason is convicted. That takes a time that grows with the logarithm of what was
in flight, and nobody innocent is ever convicted, however slow the engine: haste can only acquit, and who was
acquitted too early will be caught again, with twice the patience.

Rejected: one suspect per link (minutes with 512 in flight); blaming the last request sent (engines read
ahead).
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, Final

from orbtrio.client.tickets import RESOURCE_OVERHEAD, Carrier
from orbtrio.errors import JobError, JobRefused, JobTimedOut
from orbtrio.protocol.codec import encode, request_parts, resource_entry
from orbtrio.protocol.messages import CancelRequest
from orbtrio.protocol.values import UNCOUNTED_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from orbtrio.client.tickets import Owner, Ticket
    from orbtrio.protocol.messages import ProgressReport, Resource, WorkerResponse

__all__ = ["Outbox"]

# Enough to make the cost of a frame vanish, and few enough that no engine chokes on one message.
_MAX_JOBS: Final = 512

# So many ids are less than 64 KiB, which an engine decodes without walking through it first.
_MAX_CANCELLED: Final = 4096

# Jobs that have ended stay in the queues, as ids, until there are so many more of them than of living ones.
_MAX_DEAD: Final = 1024

# Kinds of errors of a job that we have cancelled, or that ran out of time there a moment after it did here.
_GIVEN_UP: Final = ("cancelled", "timeout")

# To be alone on a link that was refused once may be chance.
_CONVICTED: Final = 2

_LONGEST_PROBE: Final = 8.0


class Outbox:
    """All jobs that have not ended.

    Args:
        max_request_bytes: A request holds more only if a single job does.
        probe_time: Seconds within which an engine closes the connection on which it was sent what it will not
            take.

    Attributes:
        wake: Called whenever there is something to send. Cheap, never blocks.
        carried: Requests sent on this link.
        sent: Jobs sent, each time counted.
        answered: Answers that somebody waited for.
        cancelled: Jobs that the engine was asked to stop.
        dropped: Answers that nobody waited for (any more). That the engine has given up on a job, as we have,
            is no such answer.
    """

    def __init__(self, *, max_request_bytes: int, probe_time: float) -> None:
        self.probe_time = probe_time
        self.wake: Callable[[], None] = lambda: None
        self.carried = 0
        self.sent = 0
        self.answered = 0
        self.cancelled = 0
        self.dropped = 0
        self._max_request_bytes = max_request_bytes
        self._open: dict[str, Ticket] = {}
        # Queues hold ids alone, and skip those that are not open any more: what has ended must not stay in
        # memory until its turn or its deadline comes.
        self._waiting: deque[str] = deque()
        self._deadlines: list[tuple[float, str]] = []
        self._suspects: deque[list[Ticket]] = deque()
        self._on_trial: list[Ticket] = []
        self._unaccepted = 0
        self._acquitted: list[Carrier] = []
        self._announced: frozenset[str] = frozenset()
        self._to_cancel: list[str] = []

    def __len__(self) -> int:
        return len(self._open)

    # -------------------------------------------------------------------------------------- from add to end

    def add(self, ticket: Ticket) -> None:
        """Take a new job; it waits to be sent."""
        self._open[ticket.client_job_id] = ticket
        self._waiting.append(ticket.client_job_id)
        heapq.heappush(self._deadlines, (ticket.deadline, ticket.client_job_id))
        most = 2 * len(self._open) + _MAX_DEAD
        if len(self._deadlines) > most:
            self._deadlines = [(each.deadline, each.client_job_id) for each in self._open.values()]
            heapq.heapify(self._deadlines)
        if len(self._waiting) > most:
            self._waiting = deque(each for each in self._waiting if each in self._open)
        self.wake()

    def answer(self, response: WorkerResponse) -> None:
        """End the job that a response is for. If nobody waits (it is late, or not ours), drop it."""
        client_job_id = response.client_job_id
        # An engine may put anything into the id, even what cannot be a key.
        ticket = self._open.pop(client_job_id, None) if type(client_job_id) is str else None
        output = response.output
        if ticket is None:
            self.dropped += output.get("error_kind") not in _GIVEN_UP
            return
        self.answered += 1
        if (carrier := ticket.carrier) is not None and not carrier.accepted:
            self._accept(carrier)
        # The engine's id, of no use to anybody here.
        output.pop("id", None)
        error = JobError.of(output)
        ticket.end(output if error is None else None, error)

    def progress(self, report: ProgressReport, size: int) -> None:
        """Pass on what a worker has to tell of a job, in a message of `size` bytes."""
        client_job_id = report.client_job_id
        ticket = self._open.get(client_job_id) if type(client_job_id) is str else None
        if ticket is not None and (carrier := ticket.carrier) is not None:
            if not carrier.accepted:
                self._accept(carrier)
            ticket.report(report.attempt, report.progress, size)

    # The engine has said a word about one of its jobs, so it has taken the whole request.
    def _accept(self, carrier: Carrier) -> None:
        carrier.accepted = True
        self._unaccepted -= 1

    def forget(self, ticket: Ticket) -> None:
        """Its owner waits no longer: the engine shall stop it. Does nothing if it has ended."""
        if self._open.pop(ticket.client_job_id, None) is not None:
            self._cancel(ticket)

    def _cancel(self, ticket: Ticket) -> None:
        if ticket.carrier is not None and "cancel" in self._announced:
            self._to_cancel.append(ticket.client_job_id)
            self.wake()

    def fail(self, make_error: Callable[[], Exception]) -> None:
        """End every job, each with an error of its own: a shared one would gather the tracebacks of all."""
        tickets = list(self._open.values())
        self._open.clear()
        for ticket in tickets:
            ticket.end(None, make_error())

    def owned_by(self, owner: Owner) -> list[Ticket]:
        """What has not ended of an owner's jobs."""
        return [ticket for ticket in self._open.values() if ticket.owner is owner]

    @property
    def next_deadline(self) -> float:
        """When the next job expires; infinity if there is none."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][1] not in self._open:
            heapq.heappop(deadlines)
        return deadlines[0][0] if deadlines else float("inf")

    def expire(self, now: float) -> None:
        """End the jobs whose time is over."""
        while self.next_deadline <= now:
            ticket = self._open.pop(self._deadlines[0][1])
            # The engine's clock may be late, or it may have another opinion of how long a job may take.
            self._cancel(ticket)
            ticket.end(None, JobTimedOut(f"no answer within {ticket.timeout:g} s"))

    # ----------------------------------------------------------------------------------------- on the link

    def link_up(self, announced: frozenset[str]) -> None:
        """There is a new link, to an engine that knows these extensions."""
        self._announced = announced

    def next_cancel(self) -> list[bytes] | None:
        """A message, in parts, with the jobs that the engine shall stop; None if there are none."""
        if not self._to_cancel:
            return None
        request = CancelRequest(self._to_cancel[:_MAX_CANCELLED])
        del self._to_cancel[:_MAX_CANCELLED]
        self.cancelled += len(request.client_job_ids)
        return [encode(request)]

    def next_request(self, now: float) -> list[bytes] | None:
        """The next message, in parts: as many waiting jobs as fit, each resource once; None if none waits.

        An engine closes the connection over a message that costs too much to decode. Jobs together stay below
        that whatever they hold; one alone has been proved, without its resources, when it was encoded.
        """
        tickets: list[Ticket] = []
        known: set[str] = set()
        job_bytes = resource_bytes = 0
        while self._waiting:
            ticket = self._open.get(self._waiting[0])
            if ticket is not None:
                job_bytes += len(ticket.wire)
                for resource in ticket.resources:
                    if resource.resource_id not in known:
                        known.add(resource.resource_id)
                        resource_bytes += len(resource.data) + RESOURCE_OVERHEAD
                if tickets and (
                    len(tickets) == _MAX_JOBS
                    or job_bytes > UNCOUNTED_BYTES
                    or job_bytes + resource_bytes > self._max_request_bytes
                ):
                    break
                tickets.append(ticket)
            self._waiting.popleft()
        return self._carry(tickets, now) if tickets else None

    def _carry(self, tickets: list[Ticket], now: float) -> list[bytes]:
        carrier = Carrier(len(tickets))
        jobs: list[bytes] = []
        resources: dict[str, Resource] = {}
        for ticket in tickets:
            jobs.append(ticket.carry(carrier, self._announced, now))
            for resource in ticket.resources:
                resources[resource.resource_id] = resource
        self.carried += 1
        self._unaccepted += 1
        self.sent += len(tickets)
        return request_parts([resource_entry(resource) for resource in resources.values()], jobs)

    def link_lost(self, refusal: str = "") -> None:
        """The link has ended: all that it carried must be sent again, except a job that is the reason.

        Args:
            refusal: What the engine said, if it ended the link because of something that we sent.
        """
        self._announced = frozenset()
        self._to_cancel.clear()
        unproven = [ticket for ticket in self._open.values() if ticket.unproven]
        if refusal and unproven:
            self._accuse(unproven, refusal)
        elif self._on_trial:
            self._suspects.appendleft(self._on_trial)
        self._on_trial = []
        self._acquitted = []
        self.carried = self._unaccepted = 0
        suspected = {ticket for group in self._suspects for ticket in group}
        self._waiting.clear()
        for ticket in self._open.values():
            ticket.carrier = None
            if ticket not in suspected:
                self._waiting.append(ticket.client_job_id)

    # ---------------------------------------------------------------------------------------------- trials

    @property
    def suspicious(self) -> bool:
        """Whether there are groups to try before anything else may be sent."""
        return bool(self._suspects)

    def next_trial(self) -> list[Ticket]:
        """The next group, now on trial; empty if nobody is suspected any more."""
        while self._suspects and not self._on_trial:
            group = self._suspects.popleft()
            self._on_trial = [ticket for ticket in group if ticket.client_job_id in self._open]
        return self._on_trial

    def lone_request(self, ticket: Ticket, now: float) -> list[bytes]:
        """A request with one job of the group on trial."""
        return self._carry([ticket], now)

    def acquit(self) -> None:
        """The link survived the group."""
        self._acquitted += [ticket.carrier for ticket in self._on_trial if ticket.carrier is not None]
        self._on_trial = []

    def _accuse(self, unproven: list[Ticket], refusal: str) -> None:
        group = [each for each in self._on_trial if each.unproven and each.client_job_id in self._open]
        if not group:
            group = unproven
            if not all(request.accepted for request in self._acquitted):
                # It may as well have been one of those: the engine is slower than we thought.
                self.probe_time = min(2 * self.probe_time, _LONGEST_PROBE)
        if len(group) > 1:
            middle = len(group) // 2
            self._suspects.extendleft((group[middle:], group[:middle]))
            return
        [ticket] = group
        # What was cancelled meanwhile is in no list of ours, but the engine has it all the same.
        if self._unaccepted == 1 and ticket.alone:
            ticket.strikes += 1
        if ticket.strikes < _CONVICTED:
            self._suspects.appendleft(group)
        else:
            self.forget(ticket)
            text = f"the engine closed the connection twice when it was sent this job alone: {refusal}"
            ticket.end(None, JobRefused("invalid_job", text))

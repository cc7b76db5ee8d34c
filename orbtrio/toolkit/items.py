"""One attempt at one job: what the engine has said so far, and what that makes of it.

An engine answers a call of ``/process`` by its response, by heartbeats and by results, over three connections
and in any order: one posts ``complete`` before it acknowledges, another in the middle of a call that it
answers with the result. The rules that make one outcome of it are here and nowhere else. They need no socket
and no clock, for time is an argument: whoever owns an item calls `expire` when `deadline` has come.

| | while the call is in flight | after an acknowledgement |
|---|---|---|
| ``running`` | noted | noted |
| ``complete``, ``failed`` | remembered: the response decides | the end |
| result | kept | kept; the end of a chunk engine that never sent a heartbeat |
| time is over | as a failed response, without retry | the end |

| response | chunk | stream, batch, training |
|---|---|---|
| acknowledgement | goes on, or ends by what is remembered | the same |
| result | complete | (is an acknowledgement) |
| nothing | ignored; an acknowledgement after results | ignored; an acknowledgement after any webhook |
| failure | retried | complete if it has said so, else retried |

Tokens belong to the attempt and not to the job, so that the calls of an attempt that was given up, by an
engine that does not know it, reach nobody. Rejected: one item for all attempts, whose states would each need
an attempt's number; futures for the answers, which cannot say what a deadline makes of half an answer.

Results that have been accepted are kept until `max_bytes`, for all of them travel in one message in the end.
What comes after is reported as ever, and counted in `omitted`.
"""

from __future__ import annotations

import enum
import logging
import math
import secrets
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from orbtrio.errors import InvalidMessage
from orbtrio.toolkit.answers import (
    Ack,
    BadRequest,
    Failure,
    Heartbeat,
    Nothing,
    Output,
    Result,
    Verdict,
    with_preamble,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from orbtrio.toolkit.jobs import TaskInput

__all__ = ["Complete", "Failed", "Ignored", "Item", "Outcome", "Reception"]

logger = logging.getLogger("orbtrio.toolkit")

# An engine is lost when it has been silent for this many of its own intervals, and for so many seconds: the
# page asks for a heartbeat a second, and a machine that swaps may be late by more than one.
_LOST_AFTER_INTERVALS: Final = 30
_LOST_AFTER: Final = 30.0
_SHORTEST_INTERVAL: Final = 1.0

# 24 bytes: nobody guesses that.
_TOKEN_BYTES: Final = 24


class Reception(enum.Enum):
    """What a webhook answers."""

    ACCEPTED = "accepted"  # 204
    REPEATED = "repeated"  # 204: it said so before, and may not have heard the answer
    GONE = "gone"  # 410: the attempt is over


@attrs.frozen
class Complete:
    """The engine has done its work."""


@attrs.frozen
class Ignored:
    """The engine has nothing to say about the chunk."""


@attrs.frozen
class Failed:
    """The attempt has failed.

    Attributes:
        reason: One of `orbtrio.toolkit.answers.FAILURE_REASONS`.
        message: For people.
        retry: Another attempt may do better.
    """

    reason: str
    message: str
    retry: bool


Outcome: TypeAlias = Complete | Ignored | Failed


def _ignore(*_: object) -> None:
    pass


class Item:
    """One attempt at one job.

    Args:
        task: The job.
        now: The time, in seconds of any clock that does not go back.
        max_bytes: Most bytes of results to keep.

    Attributes:
        task: The job.
        chunk_context: What the engine gives back with a result.
        heartbeat_token: Lets its owner post heartbeats.
        result_token: Lets its owner post results.
        external_token: For an outside party: both of these, and worth nothing for the rest.
        cache_token: Lets its owner read the input.
        outputs: In order of arrival: maps with ``index`` and ``output``, and, where known, ``startOffsetMs``,
            ``endOffsetMs``, ``mimeType``, ``name``, ``filename``.
        omitted: Results that were accepted and are not in `outputs`.
        counters: ``bytesRead``, ``bytesWritten`` and ``messagesWritten``, as far as the engine has told,
            since the attempt began. One that falls has started over.
        outcome: None until it is decided.
        on_change: Called after everything that may change `outcome` or `deadline`.
        on_report: Called with each heartbeat and result that is accepted, as the fields of a report. Raises
            `InvalidMessage` for a result that no message can hold.
        answered_at_once: The response was the result; `outputs` are nowhere else.
        size_bytes: Of what `outputs` were made from.
    """

    def __init__(self, task: TaskInput, *, now: float, max_bytes: float = math.inf) -> None:
        self.task = task
        self.chunk_context = secrets.token_urlsafe(_TOKEN_BYTES)
        self.heartbeat_token = secrets.token_urlsafe(_TOKEN_BYTES)
        self.result_token = secrets.token_urlsafe(_TOKEN_BYTES)
        self.external_token = secrets.token_urlsafe(_TOKEN_BYTES)
        self.cache_token = secrets.token_urlsafe(_TOKEN_BYTES)
        self.outputs: list[dict[str, Any]] = []
        self.omitted = 0
        self.counters: dict[str, int] = {}
        self.outcome: Outcome | None = None
        self.answered_at_once = False
        self.size_bytes = 0
        self.on_change: Callable[[], None] = _ignore
        self.on_report: Callable[[dict[str, Any]], None] = _ignore
        self._last_counts: dict[str, int] = {}
        self._indices: set[int] = set()
        self._next_index = 0
        self._max_bytes = max_bytes
        self._abandoned = False
        # What the engine has said of its end while the call was in flight.
        self._terminal: Heartbeat | None = None
        self._acknowledged = False
        # When the time is over, and how long it was.
        self._due = now + task.max_ttl
        self._patience = task.max_ttl
        # Of heartbeats and results, or the acknowledgement; and of heartbeats alone.
        self._last_sign = now
        self._last_beat: float | None = None
        self._interval = math.inf

    def __repr__(self) -> str:
        return f"<Item of task {self.task.internal_task_id}, {self.outcome or 'open'}>"

    @property
    def over(self) -> bool:
        """Nothing can change it any more."""
        return self.outcome is not None or self._abandoned

    def answered(self, verdict: Verdict, now: float) -> None:
        """Take the response of ``/process``, or its failure."""
        if self.over:
            return
        if isinstance(verdict, Nothing) and self._called and (self.task.asynchronous or self.outputs):
            # It calls webhooks and takes 204 for an acknowledgement. What we have accepted is not ignored.
            verdict = Ack()
        match verdict:
            case Ack():
                self._acknowledge(verdict, now)
            case Output():
                self._take_body(verdict)
                self._end(Complete())
            case Nothing():
                self._end(Ignored())
            case _:
                self._fail(verdict)
        self.on_change()

    def heartbeat(self, beat: Heartbeat, now: float) -> Reception:
        """Take a sign of life from the engine, or from whom it has given its callback to."""
        if self.over:
            return self._repeated(beat, self.outcome)
        if self._terminal is not None:
            return Reception.REPEATED if beat.status == self._terminal.status else Reception.GONE
        if self._last_beat is not None:
            self._interval = min(self._interval, now - self._last_beat)
        self._last_beat = self._last_sign = now
        self._count(beat)
        self._report_beat(beat)
        if beat.terminal:
            self._terminal = beat
            if self._acknowledged:
                self._end(_outcome_of(beat))
        self.on_change()
        return Reception.ACCEPTED

    def result(self, result: Result, now: float) -> Reception:
        """Take a unit of work that is done. It is the job's, unless the response turns out to be a result.

        Raises:
            BadRequest: it is for another attempt, or no message can hold it.
        """
        if self.over:
            return Reception.GONE
        if result.chunk_context not in (None, self.chunk_context):
            raise BadRequest("'chunkContext' is not the one that belongs to this URL")
        self._last_sign = now
        entry: dict[str, Any] = {"index": self._index(result.index)}
        if result.start_offset_ms is not None:
            entry["startOffsetMs"] = result.start_offset_ms
        if result.end_offset_ms is not None:
            entry["endOffsetMs"] = result.end_offset_ms
        entry["output"] = with_preamble(result.output, self.task)
        try:
            self.on_report({"kind": "result", **entry})
        except InvalidMessage as error:
            self._indices.discard(entry["index"])
            raise BadRequest(f"'output' cannot be passed on: {error}; post it in parts") from None
        self._keep(entry, result.size_bytes)
        if self._acknowledged and self._last_beat is None and not self.task.asynchronous:
            self._end(Complete())
        self.on_change()
        return Reception.ACCEPTED

    def deadline(self) -> float:
        """When something must be decided next, by `expire`; infinity if never."""
        if self.over:
            return math.inf
        return min(self._due, self._lost_at)

    def expire(self, now: float) -> None:
        """Decide what the time decides, if it has come."""
        if now < self.deadline():
            return
        if not self._acknowledged:
            self.answered(
                Failure("internal_error", f"no answer within {self._patience:g} s", retry=False), now
            )
            return
        if self._due <= self._lost_at:
            self._end_unfinished("internal_error", f"no result within {self._patience:g} s")
        else:
            self._end_unfinished("heartbeat_timeout", f"no heartbeat within {self._lost_after:g} s")
        self.on_change()

    def abandon(self) -> None:
        """Nobody waits for it any more: whatever comes is too late."""
        self._abandoned = True

    @property
    def _called(self) -> bool:
        return self._last_beat is not None or bool(self.outputs)

    @property
    def _lost_after(self) -> float:
        if math.isinf(self._interval):
            return _LOST_AFTER
        return max(_LOST_AFTER, _LOST_AFTER_INTERVALS * max(self._interval, _SHORTEST_INTERVAL))

    # Stream and batch engines owe heartbeats; a chunk engine only once it has begun.
    @property
    def _lost_at(self) -> float:
        if not self._acknowledged or (self._last_beat is None and not self.task.asynchronous):
            return math.inf
        return self._last_sign + self._lost_after

    def _acknowledge(self, ack: Ack, now: float) -> None:
        self._acknowledged = True
        self._patience = max(self.task.max_ttl, ack.estimate)
        self._due = now + self._patience
        self._last_sign = now
        if self._terminal is not None:
            self._end(_outcome_of(self._terminal))
        elif self.outputs and self._last_beat is None and not self.task.asynchronous:
            self._end(Complete())

    def _take_body(self, body: Output) -> None:
        if self.outputs:
            logger.warning(
                "task %s: the engine has answered with a result; the %d that it posted before are dropped",
                *(self.task.internal_task_id, len(self.outputs)),
            )
        self.answered_at_once, self.size_bytes = True, body.size_bytes
        self.outputs = [
            {"index": index, **output, "output": with_preamble(output["output"], self.task)}
            for index, output in enumerate(body.outputs)
        ]

    def _fail(self, failure: Failure) -> None:
        said = self._terminal
        if said is None:
            self._end(Failed(failure.reason, failure.message, failure.retry))
        elif said.status == "failed":
            self._end(Failed(said.failure_reason, said.failure_msg or failure.message, failure.retry))
        elif self.task.asynchronous:
            self._end(Complete())
        else:
            self._end(Failed(failure.reason, failure.message, failure.retry))

    # Of a chunk that has given results, silence is the end; a stream may have stopped in its midst.
    def _end_unfinished(self, reason: str, message: str) -> None:
        if self.outputs and not self.task.asynchronous:
            self._end(Complete())
        else:
            self._end(Failed(reason, message, retry=False))

    def _end(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def _repeated(self, beat: Heartbeat, outcome: Outcome | None) -> Reception:
        if outcome is None or not beat.terminal:
            return Reception.GONE
        same = isinstance(outcome, Failed) == (beat.status == "failed")
        return Reception.REPEATED if same else Reception.GONE

    def _index(self, wanted: int | None) -> int:
        if wanted is None or wanted in self._indices:
            while self._next_index in self._indices:
                self._next_index += 1
            wanted = self._next_index
        self._indices.add(wanted)
        return wanted

    def _keep(self, entry: dict[str, Any], size_bytes: int) -> None:
        if self.omitted or self.size_bytes + size_bytes > self._max_bytes:
            if not self.omitted:
                logger.warning(
                    "task %s: results have become too large for one answer; from output %d on they are"
                    " only reported",
                    *(self.task.internal_task_id, entry["index"]),
                )
            self.omitted += 1
            return
        self.size_bytes += size_bytes
        self.outputs.append(entry)

    def _count(self, beat: Heartbeat) -> None:
        told = {
            "bytesRead": beat.bytes_read,
            "bytesWritten": beat.bytes_written,
            "messagesWritten": beat.messages_written,
        }
        for name, count in told.items():
            if count is not None:
                last = self._last_counts.get(name, 0)
                # An engine that has started over counts from nothing, so all of it is new.
                self.counters[name] = self.counters.get(name, 0) + (count - last if count >= last else count)
                self._last_counts[name] = count

    def _report_beat(self, beat: Heartbeat) -> None:
        fields: dict[str, Any] = {"kind": "heartbeat", "status": beat.status, **self.counters}
        if beat.info:
            fields["info"] = beat.info
        if beat.status == "failed":
            fields["failureReason"], fields["failureMsg"] = beat.failure_reason, beat.failure_msg
        self.on_report(fields)


def _outcome_of(beat: Heartbeat) -> Outcome:
    if beat.status == "complete":
        return Complete()
    return Failed(beat.failure_reason, beat.failure_msg, retry=False)

"""Which attempts are open, under which tokens, and which have ended a short while ago.

The engine calls us under URLs that hold a token and nothing else. A token opens one door: who has an
attempt's result token can post results, and neither its heartbeats nor its end. So a token is looked up
together with what it is for.

What has ended is remembered, since the engine may not know: it then hears 410 in place of 404, and for a
repetition of what ended the attempt 204, because the answer to the first may have been lost (ET-106). What
remains is `Ended`, some hundred bytes that answer as the item would, for the item itself may hold megabytes
of results. Rejected: to keep the items for a while, by time; an engine that answers fast would decide how
much memory that is.

Lookups are by dict: Python hashes strings with a secret key, so how long one takes tells nothing about the
tokens there are.
"""

from __future__ import annotations

from collections import Counter, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import attrs
import trio

from orbtrio.toolkit.items import Failed, Item, Reception

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orbtrio.toolkit.answers import Heartbeat, Result

__all__ = ["Ended", "OpenItems", "Purpose", "Urls"]

Purpose: TypeAlias = Literal["heartbeat", "result", "callback", "external", "cache"]

# Of attempts that have ended. An engine that comes back later than after so many others hears 404.
_REMEMBERED: Final = 10_000


@attrs.frozen
class Ended:
    """What is left of an attempt that is over.

    Attributes:
        status: The heartbeat that would repeat its end; None if nothing does.
    """

    status: Literal["complete", "failed"] | None

    def heartbeat(self, beat: Heartbeat, now: float) -> Reception:
        """As `Item.heartbeat` answers after the end."""
        return Reception.REPEATED if beat.status == self.status else Reception.GONE

    def result(self, result: Result, now: float) -> Reception:
        """As `Item.result` answers after the end."""
        return Reception.GONE


class OpenItems:
    """The attempts that the engine works at.

    Args:
        remembered: How many that have ended to keep in mind.
    """

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self._remembered = remembered
        self._open: dict[tuple[Purpose, str], Item] = {}
        self._ended: dict[tuple[Purpose, str], Ended] = {}
        # Oldest first.
        self._history: deque[tuple[tuple[Purpose, str], ...]] = deque()
        self._jobs: Counter[str] = Counter()
        self._tasks: Counter[str] = Counter()
        self._users: dict[Item, set[trio.CancelScope]] = {}

    def __len__(self) -> int:
        return len(self._users)

    def add(self, item: Item) -> None:
        """Open an attempt: from now on its URLs lead to it."""
        self._open.update(dict.fromkeys(_keys(item), item))
        self._jobs[item.task.internal_job_id] += 1
        self._tasks[item.task.internal_task_id] += 1
        self._users[item] = set()

    def discard(self, item: Item) -> None:
        """Close an attempt, whatever became of it. A second time nothing happens."""
        users = self._users.pop(item, None)
        if users is None:
            return
        keys = _keys(item)
        ended = Ended(_status(item))
        for key in keys:
            del self._open[key]
            self._ended[key] = ended
        for counter, name in (
            (self._jobs, item.task.internal_job_id),
            (self._tasks, item.task.internal_task_id),
        ):
            counter[name] -= 1
            if not counter[name]:
                del counter[name]
        self._history.append(keys)
        if len(self._history) > self._remembered:
            for key in self._history.popleft():
                del self._ended[key]
        for scope in users:
            scope.cancel()

    def find(self, purpose: Purpose, token: str) -> Item | Ended | None:
        """Whom a token belongs to; None if to nobody, or to nobody that we still know of."""
        key = (purpose, token)
        return self._open.get(key) or self._ended.get(key)

    def in_scope(self, kind: Literal["j", "t"], name: str) -> bool:
        """Some attempt is open for the job (``j``) or the task (``t``) of this internal id."""
        return name in (self._jobs if kind == "j" else self._tasks)

    @property
    def tasks(self) -> frozenset[tuple[str, str]]:
        """Internal ids of job and task for which an attempt is open."""
        return frozenset((item.task.internal_job_id, item.task.internal_task_id) for item in self._users)

    @contextmanager
    def while_open(self, item: Item) -> Iterator[None]:
        """Leave the block when the attempt is closed, whatever it waits for."""
        with trio.CancelScope() as scope:
            users = self._users.get(item)
            if users is None:
                scope.cancel()
            else:
                users.add(scope)
            try:
                yield
            finally:
                if users is not None:
                    users.discard(scope)


@attrs.frozen
class Urls:
    """Where the engine reaches us.

    Attributes:
        base: Such as ``http://127.0.0.1:8889``, without a slash at its end.
    """

    base: str

    def heartbeat(self, item: Item) -> str:
        """Where to post heartbeats."""
        return f"{self.base}/heartbeat/{item.heartbeat_token}"

    def result(self, item: Item) -> str:
        """Where to post results."""
        return f"{self.base}/result/{item.result_token}"

    def external(self, item: Item) -> str:
        """Where somebody else may post results and heartbeats."""
        return f"{self.base}/external/{item.external_token}"

    def cache(self, item: Item) -> str:
        """Where to read the input."""
        return f"{self.base}/cache/{item.cache_token}"

    @property
    def keys(self) -> str:
        """What stands before ``/keys/…`` (ET-139)."""
        return self.base


# The page posts to `/callback` what it elsewhere posts to the heartbeat URL (ET-46): one token opens both.
def _keys(item: Item) -> tuple[tuple[Purpose, str], ...]:
    return (
        ("heartbeat", item.heartbeat_token),
        ("callback", item.heartbeat_token),
        ("result", item.result_token),
        ("external", item.external_token),
        ("cache", item.cache_token),
    )


def _status(item: Item) -> Literal["complete", "failed"] | None:
    if item.outcome is None:
        return None
    return "failed" if isinstance(item.outcome, Failed) else "complete"

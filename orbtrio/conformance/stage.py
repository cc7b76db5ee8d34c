"""What a case plays on: connections, time, and the words for what it demands.

A stage is set anew for each plan and struck afterwards. Nothing here predicts the target's schedule. A case
says what must be so within a time, or that something must not happen.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, NoReturn

import attrs

from orbtrio.conformance.model import Inconclusive, Skipped, TargetGone, Violation
from orbtrio.conformance.peer import Closed, Peer, WireLog

if TYPE_CHECKING:
    import collections
    from collections.abc import Callable

    from orbtrio.conformance.world import World

__all__ = ["PROMPTLY", "Conditions", "Stage"]

# Within which a target must have done what it is to do at once, in seconds, slack not counted. Generous: it
# costs time only where something fails.
PROMPTLY: Final = 4.0


@attrs.frozen(kw_only=True)
class Conditions:
    """What a case may know of the target and the run.

    Attributes:
        slack: Seconds that are allowed on top of each time that the protocol names.
        secret: WORKER_SECRET of the target.
        token: What its clients show; None if they need none.
        types: Worker types that it recognises, at least four. The last is the canary's.
        unknown_type: One that it does not recognise; None if it recognises all.
        path: Of the WebSocket.
        host: What connections call the target, as ``Host`` of HTTP.
        job_timeout: Seconds until the target gives a job up.
        max_job_timeout: Seconds that a job may ask for by its own ``timeout_ms``.
        rate: How many times as fast as ours the target's clock runs.
        patience: Longest wait that a case may plan, in seconds. One that needs longer is skipped.
        files: Whether the target's files can be seen from here.
        queue_limit: Jobs that it queues for a worker.
    """

    slack: float = 0.15
    secret: str = "conformance-secret"
    token: str | None = None
    types: tuple[str, ...] = (
        "embedding",
        "llm",
        "object_detection",
        "segmentation",
        "vlm",
        "motion_energy",
        "video_segmentation",
        "caption",
    )
    unknown_type: str | None = "no_such_type_of_worker"
    path: str = "/ws"
    host: str = "localhost"
    job_timeout: float = 300.0
    max_job_timeout: float = 300.0
    rate: float = 1.0
    patience: float = 30.0
    files: bool = True
    queue_limit: int = 1000


class Stage:
    """Connections and time.

    Args:
        world: Where they are.
        conditions: What is known of the target.
        counters: Shared by the stages of a run.

    Attributes:
        log: Everything that went over its connections.
        peers: All of them, closed ones included.
    """

    def __init__(self, world: World, conditions: Conditions, counters: collections.Counter[str]) -> None:
        self.world = world
        self.conditions = conditions
        self.log = WireLog(world.now, tuple(filter(None, (conditions.secret, conditions.token))))
        self.peers: list[Peer] = []
        self._counters = counters

    # --- Time ---

    @property
    def slack(self) -> float:
        """Seconds that are allowed on top of each time that the protocol names."""
        return self.conditions.slack

    def now(self) -> float:
        """Seconds since the stage was set, as in the wire log."""
        return self.log.now()

    def sleep(self, seconds: float) -> None:
        """Let time pass; whatever arrives is read."""
        self.world.wait(seconds)

    def sleep_until(self, when: float) -> None:
        """Let time pass up to a moment (of `now`)."""
        self.world.wait(max(when - self.now(), 0.0))

    def wait(self, condition: Callable[[], bool], seconds: float = PROMPTLY) -> bool:
        """Let time pass until a condition holds; False if it does not within this time and the slack."""
        return self.world.wait(seconds + self.slack, condition)

    def expect(
        self,
        condition: Callable[[], bool],
        expected: str,
        seen: Callable[[], str] | str = "nothing",
        *,
        within: float = PROMPTLY,
    ) -> None:
        """Demand that a condition comes to hold within this time and the slack.

        Raises:
            Violation: it does not.
        """
        if not self.wait(condition, within):
            self.fail(expected, seen() if callable(seen) else seen)

    def demand(self, condition: bool, expected: str, seen: str) -> None:
        """Demand that something is so now.

        Raises:
            Violation: it is not.
        """
        if not condition:
            self.fail(expected, seen)

    def fail(self, expected: str, seen: str) -> NoReturn:
        """The target is wrong.

        Raises:
            Violation: always; or `TargetGone` if its process has ended.
        """
        if not self.world.alive():
            raise TargetGone(f"the target's process ended. Expected: {expected}")
        raise Violation(expected, seen)

    # --- Remarks ---

    def note(self, text: str) -> None:
        """A remark for whoever reads the wire log."""
        self.log.remark(text)

    def count(self, counter: str) -> None:
        """A state that matters has been reached."""
        self._counters[counter] += 1

    def skip(self, reason: str) -> NoReturn:
        """This case cannot be judged here.

        Raises:
            Skipped: always.
        """
        raise Skipped(reason)

    def too_slow(self, reason: str) -> NoReturn:
        """This machine is too slow to tell.

        Raises:
            Inconclusive: always.
        """
        raise Inconclusive(reason)

    def need_patience(self, seconds: float, what: str) -> None:
        """Skip the case if it would have to wait longer than the run allows; virtual time costs nothing."""
        if seconds > self.conditions.patience and not self.world.virtual:
            self.skip(
                f"{what} takes {seconds:.0f} s: allow it with --max-wait, or run the target on a fast clock"
            )

    # --- Closing ---

    def expect_closed(self, peer: Peer, expected: str, *, within: float = PROMPTLY) -> Closed:
        """Demand that the target ends a connection; how it did is for the case to judge.

        Raises:
            Violation: it does not.
        """
        self.expect(
            lambda: peer.closed is not None, expected, f"{peer.name} is still connected", within=within
        )
        assert peer.closed is not None
        return peer.closed

    def strike(self) -> None:
        """End all connections."""
        for peer in self.peers:
            if peer.closed is None and peer.open:
                with contextlib.suppress(Violation):
                    peer.close()
        # Until the target has seen it: otherwise it might give the next plan's jobs to a peer of this one.
        self.world.wait(self.slack, lambda: all(peer.closed or not peer.open for peer in self.peers))
        for peer in self.peers:
            if peer.closed is None:
                peer.drop("FIN")
            else:
                peer.pipe.close()

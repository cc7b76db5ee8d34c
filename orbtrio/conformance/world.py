"""What a case reaches its target through: byte streams and a clock, real or not.

Cases are synchronous. Nothing happens behind their back: bytes arrive, listeners are called and, in a
simulated world, time passes only inside `World.wait`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pipe", "PipeEnded", "PipeStuck", "World", "never"]


class PipeEnded(Exception):
    """Nothing can be sent any more: the target ended the connection, or we did."""


class PipeStuck(Exception):
    """The target has read nothing for so long that the rest cannot be handed over."""


def never() -> bool:
    """The condition that does not hold: `World.wait` for the whole time."""
    return False


class Pipe(Protocol):
    """One byte stream between the suite and the target.

    Attributes:
        received: What has arrived and nobody has taken yet.
        ended: ``""`` while open; ``"FIN"`` or ``"RST"`` once the target has ended it, and then all that came
            before is in `received`.
        paused: While True nothing is read from it, and the target's writes back up.
        listener: Called when something arrived, or when it ended. It may send, and must not wait.
    """

    received: bytearray
    ended: str
    listener: Callable[[], None]

    @property
    def paused(self) -> bool: ...

    @paused.setter
    def paused(self, value: bool) -> None: ...

    def send(self, data: bytes) -> None:
        """Hand all of it over.

        Raises:
            PipeEnded: the connection is gone.
            PipeStuck: the target reads nothing for 5 s.
        """

    def finish(self) -> None:
        """FIN: nothing more is sent, what comes is still read."""

    def close(self) -> None:
        """Gone, gracefully."""

    def reset(self) -> None:
        """Gone at once, by RST."""


class World(Protocol):
    """Where the target lives.

    Attributes:
        virtual: Time passes only in `wait`.
    """

    virtual: bool

    def now(self) -> float:
        """Seconds since this world began."""

    def connect(self) -> Pipe:
        """A connection to the target.

        Raises:
            TargetGone: nobody accepts it.
        """

    def accept(self, seconds: float) -> Pipe | None:
        """The next connection that the target opens, if it opens one in time."""

    def wait(self, seconds: float, until: Callable[[], bool] = never) -> bool:
        """Let things happen until the condition holds (True) or time is over (False)."""

    def alive(self) -> bool:
        """Whether the target still runs, as far as one can tell."""

    def close(self) -> None:
        """Leave nothing behind."""

"""Programs that we start: what they say, line by line, and how they end.

A program gets a session of its own, for two reasons: Ctrl-C at a terminal is meant for us, who then end it in
good order; and whatever it has started itself can be ended with it.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["LAST_WORDS", "Relay", "how_it_ended", "kill_session"]

# Seconds for what a program has said to arrive, once it has ended: one of its own may keep the pipe open.
LAST_WORDS: Final = 1.0

_MOST_LINE: Final = 64 * 1024


class Relay:
    """Hands on what a program says, line by line, each with a name before it.

    Args:
        name: What stands before each line.
        stream: The program's output.
        write: Gets whole lines, several at a time.

    Attributes:
        last_line: The last that was not blank: most programs say there why they end.
        done: The output has ended.
    """

    def __init__(
        self, name: str, stream: trio.abc.ReceiveStream, write: Callable[[str], Awaitable[None]]
    ) -> None:
        self.last_line = ""
        self.done = trio.Event()
        self._name = name
        self._stream = stream
        self._write = write

    async def run(self) -> None:
        """Until the stream ends. A line longer than 64 KiB becomes several."""
        rest = b""
        async with self._stream:
            async for data in self._stream:
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > _MOST_LINE:
                    lines, rest = [*lines, rest], b""
                await self._hand_on(lines)
        await self._hand_on([rest] if rest else [])
        self.done.set()

    async def _hand_on(self, lines: list[bytes]) -> None:
        texts = [line.decode("utf-8", "replace").rstrip("\r") for line in lines]
        self.last_line = next((text for text in reversed(texts) if text.strip()), self.last_line)
        if texts:
            await self._write("".join(f"{self._name} | {text}\n" for text in texts))


def kill_session(process: trio.Process) -> None:
    """Kill a program that was started with ``start_new_session=True``, and what it has started.

    What it has started may live on after it; its number belongs to nobody else before those are gone.
    """
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def how_it_ended(status: int) -> str:
    """A return code in words: ``with status 3``, ``by SIGKILL``."""
    if status >= 0:
        return f"with status {status}"
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:  # Most real-time signals have no name.
        return f"by signal {-status}"

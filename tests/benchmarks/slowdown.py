"""A slower program: ``python -m tests.benchmarks.slowdown 1.4 orbtrio.engine`` uses 40 % more CPU.

Each time it is about to wait for its sockets, it burns a share of the CPU that it has used since then. So
it stands for any regression, and knows nothing of how the program works but that it waits in epoll, as Trio
does. A timer that burns now and then would not do: the best of many short rounds would have missed it.
"""

from __future__ import annotations

import runpy
import select
import sys
import time
from typing import Any


class SlowEpoll:
    """An epoll that uses `factor` times the CPU that goes by between two polls."""

    factor = 1.0

    def __init__(self) -> None:
        self._epoll = _epoll()
        self._last = time.process_time()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)

    def poll(self, *arguments: Any) -> Any:
        """Burn, then wait."""
        now = time.process_time()
        end = now + (self.factor - 1) * (now - self._last)
        while time.process_time() < end:
            pass
        self._last = time.process_time()
        return self._epoll.poll(*arguments)


_epoll = select.epoll

if __name__ == "__main__":
    _, factor, module, *arguments = sys.argv
    sys.argv = [module, *arguments]
    SlowEpoll.factor = float(factor)
    select.epoll = SlowEpoll  # type: ignore[assignment,misc]
    runpy.run_module(module, run_name="__main__")

"""The CPU time that a whole tree of processes has used, those that have ended included.

The time of a process that ends goes to whoever waits for it, and is then part of what the kernel says about
that one's children. So for a tree the sum over living processes of their own time and their children's, plus
what its root has inherited, misses nothing: as long as nobody leaves the tree. Daemons do, by letting their
parent end; `adopt_orphans` makes this process their new parent, and they are found below it.

Own times are read from each process's CPU clock, in nanoseconds; inherited ones come in ticks of 10 ms, but
hardly ever change while something is measured. Rejected: psutil, which has the ticks only, and a cgroup,
which needs root and a kernel that lets one be made.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import time
from pathlib import Path
from typing import Final

import attrs

from benchmarks.processes import cpu_clock

__all__ = ["Meter", "adopt_orphans", "descendants", "end_descendants", "tree_cpu"]

_PR_SET_CHILD_SUBREAPER: Final = 36
_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
_PROC: Final = Path("/proc")
# Seconds that processes get to end well before they are killed, and after that to be gone.
_END_TIMEOUT: Final = 10.0


def adopt_orphans() -> None:
    """Have descendants whose parents end become this process's children, until it ends.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def descendants() -> list[int]:
    """The ids of all processes below this one, zombies included, in no order."""
    return [process.pid for process in _descendants()]


def tree_cpu() -> float:
    """Seconds of CPU, user and system, that the processes below this one have used, living and ended.

    Only differences mean something. Call `adopt_orphans` before the first of them is started.
    """
    while True:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        processes = _descendants()
        try:
            living = sum(cpu_clock(process.pid) + process.inherited for process in processes)
        except (OSError, OverflowError):
            continue  # one has ended since, and its time is now somewhere that was read before
        again = resource.getrusage(resource.RUSAGE_CHILDREN)
        if (again.ru_utime, again.ru_stime) == (ended.ru_utime, ended.ru_stime):
            return living + ended.ru_utime + ended.ru_stime


@attrs.define
class Meter:
    """Measures what happens inside its block.

    Attributes:
        cpu: Seconds of CPU of all processes below this one.
        load_cpu: Those of this process.
        seconds: By the clock on the wall.
    """

    cpu: float = 0.0
    load_cpu: float = 0.0
    seconds: float = 0.0

    def __enter__(self) -> Meter:
        self.cpu = -tree_cpu()
        self.load_cpu = -time.process_time()
        self.seconds = -time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter()
        self.load_cpu += time.process_time()
        self.cpu += tree_cpu()


def end_descendants() -> None:
    """End every process below this one: by SIGTERM, or SIGKILL if that takes ten seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        give_up = time.monotonic() + _END_TIMEOUT
        signalled: set[int] = set()
        while living := set(_reaped(descendants())):
            # Those that are new since were started by, or orphaned of, those that are ending.
            for pid in living - signalled:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            signalled |= living
            if time.monotonic() > give_up:
                break
            time.sleep(0.02)


@attrs.frozen
class _Process:
    pid: int
    parent: int
    inherited: float  # seconds of CPU of children that have ended


def _descendants() -> list[_Process]:
    children: dict[int, list[_Process]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            # It may have ended since the directory was read.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                process = _parse_stat((entry / "stat").read_text())
                children.setdefault(process.parent, []).append(process)
    found: list[_Process] = []
    generation = [os.getpid()]
    while generation:
        born = [child for pid in generation for child in children.get(pid, ())]
        found += born
        generation = [child.pid for child in born]
    return found


# proc(5). The second field is the program's name in parentheses, which may hold anything.
def _parse_stat(stat: str) -> _Process:
    pid = int(stat.partition(" ")[0])
    fields = stat[stat.rindex(")") + 2 :].split()
    return _Process(pid, int(fields[1]), (int(fields[13]) + int(fields[14])) * _TICK)


# Waits for those of them that are children of this process and have ended; the others are returned. What a
# library here waits for itself is none of its business any more when everything is to end.
def _reaped(pids: list[int]) -> list[int]:
    left = []
    for pid in pids:
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # another descendant's child
            ended = 0
        if not ended:
            left.append(pid)
    return left

"""What the machine must lend to a fault, and how it is given back: networks, mounts, ptrace, limits.

Nothing is assumed: each of these tries, and skips the test with what the system said.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "busy_processors",
    "descriptors",
    "file_system",
    "injected",
    "memory_limit",
    "own_network",
    "processor_seconds",
    "run",
    "stop_process",
    "tool",
    "traffic_lost",
    "undo",
]

_CLONE_NEWNET: Final = 0x40000000
_MEMORY: Final = Path("/sys/fs/cgroup/memory")


def run(*command: str) -> str:
    """Run a tool of the system; skip the test if it is missing or is not allowed to."""
    done = subprocess.run([tool(command[0]), *command[1:]], capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().partition("\n")[0]
        pytest.skip(f"{command[0]} failed: {said}")
    return done.stdout


def undo(*command: str) -> None:
    """Run a tool that must succeed, for what it undoes has succeeded."""
    subprocess.run([tool(command[0]), *command[1:]], check=True)


def tool(name: str) -> str:
    """The path of a tool of the system; skip the test if it is missing."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@contextmanager
def own_network() -> Iterator[None]:
    """A network of its own for this thread and whatever it starts, with nothing in it but loopback."""
    libc = ctypes.CDLL(None, use_errno=True)
    with ExitStack() as stack:
        former = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        stack.callback(os.close, former)
        if libc.unshare(_CLONE_NEWNET):
            pytest.skip(f"unshare(CLONE_NEWNET): {os.strerror(ctypes.get_errno())}")
        try:
            run("ip", "link", "set", "lo", "up")
            yield
        finally:
            assert not libc.setns(former, _CLONE_NEWNET), "could not return to the machine's network"


@contextmanager
def traffic_lost(rule: str) -> Iterator[None]:
    """Packets are dropped on their way in, as an nft rule says, ``"tcp sport 5000 drop"``."""
    run("nft", "add", "table", "ip", "faults")
    try:
        run("nft", "add chain ip faults input { type filter hook input priority 0; }")
        run("nft", f"add rule ip faults input {rule}")
        yield
    finally:
        undo("nft", "delete", "table", "ip", "faults")


@contextmanager
def file_system(where: Path, options: str) -> Iterator[None]:
    """A tmpfs over a directory."""
    run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where))
    try:
        yield
    finally:
        undo("umount", str(where))


@contextmanager
def injected(pid: int, fault: str) -> Iterator[None]:
    """System calls of a process and its threads fail, as strace's ``inject`` says."""
    tracer = subprocess.Popen(
        [tool("strace"), "-f", "-p", str(pid), "-e", f"inject={fault}", "-o", "/dev/null"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    try:
        line = tracer.stderr.readline()
        if "attached" not in line:
            pytest.skip(f"strace cannot attach: {line.strip()}")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)  # it detaches, and the process goes on
        tracer.communicate(timeout=10)


@contextmanager
def memory_limit(pid: int, limit: int) -> Iterator[Path]:
    """A memory control group for a process, with the limit in bytes. Yields the group's directory."""
    group = _MEMORY / f"orbtrio-faults-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no memory control group can be made: {error}")
    try:
        try:
            (group / "memory.limit_in_bytes").write_text(str(limit))
            (group / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            pytest.skip(f"the memory control group cannot be used: {error}")
        yield group
    finally:
        for member in (group / "cgroup.procs").read_text().split():
            (_MEMORY / "cgroup.procs").write_text(member)
        group.rmdir()


@contextmanager
def busy_processors() -> Iterator[int]:
    """A loop on each processor that this process may use."""
    processors = os.sched_getaffinity(0)
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in processors]
    try:
        for loop, processor in zip(loops, processors, strict=True):
            os.sched_setaffinity(loop.pid, {processor})
        yield len(loops)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def processor_seconds(pid: int) -> float:
    """Processor time of all threads of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stop_process(pid: int) -> None:
    """SIGSTOP, and wait until it holds: until then a process may answer once more."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, "the process did not stop"
        time.sleep(0.001)

"""Engines as processes of their own, and what the kernel says they have used.

An engine is started by any command, and told where to listen by the spec's variables. It may be a wrapper
that starts others: the figures are those of the whole tree.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "EngineFailed",
    "EngineProcess",
    "cpu_clock",
    "cpu_time",
    "free_port",
    "raise_file_limit",
    "run_engine",
]

_START_TIMEOUT: Final = 30.0
_STOP_TIMEOUT: Final = 5.0

# Where `benchmarks` and `orbtrio` can be imported from.
_ROOT: Final = Path(__file__).resolve().parent.parent


class EngineFailed(Exception):
    """An engine did not start, or ended; the text has its last words."""


@attrs.frozen
class EngineProcess:
    """A running engine.

    Attributes:
        port: Where it listens on this machine.
        secret: Its worker secret.
    """

    port: int
    secret: str = attrs.field(repr=False)
    _argv: Sequence[str]
    _process: subprocess.Popen[bytes]
    _log: Path

    def cpu_time(self) -> float:
        """Seconds of CPU used so far by its processes, in their own code and in the kernel for it.

        Of processes that have ended meanwhile nothing is known: an engine that starts one per message would
        look better than it is.
        """
        self.check()
        return sum(cpu_time(pid) for pid in self.pids())

    def peak_bytes(self) -> int:
        """The most memory that its processes had resident, each at its own time."""
        total = 0
        for pid in self.pids():
            with suppress(OSError):
                found = re.search(
                    r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
                )
                total += int(found[1]) * 1024 if found else 0
        return total

    def check(self, patience: float = 0) -> None:
        """Raise `EngineFailed` if it has ended, or does within `patience` seconds."""
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(patience)
            raise EngineFailed(f"{self} ended with status {status}: {self._log.read_text()[-2000:].strip()}")

    def pids(self) -> list[int]:
        """The process and its descendants that are alive."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    # PID (NAME) STATE PARENT; a name may hold anything.
                    parent = (entry / "stat").read_bytes().rpartition(b")")[2].split()[1]
                    children.setdefault(int(parent), []).append(int(entry.name))
        tree = [self._process.pid]
        for pid in tree:
            tree += children.get(pid, [])
        return tree

    def __str__(self) -> str:
        return " ".join(self._argv).replace(sys.executable, "python")


def cpu_clock(pid: int) -> float:
    """Seconds of CPU that all threads of a process have used so far.

    Raises:
        OSError: it is gone.
    """
    # What clock_getcpuclockid(3) computes: the clock of another process. /proc/PID/stat has the same figure
    # in steps of 10 ms.
    return time.clock_gettime(~pid << 3 | 2)


def cpu_time(pid: int) -> float:
    """As `cpu_clock`; 0 if the process is gone."""
    try:
        return cpu_clock(pid)
    except OSError:
        return 0.0


@contextmanager
def run_engine(argv: Sequence[str], settings: Mapping[str, str] | None = None) -> Iterator[EngineProcess]:
    """Run an engine until the block is left.

    Args:
        argv: The program and its arguments.
        settings: More of its environment than the spec's variables.

    Raises:
        EngineFailed: it cannot be started, or it does not listen.
    """
    secret = os.urandom(16).hex()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="orbtrio-bench-") as directory:
        log = Path(directory, "log")
        # Settings of whoever runs this must not change what is measured.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ORB_")}
        environment |= {
            "PYTHONPATH": str(_ROOT),
            "SERVER_HOST": "127.0.0.1",
            "SERVER_PORT": str(port),
            "WORKER_SECRET": secret,
            "XDG_DATA_HOME": directory,
            **(settings or {}),
        }
        with log.open("wb") as output:
            try:
                process = subprocess.Popen(
                    argv, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
                )
            except OSError as error:
                raise EngineFailed(f"cannot start {argv[0]}: {error.strerror}") from error
        engine = EngineProcess(port, secret, argv, process, log)
        try:
            _wait_until_it_listens(engine)
            yield engine
        finally:
            _stop(process)


def raise_file_limit() -> None:
    """Allow this process, and the engines that it starts, as many connections as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with suppress(ProcessLookupError):  # whatever a wrapper has left behind
        os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait_until_it_listens(engine: EngineProcess) -> None:
    give_up = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < give_up:
        engine.check()
        try:
            socket.create_connection(("127.0.0.1", engine.port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise EngineFailed(f"{engine} does not listen at 127.0.0.1:{engine.port} after {_START_TIMEOUT:g} s")

"""Engines as processes of their own, and the CPU time that the kernel says they have used."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["EngineFailed", "EngineProcess", "run_engine"]

_START_TIMEOUT: Final = 15.0
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
    secret: str
    _command: Sequence[str]
    _process: subprocess.Popen[bytes]
    _log: Path

    def cpu_time(self) -> float:
        """Seconds of CPU used so far by all its threads, in its own code and in the kernel for it."""
        self.check()
        # What clock_getcpuclockid(3) computes: the clock of another process. /proc/PID/stat has the same
        # figure in steps of 10 ms.
        return time.clock_gettime(~self._process.pid << 3 | 2)

    def check(self) -> None:
        """Raise `EngineFailed` if it has ended."""
        status = self._process.poll()
        if status is not None:
            raise EngineFailed(f"{self} ended with status {status}: {self._log.read_text()[-2000:]}")

    def __str__(self) -> str:
        return " ".join(("python", *self._command))


@contextmanager
def run_engine(command: Sequence[str]) -> Iterator[EngineProcess]:
    """Run an engine until the block is left.

    Args:
        command: What Python runs, e.g. ``("-m", "orbtrio.engine")``; configured by the spec's variables.

    Raises:
        EngineFailed: it does not listen.
    """
    secret = os.urandom(16).hex()
    port = _free_port()
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
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command], env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        engine = EngineProcess(port, secret, command, process, log)
        try:
            _wait_until_it_listens(engine)
            yield engine
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait_until_it_listens(engine: EngineProcess) -> None:
    give_up = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < give_up:
        engine.check()
        try:
            socket.create_connection(("127.0.0.1", engine.port), 1).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise EngineFailed(f"{engine} does not listen after {_START_TIMEOUT:g} s")

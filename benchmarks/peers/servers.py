"""Starts the processes of one system, notices when one falls, and ends them with all that they have started.

What a process says goes to one log; its last lines are what a failure shows. Nobody's settings in the
environment of whoever runs this may change what is measured, so only a few variables are handed down.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.peers.cpu import end_descendants

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["ServerFailed", "Servers"]

# Where `benchmarks` can be imported from.
_ROOT: Final = Path(__file__).resolve().parent.parent.parent
_HANDED_DOWN: Final = ("LANG", "PATH", "TMPDIR")
# Seconds. Ray takes twenty on two cores that others use as well.
_START_TIMEOUT: Final = 120.0
_LOG_CHARACTERS: Final = 3000


class ServerFailed(Exception):
    """A process did not start, or has ended; the text has its last words."""


class Servers:
    """The processes of one system.

    Args:
        directory: For the log, and for whatever the processes write. Whoever made it removes it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._log = directory / "log"
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start a program of this machine.

        Args:
            command: Its name and arguments.
            environment: Variables that it needs, besides those that everybody has.
        """
        variables = {name: os.environ[name] for name in _HANDED_DOWN if name in os.environ}
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command,
                env={
                    **variables,
                    "HOME": str(self.directory),  # where Ray would leave a token, and others their settings
                    "PYTHONPATH": str(_ROOT),
                    **(environment or {}),
                },
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._processes.append((" ".join(command), process))

    def start_python(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """Start this Python with these arguments."""
        self.start((sys.executable, *arguments), environment)

    def wait_for_port(self, port: int) -> None:
        """Wait until something listens on this port of this machine.

        Raises:
            ServerFailed: nothing does after two minutes, or a process has ended.
        """

        def listens() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                return False
            return True

        self.wait_until(listens, lambda: f"nothing listens on port {port}")

    def wait_until(self, ready: Callable[[], bool], problem: Callable[[], str]) -> None:
        """Wait until it is `ready`.

        Raises:
            ServerFailed: it is not after two minutes, for which `problem` has the words; or a process has
                ended.
        """
        give_up = time.monotonic() + _START_TIMEOUT
        while not ready():
            self.check()
            if time.monotonic() > give_up:
                raise ServerFailed(f"{problem()} after {_START_TIMEOUT:g} s: {self.last_words()}")
            time.sleep(0.05)

    def check(self) -> None:
        """Raise `ServerFailed` if a process has ended."""
        for command, process in self._processes:
            status = process.poll()
            if status is not None:
                raise ServerFailed(f"{command} ended with status {status}: {self.last_words()}")

    def last_words(self) -> str:
        """The end of the log."""
        return self._log.read_text(errors="replace")[-_LOG_CHARACTERS:] if self._log.exists() else ""

    def end(self) -> None:
        """End all processes, and what they have started."""
        # In the reverse order: a broker that goes before its workers only makes them complain.
        for _, process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        end_descendants()

"""What a system is: how it is started, how it is asked, and what must be said about it.

`serve` is a context manager that starts the servers and yields a function that asks them; there is nothing
else to know about a system while it is measured. The two `Setting` are two ways to start it; a system that is
best both ways with the same settings says so by describing one, and is started once.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from benchmarks.peers.cpu import Meter
    from benchmarks.peers.servers import Servers

__all__ = ["Answers", "Ask", "Asked", "Missing", "Serve", "Setting", "System", "versions"]


class Setting(StrEnum):
    """What a system is set up for."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"


class Asked(StrEnum):
    """By what jobs come in: what a fair comparison has to have in common."""

    CONNECTIONS = "a connection for each job on its way"
    CLIENT = "one client of the system's own"


@attrs.frozen
class Answers:
    """What came back for a list of texts.

    Attributes:
        texts: The answers, in the order of their jobs.
        seconds: From when each job was sent to its answer.
    """

    texts: list[str]
    seconds: list[float]


class Ask(Protocol):
    """Has jobs done, and waits for all of them."""

    def __call__(self, texts: Sequence[str], in_flight: int, meter: Meter) -> Answers:
        """Submit jobs, at most so many unanswered at any time.

        Args:
            texts: One for each job.
            in_flight: How many.
            meter: To be entered when the first job is about to be sent, and left with the last answer;
                connecting, preparing and decoding belong outside.
        """


class Serve(Protocol):
    """Starts a system's servers, ready to be asked when it is entered; whoever owns `servers` ends them."""

    def __call__(self, servers: Servers, setting: Setting) -> AbstractContextManager[Ask]: ...


@attrs.frozen(kw_only=True, eq=False)
class System:
    """One of those compared.

    Attributes:
        name: In tables and on the command line.
        serve: Starts it.
        asked: By what.
        settings: How it is set up, in words; one entry if both are the same.
        packages: What it needs from PyPI, as distribution names, the one that names its version first.
        programs: What it needs from Debian: program and package; ``PROGRAM --version`` tells the version.
        native: What of its servers is not written in Python, and in what it is, if anything.
    """

    name: str
    serve: Serve
    asked: Asked
    settings: Mapping[Setting, str]
    packages: Sequence[str]
    programs: Mapping[str, str] = attrs.field(factory=dict)
    native: str = ""

    def missing(self) -> Missing | None:
        """What is not installed, if anything."""
        packages = [name for name in self.packages if not _is_installed(name)]
        if packages:
            names = " ".join(packages)
            return Missing(f"{names} not installed", f"pip install {names}")
        programs = [package for program, package in self.programs.items() if shutil.which(program) is None]
        if programs:
            names = " ".join(programs)
            return Missing(f"{names} not installed", f"apt-get install {names}")
        return None


@attrs.frozen
class Missing:
    """Why a system is left out, and the command that changes it."""

    reason: str
    command: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.command}"


def versions(system: System) -> dict[str, str]:
    """The versions of what a system is made of, all of which must be installed."""
    found = {name: importlib.metadata.version(name) for name in system.packages}
    for program in system.programs:
        said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
        found[program] = next(
            (word.removeprefix("v=").removeprefix("v") for word in said.split() if "." in word), said.strip()
        )
    return found


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True

"""A worker of this repository as a process of its own, at an engine that is one too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

import orbtrio
from tests.processes.harness import SECRET, running_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager

# Until the model is loaded, beside others who load theirs.
STARTUP = 120.0


@attrs.frozen
class Served:
    """A worker that is ready, and its engine.

    Attributes:
        url: The engine's.
        process: The worker's.
        log: What it wrote.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def connect(self) -> AbstractAsyncContextManager[orbtrio.Client]:
        """A client of the engine."""
        return orbtrio.connect(self.url)

    def cpu_seconds(self) -> float:
        """Processor time of the worker so far, all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_megabytes(self) -> int:
        """Most memory that the worker had resident so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found
        return int(found[1]) // 1024

    def listening_ports(self) -> set[int]:
        """TCP ports that the worker listens on."""
        links = (os.readlink(entry.path) for entry in os.scandir(f"/proc/{self.process.pid}/fd"))
        sockets = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
        ports = set()
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{self.process.pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == "0A" and inode in sockets:
                    ports.add(int(local.rsplit(":", 1)[1], 16))
        return ports


@contextmanager
def serving(worker_type: str, folder: Path, **environ: str) -> Iterator[Served]:
    """Start an engine and ``python -m workers.<worker_type>``; both must end in good order."""
    log = folder / "worker.log"
    with running_engine(folder) as engine, log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", f"workers.{worker_type}"],
            env={**os.environ, "SERVER_URL": engine.url, "WORKER_SECRET": SECRET, **environ},
            stdout=output,
            stderr=output,
        )
        try:
            deadline = time.monotonic() + STARTUP
            while f"registered as {worker_type}" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield Served(engine.url, process, log)
            process.terminate()
            # An engine that knew of draining and did not do it would be left after thirty seconds.
            assert process.wait(60) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in log.read_text(), log.read_text()

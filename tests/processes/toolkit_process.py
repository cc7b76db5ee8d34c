"""A toolkit as a process, with any program as its HTTP engine."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orbtrio.conformance.sockets import free_port
from tests.processes.harness import PATIENCE, SECRET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.processes.harness import EngineProcess

__all__ = ["running_toolkit"]


@contextmanager
def running_toolkit(
    engine: EngineProcess,
    directory: Path,
    engine_id: str,
    command: Sequence[str],
    *,
    ready: str = "/readyz",
    process: str = "/process",
    module: str = "orbtrio.toolkit",
    **environ: str,
) -> Iterator[subprocess.Popen[str]]:
    """Run a toolkit; on leaving it must end well.

    Args:
        engine: Whose worker it is.
        directory: For its cache.
        engine_id: Of the HTTP engine.
        command: What follows the module's name on the command line.
        ready: Path of the ready webhook; empty for an engine that has none.
        process: Path of the other one.
        module: What to run.
        environ: More settings.
    """
    url = f"http://127.0.0.1:{free_port()}"
    toolkit = subprocess.Popen(
        [sys.executable, "-m", module, *command],
        env={
            **os.environ,
            "SERVER_URL": engine.url,
            "WORKER_SECRET": SECRET,
            "ENGINE_ID": engine_id,
            "ORB_TOOLKIT_CACHE": str(directory / "cache"),
            "VERITONE_WEBHOOK_READY": ready and url + ready,
            "VERITONE_WEBHOOK_PROCESS": url + process,
            **environ,
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield toolkit
    finally:
        toolkit.terminate()
        try:
            _, errors = toolkit.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            toolkit.kill()
            errors = toolkit.communicate()[1]
        print(errors, file=sys.stderr)
    assert toolkit.returncode == 0
    assert "Traceback" not in errors
    assert SECRET not in errors

"""Runs a model as a worker: registers, takes batches, answers, reconnects.

Read `run_worker` for what a handler may do, `WorkerSettings` for the environment, `run_program` for
making a program of it.

Inside, from the bottom: `settings`; `handlers`, which gets exactly one answer per job out of a user's
function; `runtime`, the life of the connection; `program`, signals and command line.
"""

from __future__ import annotations

from orbtrio.worker.program import run_program
from orbtrio.worker.runtime import run_worker
from orbtrio.worker.settings import WorkerSettings

__all__ = ["WorkerSettings", "run_program", "run_worker"]

"""Runs a model as a worker: registers, takes batches, answers, reconnects.

Read `run_worker` for what a handler may do, `Job` for those that take long, `WorkerSettings` for the
environment, `run_program` for making a program of it.

How a job goes through:

    link --> inline, preparing --> handlers --> outbox

| module | what it hides |
|---|---|
| `jobs` | what a handler sees of a job, and that others may cancel it meanwhile |
| `outbox` | that reports come from any thread, and that the engine may not read |
| `handlers` | exactly one answer per job out of a user's function, whatever that does |
| `preparing` | the threads that decode while others compute |
| `inline` | where files are that came with a batch |
| `link` | one connection: reading, backlog, computing, draining |
| `runtime` | link after link |
| `settings`, `program` | environment; signals and command line |
"""

from __future__ import annotations

from orbtrio.worker.jobs import Job, JobCancelled
from orbtrio.worker.program import run_program
from orbtrio.worker.runtime import run_worker
from orbtrio.worker.settings import WorkerSettings

__all__ = ["Job", "JobCancelled", "WorkerSettings", "run_program", "run_worker"]

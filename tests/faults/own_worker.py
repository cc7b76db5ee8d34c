"""Our worker, echoing, as a program: what a model's program looks like, without the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orbtrio.worker import run_program

if TYPE_CHECKING:
    from orbtrio.worker.settings import WorkerSettings


def load(settings: WorkerSettings) -> Any:
    """The handler."""

    def echo(job_input: dict[str, Any]) -> dict[str, Any]:
        return {"echo": job_input}

    return echo


if __name__ == "__main__":
    run_program(load, worker_type="echo")

"""A worker of orbtrio, as in its README, set up by the variables WORKER_SECRET and SERVER_URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.peers.work import Echo
from orbtrio.worker import run_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from orbtrio.worker import WorkerSettings


def load(settings: WorkerSettings) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    echo = Echo()

    def handle(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"text": text} for text in echo([job_input["text"] for job_input in inputs])]

    return handle


if __name__ == "__main__":
    run_program(load, worker_type="echo", batched=True)

"""Workers on our runtime: ``echo`` takes 20 ms a batch, ``llm`` talks, ``endless`` talks until cancelled."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import trio

from orbtrio.worker import run_program

if TYPE_CHECKING:
    from orbtrio.worker import Job


def echo(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As a model on an accelerator would: the processor is idle meanwhile."""
    time.sleep(0.02)
    return inputs


def talk(job: Job) -> dict[str, Any]:
    """A language model with one answer."""
    words = ["Hello", ", ", "world!"]
    for word in words:
        job.report(text=word)
    return {"response": "".join(words)}


async def endless(job: Job) -> dict[str, Any]:
    """A language model that never comes to an end."""
    while True:
        job.report(text="la ")
        await trio.sleep(0.5)


if __name__ == "__main__":
    match os.environ["WORKER_TYPE"]:
        case "echo":
            run_program(lambda settings: echo, worker_type="echo", batched=True)
        case "llm":
            run_program(lambda settings: talk, worker_type="llm", with_jobs=True)
        case _:
            run_program(lambda settings: endless, worker_type="endless", concurrency=1000, with_jobs=True)

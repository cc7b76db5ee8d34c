"""Jobs for a real worker, and what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orbtrio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.models.serving import Served


async def answers_of(served: Served, worker_type: str, *inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each input's output, in their order; of a job that failed, ``error`` and what came with it."""
    outputs: dict[int, dict[str, Any]] = {}
    jobs = (orbtrio.Job(worker_type, job_input, tag=place) for place, job_input in enumerate(inputs))
    async with served.connect() as client, client.submit_many(jobs) as results:
        async for result in results:
            error = result.error
            outputs[result.job.tag] = error.output if isinstance(error, orbtrio.JobFailed) else result.output
    return [outputs[place] for place in range(len(inputs))]

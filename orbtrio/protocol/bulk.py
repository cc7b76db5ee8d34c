"""Jobs too large for any worker, found before they cost anything.

A batch is one message and no worker takes one above 16 MiB, so a job beyond that can never be run. To find
out by encoding it would take three times its size in memory (the encoder doubles its buffer as it grows): a
client could make the engine hold 128 MiB with one message of 32. Text and byte strings are all that can be
large in few items, and they are counted here; many small items are what the budget of `scan` is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from orbtrio.protocol.messages import InvalidJob

if TYPE_CHECKING:
    from orbtrio.protocol.messages import WorkerRequest

__all__ = ["MAX_JOB_BYTES", "refuse_bulky_jobs"]

MAX_JOB_BYTES: Final = 16 << 20


def refuse_bulky_jobs(request: WorkerRequest) -> None:
    """Turn jobs with more than 16 MiB of text and bytes into invalid ones."""
    fitting = []
    for job in request.jobs:
        size = _bulk([job.input, job.extra])
        if size <= MAX_JOB_BYTES:
            fitting.append(job)
        else:
            reason = f"{size} bytes of text and data exceed the {MAX_JOB_BYTES} of a job; use resources"
            request.invalid.append(InvalidJob(job.client_job_id, reason))
    request.jobs = fitting


# Bytes of all text and byte strings in a value, keys and the content of tags included.
def _bulk(value: Any) -> int:
    size = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is str or type(item) is bytes:
            size += len(item)
        elif type(item) is dict:
            waiting += item
            waiting += item.values()
        elif type(item) is list:
            waiting += item
        elif hasattr(item, "tag"):
            waiting.append(item.value)
    return size

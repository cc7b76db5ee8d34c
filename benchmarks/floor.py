"""The CBOR library alone: an engine that decodes and encodes every message once cannot cost less than this.

Four calls: decode the request, encode the batch, decode the output, encode the response. orbtrio is below
this floor where results are long: it proves them and passes them on without decoding them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import cbor2

from benchmarks import wire
from benchmarks.cases import request

if TYPE_CHECKING:
    from benchmarks.cases import Case

__all__ = ["Floor"]

_SECONDS: Final = 0.05


class Floor:
    """The messages of a case, and what the library needs for them."""

    def __init__(self, case: Case) -> None:
        batch = case.max_batch_size
        numbers = range(case.jobs_per_request)
        ids = [f"a1b2c3d4e5f60718-{number:06}" for number in range(batch)]
        # The worker of a case with resources reads a file, and there is none here.
        inputs = [{} if case.work.resources(0) else case.work.input(number) for number in range(batch)]
        outputs = [{"id": job_id, **case.work.expected(number)} for number, job_id in enumerate(ids)]
        self._jobs_per_request = case.jobs_per_request
        self._jobs_per_batch = batch
        self._request = cbor2.dumps(request(case.work, numbers))
        self._batch: dict[str, Any] = {
            "inputs": [
                {"id": job_id, "input": job_input} for job_id, job_input in zip(ids, inputs, strict=True)
            ]
        }
        self._output = wire.output_message(cbor2.dumps(output) for output in outputs)
        self._response = {"type": "worker_response", "job_id": "job-00000000", "output": outputs[0]}

    def measure(self) -> float:
        """CPU seconds per job, as of now: the machine is not equally fast at all times."""
        return (
            _time(lambda: cbor2.loads(self._request)) / self._jobs_per_request
            + _time(lambda: cbor2.dumps(self._batch)) / self._jobs_per_batch
            + _time(lambda: cbor2.loads(self._output)) / self._jobs_per_batch
            + _time(lambda: cbor2.dumps(self._response))
        )


def _time(call: Any) -> float:
    start = now = time.thread_time()
    calls = 0
    while now - start < _SECONDS / 4:
        for _ in range(4):
            call()
        calls += 4
        now = time.thread_time()
    return (now - start) / calls

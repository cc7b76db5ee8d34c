"""The CBOR library alone: an engine that decodes and encodes every message once cannot cost less than this.

Four calls: decode the request, encode the batch, decode the output, encode the response. A process of its
own makes exactly these, over all the messages of a case, and the kernel says what that took. orbtrio is below
this floor where results are long: it proves them and passes them on without decoding them.

An engine's calls are dearer than those of a loop that decodes one and the same message, and not by its fault.
So what an engine cannot avoid is the same here, and nothing else is added:

- Every message is another one: its bytes are not in the nearest cache, and its texts are not either.
- They come in the order and grouping of the case: requests until as many jobs are unanswered as its clients
  allow, then an output for each further request.
- What was decoded lives until its job is answered, as an engine must keep it, so memory is as scattered.
- Meanwhile this process does the load's share of the CBOR work: the workers', once for each batch. The other
  core and the caches that both share are as busy as while an engine runs.

The loop around the calls, which builds their arguments out of what was decoded, is included. What an engine
could avoid is not: there are no sockets, the garbage collector is off, and memory that was freed is kept. By
default glibc gives large blocks back to the kernel and gets them anew, which costs more than the calls at
10 KB per job.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
from collections import deque
from typing import TYPE_CHECKING, Any

import attrs
import cbor2

from benchmarks import wire
from benchmarks.cases import request
from benchmarks.processes import cpu_time

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from benchmarks.cases import Case

__all__ = ["Codec", "Floor"]


class Floor:
    """The process, ready to begin.

    Args:
        case: Whose messages.
        jobs: How many.
    """

    def __init__(self, case: Case, jobs: int) -> None:
        self._work = case.work
        self._jobs = jobs
        # What workers are sent, and the ids and numbers of what they answer.
        self._batches = [
            (
                cbor2.dumps({"inputs": [{"id": _job_id(n), "input": case.work.delivered(n)} for n in batch]}),
                batch,
            )
            for batch in _batches(case, jobs)
        ]
        # Not a fork, see `pinger`.
        context = multiprocessing.get_context("spawn")
        self._orders, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(case, jobs, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._orders.recv()  # it has its messages
        self.measure()  # as engines have warmed up

    def measure(self) -> float:
        """CPU seconds per job, as of now: the machine is not equally fast at all times."""
        pid = self._process.pid
        assert pid is not None
        before = cpu_time(pid)
        self._orders.send("run")
        for raw, batch in self._batches:
            if self._orders.poll():
                break
            cbor2.loads(raw)
            wire.frame(wire.output_message(self._work.answer(_job_id(number), number) for number in batch))
        answered = self._orders.recv()
        spent = cpu_time(pid) - before
        if answered != self._jobs:
            raise AssertionError(f"the floor has answered {answered} of {self._jobs} jobs")
        return spent / self._jobs

    def close(self) -> None:
        """End the process."""
        self._orders.close()
        self._process.join()


@attrs.frozen
class _Batch:
    # What an engine adds to a batch of jobs, and what the worker sends for it.
    ids: list[str]
    paths: list[dict[str, Any]] | None  # the inputs, where the engine puts the paths of files into them
    reports: list[bytes]
    output: bytes


class Codec:
    """The messages of a case, and the calls that an engine would make for them.

    Args:
        case: Whose messages.
        jobs: How many; whole requests.
    """

    def __init__(self, case: Case, jobs: int) -> None:
        self._limit = case.held + case.clients * case.outstanding
        self._size = _batch_size(case)
        self._together = case.batched
        self._requests = [cbor2.dumps(request(case.work, numbers)) for numbers in case.numbers(jobs)]
        self._batches = [_batch(case, numbers) for numbers in _batches(case, jobs)]

    def run(self, responses: list[bytes] | None = None) -> int:
        """Make the calls for all messages; the number of answers. A test keeps the `responses`."""
        loads = cbor2.loads
        batches = iter(self._batches)
        waiting: list[dict[str, Any]] = []
        sent: deque[tuple[list[dict[str, Any]], _Batch]] = deque()
        open_jobs = answered = 0
        for raw in self._requests:
            jobs = loads(raw)["jobs"]
            open_jobs += len(jobs)
            waiting += jobs
            while len(waiting) >= self._size:
                sent.append((waiting[: self._size], next(batches)))
                del waiting[: self._size]
                _send(*sent[-1])
            while sent and open_jobs >= self._limit:
                count = self._answer(*sent.popleft(), responses)
                open_jobs -= count
                answered += count
        if waiting:
            sent.append((waiting, next(batches)))
            _send(*sent[-1])
        while sent:
            answered += self._answer(*sent.popleft(), responses)
        return answered

    def _answer(self, jobs: list[dict[str, Any]], batch: _Batch, responses: list[bytes] | None) -> int:
        loads, dumps = cbor2.loads, cbor2.dumps
        messages: list[bytes] = []
        for raw in batch.reports:
            for job, entry in zip(jobs, loads(raw)["progress"], strict=True):
                messages.append(
                    dumps({"type": "worker_progress", "job_id": job["job_id"], "progress": entry})
                )
        output = zip(jobs, loads(batch.output)["output"], strict=True)
        if self._together:
            together = [{"job_id": job["job_id"], "output": entry} for job, entry in output]
            messages.append(dumps({"type": "worker_responses", "responses": together}))
        else:
            for job, entry in output:
                messages.append(dumps({"type": "worker_response", "output": entry, "job_id": job["job_id"]}))
        if responses is not None:
            responses += messages
        return len(jobs)


def _send(jobs: list[dict[str, Any]], batch: _Batch) -> bytes:
    inputs = batch.paths or [job["input"] for job in jobs]
    return cbor2.dumps(
        {"inputs": [{"id": name, "input": own} for name, own in zip(batch.ids, inputs, strict=True)]}
    )


def _batch(case: Case, numbers: range) -> _Batch:
    work, ids = case.work, [_job_id(number) for number in numbers]
    named = list(zip(ids, numbers, strict=True))
    reports = [
        wire.progress_message(
            cbor2.dumps({"id": name, "step": step, "number": f"{number:08}"}) for name, number in named
        )
        for step in range(case.progress)
    ]
    return _Batch(
        ids,
        # The files of resources are the engine's to write, and its workers' to read.
        [work.delivered(number) for number in numbers] if work.resources(0) else None,
        reports,
        wire.output_message(work.answer(name, number) for name, number in named),
    )


# The numbers of the jobs of each batch.
def _batches(case: Case, jobs: int) -> list[range]:
    size = _batch_size(case)
    return [range(first, min(first + size, jobs)) for first in range(0, jobs, size)]


# No more than each worker can get of what is open at a time.
def _batch_size(case: Case) -> int:
    return max(1, min(case.max_batch_size, case.clients * case.outstanding // max(case.workers, 1)))


# As long as an engine's, which must be hard to guess.
def _job_id(number: int) -> str:
    return f"a1b2c3d4e5f60718-{number:06}"


# mallopt(3): M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD. A libc without it may do as it likes.
def _keep_memory() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((-1, 1 << 30), (-2, 64 << 20), (-3, 1 << 30)):
            mallopt(parameter, value)


def _serve(case: Case, jobs: int, orders: Connection) -> None:
    _keep_memory()
    codec = Codec(case, jobs)
    gc.collect()
    gc.freeze()
    gc.disable()
    orders.send("ready")
    try:
        while orders.recv() == "run":
            orders.send(codec.run())
    except EOFError:
        pass

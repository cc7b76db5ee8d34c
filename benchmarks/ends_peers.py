"""The two ends that `ends` measures: a worker and a client of ours, each a process that obeys a pipe.

Both hold what they produce or receive against what it should be, the client after the measured part. Each
also makes the calls of the CBOR library that its end cannot avoid, and nothing else: its floor, measured in
the very process that is measured otherwise, and in the same minute.
"""

from __future__ import annotations

import gc
import random
import time
from array import array
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
import cbor2
import trio

import orbtrio
from orbtrio.client import Job
from orbtrio.worker import WorkerSettings, run_worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    Orders: TypeAlias = "Connection[Any, Any]"

__all__ = ["BATCH", "Work", "run_client", "run_worker_process"]

BATCH: Final = 32

# Clients of `submit` are tasks, each with one job on its way.
_TASKS: Final = 256
_IN_FLIGHT: Final = 512

# Different vectors, so that neighbours differ: a prime number.
_VECTORS: Final = 61


@attrs.frozen
class Work:
    """What a job asks for, and in which form its answer travels.

    Attributes:
        floats: Numbers of the vector that is the answer; 0 for the text of the job, sent back.
        worker_arrays: The worker returns the vector as it has it, else a list made of it.
        client_arrays: The client asks for arrays, else gets lists.
    """

    floats: int = 0
    worker_arrays: bool = False
    client_arrays: bool = False

    def input(self, number: int) -> dict[str, Any]:
        """A hundred bytes."""
        return {"text": f"{number:08} " * 11}

    def output(self, job_input: dict[str, Any]) -> dict[str, Any]:
        """What the worker's handler returns."""
        if not self.floats:
            return {"text": job_input["text"]}
        vector = _vector(int(job_input["text"][:8]) % _VECTORS, self.floats)
        return {"embedding": vector if self.worker_arrays else vector.tolist(), "shape": [self.floats]}

    def check(self, number: int, output: dict[str, Any]) -> bool:
        """Whether a client was answered rightly."""
        if not self.floats:
            return output == self.input(number)
        vector = output.get("embedding")
        kind = array if self.client_arrays else list
        return type(vector) is kind and list(vector) == _vector(number % _VECTORS, self.floats).tolist()

    def wire_output(self, number: int, *, typed: bool) -> dict[str, Any]:
        """The answer as the library would encode it."""
        if not self.floats:
            return self.input(number)
        vector = _vector(number % _VECTORS, self.floats)
        value = cbor2.CBORTag(85, vector.tobytes()) if typed else vector.tolist()
        return {"embedding": value, "shape": [self.floats]}


@lru_cache(maxsize=_VECTORS)
def _vector(which: int, floats: int) -> array[float]:
    chance = random.Random(which)
    return array("f", [chance.gauss(0, 0.05) for _ in range(floats)])


# CPU seconds per job of some calls for `BATCH` jobs, the least of some rounds.
def _floor(calls: Callable[[], object]) -> float:
    rounds = []
    for _ in range(7):
        began = time.process_time()
        for _ in range(8):
            calls()
        rounds.append((time.process_time() - began) / 8 / BATCH)
    return min(rounds)


# --- The worker ---------------------------------------------------------------------------------------------


def run_worker_process(port: int, secret: str, work: Work, orders: Orders) -> None:
    """Be a worker until the order is to end. Answers ``floor``, and ``batches``: how many, and their jobs."""
    settings = WorkerSettings(
        worker_type="embedding",
        worker_secret=secret,
        server_url=f"ws://127.0.0.1:{port}/ws",
        max_batch_size=BATCH,
    )
    counts = [0, 0]

    def handler(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        counts[0] += 1
        counts[1] += len(inputs)
        return [work.output(one) for one in inputs]

    async def obey(stop: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while (order := await trio.to_thread.run_sync(orders.recv)) != "end":
            orders.send(_worker_floor(work) if order == "floor" else tuple(counts))
        stop.set()

    async def main() -> None:
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(obey, stop)
            await nursery.start(_serve, handler, settings, stop)
            orders.send("ready")

    trio.run(main)


async def _serve(
    handler: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    settings: WorkerSettings,
    stop: trio.Event,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    await run_worker(handler, settings, batched=True, stop=stop, task_status=task_status)


def _worker_floor(work: Work) -> float:
    batch = cbor2.dumps({"inputs": [{"id": f"{n:016}", "input": work.input(n)} for n in range(BATCH)]})
    entries = [{"id": f"{n:016}", **work.wire_output(n, typed=work.worker_arrays)} for n in range(BATCH)]
    output = {"type": "worker_output", "output": entries}
    return _floor(lambda: (cbor2.loads(batch), cbor2.dumps(output)))


# --- The client ---------------------------------------------------------------------------------------------


def run_client(port: int, work: Work, orders: Orders) -> None:
    """Be a client until the order is to end.

    An order is ``floor``, or a pair: how to submit, and how many jobs. It is answered twice: when the last
    job is done, and when all answers have been looked at, with the number of wrong ones and, of jobs that
    were submitted one after the other, the seconds that each took.
    """

    async def main() -> None:
        url = f"ws://127.0.0.1:{port}/ws"
        async with orbtrio.connect(url, arrays=work.client_arrays) as client:
            orders.send("ready")
            while (order := await trio.to_thread.run_sync(orders.recv)) != "end":
                if order == "floor":
                    orders.send(_client_floor(work))
                    continue
                how, jobs = order
                gc.collect()
                outputs: dict[int, dict[str, Any]] = {}
                seconds: list[float] = []
                await _WAYS[how](client, work, jobs, outputs, seconds)
                orders.send("done")
                wrong = sum(not work.check(number, outputs.get(number, {})) for number in range(jobs))
                orders.send((wrong, seconds))

    trio.run(main)


async def _submit_many(
    client: orbtrio.Client, work: Work, jobs: int, outputs: dict[int, Any], seconds: list[float]
) -> None:
    source = (Job("embedding", work.input(number), tag=number) for number in range(jobs))
    async for result in client.submit_many(source, max_in_flight=_IN_FLIGHT):
        outputs[result.job.tag] = result.output


async def _submit(
    client: orbtrio.Client, work: Work, jobs: int, outputs: dict[int, Any], seconds: list[float]
) -> None:
    numbers = iter(range(jobs))

    async def submit_some() -> None:
        for number in numbers:
            outputs[number] = await client.submit("embedding", work.input(number))

    async with trio.open_nursery() as nursery:
        for _ in range(min(_TASKS, jobs)):
            nursery.start_soon(submit_some)


async def _submit_alone(
    client: orbtrio.Client, work: Work, jobs: int, outputs: dict[int, Any], seconds: list[float]
) -> None:
    for number in range(jobs):
        began = time.perf_counter()
        outputs[number] = await client.submit("embedding", work.input(number))
        seconds.append(time.perf_counter() - began)


_WAYS: Final = {"submit_many": _submit_many, "submit": _submit, "alone": _submit_alone}


def _client_floor(work: Work) -> float:
    jobs = [{"job_id": f"{n:016}", "worker_type": "embedding", "input": work.input(n)} for n in range(BATCH)]
    request = {"type": "worker_request", "resources": [], "jobs": jobs}
    typed = work.worker_arrays and work.client_arrays
    responses = [
        {"job_id": f"{n:016}", "output": {"id": f"{n:016}", **work.wire_output(n, typed=typed)}}
        for n in range(BATCH)
    ]
    answer = cbor2.dumps({"type": "worker_responses", "responses": responses})
    return _floor(lambda: (cbor2.dumps(request), cbor2.loads(answer)))

"""The engine that most people would write: trio-websocket's public interface, a task and an event per job.

It batches, waits, times out and answers as the spec says, and it is short and easy to follow. It has no
limits, no requeueing, no resources and no defence against anybody. orbtrio's cost is compared with its cost,
on the same machine in the same minute, so that a ratio means something where microseconds do not.

    WORKER_SECRET=... SERVER_PORT=5000 python -m benchmarks.baseline
"""

from __future__ import annotations

import itertools
import os
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import attrs
import cbor2
import trio
import trio_websocket

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB_TIMEOUT = 300.0
MAX_QUEUED_JOBS = 1000


@attrs.define(eq=False)
class Callback:
    """Where the output of one job goes."""

    arrived: trio.Event = attrs.Factory(trio.Event)
    output: dict[str, Any] | None = None


class Worker:
    """A connected worker and the jobs that wait for it."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection, config: dict[str, Any]) -> None:
        self.worker_type: str = config["worker_type"]
        self._websocket = websocket
        self._max_batch_size = int(config.get("max_batch_size", 32))
        self._max_latency = config.get("max_latency_ms", 30_000) / 1000
        self.put, self._take = trio.open_memory_channel[dict[str, Any]](MAX_QUEUED_JOBS)

    async def send_batches(self) -> None:
        """Gather jobs into batches and send each when it is full or its first job has waited long enough."""
        while True:
            batch = [await self._take.receive()]
            with trio.move_on_after(self._max_latency):
                while len(batch) < self._max_batch_size:
                    batch.append(await self._take.receive())
            await self._websocket.send_message(cbor2.dumps({"inputs": batch}))


class Engine:
    """All workers by type, and the callback of every job on its way."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._workers: dict[str, list[Worker]] = {}
        self._turns: dict[str, Iterator[int]] = {}
        self._callbacks: dict[str, Callback] = {}

    async def handle(self, request: trio_websocket.WebSocketRequest) -> None:
        """Serve one connection."""
        websocket = await request.accept()
        worker: Worker | None = None
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    message = cbor2.loads(cast("bytes", await websocket.get_message()))
                    kind = message["type"]
                    if kind == "i_am_worker":
                        if message["worker_secret"] != self._secret:
                            await websocket.aclose(1008, "wrong worker_secret")
                            return
                        worker = Worker(websocket, message["worker_config"])
                        self._add(worker)
                        nursery.start_soon(worker.send_batches)
                    elif kind == "worker_request":
                        for job in message["jobs"]:
                            nursery.start_soon(self._run_job, websocket, job)
                    elif kind == "worker_output":
                        for output in message["output"]:
                            self._deliver(output)
        except* trio_websocket.ConnectionClosed:
            pass
        finally:
            if worker is not None:
                self._workers[worker.worker_type].remove(worker)

    def _add(self, worker: Worker) -> None:
        self._workers.setdefault(worker.worker_type, []).append(worker)
        self._turns.setdefault(worker.worker_type, itertools.count())

    async def _run_job(self, websocket: trio_websocket.WebSocketConnection, job: dict[str, Any]) -> None:
        job_id = str(uuid.uuid4())
        callback = self._callbacks[job_id] = Callback()
        workers = self._workers[job["worker_type"]]
        worker = workers[next(self._turns[job["worker_type"]]) % len(workers)]
        try:
            with trio.fail_after(JOB_TIMEOUT):
                await worker.put.send({"id": job_id, "input": job["input"]})
                await callback.arrived.wait()
        except trio.TooSlowError:
            return
        finally:
            del self._callbacks[job_id]
        await websocket.send_message(self.response(job["job_id"], callback.output))

    def _deliver(self, output: dict[str, Any]) -> None:
        callback = self._callbacks.get(output["id"])
        if callback is not None:
            callback.output = output
            callback.arrived.set()

    def response(self, client_job_id: Any, output: dict[str, Any] | None) -> bytes:
        """The message that answers a job. A test replaces it, to see a wrong answer found."""
        return cbor2.dumps({"type": "worker_response", "output": output, "job_id": client_job_id})


async def serve(host: str, port: int, secret: str) -> None:
    """Serve until cancelled."""
    engine = Engine(secret)
    await trio_websocket.serve_websocket(engine.handle, host, port, ssl_context=None)


def main() -> None:
    """Serve until interrupted, with the spec's settings."""
    with suppress(KeyboardInterrupt):
        trio.run(serve, "127.0.0.1", int(os.environ["SERVER_PORT"]), os.environ["WORKER_SECRET"])


if __name__ == "__main__":
    main()

"""An engine as the spec describes it: queues in memory, batches by size and latency, resources on disk.

    WORKER_SECRET=secret SERVER_PORT=5000 XDG_DATA_HOME=/tmp/orb python -m tests.stock.stock_engine

Environment, as in the spec: SERVER_HOST, SERVER_PORT (0 takes a free one), WORKER_SECRET,
XDG_DATA_HOME, below which its resources lie. Prints ``READY <url>``.

Tests may also run it in a thread of their own process: ``with serving() as url:``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import websockets
from cbor2 import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB_TIMEOUT = 300.0
MAX_QUEUE = 1000
MAX_RESOURCE_BYTES = 2 * 1024 * 1024
# The public engine's WebSocket server takes no larger message.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024


class Job:
    """One job, from the client's request to its callback."""

    def __init__(
        self, message: dict[str, Any], client: websockets.ServerConnection, files: list[StoredFile]
    ) -> None:
        self.id = str(uuid.uuid4())
        self.client_job_id = message["job_id"]
        self.worker_type: str = message["worker_type"]
        self.input: Any = message["input"]
        self.client = client
        self.files = files


class StoredFile:
    """A resource on disk; the last of its jobs deletes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.jobs = 0


class Worker:
    """A connected worker and its queue."""

    def __init__(self, websocket: websockets.ServerConnection, config: dict[str, Any]) -> None:
        self.websocket = websocket
        self.worker_type: str = config["worker_type"]
        self.max_batch_size: int = config.get("max_batch_size", 32)
        self.max_latency: float = config.get("max_latency_ms", 30000) / 1000
        self.queue: list[Job] = []
        self.in_flight: dict[str, Job] = {}
        self.timer: asyncio.TimerHandle | None = None

    def gather(self, job: Job) -> None:
        """Queue a job; a full batch leaves at once, a partial one when its first job has waited enough."""
        self.queue.append(job)
        if len(self.queue) >= self.max_batch_size:
            self.send_batch()
        elif self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(self.max_latency, self.send_batch)

    def send_batch(self) -> None:
        """Send what is queued."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        batch, self.queue = self.queue[: self.max_batch_size], self.queue[self.max_batch_size :]
        self.in_flight |= {job.id: job for job in batch}
        send_soon(self.websocket, {"inputs": [{"id": job.id, "input": job.input} for job in batch]})


_sending: set[asyncio.Task[None]] = set()


def send_soon(websocket: websockets.ServerConnection, message: dict[str, Any]) -> None:
    """Send without waiting, as the callbacks of the public engine do."""

    async def send() -> None:
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            await websocket.send(dumps(message))

    task = asyncio.create_task(send())
    _sending.add(task)
    task.add_done_callback(_sending.discard)


class StockEngine:
    """Workers, waiting jobs and running jobs."""

    def __init__(self, secret: str, data_home: Path) -> None:
        self.secret = secret
        self.store = data_home / "unblink-engine"
        self.workers: list[Worker] = []
        self.turn = itertools.count()
        self.waiting: list[Job] = []
        self.jobs: dict[str, Job] = {}

    async def connection(self, websocket: websockets.ServerConnection) -> None:
        """One peer: the first message tells who it is."""
        try:
            first = loads(await websocket.recv(decode=False))
            if first.get("type") == "i_am_worker":
                await self.serve_worker(websocket, first)
            elif first.get("type") in ("i_am_server", "worker_request"):
                await self.serve_client(websocket, first)
            else:
                await websocket.close(1008, "register first")
        except websockets.exceptions.ConnectionClosed:
            pass

    async def serve_worker(
        self, websocket: websockets.ServerConnection, registration: dict[str, Any]
    ) -> None:
        """Take outputs until the worker goes; then its jobs go to others."""
        if registration.get("worker_secret") != self.secret:
            await websocket.close(1008, "invalid secret")
            return
        worker = Worker(websocket, registration["worker_config"])
        self.workers.append(worker)
        waiting, self.waiting = self.waiting, []
        for job in waiting:
            self.submit(job)
        try:
            async for raw in websocket:
                message = loads(raw)  # type: ignore[arg-type]
                for output in message.get("output", []):
                    worker.in_flight.pop(output["id"], None)
                    self.finish(output["id"], output)
        finally:
            self.workers.remove(worker)
            if worker.timer is not None:
                worker.timer.cancel()
            for job in [*worker.in_flight.values(), *worker.queue]:
                self.submit(job)

    async def serve_client(self, websocket: websockets.ServerConnection, message: dict[str, Any]) -> None:
        """Take requests until the client goes."""
        tenant = f"tenant-{secrets.token_hex(4)}"
        try:
            if message["type"] == "worker_request":
                await self.accept(websocket, tenant, message)
            async for raw in websocket:
                await self.accept(websocket, tenant, loads(raw))  # type: ignore[arg-type]
        finally:
            for job in [job for job in self.jobs.values() if job.client is websocket]:
                self.finish(job.id, None)

    async def accept(
        self, websocket: websockets.ServerConnection, tenant: str, request: dict[str, Any]
    ) -> None:
        """Validate a request, store its resources, queue its jobs."""
        resources = {resource["id"]: resource for resource in request.get("resources", [])}
        jobs = [job for job in request["jobs"] if isinstance(job, dict) and "worker_type" in job]
        used = {reference for job in jobs for reference in find_references(job["input"])}
        if used != resources.keys():
            await websocket.close(1009, "missing or unused resource")
            return
        contents = {name: resource_bytes(resource) for name, resource in resources.items()}
        if any(len(content) > MAX_RESOURCE_BYTES for content in contents.values()):
            await websocket.close(1009, "resource too large")
            return
        files = {name: self.write(tenant, name, content) for name, content in contents.items()}
        paths = {name: str(file.path) for name, file in files.items()}
        for message in jobs:
            mine = [files[name] for name in find_references(message["input"])]
            message["input"] = resolve(message["input"], paths)
            job = Job(message, websocket, mine)
            for file in mine:
                file.jobs += 1
            self.jobs[job.id] = job
            asyncio.get_running_loop().call_later(JOB_TIMEOUT, self.finish, job.id, None)
            self.submit(job)

    def write(self, tenant: str, name: str, content: bytes) -> StoredFile:
        """Store a resource under the directory of its tenant."""
        directory = self.store / tenant / "files" / "frames"
        directory.mkdir(parents=True, exist_ok=True)
        extension = (
            "png" if content.startswith(b"\x89PNG") else "jpg" if content.startswith(b"\xff\xd8") else "bin"
        )
        path = directory / f"{name}-{secrets.token_hex(3)}.{extension}"
        path.write_bytes(content)
        return StoredFile(path)

    def submit(self, job: Job) -> None:
        """Give a job to the next worker of its type, round-robin, or let it wait for one."""
        if job.id not in self.jobs:
            return
        candidates = [worker for worker in self.workers if worker.worker_type == job.worker_type]
        if candidates:
            worker = candidates[next(self.turn) % len(candidates)]
            if len(worker.queue) < MAX_QUEUE:
                worker.gather(job)
        else:
            self.waiting.append(job)

    def finish(self, job_id: str, output: dict[str, Any] | None) -> None:
        """Invoke the job's callback, if there is an output, and delete the files that nobody needs."""
        job = self.jobs.pop(job_id, None)
        if job is None:
            return
        if output is not None:
            send_soon(job.client, {"type": "worker_response", "output": output, "job_id": job.client_job_id})
        for file in job.files:
            file.jobs -= 1
            if file.jobs == 0:
                file.path.unlink(missing_ok=True)


def resource_bytes(resource: dict[str, Any]) -> bytes:
    """A resource's content as bytes: images are, documents are text."""
    data: bytes | str = resource["data"]
    return data.encode() if isinstance(data, str) else data


def find_references(value: Any) -> list[str]:
    """The resource ids that an input refers to."""
    if isinstance(value, dict):
        if value.get("__type") == "resource-ref":
            return [value["id"]]
        return [reference for item in value.values() for reference in find_references(item)]
    if isinstance(value, list):
        return [reference for item in value for reference in find_references(item)]
    return []


def resolve(value: Any, paths: dict[str, str]) -> Any:
    """The input with each reference replaced by its file's path."""
    if isinstance(value, dict):
        if value.get("__type") == "resource-ref":
            return paths[value["id"]]
        return {key: resolve(item, paths) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item, paths) for item in value]
    return value


@contextlib.asynccontextmanager
async def listening(host: str, port: int, secret: str, data_home: Path) -> Any:
    """Serve; yields the URL."""
    engine = StockEngine(secret, data_home)
    async with websockets.serve(engine.connection, host, port, max_size=MAX_MESSAGE_BYTES) as server:
        yield f"ws://{host}:{server.sockets[0].getsockname()[1]}/ws"


@contextlib.contextmanager
def serving(secret: str, data_home: Path) -> Iterator[str]:
    """Run an engine in a thread with an event loop of its own; yields its URL."""
    ready, url, loop, stop = threading.Event(), "", asyncio.new_event_loop(), asyncio.Event()

    async def run() -> None:
        nonlocal url
        async with listening("127.0.0.1", 0, secret, data_home) as url:
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), name="stock engine")
    thread.start()
    try:
        if not ready.wait(50):
            raise TimeoutError("the stock engine did not start")
        yield url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(50)
        loop.close()


async def main() -> None:
    """Serve until killed."""
    host, port = os.getenv("SERVER_HOST", "127.0.0.1"), int(os.getenv("SERVER_PORT", "5000"))
    data_home = Path(os.getenv("XDG_DATA_HOME", os.path.expanduser("~/.local/share")))  # noqa: ASYNC240  (once)
    async with listening(host, port, os.getenv("WORKER_SECRET", ""), data_home) as url:
        print("READY", url, flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main())

"""Many stock workers in one process: URL, worker type, count. Prints ``READY`` when all have registered."""

from __future__ import annotations

import asyncio
import os
import sys

import websockets
from cbor2 import dumps, loads


async def work(url: str, worker_type: str, registered: asyncio.Semaphore) -> None:
    """One worker that echoes."""
    async with websockets.connect(url) as websocket:
        config = {"worker_type": worker_type, "max_batch_size": 32, "max_latency_ms": 50}
        registration = {
            "type": "i_am_worker",
            "worker_secret": os.environ["WORKER_SECRET"],
            "worker_config": config,
        }
        await websocket.send(dumps(registration))
        registered.release()
        async for message in websocket:
            outputs = [{"id": job["id"], "echo": job["input"]} for job in loads(message)["inputs"]]  # type: ignore[arg-type]
            await websocket.send(dumps({"type": "worker_output", "output": outputs}))


async def main(url: str, worker_type: str, count: int) -> None:
    """Run them until one fails."""
    registered = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(work(url, worker_type, registered))
        for _ in range(count):
            await registered.acquire()
        print("READY", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))

"""A worker as the spec's "Complete Worker Implementation" shows it; its model echoes.

Environment, as in the spec: WORKER_TYPE, WORKER_SECRET, MAX_BATCH_SIZE, MAX_LATENCY_MS, SERVER_URL. For tests
also: DELAY_MS, the time that one batch takes, and RECONNECT_S, the pause after a lost connection.

Prints ``READY`` once, when it has registered for the first time.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import websockets
from cbor2 import dumps, loads

logger = logging.getLogger(__name__)

WORKER_TYPE = os.getenv("WORKER_TYPE", "embedding")
WORKER_SECRET = os.getenv("WORKER_SECRET", "")
MAX_BATCH_SIZE = int(os.getenv("MAX_BATCH_SIZE", "32"))
MAX_LATENCY_MS = int(os.getenv("MAX_LATENCY_MS", "30000"))
SERVER_URL = os.getenv("SERVER_URL", "ws://localhost:5000/ws")
DELAY_MS = float(os.getenv("DELAY_MS", "0"))
RECONNECT_S = float(os.getenv("RECONNECT_S", "5"))


def process_job(job_input: dict[str, Any]) -> dict[str, Any]:
    """Echo the input; of a file also tell what is in it, to prove that it was there."""
    if "fail" in job_input:
        raise ValueError(job_input["fail"])
    result: dict[str, Any] = {"echo": job_input}
    if "filepath" in job_input:
        content = Path(job_input["filepath"]).read_bytes()
        result |= {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return result


async def serve_connection(websocket: websockets.ClientConnection) -> None:
    """Answer batches until the connection closes."""
    async for message in websocket:
        try:
            batch_data = loads(message)  # type: ignore[arg-type]  # the spec's example does not look for text frames either
            outputs = []
            await asyncio.sleep(DELAY_MS / 1000)
            for job in batch_data.get("inputs", []):
                job_id = job.get("id") or job.get("job_id")
                try:
                    outputs.append({"id": job_id, **process_job(job.get("input", {}))})
                except Exception as e:
                    outputs.append({"id": job_id, "error": str(e)})
            await websocket.send(dumps({"type": "worker_output", "output": outputs}))
        except websockets.exceptions.ConnectionClosed:
            raise
        except Exception as e:
            logger.error("Batch processing error: %s", e)


async def main() -> None:
    """Register, serve, and come back after every loss."""
    announced = False
    registration = {
        "type": "i_am_worker",
        "worker_secret": WORKER_SECRET,
        "worker_config": {
            "worker_type": WORKER_TYPE,
            "max_batch_size": MAX_BATCH_SIZE,
            "max_latency_ms": MAX_LATENCY_MS,
        },
    }
    while True:
        try:
            async with websockets.connect(SERVER_URL) as websocket:
                await websocket.send(dumps(registration))
                if not announced:
                    print("READY", flush=True)
                    announced = True
                await serve_connection(websocket)
                # After 1000 and 1001 the spec's example comes back without a pause.
        except (OSError, websockets.exceptions.WebSocketException) as e:
            logger.error("WebSocket error: %s", e)
            await asyncio.sleep(RECONNECT_S)  # Reconnect after delay


if __name__ == "__main__":
    asyncio.run(main())

# mypy: disable-error-code="import-not-found, misc, untyped-decorator"
# Their libraries are not there where types are checked.
"""Dynamic batching by hand, as in many a blog post: FastAPI, a queue and a task. ``fastapi_echo PORT``."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers.work import Echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Job(BaseModel):
    text: str


QUEUE: asyncio.Queue[tuple[str, asyncio.Future[str]]] = asyncio.Queue()


async def run_batches() -> None:
    echo = Echo()
    while True:
        batch = [await QUEUE.get()]
        while len(batch) < 32 and not QUEUE.empty():
            batch.append(QUEUE.get_nowait())
        for (_, answer), text in zip(batch, echo([text for text, _ in batch]), strict=True):
            if not answer.done():  # whoever asked may have hung up
                answer.set_result(text)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    task = asyncio.create_task(run_batches())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/echo")
async def answer(job: Job) -> Job:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    QUEUE.put_nowait((job.text, answer))
    return Job(text=await answer)


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )

# mypy: disable-error-code="import-not-found, misc, untyped-decorator"
# Their libraries are not there where types are checked.
"""A worker that answers requests of NATS in batches: ``nats_echo PORT``."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import nats
import uvloop

from benchmarks.peers.work import Echo

if TYPE_CHECKING:
    from nats.aio.msg import Msg


async def main(port: int) -> None:
    echo = Echo()
    queue: asyncio.Queue[Msg] = asyncio.Queue()

    async def on_message(message: Msg) -> None:
        queue.put_nowait(message)

    connection = await nats.connect(f"nats://127.0.0.1:{port}")
    await connection.subscribe("echo", queue="workers", cb=on_message)
    while True:
        batch = [await queue.get()]
        while len(batch) < 32 and not queue.empty():
            batch.append(queue.get_nowait())
        answers = echo([message.data.decode() for message in batch])
        for message, answer in zip(batch, answers, strict=True):
            await message.respond(answer.encode())


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))

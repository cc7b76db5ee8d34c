"""The program of the client under test: `orbtrio.connect`, and jobs over and over, some with an image.

    SERVER_URL=ws://127.0.0.1:5000/ws python -m tests.conformance.looping_client

It does what its user would do with a job that fails: nothing, and the next one.
"""

from __future__ import annotations

import itertools
import os

import trio

import orbtrio

_AT_ONCE = 4


async def submit_over_and_over(client: orbtrio.Client, task: int) -> None:
    """One job after the other."""
    for number in itertools.count():
        job_input: dict[str, object] = {"text": f"hello {task} {number}"}
        if number % 2:
            job_input["filepath"] = orbtrio.Image(b"\x89PNG\r\n\x1a\n" + bytes([task]))
        try:
            await client.submit("embedding", job_input)
        except orbtrio.JobError:
            continue


async def main() -> None:
    """Until it is killed."""
    async with (
        orbtrio.connect(
            os.environ["SERVER_URL"], token=os.environ.get("CLIENT_TOKEN"), arrays=True
        ) as client,
        trio.open_nursery() as nursery,
    ):
        for task in range(_AT_ONCE):
            nursery.start_soon(submit_over_and_over, client, task)


if __name__ == "__main__":
    trio.run(main)

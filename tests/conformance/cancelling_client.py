"""A client under test with little patience: it gives up each job that takes more than half a second or so.

    SERVER_URL=ws://127.0.0.1:5000/ws python -m tests.conformance.cancelling_client

Some by a deadline, some by leaving, some in a stream: for the cases about cancelling, which the patient
`looping_client` gives no opportunity.
"""

from __future__ import annotations

import itertools
import os

import trio

import orbtrio

_AT_ONCE = 4
_PATIENCE = 0.4


async def submit_over_and_over(client: orbtrio.Client, task: int) -> None:
    """One job after the other, none for long."""
    for number in itertools.count():
        job_input: dict[str, object] = {"text": f"hello {task} {number}"}
        try:
            if task % 2:
                with trio.move_on_after(_PATIENCE):
                    await client.submit("embedding", job_input)
            else:
                await client.submit("embedding", job_input, timeout=_PATIENCE)
        except orbtrio.JobError:
            # Whoever fails at once must not do so thousands of times a second.
            await trio.sleep(0.01)


async def main() -> None:
    """Until it is killed."""
    async with (
        orbtrio.connect(os.environ["SERVER_URL"], token=os.environ.get("CLIENT_TOKEN")) as client,
        trio.open_nursery() as nursery,
    ):
        for task in range(_AT_ONCE):
            nursery.start_soon(submit_over_and_over, client, task)


if __name__ == "__main__":
    trio.run(main)

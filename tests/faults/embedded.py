"""A program that embeds an engine and has code of its own, which may be badly behaved.

Prints ``<port>`` once it serves. Commands on standard input, each answered with a line: ``block 5`` holds the
event loop for five seconds, ``statistics`` prints live workers and lost connections, ``child`` starts a child
that inherits every inheritable descriptor and prints its process id, ``quit`` ends it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import trio

import orbtrio
from orbtrio.engine.config import load


async def main() -> None:
    """Serve until told to quit."""
    config = load([], {"SERVER_PORT": "0", "WORKER_TYPES": "*", **os.environ})
    async with orbtrio.open_engine(config) as engine:
        print(engine.addresses[0].rpartition(":")[2].removesuffix("/ws"), flush=True)
        while True:
            line = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
            command, _, argument = line.strip().partition(" ")
            if command == "block":
                time.sleep(float(argument))  # noqa: ASYNC251  (this is the fault)
                print("awake", flush=True)
            elif command == "statistics":
                now = engine.statistics()
                print(len(now.workers), now.connections_lost, now.redelivered, flush=True)
            elif command == "child":
                child = subprocess.Popen(["sleep", "30"], close_fds=False)  # noqa: ASYNC220
                print(child.pid, flush=True)
            else:
                return


if __name__ == "__main__":
    trio.run(main)

"""A client by somebody who read the spec and knows the public engine, which calls its client a server.

    python -m tests.stock.stock_client --url ws://localhost:5000/ws --jobs 100 --per-request 10
    python -m tests.stock.stock_client --image frame.jpg --show-outputs
    python -m tests.stock.stock_client --no-introduction     # the spec's text alone: a worker_request first

Prints ``READY`` when it is connected and introduced, then one line of JSON: what was sent, what came back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

import websockets
from cbor2 import dumps, loads


def build_requests(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All requests of this run; with an image, every job of a request refers to that request's one copy."""
    requests = []
    for first in range(0, args.jobs, args.per_request):
        jobs = []
        for number in range(first, min(first + args.per_request, args.jobs)):
            job_input = {**json.loads(args.input), "n": number}
            if args.image:
                job_input["filepath"] = {"__type": "resource-ref", "id": "img-001"}
            jobs.append({"job_id": f"job-{number}", "worker_type": args.type, "input": job_input})
        request: dict[str, Any] = {"type": "worker_request", "jobs": jobs}
        if args.image:
            request["resources"] = [{"id": "img-001", "type": "image", "data": Path(args.image).read_bytes()}]
        requests.append(request)
    return requests


async def collect(websocket: websockets.ClientConnection, expected: int, summary: dict[str, Any]) -> None:
    """Match responses to jobs by ``job_id`` until all have come."""
    while len(summary["outputs"]) < expected:
        response = loads(await websocket.recv(decode=False))
        if response.get("type") != "worker_response":
            summary["unknown"] += 1
        elif response["job_id"] in summary["outputs"]:
            summary["duplicates"] += 1
        else:
            summary["outputs"][response["job_id"]] = response["output"]


async def main(args: argparse.Namespace) -> dict[str, Any]:
    """Send everything, wait for the answers, and say what happened."""
    summary: dict[str, Any] = {
        "sent": args.jobs,
        "duplicates": 0,
        "unknown": 0,
        "close_code": None,
        "outputs": {},
    }
    started = time.monotonic()
    async with websockets.connect(args.url) as websocket:
        if args.introduction:
            await websocket.send(dumps({"type": "i_am_server", "version": "1.0.1"}))
        print("READY", flush=True)
        try:
            for request in build_requests(args):
                await websocket.send(dumps(request))
            async with asyncio.timeout(args.seconds):
                await collect(websocket, args.jobs, summary)
        except TimeoutError:
            pass
        except websockets.exceptions.ConnectionClosed as closed:
            summary["close_code"] = closed.rcvd.code if closed.rcvd else 1006
    outputs = summary.pop("outputs")
    summary["answered"] = len(outputs)
    summary["errors"] = sum(output.get("error") is not None for output in outputs.values())
    summary["seconds"] = round(time.monotonic() - started, 3)
    if args.show_outputs:
        summary["outputs"] = outputs
    return summary


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="ws://localhost:5000/ws")
    parser.add_argument("--type", default="embedding", help="worker type of every job")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--per-request", type=int, default=32, help="jobs in one worker_request")
    parser.add_argument("--input", default='{"text": "hello world"}', help="every job's input, as JSON")
    parser.add_argument("--image", help="a file sent once per request as a resource that every job refers to")
    parser.add_argument(
        "--no-introduction", dest="introduction", action="store_false", help="send no i_am_server"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to wait for the answers")
    parser.add_argument("--show-outputs", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(parse_arguments())), default=repr), flush=True)

"""What the toolkit costs beside its HTTP engine, and the page's round trip.

    python -m benchmarks.toolkit [--repeat N] [--chunks N]

An ORB engine, ``python -m orbtrio.toolkit`` and an HTTP engine that does nothing are processes of their own;
this one is the client and the notification server. *CPU per chunk* is the toolkit's process alone. *Round
trip* is the example of AIWARE_EDGE_ENGINES.md ("'sendOutputToUris' option"): from the time in the header
``x-aiware-chunk-timestamp`` that the caller sent along, to the arrival of the engine's output at the
notification server with that header. One chunk is on its way at a time. Figures are the median of the rounds.

Exit status 1: an answer was wrong, or a chunk costs more than 4 ms.
"""

from __future__ import annotations

import argparse
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import cbor2

from benchmarks import wire
from benchmarks.measure import rank
from benchmarks.processes import EngineFailed, cpu_time, free_port, run_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["main"]

_BAR: Final = 4e-3
_PATIENCE: Final = 30.0
_TYPE: Final = "et:nothing"

# Keeps connections, as engines do. In the manner "later" it acknowledges, and posts result and end itself.
_ENGINE: Final = """
import http.client, http.server, json, re, sys, threading
from urllib.parse import urlsplit
MANNER = sys.argv[2]
FIELD = re.compile(rb'name="(chunkContext|heartbeatWebhook|resultWebhook|cacheURI)"\\r\\n\\r\\n([^\\r]*)')
connections = threading.local()
def call(method, url, document=None):
    parts = urlsplit(url.decode())
    if not hasattr(connections, "toolkit"):
        connections.toolkit = http.client.HTTPConnection(parts.netloc)
    connections.toolkit.request(method, parts.path, json.dumps(document) if document else None)
    return connections.toolkit.getresponse().read()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize = "HTTP/1.1", -1
    def do_GET(self):
        self.answer({})
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        fields = dict(FIELD.findall(body))
        if MANNER == "cache":
            call("GET", fields[b"cacheURI"])
        if MANNER == "later":
            self.answer({"estimatedProcessingTimeInSeconds": 60})
            context = fields[b"chunkContext"].decode()
            call("POST", fields[b"heartbeatWebhook"], {"status": "running"})
            call("POST", fields[b"resultWebhook"], {"chunkContext": context, "output": {"object": []}})
            call("POST", fields[b"heartbeatWebhook"], {"status": "complete"})
        else:
            self.answer({"object": []})
    def answer(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class _Client:
    """A stock client with one job at a time."""

    def __init__(self, port: int) -> None:
        self._socket = wire.open_websocket(port, _PATIENCE)
        self._socket.setblocking(True)
        self._socket.settimeout(_PATIENCE)
        self._unread = b""
        self._socket.sendall(wire.registration(None, ""))

    def submit(self, job_id: str, chunk: bytes, input: dict[str, Any]) -> None:
        """Send a chunk, and check that it comes back as it should."""
        reference = {"__type": "resource-ref", "id": job_id}
        job = {"job_id": job_id, "worker_type": _TYPE, "input": {"chunk": reference, **input}}
        resource = {"id": job_id, "type": "image", "data": chunk}
        request = {"type": "worker_request", "resources": [resource], "jobs": [job]}
        self._socket.sendall(wire.frame(cbor2.dumps(request)))
        messages: list[bytes] = []
        while not messages:
            messages, _, self._unread = wire.take_frames(self._unread + self._socket.recv(65536))
        response = cbor2.loads(messages[0])
        if response.get("job_id") != job_id or response.get("output", {}).get("status") != "complete":
            raise EngineFailed(f"a wrong answer: {str(response)[:300]}")

    def close(self) -> None:
        self._socket.close()


class _Notified:
    """The notification server."""

    def __init__(self) -> None:
        arrived = self._arrived = queue.SimpleQueue[tuple[float, str]]()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                arrived.put((time.time(), self.headers["x-aiware-chunk-timestamp"]))
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def next(self) -> tuple[float, str]:
        """When the next header arrived, and what it was. Nothing says that it comes before the answer."""
        try:
            return self._arrived.get(timeout=_PATIENCE)
        except queue.Empty:
            raise EngineFailed("a notice did not arrive") from None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def _toolkit(port: int, secret: str, manner: str) -> Iterator[int]:
    # The toolkit's process id, once it serves.
    own = free_port()
    with tempfile.TemporaryDirectory(prefix="orbtrio-bench-") as directory:
        log = Path(directory, "log")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ORB_")} | {
            "ENGINE_ID": "nothing",
            "ORB_TOOLKIT_CACHE": directory,
            "SERVER_URL": f"ws://127.0.0.1:{port}/ws",
            "VERITONE_WEBHOOK_PROCESS": f"http://127.0.0.1:{own}/process",
            "VERITONE_WEBHOOK_READY": f"http://127.0.0.1:{own}/ready",
            "WORKER_SECRET": secret,
        }
        command = [
            sys.executable,
            "-m",
            "orbtrio.toolkit",
            "--",
            sys.executable,
            "-c",
            _ENGINE,
            str(own),
            manner,
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environment, stderr=output)
        try:
            give_up = time.monotonic() + _PATIENCE
            while b"registered" not in log.read_bytes():
                if process.poll() is not None or time.monotonic() > give_up:
                    raise EngineFailed(f"the toolkit does not serve: {log.read_text()[-2000:]}")
                time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()
            process.wait(_PATIENCE)


def _round_trip(client: _Client, notified: _Notified, number: int, chunk: bytes) -> float:
    sent_at = repr(time.time())
    metadata = {"x-aiware-chunk-timestamp": sent_at}
    client.submit(f"trip-{number}", chunk, {"metadata": metadata, "sendOutputToUris": [notified.url]})
    arrived_at, header = notified.next()
    if header != sent_at:
        raise EngineFailed(f"the header came as {header}, and not as {sent_at}")
    return arrived_at - float(sent_at)


_CASES: Final = (
    ("10 KB, answered at once", "part", 10_000),
    ("1 MB, answered at once", "part", 1_000_000),
    ("10 KB, read by cacheURI", "cache", 10_000),
    ("10 KB, heartbeat, result, end", "later", 10_000),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.toolkit", description="What the toolkit costs."
    )
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="rounds per case; default: 5")
    parser.add_argument("--chunks", type=int, default=100, metavar="N", help="chunks per round; default: 100")
    options = parser.parse_args(arguments)
    head = f"{'':<32}{'CPU ms/chunk':>13}{'(low-high)':>14}{'round trip p50':>16}{'p99':>8}"
    print(f"{head}  bar: {_BAR * 1000:g} ms")
    too_much = False
    try:
        with run_engine([sys.executable, "-m", "orbtrio.engine"]) as engine:
            for title, manner, size in _CASES:
                with _toolkit(engine.port, engine.secret, manner) as pid:
                    costs, trips = _measure(
                        engine.port, pid, os.urandom(size), options.repeat, options.chunks
                    )
                missed = median(costs) > _BAR
                too_much = too_much or missed
                spread = f"({min(costs) * 1e3:.2f}-{max(costs) * 1e3:.2f})"
                times = f"{rank(trips, 0.5) * 1e3:>13.1f} ms{rank(trips, 0.99) * 1e3:>8.1f}"
                line = f"{title:<32}{median(costs) * 1e3:>13.2f}{spread:>14}{times}"
                print(f"{line}  {'MISSED' if missed else 'met'}", flush=True)
    except EngineFailed as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 1 if too_much else 0


# CPU seconds per chunk, one of each round; seconds of each round trip, in order.
def _measure(port: int, pid: int, chunk: bytes, rounds: int, chunks: int) -> tuple[list[float], list[float]]:
    client, notified = _Client(port), _Notified()
    try:
        costs, trips = [], []
        for number in range(-1, rounds):
            before = cpu_time(pid)
            for each in range(chunks):
                client.submit(f"chunk-{number}-{each}", chunk, {})
            cost = (cpu_time(pid) - before) / chunks
            # The first round warms up: connections are opened, modules imported.
            costs += [cost] if number >= 0 else []
            trips += [_round_trip(client, notified, number, chunk) for number in range(chunks // 5)]
        return costs, sorted(trips)
    finally:
        client.close()
        notified.close()


if __name__ == "__main__":
    sys.exit(main())

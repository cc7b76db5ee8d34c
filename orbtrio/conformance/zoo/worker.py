"""A small worker that is right, to be made wrong.

It does the spec's worker without its model: texts become vectors by their digest, frames are compared by
their bytes, everything else is answered as the page's types say. Computing takes `job_seconds` each, while
pings are answered. Each decision is a method of its own, for a faulty worker to override; those about
extensions are in `worker_extensions`.

``python -m orbtrio.conformance.zoo.worker --mutants hot-loop`` is the same as a process.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import signal
import sys
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import cbor2
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from orbtrio.conformance.examples import TYPE_EXAMPLES
from orbtrio.conformance.zoo.mutants import compose
from orbtrio.conformance.zoo.process import AsyncHost
from orbtrio.conformance.zoo.worker_extensions import WorkerExtensions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orbtrio.conformance.simulation import Host, Link

__all__ = ["BadInput", "ModelWorker", "main"]

_DIMENSIONS: Final = 8


class BadInput(Exception):
    """A job cannot be done; its text is the answer."""


class ModelWorker(WorkerExtensions):
    """The model worker, a `Target`.

    Args:
        secret: What the engine wants to hear.
        worker_type: As what it registers, instead of the class' own type.
        max_batch_size: Likewise.
        max_latency_ms: Likewise.
    """

    path = "/ws"
    worker_type = "embedding"
    job_seconds = 1.0
    first_wait = 0.1
    longest_wait = 60.0
    most_streams = 100

    link: Link
    socket: WSConnection

    def __init__(
        self,
        secret: str,
        *,
        worker_type: str | None = None,
        max_batch_size: int = 7,
        max_latency_ms: int = 250,
    ) -> None:
        super().__init__()
        self.secret = secret
        self.worker_type = worker_type or self.worker_type
        self.max_batch_size = max_batch_size
        self.max_latency_ms = max_latency_ms
        self.connected = False
        self.links = 0
        self.message = bytearray()
        self.frames: OrderedDict[str, bytes] = OrderedDict()
        self.sessions: dict[str, int] = {}

    # --- Target ---

    def start(self, host: Host) -> None:
        """Connect."""
        self.host = host
        self.connect()

    def connection_made(self, link: Link) -> None:
        """Nobody connects to a worker."""
        link.abort()

    def data_received(self, link: Link, data: bytes) -> None:
        """Frames, or parts of them."""
        if link is not self.link:
            return
        try:
            self.socket.receive_data(data)
            for event in self.socket.events():
                self.on_event(event)
        except (LocalProtocolError, RemoteProtocolError):
            link.abort()
            self.lose()

    def connection_lost(self, link: Link, how: str) -> None:
        """The engine is gone."""
        if link is self.link:
            self.lose()

    # --- the link ---

    def connect(self) -> None:
        """Open the next link."""
        self.links += 1
        self.connected = True
        self.message.clear()
        self.socket = WSConnection(ConnectionType.CLIENT)
        self.link = self.host.open_link()
        self.link.send(self.socket.send(Request(host="localhost", target=self.path)))

    def on_event(self, event: Event) -> None:
        """One thing that the bytes meant."""
        if isinstance(event, AcceptConnection):
            self.on_announcement(event.extra_headers)
            self.on_open()
        elif isinstance(event, Ping):
            self.on_ping(event)
        elif isinstance(event, BytesMessage):
            self.message += event.data
            if event.message_finished:
                data = bytes(self.message)
                self.message.clear()
                self.on_message(data)
        elif isinstance(event, TextMessage):
            self.on_junk()
        elif isinstance(event, CloseConnection):
            self.send_event(event.response())
            self.link.close()
            self.lose()
        elif isinstance(event, RejectConnection):
            self.link.close()
            self.lose()

    def on_open(self) -> None:
        """Register at once."""
        self.send(self.registration())

    def registration(self) -> dict[str, Any]:
        """The message by which it registers."""
        return {
            "type": "i_am_worker",
            "worker_secret": self.secret,
            "worker_config": {
                "worker_type": self.worker_type,
                "max_batch_size": self.max_batch_size,
                "max_latency_ms": self.max_latency_ms,
                "extensions": self.asks_for(),
            },
        }

    def on_ping(self, ping: Ping) -> None:
        """A ping is answered at once, whatever is computed."""
        self.send_event(ping.response())

    def lose(self) -> None:
        """The link is over. Its jobs are somebody else's now."""
        if self.connected:
            self.connected = False
            self.forget()
            self.on_lost()
            self.host.call_at(self.host.now() + self.wait_seconds(self.links), self.connect)

    def forget(self) -> None:
        """Drop what is in hand."""
        self.batches.clear()
        self.files.clear()
        if self.computing is not None:
            self.computing.cancel()
            self.computing = None

    def wait_seconds(self, links: int) -> float:
        """Before the next link, after so many."""
        return float(min(self.first_wait * 2 ** (links - 1), self.longest_wait))

    def send(self, message: Any) -> None:
        """One message."""
        self.send_event(BytesMessage(data=cbor2.dumps(message)))

    def send_event(self, event: Event) -> None:
        """One frame."""
        if self.connected:
            self.link.send(self.socket.send(event))

    # --- batches ---

    def on_message(self, data: bytes) -> None:
        """A batch, or junk."""
        try:
            message = cbor2.loads(data)
        except (cbor2.CBORError, ValueError, RecursionError, MemoryError, OverflowError):
            self.on_junk()
            return
        inputs = message.get("inputs") if isinstance(message, dict) else None
        if isinstance(inputs, list):
            self.on_batch(message, inputs)
        elif not self.on_extension_message(message):
            self.on_junk()

    def on_junk(self) -> None:
        """What makes no sense is skipped."""

    def on_batch(self, message: dict[str, Any], jobs: list[Any]) -> None:
        """Compute it when those before it are done."""
        self.batches.append(jobs)
        self.keep_files(message, jobs)
        if self.computing is None:
            self.compute()

    def compute(self) -> None:
        """Begin with the oldest batch."""
        self.report_on(self.batches[0])
        seconds = self.job_seconds * len(self.batches[0])
        self.computing = self.host.call_at(self.host.now() + seconds, self.finish)

    def finish(self) -> None:
        """The oldest batch is done."""
        jobs = self.batches.popleft()
        self.computing = None
        self.open_files(jobs)
        self.send_output(self.answers([job for job in jobs if isinstance(job, dict)]))
        if self.batches:
            self.compute()
        self.on_idle()

    def send_output(self, entries: list[dict[str, Any]]) -> None:
        """Answer a batch."""
        self.send({"type": "worker_output", "output": entries})

    def answers(self, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """An entry for each job of a batch."""
        return [self.answer(job) for job in jobs]

    def answer(self, job: dict[str, Any]) -> dict[str, Any]:
        """The entry for a job, also if it cannot be done."""
        job_input = job.get("input")
        try:
            if not isinstance(job_input, dict):
                raise BadInput("input: expected a map")
            return {"id": self.id_of(job), **self.result(job_input)}
        except BadInput as bad:
            return {"id": self.id_of(job), **self.error(job_input, str(bad))}

    def id_of(self, job: dict[str, Any]) -> Any:
        """By what a job is answered."""
        return job.get("id") or job.get("job_id")

    def error(self, job_input: Any, text: str) -> dict[str, Any]:
        """The fields of an error."""
        if self.worker_type == "video_segmentation" and isinstance(job_input, dict):
            return {"cross_job_id": str(job_input.get("cross_job_id")), "error": text}
        return {"error": text}

    # --- jobs ---

    def result(self, job_input: dict[str, Any]) -> dict[str, Any]:
        """The fields of a result; `BadInput` if there is none."""
        content = [self.read(path) for path in paths_in(job_input)]
        if self.worker_type == "embedding":
            text = job_input.get("text")
            if not content and not isinstance(text, str):
                raise BadInput("text or filepath: expected one")
            return self.embedding(content[0] if content else str(text).encode())
        if self.worker_type == "motion_energy":
            return self.motion_energy(job_input, content)
        example = TYPE_EXAMPLES.get(self.worker_type)
        if example is None:
            return {"echo": job_input}
        for field, value in example.job["input"].items():
            # In the examples what is not a list is a text; a session needs no prompts.
            if field != "prompts" and type(job_input.get(field)) is not type(value):
                raise BadInput(f"{field}: expected {type(value).__name__}")
        if self.worker_type == "video_segmentation":
            return self.segment_video(job_input, dict(example.output))
        return {name: value for name, value in example.output.items() if name != "id"}

    def read(self, path: str) -> bytes:
        """What is in a file."""
        try:
            return self.opened[path] if path in self.opened else Path(path).read_bytes()
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}") from error

    def embedding(self, content: bytes) -> dict[str, Any]:
        """A vector."""
        vector = [byte / 255 for byte in hashlib.sha256(content).digest()[:_DIMENSIONS]]
        return {"embedding": self.vector(vector), "shape": [_DIMENSIONS]}

    def motion_energy(self, job_input: dict[str, Any], content: list[bytes]) -> dict[str, Any]:
        """How much differs from the stream's last frame."""
        media_id = job_input.get("media_id")
        if not isinstance(media_id, str) or not content:
            raise BadInput("media_id, current_frame: expected texts")
        last = self.frames.get(media_id, content[0])
        self.frames[media_id] = content[0]
        self.frames.move_to_end(media_id)
        if len(self.frames) > self.most_streams:
            self.frames.popitem(last=False)
        return {"motion_energy": 0.0 if last == content[0] else 0.5}

    def segment_video(self, job_input: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
        """The next frame of a session."""
        session = job_input["cross_job_id"]
        if job_input.get("reset_session"):
            self.sessions.pop(session, None)
        self.sessions[session] = self.sessions.get(session, 0) + 1
        del output["id"]
        return {**output, "cross_job_id": session, "frame_count": self.sessions[session]}


def paths_in(job_input: Mapping[str, Any]) -> list[str]:
    """Paths of resources, where the spec's inputs have them."""
    found = [job_input.get("filepath"), job_input.get("current_frame")]
    images, messages = job_input.get("images"), job_input.get("messages")
    found += images if isinstance(images, list) else []
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict):
                found.append(part.get("image"))
    return [path for path in found if isinstance(path, str)]


async def _run(worker: ModelWorker, host: str, port: int) -> int:
    runner = AsyncHost(worker, (host, port))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, runner.call, worker.terminate)
    return await runner.over


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; variables as in the spec's "Environment Variables (Worker)"."""
    parser = argparse.ArgumentParser(prog="python -m orbtrio.conformance.zoo.worker", description=__doc__)
    parser.add_argument("--mutants", default="", metavar="A,B,…", help="faults; none is the model")
    parser.add_argument("--job-seconds", type=float, default=0.001, metavar="SECONDS")
    options = parser.parse_args(arguments)
    names = [name for name in options.mutants.split(",") if name]
    worker = compose(names, ModelWorker)(
        os.environ.get("WORKER_SECRET", ""),
        worker_type=os.environ.get("WORKER_TYPE"),
        max_batch_size=int(os.environ.get("MAX_BATCH_SIZE", "32")),
        max_latency_ms=int(os.environ.get("MAX_LATENCY_MS", "30000")),
    )
    worker.job_seconds = options.job_seconds
    url = urlsplit(os.environ.get("SERVER_URL", "ws://localhost:5000/ws"))
    return asyncio.run(_run(worker, url.hostname or "localhost", url.port or 80))


if __name__ == "__main__":
    # The faults are of the class that others import, not of the one that runs here as a program.
    from orbtrio.conformance.zoo import worker as imported

    sys.exit(imported.main())

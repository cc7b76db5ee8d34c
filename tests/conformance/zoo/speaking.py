"""A raw WebSocket peer on a pipe: just enough to talk to the zoo, and nothing of the suite's own peers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import cbor2
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from orbtrio.conformance.world import PipeEnded

if TYPE_CHECKING:
    from orbtrio.conformance.world import Pipe, World

SECRET = "zoo-secret"


class Speaker:
    """Keeps what the target says. Answers pings unless told not to."""

    def __init__(
        self, world: World, path: str = "/ws", headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        self.world = world
        self.messages: list[Any] = []
        self.closed: tuple[int, str | None] | None = None
        self.status: int | None = None
        self.pings = 0
        self.pongs: list[bytes] = []
        self.answers_pings = True
        self.socket = WSConnection(ConnectionType.CLIENT)
        self.pipe: Pipe = world.connect()
        self.pipe.listener = self.on_bytes
        request = Request(host="localhost", target=path, extra_headers=headers or [])
        self.push(self.socket.send(request))
        self.world.wait(1.0, lambda: self.status is not None or bool(self.pipe.ended))

    def push(self, data: bytes) -> None:
        """Send bytes; it does not matter if nobody is there any more."""
        with contextlib.suppress(PipeEnded):
            self.pipe.send(data)

    def on_bytes(self) -> None:
        data = bytes(self.pipe.received)
        self.pipe.received.clear()
        if data:
            self.socket.receive_data(data)
        for event in self.socket.events():
            self.on_event(event)

    def on_event(self, event: Event) -> None:
        if isinstance(event, AcceptConnection):
            self.status = 101
        elif isinstance(event, RejectConnection):
            self.status = event.status_code
        elif isinstance(event, BytesMessage):
            self.messages.append(cbor2.loads(event.data))
        elif isinstance(event, Ping):
            self.pings += 1
            if self.answers_pings:
                self.push(self.socket.send(event.response()))
        elif isinstance(event, Pong):
            self.pongs.append(bytes(event.payload))
        elif isinstance(event, CloseConnection):
            self.closed = (int(event.code), event.reason)
            if self.socket.state is ConnectionState.REMOTE_CLOSING:
                self.push(self.socket.send(event.response()))

    def say(self, message: Any) -> None:
        self.push(self.socket.send(BytesMessage(data=cbor2.dumps(message))))

    def say_bytes(self, data: bytes) -> None:
        self.push(self.socket.send(BytesMessage(data=data)))

    def say_text(self, text: str) -> None:
        self.push(self.socket.send(TextMessage(data=text)))

    @property
    def gone(self) -> bool:
        return self.closed is not None or bool(self.pipe.ended)


def worker(world: World, worker_type: str = "llm", secret: str = SECRET, **config: Any) -> Speaker:
    """A registered worker: batches of one at once, unless told otherwise."""
    speaker = Speaker(world)
    config = {"worker_type": worker_type, "max_batch_size": 1, "max_latency_ms": 10} | config
    speaker.say({"type": "i_am_worker", "worker_secret": secret, "worker_config": config})
    world.wait(0.0)
    return speaker


def client(world: World, *extensions: str) -> Speaker:
    speaker = Speaker(world)
    speaker.say({"type": "i_am_server", "extensions": list(extensions)})
    world.wait(0.0)
    return speaker


def request(*job_ids: Any, worker_type: str = "llm", **more: Any) -> dict[str, Any]:
    """A request of jobs with the ids given."""
    jobs = [{"job_id": job_id, "worker_type": worker_type, "input": {"n": job_id}} for job_id in job_ids]
    return {"type": "worker_request", "jobs": jobs, **more}


def inputs(speaker: Speaker) -> list[list[Any]]:
    """What each batch had in its inputs' field n."""
    return [[job["input"]["n"] for job in batch["inputs"]] for batch in speaker.messages]


def ids(speaker: Speaker) -> list[str]:
    """The engine's ids of all jobs that were sent to this worker, in order."""
    return [job["id"] for batch in speaker.messages for job in batch["inputs"]]


def answer(speaker: Speaker, *job_ids: str, **fields: Any) -> None:
    speaker.say({"type": "worker_output", "output": [{"id": job_id, **fields} for job_id in job_ids]})

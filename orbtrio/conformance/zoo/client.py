"""The model client: small, and right in everything that a case looks at.

It keeps a few jobs open, submits two more whenever that many have been answered, and never stops. Every other
request carries a picture and a document that its jobs share. When its connection ends it comes back,
after pauses that grow, and submits again what was not answered. Of an engine that knows how to cancel it
waits for no answer longer than a few seconds. Each decision is a method, for a faulty client to override.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

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

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orbtrio.conformance.simulation import Host, Link

__all__ = ["ModelClient"]

_OPEN: Final = 4
_PER_REQUEST: Final = 2
_PATIENCE: Final = 2.0
_SHORTEST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 5.0
_HEADER: Final = b"orb-extensions"


class ModelClient:
    """A `Target` that connects as soon as it is started.

    Args:
        token: What it shows to its engine, if anything.
    """

    host: Host

    def __init__(self, token: str | None = None) -> None:
        self.token = token
        # Jobs that have not been answered, by identifier, with the resources of their request.
        self.waiting: dict[Any, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
        self.link: Link | None = None
        self.socket = WSConnection(ConnectionType.CLIENT)
        self.message = bytearray()
        self.failures = 0
        self.numbers = 0
        self.announced: frozenset[str] = frozenset()

    # --- decisions ---

    def introduction(self) -> dict[str, Any] | None:
        """What it says first."""
        token = {} if self.token is None else {"token": self.token}
        return {"type": "i_am_server", "version": "1.0.1", "extensions": self.asks_for(), **token}

    def asks_for(self) -> list[str]:
        """The extensions that it asks for."""
        return ["batched_responses", "cancel", "engine_errors", "progress", "typed_arrays"]

    def understands(self, name: str) -> bool:
        """Whether the engine of this connection has announced an extension."""
        return name in self.announced

    def timed(self, job: dict[str, Any]) -> dict[str, Any]:
        """A job as it is sent: with the time that it may take, for an engine that understands that."""
        return {**job, "timeout_ms": 60_000} if self.understands("engine_errors") else job

    def give_up(self, job_ids: list[Any]) -> None:
        """Wait for these no longer, if they are still waited for, and say so."""
        left = [job_id for job_id in job_ids if self.waiting.pop(job_id, None) is not None]
        if left:
            self.send({"type": "cancel_request", "job_ids": left})
            self.submit()

    def on_progress(self, message: dict[str, Any]) -> None:
        """What the user of this client does with progress: nothing."""

    def job_id(self, number: int) -> Any:
        """The identifier of its job of that number."""
        return f"job-{number}"

    def resources_for(self, number: int) -> list[dict[str, Any]]:
        """What the request that begins with job `number` brings along."""
        if number // _PER_REQUEST % 2 == 0:
            return []
        return [
            {"id": f"img-{number}", "type": "image", "data": b"\x89PNG\r\n\x1a\n" + bytes(100)},
            {"id": f"doc-{number}", "type": "document", "data": "eine kleine Frühgeschichte"},
        ]

    def input_for(self, number: int, resources: list[dict[str, Any]]) -> dict[str, Any]:
        """The input of its job of that number."""
        references = [self.reference(resource) for resource in resources]
        return {"text": f"hello {number}", **({"files": references} if references else {})}

    def reference(self, resource: dict[str, Any]) -> dict[str, Any]:
        """How an input refers to a resource."""
        return {"__type": "resource-ref", "id": resource["id"]}

    def request(self, jobs: list[dict[str, Any]], resources: list[dict[str, Any]]) -> dict[str, Any]:
        """The message that submits these jobs."""
        return {"type": "worker_request", "jobs": jobs, **({"resources": resources} if resources else {})}

    def jobs_to_repeat(self) -> Iterable[Any]:
        """Which jobs a new connection begins with, by identifier."""
        return list(self.waiting)

    def pause(self) -> float:
        """Seconds until it connects again."""
        return min(_SHORTEST_PAUSE * float(2 ** (self.failures - 1)), _LONGEST_PAUSE)

    def encode(self, message: dict[str, Any]) -> bytes:
        """A message's bytes."""
        return cbor2.dumps(message)

    def on_response(self, job_id: Any, response: dict[str, Any]) -> None:
        """An answer; to an unknown job it is none."""
        if isinstance(job_id, str) and self.waiting.pop(job_id, None) is not None:
            self.on_answer(job_id, response.get("output"))

    def on_answer(self, job_id: Any, output: Any) -> None:
        """What the user of this client does with an output: nothing."""

    def on_unknown(self, message: Any) -> None:
        """A message that it does not understand."""

    def on_ping(self, ping: Ping) -> None:
        """A ping is answered, whatever it waits for."""
        self.send_event(ping.response())

    # --- Target ---

    def start(self, host: Host) -> None:
        """Connect."""
        self.host = host
        self.connect()

    def connection_made(self, link: Link) -> None:
        """Nobody connects to a client."""
        link.abort()

    def data_received(self, link: Link, data: bytes) -> None:
        """Whatever a read brought."""
        if link is not self.link:
            return
        try:
            self.socket.receive_data(data)
            for event in self.socket.events():
                self.on_event(event)
        except (RemoteProtocolError, LocalProtocolError):
            self.lose()

    def connection_lost(self, link: Link, how: str) -> None:
        """Gone without a word, or after one."""
        if link is self.link:
            self.lose()

    # --- what happens ---

    def connect(self) -> None:
        """Open a connection and ask for a WebSocket."""
        self.link = self.host.open_link()
        self.socket = WSConnection(ConnectionType.CLIENT)
        self.message = bytearray()
        self.send_event(Request(host="localhost", target="/ws"))

    def on_event(self, event: Event) -> None:
        """One thing that the bytes meant."""
        match event:
            case AcceptConnection():
                text = b",".join(bytes(value) for name, value in event.extra_headers if name == _HEADER)
                self.announced = frozenset(name.strip() for name in text.decode().split(","))
                self.on_open()
            case Ping():
                self.on_ping(event)
            case BytesMessage():
                self.message += event.data
                if event.message_finished:
                    data, self.message = bytes(self.message), bytearray()
                    self.failures = 0
                    self.on_message(cbor2.loads(data))
            case CloseConnection():
                self.send_event(event.response())
                self.lose()
            case RejectConnection():
                self.lose()

    def on_open(self) -> None:
        """Say who it is, repeat what was not answered, and submit more."""
        if (introduction := self.introduction()) is not None:
            self.send(introduction)
        for job_id in self.jobs_to_repeat():
            job, resources = self.waiting[job_id]
            self.send(self.request([self.timed(job)], resources))
        self.submit()

    def on_message(self, message: Any) -> None:
        """One message of the engine."""
        kind = message.get("type")
        if kind == "worker_response":
            self.on_response(message.get("job_id"), message)
        elif kind == "worker_responses":
            self.on_responses(message.get("responses"))
        elif kind == "worker_progress":
            self.on_progress(message)
        else:
            self.on_unknown(message)
        self.submit()

    def on_responses(self, responses: Any) -> None:
        """Answers that came together."""
        for response in responses if isinstance(responses, list) else ():
            self.on_response(response.get("job_id"), response)

    def submit(self) -> None:
        """Keep enough jobs open."""
        for _ in range((_OPEN - len(self.waiting)) // _PER_REQUEST):
            first = self.numbers
            resources = self.resources_for(first)
            jobs = []
            for number in range(first, first + _PER_REQUEST):
                job = {
                    "job_id": self.job_id(number),
                    "worker_type": "embedding",
                    "input": self.input_for(number, resources),
                }
                self.waiting[job["job_id"]] = job, resources
                jobs.append(self.timed(job))
            self.numbers += _PER_REQUEST
            self.send(self.request(jobs, resources))
            self.watch([job["job_id"] for job in jobs])

    def watch(self, job_ids: list[Any]) -> None:
        """Be ready to give these up, if the engine knows how."""
        if self.understands("cancel"):
            link = self.link
            self.host.call_at(
                self.host.now() + _PATIENCE, lambda: self.give_up(job_ids) if self.link is link else None
            )

    def lose(self) -> None:
        """The connection is over: come back in a while."""
        if self.link is None:
            return
        self.link.close()
        self.link = None
        self.failures += 1
        self.host.call_at(self.host.now() + self.pause(), self.connect)

    def send(self, message: dict[str, Any]) -> None:
        """Send one message."""
        self.send_event(BytesMessage(data=self.encode(message)))

    def send_text(self, text: str) -> None:
        """Send a text message; the model never does."""
        self.send_event(TextMessage(data=text))

    def send_event(self, event: Event) -> None:
        """One frame, or the handshake's request."""
        if self.link is not None:
            self.link.send(self.socket.send(event))

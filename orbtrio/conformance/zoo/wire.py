"""The WebSocket side of the model engine: handshake, frames, pings, closes, and CBOR with limits.

A base class instead of an object of its own: each decision is a method, and a faulty engine overrides one,
whether it is about frames or about jobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs
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
    from collections.abc import Callable, Mapping

    from orbtrio.conformance.simulation import Handle, Host, Link

__all__ = ["Connection", "Refused", "WebSocketServer", "decode"]

MAX_DEPTH: Final = 64
MAX_ITEMS: Final = 1_000_000
MAX_FRAGMENTS: Final = 1024
SELF_DESCRIBED: Final = b"\xd9\xd9\xf7"

# Every way in which a peer can misbehave, and how it is told. The reasons are constant.
CLOSE_CODES: Final[Mapping[str, int]] = {
    "text frame": 1003,
    "undecodable message": 1008,
    "message too big": 1009,
    "too many fragments": 1008,
    "not registered in time": 1008,
    "not a registration": 1008,
    "worker_secret is not right": 1008,
    "worker_config is not valid": 1008,
    "worker_type is not recognised, see WORKER_TYPES": 1008,
    "registered twice": 1008,
    "not a message of this role": 1008,
    "request is not valid": 1008,
    "output is not valid": 1008,
    "resource is not valid": 1008,
    "resource too big": 1009,
    "resource is missing": 1009,
    "resource is not referenced": 1009,
    "engine stopped": 1001,
    "drained": 1000,
}


class Refused(Exception):
    """What a peer sent ends its connection. Its text is a key of `CLOSE_CODES`."""


@attrs.define(eq=False)
class Connection:
    """One connection. `role` is what its peer registered as."""

    link: Link
    socket: WSConnection
    heard_at: float
    role: Any = None
    opened: bool = False
    failed: bool = False
    pinged_at: float | None = None
    message: bytearray = attrs.field(factory=bytearray)
    fragments: int = 0
    timer: Handle | None = None


# --- CBOR ---------------------------------------------------------------------------------------------------


class _Tags(dict[int, Any]):
    """JavaScript's byte arrays become bytes, other tags travel unread, sharing of parts is refused."""

    def __missing__(self, tag: int) -> Callable[[Any, bool], object]:
        if tag in (25, 28, 29, 256):
            raise ValueError("structural tag")
        return lambda value, immutable: (
            value if tag == 64 and type(value) is bytes else cbor2.CBORTag(tag, value)
        )


def _text_keys(value: Mapping[Any, Any], immutable: bool) -> Mapping[Any, Any]:
    if not all(type(key) is str for key in value):
        raise ValueError("keys must be text")
    return value


# Before anything is built: one item, nothing behind it, and not too many parts.
def _walk(data: bytes) -> None:
    at, left, items = 0, 1, 0
    while left:
        head = data[at]
        major, more = head >> 5, head & 31
        at += 1
        size = more
        if more >= 24:
            width = 1 << (more - 24)
            if more > 27 or at + width > len(data):
                raise ValueError("bad head")
            size = int.from_bytes(data[at : at + width], "big")
            at += width
        left -= 1
        items += 1
        if major in (2, 3):
            at += size
        elif major in (4, 5):
            left += size * (major - 3)
        elif major == 6:
            left += 1
        if items > MAX_ITEMS or left > len(data) - at:
            raise ValueError("more items than bytes, or than anybody needs")
    if at != len(data):
        raise ValueError("bytes behind the item")


def decode(data: bytes) -> dict[str, Any]:
    """The one map that a message is; `Refused` if it is anything else."""
    data = data.removeprefix(SELF_DESCRIBED)
    try:
        _walk(data)
        message = cbor2.loads(
            data,
            max_depth=MAX_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
            semantic_decoders=_Tags(),
            object_hook=_text_keys,
        )
    except (cbor2.CBORError, ValueError, IndexError) as error:
        raise Refused("undecodable message") from error
    if type(message) is not dict:
        raise Refused("undecodable message")
    return message


# --- Frames -------------------------------------------------------------------------------------------------


class WebSocketServer:
    """A `Target` that others connect to. Subclasses get whole messages."""

    path = "/ws"
    handshake_seconds = 5.0
    registration_seconds = 10.0
    keepalive_seconds = 20.0
    closing_seconds = 2.0
    first_message_bytes = 64 * 1024
    message_bytes = 32 * 1024 * 1024

    host: Host

    def __init__(self) -> None:
        self.connections: dict[Link, Connection] = {}

    def on_message(self, connection: Connection, message: dict[str, Any]) -> None:
        """A decoded message."""
        raise NotImplementedError

    def on_lost(self, connection: Connection) -> None:
        """A connection is gone, or will not be listened to any more. Called once."""
        raise NotImplementedError

    # --- decisions ---

    def status_for(self, request: Request) -> int:
        """HTTP status that answers a handshake; 101 accepts."""
        if request.target.partition("?")[0] != self.path:
            return 404
        return 101 if self.origin_is_allowed(request) else 403

    def origin_is_allowed(self, request: Request) -> bool:
        """No web page may connect: browsers send where a page is from, programs do not."""
        return all(name.lower() != b"origin" for name, _ in request.extra_headers)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Of the answer to a handshake."""
        return []

    def message_limit(self, connection: Connection) -> int:
        """Bytes of the longest message."""
        return self.first_message_bytes if connection.role is None else self.message_bytes

    def close_code_for(self, problem: str) -> int:
        """By which code a peer is told."""
        return CLOSE_CODES[problem]

    def close_reason_for(self, problem: str) -> str:
        """In which words."""
        return problem

    def on_text(self, connection: Connection, event: TextMessage) -> None:
        """A text frame, or a piece of one, came."""
        raise Refused("text frame")

    def on_ping(self, connection: Connection, ping: Ping) -> None:
        """A ping is answered at once, whatever else is going on."""
        self.send_event(connection, ping.response())

    def on_good_bye(self, connection: Connection, close: CloseConnection) -> None:
        """A close frame is answered by one."""
        self.send_event(connection, close.response())

    def decode(self, data: bytes) -> dict[str, Any]:
        """Bytes of a message, from a stranger."""
        return decode(data)

    def on_bad_handshake(self, connection: Connection, error: Exception) -> None:
        """It does not ask for a WebSocket, or not in HTTP."""
        if isinstance(error, RemoteProtocolError) and error.event_hint is not None:
            self.send_event(connection, error.event_hint)
        self.drop(connection)

    def on_handshake_overdue(self, connection: Connection) -> None:
        """It connected and did not ask for a WebSocket in time."""
        self.drop(connection)

    def on_registration_overdue(self, connection: Connection) -> None:
        """It did not say in time what it is."""
        self.refuse(connection, "not registered in time")

    def on_dead_peer(self, connection: Connection) -> None:
        """It did not answer a ping."""
        connection.link.abort()
        self.connection_lost(connection.link, "RST")

    # --- Target ---

    def start(self, host: Host) -> None:
        """Wait for others."""
        self.host = host

    def connection_made(self, link: Link) -> None:
        """Wait for its handshake."""
        connection = Connection(link, WSConnection(ConnectionType.SERVER), self.host.now())
        self.connections[link] = connection
        self.call_later(connection, self.handshake_seconds, self.on_handshake_overdue)

    def data_received(self, link: Link, data: bytes) -> None:
        """Everything that a read brought: any number of frames, or a part of one."""
        connection = self.connections.get(link)
        if connection is None:
            return
        connection.heard_at = self.host.now()
        try:
            connection.socket.receive_data(data)
            for event in connection.socket.events():
                self.on_event(connection, event)
        except (RemoteProtocolError, UnicodeDecodeError) as error:
            # The latter for a header that is no ASCII, which the library does not look after.
            self.on_bad_handshake(connection, error)
        except LocalProtocolError:
            # What came behind a close frame: neither side has anything to say any more.
            self.drop(connection)

    def connection_lost(self, link: Link, how: str) -> None:
        """Gone without a word, or after one."""
        if (connection := self.connections.get(link)) is not None:
            self.drop(connection)

    # --- what happens on a connection ---

    def on_event(self, connection: Connection, event: Event) -> None:
        """One thing that the bytes meant."""
        if isinstance(event, Request):
            self.on_request(connection, event)
        elif isinstance(event, CloseConnection):
            if not connection.failed:
                self.on_good_bye(connection, event)
            self.drop(connection)
        elif connection.failed:
            return
        elif isinstance(event, Ping):
            self.on_ping(connection, event)
        else:
            try:
                if isinstance(event, TextMessage):
                    self.on_text(connection, event)
                elif isinstance(event, BytesMessage):
                    self.on_bytes(connection, event)
            except Refused as refused:
                self.refuse(connection, str(refused))

    def on_request(self, connection: Connection, request: Request) -> None:
        """A handshake."""
        status = self.status_for(request)
        if status != 101:
            self.send_event(
                connection, RejectConnection(status_code=status, headers=[(b"content-length", b"0")])
            )
            self.drop(connection)
            return
        self.send_event(connection, AcceptConnection(extra_headers=self.headers()))
        connection.opened = True
        self.call_later(connection, self.registration_seconds, self.on_registration_checked)

    def on_bytes(self, connection: Connection, event: BytesMessage) -> None:
        """A piece of a message."""
        connection.message += event.data
        connection.fragments += event.frame_finished
        if len(connection.message) > self.message_limit(connection):
            raise Refused("message too big")
        if connection.fragments > MAX_FRAGMENTS:
            raise Refused("too many fragments")
        if event.message_finished:
            data, connection.message, connection.fragments = bytes(connection.message), bytearray(), 0
            self.on_message(connection, self.decode(data))

    def on_registration_checked(self, connection: Connection) -> None:
        """From here on only its silence can end it."""
        if connection.role is None:
            self.on_registration_overdue(connection)
        else:
            self.on_keepalive(connection)

    def on_keepalive(self, connection: Connection) -> None:
        """A peer that says nothing is asked whether it lives."""
        now = self.host.now()
        due = connection.heard_at + self.keepalive_seconds
        # What is left may be too little to move the clock, and then would be left for ever.
        if now < due and now + (due - now) > now:
            connection.pinged_at = None
            self.call_later(connection, due - now, self.on_keepalive)
        elif connection.pinged_at is not None and connection.heard_at < connection.pinged_at:
            self.on_dead_peer(connection)
        else:
            connection.pinged_at = now
            self.send_event(connection, Ping())
            self.call_later(connection, self.keepalive_seconds, self.on_keepalive)

    # --- what it does to a connection ---

    def send(self, connection: Connection, message: Mapping[str, Any]) -> None:
        """One message."""
        if not connection.failed:
            self.send_event(connection, BytesMessage(data=cbor2.dumps(message)))

    def send_event(self, connection: Connection, event: Event) -> None:
        """One frame, or an answer to a handshake."""
        connection.link.send(connection.socket.send(event))

    def refuse(self, connection: Connection, problem: str) -> None:
        """Close it, saying why, and leave the peer some time to close its side."""
        if connection.failed:
            return
        close = CloseConnection(self.close_code_for(problem), self.close_reason_for(problem))
        self.send_event(connection, close)
        connection.failed = True
        self.on_lost(connection)
        self.call_later(connection, self.closing_seconds, self.drop)

    def drop(self, connection: Connection) -> None:
        """It is over."""
        if connection.timer is not None:
            connection.timer.cancel()
        if self.connections.pop(connection.link, None) is not None:
            connection.link.close()
            if not connection.failed:
                connection.failed = True
                self.on_lost(connection)

    def call_later(self, connection: Connection, seconds: float, then: Callable[[Connection], None]) -> None:
        """A connection waits for one thing at a time."""
        if connection.timer is not None:
            connection.timer.cancel()
        connection.timer = self.host.call_at(self.host.now() + seconds, lambda: then(connection))

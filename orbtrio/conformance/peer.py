"""A WebSocket connection that the suite holds, on either side of the handshake, good or evil.

Bytes are parsed as they arrive, wherever the case looks, so that times are right and pings are answered.
Every message is in the wire log before anything is made of it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import attrs
import wsproto
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from orbtrio.conformance.model import Violation, WireEvent
from orbtrio.conformance.notation import MASK, decode, diagnostic, encode
from orbtrio.conformance.world import PipeEnded, PipeStuck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from orbtrio.conformance.world import Pipe

__all__ = ["Closed", "Message", "Peer", "WireLog", "announced_in"]

# Of the answer to an upgrade request: the extensions that an engine understands, with commas.
_HEADER: Final = b"orb-extensions"

# Lines of a wire log; a flood beyond that is counted.
_MOST_EVENTS: Final = 2_000


class WireLog:
    """What went over all connections of a stage, in order. Rendered only when somebody reads it.

    Args:
        now: The stage's clock.
        secrets: Masked wherever they occur.
    """

    def __init__(self, now: Callable[[], float], secrets: Sequence[str] = ()) -> None:
        self._now = now
        self._start = now()
        self._secrets = tuple(secrets)
        self._lines: list[tuple[float, str, str, object]] = []
        self._left_out = 0

    def now(self) -> float:
        """Seconds since the stage was set."""
        return self._now() - self._start

    def add(self, peer: str, kind: str, what: object) -> None:
        """Note a message (any value), or what happened (text made by `Remark`)."""
        if len(self._lines) < _MOST_EVENTS:
            self._lines.append((self.now(), peer, kind, what))
        else:
            self._left_out += 1

    def remark(self, text: str, *, peer: str = "", kind: str = "--") -> None:
        """Note what happened, in words."""
        self.add(peer, kind, _Words(text))

    def events(self) -> tuple[WireEvent, ...]:
        """All of it, readable."""
        return self.mark()()

    def mark(self) -> Callable[[], tuple[WireEvent, ...]]:
        """What is there now, to be rendered later."""
        lines, left_out, now = len(self._lines), self._left_out, self.now()

        def render() -> tuple[WireEvent, ...]:
            events = [
                WireEvent(at=at, peer=peer, kind=kind, text=self._render(what))
                for at, peer, kind, what in self._lines[:lines]
            ]
            if left_out:
                events.append(WireEvent(at=now, peer="", kind="--", text=f"{left_out} more lines left out"))
            return tuple(events)

        return render

    def mask(self, text: str) -> str:
        """A text without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def _render(self, what: object) -> str:
        if isinstance(what, _Words):
            return diagnostic(what.text, secrets=self._secrets, longest=1000)[1:-1]
        return diagnostic(what, secrets=self._secrets)


@attrs.frozen
class _Words:
    text: str


@attrs.frozen
class Message:
    """A binary message of the target.

    Attributes:
        at: When it was complete; seconds since the stage was set.
        value: Decoded.
        raw: As it came.
    """

    at: float
    value: Any
    raw: bytes


@attrs.frozen
class Closed:
    """How a connection ended.

    Attributes:
        at: When; seconds since the stage was set.
        code: Of the target's close frame; None if there was none.
        reason: Of that frame.
        how: ``"close frame"``, ``"FIN"``, ``"RST"``, ``"refused"`` (HTTP answer instead of an upgrade) or
            ``"broken"`` (bytes that are no WebSocket).
    """

    at: float
    code: int | None
    reason: str
    how: str

    def __str__(self) -> str:
        if self.code is not None:
            return f"closed with {self.code} {self.reason!r}"
        return f"ended by {self.how} without a close frame" + (f": {self.reason}" if self.reason else "")


def announced_in(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[str]:
    """The extensions that an answer to an upgrade request announces."""
    text = ",".join(value.decode("latin-1") for name, value in headers if bytes(name).lower() == _HEADER)
    return frozenset(filter(None, (name.strip() for name in text.split(","))))


class Peer:
    """One end of a WebSocket.

    Args:
        pipe: The bytes below.
        log: Where everything is noted.
        name: In the log: ``"worker#3"``.
        server: Whether the target opened the connection.
        announces: Extensions that it is told of in the answer to its upgrade request.

    Attributes:
        name: In the log.
        pipe: For cases that go below frames.
        announced: Extensions that the engine announced, whichever side that is.
        open: The handshake has been done, by both.
        messages: Binary messages of the target, in order.
        undecodable: What of them was no CBOR, with the reason.
        texts: Text messages of the target.
        pings: Payloads of the target's pings, with their times.
        pongs: Payloads of the target's pongs.
        answers_pings: Whether pings are answered.
        closed: How it ended, once it has, by whichever side; None before.
        ended_by_us: This side closed, cut or reset it.
        upgrade: The target's upgrade request, where it connects.
        refusal: Status of the target's HTTP answer, if that refused the upgrade.
    """

    def __init__(
        self, pipe: Pipe, log: WireLog, name: str, *, server: bool = False, announces: Iterable[str] = ()
    ) -> None:
        self.name = name
        self.pipe = pipe
        self.announced = frozenset(announces)
        self.open = False
        self.messages: list[Message] = []
        self.undecodable: list[str] = []
        self.texts: list[str] = []
        self.pings: list[tuple[float, bytes]] = []
        self.pongs: list[bytes] = []
        self.answers_pings = True
        self.closed: Closed | None = None
        self.ended_by_us = False
        self.upgrade: Request | None = None
        self.refusal: int | None = None
        self._log = log
        kind = wsproto.ConnectionType.SERVER if server else wsproto.ConnectionType.CLIENT
        self._websocket = wsproto.WSConnection(kind)
        self._parts: list[bytes | str] = []
        pipe.listener = self._read
        if pipe.received or pipe.ended:
            self._read()

    # --- Opening ---

    def ask(
        self, path: str = "/ws", *, host: str = "localhost", headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Send the upgrade request. `open` or `closed` is set when the answer is here."""
        extra = [(name.encode(), value.encode()) for name, value in headers]
        request = Request(host=host, target=path, extra_headers=extra)
        self._log.remark(f"GET {path}, Upgrade: websocket", peer=self.name, kind="->")
        self._give(self._websocket.send(request))

    # --- Sending ---

    def send(self, message: Any) -> None:
        """Send a message: a value, or bytes that are to be CBOR, or are not."""
        if isinstance(message, bytes | bytearray):
            self._log.add(self.name, "->", self._readable(bytes(message)))
            data = bytes(message)
        else:
            self._log.add(self.name, "->", message)
            data = encode(message)
        self._give_event(BytesMessage(data=data))

    def send_text(self, text: str) -> None:
        """Send a text message, which nobody should."""
        self._log.remark(f"text message: {text}", peer=self.name, kind="->")
        self._give_event(TextMessage(data=text))

    def send_fragments(self, parts: Sequence[bytes]) -> None:
        """Send one message in several frames."""
        self._log.remark(f"one message of {len(parts)} fragments", peer=self.name, kind="->")
        for number, part in enumerate(parts):
            self._give_event(BytesMessage(data=part, message_finished=number == len(parts) - 1))

    def send_raw(self, data: bytes, what: str) -> None:
        """Send bytes below the level of frames; `what` they are, for the log."""
        self._log.remark(f"{len(data)} raw bytes: {what}", peer=self.name, kind="->")
        self._give(data)

    def frame(self, message: Any) -> bytes:
        """The bytes that `send` would send, for a case that sends only some of them."""
        data = bytes(message) if isinstance(message, bytes | bytearray) else encode(message)
        return bytes(self._websocket.send(BytesMessage(data=data)))

    def ping(self, payload: bytes = b"") -> None:
        """Send a ping."""
        self._give_event(Ping(payload=payload))

    # --- Ending ---

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame. The connection ends when the target has answered, or with `drop`."""
        self._log.remark(f"close {code} {reason}".rstrip(), peer=self.name, kind="->")
        self.ended_by_us = True
        self._give_event(CloseConnection(code=code, reason=reason))

    def drop(self, how: str = "RST") -> None:
        """Be gone: ``"RST"``, ``"FIN"`` (both without a close frame) or ``"close"`` (1000, then FIN)."""
        if how == "close" and self.open and self.closed is None:
            self.close()
        elif self.closed is None:
            self._log.remark(how, peer=self.name, kind="x")
        self.ended_by_us = True
        if how == "RST":
            self.pipe.reset()
        else:
            self.pipe.close()
        self._end(None, "", how)

    def cut(self, message: Any, at_byte: int, how: str = "RST") -> None:
        """Send the first bytes of a message's frame, and be gone."""
        data = self.frame(message)
        at_byte = min(at_byte, len(data) - 1)
        self._log.add(self.name, "->", message)
        self._log.remark(f"only the first {at_byte} of these {len(data)} bytes", peer=self.name)
        self._give(data[:at_byte])
        self.drop(how)

    # --- Inside ---

    def _give_event(self, event: Event) -> None:
        # If the connection has been closed meanwhile that is a lost race, as on any network.
        with contextlib.suppress(LocalProtocolError):
            self._give(self._websocket.send(event))

    def _give(self, data: bytes) -> None:
        if self.pipe.ended == "RST":
            return
        try:
            self.pipe.send(data)
        except PipeEnded:
            pass
        except PipeStuck as stuck:
            raise Violation("the target reads what it is sent", f"{self.name}: {stuck}") from stuck

    def _read(self) -> None:
        data = bytes(self.pipe.received)
        self.pipe.received.clear()
        if data and self.closed is None:
            try:
                self._websocket.receive_data(data)
                for event in self._websocket.events():
                    self._handle(event)
            except RemoteProtocolError as error:
                self._log.remark(f"bytes that are no WebSocket: {error}", peer=self.name, kind="<-")
                self._end(None, str(error), "broken")
        if self.pipe.ended and self.closed is None:
            self._log.remark(self.pipe.ended, peer=self.name, kind="x")
            self._end(None, "", self.pipe.ended)

    def _handle(self, event: Event) -> None:
        match event:
            case BytesMessage() | TextMessage():
                self._parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
                if event.message_finished:
                    parts, self._parts = self._parts, []
                    if isinstance(event, BytesMessage):
                        self._take(b"".join(bytes(part) for part in parts))  # type: ignore[arg-type]
                    else:
                        self.texts.append("".join(str(part) for part in parts))
                        self._log.remark(f"text message: {self.texts[-1]}", peer=self.name, kind="<-")
            case Ping():
                self.pings.append((self._log.now(), bytes(event.payload)))
                if self.answers_pings:
                    self._give_event(event.response())
            case Pong():
                self.pongs.append(bytes(event.payload))
            case CloseConnection() if self._websocket.state in (
                ConnectionState.OPEN,
                ConnectionState.LOCAL_CLOSING,
            ):
                # No frame of the target's: this is how wsproto says that it cannot go on.
                self._log.remark(f"bytes that are no WebSocket: {event.reason}", peer=self.name, kind="<-")
                self._end(None, event.reason or "", "broken")
            case CloseConnection():
                self._log.remark(
                    f"close {event.code} {event.reason or ''}".rstrip(), peer=self.name, kind="x"
                )
                if self._websocket.state is ConnectionState.REMOTE_CLOSING:
                    self._give_event(event.response())
                self._end(int(event.code), event.reason or "", "close frame")
            case Request():
                self.upgrade = event
                self._log.remark(f"GET {event.target}, Upgrade: websocket", peer=self.name, kind="<-")
                names = ", ".join(sorted(self.announced)).encode()
                self._give_event(AcceptConnection(extra_headers=[(_HEADER, names)] if names else []))
                self.open = True
            case AcceptConnection():
                self.announced = announced_in(event.extra_headers)
                self.open = True
            case RejectConnection():
                self.refusal = event.status_code
                self._log.remark(f"HTTP {event.status_code}", peer=self.name, kind="x")
                self._end(None, f"HTTP {event.status_code}", "refused")
            case RejectData():
                pass

    def _take(self, raw: bytes) -> None:
        try:
            value = decode(raw)
        except ValueError as error:
            self.undecodable.append(str(error))
            self._log.remark(f"{len(raw)} bytes that are no CBOR: {error}", peer=self.name, kind="<-")
            return
        self._log.add(self.name, "<-", value)
        message = Message(self._log.now(), value, raw)
        self.messages.append(message)
        self.received(message)

    def received(self, message: Message) -> None:
        """Called for each message of the target; for subclasses."""

    def _end(self, code: int | None, reason: str, how: str) -> None:
        if self.closed is None:
            self.closed = Closed(self._log.now(), code, reason, how)

    def _readable(self, data: bytes) -> object:
        try:
            return decode(data)
        except ValueError:
            return data

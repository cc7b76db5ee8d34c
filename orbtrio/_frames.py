"""WebSocket frames (RFC 6455, section 5) as bytes in and bytes out: no sockets, no tasks, no clock.

`FrameParser` takes whole binary messages off the byte stream of an open connection and sets control frames aside, checked but
unread, for trio-websocket to answer. `FrameSkipper` reads on after we have closed, for nothing but the peer's close frame.

Why not wsproto, which trio-websocket already brings: it costs 14 us a frame (events, named tuples, four copies), this parser
0.7 us, and 100-byte messages are the common case. It also counts no fragments, so that a million empty ones burn 11 s of CPU.

Everything declared is judged before anything is buffered for it: a frame's length is held against `max_message_bytes`, together
with the fragments before it, as soon as its header is there. Bytes of an unfinished frame up to 64 KiB are joined to the next
read; larger ones are appended in place, so that a 32 MiB message in small reads costs one copy, not thousands.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Final

from orbtrio.errors import RemoteProtocolError

try:
    from websockets.speedups import apply_mask as _c_mask
except ImportError:  # pragma: no cover - the accelerator is optional
    _c_mask = None  # type: ignore[assignment]

__all__ = ["FrameParser", "FrameSkipper", "encode_masked", "frame_header", "mask", "python_mask"]

_FIN_BINARY: Final = 0x82
_MASKED: Final = 0x80
_FIN: Final = 0x80
_RESERVED_BITS: Final = 0x70
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PONG = 0x0, 0x1, 0x2, 0x8, 0xA
_MAX_CONTROL_BYTES: Final = 125

# Above this an unfinished frame is collected in a bytearray: joining two small bytes objects is cheaper than the three
# conversions a bytearray costs, appending beats joining as soon as a frame takes several reads.
_APPEND_ABOVE: Final = 64 * 1024

# Close codes that may travel (RFC 6455, section 7.4, and the registry of IANA); wsproto accepts the same ones.
_CLOSE_CODES: Final = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013})


def _header(first: int, size: int, mask_bit: int) -> bytes:
    if size < 126:
        return bytes((first, mask_bit | size))
    if size < 1 << 16:
        return bytes((first, mask_bit | 126)) + size.to_bytes(2, "big")
    return bytes((first, mask_bit | 127)) + size.to_bytes(8, "big")


# Building a header costs 0.4 us, looking it up 0.04; nearly every message of the protocol is below 4 KiB.
_SMALL: Final = 4096
_HEADERS: Final = [_header(_FIN_BINARY, size, 0) for size in range(_SMALL)]


def frame_header(size: int) -> bytes:
    """The header of an unmasked binary frame, as servers send it, for a payload of `size` bytes."""
    return _HEADERS[size] if size < _SMALL else _header(_FIN_BINARY, size, 0)


def encode_masked(payload: bytes) -> tuple[bytes, bytes]:
    """A masked binary frame, as clients send it: header with key, and masked payload.

    The key is fresh and unpredictable for every frame (RFC 6455, section 5.3): nobody who chooses a payload may choose
    the bytes on the wire.
    """
    key = os.urandom(4)
    return _header(_FIN_BINARY, len(payload), _MASKED) + key, mask(payload, key)


_XOR: Final = [bytes(a ^ b for a in range(256)) for b in range(256)]


def python_mask(data: bytes | memoryview, key: bytes) -> bytes:
    """XOR `data` with the repeated key, without the C accelerator: 1 us for 100 bytes, 17 us for 10 KB."""
    size = len(data)
    if size < 300:
        repeated = (key * (size // 4 + 1))[:size]
        return (int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")
    # Each of the four strided quarters meets one byte of the key, and translate() runs at memory speed.
    masked = bytearray(data)
    for offset, byte in enumerate(key):
        masked[offset::4] = masked[offset::4].translate(_XOR[byte])
    return bytes(masked)


mask = python_mask if _c_mask is None else _c_mask


class FrameParser:
    """Takes whole binary messages off the bytes of an open connection.

    Args:
        masked: Whether the peer must mask, that is whether we are the server.
        max_message_bytes: Largest message; may be changed between two calls of `take`.
        max_fragments: Most frames per message. Without it a million empty ones pass every limit of size (B-17).

    Attributes:
        control: Pings and pongs found so far, whole and checked; the caller empties it.
        close: The peer's close frame once it has come; nothing behind it is looked at.
        close_code, close_reason: What that frame says; the code is None if it says nothing.
    """

    def __init__(self, *, masked: bool, max_message_bytes: int, max_fragments: int) -> None:
        self.max_message_bytes = max_message_bytes
        self.max_fragments = max_fragments
        self.control: deque[bytes] = deque()
        self.close: bytes | None = None
        self.close_code: int | None = None
        self.close_reason = ""
        self._mask_bit = _MASKED if masked else 0
        self._key_bytes = 4 if masked else 0
        self._buffer: bytes | bytearray = b""
        self._position = 0
        # Bytes that must lie behind _position before parsing on can get any further.
        self._need = 2
        self._fragments: list[bytes] = []
        self._fragments_bytes = 0
        self._in_message = False
        self._error: RemoteProtocolError | None = None

    @property
    def unparsed(self) -> int:
        """Bytes that have been fed but are not yet part of a message taken."""
        return len(self._buffer) - self._position

    @property
    def missing(self) -> int:
        """Bytes the frame under way still lacks, as far as known; at least 1 if more are needed."""
        return self._need - self.unparsed

    @property
    def pending(self) -> int:
        """Bytes held of an unfinished message or frame, plus 1 for each fragment; 0 between messages."""
        return self.unparsed + self._fragments_bytes + len(self._fragments)

    def feed(self, data: bytes) -> None:
        """Add what was read."""
        buffer = self._buffer
        if self._position == len(buffer):
            self._buffer, self._position = data, 0
        elif self._need <= _APPEND_ABOVE:
            self._buffer, self._position = bytes(buffer[self._position :]) + data, 0
        else:
            if isinstance(buffer, bytes):
                self._buffer = buffer = bytearray(memoryview(buffer)[self._position :])
                self._position = 0
            buffer += data

    def take(self, most: int | None = None) -> list[bytes]:
        """Every whole message fed so far, at most `most`; what lies behind stays unparsed.

        Raises:
            RemoteProtocolError: the peer broke the rules of framing (1002), sent text (1003), too much (1009) or too many
                fragments (1008). Messages in front of the error have been returned by the call before, and every later
                call raises the same again.
        """
        messages: list[bytes] = []
        buffer = self._buffer
        position = self._position
        end = len(buffer)
        if self._error is not None or self.close is not None or end - position < self._need:
            if self._error is not None:
                raise self._error
            return messages
        if isinstance(buffer, bytearray):
            # At least one whole frame is there: back to bytes, which slice faster and which messages are made of.
            self._buffer = buffer = bytes(buffer)
        mask_bit = self._mask_bit
        key_bytes = self._key_bytes
        limit = self.max_message_bytes
        need = 2
        while len(messages) != most and end - position >= 2:
            first = buffer[position]
            size = buffer[position + 1] ^ mask_bit
            start = position + 2 + key_bytes
            if size > 125:
                if size > 127:
                    self._error = RemoteProtocolError(_WRONG_MASKING[mask_bit], close_code=1002)
                    break
                length_bytes = 2 if size == 126 else 8
                start += length_bytes
                if start > end:
                    # What the first byte says is judged before we wait for the length.
                    self._judge(first, 0)
                    need = start - position
                    break
                size = int.from_bytes(buffer[position + 2 : position + 2 + length_bytes], "big")
                if size < 126 or (length_bytes == 8 and size < 1 << 16):
                    self._error = RemoteProtocolError("length of a frame in more bytes than it needs", close_code=1002)
                    break
            stop = start + size
            plain = first == _FIN_BINARY and not self._in_message
            if (not plain or size > limit) and self._judge(first, size):
                break
            if stop > end:
                need = stop - position
                break
            payload = buffer[start:stop]
            if key_bytes:
                payload = mask(payload, buffer[start - 4 : start])
            if plain:
                messages.append(payload)
            elif first & 0x08:
                if not self._control(first, payload, buffer[position:stop]):
                    break
            else:
                self._fragment(first, payload, messages)
            position = stop
            if self.close is not None:
                break
        self._need = need
        if position == end:
            self._buffer, self._position = b"", 0
        else:
            self._position = position
        if self._error is not None and not messages:
            raise self._error
        return messages

    def leftover(self) -> bytes:
        """What has not been taken, from the beginning of a frame on."""
        return bytes(self._buffer[self._position :])

    # Whether the header of a frame that is not a plain binary message, or is too large, breaks a rule; sets the error.
    def _judge(self, first: int, size: int) -> bool:
        opcode = first & 0x0F
        problem, code = "", 1002
        if first & _RESERVED_BITS:
            problem = "reserved bits are set, but no extension was negotiated"
        elif opcode > _PONG or 2 < opcode < 8:
            problem = f"reserved opcode {opcode}"
        elif opcode >= _CLOSE:
            if not first & _FIN:
                problem = "fragmented control frame"
            elif size > _MAX_CONTROL_BYTES:
                problem = "control frame above 125 bytes"
        elif opcode == _TEXT:
            problem, code = "text message; this protocol is CBOR in binary messages", 1003
        elif opcode == _CONTINUATION and not self._in_message:
            problem = "continuation of no message"
        elif opcode == _BINARY and self._in_message:
            problem = "new message inside a fragmented one"
        elif size + self._fragments_bytes > self.max_message_bytes:
            problem, code = f"message above {self.max_message_bytes} bytes", 1009
        elif len(self._fragments) >= self.max_fragments:
            problem, code = f"message of more than {self.max_fragments} fragments", 1008
        if problem:
            self._error = RemoteProtocolError(problem, close_code=code)
        return bool(problem)

    def _fragment(self, first: int, payload: bytes, messages: list[bytes]) -> None:
        self._fragments.append(payload)
        self._fragments_bytes += len(payload)
        self._in_message = not first & _FIN
        if not self._in_message:
            messages.append(b"".join(self._fragments))
            self._fragments.clear()
            self._fragments_bytes = 0

    # Set a control frame aside; False if it is a close frame that must not be (sets the error).
    def _control(self, first: int, payload: bytes, frame: bytes) -> bool:
        if first & 0x0F != _CLOSE:
            self.control.append(frame)
            return True
        try:
            self.close_code, self.close_reason = _parse_close(payload)
        except ValueError as error:
            self._error = RemoteProtocolError(str(error), close_code=1002)
            return False
        self.close = frame
        return True


_WRONG_MASKING: Final = {_MASKED: "frame of a client without a mask", 0: "masked frame of a server"}


def _parse_close(payload: bytes) -> tuple[int | None, str]:
    if not payload:
        return None, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or (code not in _CLOSE_CODES and not 3000 <= code <= 4999):
        raise ValueError("close frame with an invalid code")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise ValueError("close frame with a reason that is not UTF-8") from None


class FrameSkipper:
    """Reads on after we have closed: drops everything but the peer's close frame, buffers nothing else.

    It starts at the beginning of any frame, also of one that `FrameParser` refused: lengths can be read whatever else is wrong,
    and only so does the peer's answer to our close frame come through behind the two megabytes it should not have sent.

    Args:
        masked: Whether the peer must mask.
        data: What `FrameParser` has not taken.
    """

    def __init__(self, *, masked: bool) -> None:
        self._mask_bit = _MASKED if masked else 0
        self._buffer = b""
        self._skip = 0

    def feed(self, data: bytes) -> bytes | None:
        """The peer's close frame if `data` completes it, b"" if its close frame is malformed, else None."""
        buffer = self._buffer + data
        while True:
            if self._skip:
                skipped = min(self._skip, len(buffer))
                self._skip -= skipped
                buffer = buffer[skipped:]
            self._buffer = buffer
            if len(buffer) < 2:
                return None
            masked, size = buffer[1] & _MASKED, buffer[1] & 0x7F
            length_bytes = {126: 2, 127: 8}.get(size, 0)
            start = 2 + length_bytes + (4 if masked else 0)
            if len(buffer) < start:
                return None
            if buffer[0] & 0x0F == _CLOSE:
                stop = start + size
                if masked != self._mask_bit or buffer[0] != _FIN | _CLOSE or length_bytes:
                    return b""
                if len(buffer) < stop:
                    return None
                payload = buffer[start:stop]
                try:
                    _parse_close(mask(payload, buffer[start - 4 : start]) if masked else payload)
                except ValueError:
                    return b""
                return buffer[:stop]
            if length_bytes:
                size = int.from_bytes(buffer[2 : 2 + length_bytes], "big")
            self._skip = start + size

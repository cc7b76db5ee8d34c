"""WebSocket frames (RFC 6455, section 5): bytes in, messages out; no sockets, no tasks, no clock.

`FrameParser` takes whole binary messages off the bytes of an open connection and sets control frames aside,
checked but unread, for trio-websocket to answer. `FrameSkipper` reads on once we have closed, for nothing
but the peer's close frame.

Everything declared is judged before anything is buffered for it: a length is held against
`max_message_bytes`, fragments before it included, as soon as the frame's header is there.

Much at once is not fed but lent: `take` copies each message out of the reader's buffer once, unmasking it,
and keeps what is left of an unfinished frame. One of more than 64 KiB has a buffer of its own, which is read
to directly, or a message of 32 MiB would be copied once per read. It is never larger than eight times what
has come, so that nobody makes us hold what was only declared.

Rejected: wsproto, which trio-websocket brings along. It costs 14 us a frame (events, named tuples, four
copies) where this costs 0.7, and counts no fragments, so that a million empty ones burn eleven seconds
(B-17).
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Final

from orbtrio.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FrameParser", "FrameSkipper", "encode_masked", "frame_header", "mask", "python_mask"]

_FIN: Final = 0x80
_RESERVED_BITS: Final = 0x70
_CONTROL_BIT: Final = 0x08
_OPCODE: Final = 0x0F
_MASKED: Final = 0x80

_CONTINUATION: Final = 0x0
_TEXT: Final = 0x1
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_OPCODES: Final = frozenset({_CONTINUATION, _TEXT, _BINARY, _CLOSE, 0x9, 0xA})
_PLAIN: Final = _FIN | _BINARY

_MAX_CONTROL_BYTES: Final = 125

# From here on an unfinished frame has a buffer of its own.
_LARGE: Final = 64 * 1024
_GROWTH: Final = 8

# What one call takes at most, for others wait meanwhile: so many frames, and no message behind so many bytes.
_MOST_FRAMES: Final = 2048
_MOST_BYTES: Final = 256 * 1024

# Up to here, slicing bytes is faster than slicing a view of them, which copies nothing.
_SMALL_FRAME: Final = 1024

# What may stand in a close frame besides 3000 to 4999 (RFC 6455, section 7.4, and IANA's registry). wsproto
# knows the same ones; on any other it would hang up without an answer.
_CLOSE_CODES: Final = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013})


# ---- frames out


def _encode_header(size: int, mask_bit: int) -> bytes:
    if size < 126:
        return bytes((_PLAIN, mask_bit | size))
    if size < 1 << 16:
        return bytes((_PLAIN, mask_bit | 126)) + size.to_bytes(2, "big")
    return bytes((_PLAIN, mask_bit | 127)) + size.to_bytes(8, "big")


# To build a header costs 0.4 us, to look it up 0.04, and few messages are larger than this.
_HEADERS: Final = [_encode_header(size, 0) for size in range(4096)]


def frame_header(size: int) -> bytes:
    """The header of an unmasked binary frame, as servers send it, in front of `size` bytes."""
    return _HEADERS[size] if size < len(_HEADERS) else _encode_header(size, 0)


def encode_masked(payload: bytes) -> tuple[bytes, bytes]:
    """A masked binary frame, as clients send it: header and key, then the payload.

    Every frame has a fresh key that nobody can foresee, for whoever chooses a payload must not be able to
    choose what proxies see on the wire (RFC 6455, section 10.3).
    """
    key = os.urandom(4)
    return _encode_header(len(payload), _MASKED) + key, mask(payload, key)


_XOR: Final = [bytes(left ^ right for right in range(256)) for left in range(256)]


def python_mask(data: bytes | bytearray | memoryview, key: bytes | bytearray, /) -> bytes:
    """`data` with the repeated key XORed into it; 0.8 us for 100 bytes, 17 us for 10 KB."""
    size = len(data)
    if size < 300:
        keys = (key * (size // 4 + 1))[:size]
        return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(size, "little")
    # One byte of the key at a time: each meets a strided quarter of the data, which translate() runs over at
    # 1 ns a byte. A large integer would be three times slower.
    masked = bytearray(data)
    for offset, byte in enumerate(key):
        masked[offset::4] = masked[offset::4].translate(_XOR[byte])
    return bytes(masked)


def _choose_mask() -> Callable[[bytes | bytearray | memoryview, bytes | bytearray], bytes]:
    try:
        from websockets.speedups import apply_mask
    except ImportError:
        return python_mask
    return apply_mask


mask: Final = _choose_mask()
"""The C function of the optional library `websockets` where it is installed (10 KB in 0.6 us), else
`python_mask`."""


# ---- frames in


class FrameParser:
    """Takes messages off the bytes of an open connection.

    Args:
        masked: Whether the peer must mask its frames, which is whether we are the server.
        max_message_bytes: Largest message; may be changed between two calls of `take`.
        max_fragments: Most frames of one message. A million empty ones stay below every limit in bytes
            (B-17).

    Attributes:
        control: Pings and pongs found so far, checked, as they came; whoever answers them removes them.
        close: The peer's close frame, once it has come. What follows it is not looked at.
        close_code: What that frame says; None if it says nothing.
        close_reason: Likewise; may be empty.
    """

    def __init__(self, *, masked: bool, max_message_bytes: int, max_fragments: int) -> None:
        self.max_message_bytes = max_message_bytes
        self.max_fragments = max_fragments
        self.control: deque[bytes] = deque()
        self.close: bytes | None = None
        self.close_code: int | None = None
        self.close_reason = ""
        self._masked = masked
        # What is there, from _position to _end: of bytes, of a bytearray of our own, or of the reader's.
        self._buffer: bytes | bytearray = b""
        self._position = 0
        self._end = 0
        self._lent = False
        # How many bytes from _position on it takes to get any further.
        self._need = 2
        self._in_message = False
        self._fragments: list[bytes] = []
        self._fragments_bytes = 0
        self._error: RemoteProtocolError | None = None

    @property
    def unparsed(self) -> int:
        """Bytes fed and not yet taken; a part of a frame, or what `most` held back."""
        return self._end - self._position

    @property
    def missing(self) -> int:
        """At least so many more bytes are needed to get any further."""
        return self._need - self.unparsed

    @property
    def held(self) -> int:
        """A measure of the message under way: 0 between messages, more with each byte and fragment."""
        return self.unparsed + self._fragments_bytes + len(self._fragments)

    def feed(self, data: bytes) -> None:
        """Add what was read, while `room` has none."""
        if self._position == self._end:
            self._buffer = data
        else:
            self._buffer = bytes(self._buffer[self._position :]) + data
        self._position, self._end = 0, len(self._buffer)

    def room(self) -> memoryview | None:
        """Where to read the next bytes to if they belong to a large frame; say with `fill` how many came."""
        if self._need <= _LARGE:
            return None
        if not isinstance(self._buffer, bytearray) or self._end == len(self._buffer):
            self._keep()
        return memoryview(self._buffer)[self._end :]

    def fill(self, size: int) -> None:
        """So many bytes were read to where `room` had said."""
        self._end += size

    def lend(self, buffer: bytearray, end: int) -> None:
        """Add what was read to `buffer`, behind as many bytes as are `unparsed`; needed until `give_back`."""
        memoryview(buffer)[: self.unparsed] = memoryview(self._buffer)[self._position : self._end]
        self._buffer, self._position, self._end, self._lent = buffer, 0, end, True

    def give_back(self) -> None:
        """Use the lent buffer no more."""
        if self._lent:
            self._keep()

    # Copy what is left, to where it can stay.
    def _keep(self) -> None:
        rest = memoryview(self._buffer)[self._position : self._end]
        size = len(rest)
        if self._need > _LARGE:
            self._buffer = bytearray(min(self._need, _GROWTH * size))
            self._buffer[:size] = rest
        else:
            self._buffer = bytes(rest)
        self._position, self._end, self._lent = 0, size, False

    def take(self, most: int | None = None) -> list[bytes]:
        """Whole messages fed so far, at most `most`; while nothing is `missing`, there may be more.

        Raises:
            RemoteProtocolError: a frame breaks the rules (1002), is text (1003), makes its message too large
                (1009) or is one fragment too many (1008). Messages before it were returned by the call
                before; every later call raises again.
        """
        if self._error is not None:
            raise self._error
        messages: list[bytes] = []
        if self.close is not None or self.unparsed < self._need:
            return messages
        position, end = self._position, self._end
        buffer = self._buffer
        view = memoryview(buffer)
        mask_bit, key_bytes = (_MASKED, 4) if self._masked else (0, 0)
        limit = self.max_message_bytes
        need = 2
        enough = position + _MOST_BYTES
        # One pass per frame, in line: this loop is most of what a small message costs here.
        for _ in range(_MOST_FRAMES):
            if end - position < 2 or len(messages) == most:
                break
            first = buffer[position]
            size = buffer[position + 1] ^ mask_bit
            start = position + 2 + key_bytes
            if size > 125:
                if size > 127:
                    self._error = RemoteProtocolError(
                        "frame of a client without a mask" if self._masked else "masked frame of a server",
                        close_code=1002,
                    )
                    break
                start += 2 if size == 126 else 8
                if start > end:
                    need = start - position
                    break
                short = size == 126
                size = int.from_bytes(buffer[position + 2 : start - key_bytes], "big")
                if size < 126 or (size < 1 << 16 and not short):
                    self._error = RemoteProtocolError("length in more bytes than it needs", close_code=1002)
                    break
            plain = first == _PLAIN and not self._in_message
            if (not plain or size > limit) and self._refuse(first, size):
                break
            stop = start + size
            if stop > end:
                need = stop - position
                break
            if stop > enough and messages:
                break
            data = buffer[start:stop] if size <= _SMALL_FRAME else view[start:stop]
            payload = mask(data, buffer[start - 4 : start]) if mask_bit else bytes(data)
            if plain:
                messages.append(payload)
            elif not first & _CONTROL_BIT:
                self._add_fragment(first, payload, messages)
            elif first & _OPCODE != _CLOSE:
                self.control.append(bytes(buffer[position:stop]))
            elif self._read_close(payload):
                self.close = bytes(buffer[position:stop])
                position = stop
                break
            else:
                break
            position = stop
        self._need = need
        self._position = position
        if isinstance(buffer, bytearray):
            self._keep()
        if self._error is not None and not messages:
            raise self._error
        return messages

    def leftover(self) -> bytes:
        """What has not been taken, from the beginning of a frame on."""
        return bytes(self._buffer[self._position : self._end])

    # Whether a header that is not simply that of a small binary message breaks a rule. Sets the error.
    def _refuse(self, first: int, size: int) -> bool:
        opcode = first & _OPCODE
        problem, code = "", 1002
        if first & _RESERVED_BITS:
            problem = "reserved bits set without an extension"
        elif opcode not in _OPCODES:
            problem = f"reserved opcode {opcode}"
        elif opcode & _CONTROL_BIT:
            if not first & _FIN:
                problem = "fragmented control frame"
            elif size > _MAX_CONTROL_BYTES:
                problem = "control frame above 125 bytes"
        elif opcode == _TEXT:
            problem, code = "text frame; messages are binary, one CBOR map each", 1003
        elif (opcode == _CONTINUATION) != self._in_message:
            problem = (
                "new message inside a fragmented one" if self._in_message else "continuation of no message"
            )
        elif size + self._fragments_bytes > self.max_message_bytes:
            problem, code = f"message above {self.max_message_bytes} bytes", 1009
        elif len(self._fragments) >= self.max_fragments:
            problem, code = f"message in more than {self.max_fragments} fragments", 1008
        if problem:
            self._error = RemoteProtocolError(problem, close_code=code)
        return bool(problem)

    def _add_fragment(self, first: int, payload: bytes, messages: list[bytes]) -> None:
        self._fragments.append(payload)
        self._fragments_bytes += len(payload)
        self._in_message = not first & _FIN
        if not self._in_message:
            messages.append(b"".join(self._fragments))
            self._fragments.clear()
            self._fragments_bytes = 0

    # Whether a close frame says something that may be said. Sets the error.
    def _read_close(self, payload: bytes) -> bool:
        try:
            self.close_code, self.close_reason = _decode_close(payload)
        except ValueError as error:
            self._error = RemoteProtocolError(str(error), close_code=1002)
        return self._error is None


def _decode_close(payload: bytes) -> tuple[int | None, str]:
    if not payload:
        return None, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or (code not in _CLOSE_CODES and not 3000 <= code <= 4999):
        raise ValueError("close frame with an invalid code")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise ValueError("close frame whose reason is not UTF-8") from None


class FrameSkipper:
    """Reads on after we have closed: drops everything but the peer's close frame, keeps next to nothing.

    It starts at any frame, also at one that `FrameParser` refused. Lengths can be read whatever else is
    wrong with a frame, and only so is the peer's answer found behind the megabytes it should not have sent.

    Args:
        masked: Whether the peer must mask its frames.
    """

    def __init__(self, *, masked: bool) -> None:
        self._mask_bit = _MASKED if masked else 0
        self._buffer = b""
        self._skip = 0

    def feed(self, data: bytes) -> bytes | None:
        """The peer's close frame once `data` completes it, b"" if it is malformed; None until then."""
        buffer = self._buffer + data
        while True:
            skipped = min(self._skip, len(buffer))
            self._skip -= skipped
            self._buffer = buffer = buffer[skipped:]
            if len(buffer) < 2:
                return None
            masked, size = buffer[1] & _MASKED, buffer[1] & ~_MASKED
            length_bytes = {126: 2, 127: 8}.get(size, 0)
            start = 2 + length_bytes + (4 if masked else 0)
            if len(buffer) < start:
                return None
            if buffer[0] & _OPCODE == _CLOSE:
                if buffer[0] != _FIN | _CLOSE or masked != self._mask_bit or length_bytes:
                    return b""
                stop = start + size
                if len(buffer) < stop:
                    return None
                return buffer[:stop] if self._is_valid(buffer[start - 4 : start], buffer[start:stop]) else b""
            if length_bytes:
                size = int.from_bytes(buffer[2 : 2 + length_bytes], "big")
            self._skip = start + size

    def _is_valid(self, key: bytes, payload: bytes) -> bool:
        try:
            _decode_close(mask(payload, key) if self._mask_bit else payload)
        except ValueError:
            return False
        return True

"""WebSocket frames below any library's sense of what is right."""

from __future__ import annotations

import struct

__all__ = ["BINARY", "CLOSE", "CONTINUATION", "PING", "TEXT", "frame"]

CONTINUATION, TEXT, BINARY, CLOSE, PING = 0, 1, 2, 8, 9


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    final: bool = True,
    reserved: int = 0,
    masked: bool = True,
    length: int | None = None,
) -> bytes:
    """A client's WebSocket frame, right or not. The mask is zero, so that the payload can be read on the
    wire.

    Args:
        opcode: Of the frame.
        payload: As it is.
        final: It is the last of its message.
        reserved: The three reserved bits.
        masked: As every frame of a client has to be.
        length: Declared, if not that of the payload.
    """
    length = len(payload) if length is None else length
    mask = 0x80 if masked else 0
    if length < 126:
        size = bytes([mask | length])
    elif length < 2**16:
        size = bytes([mask | 126]) + struct.pack(">H", length)
    else:
        size = bytes([mask | 127]) + struct.pack(">Q", length)
    return (
        bytes([(0x80 if final else 0) | reserved << 4 | opcode])
        + size
        + (bytes(4) if masked else b"")
        + payload
    )

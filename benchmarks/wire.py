"""Bytes on the wire: handshake, frames, messages.

What a client sends is made, masked and framed before the clock starts; a worker's outputs have to wait for
the batch that they answer. Masking uses the C function of `websockets` if that is installed.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, Final

import cbor2

if TYPE_CHECKING:
    from collections.abc import Iterable

try:
    from websockets.speedups import apply_mask as mask
except ImportError:

    def mask(data: bytes, mask: bytes) -> bytes:  # type: ignore[misc]
        """XOR `data` with the repeated four bytes of `mask`."""
        size = len(data)
        repeated = (mask * (size // 4 + 1))[:size]
        return (int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

# One key for all frames. Nobody in between needs confusing here, and the receiver's work is the same.
_KEY: Final = os.urandom(4)


def open_websocket(port: int, timeout: float, extensions: Iterable[str] = ()) -> socket.socket:
    """Connect to the engine on this machine and upgrade.

    Args:
        port: Where it listens.
        timeout: Seconds for it to answer.
        extensions: What it must announce to understand.

    Raises:
        OSError: nobody listens, or what listens does not upgrade, or lacks an extension.
    """
    sock = socket.create_connection(("127.0.0.1", port), timeout)
    try:
        sock.sendall(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n" % port
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # the engine says nothing more before it is spoken to
            data = sock.recv(4096)
            if not data:
                raise ConnectionError("closed during the handshake")
            head += data
        if not head.startswith(b"HTTP/1.1 101") or b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" not in head:
            raise ConnectionError(f"no upgrade: {head[:60]!r}")
        missing = set(extensions) - _announced(head)
        if missing:
            raise ConnectionError(f"the engine does not announce the extension {', '.join(sorted(missing))}")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _announced(head: bytes) -> set[str]:
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "orb-extensions":
            return {extension.strip() for extension in value.split(",")}
    return set()


def frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """A masked frame with a whole message."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + _KEY + mask(payload, _KEY)


def take_frames(data: bytes) -> tuple[list[bytes], list[tuple[int, bytes]], bytes]:
    """Split what an engine sent.

    Returns:
        The binary messages; the control frames as (opcode, payload); and the unfinished rest.
    """
    messages: list[bytes] = []
    controls: list[tuple[int, bytes]] = []
    at, end = 0, len(data)
    while end - at >= 2:
        size = data[at + 1]
        start = at + 2
        if size == 126:
            start += 2
        elif size == 127:
            start += 8
        if start > end:
            break
        if size > 125:
            size = int.from_bytes(data[at + 2 : start], "big")
        if start + size > end:
            break
        if data[at] == 0x80 | BINARY:
            messages.append(data[start : start + size])
        else:
            controls.append((data[at] & 0x0F, data[start : start + size]))
        at = start + size
    return messages, controls, data[at:]


def registration(worker_config: dict[str, Any] | None, secret: str, extensions: Iterable[str] = ()) -> bytes:
    """The first frame of a worker, or of a client with these `extensions` if there is no `worker_config`."""
    if worker_config is None:
        asked = {"extensions": list(extensions)} if extensions else {}
        return frame(cbor2.dumps({"type": "i_am_server", "version": "1.0.1", **asked}))
    return frame(
        cbor2.dumps({"type": "i_am_worker", "worker_secret": secret, "worker_config": worker_config})
    )


def output_message(entries: Iterable[bytes]) -> bytes:
    """A ``worker_output`` of encoded entries."""
    return _entries_message(b"\x6dworker_output\x66output", entries)


def progress_message(entries: Iterable[bytes]) -> bytes:
    """A ``worker_progress`` of encoded entries."""
    return _entries_message(b"\x6fworker_progress\x68progress", entries)


def _entries_message(names: bytes, entries: Iterable[bytes]) -> bytes:
    parts = list(entries)
    return b"\xa2\x64type" + names + array_head(len(parts)) + b"".join(parts)


def array_head(length: int) -> bytes:
    """The CBOR head of an array."""
    if length < 24:
        return bytes((0x80 | length,))
    return b"\x98" + bytes((length,)) if length < 256 else b"\x99" + length.to_bytes(2, "big")

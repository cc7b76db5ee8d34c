from __future__ import annotations

import socket
import threading

import cbor2
import pytest

from benchmarks import wire


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frames_are_taken_apart_wherever_they_break(size: int) -> None:
    payload = b"x" * size
    head = wire.frame(payload)[: {0: 2, 125: 2, 126: 4, 65_535: 4, 65_536: 10}[size]]
    unmasked = bytes((head[0], head[1] & 0x7F)) + head[2:] + payload + b"\x89\x01p"
    for cut in {0, 1, 2, len(head) - 1, len(head), len(unmasked) - 3, len(unmasked)}:
        first, _, rest = wire.take_frames(unmasked[:cut])
        second, controls, rest = wire.take_frames(rest + unmasked[cut:])
        assert first + second == [payload]
        assert rest == b""
        assert controls in ([(wire.PING, b"p")], [])


@pytest.mark.parametrize("entries", [1, 24, 256])
def test_outputs_and_reports_are_cbor(entries: int) -> None:
    parts = [cbor2.dumps({"id": str(index)}) for index in range(entries)]
    output, report = cbor2.loads(wire.output_message(parts)), cbor2.loads(wire.progress_message(parts))
    assert (output["type"], len(output["output"])) == ("worker_output", entries)
    assert (report["type"], len(report["progress"])) == ("worker_progress", entries)


@pytest.mark.parametrize(
    ("announced", "missing"),
    [("", "batched_responses, progress"), ("Orb-Extensions: cancel, progress\r\n", "batched_responses")],
)
def test_an_engine_without_an_extension_is_found(announced: str, missing: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_upgrade, args=(server, announced))
        thread.start()
        with pytest.raises(ConnectionError, match=f"does not announce the extension {missing}$"):
            wire.open_websocket(server.getsockname()[1], 5, ("progress", "batched_responses"))
        thread.join()


def _upgrade(server: socket.socket, announced: str) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        connection.sendall(f"HTTP/1.1 101 Switching\r\n{accept}{announced}\r\n".encode())

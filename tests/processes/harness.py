"""An engine as a process of its own, and blocking peers that speak to it without any code of ours.

The peers use `websockets` and `cbor2`, as an outsider would; everything goes over loopback.

No limit here is a claim about speed: each only ends a test that hangs, on a machine however busy.
"""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cbor2
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from websockets.sync.client import ClientConnection

SECRET = "a secret of the tests"
PATIENCE = 60.0


class EngineProcess:
    """``python -m orbtrio.engine`` on a port that the system chose."""

    def __init__(self, data_home: Path, **environ: str) -> None:
        self.files = data_home / "unblink-engine"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orbtrio.engine"],
            env={
                **os.environ,
                "XDG_DATA_HOME": str(data_home),
                "SERVER_PORT": "0",
                "WORKER_SECRET": SECRET,
                "WORKER_TYPES": "*",
                "LOG_LEVEL": "warn",
                **environ,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = read_line(self.process)
        found = re.search(r"ws://[\w.:\[\]]+:(\d+)/ws", line)
        assert found, (line, self.stop())
        self.port = int(found[1])
        self.url = f"ws://127.0.0.1:{self.port}/ws"

    def stop(self, *, by: signal.Signals = signal.SIGTERM, within: float = PATIENCE) -> str:
        """End it and return what it wrote to stderr."""
        if self.process.poll() is None:
            self.process.send_signal(by)
        try:
            _, errors = self.process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, errors = self.process.communicate()
            raise AssertionError(f"the engine did not stop within {within} s:\n{errors}") from None
        return errors

    def metrics(self) -> dict[str, float]:
        """`/metrics` as numbers by name with labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        return {
            name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")
        }

    def files_on_disk(self) -> list[Path]:
        """Every resource in the store."""
        return [path for path in self.files.rglob("files/frames/*") if path.is_file()]

    def peak_memory(self, act: Callable[[], None]) -> int:
        """Most bytes by which the resident memory grew while `act` ran."""
        pid = self.process.pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # forget the former peak
        before = self._status("VmHWM")
        act()
        return self._status("VmHWM") - before

    def cpu_seconds(self) -> float:
        """Processor time of the event loop's thread so far."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9

    def _status(self, field: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{field}:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024


@contextmanager
def running_engine(data_home: Path, *, ends_itself: bool = False, **environ: str) -> Iterator[EngineProcess]:
    """An engine; on leaving it must still be up, have complained of nothing, and stop in time. I7, I10.

    Args:
        data_home: Where its store is.
        ends_itself: The test makes it stop.
        environ: More settings.
    """
    engine = EngineProcess(data_home, **environ)
    try:
        yield engine
        assert (engine.process.poll() is not None) is ends_itself, "the engine died, or should have"
    except BaseException:
        engine.process.kill()
        print(engine.process.communicate()[1], file=sys.stderr)
        raise
    errors = engine.stop()
    assert engine.process.returncode == 0
    assert "Traceback" not in errors, errors
    assert SECRET not in errors


def read_line(process: subprocess.Popen[str], within: float = PATIENCE) -> str:
    """One line of a process's output; fails if it does not come."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], within)
    assert ready, f"{process.args!r} printed nothing within {within} s"
    return process.stdout.readline()


def masked_frame(payload: bytes, opcode: int = 2) -> bytes:
    """A client's WebSocket frame; the key is zero, so the payload stays readable."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    return head + bytes(4) + payload


class Peer:
    """One WebSocket connection of a stranger."""

    def __init__(self, engine: EngineProcess) -> None:
        self._opened = ExitStack()
        opening = connect(
            engine.url,
            compression=None,
            max_size=64 << 20,
            ping_interval=None,
            open_timeout=PATIENCE,
            close_timeout=1,
        )
        self.websocket: ClientConnection = self._opened.enter_context(opening)

    def send(self, message: dict[str, Any]) -> None:
        self.websocket.send(cbor2.dumps(message))

    def receive(self, within: float = PATIENCE) -> dict[str, Any]:
        raw = self.websocket.recv(timeout=within)
        assert isinstance(raw, bytes)
        message = cbor2.loads(raw)
        assert isinstance(message, dict)
        return message

    def close(self) -> None:
        self._opened.close()

    def reset(self) -> None:
        """Vanish with a TCP reset."""
        sock = self.websocket.socket
        sock.setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # SOL_SOCKET, SO_LINGER: on, 0 s
        sock.close()


class Worker(Peer):
    """A stock worker whose answers the test gives by hand."""

    def __init__(
        self, engine: EngineProcess, worker_type: str = "echo", *, size: int = 32, latency: int = 50
    ) -> None:
        super().__init__(engine)
        config = {"worker_type": worker_type, "max_batch_size": size, "max_latency_ms": latency}
        self.send({"type": "i_am_worker", "worker_secret": SECRET, "worker_config": config})

    def batch(self, within: float = PATIENCE) -> list[dict[str, Any]]:
        inputs = self.receive(within)["inputs"]
        assert isinstance(inputs, list)
        assert inputs
        return inputs

    def answer(self, jobs: Iterable[dict[str, Any]]) -> None:
        output = [{"id": job["id"], "echo": job["input"]} for job in jobs]
        self.send({"type": "worker_output", "output": output})


class Client(Peer):
    """A client that asks for `engine_errors`, or a stock one that does not."""

    def __init__(self, engine: EngineProcess, *, engine_errors: bool = True) -> None:
        super().__init__(engine)
        extensions = {"extensions": ["engine_errors"]} if engine_errors else {}
        self.send({"type": "i_am_server", "version": "1.0.1", **extensions})

    def request(self, numbers: Iterable[int], worker_type: str = "echo", **fields: Any) -> None:
        jobs = [
            {"job_id": f"job-{number}", "worker_type": worker_type, "input": {"n": number, **fields}}
            for number in numbers
        ]
        self.send({"type": "worker_request", "jobs": jobs})

    def responses(self, count: int, within: float = PATIENCE) -> dict[str, dict[str, Any]]:
        """The outputs of `count` jobs by job id; a second answer for one of them fails."""
        outputs: dict[str, dict[str, Any]] = {}
        deadline = time.monotonic() + within
        while len(outputs) < count:
            message = self.receive(max(0.0, deadline - time.monotonic()))
            assert message["type"] == "worker_response"
            assert message["job_id"] not in outputs, "answered twice"
            outputs[message["job_id"]] = message["output"]
        return outputs


def stock_worker(engine: EngineProcess, **environ: str) -> subprocess.Popen[str]:
    """The stock worker as a process, registered."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.stock.stock_worker"],
        env={
            **os.environ,
            "SERVER_URL": engine.url,
            "WORKER_SECRET": SECRET,
            "WORKER_TYPE": "echo",
            "MAX_LATENCY_MS": "50",
            **environ,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert read_line(process).strip() == "READY"
    return process


@contextmanager
def ended(*processes: subprocess.Popen[Any]) -> Iterator[None]:
    """Kill these processes on the way out, whatever happens; they are ours."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def wait_until(condition: Callable[[], bool], within: float = PATIENCE) -> float:
    """Poll; returns the seconds it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < within, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - start

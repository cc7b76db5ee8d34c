from __future__ import annotations

import builtins
import contextlib
import io
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner

from orbtrio.top import __main__ as program
from orbtrio.top.__main__ import main, metrics_url
from orbtrio.top.figures import parse
from tests.processes.harness import PATIENCE, Client, Worker, ended, running_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock

ROOT = Path(__file__).resolve().parents[2]
METRICS = 'orb_clients 3.0\norb_workers{type="echo"} 1.0\n'


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("localhost:5000", "http://localhost:5000/metrics"),
        ("http://host:5000/", "http://host:5000/metrics"),
        ("ws://host:5000/ws", "http://host:5000/metrics"),
        ("wss://host/ws", "https://host/metrics"),
        ("[::1]:5000", "http://[::1]:5000/metrics"),
    ],
)
def test_an_address_in_any_form_is_one(url: str, address: str) -> None:
    assert metrics_url(url) == address


@pytest.mark.parametrize("url", ["ftp://host/", "http://", "host:0", "host:99999", "host:port"])
def test_what_is_no_address_is_refused(url: str) -> None:
    result = CliRunner().invoke(main, [url])
    assert result.exit_code == 2
    assert "no address of an engine" in result.output


@pytest.mark.processes
def test_once_shows_a_real_engine_at_work(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        worker, client = Worker(engine, latency=1), Client(engine)
        client.request(range(8))
        worker.answer(worker.batch())
        client.responses(1)
        command = [sys.executable, "-m", "orbtrio.top", engine.url, "--once", "--interval", "0.1"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
        for peer in (client, worker):
            peer.close()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"127.0.0.1:{engine.port}  1 clients, 0 open jobs, accepted 0/s")
    assert any(line.startswith("echo-1") and line.endswith(" 8") for line in lines)


@pytest.mark.processes
def test_a_terminal_sees_the_table_until_it_is_told_to_stop(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        ours, its = pty.openpty()
        command = [sys.executable, "-m", "orbtrio.top", engine.url, "--interval", "0.05"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=its, stderr=its)
        os.close(its)
        with ended(process):
            shown = b""
            while b"No worker is connected." not in shown:
                shown += os.read(ours, 65536)
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(OSError):  # the terminal's end
                while os.read(ours, 65536):
                    pass
            assert process.wait(PATIENCE) == 0
        os.close(ours)


def test_no_engine_is_said_with_what_to_check() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        result = CliRunner().invoke(main, [f"127.0.0.1:{port}"])
    assert result.exit_code == 1
    assert f"no engine answers at http://127.0.0.1:{port}/metrics: Connection refused" in result.output
    assert "is the engine running" in result.output


@contextlib.contextmanager
def web_server(status: int, body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (404, b"", "answers 404 Not Found: is that an engine of orbtrio?"),
        (200, b"<html>", "shows no metrics"),
        (200, b"python_info 1.0\n", "no engine of orbtrio"),
    ],
)
def test_what_is_no_engine_is_told_apart(status: int, body: bytes, why: str) -> None:
    with web_server(status, body) as address:
        result = CliRunner().invoke(main, [address, "--once"])
    assert result.exit_code == 1
    assert why in result.output


@pytest.mark.parametrize("says", [b"SSH-2.0-OpenSSH_9.2\r\n", b""])
def test_what_speaks_no_http_is_told_apart(says: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(says)

        thread = threading.Thread(target=serve)
        thread.start()
        result = CliRunner().invoke(main, [f"127.0.0.1:{listener.getsockname()[1]}"])
        thread.join()
    assert result.exit_code == 1
    assert "Error: " in result.output
    assert "Traceback" not in result.output


async def test_an_engine_that_goes_away_is_waited_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [METRICS, METRICS, None, METRICS, METRICS]

    async def read(url: str) -> Any:
        answer = answers.pop(0) if answers else METRICS
        if answer is None:
            raise program._Unreachable("no engine answers")
        return parse(answer, time.monotonic())

    monkeypatch.setattr(program, "_read", read)
    with trio.move_on_after(3.5):
        await program._watch("http://host:5000/metrics", 1.0)
    output = capsys.readouterr().out
    assert "waiting for it to come back" in output
    assert output.count("since its start") == 2


async def test_a_terminal_without_rich_is_cleared_each_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    imports = builtins.__import__

    def import_without_rich(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("rich"):
            raise ImportError(name)
        return imports(name, *args, **more)

    async def read(url: str) -> Any:
        return parse(METRICS, time.monotonic())

    output = Terminal()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(builtins, "__import__", import_without_rich)
    monkeypatch.setattr(program, "_read", read)
    with trio.move_on_after(2.5):
        await program._watch("http://host:5000/metrics", 1.0)
    assert output.getvalue().count(program._CLEAR + "host:5000  3 clients") == 2


@pytest.mark.processes
def test_a_full_disk_is_said() -> None:
    with web_server(200, METRICS.encode()) as address, open("/dev/full", "w") as full:
        arguments = [sys.executable, "-m", "orbtrio.top", address, "--once", "--interval", "0.05"]
        ran = subprocess.run(
            arguments, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE
        )
    assert (ran.returncode, ran.stderr) == (1, "Error: standard output: No space left on device\n")


@pytest.mark.processes
def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    with web_server(200, METRICS.encode()) as address:
        command = [sys.executable, "-m", "orbtrio.top", address, "--interval", "0.05"]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with ended(process):
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.wait(PATIENCE) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""

"""``python -m orbtrio.engine``: what it prints, which signals it obeys, how it ends."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import logging
import os
import platform
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
import trio
from websockets.sync.client import connect

from orbtrio.engine import __main__ as program
from orbtrio.engine.__main__ import main

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
SECRET = "correct horse battery staple"
TALKATIVE = """
import logging
from orbtrio.engine import __main__ as program

with program._logging(logging.INFO):
    for _ in range(program._MAX_LOG_RECORDS + 1000):
        logging.getLogger("orbtrio").info("x" * 50)
    print("said all", flush=True)
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"WORKER_SECRET": SECRET, "XDG_DATA_HOME": str(tmp_path), "SERVER_PORT": "0"}


# --- Real processes
# ------------------------------------------------------------------------------------------


class Engine:
    """An engine in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.line = process.stdout.readline()
        self.address = self.line.strip().removeprefix("listening on ")

    def signal(self, number: signal.Signals) -> float:
        told = time.monotonic()
        self.process.send_signal(number)
        return told

    def wait(self) -> tuple[int, str, str]:
        """Status, the rest of standard output, and standard error."""
        output, errors = self.process.communicate(timeout=50)
        return self.process.returncode, output, errors


@contextmanager
def engine_process(environ: dict[str, str]) -> Iterator[Engine]:
    command = [sys.executable, "-m", "orbtrio.engine"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Engine(process)
        finally:
            process.kill()


def run(environ: dict[str, str], *argv: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "orbtrio.engine", *argv]
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("WORKER_SECRET", "CLIENT_TOKENS")
    }
    done = subprocess.run(
        command, cwd=ROOT, env=inherited | environ, capture_output=True, text=True, timeout=50, check=False
    )
    return done.returncode, done.stdout, done.stderr


def files_below(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and path.name != ".lock"]


@contextmanager
def busy_worker(address: str) -> Iterator[None]:
    """A worker that never answers, with a job that has a file."""
    registration = {
        "type": "i_am_worker",
        "worker_secret": SECRET,
        "worker_config": {"worker_type": "embedding", "max_batch_size": 1},
    }
    request = {
        "type": "worker_request",
        "resources": [{"id": "img", "type": "image", "data": b"\x89PNG\r\n\x1a\n"}],
        "jobs": [
            {
                "job_id": 1,
                "worker_type": "embedding",
                "input": {"filepath": {"__type": "resource-ref", "id": "img"}},
            }
        ],
    }
    with connect(address) as worker, connect(address) as client:
        worker.send(cbor2.dumps(registration))
        client.send(cbor2.dumps(request))
        message = worker.recv()
        assert isinstance(message, bytes)
        batch = cbor2.loads(message)
        assert Path(batch["inputs"][0]["input"]["filepath"]).exists()
        yield


@pytest.mark.processes
class TestProcess:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_one_line_when_ready_and_a_clean_end(
        self, environ: dict[str, str], tmp_path: Path, number: signal.Signals
    ) -> None:
        with engine_process(environ) as engine:
            assert re.fullmatch(r"listening on ws://127\.0\.0\.1:\d+/ws\n", engine.line)
            health = engine.address.replace("ws://", "http://").removesuffix("/ws") + "/healthz"
            with urllib.request.urlopen(health) as response:
                assert response.status == 200
            engine.signal(number)
            status, output, errors = engine.wait()
        assert (status, output) == (0, "")
        assert number.name in errors
        assert "Traceback" not in errors
        assert SECRET not in errors
        assert files_below(tmp_path) == []

    def test_second_signal_ends_at_once(self, environ: dict[str, str], tmp_path: Path) -> None:
        """F-27: it waits no longer for open jobs, and no file is left."""
        environ["ORB_GRACE_PERIOD"] = "600"
        with engine_process(environ) as engine, busy_worker(engine.address):
            engine.signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                engine.process.wait(0.5)
            assert len(files_below(tmp_path)) == 1
            # Another one: two of a kind are one to a process that the machine holds up meanwhile.
            engine.signal(signal.SIGINT)
            status, _, errors = engine.wait()
        assert status == 0
        assert "ending at once" in errors
        assert "Traceback" not in errors
        assert files_below(tmp_path) == []

    def test_grace_period_is_kept(self, environ: dict[str, str], tmp_path: Path) -> None:
        """P-26."""
        environ["ORB_GRACE_PERIOD"] = "0.5"
        with engine_process(environ) as engine, busy_worker(engine.address):
            told = engine.signal(signal.SIGTERM)
            status, _, errors = engine.wait()
            assert 0.5 <= time.monotonic() - told < 25  # 30 s are usual
        assert status == 0, errors
        assert files_below(tmp_path) == []

    def test_second_engine_on_the_same_store(self, environ: dict[str, str]) -> None:
        """F-41."""
        with engine_process(environ):
            status, output, errors = run(environ)
        assert (status, output) == (1, "")
        assert "XDG_DATA_HOME" in errors
        assert "Traceback" not in errors

    def test_settings_that_cannot_be_read(self) -> None:
        status, output, errors = run({"SERVER_PORT": "x"})
        assert (status, output) == (2, "")
        assert errors.startswith("error: server_port (SERVER_PORT): expected")
        assert "--help" in errors

    def test_help(self) -> None:
        status, output, errors = run({"WORKER_SECRET": SECRET}, "--help")
        assert (status, errors) == (0, "")
        assert "--server-port" in output
        assert SECRET not in output


# --- This process
# --------------------------------------------------------------------------------------------


@pytest.fixture
def open_engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Puts a fake in place of the engine."""
    monkeypatch.setattr(program, "_settle_memory", lambda: None)
    monkeypatch.setattr(program, "_raise_file_limit", lambda: None)
    return lambda fake: monkeypatch.setattr(program, "open_engine", fake)


class FakeEngine:
    addresses: tuple[str, ...] = ("ws://127.0.0.1:1/ws", "ws://[::1]:1/ws")

    def __init__(self) -> None:
        self.stops = 0
        self.stopped = trio.Event()

    @asynccontextmanager
    async def open(self, config: object) -> AsyncIterator[FakeEngine]:
        yield self

    async def stop(self) -> None:
        self.stops += 1
        self.stopped.set()

    async def wait_stopped(self) -> None:
        await self.stopped.wait()


class TestStatus:
    def test_2_for_settings_that_cannot_be_read(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--no-such-flag"], {}) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: No such option")

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"WORKER_SECRET": ""}, "WORKER_SECRET is not set"),
            ({"SERVER_HOST": "0.0.0.0"}, "CLIENT_TOKENS not set"),
            ({"SERVER_HOST": "192.0.2.1", "CLIENT_TOKENS": "a=b"}, "SERVER_HOST=192.0.2.1"),
            ({"ORB_TLS_CERTIFICATE": "/no/such", "ORB_TLS_KEY": "/no/such"}, "ORB_TLS_CERTIFICATE"),
        ],
    )
    def test_1_if_it_cannot_start(
        self,
        environ: dict[str, str],
        changes: dict[str, str],
        expected: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert main([], environ | changes) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert expected in captured.err
        assert captured.err.count("\n") == 1

    def test_1_if_the_port_is_taken(
        self, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """F-42."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            assert main(["--server-port", port], environ) == 1
        assert f"SERVER_PORT={port}: " in capsys.readouterr().err

    def test_1_if_the_store_cannot_be_used(
        self, environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "unblink-engine").write_bytes(b"")
        assert main([], environ) == 1
        assert "XDG_DATA_HOME" in capsys.readouterr().err

    def test_error_without_a_system_text(
        self,
        environ: dict[str, str],
        open_engine: Callable[[Any], None],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def fail(config: object) -> None:
            raise OSError("no address works")

        open_engine(fail)
        assert main([], environ) == 1
        assert "SERVER_PORT=0: no address works\n" in capsys.readouterr().err

    def test_a_bug_shows_its_traceback(
        self, environ: dict[str, str], open_engine: Callable[[Any], None]
    ) -> None:
        class Buggy(FakeEngine):
            async def wait_stopped(self) -> None:
                raise OSError(errno.EIO, "a bug")

        open_engine(lambda config: Buggy().open(config))
        with pytest.raises(OSError, match="a bug"):
            main([], environ)


class TestSignals:
    def test_one_line_for_all_addresses(
        self, environ: dict[str, str], open_engine: Callable[[Any], None], capfd: pytest.CaptureFixture[str]
    ) -> None:
        engines = []

        class Stopping(FakeEngine):
            async def wait_stopped(self) -> None:
                engines.append(self)
                signal.raise_signal(signal.SIGINT)
                await super().wait_stopped()

        open_engine(lambda config: Stopping().open(config))
        assert main([], environ) == 0
        captured = capfd.readouterr()
        assert captured.out == "listening on ws://127.0.0.1:1/ws\n"
        assert "INFO orbtrio.engine: listening on ws://[::1]:1/ws, too\n" in captured.err
        assert "SIGINT: draining; the next ends at once" in captured.err
        assert engines[0].stops == 1

    def test_engine_that_stops_by_itself(
        self, environ: dict[str, str], open_engine: Callable[[Any], None]
    ) -> None:
        class Stopped(FakeEngine):
            async def wait_stopped(self) -> None:
                await trio.lowlevel.checkpoint()

        open_engine(lambda config: Stopped().open(config))
        assert main([], environ) == 0

    def test_first_signal_while_it_starts(
        self, environ: dict[str, str], open_engine: Callable[[Any], None]
    ) -> None:
        class Slow(FakeEngine):
            @asynccontextmanager
            async def open(self, config: object) -> AsyncIterator[FakeEngine]:
                signal.raise_signal(signal.SIGTERM)
                await trio.sleep(0.01)
                yield self

        open_engine(lambda config: Slow().open(config))
        assert main([], environ) == 0

    def test_second_signal_while_it_starts(
        self, environ: dict[str, str], open_engine: Callable[[Any], None], capfd: pytest.CaptureFixture[str]
    ) -> None:
        class Stuck(FakeEngine):
            @asynccontextmanager
            async def open(self, config: object) -> AsyncIterator[FakeEngine]:
                signal.raise_signal(signal.SIGTERM)
                await trio.testing.wait_all_tasks_blocked()
                signal.raise_signal(signal.SIGTERM)
                await trio.Event().wait()
                yield self

        open_engine(lambda config: Stuck().open(config))
        assert main([], environ) == 0
        captured = capfd.readouterr()
        assert captured.out == ""
        assert "SIGTERM again: ending at once" in captured.err


class TestLogs:
    @pytest.fixture(autouse=True)
    def patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The thread that writes may be slow."""
        monkeypatch.setattr(program, "_LOG_FLUSH_TIMEOUT", 50.0)

    def test_level_is_for_our_own_loggers(self, capfd: pytest.CaptureFixture[str]) -> None:
        with program._logging(logging.DEBUG):
            logging.getLogger("orbtrio.engine").debug("ours %d", 1)
            logging.getLogger("trio-websocket").debug("payload")
            logging.getLogger("trio").warning("theirs")
        with program._logging(logging.ERROR):
            logging.getLogger("orbtrio.engine").warning("quiet")
            logging.getLogger("trio").warning("quiet")
        logging.getLogger("orbtrio").warning("over")
        lines = [line.split(" ", 2)[2] for line in capfd.readouterr().err.splitlines()]
        assert lines == ["DEBUG orbtrio.engine: ours 1", "WARNING trio: theirs"]

    def test_tracebacks_are_kept(self, capfd: pytest.CaptureFixture[str]) -> None:
        with program._logging(logging.INFO):
            logging.getLogger("orbtrio").error("failed \udcff", exc_info=ZeroDivisionError("why"))
        text = capfd.readouterr().err
        assert "failed \\udcff\nZeroDivisionError: why\n" in text
        assert text.count("ZeroDivisionError") == 1

    def test_flood_of_lines_is_cut_and_counted(self) -> None:
        """robustness.md, section 4: hostile peers do not fill the disk with what we say of them."""
        limit = program._RateLimit()

        def log(second: int) -> str | None:
            record = logging.LogRecord("orbtrio", logging.INFO, "", 0, "peer %d", (second,), None)
            record.created = second + 0.5
            return record.getMessage() if limit.filter(record) else None

        first = [log(7) for _ in range(350)]
        assert first == ["peer 7"] * 100 + [None] * 250
        assert [log(8), log(8)] == ["peer 8 (250 lines before this were left out)", "peer 8"]

    def test_no_descriptors_left_is_one_line_a_minute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """F-32: Trio says so ten times a second, with a traceback."""
        now = 1000.0
        monkeypatch.setattr(f"{program.__name__}.time", SimpleNamespace(monotonic=lambda: now))
        accepting = program._Accepting()

        def log(name: str) -> tuple[bool, bool]:
            failure = (OSError, OSError(errno.EMFILE, "too many"), None)
            record = logging.LogRecord(name, logging.ERROR, "", 0, "accept returned EMFILE", (), failure)
            return accepting.filter(record), record.exc_info is None

        assert log("trio.serve_listeners") == (True, True)
        assert log("trio.serve_listeners")[0] is False
        assert log("orbtrio.engine") == (True, False)
        now += 60
        assert log("trio.serve_listeners") == (True, True)

    @pytest.mark.processes
    def test_reader_that_stopped_holds_up_nobody(self) -> None:
        """F-48: the program goes on, and ends, though nobody reads its standard error."""
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        command = [sys.executable, "-c", TALKATIVE]
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=writer, timeout=50, check=True
        )
        os.close(writer)
        os.close(reader)
        assert done.stdout == b"said all\n"


def test_loop_polls_if_it_is_told_to(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    clocks: list[Any] = []
    monkeypatch.setattr(program, "busy_polling", lambda span: f"clock of {span:g} s")
    monkeypatch.setattr(trio, "run", lambda *_, clock: clocks.append(clock))
    assert [main([], environ), main([], environ | {"ORB_BUSY_POLL_US": "500"})] == [0, 0]
    assert clocks == ["clock of 0 s", "clock of 0.0005 s"]


def test_descriptors_up_to_the_hard_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    try:
        program._raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def refuse(which: int, limits: tuple[int, int]) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    program._raise_file_limit()


def test_collector_leaves_the_engine_alone() -> None:
    thresholds = gc.get_threshold()
    try:
        program._settle_memory()
        assert gc.get_threshold() == (10_000, 200, 50)
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


COUNT_PAGE_FAULTS = """
import resource
from orbtrio.engine import __main__ as program

def use_memory():
    blocks = [bytearray(1 << 20) for _ in range(6)]
    del blocks

program._settle_memory()
use_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use_memory()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only GNU's C library can be told")
def test_memory_of_large_messages_is_used_again() -> None:
    # Else each of the 30,000 pages would be given back to the system and asked for again.
    counted = subprocess.run([sys.executable, "-c", COUNT_PAGE_FAULTS], stdout=subprocess.PIPE, check=True)
    assert int(counted.stdout) < 1000


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    program._keep_freed_memory()

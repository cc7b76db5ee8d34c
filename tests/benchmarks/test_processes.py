from __future__ import annotations

import sys
import time
from typing import Final

import pytest

from benchmarks.processes import EngineFailed, cpu_time, run_engine
from tests.benchmarks.conftest import BASELINE

pytestmark = pytest.mark.processes

# Starts a child, as wrappers do, that listens and burns CPU while its parent waits.
_WRAPPER: Final = """
import subprocess, sys
subprocess.run([sys.executable, "-c", '''
import os, socket, time
data = bytearray(50_000_000)
while time.process_time() < 0.3: pass
server = socket.create_server(("127.0.0.1", int(os.environ["SERVER_PORT"])))
time.sleep(60)
'''])
"""


def test_an_engine_that_ends_is_found() -> None:
    command = (sys.executable, "-c", "print('bye', flush=True); raise SystemExit(3)")
    with pytest.raises(EngineFailed, match="ended with status 3: bye"), run_engine(command):
        pass


def test_an_engine_that_is_no_program_is_found() -> None:
    with (
        pytest.raises(EngineFailed, match="cannot start no-such-engine: No such file"),
        run_engine(("no-such-engine", "--fast")),
    ):
        pass


def test_an_engine_that_does_not_listen_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.processes._START_TIMEOUT", 0.1)
    command = (sys.executable, "-c", "import time; time.sleep(60)")
    with (
        pytest.raises(EngineFailed, match=r"does not listen at 127\.0\.0\.1:\d+ after 0\.1 s"),
        run_engine(command),
    ):
        pass


def test_settings_of_the_case_reach_the_engine_and_those_of_the_caller_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORB_MAX_CLIENTS", "1")
    show = "import os; print(sorted((k, v) for k, v in os.environ.items() if k.startswith('ORB_')))"
    with (
        pytest.raises(EngineFailed, match=r"\[\('ORB_MAX_WORKERS', '7'\)\]"),
        run_engine((sys.executable, "-c", show), {"ORB_MAX_WORKERS": "7"}),
    ):
        pass


def test_what_a_wrapper_starts_counts_and_is_ended() -> None:
    with run_engine((sys.executable, "-c", _WRAPPER)) as engine:
        assert engine.cpu_time() > 0.3
        assert engine.peak_bytes() > 50_000_000
        child = engine.pids()[-1]
        assert cpu_time(child) > 0.3
    give_up = time.monotonic() + 10
    while cpu_time(child):
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_the_secret_is_not_shown() -> None:
    with run_engine(BASELINE) as engine:
        assert engine.secret not in repr(engine) + str(engine)
        assert str(engine) == "python -m benchmarks.baseline"

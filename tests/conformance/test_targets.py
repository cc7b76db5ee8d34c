"""Programs under test are started, watched and ended; the slack is measured."""

from __future__ import annotations

import collections
import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from orbtrio.conformance import targets
from orbtrio.conformance.model import TargetGone
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.targets import EngineTarget, Program, calibrate

if TYPE_CHECKING:
    from collections.abc import Iterator


def python(code: str) -> str:
    return f'{sys.executable} -c "{code}"'


@pytest.fixture
def zoo() -> Iterator[EngineTarget]:
    target = EngineTarget(Conditions(), command=f"{sys.executable} -m orbtrio.conformance.zoo.process engine")
    yield target
    target.close()


def test_an_engine_is_started_calibrated_and_ended(zoo: EngineTarget) -> None:
    slack = calibrate(zoo)
    assert slack == zoo.slack >= 0.15
    stage = zoo.stage(collections.Counter())
    assert stage.world.alive()
    stage.barrier()
    stage.strike()
    stage.world.close()
    zoo.close()
    assert not stage.world.alive()


def test_an_engine_that_ended_is_started_again(zoo: EngineTarget) -> None:
    first = zoo.stage(collections.Counter())
    assert zoo._program is not None
    zoo._program.stop()
    assert not first.world.alive()
    first.world.close()
    second = zoo.stage(collections.Counter())
    second.barrier()
    second.world.close()


def test_a_program_that_ends_at_once_tells_why() -> None:
    secret = "hunter2"
    code = "import os; print('no good', os.environ['WORKER_SECRET']); raise SystemExit(3)"
    target = EngineTarget(Conditions(secret=secret), command=python(code))
    with pytest.raises(TargetGone, match=r"exit status 3, its last words: no good \(masked\)"):
        target.stage(collections.Counter())
    target.close()


def test_a_program_that_does_not_exist_is_named() -> None:
    target = EngineTarget(Conditions(), command="no-such-program --now")
    with pytest.raises(TargetGone, match="no-such-program"):
        target.stage(collections.Counter())
    target.close()


def test_a_program_that_never_listens_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_START_PATIENCE", 0.2)
    target = EngineTarget(Conditions(), command=python("import time; time.sleep(60)"))
    with pytest.raises(TargetGone, match="does it read SERVER_PORT"):
        target.stage(collections.Counter())
    target.close()


def test_who_ignores_a_polite_request_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_STOP_PATIENCE", 0.2)
    code = "import signal, time; signal.signal(15, 1); print('ready', flush=True); time.sleep(60)"
    program = Program(python(code), {})
    program.start()
    deadline = time.monotonic() + 50
    while "ready" not in program.output.read_text():
        assert time.monotonic() < deadline
    program.close()
    assert not program.alive()


def test_what_a_program_has_started_ends_with_it() -> None:
    code = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True); input()"
    program = Program(python(code), {})
    program.start()
    deadline = time.monotonic() + 50
    # Its input is empty, so it ends by itself; its child does not.
    while program.alive() or not program.output.read_text().strip():
        assert time.monotonic() < deadline
    child = int(program.output.read_text().split()[0])
    assert "printed nothing" not in program.why_gone()
    program.close()
    deadline = time.monotonic() + 50
    while os.path.exists(f"/proc/{child}/fd"):
        assert time.monotonic() < deadline


def test_an_address_is_described_as_such() -> None:
    target = EngineTarget(Conditions(path="/orb"), address=("127.0.0.1", 5999))
    assert target.description == "ws://127.0.0.1:5999/orb"
    with pytest.raises(TargetGone, match="nothing can be reached"):
        target.stage(collections.Counter()).barrier()
    target.close()

"""Programs that connect to us are started, awaited, started again and ended."""

from __future__ import annotations

import collections
import sys
from typing import TYPE_CHECKING

import pytest

from orbtrio.conformance import client_target
from orbtrio.conformance.client_target import ClientTarget, SimulatedClient, calibrate_client
from orbtrio.conformance.model import TargetGone
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.sockets import free_port
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.zoo.client import ModelClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOPING = f"{sys.executable} -m tests.conformance.looping_client"


@pytest.fixture
def target() -> Iterator[Callable[..., ClientTarget]]:
    targets = []

    def start(command: str | None, **options: object) -> ClientTarget:
        targets.append(ClientTarget(Conditions(), command=command, **options))  # type: ignore[arg-type]
        return targets[-1]

    yield start
    for known in targets:
        known.close()


def python(code: str) -> str:
    return f'{sys.executable} -c "{code}"'


def test_one_process_lives_through_plans_and_is_started_again_when_it_has_ended(
    target: Callable[..., ClientTarget],
) -> None:
    looping = target(LOOPING)
    assert calibrate_client(looping) == looping.slack >= 0.2
    pids = []
    for number in range(3):
        stage = looping.stage(collections.Counter())
        engine = stage.client()
        assert engine.introductions[0].value["type"] == "i_am_server"
        assert stage.world.alive()
        assert stage.goes_on()
        stage.strike()
        stage.world.close()
        assert looping._program is not None
        assert looping._program._process is not None
        pids.append(looping._program._process.pid)
        if number == 1:
            looping._program.stop()
    assert pids[0] == pids[1] != pids[2]


def test_a_program_that_does_not_come_back_is_started_again(
    target: Callable[..., ClientTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_target, "_RETURN_PATIENCE", 0.1)
    code = (
        "import os, socket, time; p = os.environ['SERVER_URL'].split(':')[2].split('/')[0]; "
        "s = socket.create_connection(('127.0.0.1', int(p))); time.sleep(60)"
    )
    once = target(python(code))
    first = once.stage(collections.Counter()).world
    first.close()
    assert once.stage(collections.Counter()).world.accept(0) is not None


def test_a_program_that_ends_without_a_word_tells_why(target: Callable[..., ClientTarget]) -> None:
    with pytest.raises(TargetGone, match=r"ended before it connected: exit status 3, its last words: no"):
        target(python("print('no'); raise SystemExit(3)")).stage(collections.Counter())


def test_a_program_that_never_connects_is_given_up(
    target: Callable[..., ClientTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_target, "_START_PATIENCE", 0.2)
    with pytest.raises(TargetGone, match="does it read SERVER_URL"):
        target(python("import time; time.sleep(60)")).stage(collections.Counter())


def test_an_exit_with_zero_is_no_crash(target: Callable[..., ClientTarget]) -> None:
    looping = target(LOOPING)
    assert looping.restart()
    assert looping.runs()
    assert looping.ended() == ""
    assert looping._program is not None
    looping._program.command = python("print('bye')")
    looping.restart()
    looping._program._process.wait()  # type: ignore[union-attr]
    assert (looping.ended(), looping.runs()) == ("exit status 0", True)
    looping._program.command = python("raise SystemExit('oh')")
    looping.restart()
    looping._program._process.wait()  # type: ignore[union-attr]
    assert looping.ended().startswith("exit status 1")
    assert not looping.runs()


def test_a_client_may_be_started_by_somebody_else(
    target: Callable[..., ClientTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_target, "_START_PATIENCE", 0.1)
    port = free_port()
    somebody = target(None, listen=("127.0.0.1", port))
    assert somebody.description == f"whoever connects to ws://127.0.0.1:{port}/ws"
    assert not somebody.restart()
    assert somebody.ended() == ""
    with pytest.raises(TargetGone, match="does not connect"):
        somebody.stage(collections.Counter())
    with pytest.raises(TargetGone, match="cannot listen on"):
        target(None, listen=("127.0.0.1", port))


def test_nobody_can_connect_to_a_client(target: Callable[..., ClientTarget]) -> None:
    world = target(LOOPING).stage(collections.Counter()).world
    with pytest.raises(TargetGone, match="connects to us"):
        world.connect()


def test_a_simulated_client_is_fresh_on_each_stage() -> None:
    simulated = SimulatedClient("the model", Conditions(), lambda: SimulatedWorld(ModelClient()))
    assert simulated.slack == Conditions().slack
    for _ in range(2):
        assert simulated.stage(collections.Counter()).client(4).jobs[0].job_id == "job-0"
    simulated.close()

"""Workers under test are started, kept through plans, started again, and given up with their last words."""

from __future__ import annotations

import collections
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from orbtrio.conformance import worker_target
from orbtrio.conformance.model import TargetGone, Violation
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.worker_stage import WorkerStage
from orbtrio.conformance.worker_target import WorkerTarget, read_inputs
from orbtrio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ZOO = f"{sys.executable} -m orbtrio.conformance.zoo.worker"


@pytest.fixture
def start() -> Iterator[Callable[..., WorkerTarget]]:
    targets: list[WorkerTarget] = []

    def start(*mutants: str, command: str = "", **options: Any) -> WorkerTarget:
        faults = f" --mutants {','.join(mutants)}" if mutants else ""
        options.setdefault("worker_type", "embedding")
        targets.append(WorkerTarget(Conditions(), command=command or ZOO + faults, **options))
        return targets[-1]

    yield start
    for target in targets:
        target.close()


def stage(target: WorkerTarget) -> WorkerStage:
    return target.stage(collections.Counter())


def strike(stage: WorkerStage) -> None:
    stage.strike()
    stage.world.close()


def pid(target: WorkerTarget) -> int:
    assert target._program._process is not None
    return target._program._process.pid


def test_a_worker_is_calibrated_and_kept(start: Callable[..., WorkerTarget]) -> None:
    target = start()
    slack = target.calibrate()
    assert slack == target.slack >= 0.15
    assert target.bench.good == (0, 1, 2, 3)
    assert 0 < target.bench.job_seconds < 1
    first = pid(target)
    link = target.bench.link
    assert link is not None
    second = stage(target)
    assert second.link() is link
    second.barrier()
    strike(second)
    assert pid(target) == first


def test_a_worker_that_died_is_started_again(start: Callable[..., WorkerTarget]) -> None:
    target = start()
    first = stage(target)
    first.barrier()
    strike(first)
    dead = pid(target)
    os.kill(dead, signal.SIGKILL)
    second = stage(target)
    second.barrier()
    assert pid(target) != dead


def test_a_worker_that_stays_away_is_started_again(start: Callable[..., WorkerTarget]) -> None:
    target = start("worker-never-comes-back")
    first = stage(target)
    first.end("RST")
    strike(first)
    away = pid(target)
    stage(target).barrier()
    assert pid(target) != away
    assert target.bench.losses == 0


def test_a_worker_comes_back_by_itself(start: Callable[..., WorkerTarget]) -> None:
    target = start()
    first = stage(target)
    same = pid(target)
    first.end("RST")
    strike(first)
    stage(target).barrier()
    assert pid(target) == same


def test_a_program_that_ends_tells_why(start: Callable[..., WorkerTarget]) -> None:
    target = start(command=f"{sys.executable} -c \"raise SystemExit('no model')\"")
    with pytest.raises(
        TargetGone, match=r"ended before it registered: exit status 1, its last words: .*no model"
    ):
        stage(target)


def test_a_program_that_never_connects_is_given_up(
    start: Callable[..., WorkerTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_target, "_START_PATIENCE", 0.3)
    target = start(command=f'{sys.executable} -c "import time; time.sleep(60)"')
    with pytest.raises(TargetGone, match="does it read SERVER_URL"):
        stage(target)


def test_one_that_connects_and_says_nothing_is_for_the_cases(
    start: Callable[..., WorkerTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait_until_connected(stage: WorkerStage, seconds: float) -> None:
        """It may take its time to start, but then no minute need go by."""
        while not stage.peers:
            assert next_link(stage, 1.0) is None

    next_link = WorkerStage.next_link
    monkeypatch.setattr(WorkerStage, "next_link", wait_until_connected)
    target = start("worker-never-registers")
    assert stage(target).peers


def test_one_that_cannot_do_anything_is_known_for_it(start: Callable[..., WorkerTarget]) -> None:
    target = start(inputs=({"no": "text"},))
    target.calibrate()
    assert target.bench.good == ()


def test_one_that_answers_no_job_does_not_get_through(
    start: Callable[..., WorkerTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = start(command=f"{ZOO} --job-seconds 30")
    monkeypatch.setattr("orbtrio.conformance.worker_stage.PROMPTLY", 0.2)
    monkeypatch.setattr("orbtrio.conformance.worker_stage._BUSY", 0.0)
    with pytest.raises(Violation, match="a worker answers a job"):
        target.calibrate()


def test_a_worker_that_answers_no_pings_is_calibrated_all_the_same(
    start: Callable[..., WorkerTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = start()
    monkeypatch.setattr(worker_target, "_PINGS", 1)
    monkeypatch.setattr("orbtrio.conformance.worker_bench.WorkerLink.ping", lambda self, payload: None)
    assert target.calibrate() == 0.15


def test_inputs_are_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "inputs"
    file.write_text('{"a": 1}\n\n{"image": "{image}"}\n')
    assert read_inputs(file) == ({"a": 1}, {"image": "{image}"})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{", "line 1: no JSON"), ("{}\n3", "line 2: an input is a map"), ("\n", "there are no inputs")],
)
def test_what_is_no_inputs_is_told(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "inputs"
    file.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        read_inputs(file)

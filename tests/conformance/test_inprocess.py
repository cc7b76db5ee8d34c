"""Our own engine in this process: the same cases, virtual time, schedules that can be had again."""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING

import pytest

from orbtrio.conformance import inprocess, suite
from orbtrio.conformance.inprocess import FabricWorld, InProcessEngine
from orbtrio.conformance.profiles import load_profile
from orbtrio.conformance.runner import Runner
from orbtrio.conformance.search import Options
from orbtrio.conformance.stage import Conditions
from orbtrio.conformance.world import PipeEnded, PipeStuck
from orbtrio.engine.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture
def target() -> InProcessEngine:
    return InProcessEngine(Conditions())


@pytest.fixture
def world() -> Iterator[FabricWorld]:
    world = FabricWorld(Config(worker_secret="secret"), schedule=1)
    yield world
    world.close()


def test_five_minutes_take_no_time(target: InProcessEngine) -> None:
    start = time.monotonic()
    stage = target.stage(collections.Counter(), 1)
    worker = stage.worker(size=1)
    job = stage.client(extensions=["engine_errors"]).submit()
    stage.expect(lambda: bool(worker.batches), "a batch")
    stage.sleep(299)
    assert not job.responses
    stage.sleep(2)
    assert job.responses[0].output["error_kind"] == "timeout"
    stage.strike()
    stage.world.close()
    assert time.monotonic() - start < 50


def play(target: InProcessEngine, schedule: int) -> list[str]:
    stage = target.stage(collections.Counter(), schedule)
    workers = [stage.worker(size=2, latency_ms=20) for _ in range(3)]
    client = stage.client()
    jobs = [client.submit() for _ in range(6)]
    for worker in workers:
        worker.answer_all()
    stage.expect(lambda: all(job.responses for job in jobs), "all are answered")
    lines = [f"{event.at:.6f} {event.peer} {event.kind}" for event in stage.log.events()]
    stage.strike()
    stage.world.close()
    return lines


def test_the_same_schedule_is_the_same_conversation(target: InProcessEngine) -> None:
    logs = [play(target, schedule) for schedule in (1, 1, 2, 3, 4)]
    assert logs[0] == logs[1]
    assert any(log != logs[0] for log in logs[2:])


def test_conversations_hold_under_drawn_schedules(target: InProcessEngine) -> None:
    cases = [case for case in suite.all_cases().values() if case.area == "CNV"]
    runner = Runner(target, load_profile("hardened"), Options(seed=1, examples=15, seconds=3600))
    results = runner.run(cases).results
    assert [result.verdict.value for result in results] == ["PASS"] * len(cases)
    assert runner.counters["redelivery"]


def test_a_pipe_carries_bytes_and_ends(world: FabricWorld) -> None:
    pipe = world.connect()
    pipe.send(UPGRADE)
    assert world.wait(1, lambda: b"101" in pipe.received)
    pipe.finish()
    assert world.wait(10, lambda: bool(pipe.ended))
    pipe.close()
    pipe.close()
    with pytest.raises(PipeEnded):
        pipe.send(b"x")


def test_a_paused_pipe_gets_it_later(world: FabricWorld) -> None:
    pipe = world.connect()
    pipe.paused = True
    pipe.send(UPGRADE)
    assert pipe.paused
    assert not world.wait(1, lambda: bool(pipe.received))
    pipe.paused = False
    assert world.wait(1, lambda: bool(pipe.received))


def test_an_engine_that_takes_nothing_is_stuck(world: FabricWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    # Before the engine's handshake deadline.
    monkeypatch.setattr(inprocess, "_SEND_PATIENCE", 2.0)
    pipe = world.connect()
    pipe.link.to_engine.stall()
    with pytest.raises(PipeStuck):
        pipe.send(bytes(1 << 20))
    pipe.reset()


def test_waiting_takes_virtual_time_only(world: FabricWorld) -> None:
    assert not world.wait(3600)
    assert world.now() == pytest.approx(3600)
    world.accept(1)
    assert world.alive()

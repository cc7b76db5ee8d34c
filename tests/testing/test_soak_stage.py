"""The stage does things in the order of their time, and replaces whoever is lost while the epoch lasts."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from orbtrio.testing._soak_books import EventLog
from orbtrio.testing._soak_stage import TYPES, SoakStage
from orbtrio.testing.clock import steady_clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock


@asynccontextmanager
async def open_stage(directory: Path) -> AsyncIterator[SoakStage]:
    """A stage with an engine on it; nothing of it is left behind."""
    with steady_clock():
        async with trio.open_nursery() as nursery:
            stage = SoakStage(random.Random(3), EventLog(), directory, nursery)
            with stage.disk.installed():
                await stage.start_engine()
                nursery.start_soon(stage.run_actions)
                yield stage
                stage.active = False
                stage.oracle.stopping_at = trio.current_time()
                await stage.engine.stop(grace=0)
            nursery.cancel_scope.cancel()


async def test_actions_are_done_in_the_order_of_their_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_stage(tmp_path) as stage:
        done: list[tuple[str, float]] = []
        for name, seconds in (("late", 5.0), ("early", 1.0), ("next", 1.0)):
            stage.later(seconds, lambda name=name: done.append((name, trio.current_time())))  # type: ignore[misc]
        stage.later(2.0, lambda: stage.later(1.0, lambda: done.append(("nested", trio.current_time()))))
        await trio.sleep(10)
        assert done == [("early", 1.0), ("next", 1.0), ("nested", 3.0), ("late", 5.0)]
        stage.later(1.0, lambda: done.append(("never", 0)))
        stage.cancel_actions()
        await trio.sleep(10)
        assert len(done) == 4


async def test_the_lost_are_replaced_while_the_epoch_lasts(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_stage(tmp_path) as stage:
        stage.active = True
        worker, client = stage.connect_worker("stock"), stage.connect_client(engine_errors=True)
        await trio.sleep(1)
        worker.flaps = 2
        stage.outages["stock"] = 20.0
        worker.cut()
        client.cut()
        await trio.sleep(15)
        assert stage.workers == []
        assert [other.book.engine_errors for other in stage.clients] == [True]
        await trio.sleep(60)
        assert [other.flaps for other in stage.workers] == [0]
        assert stage.oracle.log.counts["fault: flapping worker goes again"] == 2
        stage.active = False
        for peer in stage.peers:
            peer.cut()
        await trio.sleep(60)
        assert stage.peers == []


async def test_whoever_has_the_wrong_secret_is_refused(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_stage(tmp_path) as stage:
        guesser = stage.connect_worker("stock", secret="guessed")
        await trio.sleep(1)
        assert guesser.lost is not None
        assert guesser.lost.code == 1008
        assert stage.workers == []


@pytest.mark.parametrize("worker_type", TYPES)
async def test_jobs_of_every_type_are_understood(
    tmp_path: Path, autojump_clock: MockClock, worker_type: str
) -> None:
    async with open_stage(tmp_path) as stage:
        stage.healing = True
        client = stage.connect_client(engine_errors=True)
        stage.connect_worker(worker_type)
        await trio.sleep(1)
        stage.submit(client, worker_type, 5, large=True)
        for _ in range(20):
            stage.submit(client, worker_type, 2)
        stage.submit(client, worker_type, 1, invalid=True)
        stage.submit(client, "unheard-of", 1, unknown=True)
        await trio.sleep(60)
        ends = [job.end for job in stage.oracle.jobs.values()]
        assert ends == ["answer"] * 45 + ["invalid_job", "unknown_worker_type"]


async def test_nobody_submits_without_a_connection(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_stage(tmp_path) as stage:
        client = stage.connect_client(engine_errors=False)
        stage.submit(client, "stock", 1)
        assert stage.jobs == 0
        await trio.sleep(1)
        stage.submit(client, "stock", 1)
        assert stage.jobs == 1

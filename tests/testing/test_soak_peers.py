"""Peers tell the oracle before they act, and do nothing that a lost connection does not allow."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from orbtrio.protocol.messages import JobBatch, RegisterClient, RegisterWorker
from orbtrio.testing._soak_books import ClientBook, EventLog, SoakFailure, WorkerBook
from orbtrio.testing._soak_peers import LARGEST_RESULT, SECRET, SoakClient, SoakWorker
from orbtrio.testing._soak_stage import SoakStage
from orbtrio.testing.links import Link
from tests.testing.test_soak_stage import open_stage

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_a_job_goes_there_and_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_stage(tmp_path) as stage:
        stage.healing = True  # everybody answers at once
        client, worker = stage.connect_client(engine_errors=True), stage.connect_worker("swift")
        await trio.sleep(1)
        stage.submit(client, "swift", 3)
        await trio.sleep(40)
        assert [job.end for job in stage.oracle.jobs.values()] == ["answer"] * 3
        assert worker.book.held == {}
        assert client.book.open == {}


async def test_a_deadly_batch_ends_its_worker(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_stage(tmp_path) as stage:
        client, worker = stage.connect_client(engine_errors=True), stage.connect_worker("swift")
        await trio.sleep(1)
        worker.deadly = True
        stage.submit(client, "swift", 1)
        await trio.sleep(40)
        assert worker.lost is not None
        assert stage.workers == []
        assert not worker.babble(["any"])
        worker.answer_all()
        assert len(worker.book.held) == 1


async def test_a_mute_worker_answers_when_all_heals(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_stage(tmp_path) as stage:
        client, worker = stage.connect_client(engine_errors=True), stage.connect_worker("swift")
        await trio.sleep(1)
        worker.mute = True
        stage.submit(client, "swift", 1)
        await trio.sleep(40)
        worker.answer_all()
        assert len(worker.book.held) == 1
        stage.healing = True
        worker.answer_all()
        assert len(worker.book.held) == 0


async def test_vast_results_travel_alone_and_are_refused(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_stage(tmp_path) as stage:
        stage.healing = True
        client, _ = stage.connect_client(engine_errors=True), stage.connect_worker("swift")
        await trio.sleep(1)
        stage.submit(client, "swift", 2, vast=True)
        await trio.sleep(40)
        assert [job.end for job in stage.oracle.jobs.values()] == ["result_too_large"] * 2
        assert stage.config.max_worker_message_bytes > LARGEST_RESULT


def test_messages_that_are_none_of_their_business_are_found() -> None:
    with pytest.raises(SoakFailure, match="gets no"):
        take_batch_as(SoakClient)
    with pytest.raises(SoakFailure, match="gets no batch"):
        take_batch_as(SoakWorker)


def take_batch_as(kind: type[SoakClient] | type[SoakWorker]) -> None:
    async def main(tmp_path: Path) -> None:
        async with trio.open_nursery() as nursery:
            stage = SoakStage(random.Random(3), EventLog(), tmp_path, nursery)
            if kind is SoakClient:
                SoakClient(Link("a:1"), stage, ClientBook("c1", 0.0))._take(JobBatch([]), b"")
            registration = RegisterWorker(worker_type="stock", worker_secret=SECRET)
            SoakWorker(Link("a:1"), stage, WorkerBook("w1", 0.0), registration)._take(RegisterClient(), b"")

    try:
        trio.run(main, Path("/nowhere"))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None

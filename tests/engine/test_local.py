"""Jobs submitted in process: how they end early. The rest is in test_server.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from orbtrio.errors import JobTimedOut
from orbtrio.testing import open_fabric, wait_until_idle
from tests.engine.extended import extended_worker

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_a_cancelled_submit_tells_the_worker(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "cancel")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fabric.engine.submit, "t", {})
            (job,) = await worker.receive_batch()
            nursery.cancel_scope.cancel()
        assert await worker.receive_cancels() == [job.job_id]
        worker.fail(job, "cancelled")
        await wait_until_idle()
        assert fabric.engine.statistics().workers[0].unanswered == 0


async def test_a_timeout_tells_the_worker(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "cancel")
        with pytest.raises(JobTimedOut, match="no answer within 2 s"):
            await fabric.engine.submit("t", {}, timeout=2)
        (job,) = await worker.receive_batch()
        assert await worker.receive_cancels() == [job.job_id]


async def test_progress_of_a_job_that_nobody_watches_is_let_go(autojump_clock: MockClock) -> None:
    async with open_fabric() as fabric:
        worker = await extended_worker(fabric, "progress")
        outputs = []

        async def submit() -> None:
            outputs.append(await fabric.engine.submit("t", {"x": 1}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit)
            (job,) = await worker.receive_batch()
            worker.report(job, percent=50)
            worker.answer(job)
        assert outputs == [{"echo": {"x": 1}}]

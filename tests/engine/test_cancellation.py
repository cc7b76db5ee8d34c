"""Cancellation at every checkpoint of a scenario (F-38): whatever is cut short, the books stay right.

An instrument counts the steps of one task and of all that it started: a connection, a call of `submit`, the
engine itself. Then the scenario runs once for each step, and the victim is cancelled just there.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import pytest
import trio
import trio.testing

from orbtrio.engine.server import Engine
from orbtrio.errors import ConnectionLost, JobRefused
from orbtrio.inputs import Image
from orbtrio.protocol.messages import Resource
from orbtrio.testing import Fabric, FakeClient, FakeWorker, open_fabric, wait_until_idle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_T = TypeVar("_T")

# Enough to be written by a thread.
LARGE = bytes(200_000)


class Cancelling(trio.abc.Instrument):
    """Cancels a task, with all that it has started, after so many of their steps.

    Attributes:
        steps: How many there have been.
    """

    def __init__(self, after: int) -> None:
        self.steps = 0
        self._after = after
        self._scope = trio.CancelScope()
        self._victim: trio.lowlevel.Task | None = None

    @property
    def has_struck(self) -> bool:
        return self._scope.cancel_called

    async def run(self, function: Callable[..., Awaitable[_T]], *args: Any, **options: Any) -> _T | None:
        """Run an async function in this task, the victim; None if it was cancelled."""
        self._victim = trio.lowlevel.current_task()
        try:
            with self._scope:
                return await function(*args, **options)
        finally:
            self._victim = None
        return None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._victim is not None and self._is_within(task):
            self.steps += 1
            if self.steps == self._after:
                self._scope.cancel()

    def _is_within(self, task: trio.lowlevel.Task | None) -> bool:
        while task is not None and task is not self._victim:
            task = task.parent_nursery.parent_task if task.parent_nursery is not None else None
        return task is not None


@attrs.define
class Cast:
    """Who was there, and what became of the job from this process."""

    fabric: Fabric
    workers: list[FakeWorker] = attrs.Factory(list)
    clients: list[FakeClient] = attrs.Factory(list)
    local: dict[str, Any] | None = None
    refusal: JobRefused | None = None

    async def bring_worker(self) -> None:
        # Whoever comes while its connection, or the engine, is being cancelled may find nobody.
        with suppress(ConnectionLost):
            self.workers.append(await self.fabric.fake_worker("t", max_batch_size=2, max_latency=0.1))

    async def bring_client(self) -> None:
        with suppress(ConnectionLost):
            self.clients.append(await self.fabric.fake_client(engine_errors=True))

    async def submit(self) -> None:
        try:
            self.local = await self.fabric.engine.submit("t", {"n": 9, "image": Image(LARGE)})
        except JobRefused as refusal:
            self.refusal = refusal


def send_jobs(client: FakeClient) -> None:
    resources = [Resource("small", "document", b"text"), Resource("large", "image", LARGE)]
    files = {name: {"__type": "resource-ref", "id": name} for name in ("small", "large")}
    with suppress(ConnectionLost):
        client.submit("t", {"by": client.link.name} | files, {"by": client.link.name}, resources=resources)


def echo(job: Any) -> dict[str, Any]:
    return {"by": job.input.get("by")}


async def play(fabric: Fabric) -> Cast:
    """A worker that is lost with jobs in hand, two clients with files, a job from here, two new workers."""
    cast = Cast(fabric)
    await cast.bring_worker()
    await cast.bring_client()
    await cast.bring_client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cast.submit)
        for client in cast.clients:
            send_jobs(client)
        await trio.sleep(0.2)
        for worker in cast.workers:
            worker.link.cut()
        for _ in range(2):
            await cast.bring_worker()
        for worker in cast.workers:
            nursery.start_soon(worker.answer_all, echo)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    await wait_until_idle()
    return cast


def check(cast: Cast) -> None:
    """I1, I3, I4, I8, and I5 as far as the engine knows."""
    now = cast.fabric.engine.statistics()
    assert now.accepted == now.answered + now.abandoned + sum(now.ended.values())
    assert (now.open_jobs, now.files, now.file_bytes) == (0, 0, 0)
    assert now.clients == sum(client.lost is None for client in cast.clients)
    assert len(now.workers) == sum(worker.lost is None for worker in cast.workers)
    assert all((worker.queued, worker.unanswered) == (0, 0) for worker in now.workers)
    for client in cast.clients:
        answered = [client_job_id for client_job_id, _ in client.outputs]
        assert len(answered) == len(set(answered))
        assert {output["by"] for _, output in client.outputs if "by" in output} <= {client.link.name}
        if client.lost is None:
            assert len(answered) == 2


def run(
    method: str, number: int, after: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[Cancelling, Cast | None]:
    """Play the scenario, and cancel one call of a method of the engine after so many steps."""
    cancelling = Cancelling(after)
    really = getattr(Engine, method)
    calls = iter(range(1000))

    async def call(self: Engine, *args: Any, **options: Any) -> Any:
        if next(calls) != number:
            return await really(self, *args, **options)
        return await cancelling.run(really, self, *args, **options)

    async def main() -> Cast:
        async with open_fabric() as fabric:
            cast = await play(fabric)
            check(cast)
        return cast

    with monkeypatch.context() as patch:
        patch.setattr(Engine, method, call)
        clock = trio.testing.MockClock(autojump_threshold=0)
        try:
            return cancelling, trio.run(main, clock=clock, instruments=[cancelling])
        except RuntimeError:
            # An engine that is cancelled before it serves is one that could not be started.
            assert method == "serve"
            return cancelling, None


@pytest.mark.parametrize(
    ("method", "number"),
    [("handle", 0), ("handle", 1), ("handle", 3), ("submit", 0), ("serve", 0)],
    ids=["a worker that is lost", "a client", "a worker", "submit", "the engine"],
)
def test_books_stay_right_wherever_it_is_cancelled(
    method: str, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed, cast = run(method, number, 10**9, monkeypatch)
    assert cast is not None
    assert cast.local == {"by": None}
    struck = 0
    for after in range(1, undisturbed.steps + 1):
        cancelling, cast = run(method, number, after, monkeypatch)
        struck += cancelling.has_struck
        if cast is not None and method == "serve":
            assert cast.local is not None or cast.refusal is not None
    # A thread that is quicker or slower than before makes a step more or less.
    assert struck >= undisturbed.steps - 2
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

"""A connection that breaks after any byte (F-17): in the handshake, between messages, in the midst of one."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from orbtrio.errors import ConnectionLost
from orbtrio.protocol.messages import Resource
from orbtrio.testing import Fabric, open_fabric, wait_until_idle
from tests.engine.neighbours import open_neighbours

if TYPE_CHECKING:
    from orbtrio.testing import Direction, FakeClient, FakeWorker, Link

# Frames, CBOR heads and HTTP lines have no common period, so a stride visits them all in time.
STRIDE = 11


class Exchange:
    """A client has two jobs done by a worker, and the link of one of them breaks."""

    def __init__(self, fabric: Fabric, victim: str, direction: str, size: int | None) -> None:
        self.worker: FakeWorker | None = None
        self.client: FakeClient | None = None
        self._fabric = fabric
        self._victim = victim
        self._direction = direction
        self._size = size
        self._links: dict[str, Link] = {}

    @property
    def broken(self) -> Direction:
        """Where the break is, or would be."""
        link = self._links[self._victim]
        return link.to_engine if self._direction == "to_engine" else link.to_peer

    async def play(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fabric, really_open = self._fabric, self._fabric.open_link
        roles = iter(("worker", "client"))

        def open_link(address: str = "memory") -> Link:
            link = really_open(address)
            role = next(roles, None)
            if role is not None:
                self._links[role] = link
            if role == self._victim and self._size is not None:
                self.broken.cut_after(self._size)
            return link

        with monkeypatch.context() as patch:
            patch.setattr(fabric, "open_link", open_link)
            with suppress(ConnectionLost):
                self.worker = await fabric.fake_worker("t", max_batch_size=2)
            with suppress(ConnectionLost):
                self.client = await fabric.fake_client(engine_errors=True)
        async with trio.open_nursery() as nursery:
            with suppress(ConnectionLost):
                if self.client is not None:
                    file = {"file": {"__type": "resource-ref", "id": "r"}}
                    self.client.submit(
                        "t", {"n": 0} | file, {"n": 1}, resources=[Resource("r", "document", b"x")]
                    )
                if self.worker is not None:
                    with trio.move_on_after(1):
                        self.worker.answer(await self.worker.receive_batch())
            await trio.sleep(1)
            # If the worker has taken its jobs with it, another does them.
            nursery.start_soon((await fabric.fake_worker("t", max_batch_size=2)).answer_all)
            await trio.sleep(2)
            await wait_until_idle()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("direction", ["to_engine", "to_peer"])
@pytest.mark.parametrize("victim", ["worker", "client"])
def test_nothing_is_lost_wherever_a_connection_breaks(
    victim: str, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I1 to I4, I8; who is at the other end of another connection notices nothing."""

    async def main(size: int | None) -> int:
        async with open_fabric() as fabric, open_neighbours(fabric):
            exchange = Exchange(fabric, victim, direction, size)
            await exchange.play(monkeypatch)
            client = exchange.client
            if client is not None and client.lost is None:
                assert sorted(output["echo"]["n"] for _, output in client.outputs) == [0, 1]
            else:
                assert victim == "client"
            now = fabric.engine.statistics()
            assert now.accepted == now.answered + now.abandoned
            assert (now.open_jobs, now.files, now.ended) == (0, 0, {})
            return exchange.broken.carried

    clock = trio.testing.MockClock(autojump_threshold=0)
    whole = trio.run(main, None, clock=clock)
    assert whole > 300
    for size in range(0, whole, STRIDE):
        clock = trio.testing.MockClock(autojump_threshold=0)
        assert trio.run(main, size, clock=clock) == size

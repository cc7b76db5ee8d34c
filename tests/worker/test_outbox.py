"""Reports and answers leave in order, and no faster than the engine takes them."""

from __future__ import annotations

import threading
from array import array
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
import trio
import trio.testing

from orbtrio.errors import ConnectionLost, InvalidMessage
from orbtrio.protocol import codec
from orbtrio.protocol.messages import WorkerOutput
from orbtrio.worker import outbox as outbox_module
from orbtrio.worker.outbox import Outbox

if TYPE_CHECKING:
    from orbtrio.worker.outbox import Entry


class FakeTransport:
    """A connection that keeps what is sent; `stuck`, it takes nothing until `read`.

    Attributes:
        sent: Its messages, decoded.
        waits: Set while somebody waits for it to take more.
    """

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.buffered_bytes = 0
        self.stuck = False
        self.broken = False
        self.flushes = 0
        self.waits = trio.Event()
        self._taken = trio.Event()

    def queue(self, *parts: bytes) -> None:
        raw = b"".join(parts)
        self.sent.append(cbor2.loads(raw))
        if self.stuck:
            self.buffered_bytes += len(raw)

    def flush(self) -> None:
        self.flushes += 1

    def send(self, *parts: bytes) -> None:
        self.queue(*parts)
        self.flush()

    async def wait_sent(self, below: int = 0) -> None:
        await trio.lowlevel.checkpoint()
        while self.buffered_bytes > below and not self.broken:
            self.waits.set()
            await self._taken.wait()
        if self.broken:
            raise ConnectionLost("lost")

    def read(self) -> None:
        """Take all that is there."""
        self.stuck = False
        self.buffered_bytes = 0
        self._taken.set()

    def lose(self) -> None:
        """End."""
        self.broken = True
        self._taken.set()

    @property
    def reports(self) -> list[dict[str, Any]]:
        """All reports, in order."""
        return [
            entry
            for message in self.sent
            if message["type"] == "worker_progress"
            for entry in message["progress"]
        ]


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
async def outbox(transport: FakeTransport) -> Outbox:
    return Outbox(transport)  # type: ignore[arg-type]


def entries(*job_ids: str, size: int = 0) -> list[Entry]:
    return [(job_id, codec.output_entry(job_id, {"data": bytes(size)})) for job_id in job_ids]


async def test_reports_of_a_thread_come_in_order_and_before_the_answer(
    outbox: Outbox, transport: FakeTransport
) -> None:
    def work() -> None:
        for n in range(100):
            outbox.report("a", {"n": n})

    await trio.to_thread.run_sync(work)
    await outbox.answer(entries("a"))
    assert [report["n"] for report in transport.reports] == list(range(100))
    assert transport.sent[-1] == {"type": "worker_output", "output": [{"id": "a", "data": b""}]}


async def test_results_that_travel_together_are_never_too_much_for_an_engine(
    outbox: Outbox, transport: FakeTransport
) -> None:
    """Here each alone costs the tenth part of what a message may, in 6,250 bytes."""
    dense = [(f"{number:02}", codec.output_entry(f"{number:02}", {"x": [{}] * 6250})) for number in range(16)]
    await outbox.answer(dense)
    together = [codec.decode(cbor2.dumps(message)) for message in transport.sent]
    assert [len(message.entries) for message in together if isinstance(message, WorkerOutput)] == [4, 4, 4, 4]


async def test_reports_leave_by_themselves_and_together(outbox: Outbox, transport: FakeTransport) -> None:
    """From the event loop, or from a thread while the event loop is busy."""

    def work() -> None:
        outbox.report("b", {"n": 2})
        outbox.report("c", {"n": 3})

    outbox.report("a", {"n": 1})
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert transport.sent == []
    await trio.testing.wait_all_tasks_blocked()
    assert transport.sent == [
        {
            "type": "worker_progress",
            "progress": [{"id": "a", "n": 1}, {"id": "b", "n": 2}, {"id": "c", "n": 3}],
        }
    ]
    assert transport.flushes == 1


async def test_task_that_never_lets_go_fills_no_memory(outbox: Outbox, transport: FakeTransport) -> None:
    for n in range(100):
        outbox.report("a", {"n": n, "data": bytes(10_000)})
    assert len(transport.reports) > 80
    await outbox.answer([])
    assert [report["n"] for report in transport.reports] == list(range(100))


async def test_messages_stay_small(outbox: Outbox, transport: FakeTransport) -> None:
    def work() -> None:
        for n in range(9):
            outbox.report("a", {"data": bytes(1_000_000 if n == 4 else 15_000)})

    # In the event loop's own thread: nothing leaves meanwhile.
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    await outbox.answer(entries(*"abcdef", size=15_000))
    assert [len(message.get("progress") or message["output"]) for message in transport.sent] == [
        *(2, 2, 1, 2, 2),
        *(2, 2, 2),
    ]


async def test_batch_without_jobs_is_answered(outbox: Outbox, transport: FakeTransport) -> None:
    """WRK-08."""
    await outbox.answer([])
    assert transport.sent == [{"type": "worker_output", "output": []}]


async def test_thread_waits_for_an_engine_that_does_not_read(
    outbox: Outbox, transport: FakeTransport
) -> None:
    transport.stuck = True
    over = threading.Event()
    reported = 0

    def work() -> None:
        nonlocal reported
        while not over.is_set():
            outbox.report("a", {"n": reported, "data": bytes(10_000)})
            reported += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, work)
        await transport.waits.wait()
        assert 300 < reported < 600  # 4 MiB may wait.
        over.set()
        transport.read()
    await outbox.answer([])
    assert [report["n"] for report in transport.reports] == list(range(reported))


async def test_thread_of_no_trio_waits_as_well_and_is_let_go_when_the_link_is_lost(
    outbox: Outbox, transport: FakeTransport
) -> None:
    transport.stuck = True
    thread = threading.Thread(target=lambda: outbox.report("a", {"data": bytes(5_000_000)}))
    thread.start()
    await transport.waits.wait()
    assert thread.is_alive()
    transport.lose()
    await trio.to_thread.run_sync(thread.join)


async def test_answers_wait_for_an_engine_that_does_not_read(
    outbox: Outbox, transport: FakeTransport, nursery: trio.Nursery
) -> None:
    transport.stuck = True
    nursery.start_soon(outbox.answer, entries("a", "b", size=5_000_000))
    await transport.waits.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert len(transport.sent) == 1
    transport.read()
    await trio.testing.wait_all_tasks_blocked()
    assert len(transport.sent) == 2


async def test_answers_on_a_lost_link_go_nowhere(outbox: Outbox, transport: FakeTransport) -> None:
    transport.lose()
    await outbox.answer(entries("a", "b", size=100_000))


@pytest.mark.parametrize(
    ("fields", "hint"),
    [({"model": object()}, "cannot be encoded"), ({"data": bytes(2000)}, "more than the 1000 that fit")],
)
async def test_report_that_cannot_be_sent_is_its_authors_to_mend(
    outbox: Outbox,
    transport: FakeTransport,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    hint: str,
) -> None:
    monkeypatch.setattr(outbox_module, "MAX_ENTRY_BYTES", 1000)
    with pytest.raises(InvalidMessage, match=hint):
        outbox.report("a", fields)
    outbox.report("a", {"n": 1})
    await outbox.answer([])
    assert transport.reports == [{"id": "a", "n": 1}]


def test_thread_that_outlives_everything_reports_to_nobody() -> None:
    transport = FakeTransport()

    async def main() -> Outbox:
        return Outbox(transport)  # type: ignore[arg-type]

    outbox = trio.run(main)
    thread = threading.Thread(target=lambda: outbox.report("a", {}))
    thread.start()
    thread.join()
    assert transport.sent == []


async def test_vectors_are_reported_as_the_engine_takes_them() -> None:
    """P-61."""
    vector = array("f", [0.5, 1.0])
    for typed_arrays in (False, True):
        transport: Any = FakeTransport()
        outbox = Outbox(transport, typed_arrays=typed_arrays)
        outbox.report("a", {"v": vector})
        await outbox.answer([])
        sent = transport.sent[0]["progress"][0]["v"]
        assert getattr(sent, "value", sent) == (vector.tobytes() if typed_arrays else [0.5, 1.0])

"""The stage of a soak: one engine, its peers and what they do later.

Whatever happens is either something that the engine does of itself, or an action in one queue, ordered by
time; so the order of all that is drawn is the order of actions and arrivals, and those follow from the seed.
"""

from __future__ import annotations

import heapq
import itertools
import math
from typing import TYPE_CHECKING, Final

import trio

from orbtrio.engine.config import Config
from orbtrio.engine.server import Engine
from orbtrio.protocol.messages import JobRequest, RegisterWorker, Resource, WorkerRequest
from orbtrio.testing._soak_books import ClientBook, EventLog, JobHistory, WorkerBook
from orbtrio.testing._soak_machine import Disk
from orbtrio.testing._soak_oracle import Oracle
from orbtrio.testing._soak_peers import LARGEST_RESULT, SECRET, SoakClient, SoakPeer, SoakWorker
from orbtrio.testing.clock import wait_until_idle
from orbtrio.testing.links import Link

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Hashable
    from pathlib import Path
    from typing import Any

__all__ = ["RARE", "TYPES", "SoakStage"]

# Stock workers only; eager ones with credit; both; with keys; of the public engine's dialect.
TYPES: Final = ("stock", "swift", "mixed", "keyed", "flat")

# Jobs of this type wait: it has a worker only now and then.
RARE: Final = "rare"

_MARKS: Final = ("poison", "vast")


class SoakStage:
    """See `_soak_faults.Field` for what others see of it.

    Attributes:
        rng: All that is drawn is drawn from it.
        workers, clients: Those of this epoch, gone ones included.
        active: Whether whoever is lost comes back.
        healing: Whether everybody answers at once.
        spared: Worker types that nothing shall happen to.
        outages: Until when workers of a type stay away.
    """

    def __init__(self, rng: random.Random, log: EventLog, directory: Path, nursery: trio.Nursery) -> None:
        self.rng = rng
        self.oracle = Oracle(log, trio.current_time)
        self.disk = Disk(rng)
        self.workers: list[SoakWorker] = []
        self.clients: list[SoakClient] = []
        self.active = False
        self.healing = False
        self.spared: frozenset[str] = frozenset()
        self.outages: dict[str, float] = {}
        self.faults = 0
        self.jobs = 0
        self.config = Config(
            worker_secret=SECRET,
            worker_types=(*TYPES, RARE),
            affinity={"keyed": "key"},
            flat_types=("flat",),
            max_worker_message_bytes=LARGEST_RESULT + 64 * 1024,
            xdg_data_home=directory,
        )
        self.engine = Engine(self.config, listen=False)
        self._nursery = nursery
        self._names = {"w": itertools.count(1), "c": itertools.count(1), "r": itertools.count(1)}
        self._links = itertools.count(1)
        self._order = itertools.count()
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._alarm = trio.CancelScope()

    # --------------------------------------------------------------------------------------------- the engine

    async def start_engine(self) -> None:
        """A new engine on the same directory."""
        await wait_until_idle()
        self.engine = Engine(self.config, listen=False)
        await self._nursery.start(self.engine.serve)
        await wait_until_idle()

    def open_link(self, address: str = "memory") -> Link:
        """A new wire to the engine."""
        link = Link(f"{address}:{next(self._links)}")
        self._nursery.start_soon(self.engine.handle, link.engine_end, link.name)
        return link

    # ----------------------------------------------------------------------------------------------- actions

    def start(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run a task on the stage."""
        self._nursery.start_soon(function, *args)

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something after so many seconds."""
        at = trio.current_time() + seconds
        heapq.heappush(self._queue, (at, next(self._order), action))
        if at < self._alarm.deadline:
            self._alarm.deadline = at

    def cancel_actions(self) -> None:
        """Forget what was to be done later."""
        self._queue.clear()

    async def run_actions(self) -> None:
        """Do what is due, until cancelled."""
        while True:
            while self._queue and self._queue[0][0] <= trio.current_time():
                heapq.heappop(self._queue)[2]()
            deadline = self._queue[0][0] if self._queue else math.inf
            with trio.CancelScope(deadline=deadline) as self._alarm:
                await trio.sleep_forever()

    def fault(self, kind: str, whom: str) -> None:
        """Count a fault, and write it down."""
        self.faults += 1
        self.oracle.count(f"fault: {kind}")
        self.oracle.note(f"fault: {kind}: {whom}")

    # ------------------------------------------------------------------------------------------------- peers

    def draw_type(self) -> str:
        """A worker type that has workers as a rule."""
        return self.rng.choice(TYPES)

    def connect_worker(self, worker_type: str, *, secret: str = SECRET) -> SoakWorker:
        """A new worker, with settings drawn as its type likes them."""
        rng = self.rng
        stock = worker_type in ("stock", "flat") or (worker_type != "swift" and rng.random() < 0.5)
        registration = RegisterWorker(
            worker_type=worker_type,
            worker_secret=secret,
            max_batch_size=rng.choice((1, 2, 8, 32)) if stock else rng.choice((4, 16, 32)),
            max_latency=rng.choice((0.05, 1.0, 5.0, 30.0)),
            eager=not stock,
            max_unanswered_batches=None if stock else rng.choice((1, 2, 2)),
        )
        book = WorkerBook(
            name=f"w{next(self._names['w'])}",
            sound_since=trio.current_time(),
            worker_type=worker_type,
            max_batch_size=registration.max_batch_size,
            max_latency=registration.max_latency,
            credit=registration.max_unanswered_batches,
            eager=registration.eager,
        )
        worker = SoakWorker(self.open_link(), self, book, registration)
        self.oracle.note(f"{book.name} connects for {worker_type}, {book.max_batch_size} a batch")
        if secret == SECRET:
            self.workers.append(worker)
        self.start(worker.live)
        if secret != SECRET:
            self.oracle.doom(book)
        return worker

    def connect_client(self, *, engine_errors: bool) -> SoakClient:
        """A new client."""
        book = ClientBook(f"c{next(self._names['c'])}", trio.current_time(), engine_errors=engine_errors)
        client = SoakClient(self.open_link(), self, book)
        self.oracle.note(f"{book.name} connects")
        self.clients.append(client)
        self.start(client.live)
        return client

    def left(self, peer: SoakPeer) -> None:
        """A peer's connection has ended: another like it comes, if the epoch lasts."""
        if isinstance(peer, SoakClient):
            self.clients.remove(peer)
            if self.active and not self.healing:
                self.later(self.rng.uniform(0.1, 10), lambda: self._replace_client(peer))
        elif isinstance(peer, SoakWorker) and peer in self.workers:
            self.workers.remove(peer)
            if self.active and not self.healing:
                pause = self.rng.uniform(0.05, 0.5) if peer.flaps else self.rng.expovariate(1 / 5)
                back = max(pause, self.outages.get(peer.book.worker_type, 0) - trio.current_time())
                self.later(back, lambda: self._replace_worker(peer))

    def _replace_client(self, lost: SoakClient) -> None:
        if self.active and not self.healing:
            self.connect_client(engine_errors=lost.book.engine_errors)

    def _replace_worker(self, lost: SoakWorker) -> None:
        if not self.active or self.healing:
            return
        self.outages.pop(lost.book.worker_type, None)
        worker = self.connect_worker(lost.book.worker_type)
        if lost.flaps:
            worker.flaps = lost.flaps - 1
            self.fault("flapping worker goes again", worker.book.name)
            self.later(self.rng.uniform(0.05, 1), worker.cut)

    @property
    def peers(self) -> list[SoakPeer]:
        return [*self.workers, *self.clients]

    # -------------------------------------------------------------------------------------------------- jobs

    def submit(self, client: SoakClient, worker_type: str, count: int, **marks: bool) -> None:
        """Have a client submit jobs in one request; marks say what is odd about them."""
        if not client.usable:
            return
        rng = self.rng
        resources: list[Resource] = []
        shared = marks.get("large") or rng.random() < 0.15
        if not marks.get("invalid") and (shared or rng.random() < 0.05):
            resources = [
                self._draw_resource(large=marks.get("large", False)) for _ in range(1 if shared else count)
            ]
        requests, histories = [], []
        for place in range(count):
            self.jobs += 1
            number = self.jobs
            fields: dict[str, Any] = {"n": number, "pad": rng.randbytes(rng.randint(0, 60))}
            fields |= {mark: True for mark in _MARKS if marks.get(mark)}
            key = f"k{rng.randint(0, 7)}" if worker_type == "keyed" else None
            if key is not None:
                fields["key"] = key
            extra = {"trace": [number, "x"]} if rng.random() < 0.1 else None
            resource = resources[place % len(resources)].resource_id if resources else None
            reference = {"file": {"__type": "resource-ref", "id": resource}} if resource else {}
            history = JobHistory(
                number=number,
                client=client.book,
                client_job_id=self._draw_id(number),
                worker_type=worker_type,
                fields=fields | (extra or {}),
                resource=resource,
                key=key,
                refusal="unknown_worker_type" if marks.get("unknown") else "",
                submitted_at=trio.current_time(),
            )
            job_input: Any = fields | reference
            if marks.get("invalid"):
                job_input, history.refusal = "no map", "invalid_job"
            histories.append(self.oracle.begin_job(history))
            requests.append(JobRequest(history.client_job_id, worker_type, job_input, extra))
        self.oracle.submitted(histories)
        client.send(WorkerRequest(requests, [], tuple(resources)))

    def _draw_id(self, number: int) -> Hashable:
        return self.rng.choice((f"job-{number}", f"job-{number}", number + 1000, b"%d" % number))

    def _draw_resource(self, *, large: bool) -> Resource:
        name = f"r{next(self._names['r'])}"
        size = (
            self.rng.randint(70_000, 150_000)
            if large or self.rng.random() < 0.1
            else self.rng.randint(1, 3000)
        )
        resource = Resource(name, "document", name.encode() + b"." * size)
        if self.rng.random() < 0.5:
            resource = Resource(name, "image", b"\x89PNG\r\n\x1a\n" + name.encode() + bytes(size))
        self.oracle.resources[name] = bytes(resource.data)
        return resource

"""Everything that a soak does to an engine, its peers and its disk, in one table of kinds and weights.

Each kind is a method that says whom it has hit, or None if there is nobody to hit just now; then another kind
is drawn. Whoever ends a connection, or may have ended it, tells the oracle first.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import trio

from orbtrio.protocol import codec
from orbtrio.protocol.messages import RegisterWorker
from orbtrio.testing._soak_peers import SECRET, SoakClient, SoakPeer, SoakWorker, Stage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orbtrio.testing._soak_machine import Disk
    from orbtrio.testing.links import Link

__all__ = ["Faults", "Field"]

# A half-open connection is found out within 40 s, and 20 s of silence are nobody's end.
_SHORT_STALL: Final = 15.0
_LONG_STALL: Final = (45.0, 150.0)

_JUNK: Final = (b"\xff", b"\x80\x00", b"\xa1", b"\x5f\x41\x00\xff", b"\xbf\xff", b"\xa1\x64type\x18")


class Field(Stage, Protocol):
    """A stage with everything on it that can be harmed."""

    workers: list[SoakWorker]
    clients: list[SoakClient]
    disk: Disk
    spared: frozenset[str]
    outages: dict[str, float]

    def open_link(self, address: str = "memory") -> Link:
        """A new wire to the engine."""

    def start(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run a task on the stage."""

    def submit(self, client: SoakClient, worker_type: str, count: int, **marks: bool) -> None:
        """Have a client submit jobs."""

    def draw_type(self) -> str:
        """A worker type that has workers as a rule."""

    def connect_worker(self, worker_type: str, *, secret: str = SECRET) -> SoakWorker:
        """A new worker, with drawn settings."""


class Faults:
    """The kinds, drawn one by one."""

    def __init__(self, field: Field) -> None:
        self.field = field

    @property
    def _kinds(self) -> dict[str, tuple[int, Callable[[], str | None]]]:
        return {
            "reset": (8, partial(self._end, SoakPeer.cut)),
            "hang up": (5, partial(self._end, self._hang_up)),
            "goodbye": (5, partial(self._end, self._say_goodbye)),
            "cut inside a frame": (8, self._cut_soon),
            "short stall": (8, partial(self._stall, (0.5, _SHORT_STALL))),
            "half-open": (6, partial(self._stall, _LONG_STALL)),
            "reads nothing": (3, self._stop_reading),
            "delay": (6, self._delay),
            "small reads": (4, self._read_little),
            "junk": (5, partial(self._end, self._send_junk)),
            "registers twice": (2, partial(self._end, self._register_again)),
            "unknown message": (3, self._send_unknown),
            "wrong secret": (3, self._wrong_secret),
            "stranger": (4, self._stranger),
            "answers again": (6, self._answer_again),
            "foreign answer": (6, self._answer_for_others),
            "unknown id": (3, self._answer_nobody),
            "malformed entries": (3, self._answer_with_junk),
            "next batch kills": (8, self._make_deadly),
            "worker goes mute": (3, self._silence),
            "flapping": (2, self._flap),
            "poison": (3, partial(self._submit, poison=True)),
            "vast result": (2, partial(self._submit, vast=True)),
            "invalid job": (3, partial(self._submit, invalid=True)),
            "unknown type": (2, self._submit_unknown),
            "client lost": (5, self._lose_client),
            "type outage": (1, self._outage),
            "disk full": (2, self._fill_disk),
            "disk slow": (2, self._slow_disk),
            "nothing can be deleted": (1, self._stick_disk),
        }

    @property
    def kinds(self) -> list[str]:
        """Their names."""
        return list(self._kinds)

    def strike(self) -> None:
        """Draw a fault that hits somebody."""
        kinds = self._kinds
        weights = [weight for weight, _ in kinds.values()]
        for _ in range(50):
            (name,) = self.field.rng.choices(list(kinds), weights)
            whom = kinds[name][1]()
            if whom is not None:
                self.field.fault(name, whom)
                return

    # ------------------------------------------------------------------------------------------------- whom

    def _worker(self) -> SoakWorker | None:
        """Mostly one that has something to lose."""
        here = [w for w in self.field.workers if self._may_hit(w)]
        if not here:
            return None
        if self.field.rng.random() < 0.7:
            here = sorted(here, key=lambda w: -len(w.book.held))[:5]
        return self.field.rng.choice(here)

    def _peer(self) -> SoakPeer | None:
        clients = [c for c in self.field.clients if self._may_hit(c)]
        if len(clients) > 1 and self.field.rng.random() < 0.15:
            return self.field.rng.choice(clients)
        return self._worker()

    def _may_hit(self, peer: SoakPeer) -> bool:
        if isinstance(peer, SoakWorker) and peer.book.worker_type in self.field.spared:
            return False
        return peer.usable and peer.book.sound

    # ------------------------------------------------------------------------------------ ends of connections

    def _end(self, how: Callable[[SoakPeer], None]) -> str | None:
        peer = self._peer()
        if peer is None:
            return None
        how(peer)
        return peer.book.name

    def _hang_up(self, peer: SoakPeer) -> None:
        self.field.oracle.doom(peer.book)
        peer.link.hang_up()

    def _say_goodbye(self, peer: SoakPeer) -> None:
        if isinstance(peer, SoakWorker) and self.field.rng.random() < 0.5:
            peer.answer_all()
        self.field.oracle.doom(peer.book)
        self.field.start(peer.close, self.field.rng.choice((1000, 1001)))

    def _send_junk(self, peer: SoakPeer) -> None:
        self.field.oracle.doom(peer.book)
        junk = self.field.rng.choice(_JUNK)
        if junk == _JUNK[0]:
            junk += self.field.rng.randbytes(self.field.rng.randint(0, 200))
        peer.send(junk)

    def _register_again(self, peer: SoakPeer) -> None:
        self.field.oracle.doom(peer.book)
        # A worker that submits jobs is no better than one that registers twice.
        if isinstance(peer, SoakWorker) and self.field.rng.random() < 0.7:
            peer.send(peer.registration)
        else:
            peer.send(RegisterWorker(worker_type="stock", worker_secret=SECRET))

    def _lose_client(self) -> str | None:
        clients = [c for c in self.field.clients if self._may_hit(c) and c.book.open]
        if len(self.field.clients) < 2 or not clients:
            return None
        client = self.field.rng.choice(clients)
        if self.field.rng.random() < 0.5 and client.book.engine_errors:
            self.field.submit(client, self.field.draw_type(), 2, large=True)
        self.field.rng.choice((SoakPeer.cut, self._hang_up, self._say_goodbye))(client)
        return client.book.name

    def _cut_soon(self) -> str | None:
        peer = self._peer()
        if peer is None:
            return None
        self.field.oracle.suspect(peer.book)
        direction = self.field.rng.choice((peer.link.to_engine, peer.link.to_peer))
        direction.cut_after(self.field.rng.randint(1, 600))
        return peer.book.name

    def _flap(self) -> str | None:
        worker = self._worker()
        if worker is None:
            return None
        worker.flaps = self.field.rng.randint(3, 8)
        worker.cut()
        return worker.book.name

    def _outage(self) -> str | None:
        worker_type = self.field.draw_type()
        if worker_type in self.field.spared or worker_type in self.field.outages:
            return None
        self.field.outages[worker_type] = trio.current_time() + self.field.rng.uniform(30, 200)
        for worker in self.field.workers:
            if worker.book.worker_type == worker_type and worker.lost is None:
                worker.cut()
        return worker_type

    # --------------------------------------------------------------------------------------------- slow links

    def _stall(self, seconds: tuple[float, float]) -> str | None:
        peer = self._peer()
        if peer is None:
            return None
        self.field.oracle.suspect(peer.book)
        peer.link.stall()
        self._resume_later(peer, self.field.rng.uniform(*seconds))
        return peer.book.name

    def _stop_reading(self) -> str | None:
        peer = self._peer()
        if peer is None:
            return None
        self.field.oracle.suspect(peer.book)
        peer.link.to_peer.stall()
        self._resume_later(peer, self.field.rng.uniform(5, _LONG_STALL[1]))
        return peer.book.name

    def _resume_later(self, peer: SoakPeer, seconds: float) -> None:
        peer.book.slack += seconds + 1

        def resume() -> None:
            peer.link.resume()
            self.field.later(1 + 2 * peer.link.delay, verify)

        def verify() -> None:
            if peer.lost is None and not peer.book.doomed:
                self.field.oracle.trust(peer.book)
                self.field.oracle.count("stall outlived")
            elif peer.book.suspect and seconds >= _LONG_STALL[0]:
                self.field.oracle.count("half-open found by ping")

        self.field.later(seconds, resume)

    def _delay(self) -> str | None:
        peer = self._peer()
        if peer is None:
            return None
        delay = self.field.rng.uniform(0.01, 2)
        peer.book.slow = True
        peer.book.slack += 2 * delay
        peer.link.delay = delay
        return peer.book.name

    def _read_little(self) -> str | None:
        worker = self._worker()
        if worker is None:
            return None
        directions = worker.link.to_engine, worker.link.to_peer

        def read(most: int) -> None:
            for direction in directions:
                direction.largest_read = most

        self.field.later(self.field.rng.uniform(0.5, 3), partial(read, directions[0].largest_read))
        read(self.field.rng.choice((1, 3, 17)))
        return worker.book.name

    # ---------------------------------------------------------------------------------------- odd messages

    def _send_unknown(self) -> str | None:
        peer = self._peer()
        if peer is None:
            return None
        peer.send(codec.encode_value({"type": f"rumour-{self.field.rng.randint(0, 9)}", "news": [1, 2]}))
        return peer.book.name

    def _wrong_secret(self) -> str:
        return self.field.connect_worker(self.field.draw_type(), secret="guessed").book.name

    def _stranger(self) -> str:
        self.field.start(self._visit, self.field.open_link("elsewhere"), self.field.rng.randint(0, 3))
        return "the engine"

    async def _visit(self, link: Link, what: int) -> None:
        if what == 0:
            link.cut()
        elif what == 1:
            await trio.sleep(6)  # the engine hears nothing for longer than it listens
            link.hang_up()
        else:
            tls, http = b"\x16\x03\x01\x00\xff", b"GET /elsewhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
            said = tls if what == 2 else http
            try:
                await link.peer_end.send_all(said)
            except trio.BrokenResourceError:  # its engine has stopped
                return
            await trio.sleep(1)
            link.hang_up()

    def _answer_again(self) -> str | None:
        here = [w for w in self.field.workers if w.done and w.usable]
        worker = self.field.rng.choice(here) if here else None
        if worker is None or not worker.babble([self.field.rng.choice(worker.done)]):
            return None
        return worker.book.name

    def _answer_for_others(self) -> str | None:
        rng = self.field.rng
        holders = [w for w in self.field.workers if w.book.held and w.usable]
        if not holders:
            return None
        holder = rng.choice(holders)
        # Of another type: one of its own might become the owner before its answer is read.
        others = [w for w in self.field.workers if w.usable and w.book.worker_type != holder.book.worker_type]
        if not others:
            return None
        thief = rng.choice(others)
        stolen = [holder.ids[number] for number in list(holder.book.held)[:3]]
        return f"{thief.book.name} for {holder.book.name}" if thief.babble(stolen) else None

    def _answer_nobody(self) -> str | None:
        worker = self._worker()
        return worker.book.name if worker is not None and worker.babble(["nobody-1", ""]) else None

    def _answer_with_junk(self) -> str | None:
        worker = self._worker()
        if worker is None:
            return None
        junk = [None, 7, {"no": "id"}, {"id": 3}, ["id"]]
        worker.send(codec.encode_value({"type": "worker_output", "output": junk}))
        return worker.book.name

    # -------------------------------------------------------------------------------------------------- jobs

    def _make_deadly(self) -> str | None:
        worker = self._worker()
        if worker is None or worker.deadly:
            return None
        worker.deadly = True
        return worker.book.name

    def _silence(self) -> str | None:
        worker = self._worker()
        if worker is None or worker.mute:
            return None
        worker.mute = True
        return worker.book.name

    def _client(self) -> SoakClient | None:
        here = [c for c in self.field.clients if self._may_hit(c)]
        return self.field.rng.choice(here) if here else None

    def _submit(self, **marks: bool) -> str | None:
        client = self._client()
        if client is None:
            return None
        worker_type = self.field.draw_type()
        if worker_type in self.field.spared:
            return None
        self.field.submit(client, worker_type, 1, **marks)
        return client.book.name

    def _submit_unknown(self) -> str | None:
        client = self._client()
        if client is None:
            return None
        self.field.submit(client, "unheard-of", 1, unknown=True)
        return client.book.name

    # -------------------------------------------------------------------------------------------------- disk

    def _fill_disk(self) -> str:
        self.field.disk.full = True
        self.field.oracle.disk_trouble_at = math.inf
        self.field.later(self.field.rng.uniform(1, 20), self.repair_disk)
        return "the store"

    def _stick_disk(self) -> str:
        self.field.disk.stuck = True
        self.field.later(self.field.rng.uniform(1, 20), self.repair_disk)
        return "the store"

    def _slow_disk(self) -> str:
        self.field.disk.delay = 0.5
        self.field.oracle.disk_slack = 30.0  # a client's requests are written one after the other
        return "the store"

    def repair_disk(self) -> None:
        """Nothing is wrong with the disk any more."""
        if self.field.disk.full or self.field.disk.stuck:
            self.field.oracle.disk_trouble_at = self.field.oracle.now
        self.field.disk.heal()

"""The stage for an engine under test: workers, clients and barriers.

A *barrier* is a canary: a job of a worker type of its own that goes through the engine and comes
back, and proves that what was sent before has been seen. That something does not happen is claimed only
behind a barrier and the calibrated slack.
"""

from __future__ import annotations

import collections
import contextlib
from typing import TYPE_CHECKING, Any, Final

from orbtrio.conformance.model import TargetGone, Violation
from orbtrio.conformance.peer import Peer, WireLog
from orbtrio.conformance.players import Job, SuiteClient, SuiteWorker
from orbtrio.conformance.stage import PROMPTLY, Conditions, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orbtrio.conformance.world import Pipe, World

__all__ = ["EngineStage"]

# Jobs carry this in their input, so that a delivery tells which job it is.
MARK: Final = "conformance"


class EngineStage(Stage):
    """Workers and clients against an engine under test.

    Attributes:
        jobs: Everything that was submitted on this stage.
    """

    def __init__(
        self, world: World, conditions: Conditions, counters: collections.Counter[str], *, nonce: str
    ) -> None:
        super().__init__(world, conditions, counters)
        self.jobs: list[Job] = []
        self._nonce = nonce
        self._canaries: tuple[SuiteClient, SuiteWorker] | None = None
        self._canary_log = WireLog(world.now, (conditions.secret,))
        self._names: collections.Counter[str] = collections.Counter()

    # --- Types ---

    @property
    def main_type(self) -> str:
        """The worker type of whoever does not ask for another."""
        return self.conditions.types[0]

    def other_type(self, number: int = 1) -> str:
        """A recognised type other than the main one and the canary's."""
        return self.conditions.types[1 + (number - 1) % (len(self.conditions.types) - 2)]

    # --- Connections ---

    def pipe(self) -> Pipe:
        """A bare TCP connection."""
        return self.world.connect()

    def peer(self, name: str = "peer", **options: Any) -> Peer:
        """A WebSocket that has not said anything yet. Options as of `Peer.ask`.

        Raises:
            Violation: the target does not do the handshake.
        """
        peer = Peer(self.world.connect(), self.log, self._name(name))
        self._open(peer, **options)
        return peer

    def worker(
        self,
        worker_type: str | None = None,
        *,
        size: Any = None,
        latency_ms: Any = None,
        settle: bool = True,
        **config: Any,
    ) -> SuiteWorker:
        """A registered worker.

        Args:
            worker_type: The main type if not given.
            size: Its ``max_batch_size``; left out if not given.
            latency_ms: Its ``max_latency_ms``; likewise.
            settle: Return only when the target has had the time to take note of it.
            config: Further fields of ``worker_config``.
        """
        worker_type = worker_type or self.main_type
        worker = SuiteWorker(self, self.world.connect(), self._name("worker"), worker_type)
        worker.asked = frozenset(config.get("extensions", ()))
        if isinstance(size, int):
            worker.max_batch_size = size
        self._open(worker)
        worker.send(self.registration(worker_type, size=size, latency_ms=latency_ms, **config))
        if settle:
            self._wait_until_read(worker)
            self.barrier()
            self.demand(worker.closed is None, f"{worker.name} is accepted", str(worker.closed))
        return worker

    # The canary comes another way and may overtake the registration, a pong cannot. Nobody need answer pings,
    # though, for a worker to be registered.
    def _wait_until_read(self, worker: SuiteWorker) -> None:
        worker.ping(b"read")
        self.world.wait(self.slack, lambda: bool(worker.pongs) or worker.closed is not None)
        worker.pongs.clear()

    def registration(
        self, worker_type: str, *, size: Any = None, latency_ms: Any = None, **config: Any
    ) -> dict[str, Any]:
        """The message by which a worker registers."""
        if size is not None:
            config["max_batch_size"] = size
        if latency_ms is not None:
            # In the target's time, so that it is what the case means in ours.
            fast = type(latency_ms) is int and self.conditions.rate != 1
            config["max_latency_ms"] = round(latency_ms * self.conditions.rate) if fast else latency_ms
        return {
            "type": "i_am_worker",
            "worker_secret": self.conditions.secret,
            "worker_config": {"worker_type": worker_type, **config},
        }

    def client(self, *, extensions: Sequence[str] = (), introduce: bool = True, **fields: Any) -> SuiteClient:
        """A client that has introduced itself; further fields of ``i_am_server`` may be given."""
        client = SuiteClient(self, self.world.connect(), self._name("client"))
        client.asked = frozenset(extensions)
        self._open(client)
        if introduce:
            client.send(self.introduction(extensions=extensions, **fields))
        return client

    def introduction(self, *, extensions: Sequence[str] = (), **fields: Any) -> dict[str, Any]:
        """The message by which a client introduces itself. The public engine wants the version."""
        message: dict[str, Any] = {"type": "i_am_server", "version": "1.0.1", **fields}
        if self.conditions.token is not None:
            message["token"] = self.conditions.token
        if extensions:
            message["extensions"] = list(extensions)
        return message

    def need_extensions(self, *names: str) -> None:
        """Skip the case unless the target announces these extensions.

        Raises:
            Skipped: it does not.
        """
        canary, _ = self._canaries or self._hatch()
        missing = [name for name in names if name not in canary.announced]
        if missing:
            self.skip(f"the target does not announce {', '.join(missing)} in the header Orb-Extensions")

    # --- Barriers ---

    def barrier(self) -> float:
        """Wait until the target has dealt with what was sent before: a canary job goes through it and back.

        Returns:
            Seconds that it took.

        Raises:
            Violation: the canary does not come back.
        """
        client, worker = self._canaries or self._hatch()
        start = self.now()
        answered = len(client.responses)
        for _ in range(3):
            # Sent again, for the first may have been there before its worker.
            client.send(
                {
                    "type": "worker_request",
                    "jobs": [
                        {
                            "job_id": f"canary{len(client.responses)}-{self.now()}",
                            "worker_type": worker.worker_type,
                            "input": {MARK: "canary"},
                        }
                    ],
                }
            )
            if self.world.wait(
                PROMPTLY / 2,
                lambda: len(client.responses) > answered or bool(client.closed or worker.closed),
            ):
                break
        if len(client.responses) == answered:
            for event in self._canary_log.events()[-10:]:
                self.note(f"{event.peer} {event.kind} {event.text}")
            self.fail(
                f"the canary, a job of type {worker.worker_type!r}, goes to its worker and is answered",
                next((f"{peer.name} {peer.closed}" for peer in (worker, client) if peer.closed), "no answer"),
            )
        return self.now() - start

    # The canary's connections are not in the log: whoever reads one wants to see the case.
    def _hatch(self) -> tuple[SuiteClient, SuiteWorker]:
        log, canary_type = self._canary_log, self.conditions.types[-1]
        worker = SuiteWorker(self, self.world.connect(), "the canary's worker", canary_type, log=log)
        self._open(worker)
        worker.send(self.registration(canary_type, size=1, latency_ms=1))
        client = SuiteClient(self, self.world.connect(), "the canary's client", log=log)
        self._open(client)
        client.send(self.introduction())
        self._canaries = client, worker
        return self._canaries

    def quiet(self) -> None:
        """Wait until whatever the target does at once has been done and has arrived: barrier and slack."""
        self.barrier()
        self.sleep(self.slack)

    def never(self, condition: Callable[[], bool], expected: str, seen: Callable[[], str] | str) -> None:
        """Demand that something has not happened once everything is quiet.

        Raises:
            Violation: it has.
        """
        self.barrier()
        if self.world.wait(self.slack, condition):
            self.fail(expected, seen() if callable(seen) else seen)

    # --- Jobs ---

    def make_job(
        self,
        client: SuiteClient,
        input: dict[str, Any] | None,
        *,
        worker_type: str | None = None,
        job_id: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> Job:
        """A job with a mark in its input."""
        number = len(self.jobs) + 1
        job = Job(
            number=number,
            job_id=f"j{number}" if job_id is None else job_id,
            worker_type=worker_type or self.main_type,
            input={MARK: f"{self._nonce}:{number}", **(input or {})},
            extra=extra or {},
            client=client,
        )
        self.jobs.append(job)
        return job

    def job_of(self, entry: Any) -> Job | None:
        """Which of this stage's jobs an entry of a batch is; None if it is none of them."""
        if not isinstance(entry, dict):
            return None
        # Workers written for the public engine get the input's fields beside the identifier.
        fields = entry["input"] if isinstance(entry.get("input"), dict) else entry
        nonce, _, number = str(fields.get(MARK, "")).rpartition(":")
        if nonce != self._nonce or not number.isdecimal() or not 1 <= int(number) <= len(self.jobs):
            return None
        return self.jobs[int(number) - 1]

    # --- The end ---

    def strike(self) -> None:
        """Have everything that is still open answered, so that the next plan finds nothing; then leave."""
        # The case has been judged. What stays behind all the same is recognised by its mark.
        with contextlib.suppress(Violation, TargetGone):
            self._clear()
        super().strike()

    def _clear(self) -> None:
        left = {job.worker_type for job in self.jobs if job.submitted is not None and not job.responses}
        for peer in self.peers:
            peer.pipe.paused = False
        workers = [peer for peer in self.peers if isinstance(peer, SuiteWorker) and peer.closed is None]
        for worker_type in left & set(self.conditions.types):
            for worker in [known for known in workers if known.worker_type == worker_type]:
                worker.answer_all()
            fresh = self.worker(worker_type, size=1000, latency_ms=1, settle=False)
            fresh.answer_all()
        if left:
            self.barrier()
            open_jobs = [job for job in self.jobs if job.client.closed is None and job.worker_type in left]
            self.world.wait(self.slack, lambda: all(job.responses for job in open_jobs))

    def _open(self, peer: Peer, **options: Any) -> None:
        self.peers.append(peer)
        peer.ask(**{"path": self.conditions.path, "host": self.conditions.host, **options})
        self.expect(
            lambda: peer.open or peer.closed is not None, f"{peer.name}'s WebSocket handshake is answered"
        )
        self.demand(peer.open, f"{peer.name}'s WebSocket handshake is accepted", str(peer.closed))

    def _name(self, kind: str) -> str:
        self._names[kind] += 1
        return f"{kind}#{self._names[kind]}"

"""All connections of one engine on one epoll loop.

Everything is one process with one loop, so that two processors suffice: one for the engine, one for the load.
"""

from __future__ import annotations

import math
import select
import time
from typing import TYPE_CHECKING, Final

from benchmarks.cases import BYSTANDER_TYPE
from benchmarks.connections import Client, Mirror, Peer, Worker, WrongAnswer
from benchmarks.pinger import Pinger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.cases import Case
    from benchmarks.pinger import Stalls

__all__ = ["Load", "WrongAnswer"]

# Seconds without any answer after which those that are missing count as lost.
_PATIENCE: Final = 10.0
# Seconds to read what has come.
_MOMENT: Final = 0.002
# Seconds to listen on when all jobs are answered, for answers that should not come.
_AFTERMATH: Final = 0.03
# Seconds that workers get to be registered. Nobody tells them that they are; the spec has silence for
# success.
_REGISTRATION: Final = 0.1


class Load:
    """The clients and workers of one engine, connected and registered.

    Args:
        port: Where the engine listens on this machine.
        secret: Its worker secret.
        case: What to connect.
        pids: The engine's processes, for stalls.

    Raises:
        OSError: a connection was refused, or the engine lacks an extension.
        WrongAnswer: the engine closed a connection.
    """

    def __init__(self, port: int, secret: str, case: Case, pids: Sequence[int] = ()) -> None:
        self.port = port
        self.secret = secret
        self.epoll = select.epoll()
        self.peers: dict[int, Peer | Mirror] = {}
        self._case = case
        self._pids = pids
        self._clients: list[Client] = []
        self._pinger: Pinger | None = None
        try:
            for _ in range(case.bystanders):
                Peer(self, {**case.worker_config, "worker_type": BYSTANDER_TYPE})
            self._workers = [Worker(self, case) for _ in range(case.workers)]
            # A job without a worker would wait for one, but the baseline has nowhere to let it wait.
            self._listen(lambda: False, _REGISTRATION)
            self._clients = [Client(self, case) for _ in range(case.clients)]
        except BaseException:
            self.close()
            raise

    @property
    def jobs_per_batch(self) -> float:
        """The mean size of all batches so far; NaN if there was none."""
        batches = sum(worker.batches for worker in self._workers)
        return sum(worker.jobs for worker in self._workers) / batches if batches else math.nan

    def run(self, requests: Sequence[tuple[range, bytes]]) -> None:
        """Submit the requests and wait for as many answers as they have jobs.

        Raises:
            WrongAnswer: some did not come.
        """
        for worker in self._workers:
            worker.hold()
        for index, client in enumerate(self._clients):
            client.start(requests[index :: len(self._clients)])
        answered = -1
        while not self._listen(self._all_answered, _PATIENCE):
            answered, before = sum(client.answered for client in self._clients), answered
            if answered == before:
                self.verify()
                raise WrongAnswer("not every job was answered")

    def stay(self, seconds: float) -> None:
        """Submit nothing for a while, at least until all that has come is read, but stay connected."""
        self._listen(lambda: False, max(seconds, _MOMENT))

    def find_stalls(self, requests: Sequence[tuple[range, bytes]]) -> Stalls:
        """Run these while somebody else pings."""
        if self._pinger is None:
            self._pinger = Pinger(self.port, self._pids)
            Mirror(self, self._pinger.mirror)
        self._pinger.start()
        self.run(requests)
        return self._pinger.stop()

    def verify(self) -> list[float]:
        """Look for answers that should not come, and hold all answers of the last `run` against their jobs.

        Returns:
            Seconds from request to answer, of every job.

        Raises:
            WrongAnswer: an answer is wrong, missing or one too many.
        """
        self._listen(lambda: False, _AFTERMATH)
        return [latency for client in self._clients for latency in client.verify(self._case.work)]

    def close(self) -> None:
        """Hang up."""
        for peer in self.peers.values():
            peer.socket.close()
        self.epoll.close()
        if self._pinger is not None:
            self._pinger.close()

    def on_all_sent(self) -> None:
        """See `connections.Site`."""
        # The others could wait for answers to jobs that only more jobs would push out.
        for worker in self._workers:
            worker.let_go()

    def _all_answered(self) -> bool:
        return not any(client.running for client in self._clients)

    # Serve all connections; False if `patience` seconds have passed before it was `done`.
    def _listen(self, done: Callable[[], bool], patience: float) -> bool:
        peers = self.peers
        give_up = time.perf_counter() + patience
        while not done():
            now = time.perf_counter()
            due = min((client.due for client in self._clients), default=math.inf)
            if due <= now:
                for client in self._clients:
                    if client.due <= now:
                        client.send_due(now)
                continue
            if now >= give_up:
                return False
            for descriptor, event in self.epoll.poll(min(due, give_up) - now):
                peer = peers[descriptor]
                if event & ~select.EPOLLOUT or isinstance(peer, Mirror):
                    peer.read()
                else:
                    peer.write_rest()
        return True

"""Clients and workers on one epoll loop, and the proof that every answer was right.

The load must cost less than the engine, or the engine would be waiting for it. So clients only count
answers while the clock runs, and keep them; `Load.verify` decodes them afterwards and holds each against
its job. Workers have to look into a batch to answer it. Everything is one process with one loop, so that
two processors suffice: one for the engine, one for the load.
"""

from __future__ import annotations

import math
import select
import time
from typing import TYPE_CHECKING, Any, Final

import cbor2

from benchmarks import wire
from benchmarks.cases import BYSTANDER_TYPE, job_name
from benchmarks.pinger import Pinger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.cases import Case, Work

__all__ = ["Load", "WrongAnswer"]

_RECEIVE_BYTES: Final = 256 * 1024
# Seconds without any answer after which those that are missing count as lost.
_PATIENCE: Final = 10.0
# Seconds to listen on when all jobs are answered, for answers that should not come.
_AFTERMATH: Final = 0.03
# Seconds that workers get to be registered. Nobody tells them that they are; the spec has silence for
# success.
_REGISTRATION: Final = 0.1


class WrongAnswer(Exception):
    """An answer is wrong, missing or one too many; or the engine hung up."""


class _Peer:
    # One connection: a client's, or that of a worker that has nothing to do.

    def __init__(self, load: Load, worker_config: dict[str, object] | None) -> None:
        self.socket = wire.open_websocket(load.port, timeout=5)
        self._epoll = load.epoll
        self._unread = b""
        self._unsent = b""
        self._epoll.register(self.socket, select.EPOLLIN)
        load.peers[self.socket.fileno()] = self
        self.write(wire.registration(worker_config, load.secret))

    def on_messages(self, messages: list[bytes], now: float) -> None:
        """Whole messages have come."""

    def read(self) -> None:
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except ConnectionError as error:
            raise WrongAnswer(f"a connection to the engine broke: {error}") from error
        if not data:
            raise WrongAnswer("the engine closed a connection without saying why")
        messages, controls, self._unread = wire.take_frames(self._unread + data if self._unread else data)
        now = time.perf_counter()
        if messages:
            self.on_messages(messages, now)
        for opcode, payload in controls:
            if opcode == wire.PING:
                self.write(wire.frame(payload, wire.PONG))
            else:
                code, reason = int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace")
                raise WrongAnswer(f"the engine closed a connection with {code}: {reason}")

    def write(self, data: bytes) -> None:
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except ConnectionError as error:
            raise WrongAnswer(f"a connection to the engine broke: {error}") from error
        if sent < len(data):
            self._unsent = data[sent:]
            self._epoll.modify(self.socket, select.EPOLLIN | select.EPOLLOUT)

    def write_rest(self) -> None:
        self._unsent, data = b"", self._unsent
        self._epoll.modify(self.socket, select.EPOLLIN)
        self.write(data)


class _Worker(_Peer):
    def __init__(self, load: Load, case: Case) -> None:
        super().__init__(load, case.worker_config)
        self.jobs = 0
        self.batches = 0
        self._entry = case.work.entry
        self._max_batch_size = case.max_batch_size

    def on_messages(self, messages: list[bytes], now: float) -> None:
        frames = []
        for raw in messages:
            batch = cbor2.loads(raw)["inputs"]
            if not 0 < len(batch) <= self._max_batch_size:
                raise WrongAnswer(f"a batch of {len(batch)} jobs for a worker of {self._max_batch_size}")
            frames.append(
                wire.frame(wire.output_message(self._entry(job["id"], job["input"]) for job in batch))
            )
            self.jobs += len(batch)
            self.batches += 1
        self.write(b"".join(frames))


class _Client(_Peer):
    def __init__(self, load: Load, case: Case) -> None:
        super().__init__(load, None)
        self.running = False
        self.due = math.inf  # when to send by the clock, in seconds of `time.perf_counter`
        self._jobs_per_request = case.jobs_per_request
        self._outstanding = case.outstanding
        self._interval = case.jobs_per_request / case.jobs_per_second if case.jobs_per_second else 0.0
        self.start([])

    def start(self, requests: Sequence[tuple[range, bytes]]) -> None:
        """Begin to send these."""
        self._numbers = [numbers for numbers, _ in requests]
        self._frames = [frame for _, frame in requests]
        self._sent_at: list[float] = []
        self._answers: list[tuple[float, list[bytes]]] = []
        self.answered = 0
        self.running = bool(requests)
        if requests and self._interval:
            self.due = time.perf_counter()
        elif requests:
            self._send_more(time.perf_counter())

    def on_messages(self, messages: list[bytes], now: float) -> None:
        self._answers.append((now, messages))
        self.answered += len(messages)
        if not self._interval:
            self._send_more(now)
        self.running = self.answered < len(self._frames) * self._jobs_per_request

    def send_due(self, now: float) -> None:
        """Send by the clock."""
        self._send(1, now)
        # From when it was due, not from now: to be late once must not slow the pace.
        self.due = self.due + self._interval if len(self._sent_at) < len(self._frames) else math.inf

    def _send_more(self, now: float) -> None:
        unanswered = len(self._sent_at) * self._jobs_per_request - self.answered
        count = (self._outstanding - unanswered) // self._jobs_per_request
        if count > 0:
            self._send(count, now)

    def _send(self, count: int, now: float) -> None:
        first = len(self._sent_at)
        frames = self._frames[first : first + count]
        if frames:
            self.write(b"".join(frames))
            self._sent_at += [now] * len(frames)

    def verify(self, work: Work) -> list[float]:
        """Hold every answer against its job.

        Returns:
            Seconds from each request's departure to each of its answers.

        Raises:
            WrongAnswer: an answer is wrong, missing or one too many.
        """
        sent_at: dict[Any, tuple[int, float]] = {
            job_name(number): (number, at)
            for numbers, at in zip(self._numbers, self._sent_at, strict=False)
            for number in numbers
        }
        latencies = []
        for now, messages in self._answers:
            for raw in messages:
                response: dict[str, Any] = cbor2.loads(raw)
                job_id = response.get("job_id")
                sent = sent_at.pop(job_id, None)
                if sent is None:
                    raise WrongAnswer(f"job_id {job_id!r} was answered twice, or never asked for")
                number, at = sent
                output = dict(response.get("output", {}))
                output.pop("id", None)
                if response.get("type") != "worker_response" or output != work.expected(number):
                    raise WrongAnswer(f"job_id {job_id!r} has a wrong answer: {str(output)[:200]}")
                latencies.append(now - at)
        if sent_at or len(self._sent_at) < len(self._frames):
            raise WrongAnswer(
                f"{len(sent_at)} jobs of a client have no answer, for example {next(iter(sent_at), None)}"
            )
        return latencies


class Load:
    """The clients and workers of one engine, connected and registered.

    Args:
        port: Where the engine listens on this machine.
        secret: Its worker secret.
        case: What to connect.
    """

    def __init__(self, port: int, secret: str, case: Case) -> None:
        self.port = port
        self.secret = secret
        self.epoll = select.epoll()
        self.peers: dict[int, _Peer] = {}
        self._case = case
        self._clients: list[_Client] = []
        self._pinger: Pinger | None = None
        self._pings: list[float] = []
        try:
            for _ in range(case.bystanders):
                _Peer(self, {**case.worker_config, "worker_type": BYSTANDER_TYPE})
            self._workers = [_Worker(self, case) for _ in range(case.workers)]
            if case.pings:
                self._pinger = Pinger(port)
            # A job without a worker would wait for one, but the baseline has nowhere to let it wait.
            self._listen(lambda: False, _REGISTRATION)
            self._clients = [_Client(self, case) for _ in range(case.clients)]
        except BaseException:
            self.close()
            raise

    @property
    def jobs_per_batch(self) -> float:
        """The mean size of all batches so far."""
        return sum(worker.jobs for worker in self._workers) / sum(worker.batches for worker in self._workers)

    def run(self, requests: Sequence[tuple[range, bytes]]) -> None:
        """Submit the requests and wait for as many answers as they have jobs.

        Raises:
            WrongAnswer: some did not come.
        """
        if self._pinger is not None:
            self._pinger.start()
        for index, client in enumerate(self._clients):
            client.start(requests[index :: len(self._clients)])
        answered = -1
        while not self._listen(self._all_answered, _PATIENCE):
            answered, before = sum(client.answered for client in self._clients), answered
            if answered == before:
                self.verify()
                raise WrongAnswer("not every job was answered")
        if self._pinger is not None:
            self._pings = self._pinger.stop()

    def verify(self) -> list[float]:
        """Look for answers that should not come, and hold all answers of the last `run` against their jobs.

        Returns:
            Seconds from request to answer, of every job; of every ping instead, if the case times those.

        Raises:
            WrongAnswer: an answer is wrong, missing or one too many.
        """
        self._listen(lambda: False, _AFTERMATH)
        latencies = [latency for client in self._clients for latency in client.verify(self._case.work)]
        return self._pings if self._case.pings else latencies

    def close(self) -> None:
        """Hang up."""
        if self._pinger is not None:
            self._pinger.close()
        for peer in self.peers.values():
            peer.socket.close()
        self.epoll.close()

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
                if event & ~select.EPOLLOUT:
                    peers[descriptor].read()
                else:
                    peers[descriptor].write_rest()
        return True

"""What is at the other end of the engine's connections: clients that count and workers that echo.

The load must cost less than the engine, or the engine would be waiting for it. So clients only count answers
while the clock runs, and keep them; `Client.verify` decodes them afterwards and holds each against its job.
Workers have to look into a batch to answer it.
"""

from __future__ import annotations

import math
import select
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

import cbor2

from benchmarks import wire
from benchmarks.cases import job_name

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

    from benchmarks.cases import Case
    from benchmarks.work import Work

__all__ = ["Client", "Mirror", "Peer", "Site", "Worker", "WrongAnswer"]

_RECEIVE_BYTES: Final = 256 * 1024


class WrongAnswer(Exception):
    """An answer is wrong, missing or one too many; or the engine hung up."""


class Site(Protocol):
    """Where connections stand, and the loop that reads them; `load.Load` is the real one."""

    port: int
    secret: str
    epoll: select.epoll
    peers: dict[int, Any]

    def on_all_sent(self) -> None:
        """A client has sent its last request."""


class Peer:
    """One connection; as it is, that of somebody who has nothing to do."""

    def __init__(
        self, site: Site, worker_config: dict[str, object] | None, extensions: Sequence[str] = ()
    ) -> None:
        self.socket = wire.open_websocket(site.port, timeout=5, extensions=extensions)
        self._epoll = site.epoll
        self._unread = b""
        self._unsent = b""
        self._epoll.register(self.socket, select.EPOLLIN)
        site.peers[self.socket.fileno()] = self
        self.write(wire.registration(worker_config, site.secret, extensions))

    def on_messages(self, messages: list[bytes], now: float) -> None:
        """Whole messages have come."""

    def read(self) -> None:
        """Take what has come."""
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
            elif opcode != wire.PONG:
                code, reason = int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace")
                raise WrongAnswer(f"the engine closed a connection with {code}: {reason}")

    def write(self, data: bytes) -> None:
        """Send, now or when there is room."""
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
        """There is room again."""
        self._unsent, data = b"", self._unsent
        self._epoll.modify(self.socket, select.EPOLLIN)
        self.write(data)


class Mirror:
    """One end of a pair of sockets, which sends back what comes: how long the load's own loop takes."""

    def __init__(self, site: Site, sock: socket.socket) -> None:
        self.socket = sock
        sock.setblocking(False)
        site.epoll.register(sock, select.EPOLLIN)
        site.peers[sock.fileno()] = self

    def read(self) -> None:
        """Send it back; the other end asks for one at a time."""
        self.socket.send(self.socket.recv(_RECEIVE_BYTES))


class Worker(Peer):
    """A worker that answers each batch, at once or when its turn comes (`Case.held`).

    Attributes:
        jobs: All that it got so far.
        batches: Likewise.
    """

    def __init__(self, site: Site, case: Case) -> None:
        super().__init__(site, case.worker_config, ("progress",) if case.progress else ())
        self.jobs = 0
        self.batches = 0
        self._entry = case.work.entry
        self._max_batch_size = case.max_batch_size
        self._reports = range(case.progress)
        self._keep = case.held // max(case.workers, 1)
        self._held: deque[tuple[int, bytes]] = deque()
        self._jobs_held = 0
        self.hold()

    def hold(self) -> None:
        """From now on keep as many jobs as the case says."""
        self._most_held = self._keep

    def let_go(self) -> None:
        """Answer all that is held, and from now on everything at once: no more will come to push it out."""
        self._most_held = 0
        self._answer()

    def on_messages(self, messages: list[bytes], now: float) -> None:
        for raw in messages:
            batch = cbor2.loads(raw)["inputs"]
            if not 0 < len(batch) <= self._max_batch_size:
                raise WrongAnswer(f"a batch of {len(batch)} jobs for a worker of {self._max_batch_size}")
            frames = [
                wire.frame(wire.progress_message(_report(job, step) for job in batch))
                for step in self._reports
            ]
            outputs = wire.output_message(self._entry(job["id"], job["input"]) for job in batch)
            self._held.append((len(batch), b"".join((*frames, wire.frame(outputs)))))
            self._jobs_held += len(batch)
            self.jobs += len(batch)
            self.batches += 1
        self._answer()

    def _answer(self) -> None:
        frames = []
        while self._jobs_held > self._most_held:
            count, frame = self._held.popleft()
            self._jobs_held -= count
            frames.append(frame)
        if frames:
            self.write(b"".join(frames))


# Steps are below 24 and numbers have eight digits, so that neither needs an encoder.
def _report(job: dict[str, Any], step: int) -> bytes:
    number = job["input"]["text"][:8].encode()
    return b"\xa3\x62id%b\x64step%c\x66number\x68%b" % (cbor2.dumps(job["id"]), step, number)


class Client(Peer):
    """A client that keeps so many jobs unanswered, or submits them by the clock.

    Attributes:
        running: Whether answers are still to come.
        answered: Jobs that have their answer, since `start`.
        due: When to send by the clock, in seconds of `time.perf_counter`.
    """

    def __init__(self, site: Site, case: Case) -> None:
        super().__init__(site, None, case.client_extensions)
        self.running = False
        self.answered = 0
        self.due = math.inf
        self._on_all_sent = site.on_all_sent
        self._messages_per_job = 1 + case.progress
        self._batched = case.batched
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
        self._counted = 0
        self.answered = 0
        self.running = bool(requests)
        if requests and self._interval:
            self.due = time.perf_counter()
        elif requests:
            self._send_more(time.perf_counter())

    @property
    def all_sent(self) -> bool:
        """Whether every request is on its way."""
        return len(self._sent_at) == len(self._frames)

    def on_messages(self, messages: list[bytes], now: float) -> None:
        self._answers.append((now, messages))
        self._counted += sum(map(_size, messages)) if self._batched else len(messages)
        self.answered = self._counted // self._messages_per_job
        if not self._interval:
            self._send_more(now)
        self.running = self.answered < len(self._frames) * self._jobs_per_request

    def send_due(self, now: float) -> None:
        """Send by the clock."""
        self._send(1, now)
        # From when it was due, not from now: to be late once must not slow the pace.
        self.due = math.inf if self.all_sent else self.due + self._interval

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
            if self.all_sent:
                self._on_all_sent()

    def verify(self, work: Work) -> list[float]:
        """Hold every message that came against its job.

        Returns:
            Seconds from each request's departure to each of its answers.

        Raises:
            WrongAnswer: an answer is wrong, missing or one too many; or a report is, or out of order.
        """
        sent_at: dict[Any, tuple[int, float]] = {
            job_name(number): (number, at)
            for numbers, at in zip(self._numbers, self._sent_at, strict=False)
            for number in numbers
        }
        steps: dict[Any, int] = {}
        latencies = []
        for now, message in self._messages():
            job_id = message.get("job_id")
            if job_id not in sent_at:
                raise WrongAnswer(f"job_id {job_id!r} was answered twice, or never asked for")
            number, at = sent_at[job_id]
            step = steps.get(job_id, 0)
            if step < self._messages_per_job - 1:
                report = {"step": step, "number": f"{number:08}"}
                if message.get("type") != "worker_progress" or message.get("progress") != report:
                    raise WrongAnswer(f"job_id {job_id!r} has a wrong report: {str(message)[:200]}")
                steps[job_id] = step + 1
                continue
            output = dict(message.get("output", {}))
            output.pop("id", None)
            if message.get("type") != "worker_response" or output != work.expected(number):
                raise WrongAnswer(f"job_id {job_id!r} has a wrong answer: {str(output)[:200]}")
            latencies.append(now - at)
            del sent_at[job_id]
        if sent_at or not self.all_sent:
            example = next(iter(sent_at), None)
            raise WrongAnswer(f"{len(sent_at)} jobs of a client have no answer, for example {example}")
        return latencies

    # When it came, and the message; of answers that came together, each.
    def _messages(self) -> Iterator[tuple[float, dict[str, Any]]]:
        for now, messages in self._answers:
            for raw in messages:
                message: dict[str, Any] = cbor2.loads(raw)
                if self._batched and message.get("type") == "worker_responses":
                    for response in message["responses"]:
                        yield now, {"type": "worker_response", **response}
                else:
                    yield now, message


# How many answers a message has.
def _size(raw: bytes) -> int:
    return len(cbor2.loads(raw).get("responses", (None,)))

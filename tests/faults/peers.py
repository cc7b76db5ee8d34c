"""Peers for faults: a healthy neighbour whose round trips are timed, our own worker, an embedded engine."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from tests.processes.harness import SECRET, Client, Worker, read_line, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.processes.harness import EngineProcess

__all__ = ["Neighbour", "assert_settled", "healthy", "own_worker", "percentile", "throughput", "workers_of"]


def percentile(values: list[float], share: int) -> float:
    """Of at least two values."""
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1]


class Neighbour:
    """A client that submits one job after the other, to a worker of its own; no other has part in it."""

    def __init__(self, engine: EngineProcess, worker_type: str) -> None:
        self.trips: list[float] = []
        self.failure: BaseException | None = None
        self._worker_type = worker_type
        self._worker = Worker(engine, worker_type, size=1, latency=1)
        self._client = Client(engine)
        # First the client ends, then the worker: its last job is answered.
        self._ends = (threading.Event(), threading.Event())
        self._threads = (threading.Thread(target=self._ask), threading.Thread(target=self._work))
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while not self._ends[1].is_set():
            try:
                self._worker.answer(self._worker.batch(within=0.2))
            except TimeoutError:
                continue
            except Exception as error:
                self.failure = error
                return

    def _ask(self) -> None:
        number = 0
        try:
            while not self._ends[0].is_set():
                number += 1
                start = time.monotonic()
                self._client.request([number], self._worker_type)
                assert self._client.responses(1)[f"job-{number}"]["echo"] == {"n": number}
                self.trips.append(time.monotonic() - start)
                time.sleep(0.005)
        except BaseException as error:
            self.failure = error

    def finish(self) -> None:
        """Stop, and fail if a job was not answered rightly."""
        for end, thread in zip(self._ends, self._threads, strict=True):
            end.set()
            thread.join(35)
        for peer in (self._client, self._worker):
            peer.close()
        if self.failure is not None:
            raise self.failure


@contextmanager
def healthy(engine: EngineProcess, worker_type: str = "healthy") -> Iterator[Neighbour]:
    """A neighbour beside the fault. I6, I8."""
    neighbour = Neighbour(engine, worker_type)
    try:
        yield neighbour
    finally:
        neighbour.finish()


def own_worker(url: str, worker_type: str = "echo", **environ: str) -> subprocess.Popen[str]:
    """Our worker as a process of its own; echoes. It need not be connected when this returns."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.own_worker"],
        env={
            **os.environ,
            "SERVER_URL": url,
            "WORKER_SECRET": SECRET,
            "WORKER_TYPE": worker_type,
            "MAX_LATENCY_MS": "50",
            "LOG_LEVEL": "warn",
            **environ,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def workers_of(engine: EngineProcess, worker_type: str = "echo") -> int:
    """Live workers of a type."""
    return int(engine.metrics().get(f'orb_workers{{type="{worker_type}"}}', 0))


def assert_settled(engine: EngineProcess) -> dict[str, float]:
    """Nothing is open, every accepted job has had one end, no file is left, it answers. I3, I4, I10.

    Returns:
        The metrics.
    """
    wait_until(lambda: engine.metrics()["orb_open_jobs"] == 0)
    wait_until(lambda: not engine.files_on_disk(), within=3)
    counts = engine.metrics()
    ended = sum(value for name, value in counts.items() if name.startswith("orb_jobs_ended_total"))
    accepted = counts["orb_jobs_accepted_total"]
    assert accepted == counts["orb_jobs_answered_total"] + counts["orb_jobs_abandoned_total"] + ended
    return counts


def throughput(client: Client, seconds: float, worker_type: str = "echo", **fields: Any) -> tuple[int, float]:
    """Keep 128 jobs in the air for a while. Each must be answered once, rightly. I1, I8.

    Returns:
        Jobs answered, and how many per second.
    """
    sent = answered = 0
    start = time.monotonic()
    while time.monotonic() - start < seconds or answered < sent:
        while sent - answered < 128 and time.monotonic() - start < seconds:
            client.request(range(sent, sent + 16), worker_type, **fields)
            sent += 16
        outputs = client.responses(1)
        for name, output in outputs.items():
            assert output.get("echo", {}).get("n") == int(name.removeprefix("job-")), output
        answered += 1
    return answered, answered / (time.monotonic() - start)


def embedded_engine(data_home: str, **environ: str) -> subprocess.Popen[str]:
    """A program with an engine in it; takes commands. See `tests.faults.embedded`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.embedded"],
        env={**os.environ, "XDG_DATA_HOME": data_home, "WORKER_SECRET": SECRET, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process


def ask(process: subprocess.Popen[str], command: str = "") -> str:
    """Give an embedded engine's program a command, and read its answer."""
    assert process.stdin is not None
    if command:
        print(command, file=process.stdin, flush=True)
    return read_line(process).strip()


def through(url: str) -> EngineProcess:
    """For peers of the harness: an engine that is reached elsewhere, such as through a proxy."""
    return cast("EngineProcess", SimpleNamespace(url=url))

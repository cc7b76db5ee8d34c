"""What the extensions are for, on real processes: nobody computes for nobody, workers may be replaced."""

from __future__ import annotations

import math
import os
import signal
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import trio

import orbtrio
from tests.processes.harness import PATIENCE, SECRET, ended, running_engine, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.harness import EngineProcess

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]


def steady_worker(engine: EngineProcess, worker_type: str, **environ: str) -> subprocess.Popen[bytes]:
    """A `steady_worker` of some type, not yet registered."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.processes.steady_worker"],
        env={
            **os.environ,
            "SERVER_URL": engine.url,
            "WORKER_SECRET": SECRET,
            "WORKER_TYPE": worker_type,
            "LOG_LEVEL": "warn",
            **environ,
        },
    )


def registered(engine: EngineProcess, worker_type: str) -> float:
    return engine.metrics().get(f'orb_workers{{type="{worker_type}"}}', 0)


def unanswered(engine: EngineProcess) -> float:
    return sum(count for name, count in engine.metrics().items() if name.startswith("orb_worker_unanswered{"))


async def until(condition: Callable[[], bool]) -> None:
    """Wait without holding up the client."""
    await trio.to_thread.run_sync(wait_until, condition)


async def start_and_cancel_1000_streams(engine: EngineProcess) -> tuple[float, float]:
    """The seconds until all have begun, and those from their cancellation until their workers are free."""
    begun = 0
    all_begun = trio.Event()

    async def read(client: orbtrio.Client) -> None:
        nonlocal begun
        async with client.stream("endless", {}) as stream:
            async for _ in stream:
                begun += 1
                if begun == 1000:
                    all_begun.set()
                await trio.sleep_forever()

    async with orbtrio.connect(engine.url) as client:
        async with trio.open_nursery() as nursery:
            start = time.monotonic()
            for _ in range(1000):
                nursery.start_soon(read, client)
            with trio.fail_after(100):
                await all_begun.wait()
            beginning = time.monotonic() - start
            assert unanswered(engine) == 1000
            cancelled = time.monotonic()
            nursery.cancel_scope.cancel()
        await until(lambda: unanswered(engine) == 0)
        return beginning, time.monotonic() - cancelled


async def test_cancelling_1000_streams_frees_their_workers_within_a_second(tmp_path: Path) -> None:
    """Or, on a machine so busy that it takes longer to begin them, in no more than that time."""
    with running_engine(tmp_path) as engine:
        workers = [
            steady_worker(engine, "endless", MAX_BATCH_SIZE="250", MAX_LATENCY_MS="50") for _ in range(4)
        ]
        try:
            wait_until(lambda: registered(engine, "endless") == 4)
            in_time = False
            for _ in range(3):  # the machine may be busy with other things
                beginning, freed = await start_and_cancel_1000_streams(engine)
                print(f"1000 streams begun in {beginning:.2f} s, their workers free {freed:.2f} s later")
                in_time = freed < max(1, beginning)
                if in_time:
                    break
            assert in_time
            assert all(worker.poll() is None for worker in workers)
        finally:
            for worker in workers:
                worker.terminate()
                assert worker.wait(PATIENCE) == 0


def percentile_99(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98]


async def test_a_rolling_drain_under_full_load_loses_nothing_and_delays_little(tmp_path: Path) -> None:
    """Four workers are replaced one after the other: each new one is there before an old one leaves."""
    size = {"MAX_BATCH_SIZE": "8"}
    with running_engine(tmp_path) as engine:
        workers = [steady_worker(engine, "echo", **size) for _ in range(4)]
        try:
            wait_until(lambda: registered(engine, "echo") == 4)
            latencies: list[float] = []
            stopping = trio.Event()

            async def ask(client: orbtrio.Client, number: int) -> None:
                turn = 0
                while not stopping.is_set():
                    turn += 1
                    begun = time.perf_counter()
                    output = await client.submit("echo", {"n": (number, turn)})
                    assert output == {"n": [number, turn]}
                    latencies.append(time.perf_counter() - begun)

            async def end(worker: subprocess.Popen[bytes]) -> None:
                worker.send_signal(signal.SIGTERM)
                assert await trio.to_thread.run_sync(worker.wait, PATIENCE) == 0

            async def replace(number: int) -> None:
                new = steady_worker(engine, "echo", **size)
                await until(lambda: registered(engine, "echo") == 5)
                await end(workers[number])
                workers[number] = new

            async def start_another() -> None:
                """What a process costs that starts and ends, whatever it does for whom."""
                with ended(another := steady_worker(engine, "llm")):
                    await until(lambda: registered(engine, "llm") == 1)
                    await end(another)
                    await until(lambda: registered(engine, "llm") == 0)

            async with orbtrio.connect(engine.url) as client, trio.open_nursery() as nursery:
                for number in range(64):  # twice what the workers hold at a time
                    nursery.start_soon(ask, client, number)
                await trio.sleep(1)
                best = math.inf
                for _ in range(5):  # the machine may be busy with other things
                    latencies.clear()
                    for _ in range(4):
                        await start_another()
                    calm = percentile_99(latencies)
                    latencies.clear()
                    for number in range(4):
                        await replace(number)
                    rolling = percentile_99(latencies)
                    print(f"p99 {1000 * calm:.0f} ms beside others, {1000 * rolling:.0f} ms while replaced")
                    best = min(best, rolling / calm)
                    if best <= 2:
                        break
                stopping.set()
            assert best <= 2
            assert engine.metrics()["orb_jobs_redelivered_total"] == 0
        finally:
            for worker in workers:
                worker.terminate()
                assert worker.wait(PATIENCE) == 0

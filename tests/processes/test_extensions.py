"""What the extensions are for, on real processes: nobody computes for nobody, workers may be replaced."""

from __future__ import annotations

import math
import os
import signal
import statistics
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

import orbtrio
from tests.processes.harness import SECRET, running_engine, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.harness import EngineProcess

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


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
    """Wait half a minute at most, without holding up the client."""
    await trio.to_thread.run_sync(partial(wait_until, condition, within=30))


async def test_cancelling_1000_streams_frees_their_workers_within_a_second(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        workers = [steady_worker(engine, "endless", MAX_BATCH_SIZE="250") for _ in range(4)]
        try:
            wait_until(lambda: registered(engine, "endless") == 4, within=30)
            started = 0
            all_started = trio.Event()

            async def read(client: orbtrio.Client) -> None:
                nonlocal started
                async with client.stream("endless", {}) as stream:
                    async for _ in stream:
                        started += 1
                        if started == 1000:
                            all_started.set()
                        await trio.sleep_forever()

            async with orbtrio.connect(engine.url) as client:
                async with trio.open_nursery() as nursery:
                    for _ in range(1000):
                        nursery.start_soon(read, client)
                    with trio.fail_after(60):
                        await all_started.wait()
                    assert unanswered(engine) == 1000
                    cancelled = time.monotonic()
                    nursery.cancel_scope.cancel()
                await until(lambda: unanswered(engine) == 0)
                freed = time.monotonic() - cancelled
            print(f"1000 streams cancelled, their workers free {freed:.2f} s later")
            assert freed < 1
            assert all(worker.poll() is None for worker in workers)
        finally:
            for worker in workers:
                worker.terminate()
                assert worker.wait(10) == 0


def percentile_99(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98]


async def test_a_rolling_drain_under_full_load_loses_nothing_and_delays_little(tmp_path: Path) -> None:
    """Four workers are replaced one after the other: each new one is there before an old one leaves."""
    size = {"MAX_BATCH_SIZE": "8"}
    with running_engine(tmp_path) as engine:
        workers = [steady_worker(engine, "echo", **size) for _ in range(4)]
        try:
            wait_until(lambda: registered(engine, "echo") == 4, within=30)
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

            async def replace(number: int) -> None:
                new = steady_worker(engine, "echo", **size)
                await until(lambda: registered(engine, "echo") == 5)
                workers[number].send_signal(signal.SIGTERM)
                assert await trio.to_thread.run_sync(workers[number].wait, 30) == 0
                workers[number] = new

            async with orbtrio.connect(engine.url) as client, trio.open_nursery() as nursery:
                for number in range(64):  # twice what the workers hold at a time
                    nursery.start_soon(ask, client, number)
                await trio.sleep(1)
                best = math.inf
                for _ in range(3):  # the machine may be busy with other things
                    latencies.clear()
                    await trio.sleep(3)
                    calm = percentile_99(latencies)
                    latencies.clear()
                    for number in range(4):
                        await replace(number)
                    rolling = percentile_99(latencies)
                    print(f"p99 {1000 * calm:.0f} ms undisturbed, {1000 * rolling:.0f} ms while replaced")
                    best = min(best, rolling / calm)
                    if best <= 2:
                        break
                stopping.set()
            assert best <= 2
            assert engine.metrics()["orb_jobs_redelivered_total"] == 0
        finally:
            for worker in workers:
                worker.terminate()
                assert worker.wait(10) == 0

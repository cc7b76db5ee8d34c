"""Too few descriptors, too little memory: F-32, F-33."""

from __future__ import annotations

import re
import resource
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.machine import descriptors, memory_limit
from tests.faults.peers import assert_settled, healthy
from tests.processes.harness import Client, EngineProcess, Worker, running_engine, wait_until

if TYPE_CHECKING:
    from tests.faults.report import Figures

pytestmark = [pytest.mark.processes, pytest.mark.timeout(60)]


def test_f32_out_of_descriptors_serves_those_who_are_in_and_recovers(tmp_path: Path, figure: Figures) -> None:
    """For three seconds more peers want in than there are descriptors for."""
    engine = EngineProcess(tmp_path)
    try:
        with healthy(engine) as neighbour, ExitStack() as stack:
            idle = descriptors(engine.process.pid)
            _, hard = resource.prlimit(engine.process.pid, resource.RLIMIT_NOFILE)
            few = descriptors(engine.process.pid) + 10
            resource.prlimit(engine.process.pid, resource.RLIMIT_NOFILE, (few, hard))
            for _ in range(30):
                stack.enter_context(socket.create_connection(("127.0.0.1", engine.port)))
            wait_until(lambda: descriptors(engine.process.pid) >= few - 1)
            neighbour.trips.clear()
            time.sleep(3)
            worst = max(neighbour.trips)
            assert descriptors(engine.process.pid) <= few
            stack.close()
            began = time.monotonic()
            newcomer, worker = Client(engine), Worker(engine)
            newcomer.request([1])
            worker.answer(worker.batch())
            assert len(newcomer.responses(1)) == 1
            recovered = time.monotonic() - began
            for peer in (newcomer, worker):
                peer.close()
        wait_until(lambda: descriptors(engine.process.pid) <= idle)
        assert_settled(engine)
    finally:
        errors = engine.stop()
    assert engine.process.returncode == 0
    lines = errors.count("\n")
    entries = len(re.findall(r"^\d{4}-\d\d-\d\d ", errors, re.MULTILINE))
    figure(
        "F-32",
        "I5 I6",
        f"recovered after {recovered:.2f} s; {lines} log lines in {entries} entries for 3 s of it; "
        f"neighbour's RTT max {worst * 1000:.0f} ms",
        "<= 10 lines",
    )
    assert lines <= 10, errors
    assert worst < 0.5
    assert recovered < 2


def resident(pid: int) -> int:
    """Bytes of memory that a process has now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_f33_load_beyond_the_budget_is_refused_before_memory_runs_out(
    tmp_path: Path, figure: Figures
) -> None:
    """640 MB of jobs for nobody, a budget of 64 MB, and a control group that kills at 192 MB."""
    budget = 64 << 20
    with running_engine(tmp_path, ORB_MAX_OPEN_BYTES=str(budget), ORB_MAX_QUEUED_JOBS="100000") as engine:
        client = Client(engine)
        client.request([0], "nobody")
        wait_until(lambda: engine.metrics()["orb_jobs_accepted_total"] == 1)
        before = resident(engine.process.pid)
        limit = before + 2 * budget + (64 << 20)
        outputs: dict[str, int] = {}

        def flood() -> None:
            for first in range(0, 6400, 100):
                client.request(range(first + 1, first + 101), "nobody", text="x" * 100_000)
                with suppress(TimeoutError):
                    while True:
                        kind = client.receive(within=0.001)["output"]["error_kind"]
                        outputs[kind] = outputs.get(kind, 0) + 1

        with memory_limit(engine.process.pid, limit) as group:
            grown = engine.peak_memory(flood)
            wait_until(
                lambda: sum(value for name, value in engine.metrics().items() if "refused" in name) > 5000
            )
            killed = "oom_kill 0" not in (group / "memory.oom_control").read_text()
        counts = engine.metrics()
        accepted = counts["orb_jobs_accepted_total"]
        figure(
            "F-33",
            "I3 I10",
            f"peak +{grown >> 20} MiB for {accepted:.0f} accepted of 6401 jobs of 0.1 MB, budget 64 MiB; "
            f"{'killed' if killed else 'not killed'}",
            f"+{(limit - before) >> 20} MiB",
        )
        assert not killed
        assert set(outputs) <= {"queue_full"}
        client.close()
        assert_settled(engine)

"""Links that are down, lossy, narrow, slow, or deliver strangely: F-09 to F-16.

F-09 to F-13 run in a network of their own, which this test's thread and the engine share. While its loopback
is down nobody can ask the engine anything, so its verdict shows in its open descriptors.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import cbor2
import pytest

from tests.faults.machine import descriptors, own_network, run, traffic_lost
from tests.faults.peers import assert_settled, healthy, percentile, through, throughput, workers_of
from tests.faults.proxy import ChaosProxy, jitter
from tests.processes.harness import (
    Client,
    Worker,
    ended,
    masked_frame,
    running_engine,
    stock_worker,
    wait_until,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.report import Figures

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


def test_f09_a_half_open_link_is_given_up_while_the_engine_sends_on_it(
    tmp_path: Path, figure: Figures
) -> None:
    """What it sends fits into the kernel's buffer: only the kernel knows that nobody acknowledges it.

    It has the write and the ping timeout together; pings themselves are far off.
    """
    with (
        own_network(),
        running_engine(
            tmp_path, ORB_WRITE_TIMEOUT="2", ORB_PING_TIMEOUT="2", ORB_PING_INTERVAL="600"
        ) as engine,
    ):
        worker, client = Worker(engine), Client(engine)
        wait_until(lambda: workers_of(engine) == 1)
        port = worker.websocket.socket.getsockname()[1]
        # Nothing that the worker's end sends arrives, its acknowledgements included.
        with healthy(engine) as neighbour, traffic_lost(f"tcp sport {port} drop"):
            client.request(range(8))
            cut_off = time.monotonic()
            wait_until(lambda: workers_of(engine) == 0, within=20)
            found = time.monotonic() - cut_off
        with contextlib.suppress(Exception):
            worker.close()
        heir = Worker(engine)
        heir.answer(heir.batch())
        assert len(client.responses(8)) == 8
        assert_settled(engine)
        worst = max(neighbour.trips)
        figure(
            "F-09",
            "I1 I6",
            f"given up after {found:.2f} s at TCP_USER_TIMEOUT 4 s; healthy RTT max {worst * 1000:.0f} ms",
            "4.28 s",
        )
        assert found < 8
        for peer in (client, heir):
            peer.close()


def test_f10_an_idle_half_open_link_is_given_up_for_its_silence(tmp_path: Path, figure: Figures) -> None:
    with (
        own_network(),
        running_engine(tmp_path, ORB_PING_INTERVAL="1", ORB_PING_TIMEOUT="2") as engine,
    ):
        before = descriptors(engine.process.pid)
        worker = Worker(engine)
        wait_until(lambda: workers_of(engine) == 1)
        time.sleep(0.5)
        assert descriptors(engine.process.pid) > before
        run("ip", "link", "set", "lo", "down")
        down = time.monotonic()
        try:
            wait_until(lambda: descriptors(engine.process.pid) <= before, within=20)
            found = time.monotonic() - down
        finally:
            run("ip", "link", "set", "lo", "up")
        wait_until(lambda: workers_of(engine) == 0)
        with contextlib.suppress(Exception):
            worker.close()
        figure("F-10", "I5", f"given up after {found:.2f} s at ping 1 s, timeout 2 s", "3.38 s")
        assert found < 5


def test_f11_a_link_that_is_down_for_three_seconds_costs_nothing(tmp_path: Path, figure: Figures) -> None:
    """With the default timeouts, batches in hand and more of them on their way."""
    with own_network(), running_engine(tmp_path) as engine, ended(stock_worker(engine, DELAY_MS="20")):
        client = Client(engine)
        for start in range(0, 2000, 20):
            client.request(range(start, start + 20))
        wait_until(lambda: engine.metrics()["orb_jobs_answered_total"] > 100)
        run("ip", "link", "set", "lo", "down")
        time.sleep(3)
        run("ip", "link", "set", "lo", "up")
        answered = engine.metrics()["orb_jobs_answered_total"]
        resumed = wait_until(lambda: engine.metrics()["orb_jobs_answered_total"] > answered)
        assert len(client.responses(2000)) == 2000
        counts = assert_settled(engine)
        again, lost = counts["orb_jobs_redelivered_total"], counts["orb_connections_lost_total"]
        figure(
            "F-11",
            "I1 I3",
            f"{again:.0f} redeliveries, {lost:.0f} links lost; goes on {resumed:.2f} s after the link",
            "0",
        )
        assert again == lost == 0
        client.close()


def test_f12_a_tenth_of_all_packets_lost_both_ways_costs_time_only(tmp_path: Path, figure: Figures) -> None:
    """For 15 s instead of a minute."""
    with own_network(), running_engine(tmp_path) as engine, ended(stock_worker(engine)):
        client = Client(engine)
        _, whole = throughput(client, 3)
        with traffic_lost(f"tcp dport {engine.port} numgen random mod 100 < 10 drop"):
            run("nft", f"add rule ip faults input tcp sport {engine.port} numgen random mod 100 < 10 drop")
            answered, lossy = throughput(client, 15)
        counts = assert_settled(engine)
        again = counts["orb_jobs_redelivered_total"]
        assert not any(name.startswith("orb_jobs_ended") for name in counts)
        figure(
            "F-12",
            "I1 I9",
            f"throughput {lossy / whole:.0%} ({lossy:.0f} of {whole:.0f}/s), {answered} jobs, "
            f"{again:.0f} redeliveries",
        )
        client.close()


def test_f13_a_megabit_with_a_long_queue_costs_time_only(tmp_path: Path, figure: Figures) -> None:
    """Everything of the engine and its peers shares the line, so there is no peer that it does not touch."""
    with own_network(), running_engine(tmp_path) as engine, ended(stock_worker(engine)):
        client = Client(engine)
        _, wide = throughput(client, 3)
        run("ip", "link", "set", "lo", "mtu", "1500")
        line = ("tbf", "rate", "1mbit", "burst", "16kb", "latency", "400ms")
        run("tc", "qdisc", "add", "dev", "lo", "root", *line)
        try:
            answered, narrow = throughput(client, 10)
        finally:
            run("tc", "qdisc", "del", "dev", "lo", "root")
        again = assert_settled(engine)["orb_jobs_redelivered_total"]
        figure(
            "F-13",
            "I1",
            f"throughput {narrow / wide:.0%} ({narrow:.0f} of {wide:.0f}/s), {answered} jobs, "
            f"{again:.0f} redeliveries",
        )
        assert again == 0
        client.close()


def test_f14_latency_of_a_fifth_of_a_second_with_jitter(tmp_path: Path, figure: Figures) -> None:
    """Each peer on a proxy with delays of its own, so what one sends first may arrive after another's."""
    trips: list[float] = []
    with running_engine(tmp_path) as engine, contextlib.ExitStack() as stack:
        for number in range(2):
            proxy = stack.enter_context(ChaosProxy(engine.port, delay=jitter(0.2, 0.1, number)))
            stack.enter_context(ended(stock_worker(through(proxy.url))))

        def ask(number: int) -> None:
            with ChaosProxy(engine.port, delay=jitter(0.2, 0.1, 100 + number)) as proxy:
                client = Client(through(proxy.url))
                for job in range(8):
                    start = time.monotonic()
                    client.request([job])
                    assert client.responses(1)[f"job-{job}"]["echo"] == {"n": job}
                    trips.append(time.monotonic() - start)
                client.close()

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(40)
        assert assert_settled(engine)["orb_jobs_redelivered_total"] == 0
    assert len(trips) == 96
    p99 = percentile(trips, 99)
    # Four hops of 0.1 to 0.3 s, and 50 ms for the batch.
    figure("F-14", "I1", f"p50 {percentile(trips, 50):.2f} s, p99 {p99:.2f} s over four hops", "<= 1.5 s")
    assert p99 <= 1.5


def test_f15_a_byte_at_a_time_is_bearable(tmp_path: Path, figure: Figures) -> None:
    size = 200_000
    with running_engine(tmp_path) as engine, ChaosProxy(engine.port, crumbs=True) as proxy:
        worker, client = Worker(engine), Client(through(proxy.url))
        wait_until(lambda: workers_of(engine) == 1)
        before = engine.cpu_seconds()
        client.request([1], text="x" * size)
        worker.answer(worker.batch(within=30))
        assert len(client.responses(1)["job-1"]["echo"]["text"]) == size
        used = engine.cpu_seconds() - before
        assert_settled(engine)
        figure("F-15", "I1", f"{used / size * 1e6:.1f} CPU-s per MB each way", "<= 20")
        assert used / size * 1e6 <= 20
        for peer in (client, worker):
            peer.close()


def test_f16_a_thousand_frames_at_once_hold_nobody_up(tmp_path: Path, figure: Figures) -> None:
    frames = b"".join(
        masked_frame(
            cbor2.dumps(
                {
                    "type": "worker_request",
                    "jobs": [{"job_id": f"job-{number}", "worker_type": "echo", "input": {"n": number}}],
                }
            )
        )
        for number in range(1000)
    )
    with (
        running_engine(tmp_path) as engine,
        ChaosProxy(engine.port) as proxy,
        ended(stock_worker(engine)),
        healthy(engine) as neighbour,
    ):
        client = Client(through(proxy.url))
        time.sleep(1)
        usual = max(neighbour.trips)
        neighbour.trips.clear()
        proxy.holding.set()
        client.websocket.socket.sendall(frames)
        time.sleep(0.3)
        proxy.holding.clear()
        outputs = client.responses(1000)
        assert {output["echo"]["n"] for output in outputs.values()} == set(range(1000))
        time.sleep(0.2)
        worst = max(neighbour.trips)
        client.close()
    figure(
        "F-16",
        "I1 I6",
        f"neighbour's RTT max {worst * 1000:.0f} ms, {usual * 1000:.0f} ms before; {len(frames)} bytes",
        "< 500 ms",
    )
    assert worst < 0.5

"""Peers that do not read, come in herds, and vanish all at once: F-19, F-22, F-23."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import cbor2
import pytest

from tests.faults.machine import descriptors
from tests.faults.peers import assert_settled, healthy, percentile, throughput, workers_of
from tests.faults.proxy import reset
from tests.processes.harness import (
    SECRET,
    Client,
    ended,
    masked_frame,
    read_line,
    running_engine,
    stock_worker,
    wait_until,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.report import Figures

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
INTRODUCTION = masked_frame(cbor2.dumps({"type": "i_am_server", "version": "1.0.1"}))


def test_f19_a_client_that_reads_nothing_takes_little_from_the_workers(
    tmp_path: Path, figure: Figures
) -> None:
    """Both use the same worker, whose answers to the deaf client are kept until it is cut."""
    with running_engine(tmp_path, ORB_WRITE_TIMEOUT="5") as engine, ended(stock_worker(engine)):
        client = Client(engine)
        throughput(client, 1)
        _, usual = throughput(client, 2)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", engine.port))
            sock.sendall(UPGRADE + INTRODUCTION)
            for first in range(0, 1000, 20):
                jobs = [
                    {"job_id": f"deaf-{number}", "worker_type": "echo", "input": {"t": "x" * 20_000}}
                    for number in range(first, first + 20)
                ]
                sock.sendall(masked_frame(cbor2.dumps({"type": "worker_request", "jobs": jobs})))
            began = time.monotonic()
            # All its jobs are answered, and 20 MB wait for it.
            wait_until(lambda: engine.metrics()["orb_open_jobs"] == 0)
            _, beside = throughput(client, 2)
            assert engine.metrics()["orb_clients"] == 2, "cut too early for the figure"
            wait_until(lambda: engine.metrics()["orb_clients"] == 1)
            cut = time.monotonic() - began
        assert_settled(engine)
        figure(
            "F-19",
            "I1 I6",
            f"worker's throughput {beside / usual - 1:+.0%} ({beside:.0f} of {usual:.0f}/s); "
            f"cut after {cut:.1f} s at a write timeout of 5 s",
            ">= -50%",
        )
        assert beside > usual / 2
        client.close()


def test_f22_a_herd_of_a_thousand_workers_is_let_in(tmp_path: Path, figure: Figures) -> None:
    with running_engine(
        tmp_path, ORB_MAX_UNREGISTERED="2000", ORB_MAX_UNREGISTERED_PER_ADDRESS="2000"
    ) as engine:
        with healthy(engine) as neighbour:
            time.sleep(1)
            usual = percentile(neighbour.trips, 99)
            idle = descriptors(engine.process.pid)
            neighbour.trips.clear()
            began = time.monotonic()
            swarms = [
                subprocess.Popen(
                    [sys.executable, "-m", "tests.stock.stock_swarm", engine.url, "echo", "500"],
                    env={**os.environ, "WORKER_SECRET": SECRET},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
                for _ in range(2)
            ]
            with ended(*swarms):
                for swarm in swarms:
                    assert read_line(swarm, 60).strip() == "READY"
                wait_until(lambda: workers_of(engine) == 1000)
                took = time.monotonic() - began
                worst = percentile(neighbour.trips, 99)
            wait_until(lambda: workers_of(engine) == 0, within=20)
            wait_until(lambda: descriptors(engine.process.pid) <= idle + 1)
        assert_settled(engine)
        figure(
            "F-22",
            "I5 I6",
            f"{1000 / took:.0f} connects/s, their programs' start included; healthy p99 "
            f"{worst * 1000:.0f} ms, {usual * 1000:.1f} ms alone",
            "< 3 s",
        )
        assert worst < 3


def test_f23_a_thousand_resets_at_once(tmp_path: Path, figure: Figures) -> None:
    with running_engine(tmp_path) as engine, contextlib.ExitStack() as stack:
        idle = descriptors(engine.process.pid)
        peers = []
        for _ in range(1000):
            sock = socket.create_connection(("127.0.0.1", engine.port))
            stack.callback(sock.close)
            sock.sendall(UPGRADE + INTRODUCTION)
            peers.append(sock)
            if len(peers) % 100 == 0:
                wait_until(lambda: engine.metrics()["orb_clients"] == len(peers))
        with healthy(engine) as neighbour:
            time.sleep(1)
            usual = max(neighbour.trips)
            neighbour.trips.clear()
            began = time.monotonic()
            for sock in peers:
                reset(sock)
            gone = time.monotonic() - began
            wait_until(lambda: engine.metrics()["orb_clients"] == 1)
            took = time.monotonic() - began
            time.sleep(0.3)
            worst = max(neighbour.trips)
        wait_until(lambda: descriptors(engine.process.pid) <= idle + 1)
        assert_settled(engine)
        figure(
            "F-23",
            "I5 I6",
            f"healthy RTT max {worst * 1000:.0f} ms, {usual * 1000:.0f} ms before; all noticed "
            f"{took:.2f} s after the first of {gone:.2f} s of resets",
            "<= 1.2 s",
        )
        assert worst <= 1.2

"""The engine killed, starved, held up, misled by the clock, mute, or without its place.

F-24, F-34 to F-36, F-41, F-42, F-46 to F-48.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.machine import busy_processors, own_network, run, stop_process
from tests.faults.peers import (
    ask,
    assert_settled,
    embedded_engine,
    healthy,
    own_worker,
    percentile,
    through,
    workers_of,
)
from tests.processes.harness import (
    SECRET,
    Client,
    EngineProcess,
    Worker,
    ended,
    read_line,
    running_engine,
    stock_worker,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.report import Figures

pytestmark = [pytest.mark.processes, pytest.mark.timeout(90)]


def request_with_file(client: Client, name: str, size: int = 1000, worker_type: str = "echo") -> None:
    """One job with one image."""
    reference = {"__type": "resource-ref", "id": "r"}
    job = {"job_id": name, "worker_type": worker_type, "input": {"filepath": reference}}
    resource = {"id": "r", "type": "image", "data": os.urandom(size)}
    client.send({"type": "worker_request", "resources": [resource], "jobs": [job]})


@pytest.mark.parametrize("whose", ["stock", "own"])
def test_f24_a_killed_engine_leaves_nothing_to_its_successor(
    tmp_path: Path, figure: Figures, whose: str
) -> None:
    """Its files are swept, and its workers come back by themselves."""
    first = EngineProcess(tmp_path)
    worker = (
        stock_worker(first, DELAY_MS="0", RECONNECT_S="0.5") if whose == "stock" else own_worker(first.url)
    )
    with ended(worker, first.process):
        wait_until(lambda: workers_of(first) == 1)
        client = Client(first)
        for number in range(20):
            request_with_file(client, f"job-{number}", worker_type="nobody")
        wait_until(lambda: len(first.files_on_disk()) == 20)
        first.process.kill()
        first.process.wait()
        killed = time.monotonic()
        assert len(first.files_on_disk()) == 20
        with running_engine(tmp_path, SERVER_PORT=str(first.port)) as engine:
            started = time.monotonic()
            left = len(engine.files_on_disk())
            again = Client(engine)
            again.request([1])
            assert again.responses(1)["job-1"]["echo"] == {"n": 1}
            served = time.monotonic()
            assert_settled(engine)
            again.close()
        figure(
            "F-24",
            "I4 I10",
            f"{whose} worker: {left} of 20 files left; first batch {served - started:.2f} s after restart, "
            f"{served - killed:.2f} s after the kill",
            "0 files",
        )
        assert left == 0
        with contextlib.suppress(Exception):
            client.close()


def test_f34_a_starved_engine_takes_no_worker_for_dead(tmp_path: Path, figure: Figures) -> None:
    """It gets what two busy loops leave, which is next to nothing, and has to answer for its pings itself."""
    with running_engine(tmp_path, ORB_PING_INTERVAL="1", ORB_PING_TIMEOUT="1") as engine:
        workers = [Worker(engine) for _ in range(20)]
        client = Client(engine)
        wait_until(lambda: workers_of(engine) == 20)
        with busy_processors() as loops:
            try:
                for task in os.listdir(f"/proc/{engine.process.pid}/task"):
                    os.sched_setscheduler(int(task), os.SCHED_IDLE, os.sched_param(0))
            except PermissionError as error:
                pytest.skip(f"SCHED_IDLE: {error}")
            before = engine.cpu_seconds()
            time.sleep(15)
            got = (engine.cpu_seconds() - before) / 15
            for task in os.listdir(f"/proc/{engine.process.pid}/task"):
                os.sched_setscheduler(int(task), os.SCHED_OTHER, os.sched_param(0))
        time.sleep(2.5)
        false_deaths = 20 - workers_of(engine)
        lost = engine.metrics()["orb_connections_lost_total"]
        figure(
            "F-34",
            "I1",
            f"{false_deaths} of 20 workers falsely cut in 15 s beside {loops} loops, at {got:.1%} CPU",
            "0",
        )
        assert false_deaths == lost == 0
        for peer in (client, *workers):
            peer.close()


def logged(engine: EngineProcess) -> float:
    """When the engine, by its own clock, logs that a peer went."""
    assert engine.process.stderr is not None
    pipe = engine.process.stderr.fileno()
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while os.read(pipe, 1 << 16):
            pass
    os.set_blocking(pipe, True)
    Client(engine).close()
    line = os.read(pipe, 1 << 16).decode()
    return datetime.datetime.fromisoformat(f"{line[:19]}+00:00").timestamp()


def test_f35_jumps_of_the_wall_clock_move_no_deadline(tmp_path: Path, figure: Figures) -> None:
    """An hour forward, two back, by libfaketime, while jobs wait for a batch or for their timeout."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed (Debian: faketime)")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    with running_engine(
        tmp_path,
        LD_PRELOAD=str(library),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
        DONT_FAKE_MONOTONIC="1",
        ORB_JOB_TIMEOUT="3",
        ORB_PING_INTERVAL="1",
        ORB_PING_TIMEOUT="1",
        LOG_LEVEL="debug",
        TZ="UTC",
    ) as engine:
        worker, client = Worker(engine, latency=500), Client(engine)
        errors: list[float] = []
        for offset in ("+3600", "-3600", "+0"):
            asked = time.monotonic()
            client.request([1], "nobody")
            client.request([2])
            time.sleep(0.2)
            clock.write_text(offset)
            batch = worker.batch()
            errors.append(time.monotonic() - asked - 0.5)
            worker.answer(batch)
            assert "echo" in client.responses(1)["job-2"]
            assert client.responses(1)["job-1"]["error_kind"] == "timeout"
            errors.append(time.monotonic() - asked - 3)
            assert abs(logged(engine) - time.time() - int(offset)) < 60, "the clock did not jump"
        # Under libfaketime a busy machine accepts requests up to 2 s late; a clock that jumps costs an hour.
        wrong = [error for error in errors if not -0.01 < error < 5]
        assert engine.metrics()["orb_connections_lost_total"] == 0
        with socket.create_connection(("127.0.0.1", engine.port)) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 200")
        assert_settled(engine)
        figure(
            "F-35",
            "I9",
            f"{len(wrong)} of {len(errors)} timers early, or late by 5 s; "
            f"{min(errors) * 1000:+.0f} to {max(errors) * 1000:+.0f} ms",
            "0",
        )
        assert wrong == [], errors
        for peer in (client, worker):
            peer.close()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program with an engine inside and quick pings."""
    process = embedded_engine(
        str(tmp_path), ORB_PING_INTERVAL="1", ORB_PING_TIMEOUT="2", ORB_WRITE_TIMEOUT="2"
    )
    with ended(process):
        yield process


def test_f36_a_loop_held_up_by_other_code_takes_nobody_for_dead(
    embedded: subprocess.Popen[str], figure: Figures
) -> None:
    url = f"ws://127.0.0.1:{ask(embedded)}/ws"
    swarm = subprocess.Popen(
        [sys.executable, "-m", "tests.stock.stock_swarm", url, "echo", "50"],
        env={**os.environ, "WORKER_SECRET": SECRET},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with ended(swarm):
        assert read_line(swarm).strip() == "READY"
        client = Client(through(url))
        client.request(range(200))
        assert len(client.responses(200)) == 200
        # Pings are on their way when the standstill begins, and answered in its course.
        time.sleep(0.2)
        stop_process(swarm.pid)
        time.sleep(1.2)
        client.request(range(200, 400))
        assert embedded.stdin is not None
        embedded.stdin.write("block 5\n")
        embedded.stdin.flush()
        client.request(range(400, 600))
        began = time.monotonic()
        time.sleep(1)
        swarm.send_signal(signal.SIGCONT)
        assert len(client.responses(400)) == 400
        assert read_line(embedded).strip() == "awake"
        took = time.monotonic() - began
        time.sleep(3)  # long enough for all pings and their timeouts
        workers, lost, again = map(int, ask(embedded, "statistics").split())
        client.close()
    figure(
        "F-36",
        "I1",
        f"{50 - workers} of 50 workers cut after 5 s of standstill, {lost} links lost, {again} redeliveries; "
        f"400 jobs answered within {took:.1f} s",
        "0",
    )
    assert (workers, lost, again) == (50, 0, 0)


def test_f47_a_child_of_the_program_inherits_no_socket_and_no_file(
    embedded: subprocess.Popen[str], figure: Figures
) -> None:
    """The child, started with every inheritable descriptor, outlives the engine, and its port is free."""
    port = int(ask(embedded))
    url = f"ws://127.0.0.1:{port}/ws"
    client, worker = Client(through(url)), Worker(through(url))
    client.request([1])
    batch = worker.batch()
    child = int(ask(embedded, "child"))
    try:
        inherited = [
            target
            for number in os.listdir(f"/proc/{child}/fd")
            if int(number) > 2
            and (target := os.readlink(f"/proc/{child}/fd/{number}")).startswith(("socket", "/"))
        ]
        figure("F-47", "I5", f"{len(inherited)} sockets or files of the engine in a child", "0")
        assert inherited == []
        worker.answer(batch)
        assert len(client.responses(1)) == 1
        embedded.kill()
        embedded.wait()
        with pytest.raises(Exception, match=r"close frame|1006"):
            client.receive()  # a socket kept open by the child would say nothing
        socket.create_server(("127.0.0.1", port)).close()
    finally:
        os.kill(child, signal.SIGKILL)
    for peer in (client, worker):
        with contextlib.suppress(Exception):
            peer.close()


def start_in_vain(data_home: Path, **environ: str) -> tuple[int, str, float]:
    """An engine that should refuse to start: exit status, standard error, seconds."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "orbtrio.engine"],
        env={
            **os.environ,
            "XDG_DATA_HOME": str(data_home),
            "SERVER_PORT": "0",
            "WORKER_SECRET": SECRET,
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.strip(), time.monotonic() - began


def test_f41_a_second_engine_on_the_same_store_refuses_to_start(tmp_path: Path, figure: Figures) -> None:
    with running_engine(tmp_path) as engine:
        client = Client(engine)
        request_with_file(client, "kept", worker_type="nobody")
        wait_until(lambda: len(engine.files_on_disk()) == 1)
        status, errors, seconds = start_in_vain(tmp_path)
        assert status == 1
        assert re.search(r"another engine uses .*XDG_DATA_HOME", errors)
        assert len(engine.files_on_disk()) == 1, "it swept the first one's files"
        figure("F-41", "I4 I10", f"exit status {status} after {seconds:.1f} s: {errors[:40]}…", "status 1")
        client.close()


def test_f42_a_place_that_cannot_be_had_is_a_clear_error(tmp_path: Path, figure: Figures) -> None:
    with running_engine(tmp_path / "first") as engine:
        taken = {"SERVER_HOST": "127.0.0.1", "SERVER_PORT": str(engine.port)}
        foreign = {"SERVER_HOST": "192.0.2.1", "ORB_INSECURE_NO_CLIENT_TOKEN": "true"}
        for what, where in (("port taken", taken), ("foreign address", foreign)):
            status, errors, _ = start_in_vain(tmp_path / "second", **where)
            figure(
                "F-42",
                "I10",
                f"{what}: exit status {status}, {errors.partition(': ')[2][-52:]!r}",
                "status 1",
            )
            assert status == 1
            assert "cannot listen at SERVER_HOST=" in errors


def test_f42_an_address_that_goes_and_returns_leaves_the_engine_where_it_was(
    tmp_path: Path, figure: Figures
) -> None:
    with own_network():
        run("ip", "address", "add", "10.99.0.1/32", "dev", "lo")
        with running_engine(tmp_path, SERVER_HOST="10.99.0.1", ORB_INSECURE_NO_CLIENT_TOKEN="true") as engine:
            url = f"ws://10.99.0.1:{engine.port}/ws"
            client, worker = Client(through(url)), Worker(through(url))
            run("ip", "address", "del", "10.99.0.1/32", "dev", "lo")
            with pytest.raises(OSError, match=r"unreachable|refused|timed out"):
                socket.create_connection(("10.99.0.1", engine.port), timeout=1)
            run("ip", "address", "add", "10.99.0.1/32", "dev", "lo")
            began = time.monotonic()
            newcomer = Client(through(url))
            for peer in (client, newcomer):
                peer.request([1])
                worker.answer(worker.batch())
                assert len(peer.responses(1)) == 1
            figure(
                "F-42", "I1", f"interface lost and back: serves again after {time.monotonic() - began:.2f} s"
            )
            for each in (client, worker, newcomer):
                each.close()


@pytest.mark.parametrize("listening", ["localhost", "127.0.0.1"])
def test_f46_peers_connect_although_localhost_is_an_ipv6_address_first(
    tmp_path: Path, figure: Figures, listening: str
) -> None:
    """Our worker, with a name that gives ::1 before 127.0.0.1, to an engine on both or on the second only."""
    names = tmp_path / "hosts"
    names.write_text("::1 both.test\n127.0.0.1 both.test\n")
    with running_engine(tmp_path, SERVER_HOST=listening, ORB_ALLOWED_HOSTS="both.test") as engine:
        url = f"ws://both.test:{engine.port}/ws"
        lookup = "import socket; print(socket.getaddrinfo('both.test', 1, type=socket.SOCK_STREAM)[0][4][0])"
        hosts = f"mount --bind {names} /etc/hosts && exec "
        script = f'{hosts} "$0" -c "{lookup}"'
        first = run("unshare", "-m", "sh", "-c", script, sys.executable).strip()
        if first != "::1":
            pytest.skip(f"the name resolves to {first} first")
        worker = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", f'{hosts} "$0" -m tests.faults.own_worker', sys.executable],
            env={**os.environ, "SERVER_URL": url, "WORKER_SECRET": SECRET, "LOG_LEVEL": "info"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with ended(worker):
            took = wait_until(lambda: workers_of(engine) == 1, within=15)
            families = {"::1": socket.AF_INET6, "127.0.0.1": socket.AF_INET}
            reached = []
            for address, family in families.items():
                with socket.socket(family) as sock:
                    if sock.connect_ex((address, engine.port)) == 0:
                        reached.append(address)
        wait_until(lambda: workers_of(engine) == 0)
    assert reached == (["::1", "127.0.0.1"] if listening == "localhost" else ["127.0.0.1"])
    figure(
        "F-46",
        "I10",
        f"engine at {listening} ({', '.join(reached)}): worker connected {took:.1f} s after its start",
    )


def test_f48_a_log_that_nobody_reads_holds_nothing_up(tmp_path: Path, figure: Figures) -> None:
    """Standard error is a pipe of one page that is full; every refused peer would add a line."""
    with running_engine(tmp_path, LOG_LEVEL="debug") as engine:
        assert engine.process.stderr is not None
        pipe = engine.process.stderr.fileno()
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
        with healthy(engine) as neighbour:
            began = time.monotonic()
            usual: float | None = None
            while time.monotonic() - began < 5:
                with socket.create_connection(("127.0.0.1", engine.port)) as sock:
                    sock.sendall(b"rubbish\r\n\r\n")
                    sock.recv(1000)
                if usual is None and time.monotonic() - began > 0.2:
                    usual = max(neighbour.trips)
                time.sleep(0.005)
            gathered = bytearray(4)
            fcntl.ioctl(pipe, 0x541B, gathered)  # FIONREAD
            unread = int.from_bytes(gathered, sys.byteorder)
            client, worker = Client(engine), Worker(engine, "late")
            client.request([1], "late")
            worker.answer(worker.batch())
            assert len(client.responses(1)) == 1
        assert unread > 3500, "the log was not full"
        worst = max(neighbour.trips)
        figure(
            "F-48",
            "I6 I10",
            f"with {unread} bytes unread: neighbour's RTT max {worst * 1000:.0f} ms, "
            f"p99 {percentile(neighbour.trips, 99) * 1000:.0f} ms",
            "< 500 ms",
        )
        assert worst < 0.5
        for peer in (client, worker):
            peer.close()

"""Faults of robustness.md, section 5, on real processes. Each prints the figure that its row asks for."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import cbor2
import pytest

from tests.processes.harness import (
    PATIENCE,
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

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


def test_f01_f02_sigkill_of_a_worker_that_holds_jobs_loses_and_doubles_none(tmp_path: Path) -> None:
    """A worker is killed while it holds at least 64 of 1,000 jobs: every job is answered once."""
    with running_engine(tmp_path) as engine, ended(steady := stock_worker(engine, DELAY_MS="20")):
        doomed = stock_worker(engine, DELAY_MS="100000")
        with ended(doomed):
            # Were it to answer already, a client that the machine holds up would find it idle time and again,
            # and the doomed one might get few.
            steady.send_signal(signal.SIGSTOP)
            client = Client(engine)
            for start in range(0, 1000, 50):
                client.request(range(start, start + 50))
            held = 'orb_worker_unanswered{type="echo",worker="echo-2"}'
            wait_until(lambda: engine.metrics().get(held, 0) >= 64)
            steady.send_signal(signal.SIGCONT)
            doomed.kill()
            killed = time.monotonic()
            outputs = client.responses(1000)
            print(f"all answered {time.monotonic() - killed:.2f} s after the kill")
            assert {output["echo"]["n"] for output in outputs.values()} == set(range(1000))
            counts = engine.metrics()
            assert counts["orb_jobs_answered_total"] == 1000
            assert counts["orb_jobs_redelivered_total"] >= 64
            client.close()


def test_f03_sigkill_of_a_worker_while_the_engine_is_blocked_sending_to_it(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        doomed = stock_worker(engine, MAX_BATCH_SIZE="8")
        with ended(doomed):
            doomed.send_signal(signal.SIGSTOP)
            client = Client(engine)
            for start in range(0, 400, 8):  # 24 MB: far more than the kernel takes for a stopped process
                client.request(range(start, start + 8), text="x" * 60_000)
            wait_until(lambda: engine.metrics().get("orb_jobs_accepted_total", 0) == 400)
            doomed.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            with ended(stock_worker(engine)):
                assert len(client.responses(400)) == 400
            print(f"moved on {time.monotonic() - killed:.2f} s after the kill")
            client.close()


def test_f04_worker_reset_in_the_middle_of_its_answer(tmp_path: Path) -> None:
    """Half a frame is no answer: the jobs are redelivered."""
    with running_engine(tmp_path) as engine:
        client, worker = Client(engine), Worker(engine)
        client.request(range(4))
        jobs = worker.batch()
        output = [{"id": job["id"], "echo": job["input"]} for job in jobs]
        frame = masked_frame(cbor2.dumps({"type": "worker_output", "output": output}))
        worker.websocket.socket.sendall(frame[: len(frame) // 2])
        time.sleep(0.1)
        assert engine.metrics()["orb_jobs_answered_total"] == 0
        worker.reset()
        heir = Worker(engine)
        again = heir.batch()
        assert [job["id"] for job in again] == [job["id"] for job in jobs]
        heir.answer(again)
        assert len(client.responses(4)) == 4
        # The answer above is given again for a moment.
        wait_until(lambda: engine.metrics()["orb_jobs_redelivered_total"] == 4)
        for peer in (client, heir):
            peer.close()


def test_f05_an_answer_counts_although_its_worker_dies_before_it_is_read(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        client, worker = Client(engine), Worker(engine)
        client.request(range(4))
        jobs = worker.batch()
        engine.process.send_signal(signal.SIGSTOP)
        worker.answer(jobs)
        worker.websocket.socket.shutdown(socket.SHUT_RDWR)
        engine.process.send_signal(signal.SIGCONT)
        assert len(client.responses(4)) == 4
        assert engine.metrics()["orb_jobs_redelivered_total"] == 0
        client.close()


def test_f06_f08_stopped_worker_is_found_by_pings_and_its_late_answer_is_dropped(tmp_path: Path) -> None:
    with running_engine(tmp_path, ORB_PING_INTERVAL="1", ORB_PING_TIMEOUT="5") as engine:
        # Stopped before it has answered, and the others, which are only slow on a busy machine, pong in time.
        stopped = stock_worker(engine, DELAY_MS="8000", RECONNECT_S="600")
        with ended(stopped):
            client = Client(engine)
            client.request(range(4))
            wait_until(
                lambda: engine.metrics().get('orb_worker_unanswered{type="echo",worker="echo-1"}') == 4
            )
            stopped.send_signal(signal.SIGSTOP)
            found = wait_until(lambda: engine.metrics()['orb_workers{type="echo"}'] == 0)
            print(f"found after {found:.2f} s; at most 6 s and a probe")
            assert found < 40
            with ended(stock_worker(engine)):
                assert len(client.responses(4)) == 4
                stopped.send_signal(signal.SIGCONT)
                time.sleep(2)
                counts = engine.metrics()
                assert counts["orb_jobs_answered_total"] == 4
                assert counts["orb_jobs_redelivered_total"] == 4
            client.close()


def test_f07_worker_stopped_while_the_engine_streams_to_it_is_cut_at_the_write_deadline(
    tmp_path: Path,
) -> None:
    with (
        running_engine(tmp_path, ORB_WRITE_TIMEOUT="4") as engine,
        ended(stock_worker(engine, WORKER_TYPE="well")),
    ):
        stopped = stock_worker(engine, MAX_BATCH_SIZE="8")
        with ended(stopped):
            stopped.send_signal(signal.SIGSTOP)
            client, other = Client(engine), Client(engine)
            start = time.monotonic()

            def flood() -> None:
                for first in range(0, 800, 8):
                    client.request(range(first, first + 8), text="x" * 60_000)

            growth = engine.peak_memory(flood)
            waits = []
            while engine.metrics()['orb_workers{type="echo"}']:
                before = time.monotonic()
                other.request([int(before * 1e6)], "well")
                other.responses(1)
                waits.append(time.monotonic() - before)
                assert time.monotonic() - start < 100
            print(f"cut after {time.monotonic() - start:.1f} s, memory +{growth >> 20} MiB")
            print(f"a neighbour's longest of {len(waits)} waits meanwhile {max(waits):.3f} s")
            # An engine that waits for the stopped one answers the neighbour once, when it has cut that one.
            assert len(waits) > 2
            with ended(stock_worker(engine)):
                assert len(client.responses(800)) == 800
            client.close()
            other.close()


def test_f18_sigkill_of_a_client_frees_its_files_and_disturbs_no_worker(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        # Only a full batch leaves: on a busy machine time alone would send it the queued jobs too.
        worker, client = Worker(engine, latency=200_000), Client(engine)
        reference = {"__type": "resource-ref", "id": "r"}
        jobs = [{"job_id": n, "worker_type": "echo", "input": {"filepath": reference}} for n in range(40)]
        resource = {"id": "r", "type": "image", "data": os.urandom(1000)}
        client.send({"type": "worker_request", "resources": [resource], "jobs": jobs})
        batch = worker.batch()
        assert len(engine.files_on_disk()) == 1
        client.reset()
        took = wait_until(lambda: not engine.files_on_disk())
        print(f"files gone {took * 1000:.0f} ms after the reset")
        worker.answer(batch)  # for nobody
        other = Client(engine)
        other.request(range(32))
        # Queued jobs of the lost client are cancelled: the next batch is the other's.
        batch = worker.batch()
        assert [job["input"] for job in batch] == [{"n": n} for n in range(32)]
        worker.answer(batch)
        assert len(other.responses(32)) == 32
        assert engine.metrics()["orb_open_jobs"] == 0
        for peer in (worker, other):
            peer.close()


def test_f19_client_that_does_not_read_is_cut_and_blocks_no_worker(tmp_path: Path) -> None:
    with (
        running_engine(tmp_path, ORB_WRITE_TIMEOUT="2", ORB_MAX_BUFFERED_BYTES=str(8 << 20)) as engine,
        ended(stock_worker(engine)),
    ):
        deaf, client = Client(engine), Client(engine)
        deaf.websocket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.websocket.recv_bufsize = 1

        def flood() -> None:
            try:
                for first in range(0, 2000, 20):
                    deaf.request(range(first, first + 20), text="x" * 20_000)
            except Exception:  # it is cut while it still sends
                return

        thread = threading.Thread(target=flood)
        thread.start()
        for number in range(100):
            client.request([number])
            client.responses(1)
        wait_until(lambda: engine.metrics()["orb_clients"] == 1)
        thread.join()
        client.close()


def test_f20_all_workers_gone_then_one_returns(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        client, worker = Client(engine), Worker(engine)
        client.request(range(100))
        worker.batch()
        worker.reset()
        time.sleep(1)
        with ended(stock_worker(engine)):
            assert len(client.responses(100)) == 100
        client.close()


def test_f21_flapping_worker_ends_in_worker_lost_not_in_a_livelock(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        client = Client(engine)
        client.request(range(8))
        deliveries: collections.Counter[str] = collections.Counter()
        before = engine.cpu_seconds()

        def all_lost() -> bool:
            return engine.metrics().get('orb_jobs_ended_total{kind="worker_lost"}', 0) == 8

        while not all_lost():
            worker = Worker(engine)
            while not all_lost():  # or the engine had not yet seen the last one go
                with contextlib.suppress(TimeoutError):
                    deliveries.update(str(job["input"]["n"]) for job in worker.batch(within=1))
                    break
            worker.reset()
        outputs = client.responses(8)
        print(f"deliveries {dict(deliveries)}, engine {engine.cpu_seconds() - before:.2f} CPU-s")
        assert {output["error_kind"] for output in outputs.values()} == {"worker_lost"}
        assert max(deliveries.values()) <= 3
        client.close()


@pytest.mark.parametrize("answered", [True, False])
def test_f26_sigterm_under_load_answers_every_job_one_way_or_the_other(
    tmp_path: Path, answered: bool
) -> None:
    grace = "100" if answered else "1"
    with running_engine(tmp_path, ends_itself=True, ORB_GRACE_PERIOD=grace) as engine:
        delay = "200" if answered else "100000"
        with ended(stock_worker(engine, DELAY_MS=delay, RECONNECT_S="600")):
            client = Client(engine)
            client.request(range(100))
            client.request(range(100, 110), "nobody")
            wait_until(lambda: engine.metrics().get("orb_jobs_accepted_total", 0) == 110)
            engine.process.send_signal(signal.SIGTERM)
            start = time.monotonic()
            outputs = client.responses(110)
            engine.process.wait(PATIENCE)
            kinds = collections.Counter(output.get("error_kind", "answered") for output in outputs.values())
            print(f"{dict(kinds)} in {time.monotonic() - start:.2f} s")
            assert kinds == ({"answered": 100, "engine_stopped": 10} if answered else {"engine_stopped": 110})
            with pytest.raises(Exception, match="1001"):
                client.receive()
            assert engine.files_on_disk() == []
            assert engine.process.returncode == 0


def test_f27_second_signal_ends_the_drain_at_once(tmp_path: Path) -> None:
    with (
        running_engine(tmp_path, ends_itself=True, ORB_GRACE_PERIOD="600") as engine,
        ended(stock_worker(engine, DELAY_MS="100000", RECONNECT_S="600")),
    ):
        client = Client(engine)
        client.request(range(10))
        wait_until(lambda: engine.metrics().get("orb_jobs_accepted_total", 0) == 10)
        engine.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert engine.process.poll() is None
        engine.process.send_signal(signal.SIGINT)
        second = time.monotonic()
        engine.process.wait(PATIENCE)
        print(f"ended {time.monotonic() - second:.2f} s after the second signal")
        assert engine.process.returncode == 0
        assert engine.files_on_disk() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system of its own")
def test_f28_full_disk_refuses_the_request_and_leaves_nothing_behind(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(tmp_path)], check=True)
    try:
        with running_engine(tmp_path) as engine, ended(stock_worker(engine)):
            client = Client(engine)
            reference = {"__type": "resource-ref", "id": "r"}
            job = {"job_id": "big", "worker_type": "echo", "input": {"filepath": reference}}
            resource = {"id": "r", "type": "image", "data": os.urandom(400_000)}
            client.send({"type": "worker_request", "resources": [resource], "jobs": [job]})
            before = time.monotonic()
            (output,) = client.responses(1).values()
            print(f"refused after {(time.monotonic() - before) * 1000:.0f} ms: {output}")
            assert output["error_kind"] == "queue_full"
            assert engine.files_on_disk() == []
            client.request(range(10))
            assert len(client.responses(10)) == 10
            client.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)

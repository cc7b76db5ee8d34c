"""Workers that die, stop, flap, leave and return: F-01 to F-05, F-08, F-20, F-21, F-44."""

from __future__ import annotations

import collections
import contextlib
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import cbor2
import pytest

from tests.faults.machine import processor_seconds, stop_process
from tests.faults.peers import assert_settled, own_worker, through, workers_of
from tests.faults.proxy import ChaosProxy, reset
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
    from tests.processes.harness import EngineProcess

pytestmark = [pytest.mark.processes, pytest.mark.timeout(60)]


def in_hand(engine: EngineProcess) -> float:
    """Jobs that workers have and have not answered."""
    return sum(value for name, value in engine.metrics().items() if name.startswith("orb_worker_unanswered{"))


def inherit(heir: Worker, count: int, since: float) -> tuple[list[float], collections.Counter[int]]:
    """Take jobs until `count` different ones have come; answer them.

    Returns:
        When each came, in milliseconds, and how often.
    """
    times: list[float] = []
    seen: collections.Counter[int] = collections.Counter()
    while len(seen) < count:
        batch = heir.batch()
        times += [(time.monotonic() - since) * 1000] * len(batch)
        seen.update(job["input"]["n"] for job in batch)
        heir.answer(batch)
    return times, seen


def test_f01_jobs_that_wait_for_a_killed_worker_are_in_anothers_batch_at_once(
    tmp_path: Path, figure: Figures
) -> None:
    """None has been sent to it, so all of them are delivered once."""
    with running_engine(tmp_path) as engine:
        doomed = stock_worker(engine, MAX_LATENCY_MS="60000", MAX_BATCH_SIZE="1000")
        with ended(doomed):
            client = Client(engine)
            client.request(range(200))
            wait_until(lambda: engine.metrics().get('orb_worker_queued{type="echo",worker="echo-1"}') == 200)
            heir = Worker(engine, latency=1)
            wait_until(lambda: workers_of(engine) == 2)
            killed = time.monotonic()
            doomed.kill()
            times, deliveries = inherit(heir, 200, killed)
        assert len(client.responses(200)) == 200
        assert set(deliveries.values()) == {1}
        counts = assert_settled(engine)
        assert counts["orb_jobs_redelivered_total"] == 0
        figure("F-01", "I1 I2", f"200 jobs in another's batch after {min(times):.0f} to {max(times):.0f} ms")
        for peer in (client, heir):
            peer.close()


def test_f02_jobs_in_the_hands_of_a_killed_worker_are_in_anothers_batch_at_once(
    tmp_path: Path, figure: Figures
) -> None:
    with running_engine(tmp_path) as engine:
        doomed = stock_worker(engine, DELAY_MS="100000")
        with ended(doomed):
            client = Client(engine)
            client.request(range(32))
            held = 'orb_worker_unanswered{type="echo",worker="echo-1"}'
            wait_until(lambda: engine.metrics().get(held) == 32)
            heir = Worker(engine, latency=1)
            wait_until(lambda: workers_of(engine) == 2)
            killed = time.monotonic()
            doomed.kill()
            times, deliveries = inherit(heir, 32, killed)
        outputs = client.responses(32)
        assert {output["echo"]["n"] for output in outputs.values()} == set(range(32))
        histogram = dict(collections.Counter(1 + count for count in deliveries.values()))
        assert histogram == {2: 32}
        assert assert_settled(engine)["orb_jobs_redelivered_total"] == 32
        figure(
            "F-02",
            "I1 I2 I8",
            f"32 jobs in another's batch after {min(times):.0f}-{max(times):.0f} ms; deliveries: {histogram}",
        )
        for peer in (client, heir):
            peer.close()


def test_f03_a_worker_killed_while_the_engine_is_blocked_sending_to_it_is_missed_at_once(
    tmp_path: Path, figure: Figures
) -> None:
    with running_engine(tmp_path) as engine:
        doomed = stock_worker(engine, MAX_BATCH_SIZE="8")
        with ended(doomed):
            stop_process(doomed.pid)
            client, heir = Client(engine), Worker(engine, latency=1)
            for start in range(0, 400, 8):
                client.request(range(start, start + 8), text="x" * 60_000)
            wait_until(lambda: engine.metrics().get("orb_jobs_accepted_total", 0) == 400)
            killed = time.monotonic()
            doomed.kill()
            wait_until(lambda: workers_of(engine) == 1)
            detected = time.monotonic() - killed
            inherit(heir, 400, killed)
        assert len(client.responses(400)) == 400
        assert_settled(engine)
        figure("F-03", "I1 I7", f"detected after {detected * 1000:.0f} ms")
        for peer in (client, heir):
            peer.close()


def test_f04_an_answer_cut_by_a_reset_is_no_answer(tmp_path: Path, figure: Figures) -> None:
    """At each eighth of its frame."""
    with running_engine(tmp_path) as engine:
        client = Client(engine)
        redeliveries = 0
        for part in range(8):
            worker = Worker(engine)
            client.request(range(4))
            jobs = worker.batch()
            output = [{"id": job["id"], "echo": job["input"]} for job in jobs]
            frame = masked_frame(cbor2.dumps({"type": "worker_output", "output": output}))
            worker.websocket.socket.sendall(frame[: len(frame) * part // 8 + 1])
            time.sleep(0.05)
            assert engine.metrics()["orb_jobs_answered_total"] == 4 * part
            worker.reset()
            heir = Worker(engine, latency=1)
            _, deliveries = inherit(heir, 4, time.monotonic())
            assert set(deliveries.values()) == {1}
            assert len(client.responses(4)) == 4
            redeliveries += 4
            heir.close()
        assert assert_settled(engine)["orb_jobs_redelivered_total"] == redeliveries
        figure("F-04", "I1", f"8 cuts, 0 results delivered of 32, {redeliveries} redeliveries", "32")
        client.close()


@pytest.mark.parametrize("how", ["killed", "shut down"])
def test_f05_an_answer_counts_although_its_worker_is_gone_before_it_is_read(
    tmp_path: Path, figure: Figures, how: str
) -> None:
    rounds = 5
    with running_engine(tmp_path) as engine:
        client = Client(engine)
        for _ in range(rounds):
            if how == "killed":
                process = stock_worker(engine, DELAY_MS="500")
                with ended(process):
                    client.request(range(4))
                    wait_until(lambda: in_hand(engine) == 4)
                    stop_process(engine.process.pid)
                    time.sleep(0.8)  # it answers
                    process.kill()
                    process.wait()
                    engine.process.send_signal(signal.SIGCONT)
                    assert len(client.responses(4)) == 4
            else:
                worker = Worker(engine)
                client.request(range(4))
                jobs = worker.batch()
                stop_process(engine.process.pid)
                worker.answer(jobs)
                worker.websocket.socket.shutdown(socket.SHUT_RDWR)
                engine.process.send_signal(signal.SIGCONT)
                assert len(client.responses(4)) == 4
            wait_until(lambda: workers_of(engine) == 0)
        again = assert_settled(engine)["orb_jobs_redelivered_total"]
        total = rounds * 4
        figure("F-05", "I1", f"{how}: {(total - again) / total:.0%} of {total} delivered once", "100%")
        assert again == 0
        client.close()


def test_f08_answers_of_a_worker_that_was_given_up_and_wakes_are_dropped(
    tmp_path: Path, figure: Figures
) -> None:
    """One is stopped, cut, and wakes; one is only slower than its jobs' deadline, so its answers arrive."""
    with running_engine(tmp_path, ORB_PING_INTERVAL="1", ORB_PING_TIMEOUT="1", ORB_JOB_TIMEOUT="4") as engine:
        stopped = stock_worker(engine, DELAY_MS="300", RECONNECT_S="600")
        slow = stock_worker(engine, WORKER_TYPE="slow", DELAY_MS="5000")
        with ended(stopped, slow):
            client = Client(engine)
            client.request(range(4))
            client.request(range(4, 8), "slow")
            wait_until(
                lambda: engine.metrics().get('orb_worker_unanswered{type="echo",worker="echo-1"}') == 4
            )
            stop_process(stopped.pid)
            with ended(stock_worker(engine)):
                wait_until(lambda: engine.metrics()["orb_jobs_redelivered_total"] == 4)
                outputs = client.responses(8)
                stopped.send_signal(signal.SIGCONT)
                wait_until(lambda: engine.metrics()["orb_outputs_dropped_total"] == 4)
                with pytest.raises(TimeoutError):
                    client.receive(within=1)
        kinds = collections.Counter(output.get("error_kind", "answered") for output in outputs.values())
        assert kinds == {"answered": 4, "timeout": 4}
        counts = assert_settled(engine)
        assert counts["orb_jobs_redelivered_total"] == 4
        late = counts["orb_outputs_dropped_total"]
        figure("F-08", "I1 I8", f"4 redelivered and answered once; {late:.0f} late answers dropped", "4")
        client.close()


def test_f20_jobs_wait_for_a_worker_until_their_deadline_and_no_longer(
    tmp_path: Path, figure: Figures
) -> None:
    """All workers are gone for 5 s instead of a minute, and a job has 4 s instead of five minutes."""
    with running_engine(tmp_path, ORB_JOB_TIMEOUT="4") as engine:
        client, worker = Client(engine), Worker(engine)
        began = time.monotonic()
        client.request(range(50))
        worker.batch()
        worker.reset()
        time.sleep(2.5)
        client.request(range(50, 100))
        expired = client.responses(50)
        ended_after = time.monotonic() - began
        assert {output["error_kind"] for output in expired.values()} == {"timeout"}
        time.sleep(max(0.0, 5 - (time.monotonic() - began)))
        with ended(own_worker(engine.url)):
            served = client.responses(50)
        assert {output["echo"]["n"] for output in served.values()} == set(range(50, 100))
        assert_settled(engine)
        assert 4 <= ended_after < 4.5
        figure(
            "F-20",
            "I1 I9",
            f"50 expired at {ended_after:.2f} s, 50 served by the worker that returned",
            "4.0 s (+0.5)",
        )
        client.close()


def test_f21_a_flapping_worker_costs_its_jobs_no_life_while_another_is_healthy(
    tmp_path: Path, figure: Figures
) -> None:
    """It comes, takes a batch and resets each 100 ms, for 10 s instead of a minute."""
    deliveries: collections.Counter[int] = collections.Counter()
    stop = threading.Event()
    with running_engine(tmp_path) as engine:
        client, steady = Client(engine), Worker(engine, latency=5)

        def flap() -> None:
            while not stop.is_set():
                worker = Worker(engine, latency=5)
                with contextlib.suppress(TimeoutError):
                    deliveries.update(job["input"]["n"] for job in worker.batch(within=0.1))
                time.sleep(0.02)
                worker.reset()

        def work() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    batch = steady.batch(within=0.2)
                    deliveries.update(job["input"]["n"] for job in batch)
                    steady.answer(batch)

        threads = [threading.Thread(target=flap), threading.Thread(target=work)]
        began, before = time.monotonic(), processor_seconds(engine.process.pid)
        for thread in threads:
            thread.start()
        sent = 0
        outputs: dict[str, dict[str, Any]] = {}
        try:
            while time.monotonic() - began < 10:
                client.request(range(sent, sent + 20))
                sent += 20
                outputs |= client.responses(20)
        finally:
            load = (processor_seconds(engine.process.pid) - before) / (time.monotonic() - began)
            stop.set()
            for thread in threads:
                thread.join(10)
        counts = assert_settled(engine)
        errors = collections.Counter(output.get("error_kind", "answered") for output in outputs.values())
        histogram = dict(sorted(collections.Counter(deliveries.values()).items()))
        assert len(outputs) == sent
        assert max(histogram) <= 3
        assert set(errors) <= {"answered", "worker_lost"}
        figure(
            "F-21",
            "I1 I3",
            f"{sent} jobs {dict(errors)}, lost {counts['orb_connections_lost_total']:.0f} links; "
            f"deliveries: {histogram}; engine {load:.0%} CPU",
            "<= 3 deliveries",
        )
        for peer in (client, steady):
            peer.close()


def test_f44_a_replayed_worker_session_delivers_nothing_again(tmp_path: Path, figure: Figures) -> None:
    """Every byte that a worker sent, sent again: it registers and answers jobs that are not its own."""
    with running_engine(tmp_path) as engine, ChaosProxy(engine.port) as proxy:
        worker, client = Worker(through(proxy.url)), Client(engine)
        for first in range(0, 40, 10):
            client.request(range(first, first + 10))
            worker.answer(worker.batch())
        answered = client.responses(40)
        (session,) = proxy.recorded
        # One job is open while the session is replayed, in the hands of the worker that is replayed.
        client.request([99])
        (job,) = worker.batch()
        sock = socket.create_connection(("127.0.0.1", engine.port))
        sock.sendall(bytes(session))
        wait_until(lambda: engine.metrics()["orb_outputs_dropped_total"] == 40)
        with pytest.raises(TimeoutError):
            client.receive(within=0.5)
        reset(sock)
        worker.answer([job])
        assert client.responses(1)["job-99"]["echo"] == {"n": 99}
        counts = assert_settled(engine)
        assert counts["orb_jobs_answered_total"] == 41
        figure("F-44", "I8", f"{len(answered)} answers replayed, all dropped; 0 delivered again", "0")
        for peer in (client, worker):
            peer.close()

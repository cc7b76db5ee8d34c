"""Each promise about a message: kept, nothing happens; broken, it is named."""

from __future__ import annotations

import pytest

from orbtrio.protocol.messages import BatchJob
from orbtrio.testing._soak_books import JobHistory, SoakFailure
from tests.testing.test_soak_oracle import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


def lose(bench: Bench, worker: int) -> None:
    bench.oracle.doom(bench.workers[worker])


def submit_and_lose(bench: Bench, times: int) -> JobHistory:
    job = bench.submit()
    for worker in range(times):
        bench.deliver(worker, 1)
        lose(bench, worker)
    return job


def finds(text: str) -> pytest.RaisesExc[SoakFailure]:
    return pytest.raises(SoakFailure, match=text)


def test_two_sound_workers_never_have_the_same_job(bench: Bench) -> None:
    bench.submit()
    bench.deliver(0, 1)
    with finds("w1 gets it while w0 lives"):
        bench.deliver(1, 1)


def test_a_job_goes_on_from_a_lost_worker(bench: Bench) -> None:
    job = submit_and_lose(bench, 1)
    bench.deliver(1, 1)
    bench.send_answer(1, job)
    bench.hear(job)
    assert bench.oracle.log.counts["answered after redelivery"] == 1


def test_the_lost_worker_has_no_say_any_more(bench: Bench) -> None:
    job = bench.submit()
    bench.deliver(0, 1)
    bench.send_answer(0, job, b"late")
    lose(bench, 0)
    bench.deliver(1, 1)
    with finds("its answer is not what w1"):
        bench.hear(job, b"head late")


def test_a_fourth_delivery_is_found(bench: Bench) -> None:
    submit_and_lose(bench, 3)
    with finds("as the fourth"):
        bench.deliver(3, 1)


def test_a_suspect_goes_alone(bench: Bench) -> None:
    submit_and_lose(bench, 2)
    bench.submit(2)
    with finds("has neighbours"):
        bench.deliver(2, 1, 2)


def test_the_same_worker_gets_a_job_once(bench: Bench) -> None:
    submit_and_lose(bench, 1)
    with finds("gets it twice"):
        bench.deliver(0, 1)


def test_no_batch_is_empty_or_too_large(bench: Bench) -> None:
    for number in (1, 2, 3):
        bench.submit(number)
    with finds("gets 0 jobs"):
        bench.deliver(0)
    with finds("gets 3 jobs"):
        bench.deliver(0, 1, 2, 3)


def test_credit_is_kept(bench: Bench) -> None:
    bench.workers[0].credit = 1
    bench.submit(1)
    bench.submit(2)
    bench.deliver(0, 1)
    with finds("more than its credit"):
        bench.deliver(0, 2)


def test_types_are_not_mixed(bench: Bench) -> None:
    bench.submit()
    bench.workers[0].worker_type = "other"
    with finds("of type other gets it"):
        bench.deliver(0, 1)


def test_what_is_invalid_reaches_nobody(bench: Bench) -> None:
    job = bench.submit()
    job.refusal = "invalid_job"
    with finds("must refuse"):
        bench.deliver(0, 1)


def test_inputs_arrive_as_they_were(bench: Bench) -> None:
    bench.submit()
    with finds("gets another input"):
        bench.oracle.batch(bench.workers[0], [BatchJob("id", {"n": 1, "more": 2})])
    with finds("nobody has submitted"):
        bench.oracle.batch(bench.workers[0], [BatchJob("id", {"n": 99})])


def test_a_key_stays_with_its_worker_and_in_order(bench: Bench) -> None:
    for number in (1, 2, 3):
        bench.submit(number).key = "k"
    bench.deliver(0, 2)
    with finds("which belongs to w0"):
        bench.deliver(1, 3)
    with finds("has had job 2 of the same key"):
        bench.deliver(0, 1)


def test_latency_holds_where_nothing_happened(bench: Bench) -> None:
    for worker in bench.workers:
        worker.worker_type = "stock"
        bench.oracle.join(worker)
    bench.now = 1.0
    for number in (1, 2):
        bench.submit(number).worker_type = "stock"
    bench.now = 2.0
    bench.deliver(0, 1)
    bench.now = 2.5
    with finds("it waited 1.500000 s"):
        bench.deliver(0, 2)


def test_a_file_is_there_and_whole(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("store") / "file"
    bench.submit(resource="r1")
    bench.oracle.resources["r1"] = b"text"
    batch = [BatchJob("id-1", {"n": 1, "file": str(path)})]
    with finds("cannot read the job's file"):
        bench.oracle.batch(bench.workers[0], batch)
    path.write_bytes(b"tex")
    with finds("other bytes"):
        bench.oracle.batch(bench.workers[0], batch)


def test_nothing_is_sent_after_its_end(bench: Bench) -> None:
    job = bench.submit()
    bench.oracle.full_at["plain"] = bench.now
    bench.hear(job, kind="queue_full")
    bench.now = 1.0
    with finds("after its end"):
        bench.deliver(0, 1)


@pytest.mark.parametrize(
    "kind", ["timeout", "queue_full", "worker_lost", "result_too_large", "engine_stopped", "anything"]
)
def test_each_refusal_needs_a_reason(bench: Bench, kind: str) -> None:
    job = bench.submit()
    with finds(f"told {kind}, for which there is no reason"):
        bench.hear(job, kind=kind)


def test_a_poison_job_ends_with_its_third_worker(bench: Bench) -> None:
    job = submit_and_lose(bench, 3)
    job.fields["poison"] = True
    bench.hear(job, kind="worker_lost")
    assert bench.oracle.log.counts["poison job ended with worker_lost"] == 1


def test_what_must_be_refused_is(bench: Bench) -> None:
    job = bench.submit()
    job.refusal = "invalid_job"
    bench.hear(job, kind="invalid_job")
    with finds("a stock client is told"):
        bench.hear(bench.submit(2, bench.stock), kind="timeout")


def test_an_answer_from_nobody_is_found(bench: Bench) -> None:
    with finds("no worker has had it"):
        bench.hear(bench.submit())


def test_what_is_too_large_is_not_delivered(bench: Bench) -> None:
    job = bench.submit()
    bench.deliver(0, 1)
    bench.oracle.answering(bench.workers[0], job, b"entry", too_large=True)
    with finds("should have been refused"):
        bench.hear(job)

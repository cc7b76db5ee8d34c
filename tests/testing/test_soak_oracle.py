"""The oracle knows who owes what to whom, and until when."""

from __future__ import annotations

import pytest

from orbtrio.protocol.messages import BatchJob, WorkerResponse
from orbtrio.testing._soak_books import ClientBook, EventLog, JobHistory, SoakFailure, WorkerBook
from orbtrio.testing._soak_oracle import Oracle


class Bench:
    """An oracle with a clock, two clients and three workers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.oracle = Oracle(EventLog(), lambda: self.now)
        self.client = ClientBook("c1", 0.0, engine_errors=True)
        self.stock = ClientBook("c2", 0.0)
        self.workers = [
            WorkerBook(f"w{n}", 0.0, worker_type="plain", max_batch_size=2, max_latency=1.0) for n in range(4)
        ]
        for book in (self.client, self.stock, *self.workers):
            self.oracle.join(book)

    def submit(
        self, number: int = 1, client: ClientBook | None = None, resource: str | None = None
    ) -> JobHistory:
        job = JobHistory(
            number=number,
            client=client or self.client,
            client_job_id=f"j{number}",
            worker_type="plain",
            fields={"n": number},
            resource=resource,
            key=None,
            refusal="",
            submitted_at=self.now,
        )
        self.oracle.submitted([self.oracle.begin_job(job)])
        return job

    def deliver(self, worker: int, *numbers: int) -> None:
        self.oracle.batch(self.workers[worker], [BatchJob(f"id-{n}", {"n": n}) for n in numbers])

    def send_answer(self, worker: int, job: JobHistory, entry: bytes = b"entry") -> None:
        self.oracle.answering(self.workers[worker], job, entry)

    def hear(self, job: JobHistory, raw: bytes = b"head entry", kind: str = "") -> None:
        output = {"error_kind": kind} if kind else {}
        self.oracle.response(job.client, raw, WorkerResponse(job.client_job_id, output))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_answered_job_is_at_an_end(bench: Bench) -> None:
    job = bench.submit()
    bench.deliver(0, 1)
    bench.send_answer(0, job)
    bench.hear(job)
    assert job.end == "answer"
    assert bench.oracle.demand_progress(0) == []
    with pytest.raises(SoakFailure, match="answered before"):
        bench.hear(job)


def test_an_answer_for_somebody_else_is_found(bench: Bench) -> None:
    bench.submit()
    with pytest.raises(SoakFailure, match="somebody else's or nobody's"):
        bench.oracle.response(bench.stock, b"", WorkerResponse("j1", {}))


def test_silence_is_for_stock_clients(bench: Bench) -> None:
    told, silent = bench.submit(1), bench.submit(2, bench.stock)
    bench.now = 299.0
    bench.oracle.look()
    bench.now = 300.0
    bench.hear(told, kind="timeout")
    bench.now = 301.0
    bench.oracle.look()
    assert (told.end, silent.end) == ("timeout", "silence")
    bench.submit(3)
    bench.now = 602.0
    with pytest.raises(SoakFailure, match="the client has heard nothing"):
        bench.oracle.look()


def test_nothing_is_demanded_in_time_of_a_client_whose_link_is_in_doubt(bench: Bench) -> None:
    job = bench.submit()
    bench.oracle.suspect(bench.client)
    bench.now = 400.0
    bench.oracle.look()
    bench.oracle.trust(bench.client)
    bench.oracle.look()
    bench.hear(job, kind="timeout")


def test_what_comes_after_the_deadline_is_found(bench: Bench) -> None:
    job = bench.submit()
    bench.now = 301.0
    with pytest.raises(SoakFailure, match="after the deadline"):
        bench.hear(job, kind="timeout")


def test_a_sound_connection_must_not_be_dropped(bench: Bench) -> None:
    bench.oracle.doom(bench.workers[0])
    bench.oracle.gone(bench.workers[0], "broken")
    with pytest.raises(SoakFailure, match="which had done no wrong"):
        bench.oracle.gone(bench.workers[1], "broken")


def test_a_stopped_engine_owes_an_answer_for_what_it_had(bench: Bench) -> None:
    bench.submit()
    bench.now = bench.oracle.stopping_at = 10.0
    with pytest.raises(SoakFailure, match="the engine has stopped, and"):
        bench.oracle.gone(bench.client, "closed with 1001")


def test_a_lost_client_wants_nothing_any_more(bench: Bench) -> None:
    job = bench.submit(resource="r1")
    bench.oracle.doom(bench.client)
    bench.oracle.gone(bench.client, "broken")
    assert job.end == "abandoned"
    assert bench.oracle.log.counts["client lost with files"] == 1
    assert bench.oracle.demand_progress(0) == []


def test_progress_is_demanded_of_jobs_that_were_in_time_when_all_healed(bench: Bench) -> None:
    job, silent = bench.submit(1), bench.submit(2, bench.stock)
    bench.oracle.healed_at = bench.now = 100.0
    assert bench.oracle.demand_progress(50.0) == [job, silent]
    bench.now = 300.0
    bench.hear(job, kind="timeout")
    with pytest.raises(SoakFailure, match="although all was well"):
        bench.oracle.demand_progress(50.0)
    assert bench.oracle.demand_progress(250.0) == [silent]


def test_files_stay_as_long_as_jobs_and_a_second(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("store") / "r1-0.txt"
    path.write_bytes(b"text")
    job = bench.submit(resource="r1")
    bench.oracle.resources["r1"] = b"text"
    assert bench.oracle.files_wanted() == (set(), {"r1"})
    bench.oracle.batch(bench.workers[0], [BatchJob("id-1", {"n": 1, "file": str(path)})])
    assert bench.oracle.files_wanted() == ({"r1"}, {"r1"})
    bench.send_answer(0, job)
    bench.hear(job)
    assert bench.oracle.files_wanted() == (set(), {"r1"})
    bench.now = 2.0
    assert bench.oracle.files_wanted() == (set(), set())
    bench.oracle.forget()
    assert bench.oracle.jobs == {}

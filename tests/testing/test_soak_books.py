"""Logs are digested as they are written; books know who is sound."""

from __future__ import annotations

import io

from orbtrio.testing._soak_books import ClientBook, EventLog, JobHistory, WorkerBook


def test_the_digest_is_of_all_lines_in_their_order() -> None:
    file = io.StringIO()
    logs = [EventLog(file), EventLog(), EventLog()]
    for log, lines in zip(logs, (("a", "b"), ("a", "b"), ("b", "a")), strict=True):
        for text in lines:
            log.write(1.5, text)
    assert file.getvalue() == "1.500000 a\n1.500000 b\n"
    assert logs[0].lines == 2
    assert logs[0].digest == logs[1].digest != logs[2].digest


def test_a_connection_is_sound_until_something_is_done_to_it() -> None:
    for name in ("doomed", "suspect", "gone"):
        book = ClientBook("c1", 0.0)
        assert book.sound
        setattr(book, name, True)
        assert not book.sound


def make_job(number: int, submitted_at: float) -> JobHistory:
    return JobHistory(
        number=number,
        client=ClientBook("c1", 0.0),
        client_job_id=str(number),
        worker_type="stock",
        fields={"n": number},
        resource=None,
        key=None,
        refusal="",
        submitted_at=submitted_at,
    )


def test_a_batch_is_open_as_long_as_one_of_its_jobs_is_owed_and_due() -> None:
    worker = WorkerBook("w1", 0.0)
    worker.held = {1: (make_job(1, 0.0), 1), 2: (make_job(2, 10.0), 1), 3: (make_job(3, 0.0), 2)}
    assert worker.open_batches(100.0) == 2
    assert worker.open_batches(305.0) == 1


def test_a_story_has_everything_that_is_known() -> None:
    job = make_job(7, 2.0)
    assert "reached: nobody; end: none yet" in job.story()
    job.deliveries.append(WorkerBook("w3", 0.0))
    job.end = "answer"
    job.events.append("2.000000 c1 submits 7\n")
    story = job.story()
    assert story.startswith("job 7 of c1 for stock, sent at 2.000000\nreached: w3 (sound); end: answer\n")
    assert story.endswith("2.000000 c1 submits 7\n")

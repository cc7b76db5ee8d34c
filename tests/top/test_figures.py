from __future__ import annotations

import pytest

from orbtrio.top.figures import NoMetrics, Reading, compare, parse

TEXT = """\
# TYPE orb_clients gauge
orb_clients 3.0
# TYPE orb_jobs_accepted_total counter
orb_jobs_accepted_total {accepted}
orb_jobs_answered_total {answered}
orb_jobs_refused_total{{kind="queue_full"}} 4.0
orb_jobs_ended_total{{kind="timeout"}} 0.0
orb_queued_jobs{{type="echo"}} 9.0
orb_workers{{type="echo"}} 2.0
orb_worker_jobs_total{{worker="echo-10",type="echo"}} {answered}
orb_worker_jobs_total{{worker="echo-9",type="echo"}} 0.0
orb_worker_batches_total{{worker="echo-10",type="echo"}} {batches}
orb_worker_queued{{worker="echo-10",type="echo"}} 5.0
orb_worker_unanswered{{worker="echo-10",type="echo"}} 7.0
orb_worker_latency_seconds_count{{worker="echo-10",type="echo"}} {batches}
orb_worker_latency_seconds_sum{{worker="echo-10",type="echo"}} {seconds}
"""


def reading(at: float, *, accepted: int, answered: int, batches: int, seconds: float) -> Reading:
    return parse(TEXT.format(accepted=accepted, answered=answered, batches=batches, seconds=seconds), at)


def test_speeds_and_latency_are_those_between_two_readings() -> None:
    before = reading(10.0, accepted=100, answered=90, batches=9, seconds=4.5)
    now = reading(12.0, accepted=160, answered=150, batches=12, seconds=5.1)
    overview = compare(before, now)
    assert (overview.clients, overview.accepted, overview.answered) == (3, 30, 30)
    [row] = overview.types
    assert (row.name, row.workers, row.queued, row.in_hand) == ("echo", 2, 9, 7)
    assert (row.jobs, row.jobs_per_second, row.batches_per_second, row.batch_size) == (150, 30, 1.5, 20)
    assert row.latency == pytest.approx(0.2)
    idle, busy = overview.workers
    assert (idle.name, idle.jobs_per_second, idle.latency, idle.batch_size) == ("echo-9", 0, None, None)
    assert (busy.name, busy.queued, busy.jobs_per_second) == ("echo-10", 5, 30)


def test_one_reading_shows_means_since_the_start_and_no_speeds() -> None:
    overview = compare(None, reading(10.0, accepted=100, answered=90, batches=9, seconds=4.5))
    assert (overview.accepted, overview.types[0].jobs_per_second) == (None, None)
    assert overview.types[0].latency == 0.5


def test_an_engine_started_again_counts_from_zero() -> None:
    before = reading(10.0, accepted=1000, answered=900, batches=90, seconds=45)
    overview = compare(before, reading(11.0, accepted=8, answered=6, batches=2, seconds=0.5))
    assert (overview.accepted, overview.answered) == (8, 6)
    assert overview.types[0].latency == 0.25


def test_totals_name_what_went_wrong_and_leave_out_what_did_not() -> None:
    overview = compare(None, reading(10.0, accepted=0, answered=0, batches=0, seconds=0))
    assert overview.totals == {"answered": 0, "refused: queue_full": 4}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<!doctype html><p>Hello</p>", "shows no metrics"),
        ("python_info 1.0\n", "none of its metrics begins with orb_"),
        ("", "none of its metrics"),
    ],
)
def test_what_is_no_engine_is_told_apart(text: str, why: str) -> None:
    with pytest.raises(NoMetrics, match=why):
        parse(text, 0.0)

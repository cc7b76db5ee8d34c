from __future__ import annotations

import attrs
import pytest

from benchmarks.cases import CASES, QUICK, Case, job_name, request
from benchmarks.work import Image


def test_names_are_unique_and_those_of_the_quick_ones_exist() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert set(names) > QUICK


def test_every_row_of_the_bars_has_a_case() -> None:
    bars = {(case.name, bar.measure, bar.limit) for case in CASES for bar in case.bars}
    assert bars >= {
        ("100B-req32-batch32", "ratio", 2.2),
        ("100B-req32-batch32", "cpu", 14),
        ("100B-req1-batch32", "ratio", 3.2),
        ("100B-req1-batch32", "cpu", 22),
        ("10KB-req8-batch32", "cpu", 45),
        ("768floats-req32-batch32", "cpu", 50),
        ("1MB-image", "cpu", 1600),
        ("100B-req32-1000idle", "flat", 1.1),
        ("100B-req32-1000workers", "flat", 1.1),
        ("100B-req32-100k-open", "flat", 1.1),
        ("100B-req32-100k-open", "rss", 200),
        ("paced-100/s", "p99", 25),
        ("lone-eager", "p50", 1),
    }
    costs = [case for case in CASES if case.name.startswith("100B-")]
    assert all(any(bar.measure == "stall" for bar in case.bars) for case in costs)


@pytest.mark.parametrize("case", [case for case in CASES if case.held], ids=lambda case: case.name)
def test_clients_submit_more_than_workers_hold(case: Case) -> None:
    assert case.clients * case.outstanding > case.held
    assert case.jobs > case.held


def test_a_share_of_the_jobs_is_whole_requests_for_every_client() -> None:
    case = Case(name="any", jobs=1_000, jobs_per_request=4, clients=3)
    assert case.whole(1) == 996
    assert case.whole(0.001) == 12
    numbers = [number for numbers in case.numbers(12) for number in numbers]
    assert numbers == list(range(12))
    assert attrs.evolve(case, jobs=0).whole(1) == 0


def test_a_stock_worker_asks_for_nothing() -> None:
    assert set(Case(name="any").worker_config) == {"worker_type", "max_batch_size", "max_latency_ms"}
    assert Case(name="any", progress=1).worker_config["extensions"] == ["progress"]
    assert Case(name="any", progress=1, batched=True).client_extensions == ("progress", "batched_responses")


def test_an_image_is_a_resource_with_its_number_in_it() -> None:
    message = request(Image(1000), [7, 8])
    assert [len(resource["data"]) for resource in message["resources"]] == [1000, 1000]
    assert message["resources"][0]["data"] != message["resources"][1]["data"]
    assert [job["job_id"] for job in message["jobs"]] == [job_name(7), job_name(8)]
